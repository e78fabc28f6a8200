"""Dropout.

History: 1, 6 (is_test), 7 (without is_test), 10 (a boolean mask), 12 (ratio and training_mode are
inputs), 13 (bfloat16), 22 (float8).

Elements are dropped if the module trains, or if a file of opset 12 or later says so. torch's
generator is used: `torch.manual_seed` repeats a run, and the seed in the file has no effect.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from onnxinterp.dtypes import FLOAT8
from onnxinterp.registry import op, sample
from onnxinterp.testing.samples import Call, Draw, call
from onnxinterp.versions import older


def _drop(
    data: Tensor, ratio: float, drops: bool, n_outputs: int
) -> Tensor | tuple[Tensor, Tensor]:
    """The output and, if the node has two outputs, the boolean mask of the kept elements."""
    wide = data.float() if drops and data.dtype in FLOAT8 else data
    if n_outputs > 1 and drops:
        output, mask = torch.native_dropout(wide, ratio, True)
        return output.to(data.dtype), mask.to(torch.bool)  # without elements torch returns floats
    output = functional.dropout(wide, ratio).to(data.dtype) if drops else data
    return output if n_outputs == 1 else (output, torch.ones_like(data, dtype=torch.bool))


@op("Dropout", since=12, any_type=True, frozen=("ratio",), random=True)
def dropout(
    data: Tensor,
    ratio: float | None = None,
    training_mode: bool | None = None,
    *,
    seed: int | None = None,  # noqa: ARG001  # see the head of this file
    training: bool,
    n_outputs: int,
) -> Tensor | tuple[Tensor, Tensor]:
    return _drop(data, 0.5 if ratio is None else ratio, bool(training or training_mode), n_outputs)


@op("Dropout", since=10, random=True)
def dropout_10(
    data: Tensor, *, ratio: float = 0.5, training: bool, n_outputs: int
) -> Tensor | tuple[Tensor, Tensor]:
    return _drop(data, ratio, training, n_outputs)


@op("Dropout", since=7, random=True)
def dropout_7(
    data: Tensor, *, ratio: float = 0.5, training: bool, n_outputs: int
) -> Tensor | tuple[Tensor, Tensor]:
    """The mask has the dtype of the data."""
    result = _drop(data, ratio, training, n_outputs)
    return result if isinstance(result, Tensor) else (result[0], result[1].to(data.dtype))


# is_test is 0 by default, which would drop in every run: the mode of the module decides
dropout_1 = older(dropout_7, since=1, unused={"is_test": 0})


@sample(dropout)
def _(d: Draw) -> Call:
    ratio = d.maybe(d.real(0.25, 0.75))
    training = None if ratio is None else d.maybe(torch.tensor(d.boolean()))
    x = d.tensor(d.shape(min_dims=1))
    return call(x, ratio, training, seed=d.maybe(d.integer(0, 9)), outputs=d.integer(1, 2))


@sample(dropout_10, dropout_7)
def _(d: Draw) -> Call:
    x, ratio = d.tensor(d.shape(min_dims=1)), d.maybe(d.real(0.25, 0.75))
    if d.opset < 7:
        return call(x, ratio=ratio, is_test=1)
    return call(x, ratio=ratio, outputs=d.integer(1, 2))
