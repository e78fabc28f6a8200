"""Lists of labels for encoders: lookup by label or by position."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from torch import Tensor

from onnxinterp.runtime.guard import PLACE, reserve
from onnxinterp.runtime.strings import map_to_int64
from onnxinterp.values import Strings, array_of

Given: TypeAlias = "list[Any] | np.ndarray[Any, Any] | None"  # an attribute, perhaps absent
Positions: TypeAlias = Tensor | np.ndarray[Any, Any]  # int64; those of strings are on the host


class Labels(NamedTuple):
    """Labels in order, with lookup by label and by position.

    NaN is equal to NaN, -0.0 to 0.0.

    Attributes:
        size: number of labels.
        position: label -> its position; the tensors below have those of numbers too.
        nan: position of NaN; `size` if there is none.
        strings: the labels, if they are strings.
        numbers: the labels, if they are numbers: float32, int64 or the dtype of their tensor.
        ascending: the different numbers in ascending order.
        place: position of each number in `ascending`.
    """

    size: int
    position: Mapping[Any, int]
    nan: int
    strings: Strings | None = None
    numbers: Tensor | None = None
    ascending: Tensor | None = None
    place: Tensor | None = None

    def find(self, X: Tensor | Strings) -> Positions:
        """Positions in the shape of X; `size` for elements that are not labels."""
        if isinstance(X, np.ndarray):
            if self.strings is None:
                raise TypeError("the input must be numbers as the labels, got strings")
            listed = map_to_int64(X.reshape(-1), self.position.get, self.size)
            return np.asarray(listed.reshape(X.shape))
        if self.ascending is None or self.place is None:
            raise TypeError("the input must be strings as the labels, got numbers")
        labels, place = self.ascending.to(X.device, X.dtype), self.place.to(X.device)
        if len(labels):
            nearest = torch.searchsorted(labels, X.contiguous()).clamp(max=len(labels) - 1)
            found = torch.where(labels[nearest] == X, place[nearest], self.size)
        else:
            found = torch.full_like(X, self.size, dtype=torch.int64)
        return torch.where(X.isnan(), self.nan, found) if X.is_floating_point() else found

    def take(self, positions: Positions, default: Any, device: torch.device) -> Tensor | Strings:
        """Labels at these positions; `default` at `size`."""
        if self.strings is not None:
            if isinstance(positions, Tensor):
                positions = array_of(positions)
            reserve(PLACE * positions.size)
            table = np.array([*self.strings, default], dtype=object)
            return np.asarray(table[positions], dtype=object)
        assert self.numbers is not None, "labels must be strings or numbers"
        if isinstance(positions, np.ndarray):
            positions = torch.from_numpy(positions).to(device)
        numbers = self.numbers.to(positions.device)
        return torch.cat([numbers, numbers.new_full((1,), default)])[positions]


def labels_of(*options: Given, first_counts: bool = False) -> Labels:
    """Labels from the one list of the node that is not empty.

    Args:
        options: lists of an attribute, float32 or int64, or arrays of a tensor.
        first_counts: whether the first of equal labels counts, not the last.

    Raises:
        ValueError: all lists are absent or empty.
    """
    given = next((o for o in options if o is not None and len(o)), None)
    if given is None:
        raise ValueError("the node must have labels, got none")
    labels = given.tolist() if isinstance(given, np.ndarray) else list(given)
    pairs = list(enumerate(labels))
    position = {x: i for i, x in (reversed(pairs) if first_counts else pairs) if x == x}
    nan = max((i for i, x in pairs if x != x), default=len(labels))
    if isinstance(labels[0], str):
        return Labels(len(labels), position, nan, np.array(labels, dtype=object))
    if isinstance(given, np.ndarray):
        numbers = torch.from_numpy(given.flatten())
    else:
        floating = any(isinstance(x, float) for x in labels)
        numbers = torch.tensor(labels, dtype=torch.float32 if floating else torch.int64)
    ascending = sorted(position)
    place = torch.tensor([position[x] for x in ascending], dtype=torch.int64)
    in_order = torch.tensor(ascending, dtype=numbers.dtype)
    return Labels(len(labels), position, nan, None, numbers, in_order, place)
