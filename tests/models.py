"""Models written as ONNX text."""

from __future__ import annotations

import onnx
import onnx.parser

HEADER = '<ir_version: 8, opset_import: ["": 17]>'


def parse(text: str, opset: int = 17) -> onnx.ModelProto:
    """Return a model; one that begins with its graph gets the header, of this opset."""
    header = "" if text.lstrip().startswith("<") else HEADER.replace("17", str(opset))
    return onnx.parser.parse_model(f"{header} {text}")
