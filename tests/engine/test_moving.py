"""A module that is moved to another type or to the meta device: constants follow, numbers stay."""

from __future__ import annotations

import onnx
import onnx.parser
import pytest
import torch
from torch import Tensor, nn

from onnxinterp import OnnxModule
from tests.exports.case import Export
from tests.training.exporting import write

HEAD = '<ir_version: 8, opset_import: ["": 17]> g '
SUMS = """s, y = Scan<num_scan_inputs = 1, body = b (float[3] a, float[3] r) =>
    (float[3] o, float[3] p) { m = Mul(r, w) o = Add(a, m) p = Identity(o) }>(z, x)"""
TEXTS = {
    "Scan from Expand": """(float[n,3] x) => (float[3] s, float[n,3] y)
        <float zero = {0}, float[3] w = {1, 2, 3}, int64[1] three = {3}>
        { z = Expand(zero, three) """
    + SUMS
    + "}",
    "Scan from ConstantOfShape": """(float[n,3] x) => (float[3] s, float[n,3] y)
        <float[3] w = {1, 2, 3}, int64[1] three = {3}> { z = ConstantOfShape(three) """
    + SUMS
    + "}",
    "ScatterElements over Expand": """(float[n,3] x) => (float[n,3] y)
        <float[1] z = {0}, float[3] w = {1, 2, 3}> { i = Constant<value = int64[1,3] {2, 0, 1}>()
        m = Mul(x, w) one = Constant<value = float {0}>() s = Shape(x) c = Expand(one, s)
        t = Shape(m) j = Expand(i, t) y = ScatterElements<axis = 1>(c, j, m) }""",
    "Pad with computed pads": """(float[n,3] x) => (float[m,k] y)
        <int64[4] p = {0, 1, 0, 2}, int64[2] two = {2, 2}, float v = {1.5}, float[3] w = {1, 2, 3},
         int64[1] minus = {-1}> { m = Mul(x, w) r = Reshape(p, two) t = Transpose(r)
        u = Transpose(t) q = Reshape(u, minus) y = Pad(m, q, v) }""",
}


class First(nn.Module):
    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)[0]


def model(name: str) -> tuple[onnx.ModelProto, Tensor]:
    if name in TEXTS:
        return onnx.parser.parse_model(HEAD + TEXTS[name]), torch.randn(4, 3)
    layer = {"LSTM": nn.LSTM, "GRU": nn.GRU}[name](3, 4, batch_first=True)
    x = torch.randn(2, 5, 3)
    return write(First(layer), (x,), Export("dynamo", 20)), x


def several(result: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return result if isinstance(result, tuple) else (result,)


@pytest.mark.parametrize("name", [*TEXTS, "LSTM", "GRU"])
def test_types_and_the_meta_device(name: str) -> None:
    torch.manual_seed(0)
    proto, x = model(name)
    want = several(OnnxModule(proto)(x))
    for dtype, error in ((torch.float64, 1e-5), (torch.float16, 1e-2), (torch.bfloat16, 6e-2)):
        module = OnnxModule(proto).to(dtype)
        for _ in range(3):  # the third time with a plan for these sizes
            got = several(module(x.to(dtype)))
        assert {g.dtype for g in got} == {dtype}
        for g, w in zip(got, want, strict=True):
            torch.testing.assert_close(g.float(), w, rtol=error, atol=error)
        back = several(module.float()(x))
        assert {b.dtype for b in back} == {torch.float32}
    got = several(OnnxModule(proto).to("meta")(x.to("meta")))
    assert [(g.shape, g.dtype, g.is_meta) for g in got] == [(w.shape, w.dtype, True) for w in want]


def test_numbers_are_those_of_the_file() -> None:
    """A type too narrow for a constant does not change it for good."""
    proto = onnx.parser.parse_model(
        HEAD + "(float[3] x) => (float[3] y) <float[3] w = {1, 2, 3}, "
        "float hi = {0.1}> { m = Mul(x, w) y = Clip(m, , hi) }"
    )
    module = OnnxModule(proto).half().double()
    x = torch.ones(3, dtype=torch.float64)
    assert module(x).tolist() == [torch.tensor(0.1).item()] * 3
    module.refresh()  # now those of the tensors, which have been through half precision
    assert module(x).tolist() == [torch.tensor(0.1).half().item()] * 3


def test_settings_survive_the_meta_device_and_a_refresh_there() -> None:
    proto, x = model("Pad with computed pads")
    module = OnnxModule(proto).to("meta")
    state = {n: t.to("meta") for n, t in module.state_dict().items()}
    module.load_state_dict(state)
    assert module(x.to("meta")).shape == OnnxModule(proto)(x).shape
