"""What shards, splits, exports and offloads a network goes by its modules and their names."""

from __future__ import annotations

import copy
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.pipelining import SplitPoint, pipeline
from torch.distributed.tensor import DTensor, Replicate
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module
from torch.nn.parallel import DistributedDataParallel

from tests.citizen.checks.comparing import (
    GRADIENTS,
    Inputs,
    backward,
    require,
    same,
    same_gradients,
    same_names,
    same_outputs,
    same_values,
)
from tests.citizen.checks.hooks import outputs_of
from tests.citizen.checks.names import state
from tests.citizen.checks.table import LEAVES, row
from tests.citizen.networks import another, blocks, layers


@contextmanager
def one_process() -> Iterator[DeviceMesh]:
    """A process group of this process alone."""
    hook = sys.excepthook  # torch puts another before it each time
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        yield init_device_mesh("cpu", (1,))
    finally:
        dist.destroy_process_group()
        sys.excepthook = hook


def _whole(values: dict[str, Tensor]) -> dict[str, Tensor]:
    return {n: v.full_tensor() if isinstance(v, DTensor) else v for n, v in values.items()}


@row("scale-out", "FSDP2: fully_shard on each block and the root", "noise", "shadow", "renamed")
def fsdp(original: nn.Module, module: nn.Module, inputs: Inputs) -> None:
    with one_process() as mesh:
        for m in (module, original):
            for name in blocks(original):
                fully_shard(m.get_submodule(name), mesh=mesh)
            fully_shard(m, mesh=mesh)
        kinds = [type(module.get_submodule(n)) for n in blocks(original)]
        require(all(issubclass(k, FSDPModule) for k in kinds), "blocks are not sharded")
        got, want = (_whole(backward(m, inputs)) for m in (module, original))
        same(got, want, "gradients", GRADIENTS)
        same_outputs(original, module, inputs)
        same(_whole(state(module)), _whole(state(original)), "entries of the state dict")


@row("scale-out", "DistributedDataParallel", "noise", "renamed")
def ddp(original: nn.Module, module: nn.Module, inputs: Inputs) -> None:
    with one_process():
        wrapped = [DistributedDataParallel(m) for m in (module, original)]
        same_gradients(wrapped[1], wrapped[0], inputs)


@row("scale-out", "pipelining: two stages, split at a block", "noise", "shadow")
def pipelining(original: nn.Module, module: nn.Module, inputs: Inputs) -> None:
    split = {blocks(original)[-1]: SplitPoint.BEGINNING}
    want = original(*inputs)
    found = []
    for m in (module, original):
        pipe = pipeline(m, mb_args=inputs, split_spec=split)
        require(pipe.num_stages == 2, "the pipeline has another number of stages", pipe.num_stages)
        same_values(pipe(*inputs), want, "outputs")
        stages = [pipe.get_stage_module(number) for number in range(2)]
        found.append([{n for n, _ in stage.named_parameters()} for stage in stages])
    for got, expected in zip(*found, strict=True):
        same_names(got, expected, "parameters of a stage")


@row("scale-out", "torch.export and unflatten", "noise", "renamed", "shadow")
def unflatten(original: nn.Module, module: nn.Module, inputs: Inputs) -> None:
    """The module tree and the values of the original."""
    programs = [torch.export.export(m, inputs) for m in (module, original)]
    got, want = (torch.export.unflatten(program) for program in programs)
    same_outputs(original, got, inputs)
    called = [
        {n for n, calls in outputs_of(m, blocks(original), inputs).items() if calls}
        for m in (got, want)
    ]
    same_names(*called, "modules that are called")
    same_names(dict(got.named_parameters()), dict(want.named_parameters()), "parameters")


@row("scale-out", "distributed checkpoint of the original", "renamed")
def checkpoint(original: nn.Module, module: nn.Module, inputs: Inputs) -> None:
    source = another(original)
    with tempfile.TemporaryDirectory() as folder:
        dcp.save(source.state_dict(), checkpoint_id=folder, no_dist=True)
        weights = state(module)
        dcp.load(weights, checkpoint_id=folder, no_dist=True)
        module.load_state_dict(weights)
    same_outputs(source, module, inputs)


def _kinds(original: nn.Module, module: nn.Module) -> list[str]:
    """Names of the classes of the blocks, as no_split_module_classes asks for them."""
    return sorted({type(module.get_submodule(name)).__name__ for name in blocks(original)})


@row("scale-out", "accelerate: device map that splits no block", "untyped", package="accelerate")
def device_map(original: nn.Module, module: nn.Module, inputs: Inputs) -> None:
    """Places are equal, in a memory that holds all but the last block and what follows it."""
    from accelerate import infer_auto_device_map

    sizes = [_bytes(original.get_submodule(n)) for n in blocks(original)]
    room = _bytes(original) - sizes[-1]
    maps = [
        infer_auto_device_map(
            m,
            max_memory={"cpu": room, "disk": 10**9},
            no_split_module_classes=_kinds(original, m),
        )
        for m in (module, original)
    ]
    got, want = (_places(original, places) for places in maps)
    differing = {n: (got[n], want[n]) for n in want if got[n] != want[n]}
    require(not differing, "the device maps differ", str(differing))


