"""Convolutions and matrix products with the nodes after or before them.

onnxruntime writes FusedConv, FusedGemm and FusedMatMul into the models that it optimizes for CPUs,
FusedMatMulActivation and GemmFastGelu for other devices. TransposeMatMul is an older FusedMatMul.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor
from torch.nn import functional

from onnxinterp.ops import activations
from onnxinterp.ops.contrib.activations import fast_gelu
from onnxinterp.ops.contrib.registration import contrib_op
from onnxinterp.ops.convolution import conv
from onnxinterp.ops.matmul import gemm
from onnxinterp.registry import sample
from onnxinterp.testing.samples import Call, Draw, call, draw_integers
from onnxinterp.versions import forwards

ConvActivation: TypeAlias = Literal[
    "Relu", "Sigmoid", "Tanh", "HardSwish", "LeakyRelu", "Clip", "HardSigmoid"
]
GemmActivation: TypeAlias = Literal[
    "Relu",
    "Sigmoid",
    "Tanh",
    "Softplus",
    "Softsign",
    "LeakyRelu",
    "Elu",
    "Celu",
    "ThresholdedRelu",
    "HardSigmoid",
    "ParametricSoftplus",
    "ScaledTanh",
    "Selu",
]

PLAIN: dict[str, Callable[[Tensor], Tensor]] = {
    "Relu": torch.relu,
    "Sigmoid": torch.sigmoid,
    "Tanh": torch.tanh,
    "HardSwish": activations.hard_swish,
    "Softplus": activations.softplus,
    "Softsign": functional.softsign,
}
"""Activations without parameters."""

WITH_ALPHA: dict[str, Callable[..., Tensor]] = {
    "LeakyRelu": activations.leaky_relu,
    "Elu": activations.elu,
    "Celu": activations.celu,
    "ThresholdedRelu": activations.thresholded_relu,
}
WITH_BETA: dict[str, Callable[..., Tensor]] = {
    "HardSigmoid": activations.hard_sigmoid,
    "ParametricSoftplus": lambda x, alpha, beta: alpha * activations.softplus(beta * x),
    "ScaledTanh": lambda x, alpha, beta: alpha * torch.tanh(beta * x),
    "Clip": lambda x, alpha, beta: x.clamp(alpha, beta),
}


def _activate(
    x: Tensor,
    activation: str | None,
    alpha: float | None = None,
    beta: float | None = None,
    gamma: float | None = None,
) -> Tensor:
    """Apply an activation; its parameters have no defaults, in onnxruntime neither."""
    if not activation:
        return x
    if not x.is_floating_point():
        raise ValueError(f"the activation {activation} is for floating-point numbers")
    if activation in PLAIN:
        return PLAIN[activation](x)
    function, wanted = _with_parameters(activation, alpha, beta, gamma)
    if None in wanted.values():
        raise ValueError(f"the activation {activation} needs {', '.join(wanted)}")
    return function(x, **wanted)


def _with_parameters(
    activation: str, alpha: float | None, beta: float | None, gamma: float | None
) -> tuple[Callable[..., Tensor], dict[str, float | None]]:
    if activation in WITH_ALPHA:
        return WITH_ALPHA[activation], {"alpha": alpha}
    if activation in WITH_BETA:
        return WITH_BETA[activation], {"alpha": alpha, "beta": beta}
    return activations.selu, {"alpha": alpha, "gamma": gamma}


@contrib_op("FusedConv")
@forwards(conv)
def fused_conv(
    X: Tensor,
    W: Tensor,
    B: Tensor | None = None,
    Z: Tensor | None = None,
    *,
    activation: ConvActivation | None = None,
    activation_params: list[float] | None = None,
    **attributes: Any,
) -> Tensor:
    """Z is added before the activation, whose parameters are those of its node: [low, high]."""
    y = conv(X, W, B, **attributes)
    if Z is not None:
        if Z.shape != y.shape:
            raise ValueError(f"Z must be {list(y.shape)}, got {list(Z.shape)}")
        y = y + Z
    return _activate(y, activation, *(activation_params or [])[:2])


@contrib_op("FusedGemm")
@forwards(gemm)
def fused_gemm(
    A: Tensor,
    B: Tensor,
    C: Tensor | None = None,
    *,
    activation: GemmActivation | None = None,
    activation_alpha: float | None = None,
    activation_beta: float | None = None,
    activation_gamma: float | None = None,
    **attributes: Any,
) -> Tensor:
    y = gemm(A, B, C, **attributes)
    return _activate(y, activation, activation_alpha, activation_beta, activation_gamma)


@contrib_op("FusedMatMul")
def fused_mat_mul(
    A: Tensor,
    B: Tensor,
    *,
    alpha: float = 1.0,
    transA: int = 0,
    transB: int = 0,
    transBatchA: int = 0,
    transBatchB: int = 0,
) -> Tensor:
    """The product alpha * A' @ B'; transposing the batch moves axis 0 to the rows, first of all.

    A vector is never transposed.
    """
    if (transBatchA or transBatchB) and not A.ndim == B.ndim >= 3:
        raise ValueError(
            "transBatch: A and B must have the same rank of at least 3,"
            f" got {list(A.shape)} and {list(B.shape)}"
        )
    y = torch.matmul(_turned(A, transA, transBatchA), _turned(B, transB, transBatchB))
    return y if alpha == 1 else alpha * y


def _turned(x: Tensor, trans: int, trans_batch: int) -> Tensor:
    x = x.movedim(0, -2) if trans_batch else x
    return x.mT if trans and x.ndim > 1 else x


@contrib_op("TransposeMatMul")
def transpose_mat_mul(
    A: Tensor, B: Tensor, *, alpha: float = 1.0, transA: int = 0, transB: int = 0
) -> Tensor:
    return fused_mat_mul(A, B, alpha=alpha, transA=transA, transB=transB)


@contrib_op("FusedMatMulActivation")
@forwards(fused_mat_mul)
def fused_mat_mul_activation(
    A: Tensor,
    B: Tensor,
    *,
    activation: GemmActivation,
    activation_alpha: float | None = None,
    activation_axis: int | None = None,  # noqa: ARG001  # of Softmax and its like, not supported
    activation_beta: float | None = None,
    activation_gamma: float | None = None,
    **attributes: Any,
) -> Tensor:
    """The documentation lists no activations: these are those of FusedGemm."""
    y = fused_mat_mul(A, B, **attributes)
    return _activate(y, activation, activation_alpha, activation_beta, activation_gamma)


@contrib_op("GemmFastGelu")
def gemm_fast_gelu(X: Tensor, W: Tensor, bias: Tensor | None = None) -> Tensor:
    """The bias comes before the activation."""
    return fast_gelu(torch.matmul(X, W), bias)


def _draw_activation(d: Draw, names: list[str]) -> dict[str, Any]:
    """Name and all parameters; those that it does not need have no effect."""
    activation = d.choice(names)
    reals = {"alpha": d.real(0.25, 2), "beta": d.real(0.25, 2), "gamma": d.real(0.5, 2)}
    return {"activation": activation} | {f"activation_{n}": v for n, v in reals.items()}


@sample(fused_conv)
def _(d: Draw) -> Call:
    rank, group = d.integer(1, 3), d.integer(1, 2)
    channels, filters = group * d.integer(1, 2), group * d.integer(1, 2)
    kernel, sizes = draw_integers(d, rank, 1, 3), draw_integers(d, rank, 3, 5)
    x = d.tensor((d.integer(1, 2), channels, *sizes), lo=-1, hi=1)
    w = d.tensor((filters, channels // group, *kernel), lo=-1, hi=1)
    attributes: dict[str, Any] = {
        "dilations": d.maybe([1] * rank),
        "group": group,
        "kernel_shape": d.maybe(kernel),
        "pads": d.maybe(draw_integers(d, 2 * rank, 0, 1)),
        "strides": d.maybe(draw_integers(d, rank, 1, 2)),
    }
    y = conv(x.float(), w.float(), **{k: v for k, v in attributes.items() if v is not None})
    activation = d.choice([None, "Relu", "Sigmoid", "Tanh", "HardSwish", "LeakyRelu", "Clip"])
    activation = d.choice([activation, "HardSigmoid"])
    parameters = [d.real(0.125, 0.5), d.real(0.5, 1)]
    count = {"LeakyRelu": 1, "Clip": 2, "HardSigmoid": 2}.get(activation or "", 0)
    return call(
        x,
        w,
        d.maybe(d.tensor((filters,), lo=-1, hi=1)),
        d.maybe(d.tensor(y.shape, lo=-1, hi=1)),
        activation=activation,
        activation_params=parameters[:count] or None,
        **attributes,
    )


GEMM_ACTIVATIONS = [
    *PLAIN.keys() - {"HardSwish"},
    *WITH_ALPHA,
    *WITH_BETA.keys() - {"Clip"},
    "Selu",
]


@sample(fused_gemm)
def _(d: Draw) -> Call:
    m, k, n = d.shape(min_dims=3, max_dims=3)
    trans_a, trans_b = d.maybe(d.integer(0, 1)), d.maybe(d.integer(0, 1))
    return call(
        d.tensor((k, m) if trans_a else (m, k), lo=-2, hi=2),
        d.tensor((n, k) if trans_b else (k, n), lo=-2, hi=2),
        d.maybe(d.tensor(d.broadcastable((m, n)), lo=-2, hi=2)),
        alpha=d.maybe(d.real(-2, 2)),
        beta=d.maybe(d.real(-2, 2)),
        transA=trans_a,
        transB=trans_b,
        **_draw_activation(d, sorted(GEMM_ACTIVATIONS)),
    )


def _draw_factors(d: Draw, batches: bool) -> tuple[Tensor, Tensor, dict[str, Any]]:
    """Two tensors and how they are transposed, the batch too."""
    m, k, n = d.integer(1, 4), d.integer(1, 4), d.integer(1, 4)
    batch = d.shape(min_dims=0, max_dims=2)
    left, right = d.choice(
        [
            ((m, k), (k, n)),
            ((k,), (k,)),
            ((k,), (*batch, k, n)),
            ((*batch, m, k), (k,)),
            ((*batch, m, k), (*d.broadcastable(batch), k, n)),
            ((2, *batch, m, k), (1, *batch, k, n)),
        ]
    )
    attributes: dict[str, Any] = {"alpha": d.maybe(d.real(-2, 2))}
    same_rank = batches and len(left) == len(right) >= 3
    shapes = []
    for name, shape in (("A", left), ("B", right)):
        trans, trans_batch = d.maybe(d.integer(0, 1)), d.maybe(d.integer(0, int(same_rank)))
        attributes["trans" + name] = trans
        if batches:
            attributes["transBatch" + name] = trans_batch
        if trans and len(shape) > 1:
            shape = (*shape[:-2], shape[-1], shape[-2])
        if batches and trans_batch:
            shape = (shape[-2], *shape[:-2], shape[-1])
        shapes.append(shape)
    A, B = (d.tensor(shape, lo=-2, hi=2) for shape in shapes)
    return A, B, attributes


@sample(fused_mat_mul)
def _(d: Draw) -> Call:
    A, B, attributes = _draw_factors(d, batches=True)
    return call(A, B, **attributes)


@sample(transpose_mat_mul)
def _(d: Draw) -> Call:
    A, B, attributes = _draw_factors(d, batches=False)
    return call(A, B, **attributes)


@sample(fused_mat_mul_activation)
def _(d: Draw) -> Call:
    A, B, attributes = _draw_factors(d, batches=True)
    activation = _draw_activation(d, sorted(GEMM_ACTIVATIONS))
    return call(A, B, **attributes, **activation, activation_axis=d.maybe(0))


@sample(gemm_fast_gelu)
def _(d: Draw) -> Call:
    k, n = d.integer(1, 4), d.integer(1, 4)
    x = d.tensor((*d.shape(min_dims=1, max_dims=2), k), lo=-2, hi=2)
    w = d.tensor((k, n), lo=-1, hi=1)
    return call(x, w, d.maybe(d.tensor((n,), lo=-1, hi=1)))
