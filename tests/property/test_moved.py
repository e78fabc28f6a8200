"""Every operator in a module that was moved to another floating type, or to the meta device."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest
import torch
from onnx import TensorProto
from onnx.defs import OpSchema
from torch import Tensor

from onnxinterp import NodeError, OnnxModule
from onnxinterp.dtypes import CARRIER
from tests.property.drawing import COMMON, SeededDraw
from tests.property.one_node import OneNode, drawn
from tests.property.served import NEWEST, kernel_of, label
from tests.property.test_meta import devices, on_host, outline

ONLY = tuple(t for t in COMMON if t == TensorProto.FLOAT or not CARRIER[t].is_floating_point)
OTHERS = {
    "BitCast",  # its meaning hangs on the width of the type
    "TreeEnsembleClassifier",  # its scores are float32 whatever its weights are
}
ONLY_HALVES = {
    "GemmaRotaryEmbedding",
    "MatMulBlockQuantizedFp4Weight",
    "MatMulBlockQuantizedFp8Weight",
    "RMSNormRotary",
}
"""Operators without a form in float32: their modules are moved from 16 bits."""
HALVES = (torch.float16, torch.bfloat16)
MOVED = [s for s in NEWEST.values() if s.name not in OTHERS]


def case_of(schema: OpSchema, seed: int, constants: str) -> OneNode:
    return drawn(schema, SeededDraw(f"{label(schema)} {seed}", schema, only=ONLY), constants)


def flat(result: Any) -> list[Any]:
    several = isinstance(result, (tuple, list))
    return [x for r in result for x in flat(r)] if several else [result]


def dtype_after(schema: OpSchema, before: torch.dtype, to: torch.dtype) -> torch.dtype:
    """The dtype of an output of a module with weights that was moved."""
    is_moved = before is torch.float32 or (schema.name in ONLY_HALVES and before in HALVES)
    return to if is_moved else before


def moved(value: Any, dtype: torch.dtype) -> Any:
    if isinstance(value, list):
        return [moved(v, dtype) for v in value]
    floating = isinstance(value, Tensor) and value.is_floating_point()
    return value.to(dtype) if floating else value


@contextmanager
def suppress_unimplemented() -> Iterator[None]:
    """Pass over what torch has no kernel for; any other failure is one."""
    try:
        yield
    except NodeError as error:
        if "not implemented for 'Half'" not in str(error.__cause__):
            raise


@pytest.mark.parametrize("schema", MOVED, ids=label)
@pytest.mark.parametrize("constants", ["settings", "all"])
def test_double(schema: OpSchema, constants: str) -> None:
    """The numbers of the float32 module, in float64 wherever it has float32."""
    if kernel_of(schema).random:
        return
    case = case_of(schema, 0, constants)
    module = OnnxModule(case.model)
    want, feeds = module(**case.torch_feeds()), case.torch_feeds()
    has_floats = any(t.is_floating_point() for t in module.weights.values())
    module.double()
    got = module(**{n: moved(v, torch.float64) for n, v in feeds.items()})
    for g, w in zip(flat(got), flat(want), strict=True):
        if not isinstance(w, Tensor):
            continue
        if has_floats:
            assert g.dtype is dtype_after(schema, w.dtype, torch.float64)
        assert g.shape == w.shape
        near = 2e-2 if schema.name in ONLY_HALVES else 1e-3
        torch.testing.assert_close(g.to(w.dtype), w, rtol=near, atol=near, equal_nan=True)


@pytest.mark.parametrize("schema", MOVED, ids=label)
@pytest.mark.parametrize("constants", ["settings", "all"])
def test_half(schema: OpSchema, constants: str) -> None:
    """It runs, or torch has no such kernel for half precision."""
    case = case_of(schema, 0, constants)
    want, feeds = OnnxModule(case.model)(**case.torch_feeds()), case.torch_feeds()
    module = OnnxModule(case.model).half()
    halves, got = {n: moved(v, torch.float16) for n, v in feeds.items()}, None
    with suppress_unimplemented():
        got = module(**halves)
    if got is not None and not kernel_of(schema).data_shaped:
        assert [x.shape for x in flat(got) if isinstance(x, Tensor)] == [
            x.shape for x in flat(want) if isinstance(x, Tensor)
        ]


WITHOUT_BFLOAT16 = {"ai.onnx.ml::SVMRegressor-1": "cdist"}
"""Version of an operator -> the function of torch that does not know bfloat16."""
BFLOAT16_ERROR = 3e-2  # relative, in the 2-norm: 8 bits


@pytest.mark.parametrize("schema", MOVED, ids=label)
@pytest.mark.parametrize("constants", ["settings", "all"])
def test_bfloat16(schema: OpSchema, constants: str) -> None:
    """The floats of the float32 module, with fewer bits; no kernel fails that torch has."""
    case = case_of(schema, 0, constants)
    want = OnnxModule(case.model)(**case.torch_feeds())
    module = OnnxModule(case.model, dtype=torch.bfloat16)
    feeds = {n: moved(v, torch.bfloat16) for n, v in case.torch_feeds().items()}
    if label(schema) in WITHOUT_BFLOAT16:
        with pytest.raises(NodeError, match=f"{WITHOUT_BFLOAT16[label(schema)]}.*BFloat16"):
            module(**feeds)
        return
    got = module(**feeds)
    if kernel_of(schema).random:
        return
    for g, w in zip(flat(got), flat(want), strict=True):
        if not isinstance(w, Tensor):
            continue
        g, w = g.detach(), w.detach()
        assert g.shape == w.shape
        assert g.dtype in (w.dtype, dtype_after(schema, w.dtype, torch.bfloat16))
        if w.is_floating_point() or w.is_complex():
            assert torch.equal(g.isnan(), w.isnan())
            error = (g.to(w.dtype) - w).nan_to_num().norm()
            assert error <= BFLOAT16_ERROR * w.nan_to_num().norm() + 1e-3


@pytest.mark.parametrize("schema", NEWEST.values(), ids=label)
def test_meta_with_constants(schema: OpSchema) -> None:
    """Shapes and types, also where all inputs are constants of the file."""
    case = case_of(schema, 0, "all")
    module = OnnxModule(case.model)
    want, on_meta = module(**case.torch_feeds()), case.torch_feeds("meta")
    module.to("meta")
    if kernel_of(schema).data_shaped or on_host(want):
        with suppress(NodeError):  # what kernels read may have been folded before
            module(**on_meta)
        return
    got = module(**on_meta)
    assert outline(got) == outline(want)
    if module.weights or devices(list(on_meta.values())):
        assert devices(got) <= {"meta"}
