"""ONNX's operator schemas, up to the opsets that the kernels are written for."""

from __future__ import annotations

from functools import lru_cache

import onnx.defs

NEWEST = {"": 28, "ai.onnx.ml": 5, "ai.onnx.preview": 1, "ai.onnx.preview.training": 1}
"""Domain -> the newest opset that the kernels implement; later ones may change an operator."""
MAX_OP_NAME_CHARS = 200  # characters of an operator and its domain that a schema may have


def schema_of(op_type: str, opset: int, domain: str = "") -> onnx.defs.OpSchema | None:
    """The schema of an operator at an opset; None without schema, and after `NEWEST`."""
    if len(op_type) + len(domain) > MAX_OP_NAME_CHARS:
        return None
    return _schema_of(op_type, opset, domain)


@lru_cache(maxsize=4096)
def _schema_of(op_type: str, opset: int, domain: str) -> onnx.defs.OpSchema | None:
    if opset > NEWEST.get(domain, opset):
        return None
    try:
        return onnx.defs.get_schema(op_type, opset, domain)
    except (onnx.defs.SchemaError, TypeError):  # names and numbers that C++ cannot represent
        return None
