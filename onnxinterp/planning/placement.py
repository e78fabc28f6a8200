"""Where the weights of a module are, and of which floating type."""

from __future__ import annotations

from itertools import chain

import torch

from onnxinterp.dtypes import FLOAT8
from onnxinterp.weights import Weights, tensors_of


def device_of(weights: Weights) -> torch.device:
    """Where the weights of a module are; the CPU where there are none."""
    held = chain(weights.parameters(), weights.buffers(), weights.constants.buffers())
    some = next(held, None)
    return torch.device("cpu") if some is None else some.device


def floating_dtype(weights: Weights) -> torch.dtype | None:
    """The dtype of the first floating weight: what `.double()` and `.bfloat16()` change."""
    dtypes = (t.dtype for t in tensors_of(weights).values() if t.is_floating_point())
    return next((dtype for dtype in dtypes if dtype not in FLOAT8), None)
