"""When the import does as the original: equal names, equal tensors up to rounding.

The part of a message before its colon is the reason that the report lists; what follows are the
figures of one cell.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

VALUES = 1e-5
"""Relative error (norm of the difference over that of the original's) that is rounding."""

GRADIENTS = 1e-4
"""The same of gradients, which sum more terms."""

FLOOR = 1e-6
"""Of the largest norm among tensors that are compared together: below it, all is rounding."""

Inputs = tuple[Tensor, ...]


class DifferenceError(AssertionError):
    """The import does not do as the original does.

    Attributes:
        names: what only one of both has.
    """

    def __init__(self, message: str, names: Collection[str] = ()) -> None:
        super().__init__(message)
        self.names = frozenset(names)


def require(holds: bool, reason: str, detail: object = "") -> None:
    """Raise a DifferenceError unless something holds."""
    if not holds:
        raise DifferenceError(f"{reason}: {detail}" if detail else reason)


def tensors(value: Any) -> Iterator[Tensor]:
    """The floating tensors of a result, in order."""
    if isinstance(value, Tensor):
        if value.is_floating_point():
            yield value
    elif isinstance(value, Mapping):
        for part in value.values():
            yield from tensors(part)
    elif isinstance(value, (tuple, list)):
        for part in value:
            yield from tensors(part)


def same_names(got: Collection[str], want: Collection[str], what: str) -> None:
    """Two sets of names are equal."""
    missing, extra = sorted(set(want) - set(got)), sorted(set(got) - set(want))
    if missing or extra:
        lists = (
            f"{len(missing)} of {len(want)} missing {missing[:3]}, {len(extra)} more {extra[:3]}"
        )
        raise DifferenceError(f"{what} have other names: {lists}", {*missing, *extra})


def same(
    got: Mapping[str, Tensor], want: Mapping[str, Tensor], what: str, rtol: float = VALUES
) -> None:
    """Tensors by name are equal in shape and dtype, and in values up to rounding."""
    same_names(got, want, what)
    require(bool(want), f"{what} are compared", "the original has none")
    largest = max(float(w.detach().double().norm()) for w in want.values())
    for name, expected in want.items():
        value, judge = got[name].detach(), expected.detach()
        shapes = f"{name} {list(value.shape)} for {list(judge.shape)}"
        require(value.shape == judge.shape, f"{what} have other shapes", shapes)
        require(value.dtype == judge.dtype, f"{what} have other dtypes", f"{name} {value.dtype}")
        error = float((value.double() - judge.double()).norm())
        bound = rtol * float(judge.double().norm()) + FLOOR * largest
        require(error <= bound, f"{what} have other values", f"{name} {error:.1e} > {bound:.1e}")


def same_values(got: Any, want: Any, what: str, rtol: float = VALUES) -> None:
    """All floating tensors of two results are equal, in order."""
    found, expected = list(tensors(got)), list(tensors(want))
    counts = f"{len(found)} for {len(expected)}"
    require(len(found) == len(expected), f"{what} are of another number", counts)
    same(_numbered(found), _numbered(expected), what, rtol)


def _numbered(values: list[Tensor]) -> dict[str, Tensor]:
    return {str(number): value for number, value in enumerate(values)}


def relative_error(got: Tensor, want: Tensor) -> float:
    """The norm of the difference, over that of the second."""
    return float((got.double() - want.double()).norm() / want.double().norm())


def loss(outputs: Any) -> Tensor:
    """A number in which every element of every output has a part of its own."""
    total = torch.zeros(())
    for number, output in enumerate(tensors(outputs)):
        places = torch.arange(output.numel(), dtype=output.dtype).reshape(output.shape)
        total = total + (output * (0.7 * places + number).sin()).sum() / output.numel() ** 0.5
    return total


def gradients(module: nn.Module) -> dict[str, Tensor]:
    """Gradients by the names of the parameters; one that has none is left out."""
    return {n: p.grad for n, p in module.named_parameters() if p.grad is not None}


def backward(module: nn.Module, inputs: Inputs) -> dict[str, Tensor]:
    """The gradients of one step."""
    module.zero_grad()
    loss(module(*inputs)).backward()
    return gradients(module)


def same_outputs(original: nn.Module, module: nn.Module, inputs: Inputs) -> None:
    """Both compute the same."""
    with torch.no_grad():
        same_values(module(*inputs), original(*inputs), "outputs")


def same_gradients(original: nn.Module, module: nn.Module, inputs: Inputs) -> None:
    """Both have the same gradients by name."""
    same(backward(module, inputs), backward(original, inputs), "gradients", GRADIENTS)
