"""Normalizations whose statistics are always those of the input.

History: InstanceNormalization 1, 6 (without a hint about memory), 22 (bfloat16). LayerNormalization
17; onnxruntime's optimizer writes it and SimplifiedLayerNormalization at any opset.
RMSNormalization 23. GroupNormalization 18 (scale and bias per group), 21 (per channel).
MeanVarianceNormalization 1 (onnxruntime's own), 9, 13 (bfloat16). LpNormalization 1, 22 (bfloat16).
LRN 1, 13 (bfloat16).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from onnx import TensorProto
from torch import Tensor, nn
from torch.nn import functional

from onnxinterp.ops.arithmetic import add, div, mul, pow, sub
from onnxinterp.ops.reductions import reduce_mean, reduce_mean_1
from onnxinterp.ops.shapes import from_front
from onnxinterp.ops.unary import sqrt
from onnxinterp.registry import Pattern, fuse, op, sample
from onnxinterp.testing.samples import Call, Draw, call, draw_reals
from onnxinterp.torch_weights import TorchWeight, leaf, torch_weights
from onnxinterp.values import Ints, decimal, is_known, is_traced, plain_shape

INSTANCE_LAYERS: dict[int, type[nn.Module]] = {
    3: nn.InstanceNorm1d,
    4: nn.InstanceNorm2d,
    5: nn.InstanceNorm3d,
}
"""Rank of the input -> the layer of torch."""
NARROW = (torch.float16, torch.bfloat16)


@op("InstanceNormalization", since=1)
def instance_normalization(
    input: Tensor, scale: Tensor, B: Tensor, *, epsilon: float = 1e-5
) -> Tensor:
    if any(is_known(n) and n == 0 for n in input.shape[1:]):
        return input  # torch needs an element
    return torch.group_norm(input, input.shape[1], scale, B, epsilon)


@leaf(instance_normalization, weight="scale", bias="B")
def _(scale: Tensor, *, epsilon: float, rank: int | None) -> nn.Module | None:
    kind = INSTANCE_LAYERS.get(rank or 0)
    if kind is None:
        return None
    return kind(len(scale), decimal(epsilon), affine=True, device="meta")


@op("GroupNormalization", since=21)
def group_normalization(
    X: Tensor,
    scale: Tensor,
    bias: Tensor,
    *,
    epsilon: float = 1e-5,
    num_groups: int,
    stash_type: int = 1,  # noqa: ARG001  # torch computes the statistics of halves in float32
) -> Tensor:
    return torch.group_norm(X, num_groups, scale, bias, epsilon)


@leaf(group_normalization, weight="scale", bias="bias")
def _(scale: Tensor, *, epsilon: float, num_groups: int) -> nn.Module:
    return nn.GroupNorm(num_groups, len(scale), decimal(epsilon), device="meta")


@op("GroupNormalization", since=18)
def group_normalization_18(
    X: Tensor, scale: Tensor, bias: Tensor, *, epsilon: float = 1e-5, num_groups: int
) -> Tensor:
    """Scale and bias have one element per group."""
    size = X.shape[1] // num_groups
    scale, bias = scale.repeat_interleave(size), bias.repeat_interleave(size)
    return torch.group_norm(X, num_groups, scale, bias, epsilon)


@op("LayerNormalization", since=17, any_opset=True)
def layer_normalization(
    X: Tensor,
    Scale: Tensor,
    B: Tensor | None = None,
    *,
    axis: int = -1,
    epsilon: float = 1e-5,
    stash_type: torch.dtype = torch.float32,
    n_outputs: int,
) -> Tensor | tuple[Tensor, Tensor, Tensor]:
    """Over all axes from `axis` on. float64 is computed in float64 for each stash_type."""
    first = from_front(axis, X.ndim)
    shape = X.shape[first:]
    if n_outputs == 1:
        if Scale.shape == shape and (B is None or B.shape == shape):
            return functional.layer_norm(X, plain_shape(Scale), Scale, B, epsilon)
        y = functional.layer_norm(X, shape, None, None, epsilon) * Scale.expand_as(X)
        return y if B is None else y + B.expand_as(X)
    wide = X.float() if X.dtype in NARROW else X
    var, mean = torch.var_mean(wide, list(range(first, X.ndim)), correction=0, keepdim=True)
    inverse = torch.rsqrt(var + epsilon)
    y = ((wide - mean) * inverse).to(X.dtype) * Scale.expand_as(X)
    y = y if B is None else y + B.expand_as(X)
    return y, mean.to(stash_type), inverse.to(stash_type)


@leaf(layer_normalization, weight="Scale", bias="B")
def _(
    Scale: Tensor, B: Tensor | None = None, *, axis: int, epsilon: float, rank: int | None
) -> nn.Module | None:
    return _layer(Scale, B, [axis + i for i in range(Scale.ndim)], epsilon, rank)


def _layer(
    scale: Tensor, bias: Tensor | None, axes: Sequence[int], epsilon: float, rank: int | None
) -> nn.Module | None:
    """The layer of torch, where the axes are the last ones."""
    from_end = sorted(a - rank if a >= 0 and rank is not None else a for a in axes)
    if from_end != list(range(-scale.ndim, 0)):
        return None
    return nn.LayerNorm(scale.shape, decimal(epsilon), bias=bias is not None, device="meta")


def _layer_norm_in_parts(kernel: Callable[..., Any], *axes: str) -> list[Pattern]:
    """The nodes of exporters below opset 17; the axes of a mean are an input from 18 on."""
    centred = (sub, "X", (kernel, "X", *axes))
    variance = (kernel, (pow, centred, 2), *axes)
    y = (div, centred, (sqrt, (add, variance, "epsilon")))
    return [(add, (mul, y, "scale"), "B"), (mul, y, "scale"), y]


@fuse(*_layer_norm_in_parts(reduce_mean, "axes"), *_layer_norm_in_parts(reduce_mean_1))
def layer_norm(
    X: Tensor, scale: Tensor | None, B: Tensor | None, *, axes: Ints | None, epsilon: float
) -> Any:
    """Over the last axes, with a scale and a bias for each of their elements."""
    last = list(range(-len(axes or ()), 0))
    if not axes or len(axes) > X.ndim or sorted(a % X.ndim - X.ndim for a in axes) != last:
        return NotImplemented
    shape = X.shape[-len(axes) :]
    if any(t is not None and (t.shape != shape or t.dtype != X.dtype) for t in (scale, B)):
        return NotImplemented
    sizes = shape if scale is None else plain_shape(scale)
    return functional.layer_norm(X, sizes, scale, B, epsilon)


@leaf(layer_norm, weight="scale", bias="B")
def _(
    scale: Tensor, B: Tensor | None = None, *, axes: Ints | None, epsilon: float, rank: int | None
) -> nn.Module | None:
    return _layer(scale, B, axes or (), epsilon, rank)


WEIGHT, BIAS = [TorchWeight(("weight",), rank=1)], [TorchWeight(("bias",), rank=1)]
torch_weights("InstanceNormalization", scale=WEIGHT, B=BIAS)
torch_weights("GroupNormalization", scale=WEIGHT, bias=BIAS)
torch_weights("LayerNormalization", Scale=[TorchWeight(("weight",))], B=[TorchWeight(("bias",))])


@op("RMSNormalization", since=23)
def rms_normalization(
    X: Tensor,
    scale: Tensor,
    *,
    axis: int = -1,
    epsilon: float = 1e-5,
    stash_type: int = 1,  # noqa: ARG001  # torch computes the mean square of halves in float32
) -> Tensor:
    """Over all axes from `axis` on; the result has the type of `scale`."""
    if is_traced():
        return _rms_of_trace(X, axis, epsilon, scale.dtype) * scale
    shape = X.shape[from_front(axis, X.ndim) :]
    if scale.shape == shape and scale.dtype == X.dtype:
        return functional.rms_norm(X, plain_shape(scale), scale, epsilon)
    return functional.rms_norm(X, shape, None, epsilon).to(scale.dtype) * scale.expand_as(X)


def _rms_of_trace(X: Tensor, axis: int, epsilon: float, dtype: torch.dtype) -> Tensor:
    """Without scale, in plain functions: torch's exporter of traces does not know rms_norm."""
    axes = list(range(from_front(axis, X.ndim), X.ndim))
    wide = X if X.dtype == torch.float64 else X.float()
    inverse = (wide * wide).mean(axes, keepdim=True).add(epsilon).rsqrt()
    return (wide * inverse).to(X.dtype).to(dtype)


