"""What is known of the functions of torch that a program calls."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cache
from types import FunctionType
from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverloadPacket


def name_of(func: Any) -> str:
    """The name of a torch function; of a property's getter, that of the property."""
    name: str = func.__name__
    if name in ("__get__", "__set__"):
        name = func.__self__.__name__ if name == "__get__" else f"_set_{func.__self__.__name__}"
    return name


def names(*lines: str) -> frozenset[str]:
    """Names that are separated by blanks."""
    return frozenset(" ".join(lines).split())


@cache
def has_tag(name: str, tag: torch.Tag) -> bool:
    """Whether one of torch's operators of a name has a tag."""
    packet = getattr(torch.ops.aten, name, None)
    if not isinstance(packet, OpOverloadPacket):
        return False
    return any(tag in getattr(packet, overload).tags for overload in packet.overloads())  # type: ignore[no-untyped-call]


def has_size_of_data(func: Any, indices: Iterable[Tensor]) -> bool:
    """Whether the size of a result depends on data, as that of `x[mask]` does.

    Args:
        func: a function of torch.
        indices: the tensors among its arguments but the first.
    """
    name = name_of(func)
    if name == "__getitem__":
        return any(t.dtype in (torch.bool, torch.uint8) for t in indices)
    return has_tag(name.strip("_"), torch.Tag.dynamic_output_shape) or name.startswith("unique")


@cache
def without_overrides(func: Any) -> Callable[..., Any] | None:
    """A function of torch that is written in Python, without its own look for overrides.

    So what it calls is seen in its place. None for functions that are not written in Python.
    """
    if not isinstance(func, FunctionType):
        return None
    names = [n for n in func.__code__.co_names if n.startswith("has_torch_function")]
    names = [n for n in names if n in func.__globals__]
    if not names:
        return None
    variables = {**func.__globals__, **dict.fromkeys(names, _never)}
    python = FunctionType(
        func.__code__, variables, func.__name__, func.__defaults__, func.__closure__
    )
    python.__kwdefaults__ = func.__kwdefaults__
    return python


def _never(*_: Any) -> bool:
    return False
