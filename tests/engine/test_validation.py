"""What breaks the specification, or is too much, is refused before anything is made of it."""

from __future__ import annotations

import resource
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import onnx.parser
import pytest
import torch
from onnx import (
    AttributeProto,
    GraphProto,
    ModelProto,
    NodeProto,
    TensorProto,
    helper,
    numpy_helper,
)
from onnx.defs import C as SCHEMAS

from onnxinterp import (
    InvalidModelError,
    Limits,
    OnnxModule,
    UnsafeModelError,
    UnsupportedOpError,
    building,
)
from onnxinterp.registry import NEWEST
from onnxinterp.validation import validate
from onnxinterp.wire import messages

PLAIN = """<ir_version: 8, opset_import: ["": 17]>
g (float[2] x, float[2] z) => (float[2] y) <float[2] w = {1, 2}> {
  t = Add(x, w) y = Elu<alpha = 2.0>(t)
}"""

CALLING = """<ir_version: 8, opset_import: ["": 17, "m": 1]>
g (float[2] x) => (float[2] y) { y = m.f<k = 2.0>(x) }
<domain: "m", opset_import: ["": 17, "m": 1]>
f <k> (a) => (b) { c = Relu(a) b = Elu<alpha: float = @k>(c) }"""


def model(text: str) -> ModelProto:
    return onnx.parser.parse_model(text)


def edited(change: Callable[[ModelProto], object], text: str = PLAIN) -> ModelProto:
    proto = model(text)
    change(proto)
    return proto


def alpha(proto: ModelProto) -> AttributeProto:
    return proto.graph.node[1].attribute[0]


def replaced(old: str, new: str, text: str = PLAIN) -> ModelProto:
    assert old in text
    return model(text.replace(old, new))


