"""Mixtures of experts: MoE, and QMoE over weights of few bits.

Written by onnxruntime-genai's builder. We follow the CPU kernels: gates are interleaved with what
they multiply (`swiglu_fusion` 1), there is no third matrix, and gelu is the tanh form. Other
forms are those of GPUs, and raise. Sums are those of floats whatever `accuracy_level` says.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor
from torch.nn import functional

from onnxinterp.dtypes import REAL
from onnxinterp.ops.contrib.registration import REQUIRED, contrib_op
from onnxinterp.ops.eager import is_captured
from onnxinterp.ops.packed_blocks import (
    BlockRows,
    check_block_size,
    check_shape,
    packed_size,
    product,
    unpack,
    wide,
)
from onnxinterp.registry import sample
from onnxinterp.testing.samples import Call, Draw, call, draw_reals

Activation: TypeAlias = Literal["relu", "gelu", "silu", "swiglu", "identity"]
Bits: TypeAlias = Literal[2, 4, 8]
QMOE_SETTINGS = ("fc1_scales", "fc2_scales")


@dataclass
class Dense:
    """The matrices [experts, rows, columns] of one layer, and the bias of each."""

    weights: Tensor
    bias: Tensor | None

    def of(self, experts: Tensor) -> Dense:
        """Those of some experts."""
        bias = None if self.bias is None else self.bias.index_select(0, experts)
        return Dense(self.weights.index_select(0, experts), bias)

    def __call__(self, x: Tensor) -> Tensor:
        """From x [experts, tokens, columns] to [experts, tokens, rows]."""
        y = x @ self.weights.to(x.dtype).mT
        return y if self.bias is None else y + self.bias.unsqueeze(1)


@dataclass
class Packed:
    """The same, of numbers of few bits in blocks along the columns.

    Attributes:
        packed: [experts, rows, bytes].
        scales: [experts, rows, blocks].
        zero: integers of the shape of the scales.
        bias: [experts, rows].
        columns: how many there are.
        bits: of each number.
    """

    packed: Tensor
    scales: Tensor
    zero: Tensor | None
    bias: Tensor | None
    columns: int
    bits: int

    def of(self, experts: Tensor) -> Packed:
        """Those of some experts."""
        zero = None if self.zero is None else self.zero.index_select(0, experts)
        bias = None if self.bias is None else self.bias.index_select(0, experts)
        packed, scales = (t.index_select(0, experts) for t in (self.packed, self.scales))
        return Packed(packed, scales, zero, bias, self.columns, self.bits)

    def __call__(self, x: Tensor) -> Tensor:
        """As of `Dense`, one expert after the other."""
        count, rows, blocks = self.scales.shape
        size = rows, self.columns
        results = []
        for e in range(count):
            packed = self.packed[e].reshape(rows, blocks, -1)
            zero = None if self.zero is None else self.zero[e]
            matrix = BlockRows(packed, zero, None, self.columns, self.bits)
            results.append(product(x[e], matrix, size, self.scales[e]))
        y = torch.stack(results)
        return y if self.bias is None else y + self.bias.unsqueeze(1)


Layer: TypeAlias = "Dense | Packed"


@contrib_op("MoE")
def moe(
    input: Tensor,
    router_probs: Tensor,
    fc1_experts_weights: Tensor,
    fc1_experts_bias: Tensor | None = None,
    fc2_experts_weights: Tensor = REQUIRED,
    fc2_experts_bias: Tensor | None = None,
    fc3_experts_weights: Tensor | None = None,
    fc3_experts_bias: Tensor | None = None,
    *,
    activation_alpha: float = 1.0,
    activation_beta: float = 0.0,
    activation_type: Activation = "relu",
    k: int = 1,
    normalize_routing_weights: int = 0,
    swiglu_fusion: int = 0,
    swiglu_limit: float | None = None,
    swiglu_limit_after_activation: Literal[0] = 0,  # noqa: ARG001  # 1 is for GPUs
    use_sparse_mixer: Literal[0] = 0,  # noqa: ARG001  # likewise
) -> Tensor:
    """A token goes through k experts; their weights are probabilities of a softmax over all."""
    _check_absent(fc3_experts_weights, fc3_experts_bias)
    n_experts, hidden = _check_tokens(input, router_probs, fc2_experts_weights)
    width = fc2_experts_weights.shape[2] * _fusion(activation_type, swiglu_fusion)
    check_shape("fc1_experts_weights", fc1_experts_weights, (n_experts, width, hidden))
    check_shape("fc1_experts_bias", fc1_experts_bias, (n_experts, width))
    check_shape("fc2_experts_bias", fc2_experts_bias, (n_experts, hidden))
    values, experts = _top(router_probs.to(wide(input.dtype)).softmax(-1), k)
    if normalize_routing_weights:
        values = values / values.sum(-1, keepdim=True)
    first = Dense(fc1_experts_weights, fc1_experts_bias)
    second = Dense(fc2_experts_weights, fc2_experts_bias)
    swiglu = activation_alpha, activation_beta, swiglu_limit
    return _mixture(input, values, experts, first, second, _activation(activation_type, *swiglu))


@contrib_op("QMoE", any_type=True, frozen=QMOE_SETTINGS)
def q_moe(
    input: Tensor,
    router_probs: Tensor,
    fc1_experts_weights: Tensor,
    fc1_scales: Tensor | None = None,
    fc1_experts_bias: Tensor | None = None,
    fc2_experts_weights: Tensor = REQUIRED,
    fc2_scales: Tensor | None = None,
    fc2_experts_bias: Tensor | None = None,
    fc3_experts_weights: Tensor | None = None,
    fc3_scales: Tensor | None = None,
    fc3_experts_bias: Tensor | None = None,
    fc1_zero_points: Tensor | None = None,
    fc2_zero_points: Tensor | None = None,
    fc3_zero_points: Tensor | None = None,
    router_weights: Tensor | None = None,
    fc1_global_scale: Tensor | None = None,
    fc2_global_scale: Tensor | None = None,
    fc1_act_scale: Tensor | None = None,
    fc2_act_scale: Tensor | None = None,
    fc1_act_block_scale: Tensor | None = None,
    fc2_act_block_scale: Tensor | None = None,
    *,
    accuracy_level: int = 0,  # noqa: ARG001  # see the head of this file
    activation_alpha: float = 1.0,
    activation_beta: float = 0.0,
    activation_type: Activation = "relu",
    block_size: int | None = None,
    expert_weight_bits: Bits = 4,
    fc1_expert_weight_bits: Bits | None = None,
    fc2_expert_weight_bits: Bits | None = None,
    fc3_expert_weight_bits: int | None = None,  # noqa: ARG001  # of a matrix that is absent
    k: int = 1,
    normalize_routing_weights: int = 0,
    quant_type: Literal["int"] = "int",  # noqa: ARG001  # others are those of GPUs
    swiglu_fusion: int = 0,
    swiglu_limit: float | None = None,
    swiglu_limit_after_activation: Literal[0] = 0,  # noqa: ARG001  # likewise
    use_sparse_mixer: Literal[0] = 0,  # noqa: ARG001  # likewise
    weights_prepacked: Literal[-1, 0] = -1,  # noqa: ARG001  # both are the plain layout
) -> Tensor:
    """MoE over packed matrices. The weights of the k experts sum to 1, whatever the attribute says.

    Unless they come from `router_weights`, which `router_probs` then only selects.
    """
    given = fc3_experts_weights, fc3_scales, fc3_experts_bias, fc3_zero_points
    _check_absent(*given, fc1_global_scale, fc2_global_scale, fc1_act_scale, fc2_act_scale)
    _check_absent(fc1_act_block_scale, fc2_act_block_scale)
    n_experts, hidden = _check_tokens(input, router_probs, fc2_experts_weights)
    bits = fc2_expert_weight_bits or expert_weight_bits
    size = n_experts, hidden, fc2_experts_weights.shape[2] * 8 // bits
    second = _packed(fc2_experts_weights, fc2_scales, fc2_zero_points, size, block_size, bits)
    second.bias = _checked(fc2_experts_bias, size)
    bits = fc1_expert_weight_bits or expert_weight_bits
    size = n_experts, size[2] * _fusion(activation_type, swiglu_fusion), hidden
    first = _packed(fc1_experts_weights, fc1_scales, fc1_zero_points, size, block_size, bits)
    first.bias = _checked(fc1_experts_bias, size)
    if router_weights is None:
        values, experts = _top(router_probs, k)
        values = values.to(wide(input.dtype)).softmax(-1)
    else:
        check_shape("router_weights", router_weights, router_probs.shape)
        experts = _top(router_probs, k)[1]
        values = router_weights.gather(-1, experts).to(wide(input.dtype))
        if normalize_routing_weights:
            values = values / values.sum(-1, keepdim=True)
    swiglu = activation_alpha, activation_beta, swiglu_limit
    return _mixture(input, values, experts, first, second, _activation(activation_type, *swiglu))


def _packed(
    weights: Tensor,
    scales: Tensor | None,
    zero: Tensor | None,
    size: tuple[int, int, int],
    block_size: int | None,
    bits: int,
) -> Packed:
    """One layer; without a block size a row has one scale."""
    n_experts, rows, columns = size
    if weights.dtype is not torch.uint8 or scales is None or scales.dtype not in REAL:
        raise TypeError("weights must be uint8, and have scales of float32 or halves")
    if block_size:
        check_block_size(block_size)
        if columns % block_size:
            raise ValueError(f"block_size must divide {columns}, got {block_size}")
    blocks = columns // block_size if block_size else 1
    check_shape("weights", weights, (n_experts, rows, packed_size(columns, bits)))
    check_shape("scales", scales, (*size[:2], blocks) if block_size else size[:2])
    if zero is not None and block_size:
        check_shape("zero_points", zero, (*size[:2], packed_size(blocks, bits)))
        zero = unpack(zero, bits)[..., :blocks]
    elif zero is not None:
        check_shape("zero_points", zero, (n_experts, packed_size(rows, bits)))
        zero = unpack(zero, bits)[..., :rows].unsqueeze(-1)
    return Packed(weights, scales.reshape(*size[:2], blocks), zero, None, columns, bits)


def _check_absent(*inputs: Tensor | None) -> None:
    if any(t is not None for t in inputs):
        raise ValueError("a third matrix and scales of activations or experts must be absent")


def _check_tokens(x: Tensor, router: Tensor, weights: Tensor) -> tuple[int, int]:
    """Check the tokens; return the number of experts and the size of a token."""
    if x.ndim not in (2, 3) or weights.ndim != 3:
        raise ValueError(f"input must have rank 2 or 3 and weights 3, got {x.ndim}, {weights.ndim}")
    n_experts, hidden = weights.shape[:2]
    check_shape("input", x, (*x.shape[:-1], hidden))
    check_shape("router_probs", router, (x.numel() // hidden if hidden else 0, n_experts))
    return n_experts, hidden


def _checked(bias: Tensor | None, size: tuple[int, int, int]) -> Tensor | None:
    check_shape("bias", bias, size[:2])
    return bias


def _fusion(kind: str, fusion: int) -> int:
    """How many numbers the first layer has for each one after the activation."""
    if kind == "swiglu" and fusion != 1:
        raise ValueError(f"swiglu_fusion must be 1, got {fusion}")
    return 2 if kind == "swiglu" else 1


def _top(router: Tensor, k: int) -> tuple[Tensor, Tensor]:
    if not 1 <= k <= router.shape[-1]:
        raise ValueError(f"k must be 1 to {router.shape[-1]}, got {k}")
    values, experts = router.topk(k, -1)
    return values, experts


def _activation(
    kind: str, alpha: float, beta: float, limit: float | None
) -> Callable[[Tensor], Tensor]:
    if kind == "swiglu":

        def swiglu(x: Tensor) -> Tensor:
            gate, up = x[..., ::2], x[..., 1::2]
            if limit is not None:
                gate, up = gate.clamp(max=limit), up.clamp(-limit, limit)
            return gate * torch.sigmoid(alpha * gate) * (up + beta)

        return swiglu
    plain: dict[str, Callable[[Tensor], Tensor]] = {
        "relu": torch.relu,
        "gelu": lambda x: functional.gelu(x, approximate="tanh"),
        "silu": functional.silu,
        "identity": lambda x: x,
    }
    return plain[kind]


def _mixture(
    input: Tensor,
    values: Tensor,
    experts: Tensor,
    first: Layer,
    second: Layer,
    activation: Callable[[Tensor], Tensor],
) -> Tensor:
    """The sum of the experts of each token, by their weights.

    A few tokens go through copies of the matrices of their experts, many through all experts:
    which rows go where depends on data, and so would the sizes of parts. `values` are the weights
    of `experts`; both are [tokens, k].
    """
    dtype = wide(input.dtype) if input.is_cpu else input.dtype
    x = input.reshape(-1, input.shape[-1]).to(dtype)
    values = values.to(dtype)
    (tokens, k), n_experts = experts.shape, _count(second)
    if not is_captured() and 0 < tokens * k < n_experts:
        chosen = experts.flatten()
        hidden = first.of(chosen)(x.repeat_interleave(k, 0).unsqueeze(1))
        y = second.of(chosen)(activation(hidden)).reshape(tokens, k, -1)
        y = (y * values.unsqueeze(-1)).sum(1)
    else:
        y = second(activation(first(x.expand(n_experts, *x.shape))))
        spread = x.new_zeros(tokens, n_experts).scatter(1, experts, values)
        y = torch.einsum("te,eth->th", spread, y)
    return y.to(input.dtype).reshape(input.shape)


def _count(layer: Layer) -> int:
    return (layer.weights if isinstance(layer, Dense) else layer.packed).shape[0]


def _draw_mixture(d: Draw, multiple: int) -> tuple[Tensor, Tensor, tuple[int, int, int, int], Any]:
    """Tokens, router, numbers of experts, of rows, of columns and the width; attributes."""
    n_experts, hidden, inner = (
        d.integer(1, 5),
        multiple * d.integer(1, 3),
        multiple * d.integer(1, 3),
    )
    shape = d.shape(min_dims=1, max_dims=2)
    tokens = math.prod(shape)
    order = d.ints((tokens, n_experts), 0, 9).argsort(-1)  # no two are the same
    kind = d.choice(["relu", "gelu", "silu", "identity", "swiglu"])
    attributes: dict[str, Any] = {
        "activation_type": kind,
        "k": d.integer(1, n_experts),
        "normalize_routing_weights": d.maybe(d.integer(0, 1)),
        "use_sparse_mixer": d.maybe(0),
    }
    if kind == "swiglu":
        attributes.update(draw_reals(d, activation_alpha=(0.5, 2), activation_beta=(0, 1)))
        attributes.update(draw_reals(d, swiglu_limit=(0.5, 2)), swiglu_fusion=1)
    x = d.tensor((*shape, hidden), "T", lo=-1, hi=1)
    router = order.to(x.dtype) / 4
    return x, router, (n_experts, inner * (1 + (kind == "swiglu")), hidden, inner), attributes


@sample(moe)
def _(d: Draw) -> Call:
    x, router, (n_experts, width, hidden, inner), attributes = _draw_mixture(d, 1)
    return call(
        x,
        router,
        d.tensor((n_experts, width, hidden), "T", lo=-1, hi=1),
        d.maybe(d.tensor((n_experts, width), "T", lo=-1, hi=1)),
        d.tensor((n_experts, hidden, inner), "T", lo=-1, hi=1),
        d.maybe(d.tensor((n_experts, hidden), "T", lo=-1, hi=1)),
        **attributes,
    )


@sample(q_moe)
def _(d: Draw) -> Call:
    block = d.choice([None, 16, 32])
    x, router, (n_experts, width, hidden, inner), attributes = _draw_mixture(d, block or 4)

    has_zero = d.boolean()  # where one layer has none, onnxruntime rounds its weights once more

    def layer(rows: int, columns: int, bits: int) -> list[Any]:
        packed = d.tensor((n_experts, rows, columns * bits // 8), "T1", lo=0, hi=255)
        shape = (n_experts, rows, columns // block) if block else (n_experts, rows)
        scales = d.tensor(shape, "T2", lo=0.5 / 2**bits, hi=1 / 2**bits)
        zero = d.tensor((*shape[:-1], packed_size(shape[-1], bits)), "T1", lo=0, hi=255)
        bias = d.tensor((n_experts, rows), "T", lo=-1, hi=1)
        return [packed, scales, d.maybe(bias), zero if has_zero else None]

    # onnxruntime has one for both layers, and rounds tokens to 8 bits for 2 in blocks of 32
    bits = d.choice({None: [4, 2, 8], 16: [4, 2], 32: [4]}[block])
    one, two = layer(width, hidden, bits), layer(hidden, inner, bits)
    given = d.boolean()
    weights = d.tensor(router.shape, "T", lo=0.1, hi=1)
    return call(
        *(x, router, *one[:3], *two[:3], None, None, None, one[3], two[3], None),
        d.maybe(weights),
        accuracy_level=d.maybe(d.integer(0, 1)),
        block_size=block,
        expert_weight_bits=bits if bits != 4 or d.boolean() else None,
        fc1_expert_weight_bits=bits if given else None,
        fc2_expert_weight_bits=bits if given else None,
        quant_type=d.maybe("int"),
        weights_prepacked=d.choice([None, 0, -1]),
        **attributes,
    )
