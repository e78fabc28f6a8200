"""Example inputs have the declared types, and shapes that match."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from onnx import TensorProto

from onnxinterp import InputError
from onnxinterp.graph.ir import ValueInfo
from onnxinterp.verify.inputs import choose_shapes, evaluate, random_inputs


def info(name: str, *shape: int | str | None, elem_type: int = TensorProto.FLOAT) -> ValueInfo:
    return ValueInfo(name, elem_type, shape, "tensor")


def test_defaults_of_an_image_are_named() -> None:
    chosen = choose_shapes([info("image", "batch", 3, None, None)], {})
    assert chosen.sizes == {"image": (1, 3, 224, 224)}
    assert chosen.assumed == {"batch": 1, "image axis 2": 224, "image axis 3": 224}


def test_declared_sizes_need_no_default() -> None:
    chosen = choose_shapes([info("x", 2, 5), info("s")], {})
    assert chosen.sizes == {"x": (2, 5), "s": ()}
    assert not chosen.assumed


def test_a_symbol_has_one_size_everywhere() -> None:
    inputs = [info("ids", "batch", "length"), info("mask", "batch", "past + length")]
    chosen = choose_shapes(inputs, {"ids": (3, 7)})
    assert chosen.sizes["ids"] == (3, 7)
    assert chosen.sizes["mask"][0] == 3
    past = choose_shapes([*inputs, info("cache", "batch", "past", 4)], {"ids": (3, 7)})
    assert past.sizes["mask"][1] == past.sizes["cache"][1] + 7
    assert "length" not in past.assumed


@pytest.mark.parametrize("symbol", ["n", "x.1", "batch-size", "?", "unk__2", "a b"])
def test_any_name_is_a_symbol(symbol: str) -> None:
    inputs = [info("x", symbol, 2), info("y", 5, symbol)]
    first, second = choose_shapes(inputs, {}).sizes.values()
    assert first[0] == second[1]
    first, second = choose_shapes(inputs, {"x": (9, 2)}).sizes.values()
    assert (first, second) == ((9, 2), (5, 9))


@pytest.mark.parametrize("shape", [(1, 3), (1, 2, 3), (2, 5)])
def test_a_shape_that_contradicts_the_model_is_refused(shape: tuple[int, ...]) -> None:
    inputs = [info("x", "n", 5), info("y", "n")]
    with pytest.raises(InputError, match="does not fit"):
        choose_shapes(inputs, {"x": shape, "y": (1,)})


def test_an_unknown_name_and_an_unknown_rank_are_refused() -> None:
    with pytest.raises(InputError, match=r"no input 'z'; its inputs are 'x'"):
        choose_shapes([info("x", 1)], {"z": (1,)})
    anything = ValueInfo("x", TensorProto.FLOAT, None, "tensor")
    with pytest.raises(InputError, match="rank of input 'x'"):
        choose_shapes([anything], {})
    assert choose_shapes([anything], {"x": (2, 2)}).sizes == {"x": (2, 2)}


@pytest.mark.parametrize(
    ("text", "value"),
    [("n", 4), ("n + 1", 5), ("2*n - 1", 7), ("n // 2", 2), ("m", None), ("n/0", None), ("", None)],
)
def test_expressions_of_symbols(text: str, value: int | None) -> None:
    assert evaluate(text, {"n": 4}) == value


def test_only_arithmetic_is_evaluated() -> None:
    assert evaluate("__import__('os').getpid()", {}) is None


@pytest.mark.parametrize(
    ("elem_type", "dtype", "largest"),
    [
        (TensorProto.FLOAT, torch.float32, 10),
        (TensorProto.FLOAT16, torch.float16, 10),
        (TensorProto.BFLOAT16, torch.bfloat16, 10),
        (TensorProto.INT64, torch.int64, 1),
        (TensorProto.INT32, torch.int32, 1),
        (TensorProto.UINT8, torch.uint8, 127),
        (TensorProto.INT4, torch.int8, 1),
        (TensorProto.BOOL, torch.bool, 1),
        (TensorProto.COMPLEX64, torch.complex64, 10),
    ],
)
def test_values_by_type(elem_type: int, dtype: torch.dtype, largest: int) -> None:
    value = random_inputs([info("x", 20, 5, elem_type=elem_type)], {"x": (20, 5)})["x"]
    assert value.dtype == dtype
    assert value.shape == (20, 5)
    magnitude = value.abs() if value.is_complex() else value.double().abs()
    assert 0 < magnitude.max() <= largest
    if not dtype.is_floating_point and not dtype.is_complex:
        assert value.double().min() >= 0


def test_strings_and_seeds() -> None:
    words = random_inputs([info("s", 4, elem_type=TensorProto.STRING)], {"s": (4,)})["s"]
    assert words.dtype == object
    assert all(isinstance(w, str) for w in words)
    again, other = (random_inputs([info("x", 3)], {"x": (3,)}, seed)["x"] for seed in (0, 1))
    assert torch.equal(again, random_inputs([info("x", 3)], {"x": (3,)})["x"])
    assert not torch.equal(again, other)
    assert isinstance(words, np.ndarray)


def test_only_tensors_have_random_values() -> None:
    with pytest.raises(InputError, match="must be a tensor"):
        random_inputs([ValueInfo("s", kind="sequence")], {})
