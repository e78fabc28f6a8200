"""Products of a few rows with packed matrices, by FBGEMM's sums over rows of few bits.

A product with one row is a sum of the rows of W.T [columns, rows of W], weighted by the elements of
the row. torch has that sum for rows of 2, 4 and 8 bits, exact in float32, for embedding bags. Of
each block of columns it is one bag; the scales multiply the bags.

Such rows are another layout of the matrix, of the same size. They are made when a matrix is read
the second time, since nothing tells whether it is a constant, and are stored as long as it lives.
So the first product differs from later ones in the last bits. A sum over the packed numbers and the
settings tells of changes that torch does not know: of `.data`, or of an array that shares memory.

All rows together have at most `MAX_BYTES`, so that a large model does not take its memory twice.
"""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple
from weakref import ref

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.weak import WeakIdKeyDictionary

from onnxinterp.ops.eager import is_captured, is_eager
from onnxinterp.ops.opaque import Opaque
from onnxinterp.ops.packed_blocks import block_product, unpack, unpack_zero_points

MAX_BYTES = 16 * 2**20  # of the rows of all matrices
MAX_ROWS = 8  # of a product; for more, dequantizing once is faster
NAMES = {2: "2bit", 4: "4bit", 8: "byte"}


class Matrix(NamedTuple):
    """What is made of one packed matrix and its settings.

    Attributes:
        table: the rows of W.T; [columns, bytes].
        indices: of all rows.
        offsets: of the first row of each block, and the end.
        scales: [blocks, rows of W].
        shift: what to subtract for each sum of a block, where there are zero points; likewise.
        bits: of each number.
    """

    table: Tensor
    indices: Tensor
    offsets: Tensor
    scales: Tensor
    shift: Tensor | None
    bits: int

    def n_bytes(self) -> int:
        """The memory of all of it."""
        return sum(t.numel() * t.itemsize for t in self if isinstance(t, Tensor))


class Entry(NamedTuple):
    """A matrix that was read once, or whose rows were made.

    Attributes:
        versions: the number of bits, and the versions of the tensors it is made of.
        settings: the scales and zero points among them.
        data: those of the packed matrix: as long as they live, no others are at their address.
        total: the sum over them when the rows were made.
        values: what the settings were when the rows were made.
        matrix: the rows; None at first, and where there is no room for them.
    """

    versions: list[int]
    settings: list[ref[Tensor]]
    data: Tensor
    total: int
    values: list[Tensor]
    matrix: Matrix | None


ENTRIES: Any = WeakIdKeyDictionary()
"""Packed matrix -> its `Entry`."""


def is_few(
    x: Tensor, packed: Tensor, scales: Tensor, zero_points: Tensor | None, bits: int
) -> bool:
    """Whether `few_rows_product` computes the product x @ W.T.

    Args:
        x: [..., columns].
        packed: the matrix; [rows, blocks, bytes].
        scales: of blocks, as the node has them.
        zero_points: likewise.
        bits: of each number.
    """
    columns = x.shape[-1]
    if is_captured() or not columns or not 0 < x.numel() <= MAX_ROWS * columns:
        return False
    if not x.dtype is scales.dtype is torch.float32:
        return False
    return is_eager(x, packed, scales, zero_points) and _is_available(bits)


@Opaque
def few_rows_product(
    x: Tensor, packed: Tensor, scales: Tensor, zero_points: Tensor | None, bits: int
) -> Tensor:
    """The product x @ W.T, by the rows of W.T where they are made; arguments as for `is_few`."""
    matrix = _matrix(packed, scales, zero_points, bits)
    if matrix is not None:
        return _product(x, matrix)
    settings = _settings(packed, scales, zero_points, bits)
    return block_product(x, packed, *settings, bits)


def _settings(
    packed: Tensor, scales: Tensor, zero_points: Tensor | None, bits: int
) -> tuple[Tensor, Tensor | None]:
    """Scales and zero points as [rows, blocks]."""
    rows, blocks = packed.shape[:2]
    return scales.reshape(rows, blocks), unpack_zero_points(zero_points, (rows, blocks), bits)


def _matrix(packed: Tensor, scales: Tensor, zero_points: Tensor | None, bits: int) -> Matrix | None:
    """The rows of a matrix, from its second product on."""
    settings = [scales] if zero_points is None else [scales, zero_points]
    if any(t.is_inference() for t in (packed, *settings)):
        return None  # they have no version that tells of changes
    tensors = [packed, *settings]
    versions = [bits, *(t._version for t in tensors)]
    found: Entry | None = ENTRIES.get(packed)
    if found is None or found.versions != versions or not _is_of(found, tensors):
        ENTRIES[packed] = Entry(versions, [ref(t) for t in settings], packed.detach(), 0, [], None)
        return None
    if found.matrix is None:
        used = sum(e.matrix.n_bytes() for e in ENTRIES.values() if e.matrix is not None)
        if used + 2 * packed.numel() > MAX_BYTES:
            return None
        made = _made(packed, *_settings(packed, scales, zero_points, bits), bits)
        values = [t.detach().clone() for t in settings]
        total = _checksum(packed)
        ENTRIES[packed] = found = found._replace(total=total, values=values, matrix=made)
    return found.matrix


