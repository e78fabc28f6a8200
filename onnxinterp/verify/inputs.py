"""Example inputs for a model: shapes for dynamic dimensions, and seeded random values."""

from __future__ import annotations

import ast
import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from onnx import TensorProto

from onnxinterp.dtypes import CARRIER, onnx_name
from onnxinterp.errors import InputError
from onnxinterp.graph.ir import ValueInfo

Shape = tuple[int, ...]

IMAGE_SIZES = {1: 3, 2: 224, 3: 224}  # of a rank-4 input: axis -> channels, height, width
DEFAULT_SIZE = 16  # of any other dynamic dimension: a sequence, a number of boxes, ...
IMAGE_TYPES = (TensorProto.UINT8, TensorProto.INT8)


@dataclass
class Shapes:
    """The size of every dimension of every input.

    Attributes:
        sizes: input name -> shape.
        assumed: sizes chosen here: "batch" or "image axis 0" -> size.
    """

    sizes: dict[str, Shape] = field(default_factory=dict)
    assumed: dict[str, int] = field(default_factory=dict)


def choose_shapes(
    inputs: Sequence[ValueInfo], given: Mapping[str, Sequence[int]], *, batch: int = 1
) -> Shapes:
    """Choose a size for every dimension: as declared, as given, or a default.

    A symbol has the same size everywhere, and sums such as `past + 1` are computed.

    Args:
        inputs: of the model.
        given: input name -> shape, with every dimension of that input.
        batch: default of a dynamic first dimension.

    Raises:
        InputError: a given shape is for an unknown input, or contradicts the model.
    """
    known = {i.name for i in inputs}
    if unknown := sorted(set(given) - known):
        names = ", ".join(map(repr, sorted(known)))
        raise InputError(f"the model has no input {unknown[0]!r}; its inputs are {names}")
    symbols: dict[str, int] = {}
    for info in inputs:
        if info.name in given:
            _bind(info, tuple(given[info.name]), symbols)
    shapes = Shapes({name: tuple(shape) for name, shape in given.items()})
    others = [i for i in inputs if i.name not in given and i.kind == "tensor"]
    for info in others:
        for axis, dim in enumerate(_declared(info)):
            if isinstance(dim, str) and not _is_sum(dim) and dim not in symbols:
                symbols[dim] = shapes.assumed[dim] = _default(info, axis, batch)
    for info in others:
        shapes.sizes[info.name] = _filled(info, symbols, shapes.assumed, batch)
    return shapes


def _declared(info: ValueInfo) -> tuple[int | str | None, ...]:
    if info.shape is None:
        raise InputError(f"the rank of input {info.name!r} is not declared: give its shape")
    return tuple(None if isinstance(d, int) and d < 1 else d for d in info.shape)


def _bind(info: ValueInfo, shape: Shape, symbols: dict[str, int]) -> None:
    """Check a given shape against the declared one, and store the sizes of its symbols."""
    declared = shape if info.shape is None else _declared(info)
    fits = len(declared) == len(shape)
    for dim, size in zip(declared, shape, strict=False):
        fits = fits and (not isinstance(dim, int) or dim == size)
        if isinstance(dim, str):
            fits = fits and symbols.setdefault(dim, size) == size
    if not fits:
        raise InputError(f"the shape {list(shape)} does not fit input {info}")


def _default(info: ValueInfo, axis: int, batch: int) -> int:
    if axis == 0:
        return batch
    return IMAGE_SIZES.get(axis, DEFAULT_SIZE) if len(_declared(info)) == 4 else DEFAULT_SIZE


def _filled(info: ValueInfo, symbols: dict[str, int], assumed: dict[str, int], batch: int) -> Shape:
    """The declared shape with a size for every symbol."""
    sizes = []
    for axis, dim in enumerate(_declared(info)):
        size = dim if isinstance(dim, int) else evaluate(dim or "", symbols)
        if size is None:
            size = _default(info, axis, batch)
            name = str(dim) if dim else f"{info.name} axis {axis}"
            symbols[name] = assumed[name] = size
        sizes.append(size)
    return tuple(sizes)


ARITHMETIC = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.FloorDiv: operator.floordiv,
    ast.Div: operator.floordiv,
}


def _is_sum(dimension: str) -> bool:
    """Whether a dimension is an expression of others; `x.1` and `batch` are symbols."""
    try:
        return isinstance(ast.parse(dimension, mode="eval").body, ast.BinOp)
    except (SyntaxError, ValueError):
        return False


def evaluate(expression: str, symbols: Mapping[str, int]) -> int | None:
    """The value of a dimension such as `past_length + 1`; None where it has no value."""
    if expression in symbols:
        return symbols[expression]

    def value(node: ast.expr) -> int:
        if isinstance(node, ast.BinOp):
            return int(ARITHMETIC[type(node.op)](value(node.left), value(node.right)))
        if isinstance(node, ast.Name):
            return symbols[node.id]
        return int(ast.literal_eval(node))

    try:
        return value(ast.parse(expression, mode="eval").body)
    except (SyntaxError, KeyError, ValueError, TypeError, ArithmeticError):
        return None


def random_inputs(
    inputs: Sequence[ValueInfo], shapes: Mapping[str, Shape], seed: int = 0
) -> dict[str, Any]:
    """Values for every input: floats standard normal, 8-bit integers 0..127, other integers 0 or 1.

    0 and 1 are valid tokens, masks, types and indices.

    Raises:
        InputError: an input is not a tensor, or its type is unknown.
    """
    generator = np.random.default_rng(seed)
    return {info.name: _random(info, shapes, generator) for info in inputs}


def _random(info: ValueInfo, shapes: Mapping[str, Shape], generator: np.random.Generator) -> Any:
    if info.kind != "tensor":
        raise InputError(f"input {info} must be a tensor for random values: give its value")
    shape = shapes[info.name]
    if info.elem_type == TensorProto.STRING:
        return generator.choice(np.array(["a", "b", "c"], dtype=object), size=shape)
    dtype = CARRIER.get(info.elem_type)
    if dtype is None:
        raise InputError(f"input {info.name!r} has the type {onnx_name(info.elem_type)}")
    if dtype.is_floating_point or dtype.is_complex:
        return torch.from_numpy(np.asarray(generator.standard_normal(shape))).to(dtype)
    limit = 128 if info.elem_type in IMAGE_TYPES else 2
    return torch.from_numpy(np.asarray(generator.integers(0, limit, shape))).to(dtype)
