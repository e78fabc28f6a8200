"""The inputs of a call: by position, by name or mixed; checked, and blamed where they are wrong."""

from __future__ import annotations

import keyword
from collections.abc import Callable, Iterable, Mapping, Sequence
from inspect import Parameter, Signature
from typing import Any

import numpy as np
import torch
from onnx import TensorProto
from torch import Tensor

from onnxinterp.errors import InputError, NodeError
from onnxinterp.graph.ir import ValueInfo


class Arguments:
    """What a graph takes.

    Attributes:
        inputs: what a call must give, by position or name.
        optional: what it may give, by name.
        required: names of what a call must give.
        infos: all of them by ONNX name.
        aliases: Python identifier -> ONNX name.
    """

    def __init__(self, inputs: Sequence[ValueInfo], optional: Sequence[ValueInfo]) -> None:
        self.inputs = inputs
        self.optional = optional
        self.required = frozenset(info.name for info in inputs)
        self.infos = {info.name: info for info in (*inputs, *optional)}
        self.aliases = dict(zip(_identifiers(self.infos), self.infos, strict=True))

    def signature(self) -> Signature:
        """The signature of a call, names that are no identifiers made ones."""
        kinds = [Parameter.POSITIONAL_OR_KEYWORD] * len(self.inputs)
        parameters = [Parameter(a, k) for a, k in zip(self.aliases, kinds, strict=False)]
        rest = list(self.aliases)[len(self.inputs) :]
        parameters += [Parameter(a, Parameter.KEYWORD_ONLY, default=None) for a in rest]
        return Signature(parameters)

    def gather(
        self, args: tuple[Any, ...], keywords: dict[str, Any], floating: Floating | None = None
    ) -> dict[str, Any]:
        """The inputs by ONNX name, checked by rank and type.

        Args:
            args: inputs by position.
            keywords: inputs by name.
            floating: the types that floating inputs must have; None admits any.

        Raises:
            InputError: too many, unknown, missing, or of another type or rank than declared.
        """
        if len(args) > len(self.inputs):
            message = f"{len(args)} inputs given, the graph takes {len(self.inputs)}"
            raise InputError(f"{message}: {_listed(self.inputs)}")
        given = dict(zip([i.name for i in self.inputs], args, strict=False))
        for key, value in keywords.items():
            name = key if key in self.infos else self.aliases.get(key, key)
            if name not in self.infos or name in given:
                why = "is given twice" if name in given else "is not an input"
                raise InputError(f"{key!r} {why} of {_listed(self.infos.values())}")
            given[name] = value
        if absent := [i for i in self.inputs if i.name not in given]:
            raise InputError(f"missing inputs: {_listed(absent)}")
        for name, value in given.items():
            if isinstance(value, dict) and self.infos[name].kind != "map" and args:
                message = f"input {name!r} must be {_described(self.infos[name])}, got a dict"
                raise InputError(f"{message}: use m(**inputs)")
            _check(self.infos[name], value, floating)
        return given

    def names(self, given: Mapping[str, Any]) -> list[str]:
        """The names of the inputs that a call gives, in the order of the graph."""
        return [name for name in self.infos if name in given]

    def in_order(self, given: Mapping[str, Any]) -> list[Any]:
        """The inputs that a call gives, likewise."""
        return [given[name] for name in self.infos if name in given]

    def blame_sizes(self, given: dict[str, Any], error: NodeError) -> None:
        """Where a node failed on sizes that the file never declared, say so instead.

        Raises:
            InputError: an input has another size than declared; the node's error is its cause.
        """
        for name, value in given.items():
            declared = self.infos[name].shape
            sizes = tuple(value.shape) if isinstance(value, Tensor) else ()
            pairs = zip(declared or (), sizes, strict=False)
            if any(isinstance(d, int) and d != size for d, size in pairs):
                expected = _described(self.infos[name])
                message = f"input {name!r} must be {expected}, got shape {list(sizes)}; {error}"
                raise InputError(message) from error


def _listed(infos: Iterable[ValueInfo]) -> str:
    return ", ".join(map(str, infos))


class Floating:
    """The types that floating inputs must have: those of the file, unless the module was moved.

    Args:
        dtypes: what floating types have become since loading.
        now: returns the type of the weights as they are, which `torch.func` may have replaced.
    """

    def __init__(
        self, dtypes: Mapping[torch.dtype, torch.dtype], now: Callable[[], torch.dtype | None]
    ) -> None:
        self.dtypes = dtypes
        self.now = now

    def admits(self, declared: torch.dtype, value: Tensor) -> bool:
        """Whether a tensor has the type; under autocast any will do."""
        if value.dtype == self.dtypes.get(declared, declared):
            return True
        return torch.is_autocast_enabled(value.device.type) or (
            declared in self.dtypes and value.dtype == self.now()
        )


