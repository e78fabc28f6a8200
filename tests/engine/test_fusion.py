"""Nodes that run as one function give what they give one by one, and only where they are it."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import onnx
import onnx.parser
import pytest
import torch
from torch import Tensor, nn

from onnxinterp import OnnxModule
from tests.exports.case import Export
from tests.models import parse
from tests.training.exporting import write


class Pattern(NamedTuple):
    """Nodes that are one function.

    Attributes:
        function: its name.
        body: the nodes, from x and other inputs to y.
        inputs: name -> shape.
        opsets: those that the nodes are written in.
        others: (old, new) texts that make other functions of them.
        constants: weights and constants of the graph.
    """

    function: str
    body: str
    inputs: dict[str, tuple[int, ...]] = {"x": (3, 4)}  # noqa: RUF012 - nobody changes it
    opsets: tuple[int, ...] = (11, 17, 22)
    others: tuple[tuple[str, str], ...] = ()
    constants: str = ""

    def proto(self, opset: int, old: str = "", new: str = "") -> onnx.ModelProto:
        declared = ", ".join(f"float[] {name}" for name in self.inputs)
        text = (f"<{self.constants}> " if self.constants else "") + f"{{ {self.body} }}"
        assert text.count(old) >= 1
        text = text.replace(old, new) if old else text
        head = f'<ir_version: 8, opset_import: ["": {opset}]> g ({declared}) => (float[] y) '
        return onnx.parser.parse_model(head + text)

    def drawn(self) -> list[Tensor]:
        generator = torch.Generator().manual_seed(0)
        return [torch.randn(s, generator=generator) for s in self.inputs.values()]


NUMBERS = (
    "float half = {0.5}, float one = {1}, float cubic = {0.044715}, float root2 = {1.41421356}, "
    "float rootpi = {0.79788456}, float three = {3}"
)
NORM = (
    "float eps = {0.00001}, float two = {2}, float[4] w = {1, 2, 3, 4}, float[4] b = {1, 0, 2, 1}"
)
HEADS = {"q": (2, 3, 5, 4), "k": (2, 3, 4, 6), "v": (2, 3, 6, 4)}
MASKED = {**HEADS, "m": (2, 1, 1, 6)}
SCALE = "float s = {0.5}, float d = {2}"
MEANS = "u = ReduceMean{0}(x{1}) c = Sub(x, u) p = Pow(c, two) v = ReduceMean{0}(p{1})"
NORMED = " e = Add(v, eps) r = Sqrt(e) n = Div(c, r) "
AXES = MEANS.format("<axes=[-1]>", "") + NORMED
AXES_18 = MEANS.format("", ", last") + NORMED
PATTERNS = {
    "gelu": Pattern(
        "gelu_by_erf",
        "d = Div(x, root2) e = Erf(d) a = Add(e, one) m = Mul(x, a) y = Mul(m, half)",
        others=(("0.5}", "0.51}"), ("1.41421356", "1.414"), ("Erf(d)", "Tanh(d)"), ("{1}", "{2}")),
        constants=NUMBERS,
    ),
    "gelu, halved first": Pattern(
        "gelu_by_erf",
        "d = Div(x, root2) e = Erf(d) a = Add(one, e) m = Mul(half, x) y = Mul(a, m)",
        others=(("Mul(half, x)", "Mul(half, d)"), ("Div(x, root2)", "Div(root2, x)")),
        constants=NUMBERS,
    ),
    "gelu by tanh": Pattern(
        "gelu_by_tanh",
        "p = Pow(x, three) c = Mul(cubic, p) s = Add(x, c) i = Mul(rootpi, s) t = Tanh(i) "
        "a = Add(t, one) m = Mul(x, half) y = Mul(m, a)",
        others=(("0.044715", "0.0447"), ("{3}", "{2}"), ("Add(x, c)", "Add(p, c)")),
        constants=NUMBERS,
    ),
    "silu": Pattern("silu", "s = Sigmoid(x) y = Mul(x, s)", others=(("Mul(x, s)", "Mul(s, s)"),)),
    "layer norm": Pattern(
        "layer_norm",
        AXES + "g = Mul(n, w) y = Add(g, b)",
        opsets=(11, 13, 17),
        others=(("{2}", "{3}"), ("Sub(x, u)", "Sub(u, x)"), ("Sqrt(e)", "Exp(e)")),
        constants=NORM,
    ),
    "layer norm, axes from inputs": Pattern(
        "layer_norm",
        AXES_18 + "g = Mul(w, n) y = Add(b, g)",
        opsets=(18, 22),
        others=(("ReduceMean(p, last)", "ReduceMean<keepdims=0>(p)"),),
        constants=NORM + ", int64[1] last = {-1}",
    ),
    "layer norm without bias": Pattern(
        "layer_norm", AXES + "y = Mul(n, w)", opsets=(11, 17), constants=NORM
    ),
    "attention": Pattern(
        "attention_in_parts",
        "a = MatMul(q, k) f = Mul(a, s) p = Softmax<axis=-1>(f) y = MatMul(p, v)",
        HEADS,
        others=(("Softmax<axis=-1>", "Sigmoid"),),
        constants=SCALE,
    ),
    "attention with a mask": Pattern(
        "attention_in_parts",
        "a = MatMul(q, k) f = Div(a, d) g = Add(m, f) p = Softmax<axis=3>(g) y = MatMul(p, v)",
        MASKED,
        others=(("Div(a, d)", "Div(d, a)"), ("Add(m, f)", "Sub(m, f)")),
        constants=SCALE,
    ),
    "attention, both scaled": Pattern(
        "attention_in_parts",
        "a = Mul(q, s) c = Mul(k, s) f = MatMul(a, c) g = Add(f, m) p = Softmax<axis=-1>(g) "
        "y = MatMul(p, v)",
        MASKED,
        others=(("Softmax<axis=-1>", "Sigmoid"),),
        constants=SCALE,
    ),
    "attention, a scale of rank 1": Pattern(
        "attention_in_parts",
        "r = Constant<value = float[1] {0.5}>() a = Mul(q, r) c = Mul(k, r) f = MatMul(a, c) "
        "p = Softmax<axis=-1>(f) y = MatMul(p, v)",
        HEADS,
        others=(("Softmax<axis=-1>", "Sigmoid"),),
    ),
    "attention, zeros for NaN": Pattern(
        "attention_in_parts",
        "a = MatMul(q, k) f = Mul(a, s) g = Add(f, m) p = Softmax<axis=-1>(g) n = IsNaN(p) "
        "w = Where(n, zero, p) y = MatMul(w, v)",
        MASKED,
        others=(("IsNaN(p)", "IsNaN(g)"), ("Where(n, zero, p)", "Where(n, p, zero)")),
        constants=SCALE + ", float zero = {0}",
    ),
    "linear": Pattern(
        "linear",
        "t = Transpose<perm=[1, 0]>(w) a = MatMul(x, t) y = Add(a, b)",
        others=(("perm=[1, 0]", "perm=[0, 1]"),),
        constants="float[2,4] w = {1, 2, 3, 4, 5, 6, 7, 8}, float[2] b = {1, 2}",
    ),
}
each = pytest.mark.parametrize("name", PATTERNS)


def close(got: object, want: object) -> None:
    """The same float32 operations, in other orders."""
    torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-6, equal_nan=True)


def names(module: OnnxModule) -> list[str]:
    return [step.kernel.__name__ for step in module.plan.steps]


def gradients(module: nn.Module, inputs: list[Tensor]) -> list[Tensor]:
    """The answer and the gradients of inputs and parameters."""
    leaves = [x.clone().requires_grad_(x.is_floating_point()) for x in inputs]
    y = module(*leaves)
    y = y[0] if isinstance(y, tuple) else y
    wanted = [x for x in (*leaves, *module.parameters()) if x.requires_grad]
    return [y, *torch.autograd.grad(y.cos().sum(), wanted, materialize_grads=True)]


@each
def test_one_function_gives_values_and_gradients_of_the_nodes(name: str) -> None:
    pattern = PATTERNS[name]
    for opset in pattern.opsets:
        fused = OnnxModule(pattern.proto(opset))
        apart = OnnxModule(pattern.proto(opset), fuse=False)
        assert names(fused) == [pattern.function], opset
        assert pattern.function not in names(apart)
        inputs = pattern.drawn()
        for got, want in zip(gradients(fused, inputs), gradients(apart, inputs), strict=True):
            close(got, want)


@each
def test_other_nodes_and_constants_are_left_alone(name: str) -> None:
    pattern = PATTERNS[name]
    for old, new in pattern.others:
        proto = pattern.proto(pattern.opsets[0], old, new)
        assert pattern.function not in names(OnnxModule(proto)), (old, new)


@each
def test_values_that_somebody_asks_for_are_made(name: str) -> None:
    pattern = PATTERNS[name]
    proto = pattern.proto(pattern.opsets[0])
    every = [o for node in proto.graph.node for o in node.output]
    inputs = pattern.drawn()
    apart = OnnxModule(proto, fuse=False, outputs=every)(*inputs)
    close(OnnxModule(proto, outputs=every)(*inputs), apart)
    for value, want in zip(every, apart, strict=True):
        some = OnnxModule(proto, outputs=[value, "y"])(*inputs)
        close(some[0], want)


@each
def test_capture(name: str) -> None:
    pattern = PATTERNS[name]
    module, inputs = OnnxModule(pattern.proto(pattern.opsets[-1])), tuple(pattern.drawn())
    program = torch.export.export(module, inputs).module()
    close(program(*inputs), module(*inputs))


SILU = """<ir_version: 8, opset_import: ["": 17]> g (float[3] x) => (float[3] y) {
  s = Sigmoid(x) m = Mul(x, s) y = %s
}"""


@pytest.mark.parametrize(("last", "taken"), [("Exp(m)", True), ("Mul(m, s)", False)])
def test_a_value_that_another_node_reads_keeps_its_node(last: str, taken: bool) -> None:
    module = OnnxModule(onnx.parser.parse_model(SILU % last))
    assert ("silu" in names(module)) is taken


def test_a_constant_that_trains_is_none() -> None:
    proto = PATTERNS["gelu"].proto(17)
    assert names(OnnxModule(proto, trainable="all")).count("gelu_by_erf") == 0


def test_kernels_of_the_caller_are_not_passed_over() -> None:
    proto = PATTERNS["silu"].proto(17)
    module = OnnxModule(proto, kernels={"Sigmoid": lambda X: torch.zeros_like(X)})
    close(module(torch.ones(3, 4)), torch.zeros(3, 4))


DECLINED = {
    "a scale of another shape": ("layer norm", ("float[4] w = {1, 2, 3, 4}", "float w = {2}")),
    "another axis": ("layer norm", ("axes=[-1]", "axes=[0]")),
    "softmax over queries": ("attention", ("axis=-1", "axis=2")),
    "a bias for each row": ("linear", ("float[2] b = {1, 2}", "float[3,1] b = {1, 2, 3}")),
}


@pytest.mark.parametrize("case", DECLINED)
def test_functions_decline_what_they_are_not_for(case: str) -> None:
    name, change = DECLINED[case]
    pattern = PATTERNS[name]
    proto = pattern.proto(pattern.opsets[0], *change)
    fused, apart = OnnxModule(proto), OnnxModule(proto, fuse=False)
    assert names(fused) == [pattern.function]
    for got, want in zip(
        gradients(fused, pattern.drawn()), gradients(apart, pattern.drawn()), strict=True
    ):
        close(got, want)


@pytest.mark.parametrize("same", [("q", "k"), ("q", "v"), ("q", "k", "v"), ("q", "m"), ()])
def test_one_value_in_several_places_and_a_mask_that_is_a_constant(same: tuple[str, ...]) -> None:
    text = PATTERNS["attention with a mask"]
    constants = "" if same else ", int64[1,4] m0 = {0, 1, 2, 3}"
    body = text.body if same else "m = Cast<to=1>(m0) " + text.body
    for name in same[1:]:
        body = body.replace(f"({name},", "(q,").replace(f", {name})", ", q)")
    inputs = {n: (2, 3, 4, 4) for n in HEADS if n not in same[1:]}
    if "m" not in same and same:
        inputs["m"] = (2, 3, 4, 4)
    pattern = text._replace(body=body, inputs=inputs, constants=SCALE + constants)
    fused, apart = OnnxModule(pattern.proto(17)), OnnxModule(pattern.proto(17), fuse=False)
    assert names(fused) == ["attention_in_parts"]
    for got, want in zip(
        gradients(fused, pattern.drawn()), gradients(apart, pattern.drawn()), strict=True
    ):
        close(got, want)


def attention(fuse: bool = True) -> OnnxModule:
    return OnnxModule(PATTERNS["attention with a mask"].proto(17), fuse=fuse)


def test_a_query_that_may_attend_nothing_gets_what_the_nodes_give() -> None:
    q, k, v, _ = PATTERNS["attention with a mask"].drawn()
    mask = torch.zeros(2, 1, 5, 6)
    mask[0, 0, 2], mask[1, 0, :, 3] = -torch.inf, -torch.inf
    want = attention(fuse=False)(q, k, v, mask)
    assert want.isnan().any()
    close(attention()(q, k, v, mask), want)


@pytest.mark.parametrize("name", ["attention", "attention with a mask"])
def test_attention_over_no_keys_is_a_sum_of_nothing(name: str) -> None:
    shapes = {"q": (2, 3, 5, 4), "k": (2, 3, 4, 0), "v": (2, 3, 0, 4), "m": (2, 1, 1, 0)}
    pattern = PATTERNS[name]
    inputs = [torch.ones(shapes[n]) for n in pattern.inputs]
    y = OnnxModule(pattern.proto(17))(*inputs)
    assert y.equal(torch.zeros(2, 3, 5, 4))


def test_a_mask_that_trains_and_one_that_enlarges_the_scores() -> None:
    q, k, v, _ = PATTERNS["attention with a mask"].drawn()
    for sizes, mask in [(1, torch.randn(2, 3, 5, 6)), (2, torch.randn(6).requires_grad_())]:
        inputs = [t[:sizes] for t in (q, k, v)]
        got, want = attention()(*inputs, mask), attention(fuse=False)(*inputs, mask)
        close(got, want)


@pytest.mark.parametrize("shape", [(5, 6), (1, 6), (3, 1, 6), (2, 1, 5, 1), (2, 3, 5, 6)])
def test_a_mask_that_trains_gets_the_gradient_of_the_nodes(shape: tuple[int, ...]) -> None:
    q, k, v, _ = PATTERNS["attention with a mask"].drawn()
    mask = torch.randn(shape, generator=torch.Generator().manual_seed(0)).requires_grad_()
    got, want = (
        torch.autograd.grad(m(q, k, v, mask).square().sum(), mask)[0]
        for m in (attention(), attention(fuse=False))
    )
    close(got, want)


@pytest.mark.filterwarnings("ignore:`torch.jit.trace:FutureWarning")
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")  # it reads sizes
def test_what_runs_does_not_depend_on_the_gradient_mode() -> None:
    """`torch.jit.trace` compares its graph with one that it records without gradients."""
    q, k, v, _ = PATTERNS["attention with a mask"].drawn()
    table, module = torch.randn(2, 1, 5, 6).requires_grad_(), attention()

    class Masked(nn.Module):
        def forward(self, q: Tensor, k: Tensor, v: Tensor, table: Tensor) -> Tensor:
            y: Tensor = module(q, k, v, table.tanh())
            return y

    traced = torch.jit.trace(Masked(), (q, k, v, table), check_trace=True)
    close(traced(q, k, v, table), module(q, k, v, table.tanh()))


# torch compiles its formulas with what it has deprecated
@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:FutureWarning")
def test_forward_derivatives_of_attention() -> None:
    inputs = tuple(PATTERNS["attention"].drawn())
    module = OnnxModule(PATTERNS["attention"].proto(17))
    apart = OnnxModule(PATTERNS["attention"].proto(17), fuse=False)
    got, want = (torch.func.jvp(m, inputs, inputs) for m in (module, apart))
    close(got, want)


class First(nn.Module):
    """A recurrent layer with its output alone."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)[0]


