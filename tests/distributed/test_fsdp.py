"""FSDP2: each rank holds half of every parameter, and the losses are those of one process."""

from __future__ import annotations

import ctypes
import gc
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor

from onnxinterp import OnnxModule
from tests.distributed.network import EXPORTERS, batch, exported, original, train
from tests.distributed.ranks import RANKS, Together, part_of

LARGE = {"width": 256, "depth": 12}  # 38 MB of parameters
M_MMAP_THRESHOLD = -3  # of mallopt: larger blocks return to the system when they are freed
each_exporter = pytest.mark.parametrize("exporter", EXPORTERS)


def sharded(module: nn.Module, **options: Any) -> nn.Module:
    """Each block by itself, then what is left at the root."""
    for block in module.get_submodule("blocks").children():
        fully_shard(block, **options)
    return fully_shard(module, **options)


def loaded(exporter: str) -> nn.Module:
    return OnnxModule(exported(exporter)) if exporter else original()


def held(module: nn.Module) -> int:
    """The elements of parameters that this rank has."""
    return sum(p.to_local().numel() for p in module.parameters() if isinstance(p, DTensor))


def by_block(rank: int, exporter: str) -> tuple[int, list[float]]:
    module = sharded(loaded(exporter))
    return held(module), train(module, part_of(rank))


def at_the_root(rank: int, exporter: str) -> tuple[int, list[float]]:
    module = fully_shard(loaded(exporter))
    return held(module), train(module, part_of(rank))


@each_exporter
@pytest.mark.parametrize("work", [by_block, at_the_root])
def test_losses_are_those_of_one_process(exporter: str, work: Any, together: Together) -> None:
    want = train(original())
    assert want[0] - want[-1] > 0.1, "it learns"
    sizes, losses = zip(*together(work, exporter), strict=True)
    assert sum(sizes) == sum(p.numel() for p in original().parameters())
    assert max(sizes) < 0.6 * sum(sizes)
    means = torch.tensor(losses).mean(0)
    torch.testing.assert_close(means, torch.tensor(want), rtol=1e-6, atol=1e-6)
    assert (torch.tensor(losses) - torch.tensor(want)).abs().min() > 1e-4, "each has its own data"
    theirs = [losses for _, losses in together(work, "")]
    torch.testing.assert_close(torch.tensor(losses), torch.tensor(theirs), rtol=1e-6, atol=1e-6)


def under_autocast(rank: int, exporter: str) -> list[float]:
    with torch.autocast("cpu", torch.bfloat16):
        return train(sharded(loaded(exporter)), part_of(rank))


def by_policy(rank: int, exporter: str) -> list[float]:
    policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
    return train(sharded(loaded(exporter), mp_policy=policy), part_of(rank))


@pytest.mark.parametrize(
    ("work", "exporter"),
    [(under_autocast, "dynamo"), (under_autocast, "torchscript"), (by_policy, "dynamo")],
)
def test_mixed_precision(work: Any, exporter: str, together: Together) -> None:
    got, want = torch.tensor(together(work, exporter)), torch.tensor(together(work, ""))
    torch.testing.assert_close(got, want, rtol=1e-2, atol=1e-2)
    exact = torch.tensor(together(by_block, exporter)[0][1])
    assert (got[0] - exact).abs().max() > 1e-5, "it rounds"


def from_meta(rank: int, exporter: str) -> list[float]:
    """Only the rows of this rank are read from the file."""
    module = loaded(exporter)
    whole = module.state_dict()
    module = sharded(module.to("meta")).to_empty(device="cpu")
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            rows = whole[name].chunk(RANKS)
            assert isinstance(parameter, DTensor)
            parameter.to_local().copy_(rows[rank])
    return train(module, part_of(rank))


@each_exporter
def test_from_the_meta_device(exporter: str, together: Together) -> None:
    means = torch.tensor(together(from_meta, exporter)).mean(0)
    torch.testing.assert_close(means, torch.tensor(train(original())), rtol=1e-6, atol=1e-6)


@each_exporter
def test_constants_come_back_from_the_meta_device(exporter: str) -> None:
    module, ids = OnnxModule(exported(exporter)), batch()[0]
    want, weights = module(ids), module.state_dict()
    constants = {n: t for n, t in module.weights.items() if module.weights.path(n) not in weights}
    assert constants
    module.to("meta").to_empty(device="cpu")
    assert all(torch.equal(module.weights[name], t) for name, t in constants.items())
    module.load_state_dict(weights)
    assert torch.equal(module(ids), want)


def peak(rank: int, file: Path, shard: bool) -> float:
    """The memory that training takes at most, in MB."""
    ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, 2**16)
    train(fully_shard(loaded("dynamo")) if shard else loaded("dynamo"))  # it imports much
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # the peak is now what is in use
    before = _peak()
    module = OnnxModule(file)
    train(sharded(module) if shard else module, part_of(rank))
    dist.barrier()
    return _peak() - before


def _peak() -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024e-6 for line in lines if line.startswith("VmHWM"))


def test_a_rank_takes_little_more_than_half_of_the_memory(
    together: Together, tmp_path: Path
) -> None:
    file = tmp_path / "m.onnx"
    model = onnx.load(exported("torchscript", **LARGE))
    onnx.save(model, file, save_as_external_data=True, location="m.bin")
    whole, shards = together(peak, file, False), together(peak, file, True)
    parameters = 4e-6 * sum(p.numel() for p in original(**LARGE).parameters())
    assert min(whole) > 3.8 * parameters, "parameters, gradients and two moments"
    assert max(shards) < 0.65 * min(whole)
