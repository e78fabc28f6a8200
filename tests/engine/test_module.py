"""How a module is called, what it gives, and what it says when it cannot."""

from __future__ import annotations

import copy
import inspect
import io
import pickle
import threading
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest
import torch

import onnxinterp
from onnxinterp import (
    InputError,
    Interpreter,
    InvalidModelError,
    NodeError,
    OnnxError,
    OnnxModule,
    UnsupportedOpError,
)
from tests.models import parse

HEAD = '<ir_version: 8, opset_import: ["": 17]>'

TWO_OUTPUTS = """<ir_version: 8, opset_import: ["": 17]>
g (float[n,3] x, float[n,3] y) => (float[n,3] sum, float[n,3] product)
<float[3] bias = {1, 2, 3}> {
  s = Add(x, y)
  sum = Add(s, bias)
  product = Mul(x, y)
}"""
OPTIONAL = """<ir_version: 8, opset_import: ["": 17]>
g (float[3] scale, float[2,3] x) => (float[2,3] y) <float[3] scale = {2, 2, 2}> {
  y = Mul(x, scale)
}"""


@pytest.fixture
def module() -> OnnxModule:
    return OnnxModule(parse(TWO_OUTPUTS))


def test_sources_are_paths_bytes_files_and_protos(tmp_path: Path) -> None:
    model, path = parse(OPTIONAL), tmp_path / "m.onnx"
    onnx.save(model, path)
    data, x = path.read_bytes(), torch.randn(2, 3)
    for source in (path, str(path), data, io.BytesIO(data), model):
        torch.testing.assert_close(OnnxModule(source)(x), 2 * x)


def test_inputs_go_by_position_by_name_or_mixed(module: OnnxModule) -> None:
    x, y = torch.randn(4, 3), torch.randn(4, 3)
    want = module(x, y)
    assert isinstance(want, tuple)
    for got in (module(x=x, y=y), module(x, y=y), module(y=y, x=x)):
        torch.testing.assert_close(got, want)
    torch.testing.assert_close(want[1], x * y)


def test_an_input_with_an_initializer_is_optional() -> None:
    module, x = OnnxModule(parse(OPTIONAL)), torch.randn(2, 3)
    assert module.input_names == ("x",)
    assert [i.name for i in module.optional_inputs] == ["scale"]
    torch.testing.assert_close(module(x), 2 * x)
    torch.testing.assert_close(module(x, scale=torch.ones(3)), x)
    torch.testing.assert_close(module(x), 2 * x)


def test_strings_with_an_initializer_are_optional_too() -> None:
    text = """<ir_version: 10, opset_import: ["": 20]>
    g (string[n] x, string[1] mark) => (string[n] y) <string[1] mark = {"!"}> {
      twice = Identity(mark)
      y = StringConcat(x, twice)
    }"""
    module, x = OnnxModule(parse(text)), np.array(["a"], object)
    assert module(x).tolist() == ["a!"]
    assert module(x, mark=np.array(["?"], object)).tolist() == ["a?"]
    assert module(x).tolist() == ["a!"]


def test_the_signature_is_the_graphs() -> None:
    model = parse(OPTIONAL)
    model.graph.input[1].name = model.graph.node[0].input[0] = "gpu_0/data:0"
    module, x = OnnxModule(model), torch.randn(2, 3)
    assert list(inspect.signature(module.forward).parameters) == ["gpu_0_data_0", "scale"]
    torch.testing.assert_close(module(**{"gpu_0/data:0": x}), module(gpu_0_data_0=x))


def test_what_a_call_gives_is_the_callers() -> None:
    """Constants, weights, texts and sizes, also from the plan for sizes that come again."""
    text = """<ir_version: 8, opset_import: ["": 17]> g (float[n] x) => (k, w, s, t, y)
      <int64[2] a = {1, 2}, float[1] v = {1}> {
      k = Add(a, a) w = Identity(v) s = Shape(x) y = Add(x, v)
      t = Constant<value_strings = ["a"]>() }"""
    m = OnnxModule(onnx.parser.parse_model(text))
    for _ in range(4):
        k, w, s, t, y = m(torch.ones(1))
        assert (k.tolist(), w.tolist(), s.tolist(), t.tolist()) == ([2, 4], [1], [1], ["a"])
        with torch.no_grad():
            for value in (k, w, s, y):
                value += 7
        t[0] = "b"


