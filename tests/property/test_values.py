"""Every version answers what the oracle answers, be its inputs given or constants of the model."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx.defs import OpSchema

from onnxinterp import OnnxModule
from onnxinterp.registry import SAMPLES
from tests.property.agreement import assert_agree
from tests.property.drawing import HypothesisDraw
from tests.property.one_node import one_node, to_numpy
from tests.property.oracles import judge
from tests.property.served import SERVED, kernel_of, label


@pytest.mark.parametrize("schema", SERVED, ids=label)
@given(data=st.data())
def test_values(schema: OpSchema, data: st.DataObject) -> None:
    kernel = kernel_of(schema)
    call = SAMPLES[kernel.function](HypothesisDraw(data, schema))
    case = one_node(schema, call, data.draw(st.sampled_from(["none", "settings", "all"])))
    want = judge(label(schema), case.model, case.feeds)
    got = OnnxModule(case.model)(**case.torch_feeds())
    got = list(got) if isinstance(got, tuple) else [got]
    assert len(got) == len(want)
    for index, (g, w) in enumerate(zip(to_numpy(got), want, strict=True)):
        if kernel.random:
            assert (g.shape, g.dtype) == (w.shape, w.dtype)
        else:
            assert_agree(g, w, f"output {index}")
