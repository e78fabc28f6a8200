"""What a snapshot needs of a module, and the module itself as it computes."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256
from typing import Any

import torch
from torch import Tensor, nn

from onnxinterp.errors import EngineError, OnnxError
from onnxinterp.graph.ir import ValueInfo
from onnxinterp.inspection.code import program_of
from onnxinterp.inspection.runnable import Runnable
from onnxinterp.programs.calls import Program
from onnxinterp.runtime.inputs import Arguments, Floating
from onnxinterp.runtime.interpreter import Interpreter
from onnxinterp.writing.savable import Savable
from onnxinterp.writing.template import Template

CALLS_UNTIL_RECORDED = (
    3  # one for any sizes, one that makes the plan of these, one that is recorded
)
ROOT_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


class Subject(Runnable, Savable):
    """A module of which snapshots are made."""

    interpreter: Interpreter
    template: Template
    inputs: tuple[ValueInfo, ...]
    _call: Arguments
    _floating: Floating | None

    @property
    def input_names(self) -> tuple[str, ...]:
        """Names of the required inputs, in graph order."""
        raise NotImplementedError

    @property
    def output_names(self) -> tuple[str, ...]:
        """Names of the outputs, in order."""
        raise NotImplementedError


def evaluate(module: Subject, given: Mapping[str, Any]) -> tuple[Any, ...]:
    """The outputs of a module in `eval()` mode and without gradients.

    Args:
        module: the module; its mode is not changed.
        given: inputs by ONNX name.
    """
    with torch.no_grad():
        if is_observed(module):  # hooks of the module itself see calls of it alone
            results = module(**given)
            return results if isinstance(results, tuple) else (results,)
        results = module._run((), dict(given), module._plans, module.interpreter)
    return tuple(results)


def is_observed(module: Subject) -> bool:
    """Whether a module, or a part of it, has hooks, was replaced or wrapped."""
    return any(root_hooks(module)) or module._plans.watch.is_observed()


def root_hooks(module: nn.Module) -> tuple[dict[int, Any], ...]:
    """The tables of hooks of the module itself."""
    return tuple([module.__dict__[hooks] for hooks in ROOT_HOOKS])


def modules_with_modes(module: Subject) -> list[nn.Module]:
    """The module, and those in it that compute something else in training mode."""
    return [module, *(level for _, level in module._plans._moded)]


def check_file_suffices(module: Subject) -> None:
    """Check that another runtime which gets the file with the current weights computes the same.

    Raises:
        EngineError: the module computes, or checks, more than the file says.
    """
    check_module_alone(module)
    try:
        module.check_can_save()
    except OnnxError as error:
        raise EngineError(str(error)) from error


def check_module_alone(module: Subject) -> None:
    """Check that a call does nothing but to compute results from inputs.

    Raises:
        EngineError: it has limits, or hooks, or draws random numbers.
    """
    if module.limits.watches_calls:
        raise EngineError("the calls of this module have limits=, which only the module checks")
    if is_observed(module):
        raise EngineError("modules of the tree have hooks or were replaced: the file has none")
    graph = module._plans.graph
    drawing = [node for node in graph.walk() if (k := node.kernel) and k.random and not k.has_modes]
    if drawing:
        name = f"node {drawing[0].name!r} ({drawing[0].op_type})"
        raise EngineError(f"{name} draws random numbers, which differ from call to call")


def recorded_program(module: Subject, inputs: tuple[Tensor, ...]) -> Program:
    """The program of a module for inputs of such sizes, recorded without gradients.

    Raises:
        EngineError: its calls cannot be recorded.
    """
    made = program_of(module, tuple([x.clone() for x in inputs]), {})
    if made is None:
        raise EngineError("the calls of this model cannot be recorded")
    return made.recorded


def graph_hash(module: Subject) -> str | None:
    """A hash of the file of a module without its large weights; None where it has no bytes."""
    wire = module.template.wire
    if wire is None:
        return None
    digest = sha256(repr(module.output_names).encode(errors="backslashreplace"))
    for start, data in wire.pieces:
        digest.update(start.to_bytes(8, "little"))
        digest.update(data)
    return digest.hexdigest()


def weights_hash(module: Subject) -> str:
    """A hash of all weights and constants of a module, bit by bit."""
    digest = sha256()
    for name, weight in module.weights.items():
        flat = weight.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        digest.update(f"{name} {weight.dtype} {tuple(weight.shape)}".encode(errors="replace"))
        digest.update(flat.numpy().data)
    return digest.hexdigest()
