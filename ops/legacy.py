"""Operators of ONNX's first years that ONNX dropped and onnxruntime still runs.

Affine, Crop, DynamicSlice, ImageScaler, ParametricSoftplus, Scale, ScaledTanh: onnxruntime accepts
them in files below opset 10. They keep their meaning in later ones here. ThresholdedRelu and
MeanVarianceNormalization, which ONNX took up later, stand with their later versions.
"""

from __future__ import annotations

import torch
from torch import Tensor

from onnxinterp.ops.activations import softplus
from onnxinterp.ops.slicing import slice_
from onnxinterp.registry import op, sample
from onnxinterp.testing.samples import Call, Draw, call, one_tensor
from onnxinterp.values import Ints


@op("Affine", since=1)
def affine(X: Tensor, *, alpha: float = 1.0, beta: float = 0.0) -> Tensor:
    return alpha * X + beta


@op("Scale", since=1)
def scale(input: Tensor, *, scale: float = 1.0) -> Tensor:
    return scale * input


@op("ScaledTanh", since=1)
def scaled_tanh(input: Tensor, *, alpha: float | None = None, beta: float | None = None) -> Tensor:
    """Both attributes are needed, in onnxruntime too."""
    if alpha is None or beta is None:
        raise ValueError("alpha and beta must be set")
    return alpha * torch.tanh(beta * input)


@op("ParametricSoftplus", since=1)
def parametric_softplus(
    X: Tensor, *, alpha: float | None = None, beta: float | None = None
) -> Tensor:
    """Both attributes are needed, in onnxruntime too."""
    if alpha is None or beta is None:
        raise ValueError("alpha and beta must be set")
    return alpha * softplus(beta * X)


@op("ImageScaler", since=1)
def image_scaler(input: Tensor, *, bias: list[float] | None = None, scale: float = 1.0) -> Tensor:
    """Pixels times `scale`, plus a bias for each channel."""
    if input.ndim != 4 or len(bias or []) != input.shape[1]:
        raise ValueError(f"input {list(input.shape)} must have a bias per channel, got {bias}")
    return scale * input + input.new_tensor(bias)[:, None, None]


@op("Crop", since=1)
def crop(
    input: Tensor, *, border: list[int] | None = None, scale: list[int] | None = None
) -> Tensor:
    """The border is [left, top, right, bottom]; with `scale`, [height, width] from left and top."""
    if input.ndim != 4 or len(border or []) != 4 or len(scale or [0, 0]) != 2:
        raise ValueError(f"input must be 4-D with four borders, got {list(input.shape)}, {border}")
    left, top, right, bottom = border or [0] * 4
    height, width = input.shape[2:]
    sides = scale or [height - top - bottom, width - left - right]
    if min(left, top, right, bottom, *sides) < 0 or top + sides[0] > height:
        raise ValueError(f"border and scale must be within the image, got {border}, {scale}")
    if left + sides[1] > width:
        raise ValueError(f"border and scale must be within the image, got {border}, {scale}")
    return input[:, :, top : top + sides[0], left : left + sides[1]]


@op("DynamicSlice", since=1, uint64="bits")
def dynamic_slice(data: Tensor, starts: Ints, ends: Ints, axes: Ints | None = None) -> Tensor:
    """Slice without steps."""
    return slice_(data, starts, ends, axes)


SLOPE = 0.25, 2
sample(affine)(one_tensor(alpha=SLOPE, beta=SLOPE))
sample(scale)(one_tensor(scale=SLOPE))


@sample(scaled_tanh, parametric_softplus)
def _(d: Draw) -> Call:
    return call(d.tensor(d.shape(), lo=-3, hi=3), alpha=d.real(*SLOPE), beta=d.real(*SLOPE))


@sample(image_scaler)
def _(d: Draw) -> Call:
    x = d.tensor(d.shape(4, 4))
    bias = [d.real(-2, 2) for _ in range(x.shape[1])]
    return call(x, bias=bias or [0.0], scale=d.maybe(d.real(*SLOPE)))


@sample(crop)
def _(d: Draw) -> Call:
    x = d.tensor((*d.shape(2, 2), d.integer(3, 5), d.integer(3, 5)))
    border = [d.integer(0, 1) for _ in range(4)]
    room = [x.shape[2] - border[1], x.shape[3] - border[0]]
    return call(x, border=border, scale=d.maybe([d.integer(1, n) for n in room]))


@sample(dynamic_slice)
def _(d: Draw) -> Call:
    x = d.tensor(d.shape(min_dims=1))
    axes = d.maybe(d.axes(x.ndim, 1))
    count = x.ndim if axes is None else len(axes)
    starts = [d.integer(-5, 4) for _ in range(count)]
    ends = [d.integer(-5, 5) for _ in range(count)]
    return call(x, starts, ends, axes)
