"""FlexAttention where the judge of the samples is silent: narrow types, captures, masked rows."""

from __future__ import annotations

import onnx.parser
import pytest
import torch
from torch import Tensor

from onnxinterp import NodeError, OnnxModule

NAMES = {
    torch.float16: "float16",
    torch.bfloat16: "bfloat16",
    torch.float32: "float",
    torch.float64: "double",
}
TEXT = """<ir_version: 10, opset_import: ["": 23, "ai.onnx.preview": 1]>
g (T[B,H,L,E] q, T[B,K,S,E] k, T[B,K,S,F] v {inputs}) => (T[B,H,L,F] y) {{
  y = ai.onnx.preview.FlexAttention {attributes} (q, k, v)
}}"""


def module(dtype: torch.dtype, attributes: str = "", inputs: str = "") -> OnnxModule:
    text = TEXT.format(attributes=attributes and f"<{attributes}>", inputs=inputs)
    return OnnxModule(onnx.parser.parse_model(text.replace("T[", f"{NAMES[dtype]}[")))


def drawn(dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor]:
    """Six query heads over two key heads, lengths 5 and 4, heads of 8 and 3."""
    generator = torch.Generator().manual_seed(0)
    shapes = (2, 6, 5, 8), (2, 2, 4, 8), (2, 2, 4, 3)
    q, k, v = (torch.randn(shape, generator=generator).to(dtype) for shape in shapes)
    return q, k, v


def attended(
    q: Tensor, k: Tensor, v: Tensor, bias: Tensor | float = 0, scale: float | None = None
) -> Tensor:
    """In float64, each key head repeated."""
    q, k, v = q.double(), k.double().repeat_interleave(3, 1), v.double().repeat_interleave(3, 1)
    scores = q @ k.mT * (q.shape[-1] ** -0.5 if scale is None else scale)
    return (scores + bias).softmax(-1) @ v


SAME = "score_mod = m (T[a,b,c,d] s) => (T[a,b,c,d] t) { t = Identity(s) }"


@pytest.mark.parametrize("dtype", NAMES)
@pytest.mark.parametrize("scale", [None, 0.25, -0.5])
@pytest.mark.parametrize("fused", [True, False])
def test_types_and_scales(dtype: torch.dtype, scale: float | None, fused: bool) -> None:
    inputs = drawn(dtype)
    told = [f"scale = {scale}"] if scale else []
    if not fused:
        wide = "double" if dtype is torch.float64 else "float"
        told.append(SAME.replace("T[", f"{wide}["))
    got = module(dtype, ", ".join(told))(*inputs)
    assert got.dtype is dtype
    eps = 1e-5 if dtype is torch.float32 else 4 * torch.finfo(dtype).eps
    want = attended(*inputs, scale=scale)
    torch.testing.assert_close(got.double(), want, rtol=eps / 2, atol=eps)


@pytest.mark.parametrize("precision", NAMES)
def test_the_softmax_is_taken_as_asked(precision: torch.dtype) -> None:
    """The subgraph gets what it is taken in, and the answer is of the type of the inputs."""
    inputs = drawn()
    kind = NAMES[precision]
    number = onnx.TensorProto.DataType.Value(kind.upper())
    body = SAME.replace("T[", f"{kind}[")
    m = module(torch.float32, f"softmax_precision = {number}, {body}")
    got, eps = m(*inputs), torch.finfo(precision).eps
    assert got.dtype is torch.float32
    error = (got - attended(*inputs)).abs().max()
    assert error < max(4 * eps, 1e-6)
    assert error > eps / 50 or precision is torch.float64


def test_bodies_capture_and_gradients_pass() -> None:
    """A bias of a row of numbers from outside, an if within: all of it is differentiated."""
    body = """score_mod = m (float[a,b,c,d] s) => (float[a,b,c,d] t) {
      t = If(c) < then_branch = x () => (float[a,b,c,d] r) { r = Add(s, bias) },
                  else_branch = z () => (float[a,b,c,d] r) { r = Identity(s) } >
    }"""
    m = module(torch.float32, body, ", float[S] bias, bool c")
    q, k, v = (x.requires_grad_() for x in drawn())
    bias = torch.tensor([0.5, -1.0, 2.0, 0.0], requires_grad=True)
    leaves = q, k, v, bias
    want = attended(*leaves).float()
    got = m(*leaves, torch.tensor(True))
    torch.testing.assert_close(got, want)
    torch.testing.assert_close(
        torch.autograd.grad(got.square().sum(), leaves),
        torch.autograd.grad(want.square().sum(), leaves),
    )
    torch.testing.assert_close(m(*leaves, torch.tensor(False)), attended(q, k, v).float())


CAUSAL = """score_mod = m (float[a,b,c,d] s) => (float[a,b,c,d] t) {
  n = Shape(s) two = Constant<value = int64 {2}>() three = Constant<value = int64 {3}>()
  zero = Constant<value = int64 {0}>() one = Constant<value = int64 {1}>()
  rows = Gather(n, two) columns = Gather(n, three)
  i = Range(zero, rows, one) j = Range(zero, columns, one)
  axis = Constant<value = int64[1] {1}>() below = Unsqueeze(i, axis)
  seen = Greater(below, j) none = Constant<value_float = -inf>() t = Where(seen, s, none)
}"""


def test_a_row_of_which_nothing_is_left_is_nan() -> None:
    q, k, v = drawn()
    got = module(torch.float32, CAUSAL)(q, k, v)
    assert got[:, :, 0].isnan().all()
    hidden = torch.ones(5, 4).triu().bool()
    bias = torch.zeros(5, 4).masked_fill(hidden, -torch.inf)
    torch.testing.assert_close(got, attended(q, k, v, bias).float(), equal_nan=True)


def test_captured_for_any_length() -> None:
    m, (q, k, v) = module(torch.float32, CAUSAL), drawn()
    compiled = torch.compile(m, fullgraph=True, dynamic=True, backend="eager")
    torch.testing.assert_close(compiled(q, k, v), m(q, k, v), equal_nan=True)
    length, keys = torch.export.Dim("length"), torch.export.Dim("keys")
    sizes = {"q": {2: length}, "k": {2: keys}, "v": {2: keys}}
    exported = torch.export.export(m, (q, k, v), dynamic_shapes=sizes).module()
    shorter = q[:, :, :3], k[:, :, :2], v[:, :, :2]
    torch.testing.assert_close(exported(*shorter), m(*shorter), equal_nan=True)


def test_heads_that_do_not_divide_are_refused() -> None:
    q, k, v = drawn()
    with pytest.raises(NodeError):
        module(torch.float32, CAUSAL)(q[:, :5], k, v)
    with pytest.raises(NodeError):
        module(torch.float32)(q[:, :5], k, v)
