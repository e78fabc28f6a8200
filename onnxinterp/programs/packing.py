"""Convolutions and linear functions over weights that are packed once, with what follows fused.

For snapshots alone: a packed weight is a copy. The functions are those of oneDNN that torch's own
compiler calls. They are private to torch, so `is_available` tries them first.

    conv -> relu, clamp, silu, ...         one call
    conv -> add -> relu                    one call that adds to the other operand, if it is dead
    linear -> gelu, add                    one call

Where oneDNN takes a maximum, NaN becomes a number: in relu and clamp.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor

from onnxinterp.programs.aliases import Families, is_torch, written_families
from onnxinterp.programs.calls import Call, Program, Value, values_in
from onnxinterp.programs.functions import name_of
from onnxinterp.programs.layouts import choose_layouts
from onnxinterp.programs.memory import is_whole, reuse_memory, shared_families
from onnxinterp.programs.source import compiled
from onnxinterp.programs.timing import least_seconds

MKLDNN: Any = torch.ops.mkldnn
ACTIVATIONS = {
    "relu": "relu",
    "sigmoid": "sigmoid",
    "tanh": "tanh",
    "silu": "swish",
    "hardswish": "hardswish",
}
NOTHING: tuple[str, list[Any], str] = ("none", [], "")
MEASURED_SECONDS = 0.03  # of measuring one kind of product


@dataclass(eq=False)
class Product:
    """A convolution or a linear function, with what is fused to it.

    Attributes:
        call: the function.
        result: what the last of the fused functions returns.
        parts: the calls that it stands for.
        activation: name, numbers and algorithm, as oneDNN wants them.
        other: what is added before the activation.
        adds_in_place: whether the result may be written to where `other` is.
    """

    call: Call
    result: Value
    parts: list[Call]
    activation: tuple[str, list[Any], str] = NOTHING
    other: Value | None = None
    adds_in_place: bool = False

    def reads(self) -> list[Value]:
        """The values that it is computed from."""
        return [*self.call.reads(), *([] if self.other is None else [self.other])]

    @property
    def is_linear(self) -> bool:
        """Whether it is a linear function."""
        return name_of(self.call.function) == "linear"


@cache
def is_available() -> bool:
    """Whether torch has its functions over packed weights here, and they compute what others do."""
    x, weight = random(1, 8, 5, 5), random(4, 8, 3, 3)
    window = ([1, 1], [1, 1], [1, 1], 1)
    try:
        packed = MKLDNN._reorder_convolution_weight(weight, *window[:3], 1, list(x.shape))
        convolved = MKLDNN._convolution_pointwise(x, packed, None, *window, "none", [], "")
        rows = MKLDNN._reorder_linear_weight(weight[0, :, 0], 5)
        product = MKLDNN._linear_pointwise(x[0, 0, :, :3], rows, None, "none", [], "")
    except (RuntimeError, AttributeError, NotImplementedError):
        return False
    wanted = torch.conv2d(x, weight, None, [1, 1], [1, 1], [1, 1], 1)
    rows_wanted = x[0, 0, :, :3] @ weight[0, :, 0].t()
    return torch.allclose(convolved, wanted, atol=1e-4) and torch.allclose(
        product, rows_wanted, atol=1e-4
    )


def can_pack(call: Call) -> bool | None:
    """Whether a convolution may run over a packed weight, in channels_last; None for others."""
    if name_of(call.function) != "conv2d" or not is_torch(call) or len(call.args) != 7:
        return None
    x, weight = call.args[:2]
    numbers = all(isinstance(argument, (list, tuple)) for argument in call.args[3:6])
    same = x.dtype is weight.dtype is torch.float32 and len(x.shape) == 4
    if not (same and numbers and x.shape.numel()):
        return None
    # an axis of one may have any stride, also after `contiguous`: oneDNN reads beyond the memory
    return None if 1 in x.shape[1:] else True


def pack(program: Program) -> Program:
    """A program over packed weights.

    Args:
        program: the weights are constants of it.
    """
    return _Packing(choose_layouts(program, can_pack)).program()


class _Packing:
    """Rewrites one program."""

    def __init__(self, program: Program) -> None:
        self.source = program
        self.constants = dict(program.constants)
        self.families = Families(program)
        self.shared = shared_families(program, self.families)
        self.written = written_families(program, self.families)
        self.readers = Counter(v for call in program.calls for v in set(call.reads()))
        self.readers.update(values_in(program.outputs))
        self.products: dict[Value, Product] = {}
        self.packed: dict[tuple[Any, ...], Value] = {}
        self.choices: dict[tuple[Any, ...], bool] = {}

    def program(self) -> Program:
        """The rewritten program."""
        source = self.source
        items: list[Call | Product | None] = []
        places: dict[Product, int] = {}
        for call in source.calls:
            product = self._fused(call)
            if product is None:
                items.append(call)
                continue
            if product in places and product.other is not None and product.call is not call:
                items[places[product]] = None  # it runs where its other operand is known
            if product not in places or items[places[product]] is None:
                places[product] = len(items)
                items.append(product)
        kept = [item for item in items if item is not None]
        self._choose_places(kept)
        calls: list[Call] = []
        for item in kept:
            if isinstance(item, Product):
                calls += self._faster(item)
            else:
                calls.append(item)
        program = Program(source.inputs, source.weights, self.constants, calls, source.outputs)
        return program.pruned()

    def _choose_places(self, items: Sequence[Call | Product]) -> None:
        """Let products add in place where nothing reads the other operand later, in this order."""
        of, last = self.families.of, dict[Value, int]()
        for index, item in enumerate(items):
            read = item.reads()
            last.update(dict.fromkeys(self.families.of_all(read), index))
        for index, item in enumerate(items):
            if not isinstance(item, Product) or (other := item.other) is None:
                continue
            is_dead = last[of(other)] == index and of(other) not in self.shared
            is_apart = of(other) not in self.families.of_all(item.call.reads())
            item.adds_in_place = is_dead and is_apart and is_whole(other)

    def _fused(self, call: Call) -> Product | None:
        """The product that a call is or becomes a part of."""
        if (result := call.results[0] if len(call.results) == 1 else None) is None:
            return None
        if self._is_product(call):
            product = Product(call, result, [])
        elif (activation := activation_of(call)) is not None:
            before = self._open(call.args[0])
            if before is None or (before.other is not None and activation[0] != "relu"):
                return None
            if before.is_linear and before.other is not None:
                return None
            product, product.activation = before, activation
        else:
            added = self._added(call)
            if added is None:
                return None
            product = added
        self.products.pop(product.result, None)
        product.result = result
        product.parts.append(call)
        self.products[result] = product
        return product

    def _is_product(self, call: Call) -> bool:
        is_linear = name_of(call.function) == "linear"
        if not (is_linear and is_torch(call) and len(call.args) == 3) and not can_pack(call):
            return False
        if any(self.families.of(v) in self.written for v in call.reads()):
            return False
        if any(v is not None and v not in self.constants for v in call.args[1:3]):
            return False
        if not is_linear:
            return True
        x, weight = call.args[:2]
        same = x.dtype is weight.dtype is torch.float32 and len(weight.shape) == 2
        return bool(same)

    def _open(self, value: Any) -> Product | None:
        """The product of a value that nothing else reads, if something may be fused to it."""
        product = self.products.get(value) if isinstance(value, Value) else None
        if product is None or self.readers[value] != 1 or product.activation is not NOTHING:
            return None
        return product

    def _added(self, call: Call) -> Product | None:
        """The product that a call adds something of its shape to."""
        if name_of(call.function) != "add" or len(call.args) != 2 or call.kwargs:
            return None
        for value, other in (call.args, call.args[::-1]):
            product = self._open(value)
            if product is None or product.other is not None or value is other:
                continue
            if not isinstance(other, Value) or other in self.constants:
                continue
            if (other.shape, other.dtype) != (value.shape, value.dtype):
                continue
            product.other = other
            return product
        return None

    def _faster(self, product: Product) -> list[Call]:
        """The calls over a packed weight, or those that were there: measured once for each kind."""
        packed = self._calls(product)
        key = _kind(product)
        if key not in self.choices:
            given = [v for v in dict.fromkeys(product.reads()) if v not in self.constants]
            programs = [
                Program(given, [], self.constants, calls, [product.result])
                for calls in (packed, product.parts)
            ]
            programs = [replace(p, constants=dict(p.constants)).pruned() for p in programs]
            times = measure([reuse_memory(p) for p in programs])
            self.choices[key] = times[0] <= times[1]
        return packed if self.choices[key] else product.parts

    def _calls(self, product: Product) -> list[Call]:
        if product.is_linear:
            return self._linear(product)
        x, _, bias, stride, padding, dilation, groups = product.call.args
        weight = self._weight(product.call)
        window = ([*padding], [*stride], [*dilation], groups)
        name, numbers, algorithm = product.activation
        if product.other is None:
            function: Any = MKLDNN._convolution_pointwise.default
            first: tuple[Any, ...] = (x, weight, bias)
            after: tuple[Any, ...] = (name, numbers, algorithm)
        else:
            unary = (name, numbers, algorithm) if name != "none" else (None, [], None)
            after = ("add", 1.0, *unary)
            function = MKLDNN._convolution_pointwise.binary
            first = (x, product.other, weight, bias)
            if product.adds_in_place:
                function = MKLDNN._convolution_pointwise_.binary
                first = (product.other, x, weight, bias)
        args = (*first, *window, *after)
        return [Call(function, args, {}, [product.result], False, product.call.step)]

    def _linear(self, product: Product) -> list[Call]:
        x, _, bias = product.call.args[:3]
        weight, step = self._weight(product.call), product.call.step
        name, numbers, algorithm = product.activation
        if product.other is not None:
            function = MKLDNN._linear_pointwise.binary
            args: tuple[Any, ...] = (x, product.other, weight, bias, "add")
        else:
            function = MKLDNN._linear_pointwise.default
            args = (x, weight, bias, name, numbers, algorithm)
        return [Call(function, args, {}, [product.result], False, step)]

    def _weight(self, call: Call) -> Value:
        """The packed weight of a product."""
        x, value = call.args[:2]
        is_linear = name_of(call.function) == "linear"
        window = () if is_linear else (*map(tuple, call.args[3:6]), call.args[6])
        key = (value, x.shape, *window)
        if key not in self.packed:
            weight = self.constants[value]
            if is_linear:
                rows = x.shape[:-1].numel()
                made = MKLDNN._reorder_linear_weight(weight.contiguous(), rows)
            else:
                stride, padding, dilation, groups = call.args[3:7]
                last = weight.contiguous(memory_format=torch.channels_last)
                window = (list(padding), list(stride), list(dilation), groups)
                made = MKLDNN._reorder_convolution_weight(last, *window, list(x.shape))
            self.packed[key] = Value(value.shape, value.dtype, value.strides)
            self.constants[self.packed[key]] = made
        return self.packed[key]


def _kind(product: Product) -> tuple[Any, ...]:
    """What the time of a product depends on."""
    x, weight, bias, *window = product.call.args
    activation = (product.activation[0], product.activation[2])
    numbers = tuple(tuple(w) if isinstance(w, list) else w for w in window)
    added = (product.other is not None, product.adds_in_place)
    return (x.shape, weight.shape, bias is None, numbers, activation, added)


def measure(programs: Sequence[Program]) -> list[float]:
    """The seconds that programs of the same inputs take, on random numbers."""
    functions = [compiled(program)[0] for program in programs]
    inputs = [random_like(value) for value in programs[0].inputs]
    calls = [partial(function, *inputs, []) for function in functions]
    with torch.inference_mode():
        return least_seconds(calls, MEASURED_SECONDS)


def random(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Random numbers that are not of torch's own stream, which belongs to the caller."""
    generator = torch.Generator("cpu").manual_seed(0)
    return torch.rand(shape, dtype=dtype, generator=generator, device="cpu")


