"""A table of the layers of a module: shapes, parameters, floating point operations."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor

from onnxinterp.graph.ir import Node
from onnxinterp.graph.scopes import path_of
from onnxinterp.inspection.layers import Layer, Shape, layers_of, notes_of
from onnxinterp.inspection.measure import measure
from onnxinterp.inspection.runnable import Runnable, parameters_of
from onnxinterp.inspection.scoped import scoped_graph
from onnxinterp.inspection.table import html, text

COLUMNS = ("layer", "output", "parameters", "trainable", "FLOPs")
MAX_OPERATORS = 3  # of a layer whose class is not known


class Row(NamedTuple):
    """One layer.

    Attributes:
        name: the path of a torch module; the name of a node that is outside of the modules at its
            depth.
        kind: the class of the module, as far as the file says it; otherwise operators.
        depth: how many modules are around it.
        shapes: of its outputs. A size is a number, a symbol, or None; a shape is None where it is
            not known.
        parameters: elements of the parameters that it reads.
        trainable: those of them that require a gradient.
        flops: floating point operations; None where nothing has run.
    """

    name: str
    kind: str
    depth: int
    shapes: tuple[Shape | None, ...]
    parameters: int
    trainable: int
    flops: int | None


@dataclass(frozen=True)
class Summary:
    """The layers of a module. `str()` is a table of the first thousand.

    Attributes:
        name: of the model.
        rows: in the order of the graph; a module is followed by what is in it.
        parameters: elements of all parameters.
        trainable: those of them that require a gradient.
        flops: of one run; None where nothing has run.
    """

    name: str
    rows: tuple[Row, ...]
    parameters: int
    trainable: int
    flops: int | None

    def __str__(self) -> str:
        return text(self.name, self._columns(), map(_cells, self.rows), self._totals())

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        return html(self.name, self._columns(), map(_cells, self.rows), self._totals())

    def _columns(self) -> tuple[str, ...]:
        return COLUMNS if self.flops is not None else COLUMNS[:-1]

    def _totals(self) -> str:
        flops = "" if self.flops is None else f", {self.flops:,} FLOPs"
        return f"{self.parameters:,} parameters, {self.trainable:,} trainable{flops}"


def summarize(module: Runnable, inputs: tuple[Any, ...], named: dict[str, Any]) -> Summary:
    """The summary of a module; it runs where inputs are given."""
    notes, plans = notes_of(module.template), module._plans.unfused()
    graph, weights = scoped_graph(module, plans), parameters_of(module)
    measured = measure(module, inputs, named, plans) if inputs or named else None
    shape_of = notes.shape_of if measured is None else measured.shapes.get
    read = graph.results.union(name for node, _ in graph.nodes for name in node.reads)
    rows = []
    for depth, part in layers_of(graph.nodes).walk():
        if isinstance(part, Layer):
            name, nodes, values = part.path, part.nodes, graph.outputs.get(part.path, ())
            computing = [n for n in nodes if not graph.sizes.issuperset(n.outputs)]
            kind = notes.classes.get(path_of(name)) or ("" if part.inner else _operators(computing))
        elif graph.sizes.issuperset(part.outputs):
            continue
        else:
            name, nodes, kind = part.name, [part], part.op_type
            values = tuple([value for value in part.outputs if value in read])
        held = {n: weights[n] for node in nodes for n in node.reads if n in weights}
        flops = None if measured is None else measured.flops_of(nodes)
        shapes = tuple(map(shape_of, values))
        rows.append(Row(name, kind, depth, shapes, *_count(held.values()), flops))
    total = None if measured is None else measured.flops.total()
    title = notes.classes.get("") or module._plans.graph.name
    return Summary(title, tuple(rows), *_count(module.parameters()), total)


def _count(weights: Iterable[Tensor]) -> tuple[int, int]:
    """The elements of weights, and of those that train."""
    counts = [(weight.numel(), weight.requires_grad) for weight in weights]
    return sum(n for n, _ in counts), sum(n for n, trains in counts if trains)


def _operators(nodes: Iterable[Node]) -> str:
    """The operators of a layer whose class is not known: "MatMul + Add"."""
    found = list(dict.fromkeys(node.op_type for node in nodes))
    return " + ".join(found[:MAX_OPERATORS] + ["..."] * (len(found) > MAX_OPERATORS))


def _cells(row: Row) -> tuple[str, ...]:
    """A row as strings, the first one indented."""
    kind = f" ({row.kind})" if row.kind else ""
    shapes = ", ".join(map(_shown, row.shapes))
    name = "  " * row.depth + row.name + kind
    counts = (row.parameters, row.trainable, row.flops)
    return name, shapes, *[f"{count:,}" for count in counts if count is not None]


def _shown(shape: Shape | None) -> str:
    if shape is None:
        return "?"
    return f"[{', '.join('?' if size is None else str(size) for size in shape)}]"
