"""The program of a call without gradients: passes that change no number, and keep no copies.

A pass is a function from programs to programs. What reads the weights reads them in each call.
"""

from __future__ import annotations

import torch

from onnxinterp.programs.calls import Program
from onnxinterp.programs.folding import fold
from onnxinterp.programs.layouts import choose_layouts
from onnxinterp.programs.memory import reuse_memory
from onnxinterp.programs.pieces import join_pieces
from onnxinterp.programs.recurrent import use_cells
from onnxinterp.programs.simplify import simplify


def for_inference(program: Program, device: torch.device) -> Program:
    """A program that computes the same, for calls without gradients.

    Args:
        program: as recorded without gradients.
        device: where it runs.
    """
    program = use_cells(join_pieces(fold(program)))
    if device.type == "cpu":
        program = choose_layouts(program)
    return reuse_memory(simplify(program))
