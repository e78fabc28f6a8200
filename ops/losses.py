"""NegativeLogLikelihoodLoss and SoftmaxCrossEntropyLoss; axis 1 has the classes.

History: 12, 13 (bfloat16; a target may be `ignore_index` beyond the classes), 22 (bfloat16).
"""

from __future__ import annotations

from typing import Literal, TypeAlias, get_args

import torch
from torch import Tensor
from torch.nn import functional

from onnxinterp.registry import op, sample
from onnxinterp.testing.samples import Call, Draw, call

Reduction: TypeAlias = Literal["none", "sum", "mean"]
REDUCTIONS: tuple[Reduction, ...] = get_args(Reduction)
NO_CLASS = -(2**63)  # ignore_index of a node without one: no target has this value


@op("NegativeLogLikelihoodLoss", since=12, frozen=("weight",))
def negative_log_likelihood_loss(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    *,
    ignore_index: int | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    if input.ndim < 2:
        raise ValueError(f"input must have an axis of classes, got {list(input.shape)}")
    target = target.long()
    if ignore_index is None:
        ignore_index, target = NO_CLASS, target.clamp(min=NO_CLASS + 1)
    return functional.nll_loss(
        input, target, weight, ignore_index=ignore_index, reduction=reduction
    )


@op("SoftmaxCrossEntropyLoss", since=12, frozen=("weights",))
def softmax_cross_entropy_loss(
    scores: Tensor,
    labels: Tensor,
    weights: Tensor | None = None,
    *,
    ignore_index: int | None = None,
    reduction: Reduction = "mean",
) -> tuple[Tensor, Tensor]:
    log_prob = torch.log_softmax(scores, 1)
    loss = negative_log_likelihood_loss(
        log_prob, labels, weights, ignore_index=ignore_index, reduction=reduction
    )
    return loss, log_prob


def _draw_loss(d: Draw, outputs: int) -> Call:
    shape = d.shape(min_dims=2)
    classes = shape[1]
    ignore_index = d.maybe(d.integer(0, classes - 1))
    target = d.ints((shape[0], *shape[2:]), 0, classes - 1, d.dtype("Tind"))
    weight = d.maybe(d.tensor((classes,), lo=0.5, hi=2))
    # the mean may be over 0 elements
    reductions = REDUCTIONS if ignore_index is None else REDUCTIONS[:2]
    return call(
        d.tensor(shape, lo=-4, hi=-0.25),
        target,
        weight,
        outputs=outputs,
        ignore_index=ignore_index,
        reduction=d.choice(reductions),
    )


@sample(negative_log_likelihood_loss)
def _(d: Draw) -> Call:
    return _draw_loss(d, 1)


@sample(softmax_cross_entropy_loss)
def _(d: Draw) -> Call:
    return _draw_loss(d, d.integer(1, 2))
