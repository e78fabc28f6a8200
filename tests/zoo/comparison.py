"""How far two answers are apart, and how far they may be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

MSE_LIMIT = 1e-7
RTOL, ATOL = 1e-3, 1e-4
RELATIVE_LIMIT = 1e-3  # of the root mean square: says something where all outputs are small


@dataclass(frozen=True)
class Difference:
    """The distance of one output from the reference.

    Attributes:
        mse: mean squared difference.
        max_abs: largest difference of an element.
        relative: norm of the difference over the norm of the reference.
        close: every element is within RTOL and ATOL.
        mismatch: what makes a comparison of numbers pointless; "" where nothing does.
    """

    mse: float = 0.0
    max_abs: float = 0.0
    relative: float = 0.0
    close: bool = True
    mismatch: str = ""

    @property
    def matches(self) -> bool:
        small = self.mse < MSE_LIMIT and self.relative < RELATIVE_LIMIT
        return small and self.close and not self.mismatch

    def __str__(self) -> str:
        if self.mismatch:
            return self.mismatch
        numbers = f"MSE {self.mse:.3g}, max abs {self.max_abs:.3g}, relative {self.relative:.3g}"
        return f"{numbers}, {'within' if self.close else 'beyond'} allclose"


def worst(differences: Sequence[Difference]) -> Difference:
    """The largest of each measure over several outputs."""
    return Difference(
        max(d.mse for d in differences),
        max(d.max_abs for d in differences),
        max(d.relative for d in differences),
        all(d.close for d in differences),
        "; ".join(d.mismatch for d in differences if d.mismatch),
    )


def compare(ours: Any, reference: Any) -> Difference:
    """Compare outputs of any ONNX type: arrays, and sequences and maps of them."""
    if isinstance(reference, Mapping):
        if not isinstance(ours, Mapping) or list(ours) != list(reference):
            return Difference(mismatch="maps with different keys")
        # what a map holds is one vector: relative to a score next to 0 nothing would be near
        return _compare_arrays(*(np.array([m[k] for k in reference]) for m in (ours, reference)))
    if isinstance(reference, list):
        if not isinstance(ours, (list, tuple)) or len(ours) != len(reference):
            return Difference(mismatch="sequences of different length")
        pairs = zip(ours, reference, strict=True)
        return worst([compare(a, b) for a, b in pairs] or [Difference()])
    return _compare_arrays(np.asarray(ours), np.asarray(reference))


def _compare_arrays(ours: np.ndarray, reference: np.ndarray) -> Difference:
    if (ours.shape, ours.dtype) != (reference.shape, reference.dtype):
        shapes = f"{ours.dtype}{list(ours.shape)} for {reference.dtype}{list(reference.shape)}"
        return Difference(mismatch=shapes)
    if reference.dtype.kind not in "fc":
        equal = np.array_equal(ours, reference)
        return Difference(mismatch="" if equal else f"{(ours != reference).sum()} elements differ")
    if not reference.size:
        return Difference()
    if not (np.isfinite(ours).all() and np.isfinite(reference).all()):
        return Difference(mismatch="not all elements are finite")
    error = np.abs(ours.astype(np.float64) - reference.astype(np.float64))
    norm = float(np.linalg.norm(reference.astype(np.float64)))
    return Difference(
        mse=float((error**2).mean()),
        max_abs=float(error.max()),
        relative=float(np.linalg.norm(error)) / norm if norm else float(error.any()),
        close=bool(np.allclose(ours, reference, rtol=RTOL, atol=ATOL)),
    )
