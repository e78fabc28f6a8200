"""Loops that do not end, or end too late."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from onnx import GraphProto, ModelProto, NodeProto, helper

from onnxinterp import Limits
from tests.untrusted.files.case import Case, Must
from tests.untrusted.files.models import INT64, identity, model, tensor

BRIEF = Limits(seconds=1.0, live_bytes=2**27, tensor_bytes=2**26, loop_trips=10**9)
FEW_STEPS = Limits(steps=5000, loop_trips=10**9, seconds=10.0)
FEW_TRIPS = Limits(loop_trips=1000)
F = np.float32
node = helper.make_node


def body(
    nodes: Sequence[NodeProto], carried: Sequence[str] = ("a",), scanned: Sequence[str] = ()
) -> GraphProto:
    """A loop's body: reads i, c and carried names, makes c_out, NAME_out and what is scanned."""
    inputs = [
        helper.make_tensor_value_info("i", INT64, ()),
        helper.make_tensor_value_info("c", 9, ()),
        *(helper.make_empty_tensor_value_info(n) for n in carried),
    ]
    outputs = ["c_out", *(f"{n}_out" for n in carried), *scanned]
    infos = [helper.make_empty_tensor_value_info(n) for n in outputs]
    return helper.make_graph(list(nodes), "body", inputs, infos)


def loop(
    nodes: Sequence[NodeProto],
    first: Any,
    *,
    trips: int | None = None,
    condition: str = "yes",
    scanned: Sequence[str] = (),
    answer: int = 0,
) -> ModelProto:
    """A model of one loop."""
    held = [tensor(np.asarray(first), "a0"), tensor(np.array(True), "yes"), tensor(F([1]), "one")]
    if trips is not None:
        held.append(tensor(np.int64(trips), "m"))
    outputs = ["r", *(f"s{i}" for i in range(len(scanned)))]
    inputs = ["" if trips is None else "m", condition, "a0"]
    made = node("Loop", inputs, outputs, body=body(nodes, scanned=scanned))
    return model([made, identity(outputs[answer], "y")], initializers=held)


KEEP = identity("c", "c_out")
STILL = identity("a", "a_out")

STATES: dict[str, tuple[list[NodeProto], Any]] = {
    "still": ([STILL], F([1])),
    "count": ([node("Add", ["a", "one"], ["a_out"])], F([1])),
    "host": ([node("Add", ["a", "i"], ["a_out"])], np.int64(1)),
    "host-multiplied": ([node("Mul", ["a", "a"], ["a_out"])], np.int64(3)),
    "doubling": ([node("Concat", ["a", "a"], ["a_out"], axis=0)], F([1])),
    "doubling-host": ([node("Concat", ["a", "a"], ["a_out"], axis=0)], np.array([1])),
    "strings": ([node("StringConcat", ["a", "a"], ["a_out"])], np.array(["ab"], object)),
    "growing": ([node("Concat", ["a", "one"], ["a_out"], axis=0)], F([1])),
    "reshaped": ([node("Unsqueeze", ["a", "zero"], ["a_out"])], F([1])),
}


def cases() -> Iterator[Case]:
    for name, (nodes, first) in STATES.items():
        for ending, trips, condition in (
            ("endless", None, "yes"),
            ("trips-2**63", 2**63 - 1, ""),
            ("endless-bare", None, ""),
        ):
            built = loop([KEEP, *nodes], first, trips=trips, condition=condition)
            built.graph.initializer.append(tensor(np.array([0]), "zero"))
            content = built.SerializeToString()
            yield Case(f"loops/{name}-{ending}", content, "refused", limits=BRIEF, asked=False)
        if name in ("still", "count", "host"):
            for limit, limits in (("steps", FEW_STEPS), ("trips", FEW_TRIPS)):
                built = loop([KEEP, *nodes], first, trips=10**9)
                content = built.SerializeToString()
                yield Case(f"loops/{name}-{limit}", content, "refused", limits=limits, asked=False)
    for name, made, must in (*_scanned(), *_scanned_rows(), *_states(), *_nested(), *_scans()):
        content = made.SerializeToString()
        yield Case(f"loops/{name}", content, must, limits=BRIEF, asked=False)
    for name, made, expected in _honest():
        content = made.SerializeToString()
        yield Case(f"loops/{name}", content, "right", {}, (expected,), limits=Limits.untrusted())


