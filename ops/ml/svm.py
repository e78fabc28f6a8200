"""Support vector machines: SVMClassifier, SVMRegressor.

History: 1 (both). Without support vectors they are linear models.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeAlias, get_args

import torch
from torch import Tensor
from torch.nn.functional import linear, one_hot

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
from onnxinterp.values import Flag, Floats, Ints, Strings

KernelType: TypeAlias = Literal["LINEAR", "POLY", "RBF", "SIGMOID"]
SWEEPS = 8  # 100 in libsvm, but none of half a million cases needed more than 4


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
    kernel_type: KernelType = "LINEAR",
    n_supports: int = 0,
    one_class: Flag = 0,
    post_transform: PostTransform = "NONE",
    rho: Tensor | None = None,
    support_vectors: Tensor | None = None,
) -> Tensor:
    """As in onnxruntime, post_transform has no effect on the single score."""
    del post_transform
    if coefficients is None or rho is None:
        raise ValueError("coefficients and rho must be given")
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
    kernel_type: KernelType = "LINEAR",
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
        raise ValueError("coefficients, rho and labels must be given")
    _check_probabilities(prob_a, prob_b)
    X = rows(X, coefficients)
    if not vectors_per_class or not sum(vectors_per_class) or support_vectors is None:
        z = linear(X, coefficients.view(n, -1)) + rho[0]
        winner = _linear_winner(z, prepared, prob_a is not None)
        z = transform_scores(z, post_transform)
        return labels(winner, classlabels_ints, classlabels_strings), z
    vectors = support_vectors.view(sum(vectors_per_class), -1)
    kernels = _kernel(X, vectors, kernel_type, kernel_params)
    z = _pair_scores(kernels, coefficients, rho, vectors_per_class, n)
    winner = _pair_winner(z, n)
    if prob_a is not None and prob_b is not None:
        z = transform_scores(_couple(_pair_probabilities(z, prob_a, prob_b, n)), post_transform)
    elif n == 2:
        z = pair(z, post_transform != "NONE", post_transform)
    else:
        z = transform_scores(z, post_transform)
    return labels(winner, classlabels_ints, classlabels_strings), z


def _linear_winner(z: Tensor, positive: bool, has_probabilities: bool) -> Tensor:
    """The class with the highest score.

    In onnxruntime it is the second of two classes if that score is large enough.
    """
    winner = z.argmax(1)
    if z.shape[1] != 2 or has_probabilities:
        return winner
    top = z.amax(1)
    return torch.where(top >= 0.5 if positive else top > 0, 1, winner)


def _pair_winner(z: Tensor, n: int) -> Tensor:
    """The class that wins most pairs."""
    first, second = torch.triu_indices(n, n, 1, device=z.device)
    return one_hot(torch.where(z > 0, first, second), n).sum(1).argmax(1)


def _check_probabilities(a: Tensor | None, b: Tensor | None) -> None:
    """Check that prob_a and prob_b are both absent, or of one shape."""
    shapes = [None if p is None else list(p.shape) for p in (a, b)]
    if shapes[0] != shapes[1]:
        raise ValueError(f"prob_a and prob_b must have one shape, got {shapes}")


def _pair_scores(kernels: Tensor, coefficients: Tensor, rho: Tensor, sizes: Ints, n: int) -> Tensor:
    """A score for each pair of classes, the first against the second, [rows, pairs].

    There is a row of coefficients for the vectors of a class and each other class.
    """
    if n < 2 or len(sizes) != n:
        raise ValueError(f"vectors_per_class must have one number per class ({n}), got {sizes}")
    rows = torch.split(coefficients.view(n - 1, -1), sizes, 1)
    columns = zip(torch.split(kernels, sizes, 1), rows, strict=True)
    shares = torch.stack([linear(k, c) for k, c in columns], 1)  # [rows, classes, others]
    if rho.shape[0] < n * (n - 1) // 2:
        raise ValueError(f"rho must have a number per pair of {n} classes, got {rho.shape[0]}")
    first, second = torch.triu_indices(n, n, 1, device=kernels.device)
    return shares[:, first, second - 1] + shares[:, second, first] + rho[: len(first)]


def _pair_probabilities(z: Tensor, a: Tensor, b: Tensor, n: int) -> Tensor:
    """The probability of each class in each pair, [rows, classes, classes]."""
    if a.shape[0] < z.shape[1]:
        raise ValueError(f"prob_a must have {z.shape[1]} numbers, one per pair, got {a.shape[0]}")
    first, second = torch.triu_indices(n, n, 1, device=z.device)
    p = torch.sigmoid(-(z * a[: len(first)] + b[: len(first)])).clamp(1e-7, 1 - 1e-7)
    places = torch.cat([first * n + second, second * n + first]).expand(len(z), -1)
    flat = z.new_zeros((len(z), n * n)).scatter(1, places, torch.cat([p, 1 - p], 1))
    return flat.view(-1, n, n)


def _couple(r: Tensor) -> Tensor:
    """One distribution from pair probabilities, [rows, classes].

    Algorithm 2 of T.-F. Wu, C.-J. Lin, R. C. Weng, Probability estimates for multi-class
    classification by pairwise coupling, 2004; a row stops at the limit of libsvm.
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
        kernel_type=d.maybe(d.choice(get_args(KernelType))),
        n_supports=n if n else d.maybe(n),
        one_class=d.maybe(d.integer(0, 1)),
        post_transform=draw_transform(d),
        rho=draw_weights(d, 1),
        support_vectors=draw_weights(d, n * features) if n else None,
    )


@sample(svm_classifier)
def _(d: Draw) -> Call:
    """No PROBIT: the formula of onnxruntime loses most digits near scores of 1/2."""
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
        kernel_type=d.maybe(d.choice(get_args(KernelType))),
        post_transform=draw_transform(d, "PROBIT"),
        prob_a=draw_weights(d, pairs or 1) if probable else None,
        prob_b=draw_weights(d, pairs or 1) if probable else None,
        rho=draw_weights(d, pairs if has_vectors else 1),
        support_vectors=draw_weights(d, vectors * features) if has_vectors else None,
        vectors_per_class=sizes,
    )
