"""Kernels run on the meta device: they read nothing out of tensors and make none elsewhere."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx.defs import OpSchema
from torch import Tensor

from onnxinterp import NodeError, OnnxModule
from onnxinterp.registry import SAMPLES
from tests.property.drawing import HypothesisDraw
from tests.property.one_node import OneNode, one_node
from tests.property.served import NEWEST, kernel_of, label


def outline(result: Any) -> Any:
    """Shapes and types, without the values."""
    if isinstance(result, (tuple, list)):
        return [outline(r) for r in result]
    if isinstance(result, np.ndarray):
        return result.shape, result.tolist()  # strings
    return (tuple(result.shape), result.dtype) if isinstance(result, Tensor) else result


def devices(result: Any) -> set[str]:
    if isinstance(result, (tuple, list)):
        return {d for r in result for d in devices(r)}
    return {result.device.type} if isinstance(result, Tensor) else set()


def reads_elements(case: OneNode, want: Any) -> bool:
    """Whether the answer has strings that elements of tensors stand for: those of class labels."""
    given = any(isinstance(x, np.ndarray) and x.dtype == object for x in case.feeds.values())
    results = want if isinstance(want, tuple) else (want,)
    return not given and any(isinstance(r, np.ndarray) for r in results)


@pytest.mark.parametrize("schema", NEWEST.values(), ids=label)
@given(data=st.data())
@settings(max_examples=5)
def test_meta(schema: OpSchema, data: st.DataObject) -> None:
    draw = HypothesisDraw(data, schema)
    case = one_node(schema, SAMPLES[kernel_of(schema).function](draw), "settings")
    want = OnnxModule(case.model)(**case.torch_feeds())
    on_meta, feeds = OnnxModule(case.model).to("meta"), case.torch_feeds("meta")
    if kernel_of(schema).data_shaped or reads_elements(case, want):
        with pytest.raises(NodeError):  # what a kernel declares so must be so
            on_meta(**feeds)
        return
    got = on_meta(**feeds)
    assert outline(got) == outline(want)
    assert devices(got) <= {"meta"} or not devices(list(feeds.values()))
