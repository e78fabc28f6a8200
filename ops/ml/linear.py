"""Linear models: LinearClassifier, LinearRegressor.

History: 1 (both).
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor
from torch.nn.functional import linear

from onnxinterp.ops.ml.registration import ml_op
from onnxinterp.ops.ml.scores import (
    PostTransform,
    draw_labels,
    draw_rows,
    draw_transform,
    draw_weights,
    labels,
    pair,
    rows,
    transform_scores,
    type_of_labels,
)
from onnxinterp.registry import sample
from onnxinterp.testing.samples import Call, Draw, call
from onnxinterp.values import Flag, Ints, Strings


@ml_op("LinearClassifier", since=1, infer_output_type=type_of_labels)
def linear_classifier(
    X: Tensor,
    *,
    classlabels_ints: Ints | None = None,
    classlabels_strings: Sequence[str] | None = None,
    coefficients: Tensor,
    intercepts: Tensor | None = None,
    multi_class: Flag = 0,
    post_transform: PostTransform = "NONE",
) -> tuple[Tensor | Strings, Tensor]:
    """The class is that of the highest score before the transform.

    A single score is that of the second of two classes, 0 and 1 by default. multi_class describes
    the training and has no effect.
    """
    del multi_class
    X = rows(X, coefficients)
    features = X.shape[1]  # as in onnxruntime, further coefficients are ignored
    classes = coefficients.shape[0] // features if intercepts is None else intercepts.shape[0]
    z = linear(X, coefficients[: classes * features].view(classes, features), intercepts)
    n = len(classlabels_strings or classlabels_ints or ())
    if z.shape[1] > 1:
        if n < z.shape[1]:
            raise ValueError(f"there must be a label for each of {z.shape[1]} scores, got {n}")
        winner = labels(z.argmax(1), classlabels_ints, classlabels_strings)
        return winner, transform_scores(z, post_transform)
    if n not in (0, 2):
        raise ValueError(f"there must be 0 or 2 labels for one score, got {n}")
    winner = labels((z[:, 0] > 0).long(), classlabels_ints or [0, 1], classlabels_strings)
    return winner, pair(z, True, post_transform) if n else transform_scores(z, post_transform)


@ml_op("LinearRegressor", since=1)
def linear_regressor(
    X: Tensor,
    *,
    coefficients: Tensor | None = None,
    intercepts: Tensor | None = None,
    post_transform: PostTransform = "NONE",
    targets: int = 1,
) -> Tensor:
    """Intercepts are used if there is one for each target."""
    if coefficients is None:
        raise ValueError("coefficients must be given")
    bias = intercepts if intercepts is not None and len(intercepts) == targets else None
    y = linear(rows(X, coefficients), coefficients.view(targets, -1), bias)
    return transform_scores(y, post_transform)


def _draw_model(d: Draw, n: int, features: int, transform: str | None) -> dict[str, list[float]]:
    """Coefficients and intercepts; scores are between 1/2 and 1 for PROBIT.

    The formula of onnxruntime loses most digits near 1/2.
    """
    limit, low, high = (0.02, 0.7, 0.8) if transform == "PROBIT" else (1.0, -1.0, 1.0)
    return {
        "coefficients": draw_weights(d, n * features, -limit, limit),
        "intercepts": draw_weights(d, n, low, high),
    }


@sample(linear_classifier)
def _(d: Draw) -> Call:
    """No PROBIT for two classes with one score: onnxruntime computes only half of the result."""
    x, n = draw_rows(d, "T1"), d.integer(1, 4)
    transform = draw_transform(d, *(["PROBIT"] if n == 1 else []))
    return call(
        x,
        outputs=2,
        **draw_labels(d, max(n, 2), "classlabels_ints"),
        **_draw_model(d, n, x.shape[-1], transform),
        multi_class=d.maybe(d.integer(0, 1)),
        post_transform=transform,
    )


@sample(linear_regressor)
def _(d: Draw) -> Call:
    x, n, transform = draw_rows(d, "T"), d.integer(1, 3), draw_transform(d)
    attributes = _draw_model(d, n, x.shape[-1], transform)
    if transform != "PROBIT" and d.boolean():
        del attributes["intercepts"]
    targets = n if n > 1 else d.maybe(n)
    return call(x, **attributes, targets=targets, post_transform=transform)
