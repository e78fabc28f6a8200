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

    The names are those of the time when the view is made. Weights that are in no file have their
    own names here, too.
    """

    def __init__(self, weights: Weights) -> None:
        self._weights = weights
        self._present = _present(weights)
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
        return name in self._present

    def __iter__(self) -> Iterator[str]:
        return iter(self._present)

    def __len__(self) -> int:
        return len(self._present)


def _present(weights: Weights) -> dict[str, None]:
    """The tensors of the file whose weights are there, and weights that are in no file."""
    there = weights.keys()
    whole = [n for n, s in weights.stored.items() if all(part in there for part in s.names)]
    made = {part for stored in weights.stored.values() for part in stored.names}
    others = there - made - weights.tied.keys()
    return dict.fromkeys([*whole, *(name for name in there if name in others)])