def test_outputs_name_any_tensor_and_prune(module: OnnxModule) -> None:
    features = OnnxModule(parse(TWO_OUTPUTS), outputs=["s"])
    x, y = torch.randn(4, 3), torch.randn(4, 3)
    torch.testing.assert_close(features(x, y), x + y)
    assert len(features.onnx_graph.nodes) == 1
    assert "bias" not in features.weights
    assert module.output_names == ("sum", "product")
    with pytest.raises(InvalidModelError, match="'nothing'"):
        OnnxModule(parse(TWO_OUTPUTS), outputs=["nothing"])


def test_pruned_operators_need_no_kernel() -> None:
    text = TWO_OUTPUTS.replace("Mul(x, y)", "NoSuchOp(x, y)")
    assert OnnxModule(parse(text), outputs=["sum"])(torch.ones(1, 3), torch.ones(1, 3)).shape == (
        1,
        3,
    )


def test_repr_tells_what_it_is(module: OnnxModule) -> None:
    text = repr(module)
    for part in ("ai.onnx 17", "3 nodes", "x: float[n, 3]", "product", "3 trainable"):
        assert part in text
    assert module.opset_imports == {"": 17}


def test_all_missing_operators_are_named_before_weights_are_read() -> None:
    text = TWO_OUTPUTS.replace("Mul(x", "NoSuchOp(x").replace("Add(s", "NorThis(s")
    model = parse(text)
    model.graph.initializer[0].raw_data = b"not twelve bytes"  # reading it would fail first
    with pytest.raises(UnsupportedOpError) as caught:
        OnnxModule(model)
    assert {m.op_type for m in caught.value.missing} == {"NoSuchOp", "NorThis"}
    message = str(caught.value)
    for part in (
        "NoSuchOp at opset 17",
        "NorThis",
        "'product'",
        "@onnxinterp.op('NoSuchOp', since=17)",
    ):
        assert part in message
    assert pickle.loads(pickle.dumps(caught.value)).missing == caught.value.missing


@pytest.mark.parametrize("data", [b"", b"no model", b"\x08\x07", b"\x00" * 100])
def test_broken_bytes_are_an_invalid_model(data: bytes) -> None:
    with pytest.raises(InvalidModelError):
        OnnxModule(data)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("Add(s, bias)", "Add(s, nowhere)", "nowhere"),
        ("product = Mul", "sum = Mul", "twice"),
        ("s = Add(x, y)", "s = Add(sum, y)", "cycle"),
        ("s = Add(x, y)", "s = Add<colour = 1>(x, y)", "colour"),
        ("s = Add(x, y)", "s = Add(x, y, x)", "at most 2"),
        ("s = Add(x, y)", "s = other.Add(x, y)", "other"),
    ],
)
def test_a_graph_that_does_not_fit_together_is_refused(old: str, new: str, message: str) -> None:
    with pytest.raises(InvalidModelError, match=message):
        OnnxModule(parse(TWO_OUTPUTS.replace(old, new)))


def test_unsorted_nodes_are_sorted() -> None:
    model = parse(TWO_OUTPUTS)
    nodes = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend(reversed(nodes))
    assert OnnxModule(model)(torch.ones(1, 3), torch.ones(1, 3))[0].tolist() == [[3, 4, 5]]


