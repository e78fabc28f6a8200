"""The program of a call without gradients: passes that change no number, and keep no copies.

A pass is a function from programs to programs. What reads the weights reads them in each call.
"""

from __future__ import annotations

import torch

from onnxinterp.programs.calls import Program
from onnxinterp.programs.folding import fold
from onnxinterp.programs.layouts import choose_layouts
from onnxinterp.programs.memory import reuse_memory


def for_inference(program: Program, device: torch.device) -> Program:
    """A program that computes the same, for calls without gradients.

    Args:
        program: as recorded without gradients.
        device: where it runs.
    """
    program = fold(program)
    if device.type == "cpu":
        program = choose_layouts(program)
    return reuse_memory(program)
