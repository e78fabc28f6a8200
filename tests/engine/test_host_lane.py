"""Shape arithmetic runs on plain numbers: sizes stay symbolic, nothing is read out of a tensor."""

from __future__ import annotations

import onnx
import onnx.parser
import pytest
import torch
import torch._dynamo.testing
from torch.export import Dim

from onnxinterp import OnnxModule
from onnxinterp.values import Host, host_of, number, round_to

SPLIT_HEADS = """<ir_version: 8, opset_import: ["": 17]> g (float[b,s,8] x) => (float[b,2,s,4] y)
<float[8,8] w = {{{weights}}}> {{
  shape = Shape(x)
  zero = Constant<value_int = 0>()
  one = Constant<value_int = 1>()
  axis = Constant<value = int64[1] {{0}}>()
  b = Gather(shape, zero)
  s = Gather(shape, one)
  b1 = Unsqueeze(b, axis)
  s1 = Unsqueeze(s, axis)
  heads = Constant<value = int64[2] {{2, -1}}>()
  target = Concat<axis = 0>(b1, s1, heads)
  h = MatMul(x, w)
  split = Reshape(h, target)
  y = Transpose<perm = [0, 2, 1, 3]>(split)
}}"""


@pytest.fixture
def split_heads() -> OnnxModule:
    weights = ", ".join(str(i % 7) for i in range(64))
    return OnnxModule(onnx.parser.parse_model(SPLIT_HEADS.format(weights=weights)))


SIZES = [(2, 3), (5, 7), (3, 11)]


def test_one_graph_serves_all_sizes(split_heads: OnnxModule) -> None:
    counter = torch._dynamo.testing.CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(split_heads, fullgraph=True, dynamic=True, backend=counter)
    for b, s in SIZES:
        x = torch.randn(b, s, 8)
        torch.testing.assert_close(compiled(x), split_heads(x))
    assert counter.frame_count == 1


def test_it_exports_with_dynamic_sizes(split_heads: OnnxModule) -> None:
    dims = {"x": {0: Dim("b"), 1: Dim("s")}}
    program = torch.export.export(split_heads, (torch.randn(2, 3, 8),), dynamic_shapes=dims)
    for b, s in SIZES:
        x = torch.randn(b, s, 8)
        torch.testing.assert_close(program.module()(x), split_heads(x))


@pytest.mark.parametrize("to", ["FLOAT4E2M1", "INT4", "FLOAT8E4M3FN"])
@pytest.mark.parametrize("rule", ["Cast<to = {0}>(s)", "CastLike(s, like)"])
def test_a_cast_of_sizes_rounds_to_narrow_types(rule: str, to: str) -> None:
    """Their carriers have more values than the types: plain numbers would stay as they are."""
    number = onnx.TensorProto.DataType.Value(to)
    text = f"""<ir_version: 11, opset_import: ["": 23]> g (float[a,b] x) => (float[2] y) {{
      s = Shape(x) n = Neg(s) like = Cast<to = {number}>(n)
      narrow = {rule.format(number)} y = Cast<to = 1>(narrow) }}"""
    x = torch.ones(5, 17)
    want = {"FLOAT4E2M1": [4, 6], "INT4": [5, 1], "FLOAT8E4M3FN": [5, 16]}[to]
    assert OnnxModule(onnx.parser.parse_model(text))(x).tolist() == want


def test_it_runs_without_data(split_heads: OnnxModule) -> None:
    assert split_heads.to("meta")(torch.empty(2, 3, 8, device="meta")).shape == (2, 2, 3, 4)


def test_constants_are_folded() -> None:
    module = OnnxModule(
        onnx.parser.parse_model("""<ir_version: 8, opset_import: ["": 17]>
        g (float[6] x) => (float[2,3] y) <int64[1] two = {2}, int64[1] one = {1}> {
          three = Add(two, one)
          shape = Concat<axis = 0>(two, three)
          y = Reshape(x, shape)
        }""")
    )
    assert [step.node.op_type for step in module.plan.steps] == ["Reshape"]
    assert module(torch.ones(6)).shape == (2, 3)


def test_weights_are_never_folded() -> None:
    module = OnnxModule(
        onnx.parser.parse_model("""<ir_version: 8, opset_import: ["": 17]>
        g (float[2] x) => (float[2] y) <float[2] w = {1, 2}, float[2] v = {1, 1}> {
          sum = Add(w, v)
          y = Mul(x, sum)
        }""")
    )
    module(torch.ones(2)).sum().backward()
    assert module.weights["w"].grad.tolist() == [1, 1]


