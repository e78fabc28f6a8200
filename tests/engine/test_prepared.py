"""What a kernel makes of its attributes once: `prepare` in its registration."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import onnx
import pytest
import torch
from torch import Tensor

import onnxinterp
from onnxinterp import InvalidModelError, OnnxModule
from onnxinterp.registry import KERNELS

DOMAIN = "test.prepared"
CALLS: list[dict[str, Any]] = []


def table(*, order: list[int]) -> tuple[Tensor, int]:
    CALLS.append({"order": order})
    if sorted(order) != list(range(len(order))):
        raise ValueError("no permutation")
    return torch.tensor(order), len(order)


def permuted(x: Tensor, *, scale: Tensor, order: list[int], prepared: tuple[Tensor, int]) -> Tensor:
    assert len(order) == prepared[1]
    return x[prepared[0]] * scale


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:
    CALLS.clear()
    onnxinterp.op("Permuted", since=1, domain=DOMAIN, prepare=table)(permuted)
    yield
    del KERNELS[DOMAIN, "Permuted"]


def model(attributes: str) -> OnnxModule:
    text = f"""<ir_version: 8, opset_import: ["{DOMAIN}": 1]>
    g (float[N] x) => (float[N] y) {{ [p] y = {DOMAIN}.Permuted <{attributes}> (x) }}"""
    return OnnxModule(onnx.parser.parse_model(text))


def test_it_is_made_once_and_follows_the_module() -> None:
    module = model("order: ints = [2, 0, 1], scale: floats = [1.0, 2.0, 3.0]")
    for n in (3, 3, 3):
        assert module(torch.arange(float(n))).tolist() == [2.0, 0.0, 3.0]
    module.refresh()
    assert module.to("meta")(torch.empty(3, device="meta")).is_meta
    assert CALLS == [{"order": [2, 0, 1]}]


def test_floats_that_are_wanted_as_a_tensor_are_a_weight() -> None:
    module = model("order: ints = [1, 0], scale: floats = [1.0, 2.0]")
    assert list(module.weights) == ["p.scale"]
    module(torch.ones(2)).sum().backward()
    assert module.weights["p.scale"].grad.tolist() == [1.0, 1.0]


def test_what_it_refuses_makes_the_model_invalid() -> None:
    with pytest.raises(InvalidModelError, match=r"node 'p' \(Permuted\): no permutation"):
        model("order: ints = [1, 1], scale: floats = [1.0]")


def test_other_attributes_are_still_refused() -> None:
    with pytest.raises(InvalidModelError, match="has no attribute 'size'"):
        model("order: ints = [0], scale: floats = [1.0], size = 3")
