"""Rows of matrices of few bits: GatherBlockQuantized.

Written by onnxruntime's MatMulNBitsQuantizer for Gather, and by the builder of onnxruntime-genai
for embeddings. Only the rows that are read are dequantized.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from onnxinterp.dtypes import FLOAT8
from onnxinterp.ops.contrib.registration import contrib_op
from onnxinterp.ops.gathering import from_the_front
from onnxinterp.ops.packed_blocks import check_block_size, check_shape, packed_size, unpack, wide
from onnxinterp.ops.shapes import from_front
from onnxinterp.registry import sample
from onnxinterp.testing.samples import Call, Draw, call

UINT8 = 2  # TensorProto.UINT8


@contrib_op("GatherBlockQuantized", any_type=True, frozen=("scales", "zero_points"))
def gather_block_quantized(
    data: Tensor,
    indices: Tensor,
    scales: Tensor,
    zero_points: Tensor | None = None,
    *,
    bits: Literal[2, 4, 8] = 4,
    block_size: int = 128,
    gather_axis: int = 0,
    quantize_axis: int = 1,
    input_type: int = 0,
) -> Tensor:
    """Gather, then (data - zero_points) * scales; a scale is that of a block along one axis.

    An index out of range selects zeros. Bytes hold numbers of `bits` bits, of which the middle is
    0 by default; 4-bit integers are their own numbers.
    """
    is_float, is_packed = data.is_floating_point(), input_type == UINT8
    axis, along = from_front(gather_axis, data.ndim), from_front(quantize_axis, data.ndim)
    if is_packed and (axis != 0 or along != data.ndim - 1):
        raise ValueError(f"axes of uint8 must be 0 and {data.ndim - 1}, got {axis} and {along}")
    if bits != 4 and not is_float and not is_packed:
        raise ValueError(f"bits must be 4, got {bits}")
    if zero_points is not None and is_float:
        raise ValueError("zero_points must be absent for floats")
    if block_size or not is_float:
        check_block_size(block_size)
    sizes = [*data.shape[:-1], data.shape[-1] * 8 // bits if is_packed else data.shape[-1]]
    block = block_size or max(sizes[along], 1)
    _check_settings(sizes, along, block, scales, zero_points, bits if is_packed else 8, is_float)
    if not sizes[axis]:
        return scales.new_zeros((*sizes[:axis], *indices.shape, *sizes[axis + 1 :]))
    places = from_the_front(indices.long(), sizes[axis])
    is_inside = (places >= 0) & (places < sizes[axis])
    places = torch.where(is_inside, places, 0).flatten()
    blocks = places // block if axis == along else places
    scale = scales if scales.shape[axis] == 1 else scales.index_select(axis, blocks)
    zero = None if zero_points is None else zero_points.index_select(axis, blocks)
    numbers = _selected(data, axis, places)
    if is_packed:
        numbers = unpack(numbers, bits)
        zero = None if zero is None else unpack(zero, bits)[..., : scale.shape[-1]]
    if axis != along:
        scale = _spread(scale, along, block, sizes[along])
        zero = None if zero is None else _spread(zero, along, block, sizes[along])
    dtype = wide(scales.dtype)
    middle = 2 ** (bits - 1) if is_packed else 0
    y = (numbers.to(dtype) - (middle if zero is None else zero.to(dtype))) * scale.to(dtype)
    y = y.reshape((*y.shape[:axis], *indices.shape, *y.shape[axis + 1 :]))
    is_inside = is_inside.reshape((*indices.shape, *[1] * (data.ndim - axis - 1)))
    return torch.where(is_inside, y, 0).to(scales.dtype)


def _check_settings(
    sizes: list[int],
    along: int,
    block: int,
    scales: Tensor,
    zero_points: Tensor | None,
    bits: int,
    broadcasts: bool,
) -> None:
    """Check the shapes of scales and zero points; the scales of floats broadcast."""
    blocks = [*sizes[:along], -(-sizes[along] // block), *sizes[along + 1 :]]
    if broadcasts and scales.ndim == len(blocks):
        blocks = [
            1 if s == 1 and i != along else b
            for i, (s, b) in enumerate(zip(scales.shape, blocks, strict=True))
        ]
    check_shape("scales", scales, tuple(blocks))
    check_shape("zero_points", zero_points, (*blocks[:-1], packed_size(blocks[-1], bits)))


def _selected(x: Tensor, axis: int, places: Tensor) -> Tensor:
    """Slices of x; as bytes, where torch selects no float8."""
    if x.dtype in FLOAT8:
        return x.view(torch.uint8).index_select(axis, places).view(x.dtype)
    return x.index_select(axis, places)


def _spread(blocks: Tensor, axis: int, block: int, size: int) -> Tensor:
    """One setting for each number of a block."""
    return blocks.repeat_interleave(block, axis).narrow(axis, 0, size)


@sample(gather_block_quantized)
def _(d: Draw) -> Call:
    elem_type, dtype = d.elem_type("T1"), d.dtype("T1")
    is_float, is_packed = dtype.is_floating_point, elem_type == UINT8
    bits, block = d.choice([4, 2, 8]) if is_packed else 4, d.choice([16, 32])
    sizes = list(d.shape(min_dims=2, max_dims=3))
    axis = 0 if is_packed else d.integer(0, len(sizes) - 1)
    along = len(sizes) - 1 if is_packed else d.integer(0, len(sizes) - 1)
    sizes[along] = 4 * d.integer(4, 10) if is_packed else d.integer(3, 40)
    counts = list(sizes)
    if is_float and d.boolean():
        block, counts[along] = 0, 1
    else:
        counts[along] = -(-sizes[along] // block)
    if is_float:
        counts = [n if i == along or d.boolean() else 1 for i, n in enumerate(counts)]
    stored = [*sizes[:-1], sizes[-1] * bits // 8] if is_packed else sizes
    widths = [*counts[:-1], packed_size(counts[-1], bits)] if is_packed else counts
    has_zero = not is_float and d.boolean()
    n, integer = sizes[axis], d.dtype("Tind")
    return call(
        d.tensor(stored, "T1", lo=-5 if is_float else -128, hi=5 if is_float else 255),
        d.ints(d.shape(max_dims=2), -n - 1, n, integer),
        d.tensor(counts, "T2", lo=0.1, hi=1),
        d.tensor(widths, "T1", lo=-128, hi=255) if has_zero else None,
        bits=bits if bits != 4 or d.boolean() else None,
        block_size=block,
        gather_axis=d.choice([axis, axis - len(sizes)]),
        quantize_axis=d.choice([along, along - len(sizes)]),
    )