def _scanned() -> Iterator[tuple[str, ModelProto, Must]]:
    rows = [KEEP, STILL, node("Identity", ["a"], ["row"])]
    yield (
        "scanned",
        loop(rows, np.ones(2**16, F), trips=10**8, scanned=["row"], answer=1),
        "refused",
    )
    numbers = [KEEP, STILL, node("Identity", ["i"], ["row"])]
    yield (
        "scanned-numbers",
        loop(numbers, F([1]), trips=10**9, scanned=["row"], answer=1),
        "refused",
    )
    nothing = [KEEP, STILL, node("Shape", ["one"], ["row"])]
    yield "scanned-shapes", loop(nothing, F([1]), trips=10**9, scanned=["row"], answer=1), "refused"
    minus = loop([KEEP, STILL], F([1]), trips=-5)
    yield "trips-minus", minus, "either"
    stops = [node("Not", ["c"], ["c_out"]), node("Add", ["a", "one"], ["a_out"])]
    yield "stops-at-once", loop(stops, F([1]), trips=2**63 - 1), "either"
    wide = [node("Expand", ["c", "one64"], ["c_out"]), STILL]
    built = loop(wide, F([1]), trips=3)
    built.graph.initializer.append(tensor(np.array([7]), "one64"))
    yield "condition-of-seven", built, "refused"
    first_undefined = loop([STILL], F([1]), trips=3)
    yield "condition-unmade", first_undefined, "refused"


def _scanned_rows() -> Iterator[tuple[str, ModelProto, Must]]:
    shape = [KEEP, node("Concat", ["a", "a"], ["a_out"], axis=0), identity("a", "row")]
    yield "rows-of-unlike-sizes", loop(shape, F([1]), trips=5, scanned=["row"], answer=1), "refused"
    views = [node("Unsqueeze", ["one", "zero"], [f"row{i}"]) for i in range(20)]
    many = [f"row{i}" for i in range(20)]
    built = loop([KEEP, STILL, *views], F([1]), trips=10**9, scanned=many, answer=1)
    built.graph.initializer.append(tensor(np.array([0]), "zero"))
    yield "scanned-views", built, "refused"
    same = loop([KEEP, STILL], F([1]), trips=10**9, scanned=["one"] * 1000, answer=1)
    yield "scanned-a-thousand-times", same, "refused"
    grown = [KEEP, node("SequenceInsert", ["a", "one"], ["a_out"]), identity("a_out", "row")]
    built = loop(grown, F([1]), trips=10**6, scanned=["row"], answer=1)
    built.graph.node.insert(0, node("SequenceEmpty", [], ["a0"]))
    del built.graph.initializer[0]
    yield "scanned-sequences", built, "refused"


def _states() -> Iterator[tuple[str, ModelProto, Must]]:
    short = loop([KEEP, STILL], F([1]), trips=3)
    del short.graph.node[0].attribute[0].g.output[1]
    yield "states-the-body-does-not-make", short, "refused"
    few = loop([KEEP, STILL], F([1]), trips=3)
    few.graph.node[0].input.append("one")
    yield "more-states-than-the-body", few, "refused"
    few = loop([KEEP, STILL], F([1]), trips=3)
    del few.graph.node[0].input[2:]
    yield "fewer-states-than-the-body", few, "refused"
    two = loop([KEEP, STILL], F([1]), trips=3)
    two.graph.initializer[1].CopyFrom(tensor(F([1, 0]), "yes"))
    yield "condition-of-floats", two, "refused"


