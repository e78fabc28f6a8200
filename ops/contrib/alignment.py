"""Alignment of two sequences: DynamicTimeWarping, for the times of the words that Whisper hears."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from onnxinterp.ops.contrib.registration import contrib_op
from onnxinterp.registry import sample
from onnxinterp.runtime.guard import reserve
from onnxinterp.testing.samples import Call, Draw, call
from onnxinterp.values import array_of

CELL = 16  # bytes for each element of the costs: two arrays, and the input as float32
DIAGONAL_SECONDS = 2e-5
DIAGONAL, DOWN, RIGHT = 0, 1, 2


@contrib_op("DynamicTimeWarping", data_shaped=True)
def dynamic_time_warping(input: Tensor) -> Tensor:
    """The cheapest path from the first to the last element, [2, length].

    As in onnxruntime, a predecessor wins only if it is cheaper than both others; otherwise the step
    along the row is taken, at its price, even if it is the most expensive one.
    """
    if input.ndim not in (2, 3) or (input.ndim == 3 and input.shape[0] != 1):
        raise ValueError(f"the input must be [M, N] or [1, M, N], got {list(input.shape)}")
    rows, columns = input.shape[-2:]
    reserve(CELL * (rows + 1) * (columns + 1), (rows + columns) * DIAGONAL_SECONDS)
    trace = _trace(array_of(input.float()).reshape(rows, columns))
    path: list[tuple[int, int]] = []
    i, j = rows, columns
    while i and j:
        path.append((i - 1, j - 1))
        step = trace[i, j]
        i, j = i - int(step != RIGHT), j - int(step != DOWN)
    points = np.array(path[::-1], np.int32).reshape(-1, 2)
    return torch.from_numpy(np.ascontiguousarray(points.T)).to(input.device)


def _trace(
    prices: np.ndarray[tuple[int, ...], np.dtype[np.float32]],
) -> np.ndarray[tuple[int, ...], np.dtype[np.int8]]:
    """The last step of the path to each element; row and column 0 stand for the outside."""
    rows, columns = prices.shape
    costs = np.full((rows + 1, columns + 1), np.inf, np.float32)
    trace = np.full((rows + 1, columns + 1), RIGHT, np.int8)
    costs[0, 0] = 0
    for diagonal in range(2, rows + columns + 1):  # its elements do not depend on each other
        i = np.arange(max(1, diagonal - columns), min(rows, diagonal - 1) + 1)
        j = diagonal - i
        across, down, right = costs[i - 1, j - 1], costs[i - 1, j], costs[i, j - 1]
        is_across = (across < down) & (across < right)
        is_down = (down < across) & (down < right)
        trace[i, j] = np.where(is_across, DIAGONAL, np.where(is_down, DOWN, RIGHT))
        cheapest = np.where(is_across, across, np.where(is_down, down, right))
        with np.errstate(invalid="ignore"):  # inf - inf
            costs[i, j] = cheapest + prices[i - 1, j - 1]
    return trace


@sample(dynamic_time_warping)
def _(d: Draw) -> Call:
    shape = d.shape(2, 2, max_side=6)
    shape = (1, *shape) if d.boolean() else shape
    if d.boolean():  # many equal sums
        return call(d.ints(shape, 0, 2, torch.float32))
    return call(d.tensor(shape, "F"))
