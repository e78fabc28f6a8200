"""Graphs that break the rules of names, order, scope, functions and opsets."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, helper

from tests.untrusted.files.case import Case, Must
from tests.untrusted.files.models import INT64, branch, conditional, identity, model, tensor, text

X = np.float32([1, 2])
FEEDS = {"x": X}
X_INFO = helper.make_tensor_value_info("x", 1, [2])
node = helper.make_node

Body = tuple[str, list[NodeProto], Must]


def bodies() -> Iterator[Body]:
    """Nodes that make "o" of "x"."""
    yield "honest", [node("Neg", ["x"], ["o"])], "right"
    yield "twice", [node("Neg", ["x"], ["o"]), node("Abs", ["x"], ["o"])], "refused"
    yield "twice-in-one", [node("Split", ["x"], ["o", "o"], num_outputs=2)], "refused"
    yield "input-again", [node("Neg", ["x"], ["x"]), identity("x", "o")], "refused"
    yield "itself", [node("Neg", ["o"], ["o"])], "refused"
    circle = [node("Add", ["x", "b"], ["a"]), node("Neg", ["a"], ["b"]), identity("b", "o")]
    yield "circle", circle, "refused"
    aside = [node("Neg", ["x"], ["o"]), node("Neg", ["b"], ["a"]), node("Neg", ["a"], ["b"])]
    yield "circle-aside", aside, "refused"
    yield "dangling", [node("Add", ["x", "nothing"], ["o"])], "refused"
    yield "dangling-aside", [node("Neg", ["x"], ["o"]), node("Neg", ["no"], ["u"])], "refused"
    yield "nothing-made", [node("Neg", ["x"], ["u"])], "refused"
    yield "no-nodes", [], "refused"
    yield "no-op", [node("", ["x"], ["o"])], "refused"
    yield "unknown-op", [node("NoSuchOperator", ["x"], ["o"])], "refused"
    yield "unknown-domain", [node("Neg", ["x"], ["o"], domain="no.such")], "refused"
    yield "few-inputs", [node("Add", ["x"], ["o"])], "refused"
    yield "no-inputs", [node("Neg", [], ["o"])], "refused"
    yield "many-inputs", [node("Neg", ["x", "x"], ["o"])], "refused"
    yield "absent-input", [node("Neg", [""], ["o"])], "refused"
    yield "absent-second", [node("Add", ["x", ""], ["o"])], "refused"
    yield "many-outputs", [node("Neg", ["x"], ["o", "p"])], "refused"
    yield "no-outputs", [node("Neg", ["x"], []), identity("x", "o")], "refused"
    yield "types", [node("Not", ["x"], ["o"])], "refused"
    yield "unsorted", [identity("n", "o"), node("Neg", ["x"], ["n"])], "either"
    yield from _branches()


def _branches() -> Iterator[Body]:
    """The same with an If."""
    used = [node("If", ["x"], ["o"], then_branch=branch([identity("x", "t")], "t"))]
    yield "half-an-If", used, "refused"
    inner = branch([identity("x", "t"), node("Neg", ["t"], ["t"])], "t")
    yield "twice-in-branch", [*conditional(inner)[:1], _renamed(conditional(inner)[1])], "refused"
    inner = branch([identity("later", "t")], "t")
    late = [*conditional(inner)[:1], _renamed(conditional(inner)[1]), identity("o", "later")]
    yield "branch-reads-its-own-result", late, "refused"
    inner = branch([identity("x", "hidden")], "hidden")
    leak = [*conditional(inner)[:1], _renamed(conditional(inner)[1], "u"), identity("hidden", "o")]
    yield "leak-of-branch", leak, "refused"
    missing = branch([identity("x", "t")], "other")
    yield (
        "branch-without-output",
        [*conditional(missing)[:1], _renamed(conditional(missing)[1])],
        "refused",
    )
    none = helper.make_graph([], "b", [], [])
    yield "branch-empty", [*conditional(none)[:1], _renamed(conditional(none)[1])], "refused"


def _renamed(made: NodeProto, output: str = "o") -> NodeProto:
    made.output[0] = output
    return made


def _main(nodes: Sequence[NodeProto]) -> ModelProto:
    return model(nodes, [X_INFO], ["o"])


def _branch(nodes: Sequence[NodeProto]) -> ModelProto:
    # names in a branch are new names, but for the x that it sees
    return model(conditional(branch(nodes, "o")), [X_INFO])


def _function(nodes: Sequence[NodeProto]) -> ModelProto:
    made = helper.make_function("f", "F", ["x"], ["o"], list(nodes), [helper.make_opsetid("", 21)])
    return model(
        [node("F", ["x"], ["y"], domain="f")], [X_INFO], functions=[made], imports=[("f", 1)]
    )


def _loop(nodes: Sequence[NodeProto]) -> ModelProto:
    body = helper.make_graph(
        [identity("c", "c_out"), *nodes],
        "b",
        [helper.make_tensor_value_info("i", INT64, ()), helper.make_tensor_value_info("c", 9, ())],
        [helper.make_tensor_value_info("c_out", 9, ()), helper.make_empty_tensor_value_info("o")],
    )
    loop = node("Loop", ["m", ""], ["s"], body=body)
    flat = node("Squeeze", ["s", "zero"], ["y"])
    held = [tensor(np.int64(1), "m"), tensor(np.array([0]), "zero")]
    return model([loop, flat], [X_INFO], initializers=held)


PLACES: dict[str, Callable[[Sequence[NodeProto]], ModelProto]] = {
    "main": _main,
    "branch": _branch,
    "function": _function,
    "loop": _loop,
}


def cases() -> Iterator[Case]:
    for name, nodes, must in bodies():
        for place, put in PLACES.items():
            content = put(nodes).SerializeToString()
            expected = (-X,) if must == "right" else None
            wanted = must
            if name == "input-again" and place in ("branch", "loop"):
                wanted = "either"  # a name of the graph around it, anew
            feeds: dict[str, Any] = FEEDS
            yield Case(f"graphs/{name}/{place}", content, wanted, feeds, expected)
    for name, built, must in (*_models(), *_functions()):
        content = built if isinstance(built, bytes) else built.SerializeToString()
        expected = (-X,) if must == "right" else None
        # a function of an operator's name means something else to onnxruntime
        asked = name != "function-shadows-operator"
        yield Case(f"graphs/{name}", content, must, FEEDS, expected, asked=asked)


def _changed(change: Callable[[ModelProto], Any]) -> ModelProto:
    built = model([node("Neg", ["x"], ["y"])], [X_INFO])
    change(built)
    return built


Change = Callable[[ModelProto], Any]


def _models() -> Iterator[tuple[str, ModelProto | bytes, Must]]:
    for name, (change, must) in {**_versions(), **_declarations(), **_oddities()}.items():
        yield name, _changed(change), must
    yield "only-ir", helper.make_model(helper.make_graph([], "g", [], []), ir_version=8), "either"


def _opset(*imports: tuple[str, int]) -> Change:
    def change(m: ModelProto) -> None:
        del m.opset_import[:]
        m.opset_import.extend(helper.make_opsetid(*i) for i in imports)

    return change


def _versions() -> dict[str, tuple[Change, Must]]:
    """Opsets and versions of the format."""
    opset = _opset
    return {
        "no-graph": (lambda m: m.ClearField("graph"), "refused"),
        "no-opset": (opset(), "refused"),
        "opset-0": (opset(("", 0)), "refused"),
        "opset-minus": (opset(("", -21)), "refused"),
        "opset-2**62": (opset(("", 2**62)), "refused"),
        "opset-99": (opset(("", 99)), "refused"),
        "opset-twice": (opset(("", 21), ("", 13)), "refused"),
        "opset-twice-alias": (opset(("", 21), ("ai.onnx", 13)), "refused"),
        "opset-same-twice": (opset(("", 21), ("ai.onnx", 21)), "either"),
        "opset-of-others": (opset(("ai.onnx.ml", 3)), "refused"),
        "ir-0": (lambda m: setattr(m, "ir_version", 0), "either"),
        "ir-minus": (lambda m: setattr(m, "ir_version", -1), "either"),
        "ir-2**62": (lambda m: setattr(m, "ir_version", 2**62), "either"),
        "ir-none": (lambda m: m.ClearField("ir_version"), "either"),
    }


def _declarations() -> dict[str, tuple[Change, Must]]:
    """Inputs, outputs and initializers."""
    float2 = helper.make_tensor_value_info("x", 1, [2])
    return {
        "input-twice": (lambda m: m.graph.input.append(float2), "refused"),
        "output-twice": (lambda m: m.graph.output.append(m.graph.output[0]), "either"),
        "no-outputs": (lambda m: m.graph.ClearField("output"), "either"),
        "output-unmade": (lambda m: m.graph.output.add(name="nothing"), "refused"),
        "output-no-name": (lambda m: m.graph.output.add(), "refused"),
        "input-no-name": (lambda m: m.graph.input.add(), "refused"),
        "initializer-twice": (_held("w", "w"), "refused"),
        "initializer-no-name": (_held(""), "refused"),
        "initializer-is-made": (_held("y"), "refused"),
        "initializer-dense-and-sparse": (_both_forms, "refused"),
        "input-no-type": (lambda m: m.graph.input[0].ClearField("type"), "either"),
        "input-type-99": (_element(99), "refused"),
        "input-type-0": (_element(0), "either"),
        "input-dims-minus": (_dimension(-2), "either"),
        "input-dims-2**62": (_dimension(2**62), "either"),
        "input-rank": (_rank, "refused"),
        "input-sequence-of-nothing": (_empty("sequence_type"), "either"),
        "input-map-of-nothing": (_empty("map_type"), "refused"),
        "input-optional-of-nothing": (_empty("optional_type"), "either"),
    }


def _oddities() -> dict[str, tuple[Change, Must]]:
    """What has no bearing on the answer."""
    float2 = helper.make_tensor_value_info("x", 1, [2])
    int9 = helper.make_tensor_value_info("y", 7, [9])
    return {
        "output-type-lies": (lambda m: m.graph.output[0].CopyFrom(int9), "either"),
        "value-info-twice": (lambda m: m.graph.value_info.extend([float2, float2]), "either"),
        "metadata-twice": (lambda m: [m.metadata_props.add(key="k") for _ in "ab"], "either"),
        "quantization-nothing": (lambda m: m.graph.quantization_annotation.add(), "either"),
        "node-names-same": (lambda m: setattr(m.graph.node[0], "name", "x"), "right"),
        "domain-spelt": (lambda m: setattr(m.graph.node[0], "domain", "ai.onnx"), "right"),
        "domain-other": (lambda m: setattr(m.graph.node[0], "domain", "ai.onnx "), "refused"),
        "overload": (lambda m: setattr(m.graph.node[0], "overload", "no"), "either"),
    }


def _both_forms(m: ModelProto) -> None:
    m.graph.initializer.append(tensor(X, "w"))
    sparse = onnx.SparseTensorProto(
        values=tensor(X, "w"), indices=tensor(np.array([0, 1])), dims=[2]
    )
    m.graph.sparse_initializer.append(sparse)


def _held(*names: str) -> Callable[[ModelProto], Any]:
    return lambda m: m.graph.initializer.extend([tensor(X, name) for name in names])


def _empty(kind: str) -> Callable[[ModelProto], Any]:
    return lambda m: getattr(m.graph.input[0].type, kind).SetInParent()


def _element(kind: int) -> Callable[[ModelProto], Any]:
    return lambda m: setattr(m.graph.input[0].type.tensor_type, "elem_type", kind)


def _dimension(n: int) -> Callable[[ModelProto], Any]:
    return lambda m: setattr(m.graph.input[0].type.tensor_type.shape.dim[0], "dim_value", n)


def _rank(m: ModelProto) -> None:
    m.graph.input[0].type.tensor_type.shape.dim.add(dim_value=1)


HEAD = '<ir_version: 10, opset_import: ["" : 21, "f" : 1]>\n'
FUNCTION = '<domain: "f", opset_import: ["" : 21, "f" : 1]>\n'


def call(main: str, *functions: str) -> ModelProto:
    """A graph, and functions of the domain f, in ONNX's text."""
    source = HEAD + f"g (float[2] x) => (float[2] y) {{ {main} }}\n"
    return text(source + "".join(FUNCTION + f for f in functions))