BROKEN: list[tuple[str, ModelProto, str]] = [
    ("IR of the future", edited(lambda m: setattr(m, "ir_version", 99)), "IR version 99"),
    (
        "one domain twice",
        edited(lambda m: m.opset_import.append(helper.make_opsetid("ai.onnx", 7))),
        "'ai.onnx' is imported at opsets 17 and 7",
    ),
    ("no imports", edited(lambda m: m.ClearField("opset_import")), "not imported"),
    (
        "dangling input",
        replaced("Add(x, w)", "Add(x, q)"),
        "node 't' .Add. in graph 'g': reads 'q'",
    ),
    ("dangling output", replaced("(float[2] y)", "(float[2] q)"), "gives 'q', which nothing"),
    ("output without name", edited(lambda m: setattr(m.graph.output[0], "name", "")), "gives ''"),
    ("made twice", replaced("y = Elu", "t = Neg(x) y = Elu"), "graph 'g' defines 't' twice"),
    ("input twice", edited(lambda m: m.graph.input.append(m.graph.input[0])), "defines 'x' twice"),
    (
        "input without name",
        edited(lambda m: setattr(m.graph.input[1], "name", "")),
        "without a name",
    ),
    (
        "stored twice",
        edited(lambda m: m.graph.initializer.append(m.graph.initializer[0])),
        "stores 'w' twice",
    ),
    (
        "stored and sparse",
        edited(
            lambda m: m.graph.sparse_initializer.append(
                onnx.SparseTensorProto(values=m.graph.initializer[0])
            )
        ),
        "stores 'w' twice",
    ),
    (
        "stored without name",
        edited(lambda m: m.graph.initializer.add(data_type=1, dims=[1], float_data=[1.0])),
        "a tensor without",
    ),
    ("stored and made", replaced("t = Add", "w = Neg(x) t = Add"), "defines 'w' twice"),
    ("cycle", replaced("Add(x, w)", "Add(y, w)"), "cycle"),
    ("too few inputs", replaced("Add(x, w)", "Add(x)"), "1 input, where at least 2"),
    ("too many inputs", replaced("Add(x, w)", "Add(x, w, x)"), "3 inputs, where at most 2"),
    ("input left out", replaced("Add(x, w)", 'Add("", w)'), "input number 1 must be there"),
    ("too many outputs", replaced("y = Elu", "y, q = Elu"), "2 outputs, where at most 1"),
    ("no outputs", edited(lambda m: m.graph.node.add(op_type="Neg", input=["x"])), "0 outputs"),
    ("unknown attribute", replaced("alpha", "beta"), "no attribute 'beta'"),
    ("an engine's own attribute", replaced("alpha", "n_outputs"), "no attribute 'n_outputs'"),
    ("attribute missing", replaced("Elu<alpha = 2.0>", "Cast"), "lacks the attribute 'to'"),
    ("attribute of another type", replaced("2.0", "2"), "'alpha' is of type INT, where FLOAT"),
    (
        "attribute twice",
        edited(lambda m: m.graph.node[1].attribute.append(alpha(m))),
        "an attribute twice",
    ),
    ("attribute without type", edited(lambda m: setattr(alpha(m), "type", 0)), "no known type"),
    (
        "attribute of no type",
        edited(lambda m: setattr(alpha(m), "type", 2)),
        "holds something else",
    ),
    ("two values", edited(lambda m: setattr(alpha(m), "i", 3)), "holds something else"),
    (
        "reference outside of functions",
        edited(lambda m: setattr(alpha(m), "ref_attr_name", "k")),
        "stands in none",
    ),
    (
        "tensor attribute without tensor",
        edited(
            lambda m: m.graph.node.add(
                op_type="Constant",
                output=["c"],
                attribute=[AttributeProto(name="value", type=AttributeProto.TENSOR)],
            )
        ),
        "holds nothing",
    ),
    (
        "constant without value",
        replaced("t = Add", "c = Constant() t = Add", PLAIN.replace("(x, w)", "(x, c)")),
        "'c' .Constant.",
    ),
    (
        "constant of two values",
        replaced(
            "t = Add",
            "c = Constant<value_int = 1, value_float = 1.0>() t = Add",
            PLAIN.replace("(x, w)", "(x, c)"),
        ),
        "'c' .Constant.",
    ),
    (
        "branches that give nothing",
        replaced(
            "t = Add(x, w)",
            "t = If(c) <then_branch = a () => () { }, else_branch = b () => () { }>",
            PLAIN.replace("= {1, 2}", "= {1, 2}, bool c = {1}"),
        ),
        "'then_branch' has 0 outputs, fewer than the node",
    ),
    (
        "a condition of two elements",
        replaced(
            "t = Add(x, w)",
            "t = If(c) <then_branch = a () => (p) { p = Neg(x) }, "
            "else_branch = b () => (q) { q = Relu(x) }>",
            PLAIN.replace("= {1, 2}", "= {1, 2}, bool[2] c = {1, 1}"),
        ),
        "node 't' .If.",
    ),
    (
        "element type",
        edited(lambda m: setattr(m.graph.input[0].type.tensor_type, "elem_type", 99)),
        "declares 'x' with the element type 99",
    ),
    (
        "a function twice",
        edited(lambda m: m.functions.append(m.functions[0]), CALLING),
        "'m::f' is there twice",
    ),
    ("result not made", replaced("=> (b)", "=> (d)", CALLING), "'m::f' gives 'd', which none"),
    ("result twice", replaced("=> (b)", "=> (b, b)", CALLING), "gives 'b' twice"),
    ("parameter twice", replaced("(a) =>", "(a, a) =>", CALLING), "defines 'a' twice"),
    ("made twice in a function", replaced("c = Relu(a)", "a = Relu(a)", CALLING), "'a' twice"),
    ("caller's names", replaced("Relu(a)", "Relu(x)", CALLING), "function 'm::f': reads 'x'"),
    ("too many arguments", replaced("(x) }", "(x, x) }", CALLING), "2 inputs, where at most 1"),
    ("too many results", replaced("{ y =", "{ y, q =", CALLING), "2 outputs, where at most 1"),
    ("it calls itself", replaced("c = Relu", "c = m.f", CALLING), "function 'm::f' calls itself"),
    (
        "value and reference",
        edited(lambda m: setattr(m.functions[0].node[1].attribute[0], "f", 1.0), CALLING),
        "has a value and refers",
    ),
    (
        "a domain that a function does not import",
        edited(lambda m: setattr(m.functions[0].node[0], "domain", "other"), CALLING),
        "'other', which is not imported",
    ),
]


