"""Formulas of operators over packed numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.property.formulas import formula

Array = NDArray[Any]
FP4 = (0, 5.208333333e-03, 0.66666667, 1, 0.33333333, 0.5, 0.16666667, 0.25)
NF4 = (  # QLoRA, appendix E (arXiv:2305.14314)
    *(-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453),
    *(-0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0),
    *(0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224),
    *(0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0),
)


@formula("MatMulBnb4")
def mat_mul_bnb4(
    A: Array,
    B: Array,
    absmax: Array,
    K: int,
    N: int,
    block_size: int,
    quant_type: int,
    training_mode: int = 0,
    transB: int = 1,
) -> Array:
    """One number at a time: code * absmax of its block; A @ dequant(B), transposed or not."""
    numbers = np.zeros(N * K)
    for place in range(N * K):
        byte = int(B[place // 2])
        code = byte // 16 if place % 2 == 0 else byte % 16
        number = NF4[code] if quant_type == 1 else (-1) ** (code // 8) * FP4[code % 8]
        numbers[place] = number * float(absmax[place // block_size])
    matrix = numbers.reshape(N, K)
    product = A.astype(np.float64) @ (matrix.T if transB else matrix)
    return product.astype(A.dtype)