PLAIN = "F (x) => (y) { y = Neg(x) }"


def _functions() -> Iterator[tuple[str, ModelProto, Must]]:
    yield from _signatures()
    yield from _function_scopes()
    yield from _function_attributes()
    yield from _function_headers()


def _signatures() -> Iterator[tuple[str, ModelProto, Must]]:
    plain = PLAIN
    yield "function-honest", call("y = f.F(x)", plain), "right"
    yield "function-itself", call("y = f.F(x)", "F (x) => (y) { y = f.F(x) }"), "refused"
    two = ("F (x) => (y) { y = f.G(x) }", "G (x) => (y) { y = f.F(x) }")
    yield "function-each-other", call("y = f.F(x)", *two), "refused"
    yield "function-itself-uncalled", call("y = Neg(x)", "F (x) => (y) { y = f.F(x) }"), "either"
    yield "function-twice", call("y = f.F(x)", plain, "F (x) => (y) { y = Abs(x) }"), "refused"
    yield "function-few-inputs", call("y = f.F()", plain), "refused"
    yield "function-many-inputs", call("y = f.F(x, x)", plain), "refused"
    yield "function-many-outputs", call("y, z = f.F(x)", plain), "refused"


def _function_scopes() -> Iterator[tuple[str, ModelProto, Must]]:
    yield (
        "function-reads-outside",
        call("z = Abs(x) y = f.F(x)", "F (v) => (y) { y = Neg(z) }"),
        "refused",
    )
    yield "function-reads-caller", call("y = f.F(x)", "F (v) => (y) { y = Neg(x) }"), "refused"
    yield (
        "function-leaks",
        call("u = f.F(x) y = Neg(t)", "F (x) => (y) { t = Abs(x) y = Neg(t) }"),
        "refused",
    )
    yield "function-output-unmade", call("y = f.F(x)", "F (x) => (y) { t = Neg(x) }"), "refused"
    yield (
        "function-output-is-input",
        call("t = f.F(x) y = Neg(t)", "F (x) => (x) { t = Neg(x) }"),
        "either",
    )
    yield "function-input-twice", call("y = f.F(x, x)", "F (x, x) => (y) { y = Neg(x) }"), "refused"
    yield (
        "function-output-twice",
        call("y, z = f.F(x)", "F (x) => (y, y) { y = Neg(x) }"),
        "refused",
    )
    yield "function-empty", call("y = f.F(x)", "F (x) => (y) { }"), "refused"
    yield "function-unknown-op", call("y = f.F(x)", "F (x) => (y) { y = Nothing(x) }"), "refused"


