"""Post transforms and class labels of the scores of models of ai.onnx.ml.

Numbers are computed in the dtype of the weights of the model: float32 unless the module is cast.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from onnx import TensorProto
from torch import Tensor

from onnxinterp.runtime.guard import PLACE, reserve
from onnxinterp.testing.samples import Draw
from onnxinterp.values import Ints, Strings, array_of

PostTransform: TypeAlias = Literal["NONE", "SOFTMAX", "LOGISTIC", "SOFTMAX_ZERO", "PROBIT"]

WINITZKI = 0.147  # the constant of S. Winitzki's approximation of erf, 2008
ZERO_SCORE = 1e-7  # scores up to this count as 0


def probit(p: Tensor) -> Tensor:
    """The inverse of the normal distribution function, by the formula of onnxruntime.

    It has three exact digits. `torch.special.ndtri` would be exact, but models were tested with the
    formula.
    """
    x = 2 * p - 1
    near = x.abs() < 1e-3  # nearly linear, and the root of the formula has no slope here
    far = x.masked_fill(near, 0.5)
    log = torch.log((1 - far) * (1 + far))
    half = 2 / (math.pi * WINITZKI) + log / 2
    y = far.sign() * torch.sqrt(torch.sqrt(half**2 - log / WINITZKI) - half)
    return torch.where(near, math.sqrt(math.pi / 2) * x, math.sqrt(2) * y)


def softmax_zero(scores: Tensor) -> Tensor:
    """Softmax over the scores that are not 0; the others are 0."""
    powers = torch.exp(scores - scores.amax(-1, keepdim=True))
    powers = powers.masked_fill(scores.abs() <= ZERO_SCORE, 0)
    return powers / powers.sum(-1, keepdim=True)


TRANSFORMS: dict[str, Callable[[Tensor], Tensor]] = {
    "NONE": lambda scores: scores,
    "SOFTMAX": lambda scores: scores.softmax(-1),
    "LOGISTIC": torch.sigmoid,
    "SOFTMAX_ZERO": softmax_zero,
    "PROBIT": probit,
}


def transform_scores(scores: Tensor, post_transform: str) -> Tensor:
    """Scores of shape [N, E] after the transform.

    As in onnxruntime, only PROBIT changes a single score.
    """
    single = scores.shape[1] == 1 and post_transform != "PROBIT"
    return scores if single else TRANSFORMS[post_transform](scores)


def pair(score: Tensor, complement: bool, post_transform: str) -> Tensor:
    """The scores [N, 2] of two classes from the score of the second one, [N, 1].

    The score of the first one is the complement to 1, or the negative. As in onnxruntime, SOFTMAX
    and SOFTMAX_ZERO have no effect. For PROBIT onnxruntime computes only half of the result:
    this is the formula of the reference evaluator.
    """
    if post_transform == "LOGISTIC":
        return torch.cat([-score, score], 1).sigmoid()
    if post_transform == "PROBIT":
        return probit(torch.cat([1 - score, score], 1))
    return torch.cat([1 - score if complement else -score, score], 1)


def type_of_labels(attributes: dict[str, Any], _inputs: Sequence[int]) -> int:
    """The ONNX type of the result of `labels`."""
    strings = attributes.get("classlabels_strings")
    return int(TensorProto.STRING if strings else TensorProto.INT64)


def labels(
    classes: Tensor, integers: Ints | None, strings: Sequence[str] | None
) -> Tensor | Strings:
    """The labels of classes, which are indices [N]: int64, or an array of strings."""
    if strings:
        reserve(PLACE * len(classes))
        return np.asarray(np.array(strings, dtype=object)[array_of(classes)], dtype=object)
    return torch.tensor(integers, dtype=torch.int64, device=classes.device)[classes]


def rows(X: Tensor, like: Tensor) -> Tensor:
    """The input as a matrix in the dtype of the weights; a vector is one row."""
    return (X[None] if X.ndim == 1 else X).to(like.dtype)


def draw_rows(d: Draw, type: str) -> Any:
    """Rows of one to four features, or a vector as the only row."""
    shape = (d.integer(1, 4),)
    return d.tensor(shape if d.boolean() else (d.shape(1, 1)[0], *shape), type, -2, 2)


def draw_weights(d: Draw, n: int, lo: float = -1, hi: float = 1) -> list[float]:
    """Floats for an attribute."""
    return d.floats((n,), lo, hi).tolist()


def draw_labels(d: Draw, n: int, integers: str) -> dict[str, Any]:
    """The attribute with labels of n classes; `integers` is its name for int64 labels."""
    if d.boolean():
        return {"classlabels_strings": [f"class {10 - i}" for i in range(n)]}
    return {integers: [7 * i - 3 for i in range(n)]}


def draw_transform(d: Draw, *without: str) -> str | None:
    """A post transform, or None."""
    return d.maybe(d.choice([name for name in TRANSFORMS if name not in without]))
