"""Support vector machines: SVMClassifier, SVMRegressor.

History: 1 (both). Without support vectors the coefficients are those of a linear model.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import linear, one_hot

from onnxinterp.ops.ml.registration import ml_op
from onnxinterp.ops.ml.scores import (
    PostTransform,
    Strings,
    draw_labels,
    draw_rows,
    draw_transform,
    draw_weights,
    labels,
    pair,
    rows,
    transformed,
    type_of_labels,
)
from onnxinterp.registry import sample
from onnxinterp.testing.samples import Call, Draw, call
from onnxinterp.values import Flag, Floats, Ints

KERNEL_TYPES = ("LINEAR", "POLY", "RBF", "SIGMOID")
SWEEPS = 8  # libsvm allows for 100, but none of half a million cases took more than 4


def _kernel(X: Tensor, vectors: Tensor, kernel_type: str, parameters: Floats | None) -> Tensor:
    """The kernel of each row with each support vector, [rows, vectors]."""
    gamma, constant, degree = parameters or (0.0, 0.0, 0.0)
    if kernel_type == "RBF":
        distance = torch.cdist(X, vectors, compute_mode="donot_use_mm_for_euclid_dist")
        return torch.exp(-gamma * distance**2)
    product = linear(X, vectors)
    if kernel_type == "LINEAR":
        return product
    product = gamma * product + constant
    return product**degree if kernel_type == "POLY" else product.tanh()


@ml_op("SVMRegressor", since=1)
def svm_regressor(
    X: Tensor,
    *,
    coefficients: Tensor | None = None,
    kernel_params: Floats | None = None,
    kernel_type: Literal["LINEAR", "POLY", "RBF", "SIGMOID"] = "LINEAR",
    n_supports: int = 0,
    one_class: Flag = 0,
    post_transform: PostTransform = "NONE",
    rho: Tensor | None = None,
    support_vectors: Tensor | None = None,
) -> Tensor:
    """As in onnxruntime, no transform means anything to the one score there is."""
    del post_transform
    if coefficients is None or rho is None:
        raise ValueError("coefficients or rho are not given")
    X = rows(X, coefficients)
    if n_supports and support_vectors is not None:
        X = _kernel(X, support_vectors.view(n_supports, -1), kernel_type, kernel_params)
    y = linear(X, coefficients[None], rho[:1])
    return torch.where(y > 0, 1.0, -1.0).to(y.dtype) if one_class else y


def _all_positive(*, coefficients: Floats | None = None) -> bool:
    return all(c >= 0 for c in coefficients or ())


@ml_op("SVMClassifier", since=1, prepare=_all_positive, infer_output_type=type_of_labels)
def svm_classifier(
    X: Tensor,
    *,
    classlabels_ints: Ints | None = None,
    classlabels_strings: Sequence[str] | None = None,
    coefficients: Tensor | None = None,
    kernel_params: Floats | None = None,
    kernel_type: Literal["LINEAR", "POLY", "RBF", "SIGMOID"] = "LINEAR",
    post_transform: PostTransform = "NONE",
    prob_a: Tensor | None = None,
    prob_b: Tensor | None = None,
    rho: Tensor | None = None,
    support_vectors: Tensor | None = None,
    vectors_per_class: Ints | None = None,
    prepared: bool,
) -> tuple[Tensor | Strings, Tensor]:
    """Z has a score for each pair of classes, or, with prob_a and prob_b, for each class."""
    n = len(classlabels_strings or classlabels_ints or ())
    if coefficients is None or rho is None or not n:
        raise ValueError("coefficients, rho or labels are not given")
    odds = [p.shape for p in (prob_a, prob_b) if p is not None]
    if len(odds) == 1 or odds[:1] != odds[1:]:
        raise ValueError("prob_a and prob_b belong together")
    X = rows(X, coefficients)
    if not vectors_per_class or not sum(vectors_per_class) or support_vectors is None:
        z = linear(X, coefficients.view(n, -1)) + rho[0]
        winner = _linear_winner(z, prepared, prob_a is not None)
        return labels(winner, classlabels_ints, classlabels_strings), transformed(z, post_transform)
    if n < 2 or len(vectors_per_class) != n:
        raise ValueError(f"{len(vectors_per_class)} numbers of vectors for {n} classes")
    vectors = support_vectors.view(sum(vectors_per_class), -1)
    kernels = _kernel(X, vectors, kernel_type, kernel_params)
    z = _pair_scores(kernels, coefficients.view(n - 1, -1), rho, vectors_per_class)
    first, second = torch.triu_indices(n, n, 1, device=z.device)
    votes = one_hot(torch.where(z > 0, first, second), n).sum(1)
    if prob_a is not None and prob_b is not None:
        z = transformed(_coupled(_against_each_other(z, prob_a, prob_b, n)), post_transform)
    elif n == 2:
        z = pair(z, post_transform != "NONE", post_transform)
    else:
        z = transformed(z, post_transform)
    return labels(votes.argmax(1), classlabels_ints, classlabels_strings), z


def _linear_winner(z: Tensor, positive: bool, has_probabilities: bool) -> Tensor:
    """The class with the highest score.

    Of two classes it is, in onnxruntime, the second one wherever that score is large enough.
    """
    winner = z.argmax(1)
    if z.shape[1] != 2 or has_probabilities:
        return winner
    top = z.amax(1)
    return torch.where(top >= 0.5 if positive else top > 0, 1, winner)


def _pair_scores(kernels: Tensor, coefficients: Tensor, rho: Tensor, sizes: Ints) -> Tensor:
    """A score for each pair of classes, the first against the second, [rows, pairs].

    The vectors of a class have a row of coefficients for each other class.
    """
    columns = zip(torch.split(kernels, sizes, 1), torch.split(coefficients, sizes, 1), strict=True)
    shares = torch.stack([linear(k, c) for k, c in columns], 1)  # [rows, classes, others]
    n = len(sizes)
    if rho.shape[0] < n * (n - 1) // 2:
        raise ValueError(f"{rho.shape[0]} numbers in rho for the pairs of {n} classes")
    first, second = torch.triu_indices(n, n, 1, device=kernels.device)
    return shares[:, first, second - 1] + shares[:, second, first] + rho[: len(first)]


def _against_each_other(z: Tensor, a: Tensor, b: Tensor, n: int) -> Tensor:
    """The probability of each class against each other one, [rows, classes, classes]."""
    if a.shape[0] < z.shape[1]:
        raise ValueError(f"{a.shape[0]} numbers in prob_a for {z.shape[1]} pairs")
    first, second = torch.triu_indices(n, n, 1, device=z.device)
    p = torch.sigmoid(-(z * a[: len(first)] + b[: len(first)])).clamp(1e-7, 1 - 1e-7)
    places = torch.cat([first * n + second, second * n + first]).expand(len(z), -1)
    flat = z.new_zeros((len(z), n * n)).scatter(1, places, torch.cat([p, 1 - p], 1))
    return flat.view(-1, n, n)


def _coupled(r: Tensor) -> Tensor:
    """From classes against each other to one distribution, [rows, classes].

    Algorithm 2 of T.-F. Wu, C.-J. Lin, R. C. Weng, Probability estimates for multi-class
    classification by pairwise coupling, 2004, with libsvm's limit, where a row comes to rest.
    """
    n = r.shape[1]
    Q = torch.diag_embed((r * r).sum(1)) - r.mT * r
    p, units = r.new_full(r.shape[:2], 1 / n), torch.eye(n, dtype=r.dtype, device=r.device)
    for _ in range(SWEEPS):
        Qp = (Q @ p[:, :, None]).squeeze(2)
        pQp = (p * Qp).sum(1, keepdim=True)
        moving = (Qp - pQp).abs().amax(1, keepdim=True) >= 0.005 / n
        for i in range(n):
            q = Q[:, i, i, None]
            step = torch.where(moving, (pQp - Qp[:, i, None]) / q, 0)
            pQp = (pQp + step * (step * q + 2 * Qp[:, i, None])) / (1 + step) ** 2
            Qp = (Qp + step * Q[:, i]) / (1 + step)
            p = (p + step * units[i]) / (1 + step)
    return p


def _draw_parameters(d: Draw) -> Floats:
    """Gamma, the constant and the degree."""
    return [d.real(0.25, 1), d.real(0, 1), d.choice([3.0, 2.0, 1.0])]


@sample(svm_regressor)
def _(d: Draw) -> Call:
    x, n = draw_rows(d, "T"), d.integer(0, 4)
    features = x.shape[-1]
    return call(
        x,
        coefficients=draw_weights(d, n or features),
        kernel_params=_draw_parameters(d),
        kernel_type=d.maybe(d.choice(KERNEL_TYPES)),
        n_supports=n if n else d.maybe(n),
        one_class=d.maybe(d.integer(0, 1)),
        post_transform=draw_transform(d),
        rho=draw_weights(d, 1),
        support_vectors=draw_weights(d, n * features) if n else None,
    )


@sample(svm_classifier)
def _(d: Draw) -> Call:
    """PROBIT is not drawn: near scores of 1/2 onnxruntime's formula loses most digits."""
    x, has_vectors, probable = draw_rows(d, "T1"), d.boolean(), d.boolean()
    n = d.integer(2 if has_vectors else 1, 4)
    sizes = [d.integer(1, 3) for _ in range(n)] if has_vectors else None
    pairs, features = n * (n - 1) // 2, x.shape[-1]
    vectors = sum(sizes) if sizes else 0
    lowest = d.choice([-1.0, 0.0])
    return call(
        x,
        outputs=2,
        **draw_labels(d, n, "classlabels_ints"),
        coefficients=draw_weights(d, (n - 1) * vectors or n * features, lowest),
        kernel_params=_draw_parameters(d),
        kernel_type=d.maybe(d.choice(KERNEL_TYPES)),
        post_transform=draw_transform(d, "PROBIT"),
        prob_a=draw_weights(d, pairs or 1) if probable else None,
        prob_b=draw_weights(d, pairs or 1) if probable else None,
        rho=draw_weights(d, pairs if has_vectors else 1),
        support_vectors=draw_weights(d, vectors * features) if has_vectors else None,
        vectors_per_class=sizes,
    )
