"""The models that are written as Python source: exports, the zoo, operators, random graphs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch

from onnxinterp import OnnxModule, backend
from tests.exports.exporting import export
from tests.exports.modules import CASES
from tests.exports.rows import ROWS, Row
from tests.property.drawing import COMMON, SeededDraw
from tests.property.one_node import drawn
from tests.property.served import NEWEST, label
from tests.untrusted.fuzz.choices import Seeded
from tests.untrusted.fuzz.drafting import Drafter
from tests.untrusted.fuzz.naming import made, reads
from tests.untrusted.fuzz.ours import OwnValues
from tests.zoo.manifest import Model, manifest

N_GRAPHS = 300
N_NODES = 8  # of a random graph
LIGHT = "light_"
"""Their weights are one number: for most inputs the last bits decide what a softmax returns."""
Opened = tuple[OnnxModule, dict[str, Any]]


class Subject(NamedTuple):
    """A model that is to be written.

    Attributes:
        name: unique in its group.
        group: what kind it is of.
        module: opens it; returns the module, and its inputs by their names in Python.
    """

    name: str
    group: str
    module: Callable[[], Opened]


def subjects() -> Iterator[Subject]:
    """All of them."""
    yield from _exports()
    in_rows = {row.name for row in ROWS if not row.name.startswith(LIGHT)}
    yield from [_of_zoo(model) for model in manifest() if model.name not in in_rows]
    yield from [_of_operator(schema) for schema in NEWEST.values()]
    yield from [of_graph(seed) for seed in range(N_GRAPHS)]


def _exports() -> Iterator[Subject]:
    """The rows of docs/capture.md, and all exports of their networks."""
    for case in CASES:
        for how in case.exports()[:-1]:

            def opened(case: Any = case, how: Any = how) -> Opened:
                module = OnnxModule(export(case, how))
                return module, _named(module, case.arguments(case.sizes[0]))

            yield Subject(f"{case.name} {how.exporter} {how.opset}", "exports", opened)
    for row in [row for row in ROWS if not row.name.startswith(LIGHT)]:

        def of_row(row: Row = row) -> Opened:
            module = OnnxModule(row.path())
            return module, _named(module, row.inputs(0, 0))

        yield Subject(row.name, "exports", of_row)


def _named(module: OnnxModule, inputs: Any) -> dict[str, Any]:
    return dict(zip(module.input_names, inputs, strict=True))


def _of_zoo(model: Model) -> Subject:
    def opened() -> Opened:
        module = OnnxModule(model.file())
        arrays = next(model.inputs())
        return module, {n: torch.from_numpy(a) for n, a in arrays.items()}

    return Subject(model.name, "zoo", opened)


def _of_operator(schema: Any) -> Subject:
    def opened() -> Opened:
        draw = SeededDraw(f"{label(schema)} 0", schema, only=COMMON)
        case = drawn(schema, draw, "settings")
        return OnnxModule(case.model), case.torch_feeds()

    return Subject(label(schema), "operators", opened)


def of_graph(seed: int) -> Subject:
    """A random chain of operators; all values that nothing reads are its outputs."""

    def opened() -> Opened:
        draft = Drafter(Seeded(seed), OwnValues()).grow(N_NODES)
        read = reads(draft.nodes)
        model, feeds = draft.model(draft.nodes, [n for n in made(draft.nodes) if n not in read])
        return OnnxModule(model), {n: backend.to_torch(v) for n, v in feeds.items()}

    return Subject(str(seed), "random graphs", opened)
