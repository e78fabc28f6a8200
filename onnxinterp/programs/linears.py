"""Large linear functions by oneDNN, where it is faster than the BLAS that torch calls.

A convolution with a kernel of one pixel is a linear function of the channels of each pixel. The
weight is read, and reordered by oneDNN, in each call. Which of the two is faster depends on the
processor: it is measured once in a process, when it is first needed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from onnxinterp.programs.aliases import is_torch
from onnxinterp.programs.calls import Call, Program, Value
from onnxinterp.programs.functions import name_of
from onnxinterp.programs.packing import MKLDNN, is_available, measure, random

MIN_PRODUCTS = 1 << 25  # multiplications of a function: fewer do not pay for the reordering
MIN_ROWS = 8
MEASURED = (128, 768, 3072)  # rows, features before, features after
MARGIN = 0.95  # of the time of torch's own function


def use_onednn(program: Program) -> Program:
    """A program in which large linear functions of float32 are those of oneDNN, if that is faster.

    Args:
        program: without gradients, on the CPU.
    """
    rewrites = [_rewrite_of(call) for call in program.calls]
    if not any(rewrites) or not _is_faster():
        return program
    calls: list[Call] = []
    for call, rewrite in zip(program.calls, rewrites, strict=True):
        calls += [call] if rewrite is None else rewrite(call)
    return replace(program, calls=calls)


def _rewrite_of(call: Call) -> Callable[[Call], list[Call]] | None:
    """What makes calls of oneDNN of a call; None where it is not a large linear function."""
    if not is_torch(call) or len(call.args) < 3 or call.kwargs:
        return None
    x, weight = call.args[:2]
    name = name_of(call.function)
    if name not in ("linear", "conv2d") or not x.dtype is weight.dtype is torch.float32:
        return None
    result = call.results[0]
    if result is None or result.shape.numel() * weight.shape[1] < MIN_PRODUCTS:
        return None
    if name == "linear":
        is_matrix = len(call.args) == 3 and len(weight.shape) == 2
        return _linear if is_matrix and x.shape[:-1].numel() >= MIN_ROWS else None
    return _pixelwise if _is_pixelwise(call) else None


def _is_pixelwise(call: Call) -> bool:
    """Whether a convolution takes each pixel by itself, perhaps only some of them."""
    x, weight, _, _, padding, _, groups = call.args
    if not isinstance(padding, (list, tuple)) or len(x.shape) != 4:
        return False
    return weight.shape[2:] == (1, 1) and groups == 1 and not any(padding)


def _linear(call: Call) -> list[Call]:
    args = (*call.args, "none", [], "")
    return [replace(call, function=MKLDNN._linear_pointwise.default, args=args)]


def _pixelwise(call: Call) -> list[Call]:
    """A convolution as a linear function of [batch, height, width, channels]."""
    x, weight, bias, strides = call.args[:4]
    result = call.results[0]
    assert result is not None, "as asked before"
    calls: list[Call] = []

    def add(function: Any, shape: Sequence[int], *args: Any, **keywords: Any) -> Value:
        made = Value.dense(shape, x.dtype)
        calls.append(Call(function, args, keywords, [made], False, call.step))
        return made

    if any(stride != 1 for stride in strides):
        steps = (slice(None), slice(None), *[slice(None, None, stride) for stride in strides])
        x = add(Tensor.__getitem__, (*x.shape[:2], *result.shape[2:]), x, steps)
    batch, channels, height, width = x.shape
    x = add(Tensor.contiguous, x.shape, x, memory_format=torch.channels_last)
    x = add(Tensor.permute, (batch, height, width, channels), x, 0, 2, 3, 1)
    rows = add(Tensor.flatten, (weight.shape[0], channels), weight, 1)
    args: tuple[Any, ...] = (x, rows, bias, "none", [], "")
    x = add(MKLDNN._linear_pointwise.default, (batch, height, width, weight.shape[0]), *args)
    calls.append(Call(Tensor.permute, (x, 0, 3, 1, 2), {}, [result], False, call.step))
    return calls


@cache
def _is_faster() -> bool:
    if not is_available():
        return False
    rows, before, after = MEASURED
    x, weight = random(rows, before), random(after, before)
    given, result = [Value.of(x), Value.of(weight)], Value.dense((rows, after), x.dtype)
    call = Call(functional.linear, (*given, None), {}, [result], False, 0)
    programs = [Program(given, [], {}, calls, [result]) for calls in (_linear(call), [call])]
    onednn, own = measure(programs)
    return onednn < MARGIN * own
