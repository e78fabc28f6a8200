"""Attributes that hold tensors: which of them are weights, and what becomes of the others.

is_weight     whether a kernel may want the attribute as a tensor
holder_of     what holds the elements of a weight
copy_message  what is kept of another message, apart from the file
prepare       the tables that a kernel makes of its attributes
survey        what a kernel finds out about the whole file
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeGuard

import numpy as np
from google.protobuf.message import Message
from onnx import ModelProto, TensorProto, numpy_helper

from onnxinterp.errors import InvalidModelError
from onnxinterp.format.payloads import Payloads
from onnxinterp.graph.decode import NodeFields
from onnxinterp.graph.ir import Holder
from onnxinterp.registry import Kernel


def is_tensor(value: object) -> TypeGuard[TensorProto]:
    """Whether a value is a tensor of the file."""
    return isinstance(value, TensorProto)


def is_weight(value: Any) -> bool:
    """Whether an attribute holds elements that a kernel may want as a tensor."""
    floats = isinstance(value, list) and bool(value) and isinstance(value[0], float)
    return floats or is_tensor(value)


def holder_of(fields: NodeFields, name: str, value: TensorProto | list[float]) -> Holder:
    """What holds the tensor or the floats of an attribute: its message, or a new tensor.

    Floats that a function was given are of 32 bits, as all floats of attributes.
    """
    if isinstance(value, TensorProto):
        return value
    own = (a.proto for a in fields.attributes if a.name == name and not a.reference)
    return next(own, None) or numpy_helper.from_array(np.array(value, dtype=np.float32))


def copy_message(message: Message, payloads: Payloads) -> Message:
    """A copy of a message with all its data: the message itself holds on to the whole file."""
    copy = type(message)()
    copy.CopyFrom(payloads.inline(message) if isinstance(message, TensorProto) else message)
    return copy


def prepare(kernel: Kernel, label: str, attributes: Mapping[str, Any], payloads: Payloads) -> Any:
    """What the kernel's `prepare` returns.

    Raises:
        InvalidModelError: it does not accept the attributes.
    """
    assert kernel.prepare is not None
    given = {n: payloads.inline(v) if is_tensor(v) else v for n, v in attributes.items()}
    try:
        return kernel.prepare(
            **{n: numpy_helper.to_array(v) if is_tensor(v) else v for n, v in given.items()}
        )
    except Exception as error:
        raise InvalidModelError(f"node {label!r} ({kernel.op_type}): {error}") from error


def survey(kernel: Kernel, label: str, proto: ModelProto, payloads: Payloads) -> Any:
    """What the kernel's `survey` returns.

    Raises:
        InvalidModelError: it does not accept the model.
    """
    assert kernel.survey is not None
    try:
        return kernel.survey(proto, lambda t: numpy_helper.to_array(payloads.inline(t)))
    except Exception as error:
        raise InvalidModelError(f"node {label!r} ({kernel.op_type}): {error}") from error
