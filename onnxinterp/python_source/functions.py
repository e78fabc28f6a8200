"""The public names of torch's functions, and which of them are operators in Python."""

from __future__ import annotations

from collections.abc import Hashable
from functools import cache
from inspect import signature
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from onnxinterp.programs.functions import name_of

SPACES: tuple[tuple[Any, str], ...] = (
    (functional, "F"),
    (torch, "torch"),
    (torch.linalg, "torch.linalg"),
    (torch.fft, "torch.fft"),
    (torch.special, "torch.special"),
)
COMPARISON, OR, XOR, AND, SUM, PRODUCT, SIGN, POWER, ATOM = range(4, 13)
"""How tightly operators bind, from the loosest on."""
OPERATORS = {
    "add": ("+", SUM),
    "sub": ("-", SUM),
    "subtract": ("-", SUM),
    "mul": ("*", PRODUCT),
    "multiply": ("*", PRODUCT),
    "div": ("/", PRODUCT),
    "true_divide": ("/", PRODUCT),
    "truediv": ("/", PRODUCT),
    "matmul": ("@", PRODUCT),
    "eq": ("==", COMPARISON),
    "ne": ("!=", COMPARISON),
    "lt": ("<", COMPARISON),
    "le": ("<=", COMPARISON),
    "gt": (">", COMPARISON),
    "ge": (">=", COMPARISON),
    "bitwise_and": ("&", AND),
    "and": ("&", AND),
    "bitwise_or": ("|", OR),
    "or": ("|", OR),
    "bitwise_xor": ("^", XOR),
    "xor": ("^", XOR),
}
"""Function of two arguments -> its operator, and how tightly that binds."""


@cache
def _names() -> dict[int, str]:
    """Identity of each public function -> its name, the shortest one first."""
    found: dict[int, str] = {}
    for space, prefix in SPACES:
        for name in sorted(vars(space), key=lambda n: (len(n), n)):
            function = getattr(space, name)
            if not name.startswith("_") and callable(function):
                found.setdefault(id(function), f"{prefix}.{name}")
    return found


def is_method(function: Any) -> bool:
    """Whether a function is a method of tensors."""
    name = name_of(function)
    if getattr(function, "__name__", "") == "__get__":
        return hasattr(Tensor, name)
    return hasattr(Tensor, name) and function in _methods()


@cache
def _methods() -> frozenset[Any]:
    """All methods of tensors; one may have the name of another: `Tensor.__pow__` is a `pow`."""
    kinds = (Tensor, torch._C.TensorBase)
    functions = (value for kind in kinds for value in vars(kind).values())
    return frozenset(
        value for value in functions if callable(value) and isinstance(value, Hashable)
    )


def public_name(function: Any) -> str | None:
    """The name by which a function of torch is called; None where it has no public one."""
    if isinstance(function, torch._ops.OpOverload):
        return f"torch.ops.{function}"
    if isinstance(function, torch._ops.OpOverloadPacket):
        return f"torch.ops.{function._qualified_op_name.replace('::', '.')}"
    if is_method(function):
        return name_of(function)
    return _names().get(id(function))


def operator_of(function: Any) -> tuple[str, int, bool] | None:
    """The operator of a function of two arguments.

    Returns:
        The operator, how tightly it binds, and whether the arguments change places; None where
        there is none.
    """
    name = name_of(function)
    if name.startswith("__") and name.endswith("__"):
        name = name[2:-2]
    if name in OPERATORS:
        return *OPERATORS[name], False
    if name[:1] == "r" and name[1:] in OPERATORS:
        return *OPERATORS[name[1:]], True
    return None


@cache
def defaults_of(function: Any) -> dict[str, Any]:
    """The defaults of a function's arguments, as far as Python knows them."""
    named = getattr(functional, f"_{name_of(function)}", function)  # behind a dispatch by a flag
    try:
        parameters = signature(named).parameters.values()
    except (ValueError, TypeError):  # a function of C++
        return {}
    return {p.name: p.default for p in parameters if p.default is not p.empty}


def takes_one_for_all(function: Any) -> bool:
    """Whether one number may stand for equal ones of all axes."""
    name = name_of(function)
    return "pool" in name or name.startswith("conv")
