"""What hooks see: the outputs of every call of every module, by its path."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

Calls = dict[str, list[list[Tensor]]]
"""Path of a module -> for each of its calls the tensors that it returned."""


def record(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Any, Calls]:
    """Call a module with a hook on each of its submodules; return the result and what they saw."""
    calls: Calls = defaultdict(list)

    def hook(path: str) -> Any:
        def note(_module: nn.Module, _inputs: Any, output: Any) -> None:
            calls[path].append([t for t in tree_leaves(output) if isinstance(t, Tensor)])

        return note

    handles = [m.register_forward_hook(hook(path)) for path, m in module.named_modules() if path]
    try:
        result = module(*inputs)
    finally:
        for handle in handles:
            handle.remove()
    return result, dict(calls)


def differing(want: Calls, got: Calls) -> dict[str, str]:
    """Path -> how the calls of an import differ from those of the original.

    An import returns the values that something reads: an LSTM whose states nobody reads returns
    its outputs alone.
    """
    return {path: why for path in want if (why := _difference(want[path], got.get(path, [])))}


def _difference(want: list[list[Tensor]], got: list[list[Tensor]]) -> str:
    if len(want) != len(got):
        return f"{len(got)} calls instead of {len(want)}"
    for ours, theirs in zip(got, want, strict=True):
        for value, expected in zip(ours, theirs, strict=False):
            if value.shape != expected.shape:
                return f"{list(value.shape)} instead of {list(expected.shape)}"
            if not torch.allclose(value, expected, rtol=1e-4, atol=1e-5):
                return "other values"
    return ""
