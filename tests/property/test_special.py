"""Special values go the way onnxruntime sends them: nan, inf, -0.0; tensors without elements."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, reject
from hypothesis import strategies as st
from onnx.defs import OpSchema

from onnxinterp import OnnxModule
from onnxinterp.registry import SAMPLES
from tests.property.agreement import assert_agree
from tests.property.drawing import HypothesisDraw
from tests.property.one_node import one_node, to_numpy
from tests.property.oracles import run_onnxruntime
from tests.property.served import NEWEST, kernel_of, label

DETERMINISTIC = [s for s in NEWEST.values() if not kernel_of(s).random]


def check(schema: OpSchema, draw: HypothesisDraw) -> None:
    case = one_node(schema, SAMPLES[kernel_of(schema).function](draw), "settings")
    try:
        want = run_onnxruntime(case.model, case.feeds)
    except Exception:
        reject()  # a version or value that onnxruntime refuses: it says nothing about them
    got = OnnxModule(case.model)(**case.torch_feeds())
    assert_agree(to_numpy(got if isinstance(got, tuple) else [got]), want)


@pytest.mark.parametrize("schema", DETERMINISTIC, ids=label)
@given(data=st.data())
def test_special(schema: OpSchema, data: st.DataObject) -> None:
    check(schema, HypothesisDraw(data, schema, special=True, floating=torch.float32))


@pytest.mark.parametrize("schema", DETERMINISTIC, ids=label)
@given(data=st.data())
def test_empty(schema: OpSchema, data: st.DataObject) -> None:
    check(schema, HypothesisDraw(data, schema, empty=True, floating=torch.float32))
