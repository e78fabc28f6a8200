"""Gradients straight through quantization, as torch's own fake quantization has them."""

from __future__ import annotations

import onnx
import onnx.parser
import pytest
import torch
from torch import Tensor
from torch.autograd import forward_ad

from onnxinterp import OnnxModule

SCALE, ZERO = 0.25, 3


def chain(opset: int = 17, dtype: str = "uint8", x_type: str = "float[n]") -> onnx.ModelProto:
    return onnx.parser.parse_model(
        f"""<ir_version: 9, opset_import: ["": {opset}]> g ({x_type} x) => ({x_type} y)
        <float scale = {{{SCALE}}}, {dtype} zero = {{{ZERO}}}> {{
            q = QuantizeLinear(x, scale, zero)
            y = DequantizeLinear(q, scale, zero)
        }}"""
    )


def numbers() -> Tensor:
    """Inside, at and beyond the range of 8 bits at this scale, none half way between integers."""
    return torch.linspace(-80, 80, 1009) + 0.01


@pytest.mark.parametrize("opset", [10, 13, 19, 21, 23])
@pytest.mark.parametrize(("dtype", "low", "high"), [("uint8", 0, 255), ("int8", -128, 127)])
def test_values_and_gradients_are_those_of_fake_quantize(
    opset: int, dtype: str, low: int, high: int
) -> None:
    module = OnnxModule(chain(opset, dtype))
    x, reference = (numbers().requires_grad_() for _ in range(2))
    cotangent = torch.randn(x.shape)
    got = module(x)
    want = torch.fake_quantize_per_tensor_affine(reference, SCALE, ZERO, low, high)
    assert torch.equal(got, want)
    got.backward(cotangent)
    want.backward(cotangent)
    assert torch.equal(x.grad, reference.grad)
    assert 0 < int((x.grad == 0).sum()) < 0.7 * x.numel()


def test_straight_values_are_those_of_integers() -> None:
    """Asked for the integers, the module gives integers; what it computes with is the same."""
    integers = OnnxModule(chain(), outputs=["q"])
    x = torch.cat([numbers(), torch.tensor([float("inf"), float("-inf"), float("nan"), -0.0])])
    q = integers(x)
    assert q.dtype is torch.uint8
    assert torch.equal((q.float() - ZERO) * SCALE, OnnxModule(chain())(x))
    both = OnnxModule(chain(), outputs=["q", "y"])(x.requires_grad_())
    assert torch.equal(both[0], q)
    assert not both[1].requires_grad, "integers that something else reads pass no gradient"


