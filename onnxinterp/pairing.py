"""Two nodes that are one function in torch: a product, and the bias that the next node adds to it.

A linear layer comes as MatMul and Add. Run apart, the sum would take one more pass over the result
and one more tensor kept for the gradient, and under autocast it would be float32 where `nn.Linear`
gives the narrow type. Which nodes pair, and as what, is declared beside the kernels (`@pair`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence, Set
from dataclasses import replace

from onnxinterp.interpreter import Step
from onnxinterp.registry import PAIRS


def paired(steps: Sequence[Step], outputs: Sequence[str], weights: Set[str]) -> list[Step]:
    """Steps in which each pair is one; it stands where the second stood.

    Two steps pair where nothing else reads what the first gives, and the second adds a weight.

    Args:
        steps: in order.
        outputs: what the plan gives: these values are made as the file has them.
        weights: names of the weights.
    """
    firsts = {kernel for kernel, _ in PAIRS}
    made = {s.outputs[0]: s for s in steps if s.kernel in firsts and s.direct}
    reads = Counter([*outputs, *(name for s in steps for name in _reads(s))])
    joined: dict[str, Step] = {}  # output of the first -> what stands for both
    for step in steps:
        for value, bias in (step.inputs, step.inputs[::-1]) if len(step.inputs) == 2 else ():
            first = made.get(value)
            if first is None or bias not in weights or reads[value] != 1:
                continue
            function = PAIRS.get((first.kernel, step.kernel))
            if function is not None and step.direct:
                inputs = (*first.inputs, bias)
                joined[value] = replace(first, kernel=function, inputs=inputs, outputs=step.outputs)
    by_output = {s.outputs: s for s in joined.values()}
    return [by_output.get(s.outputs, s) for s in steps if s.outputs[0] not in joined]


def _reads(step: Step) -> tuple[str, ...]:
    captured = (name for plan in step.subgraphs.values() for name in plan.captures)
    return (*step.inputs, *step.tensors.values(), *captured)
