"""The smallest sub-model that shows a divergence, with the inputs that show it.

It starts as the node alone, with onnxruntime's own values as inputs, and grows by the nodes before
it, one layer at a time, until the difference shows: a wrong operator results in one node, an
accumulated rounding in a chain. onnxruntime runs it without optimisation, as in `trace`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper
from torch import Tensor

from onnxinterp.dtypes import ONNX_TYPE
from onnxinterp.reading.source import Source, read, reusable
from onnxinterp.verify.comparison import DEFAULT, Tolerance
from onnxinterp.verify.reference import Reference
from onnxinterp.verify.report import Inputs, NodeReport, Report, computing_nodes, prepare, verify


@dataclass(frozen=True)
class Isolated:
    """A sub-model with its inputs.

    Attributes:
        model: from the inputs below to the outputs of the diverging node.
        inputs: by name.
        nodes: the number of its nodes, without those that hold a weight.
        report: its own comparison; `report.ok` is False where the difference shows.
    """

    model: onnx.ModelProto
    inputs: dict[str, Any]
    nodes: int
    report: Report


def isolate(
    source: Source, inputs: Inputs, node: NodeReport, *, tolerance: Tolerance = DEFAULT
) -> Isolated:
    """Cut the part out of a model that makes `node` diverge.

    Args:
        source: the model that was traced.
        inputs: the values it was traced with.
        node: an entry of `trace(source, inputs)`.
        tolerance: for the part.

    Raises:
        OnnxError: onnxruntime cannot run the model, or the part.
    """
    source = reusable(source)
    values, _ = prepare(source, inputs, {}, 0)
    cutter = _Cutter(source, values)
    names = (o.name for o in node.outputs)  # `boxes[0]` is of `boxes`
    compared = {n if n in cutter.producer else n.rpartition("[")[0] for n in names}
    targets = [o for o in cutter.nodes[node.index].output if o in compared]
    taken = {node.index}
    while True:
        model, feeds = cutter.cut(taken, targets)
        grown = taken | {cutter.producer[n] for n in feeds if n in cutter.producer}
        whole = all(
            isinstance(v, (Tensor, np.ndarray)) for n, v in feeds.items() if n not in values
        )
        if whole or grown == taken:
            report = verify(model, feeds, **asdict(tolerance), optimize=False)
            if not report.ok or grown == taken:
                return Isolated(model, feeds, len(taken), report)
        taken = grown


class _Cutter:
    """Cuts sub-models out of one model whose intermediate values are known.

    Attributes:
        nodes: the computing nodes of the main graph, in order.
        producer: name of a value -> index of its node.
        known: name of a value -> onnxruntime's value.
    """

    def __init__(self, source: Source, values: Mapping[str, Any]) -> None:
        self.model, self._reader, _ = read(source)
        self.nodes = computing_nodes(self.model)
        self.producer = {o: i for i, n in enumerate(self.nodes) for o in n.output if o}
        self.declared: dict[str, onnx.ValueInfoProto] = {i.name: i for i in self.model.graph.input}
        reference = Reference(source, self.producer, level="disabled")
        self.known = {**values, **reference(values)}
        self.narrow = reference.narrow

    def cut(
        self, taken: set[int], outputs: Iterable[str]
    ) -> tuple[onnx.ModelProto, dict[str, Any]]:
        """A model of the nodes taken, and its inputs."""
        nodes = [self.nodes[i] for i in sorted(taken)]
        made = {o for n in nodes for o in n.output}
        reads = [r for r in dict.fromkeys(r for n in nodes for r in _reads(n)) if r not in made]
        feeds = {r: self.known[r] for r in reads if r in self.known}
        stored, whole = set(reads) - feeds.keys(), self.model.graph
        constants = [n for n in whole.node if n.op_type == "Constant" and n.output[0] in stored]
        graph = helper.make_graph(
            [*constants, *nodes],
            whole.name or "part",
            [self._info(name) for name in feeds],
            [self._info(name) for name in outputs],
            [self._reader.inline(t) for t in whole.initializer if t.name in stored],
            sparse_initializer=[s for s in whole.sparse_initializer if s.values.name in stored],
        )
        model = helper.make_model(
            graph,
            functions=self.model.functions,
            opset_imports=self.model.opset_import,
            ir_version=self.model.ir_version,
        )
        return model, feeds

    def _info(self, name: str) -> onnx.ValueInfoProto:
        """The declared type of a value, or that of its value here."""
        if name in self.declared:
            return self.declared[name]
        value = self.known[name]
        if isinstance(value, list):
            element = self._element_type(name, value[0]) if value else TensorProto.FLOAT
            return helper.make_tensor_sequence_value_info(name, element, None)
        if value is None:
            return onnx.ValueInfoProto(name=name)
        element = self._element_type(name, value)
        return helper.make_tensor_value_info(name, element, list(value.shape))

    def _element_type(self, name: str, value: Any) -> int:
        narrow = self.narrow.get(name)
        if narrow is not None:
            return narrow
        return ONNX_TYPE[value.dtype] if isinstance(value, Tensor) else TensorProto.STRING


def _reads(node: onnx.NodeProto) -> Iterator[str]:
    """The names that a node reads, also in its subgraphs."""
    yield from filter(None, node.input)
    for attribute in node.attribute:
        for graph in (attribute.g, *attribute.graphs):
            for inner in graph.node:
                yield from _reads(inner)
            yield from (o.name for o in graph.output)
