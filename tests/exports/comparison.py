"""When two sets of outputs agree: equal shapes and types, small absolute and relative errors."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

MEAN_SQUARED_ERROR = 1e-7
RELATIVE_ERROR = (
    1e-5  # float32 sums in another order; the worst seen between torch and onnxruntime is 3e-6
)


def as_tuple(outputs: Tensor | Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Return the outputs of a module, be they one tensor or several, detached."""
    several = (outputs,) if isinstance(outputs, Tensor) else outputs
    return tuple(output.detach() for output in several)


def _disagreement(got: Tensor, want: Tensor) -> str:
    if (got.shape, got.dtype) != (want.shape, want.dtype):
        return f"{list(got.shape)} {got.dtype} for {list(want.shape)} {want.dtype}"
    if not want.is_floating_point():
        return "" if torch.equal(got, want) else f"{int((got != want).sum())} elements differ"
    error = got.double() - want.double()
    mean_squared = float(error.square().mean())
    relative = float(error.norm() / want.double().norm())
    if mean_squared < MEAN_SQUARED_ERROR and relative < RELATIVE_ERROR:
        return ""
    return f"mean squared error {mean_squared:.2e}, relative error {relative:.2e}"


def disagreements(got: Sequence[Tensor], want: Sequence[Tensor]) -> dict[int, str]:
    """Return what is wrong with each output, by its place; nothing where all agree."""
    found = {i: _disagreement(*pair) for i, pair in enumerate(zip(got, want, strict=True))}
    return {i: text for i, text in found.items() if text}
