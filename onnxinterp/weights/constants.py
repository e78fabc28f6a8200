"""The tensors of a model that never train: part of its plans, not of the module tree."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import torch
from torch import Tensor, nn

from onnxinterp.dtypes import FLOAT8
from onnxinterp.values import cast_constant


def keep_complex(move: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """What moves and casts a tensor, except that a cast to a real type leaves complex ones.

    Torch would drop their imaginary parts.
    """

    def moved(tensor: Tensor) -> Tensor:
        if not tensor.is_complex():
            return move(tensor)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about the imaginary parts
            found = move(tensor)
        return found if found.is_complex() else tensor.to(found.device)

    return moved


class Constants(nn.Module):
    """Holds constants as buffers; it is no child of the module, so that no tool sees them.

    A module on the meta device keeps the values of its constants: nothing else could restore them.
    """

    def __init__(self) -> None:
        super().__init__()
        self._values: dict[str, Tensor] = {}

    def store(self, name: str, value: Tensor) -> None:
        """Add or replace a constant."""
        self._values[name] = self._buffers[name] = value

    def remove(self, name: str) -> None:
        """Remove a constant."""
        del self._values[name], self._buffers[name]

    @torch.no_grad()
    def load(self, name: str, value: Tensor) -> None:
        """Copy a value into a constant."""
        self._values[name].copy_(value)

    def follow(self, move: Callable[[Tensor], Tensor]) -> None:
        """Move and cast as `nn.Module._apply` does; values stay, whatever `move` does to them.

        8-bit floats stay what they are: as integers, they are what a file has quantized.
        """
        moved: dict[tuple[torch.device, torch.dtype], Tensor] = {}
        for name, value in self._values.items():
            kind = self._buffers_device(name), value.dtype
            if kind not in moved:
                moved[kind] = keep_complex(move)(torch.empty(0, device=kind[0], dtype=kind[1]))
            if value.dtype not in FLOAT8:
                self._values[name] = cast_constant(value, moved[kind].dtype)
            self._place(name, moved[kind].device)

    def place(self, device: torch.device) -> None:
        """Move all constants to where the weights are."""
        for name in self._values:
            self._place(name, device)

    def _buffers_device(self, name: str) -> torch.device:
        buffer = self._buffers[name]
        assert buffer is not None, "constants are tensors"
        return buffer.device

    def _place(self, name: str, device: torch.device) -> None:
        if device.type != "meta":
            self._values[name] = self._values[name].to(device)
        self._buffers[name] = self._values[name].to(device)