def _nested() -> Iterator[tuple[str, ModelProto, Must]]:
    """A loop of a loop of a loop, a hundred thousand trips each."""
    for depth in (2, 3, 5):
        inner: list[NodeProto] = [STILL]
        for level in range(depth - 1):
            graph = body([KEEP, *inner])
            inner = [node("Loop", ["m", "", "a"], ["a_out"], body=graph, name=f"level{level}")]
        yield f"nested-{depth}", loop([KEEP, *inner], F([1]), trips=100_000), "refused"


def _scans() -> Iterator[tuple[str, ModelProto, Must]]:
    """Scans over something that costs no memory, and many trips."""
    for rows in (10**9, 2**62):
        for fill in ("ConstantOfShape", "Expand", "Range"):
            inputs = [helper.make_empty_tensor_value_info(n) for n in ("a", "row")]
            outputs = [helper.make_empty_tensor_value_info(n) for n in ("a_out", "out")]
            graph = helper.make_graph([STILL, identity("row", "out")], "b", inputs, outputs)
            held = [
                tensor(F([1]), "a0"),
                tensor(np.array([rows]), "n"),
                tensor(np.int64(rows), "m"),
            ]
            held += [tensor(np.int64(0), "zero"), tensor(np.int64(1), "one")]
            make = {
                "ConstantOfShape": node("ConstantOfShape", ["n"], ["x"]),
                "Expand": node("Expand", ["a0", "n"], ["x"]),
                "Range": node("Range", ["zero", "m", "one"], ["x"]),
            }[fill]
            scan = node("Scan", ["a0", "x"], ["r", "y"], body=graph, num_scan_inputs=1)
            yield f"scan-{fill}-{rows}", model([make, scan], initializers=held), "refused"
    lies: dict[str, dict[str, Any]] = {
        "inputs-0": {"num_scan_inputs": 0},
        "inputs-minus": {"num_scan_inputs": -1},
        "inputs-9": {"num_scan_inputs": 9},
        "axes-9": {"scan_input_axes": [9]},
        "axes-two": {"scan_input_axes": [0, 0]},
        "output-axes-9": {"scan_output_axes": [9]},
        "output-axes-two": {"scan_output_axes": [0, 0]},
        "directions-7": {"scan_input_directions": [7]},
        "directions-two": {"scan_output_directions": [0, 1]},
    }
    for name, lie in lies.items():
        inputs = [helper.make_empty_tensor_value_info(n) for n in ("a", "row")]
        outputs = [helper.make_empty_tensor_value_info(n) for n in ("a_out", "out")]
        graph = helper.make_graph([STILL, identity("row", "out")], "b", inputs, outputs)
        attributes = {"num_scan_inputs": 1, **lie}
        scan = node("Scan", ["a0", "x"], ["r", "y"], body=graph, **attributes)
        held = [tensor(F([1]), "a0"), tensor(np.ones((3, 2), F), "x")]
        must: Must = "either" if name == "directions-7" else "refused"
        yield f"scan-{name}", model([scan], initializers=held), must


def _honest() -> Iterator[tuple[str, ModelProto, Any]]:
    add = [KEEP, node("Add", ["a", "one"], ["a_out"])]
    yield "honest-100", loop(add, F([1]), trips=100), F([101])
    yield "honest-0", loop(add, F([1]), trips=0), F([1])
    rows = [*add, identity("a", "row")]
    counted = np.arange(1, 51, dtype=F)[:, None]
    yield "honest-scanned", loop(rows, F([1]), trips=50, scanned=["row"], answer=1), counted
    until = [
        node("Add", ["a", "one"], ["a_out"]),
        node("Less", ["a_out", "most"], ["less"]),
        node("Squeeze", ["less"], ["c_out"]),
    ]
    built = loop(until, F([1]))
    built.graph.initializer.append(tensor(F([20]), "most"))
    yield "honest-until", built, F([20])