@pytest.mark.parametrize(("proto", "why"), [r[1:] for r in BROKEN], ids=[r[0] for r in BROKEN])
def test_what_breaks_the_specification_is_refused(proto: ModelProto, why: str) -> None:
    with pytest.raises(InvalidModelError, match=why):
        OnnxModule(proto)


def test_the_models_that_the_table_breaks_are_right() -> None:
    x = torch.tensor([-3.0, 1.0])
    y = OnnxModule(model(PLAIN))(x, x)
    torch.testing.assert_close(y, torch.nn.functional.elu(x + torch.tensor([1.0, 2.0]), 2.0))
    torch.testing.assert_close(OnnxModule(model(CALLING))(x), x.relu())


def test_a_name_that_is_no_text_is_refused() -> None:
    data = model(PLAIN.replace("x", "xxx")).SerializeToString()
    with pytest.raises(InvalidModelError, match="no UTF-8"):
        OnnxModule(data.replace(b"xxx", b"x\xffx"))


def test_a_function_nobody_calls_is_not_judged() -> None:
    OnnxModule(replaced("m.f<k = 2.0>(x)", "Relu(x)", CALLING.replace("Relu(a)", "Nothing(q)")))


# ---- versions


def test_the_kernels_know_the_opsets_that_onnx_knows() -> None:
    known = SCHEMAS.schema_version_map()
    assert {domain: known[domain][1] for domain in NEWEST} == NEWEST


def test_an_opset_that_is_not_known_is_refused_and_a_kernel_for_it_serves() -> None:
    text = PLAIN.replace('"": 17', '"": 99')
    with pytest.raises(UnsupportedOpError, match=r"Add at opset 99.*to 28") as caught:
        OnnxModule(model(text))
    assert {m.op_type for m in caught.value.missing} == {"Add", "Elu"}
    module = OnnxModule(
        model(text), kernels={"Add": lambda a, b: a + b, "Elu": lambda x, *, alpha=1.0: x * alpha}
    )
    assert module(torch.ones(2), torch.ones(2)).tolist() == [4, 6]


@pytest.mark.parametrize("version", [0, -1, 2**40])
def test_numbers_that_are_no_opset_are_refused(version: int) -> None:
    with pytest.raises(UnsupportedOpError, match=f"at opset {version}"):
        OnnxModule(edited(lambda m: setattr(m.opset_import[0], "version", version)))


def test_an_import_nobody_uses_may_be_anything() -> None:
    OnnxModule(edited(lambda m: m.opset_import.append(helper.make_opsetid("ai.onnx.ml", 99))))


def test_the_first_ir_versions_had_but_one_opset() -> None:
    def old(proto: ModelProto) -> None:
        proto.ClearField("opset_import")
        proto.ir_version = 2

    module = OnnxModule(edited(old, PLAIN.replace("Add(x, w)", "Relu(x)")))
    assert module.opset_imports == {"": 1}


# ---- size


def doubling(count: int, use: str = "t = m.NEXT(x) y = m.NEXT(t)") -> ModelProto:
    """Functions each of which calls the next one twice."""
    functions = [
        f'<domain: "m", opset_import: ["": 17, "m": 1]> f{i} (x) => (y) '
        f"{{ {use.replace('NEXT', f'f{i + 1}')} }}"
        for i in range(count - 1)
    ]
    text = '<ir_version: 8, opset_import: ["": 17, "m": 1]> g (float[2] x) => (float[2] y)'
    last = f'<domain: "m", opset_import: ["": 17]> f{count - 1} (x) => (y) {{ y = Relu(x) }}'
    return model("\n".join([f"{text} {{ y = m.f0(x) }}", *functions, last]))