def test_a_host_value_becomes_a_tensor_at_the_boundary() -> None:
    module = OnnxModule(
        onnx.parser.parse_model(
            '<ir_version: 8, opset_import: ["": 17]> g (float[a,b] x) => (int64[2] s)'
            "{ s = Shape(x) }"
        )
    )
    assert module(torch.ones(4, 5)).tolist() == [4, 5]
    assert module(torch.ones(4, 5)).dtype is torch.int64


def test_reading_a_value() -> None:
    assert number(torch.tensor([[3]])) == 3
    assert number(Host([4])) == 4
    assert host_of(torch.tensor([1, 2])).numbers == [1, 2]
    assert Host([1.5], torch.float32).tensor().dtype is torch.float32


@pytest.mark.parametrize("x", [0.1, 0.7 * 10, 1 / 3, -2.5e-3, 1e20, 7.0, 3e33, 1e39, 1e-42])
def test_rounding_is_that_of_float32(x: float) -> None:
    assert round_to(torch.float32, x) == torch.tensor(x, dtype=torch.float32).item()
    assert round_to(torch.float64, x) == x


@pytest.mark.parametrize(
    ("rule", "answer"),
    [
        ("a = Mul(f, f) b = Mul(a, f) y = Div(b, f)", torch.inf),
        ("a = Mul(f, f) b = Mul(a, f) c = Div(f, b) y = Mul(c, b)", torch.nan),
        ("big = Constant<value = int64[1] {4611686293305294849}>() y = Cast<to = 1>(big)", 2.0**62),
    ],
)
def test_numbers_at_the_ends_of_float32(rule: str, answer: float) -> None:
    text = f"""<ir_version: 8, opset_import: ["": 17]> g (float[n] x) => (float[1] y) {{
      k = Constant<value = int64[1] {{1000000000000000}}>() s = Shape(x)
      i = Mul(s, k) f = Cast<to = 1>(i) {rule} }}"""
    want = torch.tensor([answer])
    if answer == 2.0**62:  # half a step above, and then some
        want = torch.tensor([2.0**62 + 2.0**39])
    got = OnnxModule(onnx.parser.parse_model(text))(torch.ones(1))
    torch.testing.assert_close(got, want, rtol=0, atol=0, equal_nan=True)


def test_sizes_that_come_again_are_computed_once(split_heads: OnnxModule) -> None:
    planned = split_heads._plans.get(False)
    for _ in range(3):
        for b, s in SIZES:
            x = torch.randn(b, s, 8)
            want = (x @ split_heads.weights["w"]).view(b, s, 2, 4).transpose(1, 2)
            torch.testing.assert_close(split_heads(x), want)
    assert len(planned.by_sizes) == len(SIZES)
    known = planned.by_sizes[((torch.Size((2, 3, 8)), torch.float32, torch.device("cpu")),)]
    assert [s.node.op_type for s in known.plan.steps] == ["MatMul", "Reshape", "Transpose"]
    with torch.no_grad():
        split_heads.weights["w"].zero_()
    assert not split_heads(torch.randn(2, 3, 8)).any(), "weights are read at every call"


COUNT = """<ir_version: 8, opset_import: ["": 17, "mine": 1]> g (float[n] x) => (int64[2] shape) {{
  found = {operator}(x)
  shape = Shape(found)
}}"""


def keep_positive(x: torch.Tensor) -> torch.Tensor:
    return x[x > 0].unsqueeze(0)


@pytest.mark.parametrize("operator", ["NonZero", "mine.Keep"])
def test_shapes_that_depend_on_data_are_computed_anew(operator: str) -> None:
    module = OnnxModule(
        onnx.parser.parse_model(COUNT.format(operator=operator)),
        kernels={"mine::Keep": keep_positive},
    )
    for n in (3, 1, 2, 0, 3):
        x = torch.zeros(4)
        x[:n] = 1
        assert module(x).tolist() == [1, n]


def test_named_inputs_are_told_apart_by_name() -> None:
    module = OnnxModule(
        onnx.parser.parse_model("""<ir_version: 8, opset_import: ["": 17]>
        g (float[a] x, float[b] y) => (int64[1] s) { t = Shape(x) s = Identity(t) }""")
    )
    x, y = torch.ones(2), torch.ones(3)
    for _ in range(3):
        assert module(x=x, y=y).tolist() == [2]
        assert module(y=x, x=y).tolist() == [3]
