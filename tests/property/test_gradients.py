"""The gradient of every kernel that has one is the slope of its values, in float64.

It is taken for inputs and for the weights that a node holds in its attributes.
"""

from __future__ import annotations

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
NARROW_STEP = (1e-3, 1e-2)  # where the schema has float32 come out whatever goes in

DETERMINISTIC = [s for s in NEWEST.values() if not kernel_of(s).random]


def differentiable(case: OneNode, schema: OpSchema) -> list[str]:
    """Names of the floating inputs that are not settings, nor empty."""
    kernel, names = kernel_of(schema), []
    for name, value in case.torch_feeds().items():
        parameter = kernel.parameter(int(name[1:]))
        assert parameter is not None
        floating = isinstance(value, Tensor) and value.is_floating_point() and value.numel()
        if floating and parameter.name not in {*kernel.frozen, *kernel.state}:
            names.append(name)
    return names


def flat(result: Any) -> list[Tensor]:
    """All tensors in a result that carry a gradient and are fine enough to see a slope in."""
    if isinstance(result, (tuple, list)):
        return [t for r in result for t in flat(r)]
    fine = isinstance(result, Tensor) and result.dtype in (torch.float64, torch.complex128)
    return [result] if fine and result.requires_grad else []


@pytest.mark.parametrize("schema", DETERMINISTIC, ids=label)
@given(data=st.data())
@settings(max_examples=5)
def test_gradients(schema: OpSchema, data: st.DataObject) -> None:
    case = drawn(schema, HypothesisDraw(data, schema, floating=torch.float64), "settings")
    module, feeds = OnnxModule(case.model).double(), case.torch_feeds()
    names, weights = differentiable(case, schema), dict(module.named_parameters())

    def run(*values: Tensor) -> tuple[Tensor, ...]:
        given = dict(zip((*names, *weights), values, strict=True))
        held = {n: given.pop(n) for n in weights}
        return tuple(flat(functional_call(module, held, (), {**feeds, **given})))

    def run_double(*values: Tensor) -> tuple[Tensor, ...]:
        return tuple(t.double() for t in run(*values))

    inputs = (*(feeds[n].double().requires_grad_() for n in names), *weights.values())
    if inputs and (outputs := run(*inputs)):
        record.GRADIENT.add(label(schema))
        narrow = any(t.dtype is not torch.float64 for t in outputs)
        eps, atol = NARROW_STEP if narrow else STEP
        assert torch.autograd.gradcheck(run_double, inputs, eps=eps, fast_mode=True, atol=atol)
