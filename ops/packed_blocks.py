"""Matrices of 2-, 4- or 8-bit numbers in blocks that share a scale, and products with them.

Such a matrix stays packed: a product dequantizes some rows of it at a time. The product has a
gradient of its own, which dequantizes the rows again: autograd would keep the matrix in floats.
What is captured, transformed or differentiated forward is the plain expression, of functions that
torch knows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor

from onnxinterp.ops.eager import is_plain

Rows: TypeAlias = Callable[..., Tensor]
"""(first, last, *settings) -> the rows from `first` to before `last` of a matrix, as floats."""

MIN_ELEMENTS = 2**14  # of a matrix; smaller ones are dequantized at once
PART_ELEMENTS = 2**18  # of the rows that are dequantized at a time: 1 MiB of float32
MAX_PARTS = 64  # of one matrix, so that a recorded program stays short


def unpack(packed: Tensor, bits: int) -> Tensor:
    """The numbers in the bytes of the last axis, that in the low bits first, as uint8."""
    if bits == 8:
        return packed
    parts = [(packed >> shift) & (2**bits - 1) for shift in range(0, 8, bits)]
    return torch.stack(parts, -1).flatten(-2)


def packed_size(count: int, bits: int) -> int:
    """The number of bytes that hold so many numbers."""
    return -(-count * bits // 8)


def wide(dtype: torch.dtype) -> torch.dtype:
    """The dtype in which numbers are dequantized: float32 for halves."""
    return torch.float64 if dtype is torch.float64 else torch.float32


def check_block_size(block_size: int) -> None:
    """Check that a block size is a power of 2 and at least 16."""
    if block_size < 16 or block_size & (block_size - 1):
        raise ValueError(f"block_size must be a power of 2 and at least 16, got {block_size}")


def check_shape(name: str, tensor: Tensor | None, *shapes: tuple[int, ...]) -> None:
    """Check that a tensor has one of the shapes, if it is there."""
    if tensor is not None and tensor.shape not in shapes:  # a size equals a tuple
        wanted = " or ".join(str(list(s)) for s in shapes)
        raise ValueError(f"{name} must be {wanted}, got {list(tensor.shape)}")


def unpack_zero_points(zero: Tensor | None, size: tuple[int, int], bits: int) -> Tensor | None:
    """One zero point for each block [rows, blocks], whatever its form in the file.

    They are floats or integers; None is the middle of the numbers.
    """
    if zero is None:
        return None
    rows, blocks = size
    if zero.is_floating_point():
        if bits == 8:
            raise TypeError("zero_points must be uint8 for 8 bits, got floats")
        check_shape("zero_points", zero, size, (rows * blocks,))
        return zero.reshape(size)
    width = packed_size(blocks, bits)
    check_shape("zero_points", zero, (rows, width), (rows * width,))
    return unpack(zero.reshape(rows, width), bits)[:, :blocks]


class BlockRows:
    """The rows of a matrix in blocks along its rows: (numbers - zero) * scale.

    Attributes:
        packed: [rows, blocks, bytes].
        zero: the zero points if they are integers; [rows, blocks].
        groups: the block of each column; by default a block has the next `block_size` columns.
        columns: how many there are, without those that fill up the last block.
        bits: of each number.
    """

    def __init__(
        self, packed: Tensor, zero: Tensor | None, groups: Tensor | None, columns: int, bits: int
    ) -> None:
        self.packed, self.zero, self.groups = packed, zero, groups
        self.columns, self.bits = columns, bits

    def __call__(
        self, first: int, last: int, scales: Tensor, float_zero: Tensor | None = None
    ) -> Tensor:
        """Rows `first` to before `last`; see `Rows`."""
        dtype = wide(scales.dtype)
        numbers = unpack(self.packed[first:last], self.bits).to(dtype)
        scale = scales[first:last].to(dtype)
        zero = self.zero if float_zero is None else float_zero
        shift = None if zero is None else zero[first:last].to(dtype)
        if self.groups is not None:
            numbers = numbers.flatten(1)[:, : self.columns]
            scale = scale.index_select(1, self.groups)  # which refuses negative ones
            shift = None if shift is None else shift.index_select(1, self.groups)
        else:
            scale = scale.unsqueeze(-1)
            shift = None if shift is None else shift.unsqueeze(-1)
        shifted = numbers - (2 ** (self.bits - 1) if shift is None else shift)
        return (shifted * scale).flatten(1)[:, : self.columns]


def block_product(
    x: Tensor,
    packed: Tensor,
    scales: Tensor,
    zero: Tensor | None,
    bits: int,
    groups: Tensor | None = None,
) -> Tensor:
    """The product x @ W.T with a matrix in blocks.

    Args:
        x: [..., columns].
        packed: [rows, blocks, bytes].
        scales: [rows, blocks].
        zero: zero points [rows, blocks]; None for the middle of the numbers.
        bits: of each number.
        groups: as in `BlockRows`.
    """
    floats = [scales]
    if zero is not None and zero.is_floating_point():
        floats.append(zero)
        zero = None
    matrix = BlockRows(packed, zero, groups, x.shape[-1], bits)
    return product(x, matrix, (packed.shape[0], x.shape[-1]), *floats)


def product(
    x: Tensor, rows: Rows, size: tuple[int, int], *settings: Tensor | None, transposed: bool = True
) -> Tensor:
    """The product of x and a packed matrix W.

    Args:
        x: [..., columns], or [..., rows] if W is not transposed.
        rows: returns rows of W.
        size: the number of rows and columns of W.
        settings: the floats that `rows` computes with, such as scales; None where there are none.
        transposed: whether the product is x @ W.T.
    """
    n_rows, n_columns = size
    if not x.ndim or x.shape[-1] != (n_columns if transposed else n_rows):
        raise ValueError(f"A must have {n_columns} columns, got {list(x.shape)}")
    if n_rows * n_columns < MIN_ELEMENTS or not is_plain(x, *settings):
        return _times(x, rows(0, n_rows, *settings), transposed)
    if torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in (x, *settings)):
        result: Tensor = _Product.apply(rows, size, transposed, x, *settings)
        return result
    return _by_parts(x, rows, size, transposed, settings)


def _times(x: Tensor, matrix: Tensor, transposed: bool) -> Tensor:
    """The product in the type of the matrix on a CPU; GPUs have units for halves."""
    dtype = matrix.dtype if x.is_cpu else x.dtype
    matrix = matrix.to(dtype)
    return (x.to(dtype) @ (matrix.mT if transposed else matrix)).to(x.dtype)


def _parts(size: tuple[int, int]) -> list[tuple[int, int]]:
    """The first row of each part, and the first row after it."""
    n_rows, n_columns = size
    step = max(1, PART_ELEMENTS // n_columns, -(-n_rows // MAX_PARTS))
    return [(first, min(first + step, n_rows)) for first in range(0, n_rows, step)]


def _by_parts(
    x: Tensor,
    rows: Rows,
    size: tuple[int, int],
    transposed: bool,
    settings: Sequence[Tensor | None],
) -> Tensor:
    """The product, rows of the matrix by rows."""
    parts = _parts(size)
    if transposed:
        results = [_times(x, rows(*part, *settings), True) for part in parts]
        return results[0] if len(results) == 1 else torch.cat(results, -1)
    total = x.new_zeros((*x.shape[:-1], size[1]))
    for first, last in parts:
        total += _times(x[..., first:last], rows(first, last, *settings), False)
    return total


class _Product(torch.autograd.Function):
    """The product; its backward pass dequantizes the rows once more."""

    @staticmethod
    def forward(ctx: Any, rows: Rows, size: tuple[int, int], transposed: bool, *xs: Any) -> Tensor:
        ctx.rows, ctx.size, ctx.transposed = rows, size, transposed
        ctx.save_for_backward(*xs)
        return _by_parts(xs[0], rows, size, transposed, xs[1:])

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> Any:
        (gradient,) = grad_outputs
        x, *settings = ctx.saved_tensors
        for_x, *for_settings = ctx.needs_input_grad[3:]
        found = [None] * len(settings)
        if any(for_settings):
            found = _settings_gradients(ctx, gradient, x, settings, for_settings)
        of_x = None
        if for_x:
            of_x = product(gradient, ctx.rows, ctx.size, *settings, transposed=not ctx.transposed)
        return (None, None, None, of_x, *found)


def _settings_gradients(
    ctx: Any,
    gradient: Tensor,
    x: Tensor,
    settings: Sequence[Tensor | None],
    wanted: Sequence[bool],
) -> list[Any]:
    """The gradients of scales and the like, summed over the parts of the matrix."""
    repeats = torch.is_grad_enabled()  # the gradient of this gradient is asked for
    by_row, by_column = (gradient, x) if ctx.transposed else (x, gradient)
    by_row, by_column = by_row.flatten(0, -2), by_column.flatten(0, -2)
    totals: list[Any] = [None] * len(settings)
    places = [i for i, is_wanted in enumerate(wanted) if is_wanted]
    for first, last in _parts(ctx.size):
        slope = by_row[:, first:last].mT @ by_column
        with torch.enable_grad():
            held = list(settings)
            if not repeats:
                for i in places:
                    held[i] = settings[i].detach().requires_grad_()  # type: ignore[union-attr]  # it has one
            part = ctx.rows(first, last, *held)
            asked: list[Any] = [held[i] for i in places]
            slopes = torch.autograd.grad(
                part, asked, slope.to(part.dtype), create_graph=repeats, allow_unused=True
            )
        for i, found in zip(places, slopes, strict=True):
            totals[i] = found if totals[i] is None else totals[i] + found
    return totals