def _function_attributes() -> Iterator[tuple[str, ModelProto, Must]]:
    yield "function-unknown-attribute", call("y = f.F <a = 1> (x)", PLAIN), "either"
    reference = "F <a> (x) => (y) { y = Softmax <axis: int = @a> (x) }"
    yield "function-attribute-as-text", call('y = f.F <a = "x"> (x)', reference), "refused"
    yield (
        "function-attribute-as-tensor",
        call("y = f.F <a = float[1] {1.0}> (x)", reference),
        "refused",
    )
    yield "function-attribute-far", call("y = f.F <a = 99> (x)", reference), "refused"
    inner = "F (x) => (y) { y = Softmax <axis: int = @nothing> (x) }"
    yield "function-attribute-undeclared", call("y = f.F(x)", inner), "either"


def _function_headers() -> Iterator[tuple[str, ModelProto, Must]]:
    shadow = text(HEAD + "g (float[2] x) => (float[2] y) { y = Neg(x) }")
    neg = helper.make_function(
        "", "Neg", ["x"], ["y"], [node("Abs", ["x"], ["y"])], [helper.make_opsetid("", 21)]
    )
    shadow.functions.append(neg)
    yield "function-shadows-operator", shadow, "either"
    empty = text(HEAD + "g (float[2] x) => (float[2] y) { y = Neg(x) }")
    empty.functions.add()
    yield "function-no-name", empty, "either"
    old = call("y = f.F(x)", "F (x) => (y) { y = Neg(x) }")
    old.functions[0].opset_import[0].version = 2**62
    yield "function-opset-far", old, "refused"
    other = call("y = f.F(x)", "F (x) => (y) { y = Neg(x) }")
    del other.functions[0].opset_import[:]
    yield "function-no-opset", other, "either"
    overloads = call("y = f.F(x)", PLAIN)
    overloads.functions[0].overload = "one"
    yield "function-other-overload", overloads, "refused"
