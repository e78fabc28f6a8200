"""What a function is made of, and made anew at each call: counted before it is opened."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from onnx import ModelProto, helper

from onnxinterp import Limits, OnnxModule, UnsafeModelError
from onnxinterp.graph import decode
from tests.engine.right_models import model

WIDE = {
    "outputs": lambda n: "y = Neg(x) " + ", ".join(f"o{k}" for k in range(n)) + " = Split(x)",
    "inputs": lambda n: f"y = Sum({', '.join(['x'] * n)})",
    "tensors": lambda n: (
        "c = Constant<value = bool {1}>() y = If(c) <then_branch = a () => (p) <"
        + ", ".join(f"float w{k} = {{1}}" for k in range(n))
        + "> { p = Neg(x) }, else_branch = b () => (q) { q = Neg(x) }>"
    ),
}


def wide(body: str, calls: int, inputs: str = "x", attributes: str = "") -> ModelProto:
    """A function that is called so often."""
    used = " ".join(f"c{i} = m.f(x)" for i in range(calls))
    return model(f"""<ir_version: 10, opset_import: ["": 17, "m": 1]>
    g (float[2] x) => (float[2] y) {{ {used} y = m.f(x) }}
    <domain: "m", opset_import: ["": 17]> f {attributes} ({inputs}) => (y) {{ {body} }}""")


@pytest.mark.parametrize("kind", WIDE)
def test_what_each_call_of_a_function_makes_anew_is_counted(kind: str) -> None:
    limits = Limits(nodes=3000)
    OnnxModule(wide(WIDE[kind](2000), 2), limits=limits)
    with pytest.raises(UnsafeModelError, match="outputs, tensors and attributes of nodes"):
        OnnxModule(wide(WIDE[kind](2000), 500), limits=limits)


def test_inputs_that_a_function_declares_are_counted() -> None:
    inputs = ", ".join(["x", *(f"i{k}" for k in range(2000))])
    with pytest.raises(UnsafeModelError, match="outputs, tensors and attributes of nodes"):
        OnnxModule(wide("y = Neg(x)", 500, inputs), limits=Limits(nodes=3000))


def test_what_the_file_spells_out_may_be_wide() -> None:
    x = ", ".join(["x"] * 2000)
    text = f'<ir_version: 8, opset_import: ["": 17]> g (float x) => (float y) {{ y = Sum({x}) }}'
    assert OnnxModule(model(text), limits=Limits(nodes=1))(torch.ones(())) == 2000


def test_defaults_and_imports_of_a_function_are_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    proto = wide("y = Neg(x)", 300)
    proto.functions[0].attribute_proto.extend(helper.make_attribute(f"a{k}", k) for k in range(300))
    counted: list[Any] = []

    def count(function: Any) -> Any:
        def counting(*arguments: Any) -> Any:
            counted.append(function)
            return function(*arguments)

        return counting

    monkeypatch.setattr(decode, "attribute_value", count(decode.attribute_value))
    monkeypatch.setattr(decode, "opsets_of", count(decode.opsets_of))
    OnnxModule(proto)
    assert len(counted) == 301, "each default, and the imports of the function"