def test_wrong_inputs_are_named(module: OnnxModule) -> None:
    x = torch.ones(2, 3)
    for args, keywords, message in [
        ((x,), {}, "missing inputs: y: float"),
        ((x, x, x), {}, "3 inputs given"),
        ((x, x), {"y": x}, "'y' is given twice"),
        ((x,), {"z": x}, "'z' is not an input"),
        (
            (x, x.long()),
            {},
            r"input 'y' must be float32\[n, 3\], got int64\[2, 3\]: use x.float\(\)",
        ),
        ((x, x[0]), {}, r"input 'y' must be float32\[n, 3\], got float32\[3\]"),
        ((x, [1.0]), {}, "got list"),
    ]:
        with pytest.raises(InputError, match=message):
            module(*args, **keywords)


def test_a_sequence_is_a_list_of_what_is_declared() -> None:
    module = OnnxModule(parse(HEAD + "g (seq(float[2]) x) => (int64 n) { n = SequenceLength(x) }"))
    x = torch.ones(2)
    assert module([x, x]) == 2
    assert module([]) == 0
    for given, got in [
        (x, "Tensor"),
        (x.numpy(), "ndarray"),
        ((x, x), "tuple"),
        ("ab", "str"),
        ([1, 2], "int"),
        ([x, x.long()], r"int64\[2\]"),
        ([[x]], "list"),
    ]:
        with pytest.raises(InputError, match=f"input 'x' must be sequence of float, got {got}"):
            module(given)


def test_tensors_and_sequences_are_told_apart_where_they_flow() -> None:
    for nodes, message in [
        ("y = SequenceAt(x, zero)", "'x' must be a sequence, got a tensor"),
        (
            "a = Relu(x) b = Identity(a) y = SequenceAt(b, zero)",
            "'b' must be a sequence, got a tensor",
        ),
        (
            "s = SequenceConstruct(x) t = Identity(s) y = Relu(t)",
            "'t' must be a tensor, got a sequence",
        ),
    ]:
        with pytest.raises(InvalidModelError, match=message):
            OnnxModule(
                parse(f"{HEAD} g (float[2] x) => (float y) <int64 zero = {{0}}> {{ {nodes} }}")
            )


def test_a_tensor_of_a_branch_is_no_sequence_of_rows() -> None:
    branch = "r () => (float[2] r) { r = Identity(x) }"
    nodes = f"s = If (c) <then_branch = {branch}, else_branch = {branch}> n = SequenceLength(s)"
    module = OnnxModule(parse(f"{HEAD} g (bool c, float[2] x) => (int64 n) {{ {nodes} }}"))
    with pytest.raises(NodeError) as error:
        module(torch.tensor(True), torch.ones(2))
    assert "the input must be a sequence, got a Tensor" in str(error.value.__cause__)


def test_a_size_that_fails_is_blamed_on_the_input() -> None:
    module = OnnxModule(parse(OPTIONAL))
    with pytest.raises(
        InputError, match=r"input \'x\' must be float32\[2, 3\], got shape \[2, 5\]"
    ):
        module(torch.ones(2, 5))
    assert module(torch.ones(7, 3)).shape == (7, 3), "another batch size than exported just works"


def test_a_failing_node_is_named_with_its_cause(module: OnnxModule) -> None:
    with pytest.raises(
        NodeError, match=r"node 's' \(Add, opset 17\).*x: float32\[2, 3\]"
    ) as caught:
        module(torch.ones(2, 3), torch.ones(5, 3))
    assert isinstance(caught.value.__cause__, RuntimeError)
    assert isinstance(caught.value, OnnxError)


def test_a_custom_operator_for_one_module() -> None:
    text = TWO_OUTPUTS.replace('"": 17', '"": 17, "mine": 1').replace(
        "Mul(x, y)", "mine.Blend<t=0.25>(x, y)"
    )

    def blend(a: torch.Tensor, b: torch.Tensor, *, t: float = 0.5) -> torch.Tensor:
        return a.lerp(b, t)

    module = OnnxModule(parse(text), kernels={"mine::Blend": blend})
    x, y = torch.zeros(1, 3), torch.ones(1, 3)
    assert module(x, y)[1].tolist() == [[0.25] * 3]
    with pytest.raises(UnsupportedOpError, match="domain='mine'"):
        OnnxModule(parse(text))


