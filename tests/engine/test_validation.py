"""What breaks the specification is refused before anything is made of it."""

from __future__ import annotations

import onnx
import onnx.parser
import pytest
import torch
from onnx import AttributeProto, GraphProto, ModelProto, TensorProto, helper
from onnx.defs import C as SCHEMAS

from onnxinterp import InvalidModelError, OnnxModule, UnsupportedOpError
from onnxinterp.format.wire import messages
from onnxinterp.schemas import CONTRIB, NEWEST
from tests.engine.right_models import CALLING, PLAIN, edited, model, replaced


def alpha(proto: ModelProto) -> AttributeProto:
    return proto.graph.node[1].attribute[0]


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
    ("dangling output", replaced("(float[2] y)", "(float[2] q)"), "returns 'q', which is not"),
    ("output without name", edited(lambda m: setattr(m.graph.output[0], "name", "")), "returns ''"),
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
    ("too few inputs", replaced("Add(x, w)", "Add(x)"), "at least 2 inputs, got 1"),
    ("too many inputs", replaced("Add(x, w)", "Add(x, w, x)"), "at most 2 inputs, got 3"),
    ("input left out", replaced("Add(x, w)", 'Add("", w)'), "input number 1 must be given"),
    ("too many outputs", replaced("y = Elu", "y, q = Elu"), "at most 1 outputs, got 2"),
    (
        "no outputs",
        edited(lambda m: m.graph.node.add(op_type="Neg", input=["x"])),
        "at least 1 outputs, got 0",
    ),
    ("unknown attribute", replaced("alpha", "beta"), "no attribute 'beta'"),
    ("an engine's own attribute", replaced("alpha", "n_outputs"), "no attribute 'n_outputs'"),
    ("attribute missing", replaced("Elu<alpha = 2.0>", "Cast"), "must have the attribute 'to'"),
    ("attribute of another type", replaced("2.0", "2"), "'alpha' must be of type FLOAT, got INT"),
    (
        "attribute twice",
        edited(lambda m: m.graph.node[1].attribute.append(alpha(m))),
        "an attribute twice",
    ),
    ("attribute without type", edited(lambda m: setattr(alpha(m), "type", 0)), "an unknown type"),
    (
        "attribute of no type",
        edited(lambda m: setattr(alpha(m), "type", 2)),
        "but has another one",
    ),
    ("two values", edited(lambda m: setattr(alpha(m), "i", 3)), "but has another one"),
    (
        "reference outside of functions",
        edited(lambda m: setattr(alpha(m), "ref_attr_name", "k")),
        "is not in a function",
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
        "but has none",
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
        "'then_branch' must have 1 output.s., got 0",
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
        "declares 'x' with an unknown element type, 99",
    ),
    (
        "a function twice",
        edited(lambda m: m.functions.append(m.functions[0]), CALLING),
        "'m::f' is defined twice",
    ),
    ("result not made", replaced("=> (b)", "=> (d)", CALLING), "'m::f' returns 'd', which none"),
    ("result twice", replaced("=> (b)", "=> (b, b)", CALLING), "returns 'b' twice"),
    ("parameter twice", replaced("(a) =>", "(a, a) =>", CALLING), "defines 'a' twice"),
    ("made twice in a function", replaced("c = Relu(a)", "a = Relu(a)", CALLING), "'a' twice"),
    ("caller's names", replaced("Relu(a)", "Relu(x)", CALLING), "function 'm::f': reads 'x'"),
    ("too many arguments", replaced("(x) }", "(x, x) }", CALLING), "at most 1 inputs, got 2"),
    ("too many results", replaced("{ y =", "{ y, q =", CALLING), "at most 1 outputs, got 2"),
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
    with pytest.raises(InvalidModelError, match="must be valid UTF-8"):
        OnnxModule(data.replace(b"xxx", b"x\xffx"))


def test_a_function_nobody_calls_is_not_judged() -> None:
    OnnxModule(replaced("m.f<k = 2.0>(x)", "Relu(x)", CALLING.replace("Relu(a)", "Nothing(q)")))


# ---- versions


def test_the_kernels_know_the_opsets_that_onnx_knows() -> None:
    known = SCHEMAS.schema_version_map()
    standard = {domain: opset for domain, opset in NEWEST.items() if domain not in CONTRIB}
    assert {domain: known[domain][1] for domain in standard} == standard


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
