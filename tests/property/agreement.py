"""When two answers agree: the tolerances, in one table with their reasons."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
import torch
from torch import Tensor

TOLERANCE: dict[torch.dtype, tuple[float, float]] = {  # rtol, atol
    torch.bfloat16: (4e-2, 4e-2),  # 10 units in the last place, as for float16
    torch.float16: (1e-2, 1e-2),  # 10 units in the last place; sums are taken in different widths
    torch.float32: (1e-4, 1e-5),  # exp, erf and sums differ in order and polynomials
    torch.float64: (1e-5, 1e-6),  # some of it goes through float32: constants, mixed inputs
    torch.complex64: (1e-4, 1e-5),
    torch.complex128: (1e-5, 1e-6),
}
"""All other types agree when they are equal."""


def assert_agree(
    got: Any, want: Any, where: str = "output", types: Collection[torch.dtype | None] = ()
) -> None:
    """Same structure, shape and dtype; the same values up to TOLERANCE; nan equals nan.

    Of a call that mixes floating types the coarsest one decides; `types` are those of the call.
    """
    if isinstance(want, list):
        assert isinstance(got, list), f"{where}: a sequence is expected, got {type(got)}"
        assert len(got) == len(want), f"{where}: {len(got)} elements instead of {len(want)}"
        for index, (g, w) in enumerate(zip(got, want, strict=True)):
            assert_agree(g, w, f"{where}[{index}]", types)
        return
    if isinstance(want, dict):
        assert got.keys() == want.keys(), f"{where}: keys {list(got)} instead of {list(want)}"
        told, expected = ([m[key] for key in want] for m in (got, want))
        if told != expected:  # strings are; numbers may be as good as equal
            np.testing.assert_allclose(told, expected, 1e-4, 1e-5, err_msg=where)
        return
    if want is None:
        assert got is None, f"{where}: None is expected"
        return
    assert isinstance(got, type(want)), f"{where}: {type(got)} instead of {type(want)}"
    assert got.shape == want.shape, f"{where}: shape {got.shape} instead of {want.shape}"
    assert got.dtype == want.dtype, f"{where}: {got.dtype} instead of {want.dtype}"
    if not isinstance(want, Tensor):
        assert got.tolist() == want.tolist(), where
        return
    rtol, atol = TOLERANCE.get(want.dtype, (0, 0))
    if want.dtype in TOLERANCE:
        rtol, atol = max(TOLERANCE.get(t, (0, 0)) for t in (want.dtype, *types))
    np.testing.assert_allclose(
        _numbers(got), _numbers(want), rtol, atol, equal_nan=True, err_msg=where
    )


def _numbers(x: Tensor) -> np.ndarray[Any, Any]:
    """The elements as numpy compares them."""
    return (x.double() if x.is_floating_point() else x).numpy(force=True)
