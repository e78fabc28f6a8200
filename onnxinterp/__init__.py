"""Any ONNX model as one differentiable PyTorch module.

>>> from onnxinterp import OnnxModule
>>> m = OnnxModule("model.onnx")  # doctest: +SKIP
"""

from onnxinterp import ops as ops
from onnxinterp.errors import (
    ChangedFileError,
    ChangedWeightsError,
    EngineError,
    InputError,
    InvalidModelError,
    NodeError,
    OnnxError,
    SaveError,
    UnsafeModelError,
    UnsupportedOpError,
)
from onnxinterp.generation import generate, stream
from onnxinterp.limits import Limits
from onnxinterp.module import OnnxModule
from onnxinterp.registry import host, op
from onnxinterp.runtime.interpreter import Interpreter
from onnxinterp.training.batchnorm import reinsert_batchnorm
from onnxinterp.training.heads import HeadError, replace_head
from onnxinterp.values import Floats, Host, Ints, Operand, Scalar, Subgraph

reinsert_normalization = reinsert_batchnorm  # its previous name

__all__ = [
    "ChangedFileError",
    "ChangedWeightsError",
    "EngineError",
    "Floats",
    "HeadError",
    "Host",
    "InputError",
    "Interpreter",
    "Ints",
    "InvalidModelError",
    "Limits",
    "NodeError",
    "OnnxError",
    "OnnxModule",
    "Operand",
    "SaveError",
    "Scalar",
    "Subgraph",
    "UnsafeModelError",
    "UnsupportedOpError",
    "generate",
    "host",
    "op",
    "reinsert_batchnorm",
    "reinsert_normalization",
    "replace_head",
    "stream",
]
