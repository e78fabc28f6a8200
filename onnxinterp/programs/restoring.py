"""Random numbers of a program that fails halfway: the loop, which runs then, draws them again."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from onnxinterp.programs.aliases import is_torch
from onnxinterp.programs.calls import Program
from onnxinterp.programs.functions import draws_numbers, name_of


def draws(program: Program) -> bool:
    """Whether a call of a program may change the state of torch's generators."""
    return any(not is_torch(c) or draws_numbers(name_of(c.function)) for c in program.calls)


class Generators:
    """The states of the generators that a call may use, to go back to.

    Args:
        device: where the call runs.
    """

    def __init__(self, device: torch.device) -> None:
        self._cpu = torch.get_rng_state()
        self._device = device
        self._other: Tensor | None = None
        if device.type not in ("cpu", "meta"):
            self._other = self._module().get_rng_state(device)

    def _module(self) -> Any:
        return torch.get_device_module(self._device)

    def restore(self) -> None:
        """Set them to what they were."""
        torch.set_rng_state(self._cpu)
        if self._other is not None:
            self._module().set_rng_state(self._other, self._device)
