"""Bodies as someone would write them: no module for a function, `nn.Sequential` for a chain."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from onnxinterp.programs.aliases import is_random, writes
from onnxinterp.programs.calls import Call, Program, Value, values_in
from onnxinterp.programs.functions import name_of
from onnxinterp.programs.pieces import join_pieces
from onnxinterp.python_source.bodies import Body, Choice, Layer, Whole, bodies_of, reads_of
from onnxinterp.python_source.functions import operator_of

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "relu6": nn.ReLU6,
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
    "silu": nn.SiLU,
    "hardswish": nn.Hardswish,
    "hardsigmoid": nn.Hardsigmoid,
    "gelu": nn.GELU,
    "selu": nn.SELU,
    "mish": nn.Mish,
    "softplus": nn.Softplus,
    "softsign": nn.Softsign,
}
"""Functions of torch that take one tensor -> the module that calls them."""
NUMBER_FIRST = frozenset(["add", "sub", "mul", "div", "true_divide"])
"""Operators that Python writes with a number before a tensor."""
MAX_INLINED = 2  # calls of a module without weights that are written where it is called


MAX_PARTS = 2  # calls that compute something else each: more are no module, but names alike


def simplify(root: Body, tensors: Mapping[Value, Tensor]) -> None:
    """Write modules without weights where they are called, in place.

    Args:
        root: the body of the root.
        tensors: weights and constants.
    """
    numbers = {v: t.item() for v, t in tensors.items() if _is_number(t)}
    parts = Counter(body.path for body in root.walk() if not body.is_subgraph)
    for body in root.walk():
        body.calls = [_with_numbers(call, numbers) for call in body.calls]
    _simplify(root, {*tensors}, {path for path, count in parts.items() if count > MAX_PARTS})


def _is_number(tensor: Tensor) -> bool:
    """Whether a tensor is one floating number that does not train."""
    is_plain = not tensor.ndim and tensor.is_floating_point() and tensor.device.type == "cpu"
    return is_plain and not isinstance(tensor, nn.Parameter)


def _with_numbers(call: Call, numbers: Mapping[Value, float]) -> Call:
    """The call of an operator with numbers in place of tensors, where they mean the same."""
    if isinstance(call.function, Whole) or len(call.args) != 2 or call.kwargs:
        return call
    first, second = call.args
    are_values = isinstance(first, Value) and isinstance(second, Value)
    if not are_values or operator_of(call.function) is None or first.dtype != second.dtype:
        return call
    if second in numbers and first.shape:
        return replace(call, args=(first, numbers[second]))
    if first in numbers and second.shape and name_of(call.function) in NUMBER_FIRST:
        return replace(call, args=(numbers[first], second))
    return call


def _simplify(body: Body, tensors: set[Value], scattered: set[str]) -> None:
    for call in body.calls:
        for inner in bodies_of(call):
            _simplify(inner, tensors, scattered)
    body.calls = _without_unread(body)
    if not any(inner.is_subgraph for call in body.calls for inner in bodies_of(call)):
        joined = join_pieces(Program(body.inputs, [], {}, body.calls, body.outputs))
        body.calls, body.outputs = joined.calls, joined.outputs
    if is_chain(body) and all(_fits_chain(call, tensors) for call in body.calls):
        for call in body.calls:
            _make_layer(call)
        return
    calls: list[Call] = []
    for call in body.calls:
        module: Any = call.function
        if isinstance(module, Body) and (
            module.path in scattered or _is_small(module, tensors) or _is_fed_inside(module)
        ):
            calls += module.calls
        else:
            calls.append(call)
    body.calls = calls


def _without_unread(body: Body) -> list[Call]:
    """The calls whose results are read."""
    read = {*values_in(body.outputs)}
    found = []
    for call in reversed(body.calls):
        results = {v for v in call.results if isinstance(v, Value)}
        is_pure = isinstance(call.function, Whole) or not (
            writes(call) or is_random(name_of(call.function))
        )
        if results and is_pure and results.isdisjoint(read):
            continue
        read.update(reads_of(call))
        found.append(call)
    return found[::-1]


def is_chain(body: Body) -> bool:
    """Whether a module calls the modules of a list, each with the result of the one before."""
    is_one = len(body.inputs) == len(body.outputs) == 1
    if body.is_subgraph or not body.path or not body.calls or not is_one:
        return False
    value, last = body.inputs[0], -1
    for call in body.calls:
        inner = call.function
        if not isinstance(inner, Body) or call.args != (value,) or len(call.results) != 1:
            return False
        around, _, name = inner.path.rpartition(".")
        if around != body.path or not name.isdigit() or int(name) <= last:
            return False
        value, last = call.results[0], int(name)
    return value is body.outputs[0]


def _fits_chain(call: Call, tensors: set[Value]) -> bool:
    inner: Any = call.function
    return _activation(inner) is not None or not _is_small(inner, tensors)


def _activation(body: Body) -> type[nn.Module] | None:
    """The module that does nothing else than to call the function that a body calls."""
    if len(body.calls) != 1 or len(body.inputs) != 1:
        return None
    (call,) = body.calls
    if isinstance(call.function, (Body, Layer, Choice)) or call.kwargs:
        return None
    name = name_of(call.function)
    if call.results != body.outputs or call.args[:1] != (body.inputs[0],):
        return None
    if name == "clamp" and call.args[1:] == (0, 6):
        return nn.ReLU6
    return ACTIVATIONS.get(name) if len(call.args) == 1 else None


def _make_layer(call: Call) -> None:
    """Make the body of an activation a layer."""
    body: Any = call.function
    kind = _activation(body)
    if kind is not None:
        (inner,) = body.calls
        layer = Layer(kind(), {}, [inner])
        body.calls = [Call(layer, inner.args, {}, inner.results, False, inner.step)]


def _is_fed_inside(body: Body) -> bool:
    """Whether a module is a layer whose input is a constant: the layer is called with it."""
    call = body.layer_call()
    return call is not None and call.args != tuple(body.inputs)


def _is_small(body: Body, tensors: set[Value]) -> bool:
    """Whether a module has no weights and hardly calls anything."""
    if len(body.calls) > MAX_INLINED:
        return False
    functions = [call.function for call in body.calls]
    if any(isinstance(f, (Body, Layer, Choice)) for f in functions):
        return False
    return not any(v in tensors for call in body.calls for v in call.reads())
