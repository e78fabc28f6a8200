"""Convolutions of [N, *spatial, C]: NhwcConv and NhwcFusedConv.

onnxruntime's optimizer of diffusion models writes NhwcConv, with filters [M, *kernel, C/group],
which its documentation calls [M, C/group, *kernel]. NhwcFusedConv has filters as Conv has them.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from onnxinterp.ops.contrib.fused import fused_conv
from onnxinterp.ops.contrib.registration import contrib_op
from onnxinterp.ops.convolution import conv
from onnxinterp.registry import sample
from onnxinterp.testing.samples import Call, Draw, call, draw_integers
from onnxinterp.versions import forwards


@contrib_op("NhwcConv")
@forwards(conv)
def nhwc_conv(X: Tensor, W: Tensor, B: Tensor | None = None, **attributes: Any) -> Tensor:
    return conv(X.movedim(-1, 1), W.movedim(-1, 1), B, **attributes).movedim(1, -1)


@contrib_op("NhwcFusedConv")
@forwards(fused_conv)
def nhwc_fused_conv(
    X: Tensor, W: Tensor, B: Tensor | None = None, Z: Tensor | None = None, **attributes: Any
) -> Tensor:
    """Z has channels last, too."""
    rest = None if Z is None else Z.movedim(-1, 1)
    return fused_conv(X.movedim(-1, 1), W, B, rest, **attributes).movedim(1, -1)


def _draw_convolution(d: Draw, *, last: bool) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """X, filters and a bias, with filters that have channels last or not."""
    rank, group = d.integer(1, 2), d.integer(1, 2)
    channels, filters = group * d.integer(1, 2), group * d.integer(1, 2)
    kernel = draw_integers(d, rank, 1, 3)
    x = d.tensor((d.integer(1, 2), *draw_integers(d, rank, 5, 7), channels), lo=-3, hi=3)
    side = channels // group
    w = d.tensor((filters, *kernel, side) if last else (filters, side, *kernel), lo=-3, hi=3)
    attributes = {
        "group": group,
        "kernel_shape": d.maybe(kernel),
        "pads": d.maybe(draw_integers(d, 2 * rank, 0, 2)),
        "strides": d.maybe(draw_integers(d, rank, 1, 3)),
        "dilations": d.maybe(draw_integers(d, rank, 1, 2)),
    }
    return (x, w, d.maybe(d.tensor((filters,)))), attributes


@sample(nhwc_conv)
def _(d: Draw) -> Call:
    inputs, attributes = _draw_convolution(d, last=True)
    return call(*inputs, **attributes)


@sample(nhwc_fused_conv)
def _(d: Draw) -> Call:
    inputs, attributes = _draw_convolution(d, last=False)
    x, w, bias = inputs
    shape = conv(x.double().movedim(-1, 1), w.double(), **attributes).movedim(1, -1).shape
    activation, parameters = d.choice(
        [(None, None), ("Relu", None), ("LeakyRelu", [0.25]), ("Clip", [-1.0, 2.0])]
    )
    z = d.maybe(d.tensor(tuple(shape), lo=-3, hi=3))
    return call(x, w, bias, z, activation=activation, activation_params=parameters, **attributes)
