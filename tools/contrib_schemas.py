"""Write the schemas that onnxruntime adds to ONNX's: onnxinterp/data/contrib_schemas.json.

    python tools/contrib_schemas.py

Of the installed onnxruntime: all of the domains com.microsoft and com.microsoft.nchwc, and the
operators of the domain ai.onnx that ONNX does not have, or not at that opset.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import onnx
import onnx.defs
from onnx.helper import get_attribute_value
from onnxruntime.capi import onnxruntime_pybind11_state as onnxruntime

PAGE = Path(__file__).parents[1] / "onnxinterp/data/contrib_schemas.json"
DOMAINS = ("", "com.microsoft", "com.microsoft.nchwc")
# inserted by onnxruntime itself, or for one device only: never in a file for other runtimes
NOT_IN_FILES = ("MemcpyFromHost", "MemcpyToHost")


def main() -> None:
    """Write the page."""
    text = json.dumps(schemas(), indent=None, separators=(",", ":"), sort_keys=True)
    PAGE.write_text(text.replace('},"', '},\n"') + "\n")


def schemas() -> dict[str, dict[str, Any]]:
    """Domain -> operator -> its first version, as plain data."""
    known = {(s.domain, s.name, s.since_version) for s in onnx.defs.get_all_schemas_with_history()}
    found: dict[str, dict[str, Any]] = {domain: {} for domain in DOMAINS}
    for schema in onnxruntime.get_all_operator_schema():
        key = (schema.domain, schema.name, schema.since_version)
        foreign = schema.name in NOT_IN_FILES or schema.name.endswith("_TRT")
        if schema.domain not in DOMAINS or key in known or foreign:
            continue
        if schema.since_version == 1:  # later versions declare that it is deprecated
            found[schema.domain][schema.name] = _plain(schema)
    return found


def _plain(schema: Any) -> dict[str, Any]:
    return {
        "inputs": [_formal(p, schema.min_input - i) for i, p in enumerate(schema.inputs)],
        "outputs": [_formal(p, schema.min_output - i) for i, p in enumerate(schema.outputs)],
        "types": {c.type_param_str: list(c.allowed_type_strs) for c in schema.type_constraints},
        "attributes": {name: _attribute(a) for name, a in schema.attributes.items()},
    }


def _formal(formal: Any, least: int) -> list[Any]:
    option = str(formal.option).rpartition(".")[2]
    return [formal.name, formal.typeStr, option, formal.isHomogeneous, max(least, 0)]


def _attribute(attribute: Any) -> list[Any]:
    """Its type, and "required", or its default in a list."""
    kind = str(attribute.type).rpartition(".")[2]
    if attribute.required:
        return [kind, "required"]
    if not attribute._default_value:
        return [kind, None]
    value = get_attribute_value(onnx.AttributeProto.FromString(attribute._default_value))
    return [kind, [_text(value)]]


def _text(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return [_text(v) for v in value]
    return value.decode() if isinstance(value, bytes) else value


if __name__ == "__main__":
    main()
