"""Structures within structures, within what protobuf parses and beyond."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from onnx import GraphProto, ModelProto, NodeProto, TypeProto, helper

from onnxinterp import Limits
from tests.untrusted.files.case import Case, Must
from tests.untrusted.files.families.damaged import VARINT, field
from tests.untrusted.files.models import INT64, branch, conditional, identity, model, tensor

X = np.float32([1, 2])
node = helper.make_node
OWN = [helper.make_opsetid("", 21), helper.make_opsetid("f", 1)]
PARSED = 25  # levels of graphs that protobuf takes, at four messages each


def cases() -> Iterator[Case]:
    for depth in (1, 5, 20, PARSED - 2):
        for kind, built in (("If", ifs(depth)), ("Loop", loops(depth))):
            content = built.SerializeToString()
            name = f"depth/{kind}-{depth}"
            yield Case(name, content, "right", {}, (-X,))
            limits = replace(Limits(), subgraph_depth=depth - 1)
            if depth > 1:
                yield Case(f"{name}-over-the-limit", content, "refused", limits=limits)
    for depth in (33, 100, 1000, 5000):
        yield Case(f"depth/If-{depth}", nested_ifs(depth), "refused")
    for depth in (2, 10, 30, 33, 100, 1000, 5000):
        for way in ("first", "last"):
            built = chain(depth, way)
            must: Must = "right" if depth <= 30 else "refused"
            expected = (-X,) if depth <= 30 else None
            content = built.SerializeToString()
            yield Case(f"depth/functions-{depth}-{way}", content, must, {}, expected)
    for depth in (5, 15):
        content = branched(depth).SerializeToString()
        yield Case(f"depth/branches-in-functions-{depth}", content, "right", {}, (-X,))
    for depth in (20, 40, 400):
        content = branched(depth).SerializeToString()
        must = "refused" if depth > 30 else "either"
        yield Case(f"depth/branches-in-functions-{depth}", content, must)
    yield from _wide()


def _wide() -> Iterator[Case]:
    """Types within types, and long chains."""
    for depth in (1, 2, 10, 30):
        for wrap in ("sequence", "optional", "map"):
            content = typed(depth, wrap).SerializeToString()
            yield Case(f"depth/type-{wrap}-{depth}", content, "either", asked=False)
    for length in (1000, 5000):
        content = long_chain(length).SerializeToString()
        limits = Limits() if length > 1000 else None
        yield Case(f"depth/chain-{length}", content, "right", {}, (X,), limits)
        content = long_chain(length, backwards=True).SerializeToString()
        yield Case(f"depth/chain-backwards-{length}", content, "either", {}, (X,), limits)
    content = long_chain(1001).SerializeToString()
    yield Case(
        "depth/chain-over-the-limit", content, "refused", limits=replace(Limits(), nodes=1000)
    )
    for name, deep in (*captures(), *gradients()):
        yield Case(f"depth/{name}", deep.SerializeToString(), "either", asked=False)


def _innermost() -> NodeProto:
    return node("Neg", ["x"], ["o0"])


def ifs(depth: int) -> ModelProto:
    graph = branch([_innermost()], "o0")
    for level in range(1, depth):
        nodes = conditional(graph)
        nodes[0].output[0] = f"yes{level}"
        nodes[1].input[0] = f"yes{level}"
        nodes[1].output[0] = f"o{level}"
        graph = branch(nodes, f"o{level}")
    return model(conditional(graph), initializers=[tensor(X, "x")])


def loops(depth: int) -> ModelProto:
    nodes, made = [_innermost()], "o0"
    for level in range(depth):
        graph = _body([identity(f"c{level}", f"d{level}"), *nodes], level, made)
        rows = node("Loop", ["m", "", "x"], [f"x{level}"], body=graph)
        nodes, made = [rows], f"x{level}"
    held = [tensor(X, "x"), tensor(np.int64(1), "m")]
    return model([*nodes, identity(made, "y")], initializers=held)


def _body(nodes: list[NodeProto], level: int, made: str) -> GraphProto:
    inputs = [
        helper.make_tensor_value_info(f"i{level}", INT64, ()),
        helper.make_tensor_value_info(f"c{level}", 9, ()),
        helper.make_tensor_value_info(f"v{level}", 1, [2]),
    ]
    infos = [
        helper.make_tensor_value_info(f"d{level}", 9, ()),
        helper.make_tensor_value_info(made, 1, [2]),
    ]
    return helper.make_graph(nodes, f"b{level}", inputs, infos)


def nested_ifs(depth: int) -> bytes:
    """Deeper than the library of protobuf itself writes."""
    graph = branch([_innermost()], "o0").SerializeToString()
    for level in range(1, depth):
        inner, other = (
            field(5, field(1, name) + field(6, graph) + field(20, 5, VARINT))
            for name in (b"then_branch", b"else_branch")
        )
        made = f"o{level}".encode()
        choice = field(1, b"yes") + field(2, made) + field(4, b"If") + inner
        graph = field(1, choice + other if level < 3 else choice) + field(12, field(1, made))
    whole = model([identity("x", "y")], initializers=[tensor(X, "x")])
    then = field(5, field(1, b"then_branch") + field(6, graph) + field(20, 5, VARINT))
    top = field(1, b"yes") + field(2, b"z") + field(4, b"If") + then
    return whole.SerializeToString() + field(7, field(1, top))


def chain(depth: int, way: str) -> ModelProto:
    """Functions that call the next; in the file, the first or the last comes first."""
    functions = [
        helper.make_function("f", "F0", ["x"], ["y"], [node("Neg", ["x"], ["y"])], OWN[:1])
    ]
    for level in range(1, depth):
        call = node(f"F{level - 1}", ["x"], ["y"], domain="f")
        functions.append(helper.make_function("f", f"F{level}", ["x"], ["y"], [call], OWN))
    if way == "last":
        functions.reverse()
    top = node(f"F{depth - 1}", ["x"], ["y"], domain="f")
    held = [tensor(X, "x")]
    return model([top], functions=functions, imports=[("f", 1)], initializers=held)


def branched(depth: int) -> ModelProto:
    """Functions whose If calls the next: no message is deep, but the meaning is."""
    functions = [
        helper.make_function("f", "F0", ["x"], ["y"], [node("Neg", ["x"], ["y"])], OWN[:1])
    ]
    for level in range(1, depth):
        call = node(f"F{level - 1}", ["x"], ["o"], domain="f")
        nodes = conditional(branch([call], "o"))
        functions.append(helper.make_function("f", f"F{level}", ["x"], ["y"], nodes, OWN))
    top = node(f"F{depth - 1}", ["x"], ["y"], domain="f")
    held = [tensor(X, "x")]
    return model([top], functions=functions, imports=[("f", 1)], initializers=held)


def typed(depth: int, wrap: str) -> ModelProto:
    """An input that is a sequence of sequences of ..."""
    kind = helper.make_tensor_type_proto(1, [2])
    for _ in range(depth):
        if wrap == "sequence":
            kind = helper.make_sequence_type_proto(kind)
        elif wrap == "optional":
            kind = helper.make_optional_type_proto(kind)
        else:
            kind = helper.make_map_type_proto(INT64, kind)
    return _with_input(kind)


def _with_input(kind: TypeProto) -> ModelProto:
    info = helper.make_value_info("deep", kind)
    return model([identity("x", "y"), identity("deep", "z")], [info], initializers=[tensor(X, "x")])


def long_chain(length: int, backwards: bool = False) -> ModelProto:
    nodes = [identity(f"a{i}", f"a{i + 1}") for i in range(length)]
    if backwards:
        nodes.reverse()
    last = node("Neg", [f"a{length}"], ["n"])
    back = node("Neg", ["n"], ["y"])
    ends = [back, last]
    made = [*ends, *nodes] if backwards else [*nodes, last, back]
    return model(made, initializers=[tensor(X, "a0")])


def captures() -> Iterator[tuple[str, ModelProto]]:
    """Branches that read thousands of values around them."""
    names = [f"a{i}" for i in range(2000)]
    outer = [identity("x", name) for name in names]
    arm = branch([node("Sum", names, ["o"])], "o")
    yield "captures-2000", model([*outer, *conditional(arm)], initializers=[tensor(X, "x")])
    wide = [node("Max", ["x"] * 3000, ["y"])]
    yield "inputs-3000", model(wide, initializers=[tensor(X, "x")])


def gradients() -> Iterator[tuple[str, ModelProto]]:
    """Gradient of Gradient of ..., which names what lies between values."""
    domain = "ai.onnx.preview.training"
    for depth in (2, 8, 20):
        nodes = [node("Mul", ["x", "x"], ["g0"])]
        for i in range(depth):
            made = node("Gradient", ["x"], [f"g{i + 1}"], domain=domain, xs=["x"], y=f"g{i}")
            nodes.append(made)
        info = helper.make_tensor_value_info("x", 1, [2])
        built = model(
            [*nodes, identity(f"g{depth}", "y")],
            [info],
            imports=[(domain, 1)],
            initializers=[tensor(X, "x")],
        )
        yield f"gradient-{depth}", built