def test_functions_that_double_are_counted_before_they_are_opened() -> None:
    with pytest.raises(UnsafeModelError, match="nodes once functions are opened"):
        OnnxModule(doubling(32))
    assert len(OnnxModule(doubling(4)).graph.nodes) == 8
    OnnxModule(doubling(4), limits=Limits(nodes=23))  # a call counts as a node
    with pytest.raises(UnsafeModelError, match="22 are allowed"):
        OnnxModule(doubling(4), limits=Limits(nodes=22))


WIDE = {
    "outputs": lambda n: "y = Neg(x) " + ", ".join(f"o{k}" for k in range(n)) + " = Split(x)",
    "inputs": lambda n: f"y = Sum({', '.join(['x'] * n)})",
    "tensors": lambda n: (
        "c = Constant<value = bool {1}>() y = If(c) <then_branch = a () => (p) <"
        + ", ".join(f"float w{k} = {{1}}" for k in range(n))
        + "> { p = Neg(x) }, else_branch = b () => (q) { q = Neg(x) }>"
    ),
}


def wide(body: str, calls: int, inputs: str = "x", attributes: str = "") -> ModelProto:
    """A function that is called so often."""
    used = " ".join(f"c{i} = m.f(x)" for i in range(calls))
    return model(f"""<ir_version: 10, opset_import: ["": 17, "m": 1]>
    g (float[2] x) => (float[2] y) {{ {used} y = m.f(x) }}
    <domain: "m", opset_import: ["": 17]> f {attributes} ({inputs}) => (y) {{ {body} }}""")


@pytest.mark.parametrize("kind", WIDE)
def test_what_each_call_of_a_function_makes_anew_is_counted(kind: str) -> None:
    limits = Limits(nodes=3000)
    OnnxModule(wide(WIDE[kind](2000), 2), limits=limits)
    with pytest.raises(UnsafeModelError, match="outputs, tensors and attributes of nodes"):
        OnnxModule(wide(WIDE[kind](2000), 500), limits=limits)


def test_inputs_that_a_function_declares_are_counted() -> None:
    inputs = ", ".join(["x", *(f"i{k}" for k in range(2000))])
    with pytest.raises(UnsafeModelError, match="outputs, tensors and attributes of nodes"):
        OnnxModule(wide("y = Neg(x)", 500, inputs), limits=Limits(nodes=3000))


def test_what_the_file_spells_out_may_be_wide() -> None:
    x = ", ".join(["x"] * 2000)
    text = f'<ir_version: 8, opset_import: ["": 17]> g (float x) => (float y) {{ y = Sum({x}) }}'
    assert OnnxModule(model(text), limits=Limits(nodes=1))(torch.ones(())) == 2000


def test_defaults_and_imports_of_a_function_are_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    proto = wide("y = Neg(x)", 300)
    proto.functions[0].attribute_proto.extend(helper.make_attribute(f"a{k}", k) for k in range(300))
    counted: list[Any] = []

    def count(function: Any) -> Any:
        def counting(*arguments: Any) -> Any:
            counted.append(function)
            return function(*arguments)

        return counting

    decode = building.ATTRIBUTE_VALUE[AttributeProto.INT]
    monkeypatch.setitem(building.ATTRIBUTE_VALUE, AttributeProto.INT, count(decode))
    monkeypatch.setattr(building, "opsets_of", count(building.opsets_of))
    OnnxModule(proto)
    assert len(counted) == 302, "each default, and the imports of model and function"


def test_functions_that_double_in_subgraphs_are_counted() -> None:
    branches = (
        "then_branch = a () => (r) { r = m.NEXT(x) }, else_branch = b () => (s) { s = m.NEXT(x) }"
    )
    use = f"c = Constant<value = bool {{1}}>() y = If(c) <{branches}>"
    with pytest.raises(UnsafeModelError, match="nodes once functions are opened"):
        OnnxModule(doubling(31, use))
    assert OnnxModule(doubling(3, use))(torch.ones(2)).tolist() == [1, 1]
    with pytest.raises(UnsafeModelError, match="subgraphs stand in each other 3 deep"):
        OnnxModule(doubling(4, use), limits=Limits(subgraph_depth=2))