@op("SimplifiedLayerNormalization", since=1)
def simplified_layer_normalization(
    X: Tensor,
    scale: Tensor,
    *,
    axis: int = -1,
    epsilon: float = 1e-5,
    stash_type: torch.dtype = torch.float32,
    n_outputs: int,
) -> Tensor | tuple[Tensor, Tensor]:
    """RMSNormalization as onnxruntime's optimizer writes it: in ONNX's domain, at any opset."""
    y = rms_normalization(X, scale, axis=axis, epsilon=epsilon)
    if n_outputs == 1:
        return y
    wide = X.to(stash_type)
    over = list(range(from_front(axis, X.ndim), X.ndim))
    return y, torch.rsqrt(wide.square().mean(over, keepdim=True) + epsilon)


@op("MeanVarianceNormalization", since=9)
def mean_variance_normalization(X: Tensor, *, axes: list[int] = [0, 2, 3]) -> Tensor:  # noqa: B006
    """The specification adds 1e-9 to the standard deviation, not to the variance."""
    centred = X - X.mean(axes, keepdim=True)
    return centred / (centred.square().mean(axes, keepdim=True).sqrt() + 1e-9)


@op("MeanVarianceNormalization", since=1)
def mean_variance_normalization_1(
    input: Tensor, *, across_channels: int = 0, normalize_variance: int = 1
) -> Tensor:
    """Of onnxruntime, before ONNX had it: images only; a variance of 0 gives nan."""
    if input.ndim != 4:
        raise ValueError(f"input must be 4-D, got {list(input.shape)}")
    axes = [0, 1, 2, 3] if across_channels else [0, 2, 3]
    centred = input - input.mean(axes, keepdim=True)
    if not normalize_variance:
        return centred
    return centred / centred.square().mean(axes, keepdim=True).sqrt()


