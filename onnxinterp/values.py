"""The values in a graph that are not tensors.

Shapes, axes and sizes are *host values*: plain Python numbers that become tensors only where a
kernel needs one. So symbolic sizes pass through `torch.compile` and `torch.export`, and a GPU does
not wait for the CPU.

    Host       a few numbers with their shape and dtype
    Ints, Floats, Scalar, LateScalar, Operand   annotations of a kernel's inputs, see `registry`
    Strings    an array of strings; it is always on the host
    Subgraph   the body of an If, Loop or Scan, callable

A tensor becomes a number only in `host_of`, and an array only in `array_of`: only these wait for a
device, and only these make a graph depend on data.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from ctypes import c_float
from typing import Any, Literal, TypeAlias, TypeVar, cast

import numpy as np
import torch
from torch import Tensor, nn

from onnxinterp.dtypes import CARRIER

F = TypeVar("F", bound=Callable[..., Any])
Scalar: TypeAlias = int | float | bool
Flag: TypeAlias = Literal[0, 1]
Ints: TypeAlias = list[int]
Floats: TypeAlias = list[float]
Operand: TypeAlias = Tensor | int | float | bool
Strings: TypeAlias = np.ndarray[Any, Any]

Dtype: TypeAlias = "torch.dtype | np.dtype[Any] | None"
"""A dtype in memory: numpy's object for strings; None where it is unknown."""
Shape: TypeAlias = "tuple[int | str | None, ...] | None"
"""Sizes, symbols or None for each dimension; None where the rank is unknown."""
OutputType: TypeAlias = "tuple[Dtype, Shape]"
"""Dtype of an output of a subgraph, and its shape."""

HOST_DTYPES = frozenset({torch.int64, torch.int32, torch.bool, torch.float32, torch.float64})
READABLE = frozenset(d for d in CARRIER.values() if not d.is_complex)
SYMBOLS = (torch.SymInt, torch.SymFloat, torch.SymBool, Tensor)
INTEGER_ENDS = {t: (torch.iinfo(t).min, torch.iinfo(t).max) for t in (torch.int32, torch.int64)}
HOST_LENGTH = 1024  # a longer list is data, not a shape
HOST_MATRIX_LENGTH = 64  # of rank 2 and more: pads have rows, larger ones are tables or masks


class Host:
    """A few numbers with their shape and dtype: a size, a shape, the pads of each axis.

    The numbers may be symbolic sizes while a graph is being captured, and tensors of rank 0 while
    `torch.jit.trace` records one. The sizes of their shape are always plain. Treat as immutable.

    Attributes:
        numbers: the elements in row-major order.
        shape: () for one number, (n,) for a list of n.
        dtype: of the tensor of the same value.
    """

    __slots__ = ("dtype", "numbers", "shape")

    def __init__(
        self, data: Any, dtype: torch.dtype = torch.int64, shape: tuple[int, ...] | None = None
    ) -> None:
        """Of a number, or of a list of numbers: of rank 1 unless a shape says otherwise."""
        is_list = isinstance(data, list)
        self.numbers: list[Any] = data if is_list else [data]
        self.shape = shape if shape is not None else (len(data),) if is_list else ()
        self.dtype = dtype

    def __repr__(self) -> str:
        return f"Host({self.data}, {self.dtype})"

    @property
    def rank(self) -> int:
        """0 for a number, 1 for a list, 2 for a matrix."""
        return len(self.shape)

    @property
    def data(self) -> Any:
        """A number, a list of them, or lists of lists, as `Tensor.tolist` returns."""
        rows: list[Any] = self.numbers
        for axis in range(len(self.shape) - 1, 0, -1):
            n = self.shape[axis]
            rows = [rows[i * n : (i + 1) * n] for i in range(math.prod(self.shape[:axis]))]
        return rows if self.shape else rows[0]

    def cast(self, dtype: torch.dtype) -> Host:
        """The numbers of a file for another dtype, see `bounded`."""
        if dtype is self.dtype:
            return self
        return Host([bounded(x, dtype) for x in self.numbers], dtype, self.shape)

    def tensor(self, device: torch.device | None = None) -> Tensor:
        """The same value as a tensor of its shape and dtype."""
        numbers, dtype, shape = self.numbers, self.dtype, self.shape
        if not shape:
            (only,) = numbers
            if isinstance(only, Tensor):
                return only.to(device=device, dtype=dtype)
            return torch.scalar_tensor(only, dtype=dtype, device=device)
        if any(isinstance(n, SYMBOLS) for n in numbers):
            made = torch.stack([Host(n, dtype).tensor(device) for n in numbers])
        else:
            made = torch.tensor(numbers, dtype=dtype, device=device)
        return made if len(shape) == 1 else made.reshape(shape)


