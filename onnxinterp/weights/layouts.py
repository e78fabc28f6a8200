"""The weights of a module as the file stores them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from onnxinterp.errors import SaveError
from onnxinterp.torch_weights import LAYOUTS

if TYPE_CHECKING:
    from onnxinterp.weights import Weights


def check_plain(value: object, name: str) -> None:
    """Check that a weight is a tensor whose elements are in its own memory.

    Raises:
        SaveError: a tool has replaced it, for example by a quantized or a distributed one.
    """
    if type(value) not in (Tensor, nn.Parameter):
        kind = f"{type(value).__module__}.{type(value).__qualname__}"
        raise SaveError(f"the weight {name!r} must be a plain torch.Tensor, got a {kind}")


class StoredWeights(Mapping[str, Tensor]):
    """Name in the file -> tensor in the layout of the file, computed from the weights as they are.

    Weights that are in no file have their own names here, too.
    """

    def __init__(self, weights: Weights) -> None:
        self._weights = weights
        self._names = defaultdict[str, list[str]](list)  # first name of a weight -> all its names
        for name, first in weights.tied.items():
            self._names[first] += [name] if first in self._names else [first, name]

    def __getitem__(self, name: str) -> Tensor:
        """The tensor.

        Raises:
            SaveError: the names of one parameter have different values, or a weight is not a plain
                tensor any more.
        """
        if (stored := self._weights.stored.get(name)) is None:
            return self._common(name)
        parts = [self._common(part) for part in stored.names]
        return LAYOUTS[stored.layout].join(parts) if stored.layout else parts[0]

    def _common(self, name: str) -> Tensor:
        """The value that all names of a weight have."""
        value = self._weights[name]
        check_plain(value, name)
        for other in self._names.get(self._weights.tied.get(name, name), ()):
            found = self._weights[other] if other != name else value
            if found is not value and not torch.equal(found, value):
                raise SaveError(
                    f"{name!r} and {other!r} must be equal: they are one tensor in the file; load "
                    "the model with tie=False to train equal tensors apart"
                )
        return value

    def __contains__(self, name: object) -> bool:
        stored = self._weights.stored.get(str(name))
        names = self._weights.keys()
        return name in names if stored is None else all(part in names for part in stored.names)

    def __iter__(self) -> Iterator[str]:
        weights, made = self._weights, set[str]()
        for name, stored in weights.stored.items():
            made.update(stored.names)
            if name in self:
                yield name
        yield from (n for n in weights if n not in made and n not in weights.tied)

    def __len__(self) -> int:
        return sum(1 for _ in self)
