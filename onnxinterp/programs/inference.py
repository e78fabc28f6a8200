"""The program of a call without gradients: passes that change no meaning.

    for_inference     reads the weights in each call, and keeps no copy of any
    for_snapshot      what depends on weights alone is computed once

A pass is a function from programs to programs. Sums may be in another order, and an activation may
be rounded as torch's function for it is: results differ in the last bits.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping

import torch
from torch import Tensor

from onnxinterp.programs.activations import join_activations
from onnxinterp.programs.aliases import Families, is_torch
from onnxinterp.programs.batchnorm import fold_batchnorm
from onnxinterp.programs.calls import Call, Program, Value
from onnxinterp.programs.folding import fold
from onnxinterp.programs.layouts import choose_layouts
from onnxinterp.programs.linears import use_onednn
from onnxinterp.programs.memory import reuse_memory
from onnxinterp.programs.pieces import join_pieces
from onnxinterp.programs.recurrent import use_cells
from onnxinterp.programs.repeats import share_repeats
from onnxinterp.programs.simplify import simplify


def for_inference(program: Program, device: torch.device) -> Program:
    """A program that computes the same, for calls without gradients.

    Args:
        program: as recorded without gradients.
        device: where it runs.
    """
    program = use_cells(join_activations(join_pieces(share_repeats(fold(program)))))
    if device.type == "cpu":
        program = use_onednn(choose_layouts(program))
    return reuse_memory(simplify(program))


def for_snapshot(program: Program, weights: Mapping[Value, Tensor]) -> Program:
    """A program that computes the same, with these values of the weights.

    Args:
        program: as recorded without gradients.
        weights: all weights that it reads.

    Returns:
        A program whose constants share no memory with the weights, nor its results with anything.
    """
    program = share_repeats(fold(program, weights, sys.maxsize))
    program = own_results(use_cells(join_activations(join_pieces(program))))
    program = fold_batchnorm(program)
    memory = {t.untyped_storage().data_ptr() for t in weights.values()}
    for value, tensor in program.constants.items():
        if tensor.untyped_storage().data_ptr() in memory:
            program.constants[value] = tensor.clone()
    return simplify(program)


def own_results(program: Program) -> Program:
    """A program whose results are tensors of their own."""
    families = Families(program)
    weights = (value for value, _ in program.weights)
    steps = (v for c in program.calls if not is_torch(c) for v in c.results if v is not None)
    taken = families.of_all([*program.inputs, *program.constants, *weights, *steps])
    calls, outputs = list(program.calls), []
    for output in program.outputs:
        if isinstance(output, Value) and families.of(output) in taken:
            copy = Value(output.shape, output.dtype, output.strides)
            calls.append(Call(Tensor.clone, (output,), {}, [copy], False, -1))
            outputs.append(copy)
        else:
            outputs.append(output)
        if isinstance(output, Value):
            taken.add(families.of(output))
    return Program(program.inputs, program.weights, program.constants, calls, outputs)
