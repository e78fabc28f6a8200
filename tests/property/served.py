"""Which schema versions the kernels serve, and how a test names them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from onnx.defs import OpSchema

import onnxinterp  # noqa: F401  # fills the dispatch table
from onnxinterp.registry import KERNELS, Kernel, lookup
from onnxinterp.schemas import all_schemas


def label(schema: OpSchema) -> str:
    name = f"{schema.name}-{schema.since_version}"
    return f"{schema.domain}::{name}" if schema.domain else name


def kernel_of(schema: OpSchema) -> Kernel:
    kernel = lookup(schema.name, schema.since_version, schema.domain)
    assert kernel is not None, f"no kernel serves {label(schema)}"
    return kernel


SCHEMAS: list[OpSchema] = sorted(
    (
        schema
        for schema in all_schemas()
        if (schema.domain, schema.name) in KERNELS
        and schema.since_version >= min(KERNELS[schema.domain, schema.name])
    ),
    key=lambda s: (s.domain, s.name, s.since_version),
)
SERVED = [s for s in SCHEMAS if not kernel_of(s).initializer]

ONNXRUNTIME_OPSET = 23  # the last one of which onnxruntime has (nearly) everything

CURRENT = list(
    {(s.domain, s.name): s for s in SERVED if s.since_version <= ONNXRUNTIME_OPSET}.values()
)
"""Each operator at its newest version up to that opset."""

NEWEST: dict[Callable[..., Any], OpSchema] = {kernel_of(s).function: s for s in SERVED}
"""Each kernel function and the newest version it serves."""
