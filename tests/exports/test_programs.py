"""Exported networks as programs: the loop's results and gradients, for data it has not seen."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from onnxinterp import OnnxModule
from tests.exports.comparison import as_tuple, disagreements
from tests.exports.conftest import OLDEST_AND_NEWEST, Subject
from tests.exports.test_gradients import backward
from tests.programs import assert_same, compiled, looped, runs, warm

oldest_and_newest = pytest.mark.parametrize("subject", OLDEST_AND_NEWEST, indirect=True)


@oldest_and_newest
def test_without_gradients(subject: Subject) -> None:
    case, module, loop = subject.case, subject.module(), looped(subject.path)
    with torch.no_grad():
        for sizes in case.sizes[:2]:
            warm(module, *case.arguments(sizes))
            for seed in (1, 2):
                inputs = case.arguments(sizes, seed)
                kept = [x.clone() for x in inputs]
                got = as_tuple(module(*inputs))
                assert disagreements(got, as_tuple(loop(*inputs))) == {}
                first = [t.clone() for t in got]
                module(*case.arguments(sizes, 3))
                assert_same(got, first)
                assert_same(inputs, kept)
    made = [m for m in compiled(module) if m is not None]
    assert len(made) == 2


def gradients(module: OnnxModule, inputs: Sequence[Tensor]) -> list[Tensor | None]:
    module.zero_grad()
    backward(module, inputs)
    return [p.grad for p in module.parameters()]


@oldest_and_newest
def test_gradients(subject: Subject) -> None:
    case, module, loop = subject.case, subject.module(), looped(subject.path)
    for sizes in case.sizes[:2]:
        warm(module, *case.arguments(sizes))
        warm(loop, *case.arguments(sizes))  # a plan for these sizes folds some steps
        for seed in (1, 2):
            inputs = case.arguments(sizes, seed)
            assert_same(module(*inputs), loop(*inputs))
            assert_same(gradients(module, inputs), gradients(loop, inputs))
    made = [m for m in compiled(module) if m is not None]
    assert len(made) == 2
    assert runs(made[-1], lambda: module(*inputs)) + made[-1].deviations >= 1