def _bytes(module: nn.Module) -> int:
    return sum(t.numel() * t.element_size() for t in module.state_dict().values())


def _places(original: nn.Module, places: dict[str, Any]) -> dict[str, list[Any]]:
    """Where the parameters of each block and layer are."""
    found: dict[str, list[Any]] = {}
    for name in (*blocks(original), *layers(original)):
        parameters = [f"{name}.{n}" for n, _ in original.get_submodule(name).named_parameters()]
        devices = {str(p) for w in parameters for k, p in places.items() if _is_in(w, k)}
        found[name] = sorted(devices)
    return found


def _is_in(weight: str, prefix: str) -> bool:
    return not prefix or weight == prefix or weight.startswith(f"{prefix}.")


@row("scale-out", "accelerate: cpu_offload", "noise", "shadow", package="accelerate")
def cpu_offload(original: nn.Module, module: nn.Module, inputs: Inputs) -> None:
    from accelerate import cpu_offload as offload

    _offloaded(original, module, inputs, lambda m: offload(m, execution_device="cpu"))


@row("scale-out", "accelerate: disk_offload", "noise", "shadow", package="accelerate")
def disk_offload(original: nn.Module, module: nn.Module, inputs: Inputs) -> None:
    from accelerate import disk_offload as offload

    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as two:
        folders = iter((one, two))
        _offloaded(
            original, module, inputs, lambda m: offload(m, next(folders), execution_device="cpu")
        )


@row(
    "scale-out",
    "accelerate: dispatch_model, a block on disk",
    "noise",
    "shadow",
    package="accelerate",
)
def dispatch(original: nn.Module, module: nn.Module, inputs: Inputs) -> None:
    from accelerate import dispatch_model

    outside = [n for n in _top(original) if not _is_in(blocks(original)[-1], n)]
    places: dict[str, Any] = dict.fromkeys(outside, "cpu") | {blocks(original)[-1]: "disk"}
    rest = [n for n in blocks(original)[:-1] if not any(_is_in(n, o) for o in outside)]
    places |= dict.fromkeys(rest, "cpu")
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as two:
        folders = iter((one, two))
        _offloaded(
            original,
            module,
            inputs,
            lambda m: dispatch_model(
                m, places, main_device="cpu", offload_dir=next(folders), force_hooks=True
            ),
            blocks(original)[-1],
        )


def _top(original: nn.Module) -> list[str]:
    """The parameters and modules of the root."""
    own = [n for n, _ in original.named_parameters(recurse=False)]
    return [*own, *(n for n, _ in original.named_children())]


def _offloaded(
    original: nn.Module, module: nn.Module, inputs: Inputs, offload: Any, where: str = ""
) -> None:
    want = copy.deepcopy(original)
    for m in (module, original):
        offload(m)
        devices = {p.device.type for p in m.get_submodule(where).parameters()}
        require(devices == {"meta"}, "weights are not offloaded", str(devices))
        for _ in range(2):
            same_outputs(want, m, inputs)


@row(
    "scale-out",
    'tensor parallel linear layers, leaves="nn"',
    "noise",
    "shadow",
    "untyped",
    options=LEAVES,
)
def tensor_parallel(original: nn.Module, module: nn.Module, inputs: Inputs) -> None:
    """Every other layer by columns, every other by rows."""
    names = [n for n in layers(original, nn.Linear) if not _is_shared(original, n)]
    plan: dict[str, Any] = {}
    for number, name in enumerate(names):
        whole = Replicate()
        plan[name] = (
            RowwiseParallel(input_layouts=whole)
            if number % 2
            else ColwiseParallel(output_layouts=whole)
        )
    with one_process() as mesh:
        found = []
        for m in (module, original):
            parallelize_module(m, mesh, plan)
            sharded = {n for n, p in m.named_parameters() if isinstance(p, DTensor)}
            found.append((sharded, _whole(backward(m, inputs)), m(*inputs)))
        same_names(found[0][0], found[1][0], "sharded parameters")
        same(found[0][1], found[1][1], "gradients", GRADIENTS)
        same_values(found[0][2], found[1][2], "outputs")


def _is_shared(original: nn.Module, name: str) -> bool:
    """Whether its weight has a second name, by which it is read elsewhere."""
    weight = original.get_parameter(f"{name}.weight")
    same_weight = [n for n, p in original.named_parameters(remove_duplicate=False) if p is weight]
    return len(same_weight) > 1
