"""Products with matrices of few bits: MatMulNBits, MatMulBnb4.

Written by onnxruntime's MatMulNBitsQuantizer and MatMulBnb4Quantizer and by the builder of
onnxruntime-genai. Weights stay packed in memory. Sums are those of floats whatever
`accuracy_level` says: it allows less, and onnxruntime then rounds A to 8 bits per block.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from onnxinterp.ops.contrib.registration import contrib_op
from onnxinterp.ops.packed_blocks import (
    BlockRows,
    check_block_size,
    check_shape,
    packed_size,
    product,
    unpack,
    wide,
)
from onnxinterp.ops.packed_rows import few_rows_product
from onnxinterp.registry import sample
from onnxinterp.testing.samples import Call, Draw, call


@contrib_op("MatMulNBits", frozen=("scales", "zero_points"))
def mat_mul_n_bits(
    A: Tensor,
    B: Tensor,
    scales: Tensor,
    zero_points: Tensor | None = None,
    g_idx: Tensor | None = None,
    bias: Tensor | None = None,
    *,
    K: int,
    N: int,
    block_size: int,
    bits: Literal[2, 4, 8] = 4,
    accuracy_level: int = 0,  # noqa: ARG001  # see the head of this file
    weight_prepacked: Literal[0] = 0,  # noqa: ARG001  # other layouts are those of GPUs
) -> Tensor:
    """A @ W.T + bias, where W [N, K] is (B - zero_points) * scales, block by block of a row.

    A tensor B without elements is a W of zeros. With `g_idx`, the block of each column of W, packed
    zero points are ignored as in onnxruntime: they are 8.
    """
    check_block_size(block_size)
    if not A.ndim or A.shape[-1] != K:
        raise ValueError(f"A must have {K} columns, got {list(A.shape)}")
    check_shape("bias", bias, (N,))
    blocks = -(-K // block_size)
    if B.ndim == 3 and not B.numel():
        Y = A.new_zeros((*A.shape[:-1], N))
        return Y if bias is None else Y + bias
    check_shape("B", B, (N, blocks, block_size * bits // 8))
    check_shape("scales", scales, (N, blocks), (N * blocks,))

    def settings() -> tuple[Tensor, Tensor | None]:
        return scales.reshape(N, blocks), _zero_points(zero_points, (N, blocks), bits)

    found = None
    if g_idx is None:
        found = few_rows_product(A, B, (scales, zero_points), settings, bits)
    if found is None:
        matrix, floats = _matrix(B, *settings(), g_idx, K, bits)
        found = product(A, matrix, (N, K), *floats)
    return found if bias is None else found + bias


def _matrix(
    packed: Tensor,
    scales: Tensor,
    zero: Tensor | None,
    groups: Tensor | None,
    columns: int,
    bits: int,
) -> tuple[BlockRows, list[Tensor]]:
    """The rows of W, and the floats that they are computed from."""
    is_float = zero is not None and zero.is_floating_point()
    if groups is not None:
        if bits != 4:
            raise ValueError(f"bits must be 4 with g_idx, got {bits}")
        check_shape("g_idx", groups, (columns,), (packed.shape[1] * packed.shape[2] * 2,))
        groups = groups[:columns].long()
        zero = zero if is_float else None
    matrix = BlockRows(packed, None if is_float else zero, groups, columns, bits)
    return matrix, [scales, zero] if is_float and zero is not None else [scales]


def _zero_points(zero: Tensor | None, size: tuple[int, int], bits: int) -> Tensor | None:
    """One zero point for each block, as floats or as integers, whatever its form in the file."""
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


FP4 = (0.0, 5.208333333e-03, 0.66666667, 1.0, 0.33333333, 0.5, 0.16666667, 0.25)
NF4 = (
    -1.0,
    -0.6961928009986877,
    -0.5250730514526367,
    -0.39491748809814453,
    -0.28444138169288635,
    -0.18477343022823334,
    -0.09105003625154495,
    0.0,
    0.07958029955625534,
    0.16093020141124725,
    0.24611230194568634,
    0.33791524171829224,
    0.44070982933044434,
    0.5626170039176941,
    0.7229568362236023,
    1.0,
)
CODES = {0: (*FP4, *(-x for x in FP4)), 1: NF4}  # by quant_type


@contrib_op("MatMulBnb4", frozen=("absmax",))
def mat_mul_bnb4(
    A: Tensor,
    B: Tensor,
    absmax: Tensor,
    *,
    K: int,
    N: int,
    block_size: int,
    quant_type: Literal[0, 1],
    training_mode: int = 0,  # noqa: ARG001  # onnxruntime reads it nowhere
    transB: int = 1,
) -> Tensor:
    """A @ W.T, or A @ W: a number of W [N, K] is one of 16 codes times the scale of its block.

    Blocks run on from row to row. The first number is in the high bits of a byte. Without `transB`
    we follow the documentation: onnxruntime's CPU kernel reads memory that it has not set.
    """
    check_block_size(block_size)
    check_shape("B", B, (packed_size(N * K, 4),), (packed_size(N * K, 4), 1))
    check_shape("absmax", absmax, (-(-N * K // block_size),))
    matrix = _CodeRows(B.flatten(), CODES[quant_type], K, block_size)
    return product(A, matrix, (N, K), absmax, transposed=bool(transB))


class _CodeRows:
    """The rows of the matrix of a MatMulBnb4."""

    def __init__(
        self, packed: Tensor, codes: tuple[float, ...], columns: int, block_size: int
    ) -> None:
        self.packed, self.codes = packed, codes
        self.columns, self.block_size = columns, block_size

    def __call__(self, first: int, last: int, absmax: Tensor) -> Tensor:
        start, stop = first * self.columns, last * self.columns
        dtype = wide(absmax.dtype)
        codes = torch.tensor(self.codes, dtype=dtype, device=absmax.device)
        packed = self.packed[start // 2 : packed_size(stop, 4)]
        places = torch.stack((packed >> 4, packed & 15), -1).flatten()
        numbers = codes[places[start % 2 :][: stop - start].int()]
        block, offset = divmod(start, self.block_size)
        scale = absmax[block : -(-stop // self.block_size)].to(dtype)
        scale = scale.repeat_interleave(self.block_size)[offset:][: stop - start]
        return (numbers * scale).reshape(-1, self.columns)


@sample(mat_mul_n_bits)
def _(d: Draw) -> Call:
    bits, block_size = d.choice([4, 2, 8]), d.choice([16, 32])
    K, N = d.integer(1, 70), d.integer(1, 5)
    blocks = -(-K // block_size)
    scales, zero, groups = d.tensor((N, blocks), "T1", lo=0.1, hi=1), None, None
    if d.boolean():
        if d.dtype("T3") is torch.uint8:
            zero = d.ints((N, packed_size(blocks, bits)), 0, 255, torch.uint8)
        elif bits != 8:
            zero = d.tensor((N, blocks), "T3", lo=0, hi=2**bits - 1)
    if bits == 4 and d.boolean():
        groups = d.ints((d.choice([K, blocks * block_size]),), 0, blocks - 1, torch.int32)
    if d.boolean():
        scales = scales.flatten()
        zero = None if zero is None else zero.flatten()
    B = d.ints((N, blocks, block_size * bits // 8), 0, 255, torch.uint8)
    if d.integer(0, 7) == 7:
        B = B[:, :, :0]
    return call(
        d.tensor((*d.shape(), K), "T1", lo=0.5, hi=1),
        B,
        scales,
        zero,
        groups,
        d.maybe(d.tensor((N,), "T1")),
        K=K,
        N=N,
        block_size=block_size,
        bits=bits if bits != 4 or d.boolean() else None,
        accuracy_level=d.maybe(d.integer(0, 1)),
        weight_prepacked=d.maybe(0),
    )


@sample(mat_mul_bnb4)
def _(d: Draw) -> Call:
    block_size, K, N = d.choice([16, 32]), d.integer(1, 40), d.integer(1, 5)
    transposed = d.choice([None, 1, 0])
    return call(
        d.tensor((*d.shape(), N if transposed == 0 else K), "T1", lo=-1, hi=1),
        d.ints((packed_size(N * K, 4),), 0, 255, torch.uint8),
        d.tensor((-(-N * K // block_size),), "T1", lo=0.1, hi=1),
        K=K,
        N=N,
        block_size=block_size,
        quant_type=d.integer(0, 1),
        training_mode=d.maybe(0),
        transB=transposed,
    )
