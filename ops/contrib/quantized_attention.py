"""Self attention of a quantized input and quantized weights: QAttention.

onnxruntime's dynamic quantizer writes it in place of Attention.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from onnxinterp.ops.contrib.attention import attend_self, draw_mask, draw_scoring
from onnxinterp.ops.contrib.attention_scores import Scoring, split_projection
from onnxinterp.ops.contrib.registration import contrib_op
from onnxinterp.ops.integer_products import mat_mul_integer
from onnxinterp.registry import sample
from onnxinterp.testing.samples import Call, Draw, call
from onnxinterp.values import Flag

SETTINGS = ("input_scale", "weight_scale", "input_zero_point", "weight_zero_point")


@contrib_op("QAttention", frozen=SETTINGS)
def q_attention(
    input: Tensor,
    weight: Tensor,
    bias: Tensor,
    input_scale: Tensor,
    weight_scale: Tensor,
    mask_index: Tensor | None = None,
    input_zero_point: Tensor | None = None,
    weight_zero_point: Tensor | None = None,
    past: Tensor | None = None,
    *,
    do_rotary: Literal[0] | None = None,  # noqa: ARG001  # no documented angles
    mask_filter_value: float | None = None,
    num_heads: int,
    past_present_share_buffer: Flag | None = None,
    scale: float | None = None,
    unidirectional: Flag = 0,
    n_outputs: int,
) -> tuple[Tensor, ...]:
    """Only the projection is one of integers; scales and zero points of weights are per column.

    No input says how much of a shared buffer is filled, so that there is none.
    """
    if past_present_share_buffer and past is not None:
        raise ValueError("a shared buffer needs past_sequence_length, which QAttention has not")
    projected = _project(
        input, weight, bias, (input_scale, weight_scale), (input_zero_point, weight_zero_point)
    )
    qkv = split_projection(projected, num_heads)
    scoring = Scoring(scale, mask_filter_value, bool(unidirectional))
    return attend_self(qkv, mask_index, past, None, None, scoring, n_outputs)


def _project(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    scales: tuple[Tensor, Tensor],
    zero_points: tuple[Tensor | None, Tensor | None],
) -> Tensor:
    """Queries, keys and values side by side; the scaled sums are rounded once."""
    if x.ndim != 3 or weight.ndim != 2 or x.shape[2] != weight.shape[0]:
        got = f"{list(x.shape)} and {list(weight.shape)}"
        raise ValueError(f"input and weight must be [batch, length, n] and [n, hidden], got {got}")
    columns = weight.shape[1]
    if bias.shape != (columns,):
        raise ValueError(f"bias must be [{columns}], got {list(bias.shape)}")
    x_scale, x_zero = (_setting(s, 1) for s in (scales[0], zero_points[0]))
    w_scale, w_zero = (_setting(s, columns) for s in (scales[1], zero_points[1]))
    total = mat_mul_integer(x, weight, x_zero, w_zero)
    wide = torch.float64 if bias.dtype is torch.float64 else torch.float32
    assert x_scale is not None
    assert w_scale is not None
    scaled = total.to(wide) * (x_scale.to(wide) * w_scale.to(wide))
    return (scaled + bias.to(wide)).to(bias.dtype)


def _setting(setting: Tensor | None, columns: int) -> Tensor | None:
    """A scale or zero point that is one number, or one per column."""
    if setting is None or setting.shape == (columns,):
        return setting
    if setting.numel() != 1 or setting.ndim > 1:
        wanted = f"one number or [{columns}]"
        raise ValueError(f"scale and zero point must be {wanted}, got {list(setting.shape)}")
    return setting.reshape(())


@sample(q_attention)
def _(d: Draw) -> Call:
    """Weights of 7 bits: onnxruntime's kernels for AVX2 saturate sums of two products."""
    batch, length, width = d.integer(1, 3), d.integer(1, 4), d.integer(1, 3)
    heads, head, past = d.integer(1, 3), d.integer(1, 3), d.choice([None, 1, 2])
    columns, total = 3 * heads * head, length + (past or 0)
    scoring, all_masked = draw_scoring(d, "T3")
    per_column = d.choice([(), (1,), (columns,)])
    return call(
        d.tensor((batch, length, width), "T1", 0, 200),
        d.tensor((width, columns), "T2", -60, 60),
        d.tensor((columns,), "T3", lo=-2, hi=2),
        d.tensor(d.choice([(), (1,)]), "T3", lo=0.01, hi=0.02),
        d.tensor(per_column, "T3", lo=0.01, hi=0.02),
        draw_mask(d, batch, length, total, "T4", all_masked=all_masked),
        d.maybe(d.tensor((), "T1", 0, 100)),
        d.maybe(d.tensor(d.choice([(), per_column]), "T2", -20, 20)),
        d.tensor((2, batch, heads, past, head), "T3", lo=-2, hi=2) if past else None,
        outputs=2 if past else d.integer(1, 2),
        num_heads=heads,
        unidirectional=d.maybe(d.integer(0, 1)),
        do_rotary=d.maybe(0),
        past_present_share_buffer=d.maybe(0),
        **scoring,
    )
