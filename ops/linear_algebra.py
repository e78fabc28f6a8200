"""Linear algebra on batches of square matrices: Det.

History: Det 11, 22 (bfloat16).
"""

from __future__ import annotations

import torch
from torch import Tensor

from onnxinterp.registry import op, sample
from onnxinterp.testing.samples import Call, Draw, call

HALF = (torch.float16, torch.bfloat16)  # torch cannot factorize matrices of these


@op("Det", since=11)
def det(X: Tensor) -> Tensor:
    y: Tensor = torch.linalg.det(X.float() if X.dtype in HALF else X)
    return y.to(X.dtype)


@sample(det)
def _(d: Draw) -> Call:
    side = d.integer(1, 4)
    return call(d.tensor((*d.shape(max_dims=2), side, side), lo=-2, hi=2))
