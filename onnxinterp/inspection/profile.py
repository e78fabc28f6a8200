"""Where a call spends its time: a profile by node, by operator and by module.

Profile         what was measured (see `profiling`), and tables of it
    StepTimes   one step
    Row         one line of a table
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

from onnxinterp.errors import plain
from onnxinterp.format.atomic import atomic_write
from onnxinterp.graph.scopes import path_of
from onnxinterp.inspection.layers import Layer, layers_of
from onnxinterp.inspection.table import html, text
from onnxinterp.planning.scoping import Chain

By = Literal["operator", "layer", "node"]
SLOWEST_NODES = 20
TITLES: dict[By, tuple[str, str]] = {  # the first two columns
    "operator": ("operator", "slowest node"),
    "layer": ("layer", "output"),
    "node": ("node", "operator and output"),
}


class StepTimes(NamedTuple):
    """A step: one node, or several that run as one function.

    Attributes:
        nodes: names of its nodes; the path of a module where it calls one that has steps.
        outputs: first output of each node.
        op: its operators ("Conv", "Mul + Sigmoid"), or what it calls ("call of Linear").
        layer: paths of the torch modules around it, outermost first.
        depth: how many nodes with subgraphs are around it.
        calls: of one run.
        seconds: of all calls of a run, without those of its subgraphs: the minimum of the runs.
        flops: floating point operations of a run, as in `summary`.
        bytes: memory that its results allocate in a run; 0 for views.
        alive: bytes of all activations that are alive when it ends.
        shapes: of its outputs.
        reference: seconds of its nodes in onnxruntime; None where they are not known.
    """

    nodes: tuple[str, ...]
    outputs: tuple[str, ...]
    op: str
    layer: Chain
    depth: int
    calls: int
    seconds: float
    flops: int
    bytes: int
    alive: int
    shapes: tuple[tuple[int, ...], ...]
    reference: float | None = None


class Row(NamedTuple):
    """One node, operator or module.

    Attributes:
        name: of the nodes, the operators or the module.
        detail: the slowest node of an operator; otherwise shapes of the outputs.
        depth: how many modules are around a module.
        calls: of one run.
        seconds: of one run.
        flops: floating point operations.
        bytes: memory that results allocate.
        reference: seconds in onnxruntime; None where none of the nodes is known there.
    """

    name: str
    detail: str
    depth: int
    calls: int
    seconds: float
    flops: int
    bytes: int
    reference: float | None


class Bar(NamedTuple):
    """One call of a step in the timeline.

    Attributes:
        step: index in `Profile.steps`.
        start: seconds since the first one.
        seconds: with those of its subgraphs.
        depth: as of the step.
    """

    step: int
    start: float
    seconds: float
    depth: int


@dataclass(frozen=True)
class ReferenceTimes:
    """The times of the same file in onnxruntime.

    Attributes:
        nodes: first output of a node -> its seconds of one run without optimization, those of its
            subgraphs not included.
        seconds: of a call without optimization.
        optimized: of a call with the default optimization.
    """

    nodes: Mapping[str, float]
    seconds: float
    optimized: float


@dataclass(frozen=True)
class Profile:
    """Time and memory of the steps of a call. `print` it, or write it with `save_html`.

    Attributes:
        name: of the model.
        steps: in the order in which they start.
        classes: path of a torch module -> name of its class, as far as the file says it.
        seconds: of a run with the timing of its steps: the minimum of the runs.
        untimed_seconds: of a run without it.
        peak: most bytes of activations at any moment.
        threads: that torch used.
        runs: that were timed.
        timeline: calls of the steps of one run.
        reference: the times of onnxruntime, where `beside` has added them.
    """

    name: str
    steps: tuple[StepTimes, ...]
    classes: Mapping[str, str]
    seconds: float
    untimed_seconds: float
    peak: int
    threads: int
    runs: int
    timeline: tuple[Bar, ...]
    reference: ReferenceTimes | None = None

    def beside(self, reference: ReferenceTimes) -> Profile:
        """The same profile with the times of onnxruntime.

        Args:
            reference: of the same file and inputs: see `onnxinterp.verify.time_nodes`.
        """
        known = reference.nodes
        steps = []
        for step in self.steps:
            found = [known[name] for name in step.outputs if name in known]
            steps.append(step._replace(reference=sum(found) if found else None))
        return replace(self, steps=tuple(steps), reference=reference)

    def rows(self, by: By) -> list[Row]:
        """The rows of a table.

        Args:
            by: "operator" (slowest first), "node" (slowest first), or "layer": the tree of torch
                modules, in the order of the graph, and the nodes outside of them.

        Raises:
            ValueError: `by` is something else.
        """
        if by == "layer":
            return list(self._layers())
        if by == "operator":
            return _slowest_first(self._operators())
        if by == "node":
            return _slowest_first(_row(", ".join(s.nodes), _detail(s), [s]) for s in self.steps)
        raise ValueError(f"by must be one of {', '.join(map(repr, TITLES))}, got {by!r}")

    def table(self, by: By, first: int | None = None) -> str:
        """A table as text.

        Args:
            by: as for `rows`.
            first: the number of rows; None for all.
        """
        return text("", self.columns(by), map(self.cells, self.rows(by)[:first]), "").strip("\n")

    def save_html(self, path: str | os.PathLike[str]) -> None:
        """Write a page with a timeline and all tables; it needs no other file, and no network.

        Args:
            path: the file to write, atomically.

        Raises:
            OSError: the disk is full, the folder is missing, ...
        """
        from onnxinterp.inspection.timeline import page

        content = page(self).encode()
        atomic_write(path, lambda file: file.write(content))

    def totals(self) -> list[str]:
        """What holds for the whole call, in lines."""
        flops = sum(step.flops for step in self.steps)
        rate = f" ({flops / self.untimed_seconds / 1e9:,.1f} GFLOP/s)" if flops else ""
        threads = f"{self.threads} thread{'s' if self.threads > 1 else ''}"
        lines = [
            f"{_ms(self.untimed_seconds)} ms a call{rate}, {_ms(self.seconds)} ms with the timing "
            f"of its {len(self.steps)} steps; {threads}, minima of {self.runs} runs",
            f"{flops:,} FLOPs, activations of at most {self.peak / 1e6:,.1f} MB",
        ]
        if self.reference is not None:
            matched = sum(step.reference or 0.0 for step in self.steps)
            lines.append(
                f"onnxruntime: {_ms(self.reference.optimized)} ms a call, "
                f"{_ms(self.reference.seconds)} ms without optimization; by its own profile, "
                f"which takes time too, {_ms(matched)} ms in the nodes of these tables"
            )
        return lines

    def columns(self, by: By) -> tuple[str, ...]:
        """The headings of a table."""
        reference = ("onnxruntime ms",) if self.reference is not None else ()
        return (*TITLES[by], "calls", "ms", "%", *reference, "MFLOPs", "GFLOP/s", "MB")

    def cells(self, row: Row) -> tuple[str, ...]:
        """A row as strings, the first one indented."""
        total = sum(step.seconds for step in self.steps)
        cells = ["  " * row.depth + row.name, row.detail, f"{row.calls:,}", _ms(row.seconds)]
        cells.append(f"{100 * row.seconds / total:.1f}" if total else "")
        if self.reference is not None:
            cells.append("" if row.reference is None else _ms(row.reference))
        rate = f"{row.flops / row.seconds / 1e9:,.1f}" if row.flops and row.seconds else ""
        cells += [f"{row.flops / 1e6:,.2f}" if row.flops else "", rate]
        return (*cells, f"{row.bytes / 1e6:,.3f}" if row.bytes else "")

    def __str__(self) -> str:
        parts = [
            "\n".join([plain(self.name), *self.totals()]),
            self.table("operator"),
            f"The {SLOWEST_NODES} slowest nodes:\n{self.table('node', SLOWEST_NODES)}",
        ]
        return "\n\n".join(parts)

    def __repr__(self) -> str:
        return plain(f"<Profile: {self.name!r}, {len(self.steps)} steps>")

    def _repr_html_(self) -> str:
        """For notebooks: the operators and the slowest nodes."""

        def table(by: By) -> str:
            rows = self.rows(by)[:SLOWEST_NODES]
            return html("", self.columns(by), map(self.cells, rows), "")

        head = html(self.name, (), (), "; ".join(self.totals()))
        return head + table("operator") + table("node")

    def _operators(self) -> Iterator[Row]:
        groups: dict[str, list[StepTimes]] = {}
        for step in self.steps:
            groups.setdefault(step.op, []).append(step)
        for op, steps in groups.items():
            slowest = max(steps, key=lambda step: step.seconds)
            yield _row(op, ", ".join(slowest.nodes), steps)

    def _layers(self) -> Iterator[Row]:
        tree: Layer[StepTimes] = layers_of((step, step.layer) for step in self.steps)
        for depth, part in tree.walk():
            if isinstance(part, Layer):
                kind = self.classes.get(path_of(part.path), "")
                name = f"{part.path} ({kind})" if kind else part.path
                row = _row(name, _shapes(part.nodes[-1]), part.nodes)
            else:
                row = _row(", ".join(part.nodes), _detail(part), [part])
            yield row._replace(depth=depth)


def _row(name: str, detail: str, steps: Sequence[StepTimes]) -> Row:
    """The sum of some steps."""
    known = [step.reference for step in steps if step.reference is not None]
    return Row(
        name,
        detail,
        0,
        sum(step.calls for step in steps),
        sum(step.seconds for step in steps),
        sum(step.flops for step in steps),
        sum(step.bytes for step in steps),
        sum(known) if known else None,
    )


def _slowest_first(rows: Iterable[Row]) -> list[Row]:
    return sorted(rows, key=lambda row: -row.seconds)


def _detail(step: StepTimes) -> str:
    return f"{step.op} {_shapes(step)}".rstrip()


def _shapes(step: StepTimes) -> str:
    return ", ".join(str(list(shape)) for shape in step.shapes)


def _ms(seconds: float) -> str:
    return f"{1e3 * seconds:,.3f}"