@op("LpNormalization", since=1)
def lp_normalization(input: Tensor, *, axis: int = -1, p: Literal[1, 2] = 2) -> Tensor:
    """The result is 0 where the norm is 0."""
    norm: Tensor = torch.linalg.vector_norm(input, p, axis, keepdim=True)
    return input / norm.masked_fill(norm == 0, 1)


@op("LRN", since=1)
def lrn(
    X: Tensor, *, alpha: float = 1e-4, beta: float = 0.75, bias: float = 1.0, size: int
) -> Tensor:
    """Over `size` neighbouring channels; an even size has one channel more after the center."""
    squares = (X * X).reshape(X.shape[0], 1, X.shape[1], -1)
    padded = functional.pad(squares, (0, 0, (size - 1) // 2, size // 2))
    mean = functional.avg_pool2d(padded, (size, 1), stride=1).reshape(X.shape)
    return X / (bias + alpha * mean) ** beta


@sample(instance_normalization)
def _(d: Draw) -> Call:
    shape = d.shape(min_dims=3, min_side=2)
    parameters = [d.tensor((shape[1],), lo=-3, hi=3) for _ in range(2)]
    return call(d.tensor(shape), *parameters, epsilon=d.maybe(d.real(0.25, 1)))


@sample(group_normalization, group_normalization_18)
def _(d: Draw) -> Call:
    groups, size = d.integer(1, 3), d.integer(1, 2)
    channels = (groups if d.opset < 21 else groups * size,)
    x = d.tensor((d.integer(1, 2), groups * size, *d.shape(1, 2, 2)))
    parameters = [d.tensor(channels, lo=-3, hi=3) for _ in range(2)]
    wide = d.opset >= 21 and d.dtype() is torch.float64
    return call(
        x,
        *parameters,
        num_groups=groups,
        epsilon=d.maybe(d.real(0.25, 1)),
        stash_type=TensorProto.DOUBLE if wide else None,
    )


@sample(layer_normalization)
def _(d: Draw) -> Call:
    x = d.tensor(d.shape(min_dims=2, min_side=2))
    axis = d.integer(-x.ndim, -1)
    shape = x.shape[axis:]
    return call(
        x,
        d.tensor(d.choice([shape, shape[-1:]]), lo=-3, hi=3),
        d.maybe(d.tensor(shape, lo=-3, hi=3)),
        axis=axis if axis != -1 else d.maybe(axis),
        epsilon=d.maybe(d.real(0.25, 1)),
        outputs=1 if x.dtype is torch.float64 else d.choice([1, 3]),
    )


@sample(rms_normalization, simplified_layer_normalization)
def _(d: Draw) -> Call:
    x = d.tensor(d.shape(min_dims=2, min_side=2))
    axis = d.integer(-x.ndim, -1)
    shape = x.shape[axis:]
    scale = d.tensor(d.choice([shape, shape[-1:]]), "V", lo=-3, hi=3)
    return call(x, scale, axis=axis, epsilon=d.maybe(d.real(0.25, 1)))


@sample(mean_variance_normalization)
def _(d: Draw) -> Call:
    shape = d.shape(min_dims=4, min_side=2)
    order = d.ints((math.prod(shape),), 0, 2**31 - 1).argsort()  # elements that all differ
    return call(order.reshape(shape).to(d.dtype()), axes=d.maybe(d.axes(4, min_size=1)))


@sample(mean_variance_normalization_1)
def _(d: Draw) -> Call:
    """The first column stands apart, so that no variance is near 0."""
    x = d.tensor((*d.shape(2, 2), *d.shape(2, 2, min_side=2)), lo=-1, hi=1)
    x[..., :1] += 4
    flags = {n: d.maybe(d.integer(0, 1)) for n in ("across_channels", "normalize_variance")}
    return call(x, **flags)


@sample(lp_normalization)
def _(d: Draw) -> Call:
    x = d.tensor(d.shape(min_dims=1), lo=1)
    return call(x, axis=d.maybe(d.axis(x.ndim)), p=d.maybe(d.integer(1, 2)))


@sample(lrn)
def _(d: Draw) -> Call:
    channels = d.integer(1, 7)  # as many as images: the reference evaluator confuses them
    x = d.tensor((channels, channels, *d.shape(2, 2, min_side=2)))
    reals = draw_reals(d, alpha=(0.25, 1), beta=(0.25, 1), bias=(1, 2))
    return call(x, size=d.integer(1, 5), **reals)
