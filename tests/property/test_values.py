"""Every version answers what the oracle answers, be its inputs given or constants of the model."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx.defs import OpSchema
from torch import Tensor

from onnxinterp import OnnxModule
from onnxinterp.dtypes import CARRIER
from tests.property.agreement import assert_agree
from tests.property.drawing import HypothesisDraw
from tests.property.one_node import OneNode, drawn
from tests.property.oracles import judge
from tests.property.served import SERVED, kernel_of, label


@pytest.mark.parametrize("schema", SERVED, ids=label)
@given(data=st.data())
def test_values(schema: OpSchema, data: st.DataObject) -> None:
    constants = data.draw(st.sampled_from(["none", "settings", "all"]))
    check(schema, drawn(schema, HypothesisDraw(data, schema), constants))


def check(schema: OpSchema, case: OneNode) -> None:
    """A module of the one node answers what the oracle answers."""
    want, asked = judge(schema, case)
    got = OnnxModule(case.model)(**case.torch_feeds())
    got = list(got) if isinstance(got, tuple) else [got]
    types = [CARRIER.get(t) for t in (*case.types.values(), *asked.types.values())]
    types += [value.dtype for value in case.call.inputs if isinstance(value, Tensor)]
    assert len(got) == len(want)
    for index, (g, w) in enumerate(zip(got, want, strict=True)):
        if kernel_of(schema).random:
            assert (g.shape, g.dtype) == (w.shape, w.dtype)
        else:
            assert_agree(g, w, f"output {index}", types)
