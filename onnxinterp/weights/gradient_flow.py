"""Which values of a graph a gradient of its outputs can reach: one pass from the outputs back.

What kernels declare decides: inputs that are plain numbers, state or `frozen` pass no gradient, nor
does a value of an integer type, except one that passes straight through quantization.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from onnxinterp.dtypes import CARRIER
from onnxinterp.graph.ir import Graph, Node, WeightRef
from onnxinterp.kinds import Kind

TENSORS = (Kind.TENSOR, Kind.OPERAND, Kind.ANY)
FLOATING = {0, *(t for t, dtype in CARRIER.items() if dtype.is_floating_point or dtype.is_complex)}
"""ONNX types of values that have a gradient; 0 is an unknown type."""


def reached_inputs(graph: Graph, types: Mapping[str, int], frozen: bool = False) -> set[str]:
    """The values that kernels read where a gradient of the outputs can reach them.

    Args:
        graph: the main graph.
        types: the ONNX type of each value.
        frozen: whether a gradient also passes through inputs that kernels declare as `frozen`.
    """
    flow = _Backward(types, frozen)
    flow.visit(graph)
    return flow.inputs


class _Backward:
    """The pass from the last node to the first.

    Attributes:
        values: the values that a gradient reaches.
        inputs: those of them that kernels read.
    """

    def __init__(self, types: Mapping[str, int], frozen: bool) -> None:
        self.types = types
        self.frozen = frozen
        self.values: set[str] = set()
        self.inputs: set[str] = set()

    def visit(self, graph: Graph) -> None:
        """Follow the gradients of all outputs of a graph or subgraph."""
        self.values.update(o.name for o in graph.outputs)
        for node in reversed(graph.nodes):
            floating = (o for o in node.outputs if self.types.get(o, 0) in FLOATING)
            if not self.values.isdisjoint((*floating, *_straight(graph, node))):
                self._follow(node)

    def _follow(self, node: Node) -> None:
        """Go through a node to the inputs that its kernel computes with."""
        bodies = node.subgraphs.values()
        for body in bodies:
            self.visit(body)
        if node.kernel is None:  # it may compute with anything
            self.values.update(node.reads)
            return
        kernel = node.kernel
        aligned = [b.inputs for b in bodies if len(b.inputs) == len(node.inputs)]
        closed = {*kernel.state, *(() if self.frozen else kernel.frozen)}
        names = [
            name
            for index, name in enumerate(node.inputs)
            if (parameter := kernel.parameter(index))
            and kernel.kinds[parameter.name] in TENSORS
            and parameter.name not in closed
            and (not aligned or any(i[index].name in self.values for i in aligned))
        ]
        held = node.attributes.items()
        names += [v.name for k, v in held if isinstance(v, WeightRef) and k not in closed]
        self.inputs.update(names)
        self.values.update(names)


def _straight(graph: Graph, node: Node) -> Iterable[str]:
    """The output of a node that stays floating for its readers, although its type is an integer."""
    if node.kernel is None or "straight_through" not in node.kernel.keywords:
        return ()
    return graph.straight_through.intersection(node.outputs[:1])