def _described(info: ValueInfo, dtype: torch.dtype | None = None) -> str:
    """What an input must be: its type as torch names it, and its shape."""
    dtype = dtype or info.dtype
    if info.kind != "tensor" or dtype is None:
        return str(info).removeprefix(f"{info.name}: ")
    if info.shape is None:
        return _name(dtype)
    sizes = ", ".join("?" if size is None else str(size) for size in info.shape)
    return f"{_name(dtype)}[{sizes}]"


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _wrong(
    info: ValueInfo, got: str, hint: str = "", dtype: torch.dtype | None = None
) -> InputError:
    expected = _described(info, dtype)
    return InputError(
        f"input {info.name!r} must be {expected}, got {got}{hint and f': use {hint}'}"
    )


def _check(info: ValueInfo, value: Any, floating: Floating | None) -> None:
    """Rank and type; other sizes than declared are tried, and blamed where they fail."""
    if info.kind == "map":
        _check_map(info, value)
    if info.kind == "sequence":
        _check_sequence(info, value, floating)
    if info.kind == "tensor":
        _check_tensor(info, value, floating)


CASTS = {
    torch.float32: "float()",
    torch.float64: "double()",
    torch.float16: "half()",
    torch.bfloat16: "bfloat16()",
    torch.int64: "long()",
    torch.int32: "int()",
    torch.bool: "bool()",
}


def _check_tensor(info: ValueInfo, value: Any, floating: Floating | None = None) -> None:
    if not isinstance(value, Tensor):
        if isinstance(value, np.ndarray):
            if info.dtype is None:
                _check_strings(info, value)
                return
            raise _wrong(info, "a numpy array", "torch.from_numpy(x)")
        raise _wrong(info, type(value).__name__)
    if value.is_nested or value.layout is not torch.strided:
        raise _wrong(info, "a tensor that is nested or sparse")
    expected, got = info.dtype, f"{_name(value.dtype)}{list(value.shape)}"
    fits = expected is None or value.dtype == expected
    if expected is not None and expected.is_floating_point and value.is_floating_point():
        fits = floating is None or floating.admits(expected, value)
        expected = floating.dtypes.get(expected, expected) if floating else expected
    if not fits and expected is not None:
        raise _wrong(info, got, f"x.{CASTS.get(expected, f'to({expected})')}", expected)
    if info.shape is not None and len(info.shape) != value.ndim:
        raise _wrong(info, got)


def _check_strings(info: ValueInfo, value: np.ndarray[Any, Any]) -> None:
    if info.shape is not None and len(info.shape) != value.ndim:
        raise _wrong(info, f"strings of shape {list(value.shape)}")
    if value.dtype.kind == "U":
        return
    if value.dtype != object or not all(isinstance(text, str) for text in value.flat):
        raise _wrong(info, f"an array of {value.dtype} that are not all str")


def _check_sequence(info: ValueInfo, value: Any, floating: Floating | None) -> None:
    """A list, each element of which is of the declared type."""
    if not isinstance(value, list):
        raise _wrong(info, f"{type(value).__name__}")
    for element in value:
        if info.key_type:
            _check_map(info, element)
        else:
            _check_tensor(info, element, floating)


def _check_map(info: ValueInfo, value: Any) -> None:
    """A dict whose keys have the declared type; so that none is looked up in vain."""
    if not isinstance(value, dict):
        raise _wrong(info, f"{type(value).__name__}")
    key = str if info.key_type == TensorProto.STRING else (int, np.integer)
    if wrong := [k for k in value if not isinstance(k, key)]:
        raise _wrong(info, f"the key {wrong[0]!r}")


def _identifiers(names: Iterable[str]) -> list[str]:
    """Python identifiers for names, in order: `gpu_0/data_0` -> `gpu_0_data_0`."""
    found: dict[str, int] = {}  # -> how often it was wanted again
    for name in names:
        identifier = "".join([c if f"a{c}".isidentifier() else "_" for c in name]) or "_"
        if identifier == "self":  # which a call of a module has itself
            identifier = "self_"
        if not identifier.isidentifier() or keyword.iskeyword(identifier):
            identifier = f"_{identifier}"
        unique = identifier
        while unique in found:
            found[identifier] += 1
            unique = f"{identifier}_{found[identifier] if found[identifier] > 1 else ''}"
        found[unique] = 0
    return list(found)
