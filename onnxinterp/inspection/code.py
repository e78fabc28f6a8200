"""The program of a call: what `module.program` prints, and what snapshots prepare."""

from __future__ import annotations

from typing import Any

import torch

from onnxinterp.inspection.runnable import Runnable
from onnxinterp.planning.bound import sizes_of
from onnxinterp.planning.isolation import without_function_modes
from onnxinterp.programs import Compiled
from onnxinterp.runtime.interpreter import Interpreter

CALLS_UNTIL_RECORDED = (
    3  # one for any sizes, one that makes the plan of these, one that is recorded
)


def program_of(module: Runnable, inputs: Any, named: Any) -> Compiled | None:
    """The program of calls in `eval()` mode and without gradients; None where there cannot be one.

    Args:
        module: the module; it runs three times.
        inputs: of a call.
        named: inputs by name.
    """
    interpreter = Interpreter()
    with torch.no_grad(), without_function_modes():
        for _ in range(CALLS_UNTIL_RECORDED):
            module._run(inputs, named, module._plans, interpreter)
        given = module._call.gather(inputs, named)
        sizes = sizes_of(module._call.infos, given)
        overridden = frozenset(given).difference(i.name for i in module._call.inputs)
        bound = module._plans.get(False, overridden, module._plans.is_nested(False))
        sized = None if sizes is None else bound.by_sizes.get(sizes)
        return None if sized is None else sized.programs.made()
