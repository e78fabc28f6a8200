"""Dropout with the nodes around it, and with packed masks: written for training on GPUs.

Elements are dropped if the module trains, or if the file says so, as with Dropout of ONNX.
"""

from __future__ import annotations

import torch
from torch import Tensor

from onnxinterp.ops.contrib.registration import contrib_op
from onnxinterp.ops.dropout import dropout
from onnxinterp.registry import sample
from onnxinterp.testing.samples import Call, Draw, call

BITS = 32  # of an element of a packed mask


@contrib_op("BiasDropout", frozen=("ratio",), random=True)
def bias_dropout(
    data: Tensor,
    bias: Tensor,
    residual: Tensor | None = None,
    ratio: float | None = None,
    training_mode: bool | None = None,
    *,
    seed: int | None = None,
    training: bool,
) -> tuple[Tensor, Tensor]:
    """Dropout(data + bias) + residual."""
    if bias.shape not in (data.shape, data.shape[-1:]):
        raise ValueError(f"bias must be {list(data.shape[-1:])}, got {list(bias.shape)}")
    if residual is not None and residual.shape != data.shape:
        raise ValueError(f"residual must be {list(data.shape)}, got {list(residual.shape)}")
    y, mask = dropout(data + bias, ratio, training_mode, seed=seed, training=training, n_outputs=2)
    return y if residual is None else y + residual, mask


@contrib_op("BitmaskDropout", frozen=("ratio",), random=True)
def bitmask_dropout(
    data: Tensor,
    ratio: float | None = None,
    training_mode: bool | None = None,
    *,
    seed: int | None = None,
    training: bool,
) -> tuple[Tensor, Tensor]:
    """The mask has 32 elements in each number, the first in the lowest bit."""
    y, mask = dropout(data, ratio, training_mode, seed=seed, training=training, n_outputs=2)
    return y, _packed(mask)


@contrib_op("BitmaskBiasDropout", frozen=("ratio",), random=True)
def bitmask_bias_dropout(
    data: Tensor,
    bias: Tensor,
    residual: Tensor | None = None,
    ratio: float | None = None,
    training_mode: bool | None = None,
    *,
    seed: int | None = None,
    training: bool,
) -> tuple[Tensor, Tensor]:
    y, mask = bias_dropout(data, bias, residual, ratio, training_mode, seed=seed, training=training)
    return y, _packed(mask)


def _packed(mask: Tensor) -> Tensor:
    """Bits of booleans; those beyond the last are 0."""
    flat = mask.flatten()
    count = -(-flat.shape[0] // BITS)
    padded = flat.new_zeros(count * BITS).index_copy(
        0, torch.arange(flat.shape[0], device=flat.device), flat
    )
    weights = torch.arange(BITS, device=flat.device)
    return (padded.reshape(count, BITS).long() << weights).sum(1).to(torch.uint32)


def _draw(d: Draw, with_bias: bool) -> Call:
    x = d.tensor(d.shape(min_dims=1))
    inputs = [x]
    if with_bias:
        inputs += [d.tensor(d.choice([x.shape[-1:], x.shape])), d.maybe(d.tensor(x.shape))]
    ratio = d.maybe(d.real(0.25, 0.75))
    training = None if ratio is None else d.maybe(torch.tensor(d.boolean()))
    return call(*inputs, ratio, training, seed=d.maybe(d.integer(0, 9)), outputs=d.integer(1, 2))


@sample(bitmask_dropout)
def _(d: Draw) -> Call:
    return _draw(d, with_bias=False)


@sample(bias_dropout, bitmask_bias_dropout)
def _(d: Draw) -> Call:
    return _draw(d, with_bias=True)
