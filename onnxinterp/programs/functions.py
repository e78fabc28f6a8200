"""What is known of the functions of torch that a program calls."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import cache
from types import FunctionType
from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverloadPacket


def names(*lines: str) -> frozenset[str]:
    """Names that are separated by blanks."""
    return frozenset(" ".join(lines).split())


METADATA = names(
    "shape dtype device ndim layout size dim numel nelement is_floating_point is_complex",
    "is_signed element_size itemsize nbytes __len__ is_cuda is_meta is_sparse is_quantized",
    "is_nested result_type is_cpu is_inference",
)
"""What tensors tell about themselves that depends on sizes and types alone."""
OPERATORS_IN_PLACE = names("add sub mul truediv floordiv mod pow and or xor lshift rshift matmul")
SIZES_OF_NUMBERS = names(
    "arange range linspace logspace full zeros ones empty rand randn randint eye hann_window",
    "tril_indices triu_indices",
)
"""Functions whose tensors are numbers, which may be a size."""
SIZES_OF_ARGUMENTS = names(
    "add sub mul div true_divide floor_divide remainder fmod pow maximum minimum neg abs sign",
    "eq ne lt le gt ge logical_and logical_or logical_xor logical_not bitwise_and bitwise_or",
    "bitwise_xor bitwise_not where clamp to float long int bool double half bfloat16 type_as",
    "embedding gather index_select take_along_dim scatter scatter_add cat stack masked_fill",
    "cumsum sum mean amax amin max min any all argmax argmin sort argsort view_as unbind",
)
"""Functions whose result has a size that depends on the sizes of tensors alone."""
SIZES_OF_REST = names(
    "reshape view expand permute transpose squeeze unsqueeze flatten contiguous clone select",
    "movedim chunk split repeat tile narrow",
)
"""Functions of one tensor and of numbers, which may be given as tensors."""


def name_of(func: Any) -> str:
    """The name of a torch function; of a property's getter, that of the property.

    Of an overload in `torch.ops`, the name of its operator.
    """
    name: str = func.__name__
    if name in ("__get__", "__set__"):
        return func.__self__.__name__ if name == "__get__" else f"_set_{func.__self__.__name__}"
    return name.partition(".")[0]


def for_compiler(func: Any) -> Any:
    """A function as torch's compiler knows it.

    It knows functions of torch, not what those that are written in Python call inside: of the
    latter, the operator.
    """
    name = getattr(func, "__name__", "")
    builtins = getattr(torch._C, "_VariableFunctions")  # noqa: B009 - no attribute for checkers
    is_builtin = getattr(builtins, name, None) is func
    is_inside = is_builtin and getattr(torch, name, None) is not func
    return getattr(torch.ops.aten, name, func) if is_inside else func


def is_property(func: Any) -> bool:
    """Whether a function reads a property of a tensor."""
    return bool(func.__name__ == "__get__")


def is_in_place(name: str, kwargs: Mapping[str, Any]) -> bool:
    """Whether a function writes to one of its arguments.

    Args:
        name: of the function.
        kwargs: its keyword arguments.
    """
    is_operator = name.startswith("__i") and name[3:-2] in OPERATORS_IN_PLACE
    is_method = name.endswith("_") and not name.endswith("__")
    return is_operator or is_method or name == "__setitem__" or kwargs.get("out") is not None


def looks_at_strides(name: str, kwargs: Mapping[str, Any]) -> bool:
    """Whether strides decide if a function returns its argument or a copy."""
    return name in ("contiguous", "resolve_conj", "resolve_neg") or "memory_format" in kwargs


@cache
def has_tag(name: str, tag: torch.Tag) -> bool:
    """Whether one of torch's operators of a name has a tag."""
    packet = getattr(torch.ops.aten, name, None)
    if not isinstance(packet, OpOverloadPacket):
        return False
    return any(tag in getattr(packet, overload).tags for overload in packet.overloads())  # type: ignore[no-untyped-call]


@cache
def draws_numbers(name: str) -> bool:
    """Whether torch's operators of a name draw random numbers."""
    return has_tag(name, torch.Tag.nondeterministic_seeded) or "rand" in name


def has_size_of_data(func: Any, args: Any, kwargs: Mapping[str, Any]) -> bool:
    """Whether the size of a result may depend on data, as that of `x[mask]` does.

    True for all functions that take integers in tensors, but for those that are known.
    """
    name = name_of(func)
    plain = name.strip("_")
    if has_tag(plain, torch.Tag.dynamic_output_shape) or plain.startswith("unique"):
        return True
    tensors = [*_tensors(args), *_tensors(tuple(kwargs.values()))]
    if plain == "getitem":
        kinds = (torch.bool, torch.uint8)
        return any(t.dtype in kinds for t in tensors[1:]) or _has_tensor_bound(args[1])
    if plain == "where" and len(args) + len(kwargs) == 1:
        return True
    numbers = tensors[1:] if plain in SIZES_OF_REST else tensors
    are_whole = (not (t.is_floating_point() or t.is_complex()) for t in numbers)
    if plain in SIZES_OF_NUMBERS:
        return bool(tensors)
    return plain not in SIZES_OF_ARGUMENTS and any(are_whole)


def _has_tensor_bound(index: Any) -> bool:
    """Whether an index has a slice whose ends are in tensors."""
    if isinstance(index, (tuple, list)):
        return any(map(_has_tensor_bound, index))
    ends = (index.start, index.stop, index.step) if isinstance(index, slice) else ()
    return any(isinstance(end, Tensor) for end in ends)


def _tensors(structure: Any) -> Iterator[Tensor]:
    if isinstance(structure, Tensor):
        yield structure
    elif isinstance(structure, (list, tuple)):
        for part in structure:
            yield from _tensors(part)
    elif isinstance(structure, slice):
        yield from _tensors((structure.start, structure.stop, structure.step))


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
