"""Which host values depend on nothing but the shapes of the inputs.

They are the same whenever the same shapes come again: a plan can be made in which they are known.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set

from onnxinterp.planning.facts import TENSOR_KINDS
from onnxinterp.registry import Kernel
from onnxinterp.runtime.plan import Step


def size_values(steps: Iterable[Step], known: Mapping[str, object], weights: Set[str]) -> set[str]:
    """Find the host values of a main graph that are computed from shapes alone.

    Args:
        steps: of the main graph, in order, not fused.
        known: the constants.
        weights: names of the weights of the module.
    """
    sized: set[str] = set()
    data_shaped: set[str] = set()  # values whose shape depends on elements of tensors
    for step in steps:
        node, kernel = step.node, step.node.kernel
        assert isinstance(kernel, Kernel)
        reads = [n for n in node.reads if n not in known and n not in weights]
        if (
            kernel.data_shaped
            or step.subgraphs
            or not data_shaped.isdisjoint(reads)
            or _reads_data(step, reads, sized)
        ):
            data_shaped.update(node.outputs)
        elif kernel.returns_host or (step.host_rule and sized.issuperset(reads)):
            sized.update(node.outputs)
    return sized


def _reads_data(step: Step, reads: Iterable[str], sized: Set[str]) -> bool:
    """Whether the kernel reads elements of a tensor that may set the shape of its output."""
    pairs = zip(step.node.inputs, step.kinds, strict=True)
    return any(k not in TENSOR_KINDS and n not in sized and n in reads for n, k in pairs)