def test_functions_call_each_other_no_deeper_than_allowed() -> None:
    chain = doubling(33, "y = m.NEXT(x)")
    with pytest.raises(UnsafeModelError, match="call each other 33 deep"):
        OnnxModule(chain)
    OnnxModule(chain, limits=Limits(function_depth=33))
    with pytest.raises(UnsafeModelError, match="deep"):
        OnnxModule(doubling(2000, "y = m.NEXT(x)"), limits=Limits(function_depth=None))


def test_functions_that_call_each_other_in_a_circle_are_refused() -> None:
    circle = doubling(4)
    circle.functions[3].node[0].op_type, circle.functions[3].node[0].domain = "f1", "m"
    circle.functions[3].opset_import.append(helper.make_opsetid("m", 1))
    with pytest.raises(InvalidModelError, match="function 'm::f1' calls itself"):
        OnnxModule(circle)


def nested(depth: int) -> GraphProto:
    """Ifs in each other, both of whose branches are the next one."""
    info = helper.make_tensor_value_info("x", TensorProto.FLOAT, [2])
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y0"])], "b", [], [])
    graph.output.add(name="y0")
    for i in range(1, depth + 1):
        inner = helper.make_node("If", ["c"], [f"y{i}"])
        for name in ("then_branch", "else_branch"):
            attribute = inner.attribute.add(name=name, type=AttributeProto.GRAPH)
            attribute.g.CopyFrom(graph if name == "then_branch" else _constant(i))
        graph = helper.make_graph([inner], f"b{i}", [], [])
        graph.output.add(name=f"y{i}")
    graph.input.append(info)
    graph.initializer.append(helper.make_tensor("c", TensorProto.BOOL, [], [True]))
    return graph


def _constant(number: int) -> GraphProto:
    graph = helper.make_graph([helper.make_node("Neg", ["x"], [f"n{number}"])], "n", [], [])
    graph.output.add(name=f"n{number}")
    return graph


def test_subgraphs_stand_in_each_other_no_deeper_than_allowed() -> None:
    opsets = [helper.make_opsetid("", 17)]
    most = helper.make_model(nested(32), opset_imports=opsets, ir_version=8)
    assert OnnxModule(most)(torch.tensor([-1.0, 2.0])).tolist() == [0, 2]
    with pytest.raises(UnsafeModelError, match="more than 32 graphs around it"):
        OnnxModule(helper.make_model(nested(33), opset_imports=opsets, ir_version=8))
    with pytest.raises(UnsafeModelError, match="more than 2 graphs around it"):
        OnnxModule(most, limits=Limits(subgraph_depth=2))


def test_types_stand_in_each_other_no_deeper_than_python_goes() -> None:
    declared = onnx.TypeProto()
    declared.tensor_type.elem_type = TensorProto.FLOAT
    for _ in range(300):
        outer = onnx.TypeProto()
        outer.sequence_type.elem_type.CopyFrom(declared)
        declared = outer
    with pytest.raises(InvalidModelError, match="types in types"):
        OnnxModule(edited(lambda m: m.graph.input[1].type.CopyFrom(declared)))


