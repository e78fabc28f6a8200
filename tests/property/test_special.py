"""Special values go the way onnxruntime sends them: nan, inf, -0.0; tensors without elements."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import Phase, given, reject, settings
from hypothesis import strategies as st
from hypothesis.errors import InvalidArgument
from onnx.defs import OpSchema
from torch import Tensor

from onnxinterp import OnnxModule
from onnxinterp.testing.samples import Call
from onnxinterp.versions import sample_of
from tests.property.agreement import assert_agree
from tests.property.drawing import HypothesisDraw
from tests.property.formulas import is_judged_by_formula
from tests.property.one_node import one_node
from tests.property.oracles import run_onnxruntime
from tests.property.served import CURRENT, kernel_of, label

JUDGED = [
    s
    for s in CURRENT
    if not kernel_of(s).random
    and not is_judged_by_formula(s.name, s.domain)  # only onnxruntime is asked
]


def _tame_settings(schema: OpSchema, call: Call) -> Call:
    """Bounds, scales and exponents stay finite: the oracle says nothing of a bound that is nan."""
    kernel, inputs = kernel_of(schema), list(call.inputs)
    for index, value in enumerate(inputs):
        parameter = kernel.parameter(index)
        frozen = parameter is not None and parameter.name in kernel.frozen
        if frozen and isinstance(value, Tensor) and value.is_floating_point():
            inputs[index] = value.nan_to_num(0, 1, -1)
    return replace(call, inputs=tuple(inputs))


def check(schema: OpSchema, draw: HypothesisDraw) -> None:
    try:
        call = sample_of(kernel_of(schema).function)(draw)
    except InvalidArgument:
        reject()  # nothing to point at: an index into an empty tensor
    case = one_node(schema, _tame_settings(schema, call), draw.types, "settings")
    try:
        want = run_onnxruntime(case)
    except Exception:
        reject()  # a version or value that onnxruntime refuses: it says nothing about them
    got = OnnxModule(case.model)(**case.torch_feeds())
    assert_agree(list(got) if isinstance(got, tuple) else [got], want)


@pytest.mark.parametrize("schema", JUDGED, ids=label)
@given(data=st.data())
@settings(phases=[Phase.generate])  # what is known to differ need not be shrunk
def test_special(schema: OpSchema, data: st.DataObject) -> None:
    check(schema, HypothesisDraw(data, schema, special=True, floating=torch.float32))


@pytest.mark.parametrize("schema", JUDGED, ids=label)
@given(data=st.data())
@settings(phases=[Phase.generate])
def test_empty(schema: OpSchema, data: st.DataObject) -> None:
    check(schema, HypothesisDraw(data, schema, empty=True, floating=torch.float32))
