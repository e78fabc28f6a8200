"""Two models that are right, for tests that break them."""

from __future__ import annotations

from collections.abc import Callable

from onnx import ModelProto

from tests.models import parse as model

PLAIN = """<ir_version: 8, opset_import: ["": 17]>
g (float[2] x, float[2] z) => (float[2] y) <float[2] w = {1, 2}> {
  t = Add(x, w) y = Elu<alpha = 2.0>(t)
}"""

CALLING = """<ir_version: 8, opset_import: ["": 17, "m": 1]>
g (float[2] x) => (float[2] y) { y = m.f<k = 2.0>(x) }
<domain: "m", opset_import: ["": 17, "m": 1]>
f <k> (a) => (b) { c = Relu(a) b = Elu<alpha: float = @k>(c) }"""


def edited(change: Callable[[ModelProto], object], text: str = PLAIN) -> ModelProto:
    proto = model(text)
    change(proto)
    return proto


def replaced(old: str, new: str, text: str = PLAIN) -> ModelProto:
    assert old in text
    return model(text.replace(old, new))
