"""Products with matrices of 8- or 4-bit floats in blocks of a row that share a scale.

MatMulBlockQuantizedFp8Weight has numbers of e4m3 and scales of float32.
MatMulBlockQuantizedFp4Weight is NVFP4: numbers of e2m1, scales of e4m3, and one scale for all of
them. Converters of quantized checkpoints write them. Weights stay packed in memory.
"""

from __future__ import annotations

import torch
from torch import Tensor

from onnxinterp.ops.contrib.registration import contrib_op
from onnxinterp.ops.narrow import to_float8
from onnxinterp.ops.packed_blocks import check_shape, product, unpack, wide
from onnxinterp.ops.quantization import straight_through_gradient
from onnxinterp.registry import sample
from onnxinterp.testing.samples import Call, Draw, call

E4M3 = torch.float8_e4m3fn
E2M1 = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)  # by the low 3 bits; the 4th one is the sign


@contrib_op("MatMulBlockQuantizedFp8Weight", any_type=True, frozen=("b_scale", "a_scale"))
def mat_mul_block_quantized_fp8_weight(
    A: Tensor,
    B: Tensor,
    b_scale: Tensor,
    a_scale: Tensor | None = None,
    bias: Tensor | None = None,
    *,
    block_size: int = 128,
) -> Tensor:
    """A @ W.T + bias. With `a_scale`, A is rounded to 8 bits; its gradient passes the rounding."""
    if B.ndim != 2:
        raise ValueError(f"B must be [N, K], got {list(B.shape)}")
    rows, columns = B.shape
    _check_settings((rows, columns), block_size, b_scale, a_scale, bias)

    def weights(first: int, last: int, scales: Tensor) -> Tensor:
        dtype = wide(scales.dtype)
        scale = _of_columns(scales[first:last].to(dtype), columns, block_size)
        return B[first:last].to(dtype) * scale

    x = A if a_scale is None else _rounded(A, a_scale)
    y = product(x, weights, (rows, columns), b_scale).to(A.dtype)
    return y if bias is None else y + bias


@contrib_op("MatMulBlockQuantizedFp4Weight", frozen=("weight_scale_2", "input_scale"))
def mat_mul_block_quantized_fp4_weight(
    A: Tensor,
    B: Tensor,
    weight_scale: Tensor,
    weight_scale_2: Tensor,
    input_scale: Tensor | None = None,
    bias: Tensor | None = None,
    *,
    block_size: int = 16,
) -> Tensor:
    """A @ W.T + bias. `input_scale` has no effect: it is for products of 4-bit activations."""
    if B.ndim != 2:
        raise ValueError(f"B must be [N, K / 2], got {list(B.shape)}")
    rows, columns = B.shape[0], 2 * B.shape[1]
    _check_settings((rows, columns), block_size, weight_scale, input_scale, bias)
    if weight_scale_2.numel() != 1:
        raise ValueError(f"weight_scale_2 must be a scalar, got {list(weight_scale_2.shape)}")

    def weights(first: int, last: int, of_all: Tensor) -> Tensor:
        dtype = wide(of_all.dtype)
        table = torch.tensor((*E2M1, *(-x for x in E2M1)), dtype=dtype, device=B.device)
        scale = weight_scale[first:last].contiguous().view(E4M3).to(dtype) * of_all.reshape(())
        numbers = table[unpack(B[first:last], 4).int()]
        return (numbers * _of_columns(scale, columns, block_size)).to(A.dtype).to(dtype)

    y = product(A, weights, (rows, columns), weight_scale_2)
    return y if bias is None else y + bias


def _check_settings(
    size: tuple[int, int],
    block_size: int,
    scales: Tensor,
    scale: Tensor | None,
    bias: Tensor | None,
) -> None:
    rows, columns = size
    if block_size < 1:
        raise ValueError(f"block_size must be positive, got {block_size}")
    check_shape("the scales of B", scales, (rows, -(-columns // block_size)))
    check_shape("bias", bias, (rows,))
    if scale is not None and scale.numel() != 1:
        raise ValueError(f"the scale of A must be a scalar, got {list(scale.shape)}")


def _of_columns(scales: Tensor, columns: int, block_size: int) -> Tensor:
    """The scale of each column; a block size may be beyond all columns."""
    return scales[:, torch.arange(columns, device=scales.device) // block_size]


def _rounded(x: Tensor, scale: Tensor) -> Tensor:
    """Round to multiples of a scale that e4m3 has, in float32; numbers out of range saturate."""
    scale = scale.reshape(()).to(wide(scale.dtype))
    most = torch.finfo(E4M3).max
    inside = (x.to(scale.dtype) / scale).clamp(-most, most)
    rounded = to_float8(inside, E4M3, saturate=True).to(scale.dtype)
    return straight_through_gradient(inside, rounded) * scale


@sample(mat_mul_block_quantized_fp8_weight)
def _(d: Draw) -> Call:
    K, N = d.integer(1, 40), d.integer(1, 5)
    block_size = d.choice([None, 16, 1, 7])
    blocks = -(-K // (block_size or 128))
    # a power of 2, so that no type of the scale moves a number to its neighbour
    a_scale = d.choice([None, 0.5, 0.0625])
    return call(
        d.tensor((*d.shape(), K), lo=-2, hi=2),
        d.tensor((N, K), "T1", lo=-2, hi=2),
        d.tensor((N, blocks), "T2", lo=0.1, hi=0.5),
        None if a_scale is None else d.tensor(d.choice([(), (1,)]), "T2", lo=a_scale, hi=a_scale),
        d.maybe(d.tensor((N,), lo=-1, hi=1)),
        block_size=block_size,
    )


@sample(mat_mul_block_quantized_fp4_weight)
def _(d: Draw) -> Call:
    K, N = 2 * d.integer(1, 20), d.integer(1, 5)
    block_size = d.choice([None, 32, 1, 7])
    blocks = -(-K // (block_size or 16))
    return call(
        d.tensor((*d.shape(), K), lo=-1, hi=1),
        d.ints((N, K // 2), 0, 255, torch.uint8),
        d.ints((N, blocks), 0x28, 0x40, torch.uint8),  # 0.25 to 2
        d.tensor(d.choice([(), (1,)]), "T3", lo=0.1, hi=0.2),
        d.maybe(d.tensor((), "T3", lo=1, hi=2)),
        d.maybe(d.tensor((N,), lo=-1, hi=1)),
        block_size=block_size,
    )
