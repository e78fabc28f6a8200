"""A module as a file for other tools: exported, compiled for a runtime, or ONNX again.

    convert(source, target)    write a file, load it again, compare with onnxruntime
    simplify(source, target)   remove nodes that compute nothing, compare before and after
    FORMATS                    the table of formats: what each is, and how it is loaded

`onnxinterp convert` prints what these return (docs/deployment.md).
"""

from onnxinterp.deploy.conversion import Conversion, convert
from onnxinterp.deploy.errors import ChangedAnswersError, ConversionError
from onnxinterp.deploy.formats import FORMATS, Format
from onnxinterp.deploy.simplify import Simplified, simplify

__all__ = [
    "FORMATS",
    "ChangedAnswersError",
    "Conversion",
    "ConversionError",
    "Format",
    "Simplified",
    "convert",
    "simplify",
]
