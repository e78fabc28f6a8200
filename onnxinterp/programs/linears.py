"""Large linear functions by oneDNN, where it is faster than the BLAS that torch calls.

The weight is read, and reordered by oneDNN, in each call. Which of the two is faster depends on the
processor: it is measured once in a process, when it is first needed.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import torch

from onnxinterp.programs.aliases import is_torch
from onnxinterp.programs.calls import Call, Program, Value
from onnxinterp.programs.functions import name_of
from onnxinterp.programs.packing import MKLDNN, is_available, measure

MIN_PRODUCTS = 1 << 26  # multiplications of a linear function: fewer do not pay for the reordering
MIN_ROWS = 8
MEASURED = (128, 768, 3072)  # rows, features before, features after
MARGIN = 0.95  # of the time of torch's own function


def use_onednn(program: Program) -> Program:
    """A program in which large linear functions of float32 are those of oneDNN, if that is faster.

    Args:
        program: without gradients, on the CPU.
    """
    if not any(_is_large(call) for call in program.calls) or not _is_faster():
        return program
    calls = [_by_onednn(call) if _is_large(call) else call for call in program.calls]
    return replace(program, calls=calls)


def _is_large(call: Call) -> bool:
    if name_of(call.function) != "linear" or not is_torch(call) or len(call.args) != 3:
        return False
    x, weight = call.args[:2]
    if not x.dtype is weight.dtype is torch.float32 or len(weight.shape) != 2 or call.kwargs:
        return False
    rows = x.shape[:-1].numel()
    return bool(rows >= MIN_ROWS and rows * weight.shape.numel() >= MIN_PRODUCTS)


def _by_onednn(call: Call) -> Call:
    function = MKLDNN._linear_pointwise.default
    return replace(call, function=function, args=(*call.args, "none", [], ""))


@cache
def _is_faster() -> bool:
    if not is_available():
        return False
    rows, before, after = MEASURED
    x, weight = torch.rand(rows, before), torch.rand(after, before)
    given, result = [Value.of(x), Value.of(weight)], Value.of(torch.empty(rows, after))
    call = Call(torch._C._nn.linear, (*given, None), {}, [result], False, 0)
    programs = [Program(given, [], {}, [c], [result]) for c in (_by_onednn(call), call)]
    onednn, own = measure(programs)
    return onednn < MARGIN * own
