"""What is too large, too deep or not allowed is refused before anything is made of it."""

from __future__ import annotations

import resource

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

from onnxinterp import InvalidModelError, Limits, OnnxModule, UnsafeModelError
from onnxinterp.reading.validation import validate
from tests.engine.right_models import CALLING, PLAIN, edited, model

# ---- too many nodes, too deep


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
    assert len(OnnxModule(doubling(4)).onnx_graph.nodes) == 8
    OnnxModule(doubling(4), limits=Limits(nodes=23))  # a call counts as a node
    with pytest.raises(UnsafeModelError, match="22 are allowed"):
        OnnxModule(doubling(4), limits=Limits(nodes=22))


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
