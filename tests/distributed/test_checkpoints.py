"""torch.distributed.checkpoint: what one wrote, sharded or not, another continues."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.distributed.checkpoint as dcp
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_state_dict,
    set_model_state_dict,
    set_state_dict,
)

from onnxinterp import OnnxModule
from tests.distributed.network import EXPORTERS, batch, exported, original, run
from tests.distributed.ranks import Together
from tests.distributed.test_fsdp import sharded

each_exporter = pytest.mark.parametrize("exporter", EXPORTERS)


def write_original(rank: int, folder: Path) -> Tensor:
    """The original, sharded, with other weights than those that were exported."""
    network = sharded(original())
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(1.25)
    dcp.save(get_model_state_dict(network), checkpoint_id=folder)
    return network(batch()[0]).detach()


def read(rank: int, folder: Path, exporter: str) -> list[Tensor]:
    """Into a sharded module, and into a whole one."""
    results = []
    for module in (sharded(OnnxModule(exported(exporter))), OnnxModule(exported(exporter))):
        state = get_model_state_dict(module)
        dcp.load(state, checkpoint_id=folder)
        set_model_state_dict(module, state)
        results.append(module(batch()[0]).detach())
    return results


@each_exporter
def test_the_checkpoint_of_the_original(exporter: str, together: Together, tmp_path: Path) -> None:
    want = together(write_original, tmp_path)[0]
    assert not torch.allclose(want, original()(batch()[0]), atol=1e-2)
    for results in together(read, tmp_path, exporter):
        for result in results:
            torch.testing.assert_close(result, want)


def continued(rank: int, folder: Path, kind: str) -> tuple[list[float], list[float]]:
    """Losses after a checkpoint, and those of another module that starts from it."""
    runs = []
    for _ in range(2):
        module: nn.Module = OnnxModule(exported()) if kind == "onnx" else original()
        module = sharded(module)
        optimizer = torch.optim.AdamW(module.parameters(), lr=0.01)
        if not runs:
            run(module, optimizer, map(batch, [0, 1]))
            weights, moments = get_state_dict(module, optimizer)
            dcp.save({"weights": weights, "moments": moments}, checkpoint_id=folder)
        else:
            weights, moments = get_state_dict(module, optimizer)
            dcp.load({"weights": weights, "moments": moments}, checkpoint_id=folder)
            set_state_dict(module, optimizer, model_state_dict=weights, optim_state_dict=moments)
        runs.append(run(module, optimizer, map(batch, [2, 3])))
    return runs[0], runs[1]


def test_training_continues(together: Together, tmp_path: Path) -> None:
    ours, theirs = (
        together(continued, tmp_path / "a", "onnx"),
        together(continued, tmp_path / "b", ""),
    )
    for before, after in ours:
        assert before == after
    torch.testing.assert_close(torch.tensor(ours), torch.tensor(theirs), rtol=1e-6, atol=1e-6)


def write_onnx(rank: int, path: Path) -> Tensor:
    """The weights of all ranks, changed, as ONNX."""
    module = sharded(OnnxModule(exported()))
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.mul_(1.25)
    options = StateDictOptions(full_state_dict=True, cpu_offload=True)
    state = get_model_state_dict(module, options=options)
    if rank == 0:
        whole = OnnxModule(exported())
        whole.load_state_dict(state)
        whole.save_onnx(path)
    return module(batch()[0]).detach()


def test_trained_shards_are_written_to_onnx(together: Together, tmp_path: Path) -> None:
    want = together(write_onnx, tmp_path / "m.onnx")[0]
    torch.testing.assert_close(OnnxModule(tmp_path / "m.onnx")(batch()[0]), want)
