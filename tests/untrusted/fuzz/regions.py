"""Parts of a graph inside If, Loop, Scan and functions, so that every value stays what it was."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import AttributeProto, NodeProto, TensorProto, helper, numpy_helper

from tests.untrusted.fuzz.choices import Choices, chance, one_of
from tests.untrusted.fuzz.drafting import LOCAL, Draft, info
from tests.untrusted.fuzz.naming import made, reads, relabelled

MOST = 8  # nodes that are wrapped at once
PROMOTED = (AttributeProto.INT, AttributeProto.FLOAT, AttributeProto.INTS)


@dataclass
class Region:
    """Nodes that stand beside each other.

    Attributes:
        start: the first one's place.
        nodes: the nodes.
        reads: what they read.
        makes: what they define.
    """

    start: int
    nodes: list[NodeProto]
    reads: list[str]
    makes: list[str]


def wrap(draft: Draft, choices: Choices) -> bool:
    """Put some of the nodes into one that holds them; False where these may not be held."""
    start = choices.integer(0, len(draft.nodes) - 1)
    nodes = draft.nodes[start : start + choices.integer(1, MOST)]
    region = Region(start, nodes, reads(nodes), made(nodes))
    if not region.makes or not draft.values.keys() >= {*region.makes, *region.reads}:
        return False
    held = one_of(choices, HOLDERS)(draft, region, choices)
    draft.nodes[start : start + len(nodes)] = held or nodes
    return bool(held)


def _inside(draft: Draft, region: Region) -> tuple[list[NodeProto], dict[str, str]]:
    """The nodes as they stand in a subgraph, where no name may be one of those around it."""
    names = {n: draft.fresh("in") for n in region.makes}
    return relabelled(region.nodes, names, draft.fresh("b")), names


def _results(draft: Draft, region: Region, names: dict[str, str]) -> list[onnx.ValueInfoProto]:
    return [info(names[n], draft.values[n]) for n in region.makes]


def _array(value: Any, name: str = "value") -> onnx.TensorProto:
    return numpy_helper.from_array(np.asarray(value), name)


def _constant(draft: Draft, value: Any, choices: Choices, nodes: list[NodeProto]) -> str:
    """A value that does not change: an input, an initializer or the output of a Constant."""
    name = draft.fresh("c")
    kind = choices.integer(0, 2)
    if kind == 0:
        draft.constants[name] = value
    elif kind == 1:
        draft.inputs[name] = value
    else:
        nodes.append(helper.make_node("Constant", [], [name], value=_array(value)))
    if kind < 2:
        draft.values[name] = value
    return name


def in_function(draft: Draft, region: Region, choices: Choices) -> list[NodeProto]:
    """A function of the model; an attribute of a node in it may be one of the function."""
    name = draft.fresh("f")
    inputs = {n: draft.fresh("p") for n in region.reads}
    nodes = relabelled(region.nodes, inputs)
    candidates = [
        attribute
        for node in nodes
        for attribute in node.attribute
        if attribute.type in PROMOTED and node.domain != LOCAL and not attribute.ref_attr_name
    ]
    given, required = {}, []
    if candidates and chance(choices, 60):
        attribute = one_of(choices, candidates)
        given["alpha"] = helper.get_attribute_value(attribute)
        attribute.CopyFrom(
            AttributeProto(name=attribute.name, type=attribute.type, ref_attr_name="alpha")
        )
        required = ["alpha"]
    draft.functions.append(
        helper.make_function(
            LOCAL,
            name,
            list(inputs.values()),
            region.makes,
            nodes,
            [helper.make_opsetid(d, v) for d, v in draft.imports.items()],
            attributes=required,
        )
    )
    return [helper.make_node(name, region.reads, region.makes, domain=LOCAL, **given)]


def in_branch(draft: Draft, region: Region, choices: Choices) -> list[NodeProto]:
    """The branch of an If that is taken; the other one gives zeros of the same types."""
    if any(isinstance(draft.values[n], list) for n in region.makes):
        return []
    nodes, names = _inside(draft, region)
    taken = helper.make_graph(nodes, "taken", [], _results(draft, region, names))
    zeros = {n: draft.fresh("in") for n in region.makes}
    others = [
        helper.make_node("Constant", [], [zeros[n]], value=_array(_zeros(draft.values[n])))
        for n in region.makes
    ]
    other = helper.make_graph(others, "other", [], _results(draft, region, zeros))
    before: list[NodeProto] = []
    then = bool(choices.integer(0, 1))
    condition = _constant(draft, np.array(then), choices, before)
    branches = {"then_branch": taken, "else_branch": other}
    if not then:
        branches = {"then_branch": other, "else_branch": taken}
    return [*before, helper.make_node("If", [condition], region.makes, **branches)]


def _zeros(value: Any) -> Any:
    return np.full(value.shape, "", object) if value.dtype == object else np.zeros_like(value)


def _stackable(draft: Draft, region: Region) -> bool:
    """Whether loops can give what the nodes make: tensors, and of no strings."""
    values = [draft.values[n] for n in region.makes]
    return all(isinstance(v, np.ndarray) and v.dtype != object for v in values)


def _last(draft: Draft, stacked: str, trips: int, output: str, nodes: list[NodeProto]) -> NodeProto:
    """What the last trip gave."""
    place = draft.fresh("c")
    value = _array(np.array(trips - 1))
    nodes.append(helper.make_node("Constant", [], [place], value=value))
    return helper.make_node("Gather", [stacked, place], [output], axis=0)


def in_loop(draft: Draft, region: Region, choices: Choices) -> list[NodeProto]:
    """The body of a Loop that does the same in each trip.

    Of one trip, a value that is read and one that is made of the same kind are what it carries.
    """
    if not _stackable(draft, region):
        return []
    nodes, names = _inside(draft, region)
    trips, before = choices.integer(1, 3), []
    i, go, more = (draft.fresh("in") for _ in range(3))
    carried = _carried(draft, region) if trips == 1 else {}
    if draft.opset < 11 and not carried:  # before, a Loop had to carry something
        return []
    states = {r: draft.fresh("in") for r in carried}
    nodes = relabelled(nodes, states)
    nodes.append(helper.make_node("Identity", [go], [more]))
    rows = [n for n in region.makes if n not in carried.values()]
    inputs = [
        helper.make_tensor_value_info(i, TensorProto.INT64, ()),
        helper.make_tensor_value_info(go, TensorProto.BOOL, ()),
        *(info(states[r], draft.values[r]) for r in carried),
    ]
    outputs = [
        helper.make_tensor_value_info(more, TensorProto.BOOL, ()),
        *(info(names[n], draft.values[n]) for n in (*carried.values(), *rows)),
    ]
    body = helper.make_graph(nodes, "body", inputs, outputs)
    count = _constant(draft, np.array(trips), choices, before)
    condition = _constant(draft, np.array(True), choices, before) if choices.integer(0, 1) else ""
    stacked = {n: draft.fresh("v") for n in rows}
    loop = helper.make_node(
        "Loop", [count, condition, *carried], [*carried.values(), *stacked.values()], body=body
    )
    after = [_last(draft, stacked[n], trips, n, before) for n in rows]
    return [*before, loop, *after]


def _carried(draft: Draft, region: Region) -> dict[str, str]:
    """Values that are read -> such as are made, of the same type and shape."""
    pairs: dict[str, str] = {}
    for read in region.reads:
        value = draft.values[read]
        for name in region.makes:
            own = draft.values[name]
            if name in pairs.values() or isinstance(value, list) or value.dtype != own.dtype:
                continue
            if value.shape == own.shape:
                pairs[read] = name
                break
    return pairs


def in_scan(draft: Draft, region: Region, choices: Choices) -> list[NodeProto]:
    """The body of a Scan over equal rows."""
    scanned = [n for n in region.reads if isinstance(draft.values[n], np.ndarray)]
    scanned = [n for n in scanned if draft.values[n].dtype != object]
    if draft.opset < 9 or not scanned or not _stackable(draft, region):
        return []
    name, rows = one_of(choices, scanned), choices.integer(1, 3)
    nodes, names = _inside(draft, region)
    row, line, table = draft.fresh("in"), draft.fresh("v"), draft.fresh("v")
    nodes = relabelled(nodes, {name: row})
    before: list[NodeProto] = []
    if draft.opset < 13:
        before.append(helper.make_node("Unsqueeze", [name], [line], axes=[0]))
    else:
        axes = draft.fresh("c")
        value = _array(np.array([0]))
        before.append(helper.make_node("Constant", [], [axes], value=value))
        before.append(helper.make_node("Unsqueeze", [name, axes], [line]))
    before.append(helper.make_node("Concat", [line] * rows, [table], axis=0))
    body = helper.make_graph(
        nodes, "body", [info(row, draft.values[name])], _results(draft, region, names)
    )
    stacked = {n: draft.fresh("v") for n in region.makes}
    scan = helper.make_node("Scan", [table], stacked.values(), body=body, num_scan_inputs=1)
    after = [_last(draft, stacked[n], rows, n, before) for n in region.makes]
    return [*before, scan, *after]


Holder = Callable[[Draft, Region, Choices], Sequence[NodeProto]]
HOLDERS: tuple[Holder, ...] = (in_function, in_branch, in_loop, in_scan)
