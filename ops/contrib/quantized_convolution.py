"""QLinearConv of com.microsoft: that of ONNX, and with `channels_last` for [N, *spatial, C].

onnxruntime's optimizer writes it into quantized models. The filters stay [M, C/group, *kernel].
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from onnxinterp.ops.contrib.quantized_numbers import settings
from onnxinterp.ops.contrib.registration import contrib_op
from onnxinterp.ops.integer_products import q_linear_conv
from onnxinterp.registry import sample
from onnxinterp.testing.samples import Call, Draw, call, draw_integers
from onnxinterp.values import Flag
from onnxinterp.versions import forwards


@contrib_op("QLinearConv", frozen=settings("x", "w", "y"))
@forwards(q_linear_conv)
def q_linear_conv_contrib(
    x: Tensor, *inputs: Any, channels_last: Flag = 0, **attributes: Any
) -> Tensor:
    if not channels_last:
        return q_linear_conv(x, *inputs, **attributes)
    return q_linear_conv(x.movedim(-1, 1), *inputs, **attributes).movedim(1, -1)


@sample(q_linear_conv_contrib)
def _(d: Draw) -> Call:
    """Weights of int8 have 7 bits: onnxruntime saturates larger ones on processors without VNNI."""
    rank, group = d.integer(1, 2), d.integer(1, 2)
    channels, filters = group * d.integer(1, 2), group * d.integer(1, 2)
    kernel, sizes = draw_integers(d, rank, 1, 3), draw_integers(d, rank, 5, 7)
    channels_last = d.maybe(d.integer(0, 1))
    shape = (*sizes, channels) if channels_last else (channels, *sizes)
    auto_pad = d.choice([None, "VALID"])
    per_channel = d.choice([(), (filters,)])
    return call(
        d.tensor((d.integer(1, 2), *shape), "T1", -100, 200),
        d.floats((), lo=0.1, hi=1),
        d.tensor((), "T1", 0, 20),
        d.tensor((filters, channels // group, *kernel), "T2", -64, 63),
        d.floats(per_channel, lo=0.1, hi=1),
        torch.full(per_channel, 0 if per_channel else d.integer(0, 20), dtype=d.dtype("T2")),
        d.floats((), lo=10, hi=100),
        d.tensor((), "T3", 0, 20),
        d.maybe(d.ints((filters,), -1000, 1000, torch.int32)),
        auto_pad=auto_pad,
        channels_last=channels_last,
        group=group,
        kernel_shape=d.maybe(kernel),
        pads=None if auto_pad else d.maybe(draw_integers(d, 2 * rank, 0, 2)),
        strides=d.maybe(draw_integers(d, rank, 1, 2)),
    )