LateScalar: TypeAlias = Host | Tensor
"""A number that a kernel reads, unless it is captured: a graph may know it only when it runs."""


def host_of(value: Tensor | Host) -> Host:
    """Read a small tensor into Python numbers. Waits for the device the tensor is on.

    While `torch.jit.trace` records, integers stay tensors, so that no size becomes a constant.
    """
    if isinstance(value, Host):
        return value
    if is_traced() and value.dtype in INTEGER_ENDS and value.ndim <= 1:
        return Host(list(value.unbind()) if value.ndim else value, value.dtype)
    if value.ndim <= 1:
        return Host(value.tolist(), value.dtype)
    return Host(value.flatten().tolist(), value.dtype, tuple(value.shape))


def is_traced() -> bool:
    """Whether `torch.jit.trace` is recording."""
    return bool(torch.jit.is_tracing())  # type: ignore[attr-defined,no-untyped-call]  # in torch


def plain_shape(weight: Tensor) -> Sequence[int]:
    """The sizes of a weight, also where `torch.jit.trace` would record how to ask for them.

    Exporters of a trace want to know the sizes of a layer.
    """
    if not is_traced():
        return weight.shape
    state = torch._C._get_tracing_state()
    set_state = torch._C._set_tracing_state  # type: ignore[attr-defined]  # in torch
    set_state(None)
    try:
        return tuple(weight.shape)
    finally:
        set_state(state)


def read_weight(holder: nn.Module, attribute: str) -> Tensor:
    """The current value of a weight: a parameter, a buffer, or the result of a parametrization."""
    found: Tensor | None = holder._parameters.get(attribute)
    if found is None:
        found = holder._buffers.get(attribute)
    return cast("Tensor", getattr(holder, attribute)) if found is None else found


def decimal(value: float) -> float:
    """The number of few digits that a float32 was made of: 0.1 for 0.10000000149."""
    return float(f"{value:.7g}")


def number(value: Tensor | Host) -> Any:
    """Read the one element of a value, whatever its rank."""
    (only,) = host_of(value).numbers
    return only


def numbers(value: Tensor | Host) -> list[Any]:
    """Read a value of rank 0 or 1 into a list.

    Raises:
        ValueError: its rank is higher.
    """
    host = host_of(value)
    if len(host.shape) > 1:
        raise ValueError(f"a list of numbers must have rank 1, got a shape of {list(host.shape)}")
    return host.numbers


def array_of(value: Tensor) -> np.ndarray[Any, Any]:
    """Read a tensor as an array of its shape. Waits for the device the tensor is on."""
    array: np.ndarray[Any, Any] = value.numpy(force=True)
    return array


def bytes_of(value: Tensor) -> bytes:
    """Read a tensor of uint8 as the bytes of a file."""
    return array_of(value).tobytes()


def is_known(number: Any) -> bool:
    """Whether a number is plain, not a symbol of a graph that is being captured.

    Reading the value of a symbol would specialize the graph to it. While `torch.compile` traces,
    symbols are instances of int, so the class is not enough.
    """
    if not isinstance(number, (int, float)) or not torch.compiler.is_compiling():
        return isinstance(number, (int, float))
    # imported here: it imports sympy, which takes a second
    from torch.fx.experimental.symbolic_shapes import has_static_value

    return has_static_value(number)


def constant_when_compiled(function: F) -> F:
    """Mark a function that the compiler calls, and whose result it takes as a constant.

    As `torch.compiler.assume_constant_result` does, which would import the compiler.
    """
    function._dynamo_marked_constant = True  # type: ignore[attr-defined]  # read by the compiler
    return function


def is_surely(condition: Any) -> bool:
    """Whether a condition holds; false where it compares sizes that only data will tell."""
    if not torch.compiler.is_compiling():
        return bool(condition)
    # imported here: it imports sympy, which takes a second
    from torch.fx.experimental.symbolic_shapes import guard_or_false

    return guard_or_false(condition)


