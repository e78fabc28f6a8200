"""Exports computed in half precision: as near to float32 as the network itself in that type."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from onnxinterp import OnnxModule
from tests.exports.comparison import as_tuple
from tests.exports.conftest import Subject

TOLERANCE = {torch.bfloat16: 3e-2, torch.float16: 4e-3, torch.float64: 2e-5}
"""Relative errors in the 2-norm; bfloat16 has 8 bits, and the networks have some ten layers."""


def errors(got: Sequence[Tensor], want: Sequence[Tensor]) -> list[float]:
    """The relative error of each output: of integers, the share of elements that differ."""
    found = []
    for g, w in zip(got, want, strict=True):
        assert g.shape == w.shape
        if w.is_floating_point():
            found.append(float((g.double() - w.double()).norm() / w.double().norm()))
        else:
            found.append(float((g != w).double().mean()))
    return found


def cast(inputs: Sequence[Tensor], dtype: torch.dtype) -> list[Tensor]:
    return [x.to(dtype) if x.is_floating_point() else x for x in inputs]


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_equals_float32_within_the_type(subject: Subject, dtype: torch.dtype) -> None:
    case, network = subject.case, subject.case.module()
    module = OnnxModule(subject.path, dtype=dtype)
    for sizes in (*case.sizes[:2], *case.edges):
        inputs = case.arguments(sizes)
        want = as_tuple(network(*inputs))
        got = as_tuple(module(*cast(inputs, dtype)))
        floats = [w.is_floating_point() for w in want]
        assert [g.dtype is dtype for g in got] == floats
        if all(w.numel() for w in want):
            assert max(errors(got, want)) < TOLERANCE[dtype], sizes


def test_fewer_bits_are_noticed(subject: Subject) -> None:
    """The negative control: weights with 3 bits in place of 8 are beyond the tolerance."""
    dtype = torch.bfloat16
    case, module = subject.case, OnnxModule(subject.path, dtype=dtype)
    inputs = case.arguments(case.sizes[1])
    want = as_tuple(case.module()(*inputs))
    with torch.no_grad():
        for weight in module.parameters():
            weight.copy_(_rounded(weight, bits=3))
    assert max(errors(as_tuple(module(*cast(inputs, dtype))), want)) > TOLERANCE[dtype]


def _rounded(x: Tensor, bits: int) -> Tensor:
    mantissa, exponent = torch.frexp(x.float())
    return torch.ldexp((mantissa * 2**bits).round() / 2**bits, exponent)