def test_a_graph_handed_to_a_function_counts_as_often_as_it_is_used() -> None:
    """Each function takes the graph g and hands an If on, both of whose branches are g."""
    functions = []
    for i in range(30):
        branches = [
            AttributeProto(name=name, type=AttributeProto.GRAPH, ref_attr_name="g")
            for name in ("then_branch", "else_branch")
        ]
        choice = NodeProto(op_type="If", input=["c"], output=["r"], attribute=branches)
        graph = helper.make_graph([choice], "twice", [], [])
        graph.output.add(name="r")
        call = helper.make_node(f"f{i + 1}", ["c"], ["y"], domain="m", g=graph)
        if i == 29:
            call = NodeProto(op_type="If", input=["c"], output=["y"], attribute=branches)
        imports = [helper.make_opsetid("", 17), helper.make_opsetid("m", 1)]
        functions.append(helper.make_function("m", f"f{i}", ["c"], ["y"], [call], imports, ["g"]))
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["q"])], "once", [], [])
    graph.output.add(name="q")

    def used(first: int) -> ModelProto:
        proto = model(
            '<ir_version: 8, opset_import: ["": 17, "m": 1]> '
            "g (float[2] x) => (float[2] y) <bool c = {1}> { y = Relu(x) }"
        )
        proto.graph.node[0].CopyFrom(
            helper.make_node(f"f{first}", ["c"], ["y"], domain="m", g=graph)
        )
        proto.functions.extend(functions)
        return proto

    assert OnnxModule(used(28))(torch.tensor([-1.0, 2.0])).tolist() == [0, 2]
    with pytest.raises(UnsafeModelError, match="nodes once functions are opened"):
        OnnxModule(used(0))


def test_gradients_of_gradients_are_counted() -> None:
    def chain(length: int, then: str) -> ModelProto:
        gradient = 'd{i} = ai.onnx.preview.training.Gradient<xs = ["x"], y = "e{i}">(x)'
        nodes = " ".join(f"{gradient} e{{j}} = {then}".format(i=i, j=i + 1) for i in range(length))
        return model(f"""<ir_version: 8, opset_import: ["": 17, "ai.onnx.preview.training": 1]>
        g (float[2] x) => (float[2] e{length}) {{ e0 = Sin(x) {nodes} }}""")

    with pytest.raises(UnsafeModelError, match="copies of the graph have too many nodes"):
        OnnxModule(chain(20, "Mul(d{i}, e{i})"), limits=Limits(nodes=10_000))
    with pytest.raises(UnsafeModelError, match="copies of the graph stand in each other"):
        OnnxModule(chain(60, "Neg(d{i})"))


def test_what_functions_hold_is_kept_once_however_often_they_are_called() -> None:
    """512 calls with a megabyte each of names, numbers, tensors and tables would be gigabytes."""
    proto = doubling(10, "t = m.NEXT(x) y = m.NEXT(t)")
    long, values = "n" * 2**20, np.zeros(2**18, np.float32)
    body = proto.functions[-1]
    del body.node[:]
    body.node.add(op_type="Constant", output=[long], name=long).attribute.append(
        helper.make_attribute("value", numpy_helper.from_array(values))
    )
    body.node.append(helper.make_node("ReduceSum", [long], ["s"], keepdims=0))
    inner = helper.make_graph([], "inner", [], [], [numpy_helper.from_array(values, "v")])
    inner.output.add(name="v")
    body.node.append(helper.make_node("ReduceSum", ["i"], ["r"], keepdims=0))
    body.node.append(helper.make_node("Less", ["s", "s"], ["c"]))
    body.node.append(helper.make_node("If", ["c"], ["i"], then_branch=inner, else_branch=inner))
    scaler = helper.make_node("Scaler", ["x"], ["z"], domain="ai.onnx.ml", offset=[0.0, 0.0])
    scaler.attribute.append(helper.make_attribute("scale", [1.0, 1.0]))
    body.node.append(scaler)
    body.node.append(helper.make_node("Sum", ["z", "r", "s"], ["y"]))
    body.opset_import.append(helper.make_opsetid("ai.onnx.ml", 3))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    module = OnnxModule(proto)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000
    assert len(module.weights) == 5
    assert module(torch.ones(2)).tolist() == [1, 1]


def test_constants_that_functions_give_are_not_repeated_without_end() -> None:
    proto = doubling(8, "t = m.NEXT(x) y = m.NEXT(t)")
    del proto.functions[-1].node[:]
    proto.functions[-1].node.append(
        helper.make_node("Constant", [], ["y"], value=numpy_helper.from_array(np.ones(2000)))
    )
    OnnxModule(proto)
    with pytest.raises(UnsafeModelError, match="too large for as many calls"):
        OnnxModule(proto, limits=Limits(weight_bytes=100_000))


