"""The weights of a module as the file stores them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from torch import Tensor

from onnxinterp.errors import SaveError
from onnxinterp.torch_weights import LAYOUTS

if TYPE_CHECKING:
    from onnxinterp.weights import Weights


class StoredWeights(Mapping[str, Tensor]):
    """Name in the file -> tensor in the layout of the file, computed from the weights as they are.

    Weights that are in no file have their own names here, too.
    """

    def __init__(self, weights: Weights) -> None:
        self._weights = weights

    def __getitem__(self, name: str) -> Tensor:
        """The tensor.

        Raises:
            SaveError: names of one parameter have different tensors.
        """
        weights = self._weights
        if (stored := weights.stored.get(name)) is None:
            return weights[name]
        parts = [self._common(part) for part in stored.names]
        return LAYOUTS[stored.layout].join(parts) if stored.layout else parts[0]

    def _common(self, name: str) -> Tensor:
        """The tensor that all names of a weight have."""
        value = self._weights[name]
        for other in self._weights.names_of(name):
            if self._weights[other] is not value:
                raise SaveError(
                    f"{name!r} and {other!r} must be one parameter, as in the file, but are two; "
                    "load the model with tie=False to train them apart"
                )
        return value

    def __iter__(self) -> Iterator[str]:
        weights, made = self._weights, set[str]()
        for name, stored in weights.stored.items():
            made.update(stored.names)
            if all(part in weights.keys() for part in stored.names):
                yield name
        yield from (n for n in weights if n not in made and n not in weights.tied)

    def __len__(self) -> int:
        return sum(1 for _ in self)
