"""torch.distributed.pipelining: a model in two stages, split at one of its blocks."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.distributed.pipelining import ScheduleGPipe, SplitPoint, pipeline

from onnxinterp import OnnxModule
from tests.distributed.network import DEPTH, EXPORTERS, batch, exported, loss_of, original
from tests.distributed.ranks import RANKS, Together

MIDDLE = f"blocks.{DEPTH // 2}"
Stage = tuple[Tensor | None, dict[str, Tensor]]
each_exporter = pytest.mark.parametrize("exporter", EXPORTERS)


def stage(rank: int, exporter: str) -> Stage:
    """What the schedule returns, and the gradients of the parameters of this stage."""
    module = OnnxModule(exported(exporter))
    ids, wanted = batch()
    pipe = pipeline(module, (ids.chunk(2)[0],), split_spec={MIDDLE: SplitPoint.BEGINNING})
    assert pipe.num_stages == RANKS
    built = pipe.build_stage(rank, torch.device("cpu"))
    schedule = ScheduleGPipe(built, n_microbatches=2, loss_fn=loss_of)
    result = schedule.step(ids) if rank == 0 else schedule.step(target=wanted)
    return result, {n: p.grad for n, p in built.submod.named_parameters() if p.grad is not None}


@each_exporter
def test_outputs_and_gradients_are_those_of_the_whole(exporter: str, together: Together) -> None:
    network, (ids, wanted) = original(), batch()
    whole = network(ids)
    loss_of(whole, wanted).backward()
    (_, first), (result, last) = together(stage, exporter)
    torch.testing.assert_close(result, whole)
    assert all(name.startswith(("words", "blocks.0", "blocks.1")) for name in first)
    assert all(name.startswith(("blocks.2", "blocks.3", "norm", "head")) for name in last)
    want = {name: parameter.grad for name, parameter in network.named_parameters()}
    torch.testing.assert_close(first | last, want)


@each_exporter
def test_a_plan_that_an_export_made_serves_later_calls(exporter: str) -> None:
    """It has no tensors of the export."""
    module, ids, calls = OnnxModule(exported(exporter)), batch()[0], []
    program = torch.export.export(module, (ids,))
    module.get_submodule(MIDDLE).register_forward_hook(lambda *_: calls.append(1))
    torch.testing.assert_close(module(ids), original()(ids))
    torch.testing.assert_close(program.module()(ids), original()(ids))
    assert calls