def round_to(dtype: torch.dtype, x: Any) -> Any:
    """Round a Python float to `dtype`; an integer is unchanged.

    A symbolic float becomes float32 by Veltkamp's splitting (T. J. Dekker, 1971): plain arithmetic,
    right for all but numbers near the ends of the type.

    Raises:
        OverflowError: an integer is outside the range of `dtype`. A tensor would wrap; a Python
            integer would grow until memory is exhausted.
    """
    if isinstance(x, Tensor):
        return x.to(dtype)
    plain = x.__class__ in (int, float) and not torch.compiler.is_compiling()
    if plain and x.__class__ is int and dtype in INTEGER_ENDS:
        low, high = INTEGER_ENDS[dtype]
        if not low <= x <= high:
            raise OverflowError(f"a number beyond {dtype}")
    if plain and dtype is torch.float32:
        return c_float(x).value
    if dtype is not torch.float32 or not -1e30 < x < 1e30:
        return x
    c = x * 536870913.0  # 2**29 + 1
    return c - (c - x)


def bounded(data: Any, dtype: torch.dtype) -> Any:
    """A number of a file for a floating type: the largest one for those that it cannot hold.

    A mask adds the lowest number of float32, or a product of it with 0. In float16 and bfloat16
    that would be -infinity, and the product NaN. Infinity stays.

    Args:
        data: a number, plain.
        dtype: of a floating type, or another, for which nothing changes.
    """
    if not dtype.is_floating_point:
        return data
    most = torch.finfo(dtype).max
    return min(max(data, -most), most) if math.isfinite(data) else data


def cast_constant(value: Tensor, dtype: torch.dtype) -> Tensor:
    """A constant in another dtype; a number beyond its range becomes its largest, see `bounded`."""
    narrow = value.to(dtype)
    if value.dtype == dtype or not dtype.is_floating_point or not value.is_floating_point():
        return narrow
    if torch.finfo(dtype).max >= torch.finfo(value.dtype).max or narrow.is_meta:
        return narrow
    most = torch.finfo(dtype).max
    return torch.where(value.isfinite(), value.clamp(-most, most).to(dtype), narrow)


def sym_max(a: Any, b: Any) -> Any:
    """The larger number; as `torch.sym_max`, also of tensors that `torch.jit.trace` records."""
    if isinstance(b, Tensor):
        a, b = b, a
    return a.clamp(min=b) if isinstance(a, Tensor) else torch.sym_max(a, b)


def sym_min(a: Any, b: Any) -> Any:
    """The smaller number, likewise."""
    if isinstance(b, Tensor):
        a, b = b, a
    return a.clamp(max=b) if isinstance(a, Tensor) else torch.sym_min(a, b)


def sym_float(x: Any) -> Any:
    """A number as a float, likewise."""
    return x.double() if isinstance(x, Tensor) else torch.sym_float(x)


def sym_int(x: Any) -> Any:
    """A number rounded towards zero, likewise."""
    return x.long() if isinstance(x, Tensor) else torch.sym_int(x)


class Subgraph:
    """A subgraph bound to the values around it; call it with its inputs, get a tuple of outputs.

    Attributes:
        outer: the values around it that it reads, by key.
        n_inputs: number of inputs.
        output_types: dtype and declared shape of each output.
        static_shapes: returns the shapes that are known before a call; the first time is slow.
    """

    __slots__ = ("_run", "n_inputs", "outer", "output_types", "static_shapes")

    def __init__(
        self,
        run: Callable[[Sequence[Any], Mapping[Any, Any]], tuple[Any, ...]],
        outer: Mapping[Any, Any],
        n_inputs: int,
        output_types: Sequence[OutputType],
        static_shapes: Callable[[], tuple[Shape, ...]],
    ) -> None:
        self._run = run
        self.outer = outer
        self.n_inputs = n_inputs
        self.output_types = tuple(output_types)
        self.static_shapes = static_shapes

    def __call__(self, *inputs: Any) -> tuple[Any, ...]:
        """Run the body with the values around it as they were when it was bound."""
        return self._run(inputs, self.outer)

    def run_with(self, outer: Mapping[Any, Any], inputs: Sequence[Any]) -> tuple[Any, ...]:
        """Run the body with other values around it, under the same keys."""
        return self._run(inputs, outer)
