"""What a kernel wants for one input, read off the annotation of its parameter."""

from __future__ import annotations

import types
import typing
from enum import Enum
from functools import lru_cache
from typing import Any, Union

from torch import Tensor

from onnxinterp.values import Host, Strings


class Kind(Enum):
    """The form in which a kernel needs an input, derived from its annotation."""

    TENSOR = "tensor"
    OPERAND = "operand"
    LIST = "list"
    SCALAR = "scalar"
    HOST = "host"
    LATE = "late"
    ANY = "any"


@lru_cache(maxsize=1024)
def alternatives(hint: Any) -> frozenset[Any]:
    """The members of a union without None; a hint that is not a union is its only member."""
    union = typing.get_origin(hint) in (Union, types.UnionType)
    return frozenset(typing.get_args(hint) if union else (hint,)) - {type(None)}


@lru_cache(maxsize=1024)
def kind_of(hint: Any) -> Kind:
    """The kind of input that an annotation declares."""
    members = alternatives(hint)
    numbers = {int, float, bool}
    if Tensor in members and members <= {Tensor, Strings}:
        return Kind.TENSOR
    if members == {Host}:
        return Kind.HOST
    if members == {Host, Tensor}:
        return Kind.LATE
    if members and members <= numbers:
        return Kind.SCALAR
    if Tensor in members and members <= numbers | {Tensor}:
        return Kind.OPERAND
    if len(members) == 1 and next(iter(members)) in (list[int], list[float]):
        return Kind.LIST
    return Kind.ANY