def test_a_scale_learns_as_in_torch() -> None:
    """Learned step sizes: on request, with the gradient of torch.ao's learnable fake quantize."""
    assert not list(OnnxModule(chain()).parameters())
    module = OnnxModule(chain(), trainable="scale")
    x, reference = (numbers().requires_grad_() for _ in range(2))
    scale = torch.tensor([SCALE], requires_grad=True)
    zero = torch.tensor([float(ZERO)], requires_grad=True)
    want = torch._fake_quantize_learnable_per_tensor_affine(reference, scale, zero, 0, 255, 1.0)
    cotangent = torch.randn(x.shape)
    want.backward(cotangent)
    got = module(x)
    torch.testing.assert_close(got, want)
    got.backward(cotangent)
    torch.testing.assert_close(module.weights["scale"].grad, scale.grad[0], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(x.grad, reference.grad)


PER_CHANNEL = """<ir_version: 8, opset_import: ["": 17]> g (float[n,3] x) => (float[n,2] y)
<float[2,3] w = {0.11, -0.52, 0.93, 1.4, -2.5, 0.3}, float[2] scale = {0.01, 0.02},
 int8[2] zero = {0, 0}> {
    q = QuantizeLinear<axis = 0>(w, scale, zero)
    d = DequantizeLinear<axis = 0>(q, scale, zero)
    y = Gemm<transB = 1>(x, d)
}"""


def test_weights_behind_a_pair_train_per_channel() -> None:
    module, x = OnnxModule(onnx.parser.parse_model(PER_CHANNEL)), torch.randn(4, 3)
    assert [n for n, w in module.weights.items() if w.requires_grad] == ["w"]
    weight = module.weights["w"].detach().clone().requires_grad_()
    fake = torch.fake_quantize_per_channel_affine(
        weight, torch.tensor([0.01, 0.02]), torch.zeros(2, dtype=torch.int32), 0, -128, 127
    )
    want = x @ fake.t()
    want.square().sum().backward()
    module(x).square().sum().backward()
    torch.testing.assert_close(module(x), want)
    torch.testing.assert_close(module.weights["w"].grad, weight.grad)


def test_stored_integers_do_not_train() -> None:
    text = """<ir_version: 8, opset_import: ["": 17]> g (float[n,2] x) => (float[n,2] y)
    <int8[2,2] w = {1, -2, 3, 4}, float scale = {0.5}> {
        d = DequantizeLinear(w, scale)
        y = MatMul(x, d)
    }"""
    every = list(OnnxModule(onnx.parser.parse_model(text), trainable="all").parameters())
    assert [p.ndim for p in every] == [0]
    module = OnnxModule(onnx.parser.parse_model(text), trainable="scale")
    module(torch.ones(1, 2)).sum().backward()
    assert float(module.weights["scale"].grad) == 6
    assert module.weights["w"].dtype is torch.int8


def test_dynamic_quantization_passes_gradients() -> None:
    text = """<ir_version: 8, opset_import: ["": 17]> g (float[n] x) => (float[n] y) {
        q, scale, zero = DynamicQuantizeLinear(x)
        y = DequantizeLinear(q, scale, zero)
    }"""
    module = OnnxModule(onnx.parser.parse_model(text))
    x = torch.randn(50, requires_grad=True)
    y = module(x)
    assert float((y - x).detach().abs().max()) < 0.03
    (gradient,) = torch.autograd.grad(y.sum(), x)
    middle = (x > x.min()) & (x < x.max())  # the ends also move the scale
    assert torch.equal(gradient[middle], torch.ones_like(gradient[middle]))


def test_a_quantized_network_tunes() -> None:
    """From a bad start the loss of an int8 network falls as far as quantization lets it."""
    module = OnnxModule(onnx.parser.parse_model(PER_CHANNEL), trainable=["w", "scale"])
    torch.manual_seed(0)
    x = torch.randn(64, 3)
    goal = x @ torch.tensor([[0.5, 0.2, -0.7], [1.0, 1.5, -0.4]]).t()
    optimizer = torch.optim.Adam([{"params": module.weights["w"]}], lr=0.1)
    optimizer.add_param_group({"params": module.weights["scale"], "lr": 1e-4})
    losses = []
    for _ in range(100):
        loss = (module(x) - goal).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0] / 1000


# torch's own jvp loads decompositions that it still writes with torch.jit.script
@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:FutureWarning")
@pytest.mark.parametrize("transform", ["jvp", "vmap", "compile"])
def test_straight_through_under_transforms(transform: str) -> None:
    module, x = OnnxModule(chain()), numbers()
    reference = x.clone().requires_grad_()
    (want,) = torch.autograd.grad(module(reference).sum(), reference)
    if transform == "jvp":
        _, got = torch.func.jvp(module, (x,), (torch.ones_like(x),))
    elif transform == "vmap":
        one = torch.func.grad(lambda v: module(v.reshape(1)).sum())
        got = torch.func.vmap(one)(x)
    else:
        compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
        copy = x.clone().requires_grad_()
        (got,) = torch.autograd.grad(compiled(copy).sum(), copy)
    assert torch.equal(got, want)


@pytest.mark.parametrize("before", ["no_grad", "grad"])
def test_calls_without_gradients_before_change_nothing(before: str) -> None:
    """They quantize in place, and may be a program by then."""
    module, x, want = OnnxModule(chain()), numbers(), numbers().requires_grad_()
    reference = module(want)
    reference.sum().backward()
    again = OnnxModule(chain())
    for _ in range(4):
        with torch.set_grad_enabled(before == "grad"):
            assert torch.equal(again(x), reference)
    got = numbers().requires_grad_()
    again(got).sum().backward()
    assert torch.equal(got.grad, want.grad)
    for mode in (torch.no_grad(), torch.enable_grad()):
        with mode, forward_ad.dual_level():
            dual = forward_ad.make_dual(x, torch.ones_like(x))
            tangent = forward_ad.unpack_dual(again(dual)).tangent
            assert torch.equal(tangent, want.grad)