def test_a_registered_custom_operator(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnxinterp.registry, "KERNELS", {**onnxinterp.registry.KERNELS})

    @onnxinterp.op("Twice", since=1, domain="mine")
    def twice(x: torch.Tensor) -> torch.Tensor:
        return 2 * x

    text = TWO_OUTPUTS.replace('"": 17', '"": 17, "mine": 1').replace("Mul(x, y)", "mine.Twice(x)")
    assert OnnxModule(parse(text))(torch.ones(1, 3), torch.ones(1, 3))[1].tolist() == [[2, 2, 2]]
    with pytest.raises(ValueError, match="twice"):
        onnxinterp.op("Twice", since=1, domain="mine")(twice)


def test_run_step_is_the_override_point(module: OnnxModule) -> None:
    class Recorder(Interpreter):
        def __init__(self) -> None:
            self.seen: list[str] = []

        def run_step(self, step: object, frame: object) -> object:
            self.seen.append(step.node.op_type)
            return super().run_step(step, frame)

    module.interpreter = Recorder()
    module(torch.ones(1, 3), torch.ones(1, 3))
    assert module.interpreter.seen == ["Add", "Add", "Mul"]


def test_copies_and_casts(module: OnnxModule) -> None:
    x, y = torch.randn(2, 3), torch.randn(2, 3)
    want = module(x, y)
    for twin in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        torch.testing.assert_close(twin(x, y), want)
        assert inspect.signature(twin.forward) == inspect.signature(module.forward)
        with torch.no_grad():
            twin.weights["bias"].zero_()
        torch.testing.assert_close(module(x, y), want)
    assert module.double()(x.double(), y.double())[0].dtype is torch.float64
    assert module.bfloat16()(x.bfloat16(), y.bfloat16())[0].dtype is torch.bfloat16


def test_the_floating_type_of_the_module_replaces_that_of_the_file() -> None:
    text = """<ir_version: 8, opset_import: ["": 17]> g (int64[n] i) => (float[n,2] y)
    <float[1,2] w = {1, 2}> {
      f = Cast<to = 1>(i)
      axis = Constant<value = int64[1] {1}>()
      column = Unsqueeze(f, axis)
      y = MatMul(column, w)
    }"""
    module = OnnxModule(parse(text))
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        assert module.to(dtype)(torch.tensor([1, 2])).dtype is dtype


def test_constants_are_read_again_where_they_were_changed() -> None:
    text = """<ir_version: 8, opset_import: ["": 17]> g (float[6] x) => (float y)
    <int64[2] shape = {2, 3}> { y = Reshape(x, shape) }"""
    module = OnnxModule(parse(text))
    assert not module.state_dict(), "constants belong to the plan"
    module.load_state_dict({"shape": torch.tensor([3, 2])})
    assert module(torch.ones(6)).shape == (3, 2)
    module.weights["shape"].copy_(torch.tensor([6, 1]))
    module.refresh()
    assert module(torch.ones(6)).shape == (6, 1)


def test_threads_may_share_a_module(module: OnnxModule) -> None:
    inputs = [torch.full((2, 3), float(i)) for i in range(8)]
    results: dict[int, bool] = {}

    def work(i: int) -> None:
        want = inputs[i] * inputs[i]
        results[i] = all(torch.equal(module(inputs[i], inputs[i])[1], want) for _ in range(100))

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == dict.fromkeys(range(8), True)


def test_the_onnx_name_wins_over_an_identifier_made_of_another() -> None:
    model = parse(TWO_OUTPUTS)
    for node in model.graph.node:
        node.input[:] = [{"x": "a.b", "y": "a_b"}.get(i, i) for i in node.input]
    model.graph.input[0].name, model.graph.input[1].name = "a.b", "a_b"
    x, y = torch.zeros(1, 3), torch.ones(1, 3)
    sum_, _ = OnnxModule(model)(**{"a.b": x, "a_b": y})
    assert sum_.tolist() == [[2, 3, 4]]
