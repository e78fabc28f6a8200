"""Programs beside the loop: what tests of both need."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from onnxinterp import OnnxModule
from onnxinterp.programs import Compiled
from onnxinterp.runtime.interpreter import Interpreter
from tests.models import parse

MLP = """g (float[n, 4] x) => (float[n, 3] y)
<float[4, 6] w1 = {1, -2, 3, 4, 5, -6, 7, 8, 9, 1, 2, 3, 4, 5, 6, 7, -8, 9, 1, 2, 3, 4, 5, 6},
 float[6] b1 = {1, 2, 3, -4, 5, 6},
 float[6, 3] w2 = {1, 2, 3, 4, -5, 6, 7, 8, 9, 1, 2, 3, 4, 5, 6, -7, 8, 9}>
{ a = MatMul(x, w1) h = Add(a, b1) r = Relu(h) y = MatMul(r, w2) }"""
X = torch.linspace(-1, 1, 8).reshape(2, 4)
"""Weights of [4, 6], [6] and [6, 3]."""

CALLS = 4  # of equal sizes: the last one runs a program


class Loop(Interpreter):
    """An interpreter of the user, with which a module never runs a program."""


def looped(model: str | onnx.ModelProto | Any, **options: Any) -> OnnxModule:
    """A module that runs the loop in each call."""
    module = OnnxModule(parse(model) if isinstance(model, str) else model, **options)
    module.interpreter = Loop()
    return module


def both(model: str | Any, *inputs: Any, **options: Any) -> tuple[OnnxModule, OnnxModule]:
    """A module that has a program for the inputs, and one that never has."""
    module = OnnxModule(parse(model) if isinstance(model, str) else model, **options)
    warm(module, *inputs)
    return module, looped(model, **options)


def warm(module: OnnxModule, *inputs: Any, **keywords: Any) -> Any:
    """Call it until it runs a program, if it ever does; return the last result."""
    for _ in range(CALLS - 1):
        module(*inputs, **keywords)
    return module(*inputs, **keywords)


def compiled(module: OnnxModule) -> list[Compiled | None]:
    """The programs that a module has made; None where there cannot be one."""
    plans = [b for bound in module._plans._plans.values() for b in bound.by_sizes.values() if b]
    return [made for bound in plans for made in bound.programs._made.values()]


def the_program(module: OnnxModule) -> Compiled:
    """The one program of a module, which has run without a deviation."""
    (made,) = compiled(module)
    assert made is not None
    assert made.deviations == 0
    return made


def runs(made: Compiled, call: Callable[[], Any]) -> int:
    """How often a call runs a program to its end."""
    function, ended = made.function, []

    def counted(*args: Any) -> Any:
        result = function(*args)
        ended.append(None)
        return result

    made.function = counted
    try:
        call()
    finally:
        made.function = function
    return len(ended)


def flat(result: Any) -> list[Any]:
    """The tensors and other values in nested sequences."""
    many = isinstance(result, (tuple, list))
    return [leaf for part in result for leaf in flat(part)] if many else [result]


def assert_same(got: Any, want: Any, *, tolerance: float = 0) -> None:
    """Check that results are equal, bit for bit where there is no tolerance."""
    for g, w in zip(flat(got), flat(want), strict=True):
        if isinstance(w, Tensor):
            assert (g.shape, g.dtype) == (w.shape, w.dtype)
            assert _equal(g.detach(), w.detach(), tolerance), f"{g} is not {w}"
        elif isinstance(w, np.ndarray):
            np.testing.assert_array_equal(g, w)
        else:
            assert repr(g) == repr(w)


def _equal(got: Tensor, want: Tensor, tolerance: float) -> bool:
    if tolerance and want.is_floating_point():
        return torch.allclose(
            got.double(), want.double(), rtol=tolerance, atol=tolerance, equal_nan=True
        )
    if want.is_floating_point() and want.itemsize > 1:
        same_nan = torch.equal(got.isnan(), want.isnan())
        got, want = (torch.where(t.isnan(), torch.ones_like(t), t) for t in (got, want))
        return same_nan and torch.equal(_bits(got), _bits(want))
    return torch.equal(_bits(got), _bits(want))


def _bits(tensor: Tensor) -> Tensor:
    return tensor.contiguous().reshape(-1).view(torch.uint8)


def weight_of(module: OnnxModule) -> nn.Parameter:
    """The first weight of MLP."""
    return next(p for p in module.parameters() if p.shape == (4, 6))


def home(module: OnnxModule) -> tuple[nn.Module, str]:
    """The module that holds it, and its name there."""
    return next(
        (level, name)
        for level in module.modules()
        for name, p in level.named_parameters(recurse=False)
        if p.shape == (4, 6)
    )
