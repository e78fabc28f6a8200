"""The gradient of every kernel that has one is the slope of its values, in float64.

It is taken for inputs and for the weights that a node holds in its attributes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx.defs import OpSchema
from torch import Tensor
from torch.func import functional_call

from onnxinterp import OnnxModule
from tests.property import record
from tests.property.drawing import HypothesisDraw
from tests.property.one_node import OneNode, drawn
from tests.property.served import NEWEST, kernel_of, label

STEP = (1e-6, 1e-4)  # of the finite difference, and its tolerance
NARROW = {torch.float32}  # what some schemas have come out whatever goes in
NARROW_STEP = (1e-2, 2e-2)

HAS_A_SLOPE = [
    schema
    for schema in NEWEST.values()
    if not (kernel := kernel_of(schema)).random and "straight_through" not in kernel.keywords
]


def differentiable(case: OneNode, schema: OpSchema) -> list[str]:
    """Names of the floating inputs that are not settings; sequences of tensors are, too."""
    kernel, names = kernel_of(schema), []
    for name, value in case.torch_feeds().items():
        parameter = kernel.parameter(int(name[1:]))
        assert parameter is not None
        if floating(value) and parameter.name not in {*kernel.frozen, *kernel.state}:
            names.append(name)
    return names


def floating(value: Any) -> list[Tensor]:
    """All tensors in a value that a slope can be seen in, the empty ones apart."""
    if isinstance(value, (tuple, list)):
        return [t for v in value for t in floating(v)]
    fine = isinstance(value, Tensor) and value.dtype in (*NARROW, torch.float64, torch.complex128)
    return [value] if fine and value.numel() else []


def refilled(value: Any, tensors: Iterator[Tensor]) -> Any:
    """The value with its floating tensors replaced, in order."""
    if isinstance(value, (tuple, list)):
        return [refilled(v, tensors) for v in value]
    return next(tensors) if floating(value) else value


@pytest.mark.parametrize("schema", HAS_A_SLOPE, ids=label)
@given(data=st.data())
@settings(max_examples=5)
def test_gradients(schema: OpSchema, data: st.DataObject) -> None:
    case = drawn(schema, HypothesisDraw(data, schema, floating=torch.float64), "settings")
    module, feeds = OnnxModule(case.model).double(), case.torch_feeds()
    names, weights = differentiable(case, schema), dict(module.named_parameters())

    def run(*values: Tensor) -> list[Tensor]:
        remaining = iter(values)
        given = {n: refilled(feeds[n], remaining) for n in names}
        held = dict(zip(weights, remaining, strict=True))
        return floating(functional_call(module, held, (), {**feeds, **given}))

    def run_double(*values: Tensor) -> tuple[Tensor, ...]:
        wide = (t.double() if t.dtype in NARROW else t for t in run(*values))
        return tuple(t for t in wide if t.requires_grad)

    given = [t.double().requires_grad_() for n in names for t in floating(feeds[n])]
    inputs = (*given, *weights.values())
    outputs = run(*inputs)
    follows = any(t.requires_grad for t in outputs)
    rank = bool(inputs) and (3 if follows else 2 if outputs else 1)
    record.gradient(label(schema), record.FOUND[rank])
    if follows:
        narrow = any(t.dtype in NARROW for t in outputs if t.requires_grad)
        eps, atol = NARROW_STEP if narrow else STEP
        assert torch.autograd.gradcheck(run_double, inputs, eps=eps, fast_mode=True, atol=atol)
