"""The types of inputs are checked when the call comes, and the message says what to do."""

from __future__ import annotations

import copy

import numpy as np
import onnx.parser
import pytest
import torch
from torch.func import functional_call

from onnxinterp import InputError, OnnxModule

TEXT = """<ir_version: 8, opset_import: ["": 17]> g (float[1,3,n] x, int64[n] i) => (float[1,3,m] y)
    <float[1,3,1] w = {1, 2, 3}> { s = Mul(x, w) y = Gather<axis = 2>(s, i) }"""
X, INDEX = torch.ones(1, 3, 8), torch.arange(8)


def module() -> OnnxModule:
    return OnnxModule(onnx.parser.parse_model(TEXT))


WRONG = {
    "double": (
        X.double(),
        INDEX,
        r"'x' must be float32\[1, 3, n\], got float64\[1, 3, 8\]: use x.float",
    ),
    "half": (
        X.half(),
        INDEX,
        r"'x' must be float32\[1, 3, n\], got float16\[1, 3, 8\]: use x.float",
    ),
    "integers": (
        X.int(),
        INDEX,
        r"'x' must be float32\[1, 3, n\], got int32\[1, 3, 8\]: use x.float",
    ),
    "indices": (X, INDEX.int(), r"'i' must be int64\[n\], got int32\[8\]: use x.long"),
    "numpy": (X.numpy(), INDEX, r"'x' must be .*, got a numpy array: use torch.from_numpy\(x\)"),
    "rank": (X[0], INDEX, r"'x' must be float32\[1, 3, n\], got float32\[3, 8\]$"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_type_is_said_at_the_door(case: str) -> None:
    x, i, message = WRONG[case]
    with pytest.raises(InputError, match=f"^input {message}"):
        module()(x, i)


def test_a_dict_by_position() -> None:
    with pytest.raises(InputError, match=r"got a dict: use m\(\*\*inputs\)"):
        module()({"x": X, "i": INDEX}, INDEX)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_a_module_that_was_moved_expects_its_own_type(dtype: torch.dtype) -> None:
    moved = module().to(dtype)
    assert moved(X.to(dtype), INDEX).dtype is dtype
    name = str(dtype).removeprefix("torch.")
    with pytest.raises(InputError, match=rf"must be {name}\[1, 3, n\], got float32"):
        moved(X, INDEX)
    assert copy.deepcopy(moved).float()(X, INDEX).dtype is torch.float32


def test_autocast_and_replaced_weights_take_other_types() -> None:
    with torch.autocast("cpu", torch.bfloat16):
        module()(X.bfloat16(), INDEX)
    weights = {n: p.detach().double() for n, p in module().named_parameters()}
    assert functional_call(module(), weights, (X.double(), INDEX)).dtype is torch.float64


def test_an_input_of_another_type_than_the_weights() -> None:
    text = TEXT.replace("float[1,3,n] x", "float16[1,3,n] x")
    text = text.replace("{ s = Mul(x,", "{ c = Cast<to = 1>(x) s = Mul(c,")
    mixed = OnnxModule(onnx.parser.parse_model(text))
    assert mixed(X.half(), INDEX).dtype is torch.float32
    with pytest.raises(InputError, match="must be float16"):
        mixed(X, INDEX)


def test_without_weights_a_model_takes_what_its_kernels_take() -> None:
    text = '<ir_version: 8, opset_import: ["": 17]> g (float[n] x) => (float[n] y) { y = Tanh(x) }'
    plain = OnnxModule(onnx.parser.parse_model(text))
    assert plain(torch.ones(2, dtype=torch.float64)).dtype is torch.float64
    with pytest.raises(InputError, match="numpy"):
        plain(np.ones(2, np.float32))
