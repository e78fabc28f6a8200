"""Functions, of the model and of schemas, run as if their bodies stood in the graph."""

from __future__ import annotations

import onnx
import onnx.parser
import pytest
import torch

from onnxinterp import InvalidModelError, OnnxModule, UnsupportedOpError
from onnxinterp.graph.build import build

SCALED = """<ir_version: 8, opset_import: ["": 17, "mine": 1]>
g (float[n,3] x) => (float[n,3] y) <float[3] w = {1, 1, 1}> {
  a = mine.Scaled<by = 2.0>(x, w)
  y = mine.Scaled(a, w)
}
<domain: "mine", opset_import: ["": 17]>
Scaled <by: float = 3.0> (x, w) => (y) {
  factor = Constant<value_float: float = @by>()
  offset = Constant<value = float[3] {10, 20, 30}>()
  t = Mul(x, factor)
  u = Add(t, offset)
  y = Add(u, w)
}"""


def test_a_function_runs_with_its_attributes_and_defaults() -> None:
    module = OnnxModule(onnx.parser.parse_model(SCALED))
    x = torch.randn(2, 3)
    offset = torch.tensor([10.0, 20, 30])
    torch.testing.assert_close(module(x), (2 * x + offset + 1) * 3 + offset + 1)


def test_a_weight_of_a_function_is_one_weight_and_trains() -> None:
    module = OnnxModule(onnx.parser.parse_model(SCALED))
    assert [n for n, w in module.weights.items() if w.requires_grad] == ["w", "offset"]
    module(torch.ones(1, 3)).sum().backward()
    assert module.weights["offset"].grad.tolist() == [4, 4, 4], "3 + 1: both calls count"


def test_nested_functions_and_a_constant_as_result() -> None:
    module = OnnxModule(
        onnx.parser.parse_model("""<ir_version: 8, opset_import: ["": 17, "mine": 1]>
        g (float[2] x) => (float[2] y, float[2] z) { y = mine.Outer(x) z = mine.Two() }
        <domain: "mine", opset_import: ["": 17, "mine": 1]>
        Outer (x) => (y) { two = mine.Two() y = Mul(x, two) }
        <domain: "mine", opset_import: ["": 17]>
        Two () => (c) { c = Constant<value = float[2] {2, 2}>() }""")
    )
    y, z = module(torch.tensor([3.0, 4.0]))
    assert (y.tolist(), z.tolist()) == ([6, 8], [2, 2])


def test_a_function_sees_only_its_own_names() -> None:
    text = SCALED.replace("u = Add(t, offset)", "u = Add(t, a)")
    with pytest.raises(InvalidModelError, match="'a'"):
        OnnxModule(onnx.parser.parse_model(text))


def test_branches_in_a_function_have_constants_of_their_own() -> None:
    module = OnnxModule(
        onnx.parser.parse_model("""<ir_version: 8, opset_import: ["": 17, "mine": 1]>
        g (float[1] x, bool c) => (float[1] y) { t = mine.Scaled(x, c) y = mine.Scaled(t, c) }
        <domain: "mine", opset_import: ["": 17]>
        Scaled (x, c) => (y) {
          y = If(c) <
            then_branch = a () => (r) { k = Constant<value = float[1] {2}>() r = Mul(x, k) },
            else_branch = b () => (s) { k = Constant<value = float[1] {3}>() s = Mul(x, k) }>
        }""")
    )
    one = torch.ones(1)
    assert [module(one, torch.tensor(c)).item() for c in (True, False)] == [4, 9]
    assert sorted(w.item() for w in module.weights.values()) == [2, 3], "both calls share them"


def test_a_function_that_calls_itself_is_refused() -> None:
    text = SCALED.replace("t = Mul(x, factor)", "t = mine.Scaled(x, w)")
    text = text.replace(
        '<domain: "mine", opset_import: ["": 17]>',
        '<domain: "mine", opset_import: ["": 17, "mine": 1]>',
    )
    with pytest.raises(InvalidModelError, match="itself"):
        OnnxModule(onnx.parser.parse_model(text))


def test_the_missing_operators_of_a_function_are_named() -> None:
    with pytest.raises(UnsupportedOpError, match="NoSuchOp"):
        OnnxModule(onnx.parser.parse_model(SCALED.replace("u = Add(t", "u = NoSuchOp(t")))


def test_an_operator_without_kernel_runs_by_the_function_of_its_schema(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from onnxinterp import registry

    without = {k: v for k, v in registry.KERNELS.items() if k != ("", "Softplus")}
    monkeypatch.setattr(registry, "KERNELS", without)
    model = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["": 18]> g (float[n] x) => (float[n] y) { y = Softplus(x) }'
    )
    assert "Softplus" not in {n.op_type for n in build(model).graph.nodes}
    x = torch.randn(5)
    torch.testing.assert_close(OnnxModule(model)(x), torch.nn.functional.softplus(x))


@pytest.mark.parametrize(
    "body",
    [
        "b = Identity(a)",
        "s = SequenceConstruct(a) z = Constant<value_int = 0>() b = SequenceAt(s, z)",
        "b = mine.Inner(a)",
        "c = Constant<value = bool {1}>() b = If(c) "
        "<then_branch = t () => (a) { }, else_branch = e () => (a) { }>",
        "z = Constant<value_float = 1.0>() b = Add(z, a)",
    ],
)
def test_a_function_called_without_an_input_that_it_needs_is_refused(body: str) -> None:
    """It gave None where its answer should be."""
    text = f"""<ir_version: 8, opset_import: ["": 17, "mine": 1]>
        g (float[2] x) => (float[2] y) {{ y = mine.F() }}
        <domain: "mine", opset_import: ["": 17, "mine": 1]>
        F (a) => (b) {{ {body} }}
        <domain: "mine", opset_import: ["": 17]>
        Inner (a) => (b) {{ b = Neg(a) }}"""
    with pytest.raises(InvalidModelError, match=r"must be given|absent input of a function"):
        OnnxModule(onnx.parser.parse_model(text))


def test_a_function_may_be_called_without_an_input_that_it_hands_on_as_optional() -> None:
    module = OnnxModule(
        onnx.parser.parse_model("""<ir_version: 8, opset_import: ["": 17, "mine": 1]>
        g (float[2] x) => (float[2] y) { y = mine.F(x) }
        <domain: "mine", opset_import: ["": 17]>
        F (a, low) => (b) { b = Clip(a, low) }""")
    )
    assert module(torch.tensor([-1.0, 2.0])).tolist() == [-1, 2]


def test_parts_without_a_name_count_even_at_the_end() -> None:
    """Where they did not, the first of two halves was the whole."""
    for opset, options in ((13, ""), (18, "<num_outputs = 2>")):
        text = f"""<ir_version: 8, opset_import: ["": {opset}]>
            g (float[4] x) => (float[2] a) {{ a, b = Split{options}(x) }}"""
        proto = onnx.parser.parse_model(text)
        proto.graph.node[0].output[1] = ""
        assert OnnxModule(proto)(torch.arange(4.0)).tolist() == [0, 1]
