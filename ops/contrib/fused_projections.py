"""Several packed products of one input: MatMulNBitsMlp, MatMulNBitsQkv, MatMulNBitsQLoRA.

Onnxruntime's optimizer writes the first two for WebGPU, from the nodes of a decoder layer. Weights
are those of MatMulNBits without zero points: a number of b bits means its distance to 2**(b - 1).
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional

from onnxinterp.ops.contrib.packed_products import mat_mul_n_bits
from onnxinterp.ops.contrib.registration import contrib_op
from onnxinterp.ops.contrib.skip_normalization import skip_simplified_layer_normalization
from onnxinterp.ops.packed_blocks import check_shape, packed_size
from onnxinterp.registry import sample
from onnxinterp.testing.samples import Call, Draw, call


@contrib_op("MatMulNBitsMlp", frozen=("gate_scales", "up_scales"))
def mat_mul_n_bits_mlp(
    A: Tensor,
    skip: Tensor | None,
    norm_scale: Tensor | None,
    gate_B: Tensor,
    gate_scales: Tensor,
    gate_bias: Tensor | None,
    up_B: Tensor,
    up_scales: Tensor,
    up_bias: Tensor | None = None,
    *,
    K: int,
    N: int,
    accuracy_level: int = 0,  # noqa: ARG001  # see packed_products.py
    activation: Literal["silu"],  # noqa: ARG001  # onnxruntime has no other one
    bits: Literal[2, 4, 8] = 4,
    block_size: int,
    epsilon: float = 9.999999747378752e-06,
    n_outputs: int,
) -> Tensor | tuple[Tensor, Tensor]:
    """SiLU of a gate times another projection; before them, A may be normalized."""
    x, total = _normalized(A, skip, norm_scale, epsilon, n_outputs > 1)
    sizes: dict[str, Any] = {"K": K, "N": N, "bits": bits, "block_size": block_size}
    gate = mat_mul_n_bits(x, gate_B, gate_scales, bias=gate_bias, **sizes)
    up = mat_mul_n_bits(x, up_B, up_scales, bias=up_bias, **sizes)
    y = functional.silu(gate) * up
    return y if total is None else (y, total)


@contrib_op("MatMulNBitsQkv", frozen=("q_scales", "k_scales", "v_scales"))
def mat_mul_n_bits_qkv(
    A: Tensor,
    skip: Tensor | None,
    norm_scale: Tensor,
    q_B: Tensor,
    q_scales: Tensor,
    q_bias: Tensor | None,
    k_B: Tensor,
    k_scales: Tensor,
    k_bias: Tensor | None,
    v_B: Tensor,
    v_scales: Tensor,
    v_bias: Tensor | None = None,
    *,
    K: int,
    Nkv: int,
    Nq: int,
    accuracy_level: int = 0,  # noqa: ARG001  # see packed_products.py
    bits: Literal[2, 4, 8] = 4,
    block_size: int,
    epsilon: float = 9.999999974752427e-07,
    n_outputs: int,
) -> tuple[Tensor, ...]:
    """Queries, keys and values of normalized tokens."""
    x, total = _normalized(A, skip, norm_scale, epsilon, n_outputs > 3)
    sizes: dict[str, Any] = {"K": K, "bits": bits, "block_size": block_size}
    results = (
        mat_mul_n_bits(x, q_B, q_scales, bias=q_bias, N=Nq, **sizes),
        mat_mul_n_bits(x, k_B, k_scales, bias=k_bias, N=Nkv, **sizes),
        mat_mul_n_bits(x, v_B, v_scales, bias=v_bias, N=Nkv, **sizes),
    )
    return results if total is None else (*results, total)


def _normalized(
    x: Tensor, skip: Tensor | None, scale: Tensor | None, epsilon: float, with_sum: bool
) -> tuple[Tensor, Tensor | None]:
    """The RMS norm of x or of its sum with `skip`, and the sum if it is an output."""
    if skip is None:
        if with_sum:
            raise ValueError("the output input_skip_bias_sum needs skip")
        if scale is None:
            return x, None
        check_shape("norm_scale", scale, tuple(x.shape[-1:]))
        return functional.rms_norm(x, scale.shape, scale, epsilon), None
    if scale is None:
        raise ValueError("skip needs norm_scale")
    found = skip_simplified_layer_normalization(
        x, skip, scale, epsilon=epsilon, n_outputs=4 if with_sum else 1
    )
    return (found[0], found[3]) if isinstance(found, tuple) else (found, None)


@contrib_op("MatMulNBitsQLoRA", frozen=("scales", "lora_A_scales", "lora_B_scales"))
def mat_mul_n_bits_qlora(
    X: Tensor,
    W: Tensor,
    scales: Tensor,
    lora_A: Tensor,
    lora_A_scales: Tensor,
    lora_B: Tensor,
    lora_B_scales: Tensor,
    *,
    K: int,
    N: int,
    accuracy_level: int = 0,  # noqa: ARG001  # see packed_products.py
    bits: Literal[2, 4, 8] = 4,
    block_size: int = 32,
    lora_bits: Literal[2, 4, 8] = 8,
    lora_block_size: int = 32,
) -> Tensor:
    """A product and one of low rank. Without rows in lora_A, the product of lora_B is of zeros."""
    base = mat_mul_n_bits(X, W, scales, K=K, N=N, bits=bits, block_size=block_size)
    if lora_A_scales.ndim != 2 or lora_A.ndim != 3 or lora_B.ndim != 3:
        shapes = [list(x.shape) for x in (lora_A, lora_A_scales, lora_B)]
        raise ValueError(f"adapters must be 3-D and their scales 2-D, got {shapes}")
    rank = lora_A_scales.shape[0]
    own: dict[str, Any] = {"bits": lora_bits, "block_size": lora_block_size}
    if not lora_B.shape[1]:
        check_shape("lora_B", lora_B, (N, 0, packed_size(lora_block_size, lora_bits)))
        return base
    if lora_A.shape[0]:
        down = mat_mul_n_bits(X, lora_A, lora_A_scales, K=K, N=rank, **own)
    else:
        down = X.new_zeros((*X.shape[:-1], rank))
    return base + mat_mul_n_bits(down, lora_B, lora_B_scales, K=rank, N=N, **own)


def _weights(
    d: Draw, rows: int, columns: int, block_size: int, bits: int, type: str
) -> tuple[Tensor, Tensor]:
    """A packed matrix and its scales."""
    blocks = -(-columns // block_size)
    packed = d.ints((rows, blocks, packed_size(block_size, bits)), 0, 255, torch.uint8)
    top = 0.4 / 2**bits
    return packed, d.tensor((rows, blocks), type, lo=top / 2, hi=top)


def _input(d: Draw, columns: int, type: str) -> list[Tensor | None]:
    """The input, and `skip`."""
    shape = (*d.shape(min_dims=1, max_dims=2), columns)
    x = d.tensor(shape, type, lo=0.5, hi=1)
    return [x, d.maybe(d.tensor(shape, type, lo=-0.5, hi=0.5))]


def _biased(d: Draw, rows: int, *sizes: int) -> list[Tensor | None]:
    """A packed matrix, its scales and perhaps a bias."""
    columns, block_size, bits = sizes
    weights = _weights(d, rows, columns, block_size, bits, "T1")
    return [*weights, d.maybe(d.tensor((rows,), "T1", lo=-1, hi=1))]


@sample(mat_mul_n_bits_mlp)
def _(d: Draw) -> Call:
    bits, block_size, K, N = d.choice([4, 2, 8]), d.choice([16, 32]), d.integer(1, 40), 3
    inputs = _input(d, K, "T1")
    is_normalized = inputs[1] is not None or d.boolean()
    return call(
        *inputs,
        d.tensor((K,), "T1", lo=0.5, hi=1) if is_normalized else None,
        *_biased(d, N, K, block_size, bits),
        *_biased(d, N, K, block_size, bits),
        K=K,
        N=N,
        accuracy_level=d.maybe(d.integer(0, 1)),
        activation="silu",
        bits=bits if bits != 4 or d.boolean() else None,
        block_size=block_size,
        epsilon=d.maybe(d.real(0.25, 1)),
        outputs=1 if inputs[1] is None else d.integer(1, 2),
    )


@sample(mat_mul_n_bits_qkv)
def _(d: Draw) -> Call:
    bits, block_size, K = d.choice([4, 2, 8]), d.choice([16, 32]), d.integer(1, 40)
    inputs = _input(d, K, "T1")
    return call(
        *inputs,
        d.tensor((K,), "T1", lo=0.5, hi=1),
        *_biased(d, 4, K, block_size, bits),
        *_biased(d, 2, K, block_size, bits),
        *_biased(d, 2, K, block_size, bits),
        K=K,
        Nkv=2,
        Nq=4,
        accuracy_level=d.maybe(d.integer(0, 1)),
        bits=bits if bits != 4 or d.boolean() else None,
        block_size=block_size,
        epsilon=d.maybe(d.real(0.25, 1)),
        outputs=3 if inputs[1] is None else d.integer(3, 4),
    )


@sample(mat_mul_n_bits_qlora)
def _(d: Draw) -> Call:
    bits, block_size = d.choice([4, 2, 8]), d.choice([32, 16])
    lora_bits, lora_block_size = d.choice([8, 2, 4]), d.choice([32, 16])
    K, N, rank = d.integer(1, 40), d.integer(1, 4), d.integer(1, 20)
    down, down_scales = _weights(d, rank, K, lora_block_size, lora_bits, "T")
    up, up_scales = _weights(d, N, rank, lora_block_size, lora_bits, "T")
    empty = d.integer(0, 7)
    return call(
        d.tensor((*d.shape(), K), lo=-1, hi=1),
        *_weights(d, N, K, block_size, bits, "T"),
        down[:0] if empty == 6 else down,
        down_scales,
        up[:, :0] if empty == 7 else up,
        up_scales,
        K=K,
        N=N,
        accuracy_level=d.maybe(d.integer(0, 1)),
        bits=bits if bits != 4 or d.boolean() else None,
        block_size=block_size if block_size != 32 or d.boolean() else None,
        lora_bits=lora_bits if lora_bits != 8 or d.boolean() else None,
        lora_block_size=lora_block_size if lora_block_size != 32 or d.boolean() else None,
    )