LAYERS: dict[str, Callable[..., nn.Module]] = {"lstm": nn.LSTM, "gru": nn.GRU}


@pytest.mark.parametrize("opset", [11, 17])
@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("bidirectional", [True, False])
def test_recurrent_layers_take_torchs_parameters(
    opset: int, kind: str, bias: bool, bidirectional: bool
) -> None:
    layer = LAYERS[kind](3, 4, 2, bias=bias, bidirectional=bidirectional, batch_first=True)
    network, x = First(layer), torch.randn(2, 5, 3)
    module = OnnxModule(write(network, (x,), Export("torchscript", opset)))
    assert names(module).count(f"torch_{kind}") == 2
    want = gradients(network, [x])
    close(module(x), want[0])
    module(x).cos().sum().backward()
    for (name, _), gradient in zip(network.named_parameters(), want[2:], strict=True):
        close(module.weights[name].grad, gradient)


@pytest.mark.parametrize("kind", LAYERS)
def test_recurrent_layers_are_captured(kind: str) -> None:
    x = torch.randn(2, 5, 3)
    network = First(LAYERS[kind](3, 4, batch_first=True))
    module = OnnxModule(write(network, (x,), Export("torchscript", 17)))
    with torch.no_grad():
        program = torch.export.export(module, (x,)).module()
        close(program(x), network(x))


def test_a_value_between_the_nodes_is_not_given_to_the_function_too() -> None:
    """A product that is added to itself: the bias would be a value that is not computed."""
    text = """g (float[n, 2] x) => (float[n, 2] y) <float[2, 2] w = {1, 2, 3, 4}>
    { h = MatMul(x, w) y = Add(h, h) }"""
    x = torch.eye(2)
    module = OnnxModule(parse(text))
    assert module(x).tolist() == [[2, 4], [6, 8]]