def random_like(value: Value) -> Tensor:
    """A tensor as a convolution in channels_last gets it."""
    x = random(*value.shape, dtype=value.dtype)
    return x.contiguous(memory_format=torch.channels_last) if x.ndim == 4 else x


def activation_of(call: Call) -> tuple[str, list[Any], str] | None:
    """An activation as oneDNN names it, with its numbers; None for other functions."""
    name, args = name_of(call.function), call.args
    if not is_torch(call) or not args or not isinstance(args[0], Value):
        return None
    if name in ACTIVATIONS and len(args) == 1 and not call.kwargs:
        return ACTIVATIONS[name], [], ""
    if name == "gelu" and len(args) == 1 and set(call.kwargs) <= {"approximate"}:
        return "gelu", [], call.kwargs.get("approximate", "none")
    if name == "leaky_relu" and len(args) <= 2 and set(call.kwargs) <= {"negative_slope"}:
        slope = args[1] if len(args) == 2 else call.kwargs.get("negative_slope", 0.01)
        return ("leaky_relu", [slope], "") if isinstance(slope, float) else None
    if name == "clamp" and len(args) == 3 and not call.kwargs:
        low, high = args[1:]
        if all(isinstance(bound, (int, float)) and math.isfinite(bound) for bound in (low, high)):
            return "hardtanh", [float(low), float(high)], ""
    return None