# ---- operators that are allowed


def test_only_allowed_operators_may_be_called_wherever_they_stand() -> None:
    module = OnnxModule(model(CALLING), allowed_ops=["Relu", "ai.onnx::Elu"])
    assert module(torch.ones(2)).tolist() == [1, 1]
    with pytest.raises(UnsafeModelError, match=r"2 operator.s. are not allowed: 'Elu', 'Relu'"):
        OnnxModule(model(CALLING), allowed_ops={"Add"})
    with pytest.raises(UnsafeModelError, match="'m::f'"):  # by a kernel, not by its body
        OnnxModule(model(CALLING), allowed_ops={"Elu", "Relu"}, kernels={"m::f": lambda a: a})


def test_an_operator_in_a_subgraph_must_be_allowed() -> None:
    graph = helper.make_model(nested(2), opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    with pytest.raises(UnsafeModelError, match="not allowed: 'Neg'"):
        OnnxModule(graph, allowed_ops={"If", "Relu"})
    OnnxModule(graph, allowed_ops={"If", "Relu", "Neg"})


# ---- walks


def test_every_tensor_is_found_wherever_it_sits() -> None:
    def tensor(name: str) -> TensorProto:
        return helper.make_tensor(name, TensorProto.FLOAT, [1], [1.0])

    def sparse(name: str) -> onnx.SparseTensorProto:
        return onnx.SparseTensorProto(values=tensor(name), indices=tensor(f"{name}.indices"))

    proto = model(CALLING)
    proto.graph.initializer.append(tensor("dense"))
    proto.graph.sparse_initializer.append(sparse("sparse"))
    node = proto.graph.node.add(op_type="Anything")
    node.attribute.add(name="a", t=tensor("one"), tensors=[tensor("many")])
    node.attribute.add(name="b", sparse_tensor=sparse("s"), sparse_tensors=[sparse("ss")])
    inner = node.attribute.add(name="c", g=GraphProto(), graphs=[GraphProto()])
    inner.g.initializer.append(tensor("in a subgraph"))
    inner.graphs[0].initializer.append(tensor("in a list of subgraphs"))
    proto.functions[0].attribute_proto.add(name="k", t=tensor("a default"))
    proto.functions[0].node[0].attribute.add(name="k", t=tensor("in a function"))
    training = proto.training_info.add()
    training.initialization.initializer.append(tensor("before training"))
    training.algorithm.node.add(op_type="Constant").attribute.add(t=tensor("in training"))
    pairs = ("sparse", "s", "ss")
    assert sorted(m.name for _, m in messages(proto) if isinstance(m, TensorProto)) == sorted(
        ["dense", "one", "many", "in a subgraph", "in a list of subgraphs", "a default"]
        + ["in a function", "before training", "in training"]
        + [name + end for name in pairs for end in ("", ".indices")]
    )


def test_graphs_for_training_are_not_run_but_do_not_nest_deeper_either() -> None:
    proto = model(PLAIN)
    proto.training_info.add().algorithm.node.add(op_type="No such thing", input=["nothing"])
    OnnxModule(proto)
    proto.training_info[0].algorithm.CopyFrom(nested(5))
    validate(proto, {})
    with pytest.raises(UnsafeModelError, match="more than 4 graphs around it"):
        validate(proto, {}, Limits(subgraph_depth=4))


def test_a_model_that_was_never_bytes_may_nest_deeper_than_protobuf_parses() -> None:
    proto = model(PLAIN)
    graph = proto.graph
    for _ in range(2000):
        node = graph.node.add(op_type="If", input=["x"], output=["q"])
        graph = node.attribute.add(name="then_branch", type=AttributeProto.GRAPH).g
    with pytest.raises(UnsafeModelError, match="more than 48 graphs around it"):
        OnnxModule(proto, limits=Limits(subgraph_depth=None))
