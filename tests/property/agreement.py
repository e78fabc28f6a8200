"""When two answers agree: the tolerances, in one table with their reasons."""

from __future__ import annotations

from typing import Any

import numpy as np

TOLERANCE: dict[str, tuple[float, float]] = {  # dtype -> rtol, atol
    "float16": (1e-2, 1e-2),  # 10 units in the last place; sums are taken in different widths
    "float32": (1e-4, 1e-5),  # exp, erf and sums differ in order and polynomials
    "float64": (1e-5, 1e-6),  # some of it goes through float32: constants, inputs of mixed types
    "complex64": (1e-4, 1e-5),
    "complex128": (1e-5, 1e-6),
}


def assert_agree(got: Any, want: Any, where: str = "output") -> None:
    """Same structure, shape and dtype; the same values up to TOLERANCE; nan equals nan."""
    if isinstance(want, list):
        assert isinstance(got, list), f"{where}: a sequence is expected, got {type(got)}"
        assert len(got) == len(want), f"{where}: {len(got)} elements instead of {len(want)}"
        for index, (g, w) in enumerate(zip(got, want, strict=True)):
            assert_agree(g, w, f"{where}[{index}]")
        return
    if isinstance(want, dict):
        assert got.keys() == want.keys(), f"{where}: keys {list(got)} instead of {list(want)}"
        assert_agree([got[key] for key in want], list(want.values()), where)
        return
    if want is None:
        assert got is None, f"{where}: None is expected"
        return
    got, want = np.asarray(got), np.asarray(want)
    assert got.shape == want.shape, f"{where}: shape {got.shape} instead of {want.shape}"
    if want.dtype.kind in "OUS":
        assert got.tolist() == want.astype(object).tolist(), where
        return
    assert got.dtype == want.dtype, f"{where}: {got.dtype} instead of {want.dtype}"
    rtol, atol = TOLERANCE.get(str(want.dtype), (0, 0))
    np.testing.assert_allclose(got, want, rtol, atol, equal_nan=True, err_msg=where)