def _is_of(entry: Entry, tensors: list[Tensor]) -> bool:
    """Whether an entry is of these tensors, and of their data now.

    Versions do not tell of `.data`, nor of what shares memory.
    """
    packed, *settings = tensors
    if entry.data.data_ptr() != packed.data_ptr() or len(entry.settings) != len(settings):
        return False
    if not all(r() is t for r, t in zip(entry.settings, settings, strict=True)):
        return False
    if entry.matrix is None:
        return True
    return entry.total == _checksum(packed) and all(map(torch.equal, settings, entry.values))


def _checksum(packed: Tensor) -> int:
    """The sum over a matrix, 8 bytes as one number, modulo 2**64."""
    flat = packed.reshape(-1)
    if flat.numel() % 8 == 0 and flat.data_ptr() % 8 == 0 and flat.storage_offset() % 8 == 0:
        flat = flat.view(torch.int64)
    return int(flat.sum(dtype=torch.int64))


def _made(packed: Tensor, scales: Tensor, zero: Tensor | None, bits: int) -> Matrix:
    table = _rows(packed, bits)
    block_size = packed.shape[2] * 8 // bits
    indices = torch.arange(table.shape[0], dtype=torch.int32)
    offsets = torch.arange(0, table.shape[0] + 1, block_size, dtype=torch.int32)
    shift = None if zero is None else (scales * (zero.float() - 2 ** (bits - 1))).T.contiguous()
    return Matrix(table, indices, offsets, scales.T.contiguous(), shift, bits)


def _rows(packed: Tensor, bits: int) -> Tensor:
    """The rows of W.T, each with the scale 1 and an offset that makes the middle number 0."""
    per_byte, middle = 8 // bits, -float(2 ** (bits - 1))
    numbers = unpack(packed, bits).flatten(1).T
    numbers = functional.pad(numbers, (0, -numbers.shape[1] % per_byte))
    table = numbers[:, ::per_byte].contiguous()
    for place in range(1, per_byte):
        table |= numbers[:, place::per_byte] << (place * bits)
    kind = torch.float32 if bits == 8 else torch.float16
    settings = torch.tensor([1.0, middle], dtype=kind).view(torch.uint8)
    return torch.cat((table, settings.expand(table.shape[0], -1)), 1)


def _product(x: Tensor, matrix: Matrix) -> Tensor:
    table, indices, offsets, scales, shift, bits = matrix
    blocks, rows = scales.shape
    columns, count = table.shape[0], x.numel() // x.shape[-1]
    weights = x.reshape(-1)
    if x.shape[-1] != columns:
        weights = functional.pad(x, (0, columns - x.shape[-1])).reshape(-1)
    if count > 1:
        indices = indices.repeat(count)
        step = columns // blocks
        offsets = torch.arange(0, columns * count + 1, step, dtype=torch.int32)
    sums = _function(bits)
    bags = sums(table, indices, offsets, False, 0, False, weights, None, True)
    bags = bags.view(count, blocks, -1)
    y: Tensor = ((bags if bags.shape[2] == rows else bags[..., :rows]) * scales).sum(1)
    if shift is not None:
        y = y - weights.reshape(count, blocks, -1).sum(-1) @ shift
    return y.reshape(*x.shape[:-1], rows)


@cache
def _function(bits: int) -> Any:
    """The sums over rows of numbers of so many bits."""
    return getattr(torch.ops.quantized, f"embedding_bag_{NAMES[bits]}_rowwise_offsets").default


@cache
def _is_available(bits: int) -> bool:
    """Whether torch has the sums here, and they are right."""
    packed = (torch.arange(24 * 2 * 16 * bits // 8) * 37 % 256).to(torch.uint8)
    packed = packed.reshape(24, 2, -1)
    x = torch.linspace(-1, 1, 64).reshape(2, 32)
    scales = torch.linspace(0.5, 2, 48).reshape(24, 2)
    numbers = unpack(packed, bits).float() - 2 ** (bits - 1)
    want = x @ (numbers * scales.unsqueeze(-1)).flatten(1).T
    try:
        got = _product(x, _made(packed, scales, None, bits))
    except (RuntimeError, AttributeError, NotImplementedError):
        return False
    return torch.allclose(got, want, rtol=1e-4, atol=1e-3)
