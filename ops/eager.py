"""Whether a kernel may choose what only this process, this processor and this call can do.

A graph that is being captured may run elsewhere; transforms and dispatch modes need functions that
they know.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch._C import _len_torch_dispatch_stack
from torch._C._functorch import peek_interpreter_stack
from torch.autograd import forward_ad

from onnxinterp.values import is_traced

PLAIN = (Tensor, nn.Parameter)


def is_captured() -> bool:
    """Whether a graph is being recorded, or a mode sees all functions: sizes may be symbols."""
    return bool(torch.compiler.is_compiling() or _len_torch_dispatch_stack() or is_traced())


def is_plain(*tensors: Tensor | None) -> bool:
    """Whether plain tensors are computed now, without transforms and forward derivatives."""
    if is_captured() or peek_interpreter_stack() is not None or forward_ad._current_level >= 0:
        return False
    return all(t is None or type(t) in PLAIN for t in tensors)


def is_eager(x: Tensor, *others: Tensor | None, least: int = 0) -> bool:
    """Whether plain tensors on the CPU are computed now, for nobody else, and without gradients.

    Whether floats require gradients may be another thing at the next call: a program of this one
    is made for a mode of gradients, not for that.

    Args:
        x: a tensor.
        others: further ones.
        least: number of elements of x from which on the answer may be true.
    """
    if not is_plain(x, *others) or x.numel() < least:
        return False
    may_need_grad = torch.is_grad_enabled()
    for t in (x, *others):
        if t is not None and (not t.is_cpu or (may_need_grad and t.is_floating_point())):
            return False
    return True
