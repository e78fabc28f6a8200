"""Causal convolutions of language models with a state: each channel has its own filter.

CausalConvWithState, which ONNX has too, and VarlenCausalConvWithState for sequences of different
lengths. What only GPUs have in onnxruntime is an error: windows of states, slices of channels and
coefficients for each token.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from onnxinterp.ops.contrib.ragged import Ragged, draw_ends
from onnxinterp.ops.contrib.registration import contrib_op
from onnxinterp.registry import sample
from onnxinterp.testing.samples import Call, Draw, call
from onnxinterp.values import Flag

Activation = Literal["silu", "swish", "none"]


@contrib_op("CausalConvWithState")
def causal_conv_with_state(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    past_state: Tensor | None = None,
    *,
    activation: Activation = "none",
    channels_last: Flag = 0,
    dilation: int = 1,
    input_channel_offset: int = 0,
    input_channels: int = 0,
    ndim: int = 1,
    state_channels_last: int = -1,
    state_length: int = 0,
    state_update_capacity: int = 0,
    state_window: int = 0,
) -> tuple[Tensor, Tensor]:
    """Each channel has its own filter; the state is what the filter reaches of the past.

    With `channels_last`, time is the second axis and any axes of channels follow.
    """
    others = input_channel_offset, input_channels, state_length, state_update_capacity, state_window
    if any(others) or ndim != 1 or state_channels_last != -1:
        got = [*others, ndim, state_channels_last]
        raise ValueError(f"windows, slices and axes must be the default ones, got {got}")
    x, past = input, past_state
    if channels_last:
        x = x.flatten(2).transpose(1, 2)
        past = None if past is None else past.flatten(2).transpose(1, 2)
    y, state = _convolve(x, weight, bias, past, dilation, activation)
    if channels_last:
        y, state = y.transpose(1, 2), state.transpose(1, 2)
        y = y.reshape(input.shape)
        state = state.reshape(*state.shape[:2], *input.shape[2:])
    return y, state


def _convolve(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    past: Tensor | None,
    dilation: int,
    activation: str,
) -> tuple[Tensor, Tensor]:
    """The output and the state of [batch, channels, time]."""
    joined = _joined(x, weight, past, dilation)
    y = functional.conv1d(joined, weight, bias, dilation=dilation, groups=weight.shape[0])
    kept = joined.shape[2] - x.shape[2]
    return _activated(y, activation), joined.narrow(2, x.shape[2], kept)


def _joined(x: Tensor, weight: Tensor, past: Tensor | None, dilation: int) -> Tensor:
    """The state before the new elements."""
    if x.ndim != 3 or weight.ndim != 3 or weight.shape[:2] != (x.shape[1], 1) or dilation < 1:
        got = f"{list(weight.shape)}, {list(x.shape)} and a dilation of {dilation}"
        raise ValueError(f"a filter must fit the channels, got {got}")
    kept = (weight.shape[2] - 1) * dilation
    if past is None:
        return functional.pad(x, (kept, 0))
    if past.shape != (*x.shape[:2], kept):
        raise ValueError(f"the state must be {[*x.shape[:2], kept]}, got {list(past.shape)}")
    return torch.cat((past, x), 2)


def _activated(y: Tensor, activation: str) -> Tensor:
    return y if activation == "none" else functional.silu(y)  # "silu" and "swish" are the same


@contrib_op("VarlenCausalConvWithState")
def varlen_causal_conv_with_state(
    input: Tensor,
    weight: Tensor,
    cumulative_sequence_length: Tensor,
    bias: Tensor | None = None,
    initial_state: Tensor | None = None,
    capture_count: Tensor | None = None,
    kernel_delta: Tensor | None = None,
    previous_mask: Tensor | None = None,
    *,
    activation: Activation = "none",
    delta_offset: int = 0,
    dilation: int = 1,
    group_size: int = 1,
    state_update_capacity: int = 0,
    n_outputs: int,
) -> tuple[Tensor, ...]:
    """The convolution of sequences that stand one after another, [tokens, channels].

    The third output has the first `capture_count` tokens of each, then 0.
    """
    if kernel_delta is not None or previous_mask is not None or delta_offset or group_size != 1:
        raise ValueError("coefficients for each token must be absent on a CPU")
    assert initial_state is not None, "initial_state must be given"
    ragged = Ragged.of(cumulative_sequence_length, input.shape[0])
    x = ragged.pad(input)
    y, _ = _convolve(x.transpose(1, 2), weight, bias, initial_state, dilation, activation)
    joined = torch.cat((initial_state.transpose(1, 2), x), 1)
    kept = initial_state.shape[2]
    rows = ragged.lengths.unsqueeze(1) + torch.arange(kept, device=x.device)
    state = joined.gather(1, rows.unsqueeze(-1).expand(-1, -1, joined.shape[2])).transpose(1, 2)
    if (capture_count is None) != (state_update_capacity == 0):
        raise ValueError(f"capture_count must fit the capacity {state_update_capacity}")
    if n_outputs < 3 or capture_count is None:
        return ragged.pack(y.transpose(1, 2)), state
    slot = torch.arange(state_update_capacity, device=x.device)
    missing = state_update_capacity - x.shape[1]
    tokens = functional.pad(x, (0, 0, 0, max(missing, 0)))[:, :state_update_capacity]
    captured = tokens.where((slot < capture_count.unsqueeze(1)).unsqueeze(-1), 0)
    return ragged.pack(y.transpose(1, 2)), state, captured


@sample(causal_conv_with_state)
def _(d: Draw) -> Call:
    batch, length, k, dilation = [d.integer(1, 3) for _ in range(4)]
    last, size = d.boolean(), [d.integer(1, 4) for _ in range(d.integer(1, 2))]
    channels = size if last else size[:1]
    count, kept = math.prod(channels), (k - 1) * dilation
    shape = (batch, length, *channels) if last else (batch, *channels, length)
    state = (batch, kept, *channels) if last else (batch, *channels, kept)
    return call(
        d.tensor(shape, lo=-2, hi=2),
        d.tensor((count, 1, k), lo=-1, hi=1),
        d.maybe(d.tensor((count,), lo=-1, hi=1)),
        d.maybe(d.tensor(state, lo=-2, hi=2)),
        activation=d.choice([None, "none", "silu", "swish"]),
        channels_last=1 if last else d.maybe(0),
        dilation=dilation if dilation > 1 else d.maybe(1),
        ndim=d.maybe(1),
        outputs=2,
    )


@sample(varlen_causal_conv_with_state)
def _(d: Draw) -> Call:
    batch, tokens, ends = draw_ends(d)
    channels, k, dilation = [d.integer(1, 3) for _ in range(3)]
    capacity = d.choice([0, 1, 4])
    return call(
        d.tensor((tokens, channels), lo=-2, hi=2),
        d.tensor((channels, 1, k), lo=-1, hi=1),
        ends,
        d.maybe(d.tensor((channels,), lo=-1, hi=1)),
        d.tensor((batch, channels, (k - 1) * dilation), lo=-2, hi=2),
        d.ints((batch,), 0, 3, torch.int32) if capacity else None,
        activation=d.choice([None, "none", "silu", "swish"]),
        dilation=dilation if dilation > 1 else d.maybe(1),
        state_update_capacity=capacity or d.maybe(0),
        outputs=d.integer(2, 3) if capacity else 2,
    )
