"""Comparison of two values: their differences, and whether these are within a tolerance.

NaN equals NaN, and an infinity equals itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

INTEGER_OF = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


@dataclass(frozen=True)
class Tolerance:
    """What is close: |a - b| <= atol + rtol * |b| for each element, and a small mean square.

    Attributes:
        rtol: allowed difference relative to the reference.
        atol: allowed absolute difference.
        mse: the mean squared difference must be below this.
    """

    rtol: float = 1e-3
    atol: float = 1e-4
    mse: float = 1e-7


DEFAULT = Tolerance()


@dataclass(frozen=True)
class Comparison:
    """One tensor against its reference.

    Attributes:
        name: the ONNX name; elements of a sequence are called `name[0]`, `name[1]`, ...
        dtype: element type here, as torch or numpy names it.
        shape: shape here.
        mse: mean squared difference.
        max_abs: largest absolute difference.
        max_ulp: largest difference counted in representable floats; None where it has no meaning.
        close: every element is within the tolerance (exactly equal, unless floating).
        problem: why the two cannot be compared; "" where they can.
        ok: the verdict.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    mse: float
    max_abs: float
    max_ulp: float | None
    close: bool
    problem: str
    ok: bool


def compare(name: str, ours: Any, reference: Any, tolerance: Tolerance) -> list[Comparison]:
    """Compare tensors, string arrays, sequences, maps or None with their reference.

    Returns:
        One comparison; one per element for a sequence.
    """
    return list(_compare(name, ours, reference, tolerance))


def _compare(name: str, ours: Any, reference: Any, tolerance: Tolerance) -> Iterator[Comparison]:
    if isinstance(ours, (list, tuple)) and isinstance(reference, (list, tuple)):
        if len(ours) != len(reference):
            yield _incomparable(name, ours, f"{len(ours)} elements instead of {len(reference)}")
        for i, (a, b) in enumerate(zip(ours, reference, strict=False)):
            yield from _compare(f"{name}[{i}]", a, b, tolerance)
    elif isinstance(ours, dict) and isinstance(reference, dict):
        yield _maps(name, ours, reference, tolerance)
    elif ours is None and reference is None:
        yield Comparison(name, "none", (), 0.0, 0.0, None, True, "", True)
    elif isinstance(ours, np.ndarray) and isinstance(reference, np.ndarray):
        yield _strings(name, ours, reference)
    elif isinstance(ours, Tensor) and isinstance(reference, Tensor):
        yield _tensors(name, ours.detach().cpu(), reference, tolerance)
    else:
        what = f"{type(ours).__name__} instead of {type(reference).__name__}"
        yield _incomparable(name, ours, what)


def _incomparable(name: str, ours: Any, problem: str) -> Comparison:
    dtype = str(getattr(ours, "dtype", type(ours).__name__)).removeprefix("torch.")
    shape = tuple(getattr(ours, "shape", ()))
    return Comparison(name, dtype, shape, np.inf, np.inf, None, False, problem, False)


def _maps(
    name: str, ours: dict[Any, Any], reference: dict[Any, Any], tolerance: Tolerance
) -> Comparison:
    """Compare maps from classes to scores, the results of ai.onnx.ml classifiers."""
    if ours.keys() != reference.keys():
        return _incomparable(name, ours, f"keys {list(ours)} instead of {list(reference)}")
    scores = [torch.tensor([float(m[k]) for k in reference]) for m in (ours, reference)]
    return _tensors(name, scores[0], scores[1], tolerance)


def _strings(name: str, ours: np.ndarray, reference: np.ndarray) -> Comparison:
    if ours.shape != reference.shape:
        return _incomparable(name, ours, f"shape {ours.shape} instead of {reference.shape}")
    wrong = float((ours != reference).sum())
    mse, largest = wrong / max(ours.size, 1), min(wrong, 1.0)
    return Comparison(name, "string", ours.shape, mse, largest, None, not wrong, "", not wrong)


def _tensors(name: str, ours: Tensor, reference: Tensor, tolerance: Tolerance) -> Comparison:
    if ours.dtype != reference.dtype:
        return _incomparable(name, ours, f"{ours.dtype} instead of {reference.dtype}")
    if ours.shape != reference.shape:
        problem = f"shape {list(ours.shape)} instead of {list(reference.shape)}"
        return _incomparable(name, ours, problem)
    if ours.is_complex():
        ours, reference = torch.view_as_real(ours), torch.view_as_real(reference)
    floating = ours.is_floating_point()
    a, b = ours.double().flatten(), reference.double().flatten()
    distance = _distance(a, b)
    bound = tolerance.atol + tolerance.rtol * b.abs() if floating else torch.zeros_like(b)
    within = (distance == 0) | (distance <= bound.nan_to_num(0.0, 0.0, 0.0))
    if not floating:
        within = ours.flatten() == reference.flatten()  # int64 has more digits than a double
    mse = distance.square().mean().item() if len(distance) else 0.0
    largest = distance.max().item() if len(distance) else 0.0
    close = bool(within.all())
    return Comparison(
        name=name,
        dtype=str(ours.dtype).removeprefix("torch."),
        shape=tuple(ours.shape),
        mse=mse,
        max_abs=largest,
        max_ulp=max_ulp(ours, reference) if floating else None,
        close=close,
        problem="",
        ok=close and mse < tolerance.mse,
    )


def _distance(a: Tensor, b: Tensor) -> Tensor:
    """|a - b|, 0 for a pair of NaN or of equal infinities, infinite for NaN and a number."""
    distance = (a - b).abs()
    same = (a == b) | (a.isnan() & b.isnan())
    return torch.where(same, 0.0, distance.nan_to_num(torch.inf, torch.inf))


def max_ulp(ours: Tensor, reference: Tensor) -> float:
    """The largest number of representable floats between two elements; inf for NaN and a number."""
    if not ours.numel():
        return 0.0
    a, b = _position(ours), _position(reference)
    far = (a.double() - b.double()).abs()
    steps = torch.where(far < 2.0**62, (a - b).abs().double(), far)  # exact unless it overflows
    nan_a, nan_b = ours.double().isnan(), reference.double().isnan()
    steps = torch.where(nan_a & nan_b, 0.0, torch.where(nan_a | nan_b, torch.inf, steps))
    return steps.max().item()


def _position(x: Tensor) -> Tensor:
    """The index of a float among all floats of its type, counted from zero."""
    integer = INTEGER_OF[x.element_size()]
    bits = x.contiguous().view(integer).long()
    magnitude = bits & torch.iinfo(integer).max
    return torch.where(bits < 0, -magnitude, magnitude)
