"""The schemas of operators, up to the opsets that the kernels are written for.

ONNX's own come from the onnx package, those that onnxruntime adds from a file of this package.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache, lru_cache
from importlib.resources import files
from typing import Any

import onnx.defs
from onnx.defs import OpSchema
from onnx.helper import make_attribute

MICROSOFT = "com.microsoft"
NCHWC = "com.microsoft.nchwc"
CONTRIB = (MICROSOFT, NCHWC)
"""Domains of onnxruntime. It loads files that use them without importing them."""

NEWEST = {
    "": 28,
    "ai.onnx.ml": 5,
    "ai.onnx.preview": 1,
    "ai.onnx.preview.training": 1,
    MICROSOFT: 1,
    NCHWC: 1,
}
"""Domain -> the newest opset that the kernels implement; later ones may change an operator."""
MAX_OP_NAME_CHARS = 200  # characters of an operator and its domain that a schema may have


def schema_of(op_type: str, opset: int, domain: str = "") -> OpSchema | None:
    """The schema of an operator at an opset; None without schema, and after `NEWEST`."""
    if len(op_type) + len(domain) > MAX_OP_NAME_CHARS:
        return None
    return _schema_of(op_type, opset, domain)


@lru_cache(maxsize=4096)
def _schema_of(op_type: str, opset: int, domain: str) -> OpSchema | None:
    if opset > NEWEST.get(domain, opset):
        return None
    if domain not in CONTRIB:
        try:
            return onnx.defs.get_schema(op_type, opset, domain)
        except (onnx.defs.SchemaError, TypeError):  # names and numbers that C++ cannot represent
            pass
    return contrib_schema(op_type, domain)


def imported_opset(domain: str, opsets: Mapping[str, int]) -> int | None:
    """The opset of a domain where `opsets` are imported; None where it is not imported."""
    return opsets.get(domain, 1 if domain in CONTRIB else None)


@cache
def contrib_schemas() -> dict[str, dict[str, Any]]:
    """Domain -> operator -> the schema that onnxruntime has and ONNX has not, as plain data.

    Written by `tools/contrib_schemas.py`. It has the first version of each operator: onnxruntime
    changes no operator of its own domains in a later one, and keeps running those of ai.onnx that
    it has declared deprecated.
    """
    source = files("onnxinterp") / "data" / "contrib_schemas.json"
    table: dict[str, dict[str, Any]] = json.loads(source.read_text(encoding="utf-8"))
    return table


def all_schemas() -> list[OpSchema]:
    """ONNX's schemas in all versions, and those that onnxruntime adds."""
    added = [(name, domain) for domain, names in contrib_schemas().items() for name in names]
    schemas = [contrib_schema(*key) for key in added]
    return [*onnx.defs.get_all_schemas_with_history(), *filter(None, schemas)]


@cache
def contrib_schema(op_type: str, domain: str) -> OpSchema | None:
    """The schema of an operator that onnxruntime adds; None where it adds none of that name."""
    declared = contrib_schemas().get(domain, {}).get(op_type)
    if declared is None:
        return None
    return OpSchema(
        op_type,
        domain,
        1,
        inputs=[_formal(*formal) for formal in declared["inputs"]],
        outputs=[_formal(*formal) for formal in declared["outputs"]],
        type_constraints=[(name, types, "") for name, types in declared["types"].items()],
        attributes=[_attribute(name, *a) for name, a in declared["attributes"].items()],
    )


def _formal(
    name: str, type_string: str, option: str, is_homogeneous: bool, min_arity: int
) -> OpSchema.FormalParameter:
    kind = getattr(OpSchema.FormalParameterOption, option)
    return OpSchema.FormalParameter(
        name,
        type_string,
        param_option=kind,
        is_homogeneous=is_homogeneous,
        min_arity=min_arity if option == "Variadic" else 1,
    )


def _attribute(name: str, kind: str, default: list[Any] | str | None) -> OpSchema.Attribute:
    """`default` holds one value, says "required", or is None."""
    attribute_type = getattr(OpSchema.AttrType, kind)
    if isinstance(default, list):
        value = make_attribute(name, default[0], attr_type=attribute_type.value)
        return OpSchema.Attribute(name, value)
    return OpSchema.Attribute(name, attribute_type, required=default == "required")
