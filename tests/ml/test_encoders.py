"""LabelEncoder, CategoryMapper, OneHotEncoder: what the oracles leave open or answer otherwise."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from onnx import numpy_helper

from onnxinterp import InvalidModelError, NodeError, OnnxModule
from tests.ml.one_operator import (
    DOUBLE,
    FLOAT,
    INT64,
    STRING,
    answer,
    model,
    strings,
    tensor_type,
)

WORDS, NUMBERS = tensor_type(STRING, ("n",)), tensor_type(INT64, ("n",))
FLOATS, DOUBLES = tensor_type(FLOAT, ("n",)), tensor_type(DOUBLE, ("n",))


def array(*values: Any, dtype: Any) -> Any:
    return numpy_helper.from_array(torch.tensor(values, dtype=dtype).numpy())


def test_of_a_repeated_key_the_last_counts_as_version_4_says() -> None:
    twice = {"keys_strings": ["a", "a"], "values_int64s": [1, 2]}
    assert answer("LabelEncoder", 4, WORDS, strings("a"), **twice) == [2]
    numbers = {"keys_int64s": [5, 5], "values_strings": ["p", "q"]}
    assert answer("LabelEncoder", 4, NUMBERS, torch.tensor([5]), **numbers) == ["q"]


def test_of_a_repeated_key_the_first_counts_before_version_4_as_in_onnxruntime() -> None:
    twice = {"keys_strings": ["a", "a"], "values_int64s": [1, 2]}
    assert answer("LabelEncoder", 2, WORDS, strings("a"), **twice) == [1]


@pytest.mark.parametrize("opset", [2, 4])
def test_nan_is_a_key_and_zero_has_no_sign(opset: int) -> None:
    labels = {"keys_floats": [math.nan, -0.0, 1.0], "values_strings": ["none", "zero", "one"]}
    x = torch.tensor([math.nan, 0.0, -0.0, 1.0, 2.0])
    want = ["none", "zero", "zero", "one", "_Unused"]
    assert answer("LabelEncoder", opset, FLOATS, x, **labels) == want


def test_nan_may_be_the_only_key() -> None:
    labels = {"keys_floats": [math.nan], "values_int64s": [3]}
    assert answer("LabelEncoder", 4, FLOATS, torch.tensor([math.nan, 1.0]), **labels) == [3, -1]


def test_double_keys_are_compared_in_double() -> None:
    labels = {"keys_tensor": array(0.1, 0.2, dtype=torch.float64), "values_int64s": [1, 2]}
    near = [0.1, 0.2, 0.1 + 2**-50]
    x = torch.tensor(near, dtype=torch.float64)
    assert answer("LabelEncoder", 4, DOUBLES, x, **labels) == [1, 2, -1]


def test_a_default_of_another_type_than_the_values_counts_as_absent() -> None:
    doubles = {"keys_strings": ["a"], "values_tensor": array(0.5, dtype=torch.float64)}
    got = answer("LabelEncoder", 4, WORDS, strings("x"), **doubles, default_float=7.0)
    assert got == [-0.0]
    assert math.copysign(1, got[0]) == -1
    small = {"keys_strings": ["a"], "values_tensor": array(5, dtype=torch.int16)}
    assert answer("LabelEncoder", 4, WORDS, strings("x"), **small, default_int64=7) == [-1]


def test_lists_that_an_exporter_left_empty_say_nothing() -> None:
    proto = model("LabelEncoder", 2, WORDS, keys_strings=["a"], values_int64s=[4])
    empty = proto.graph.node[0].attribute.add(name="keys_int64s")
    empty.type = empty.INTS
    assert OnnxModule(proto)(strings("a", "b")).tolist() == [4, -1]


def test_keys_and_values_have_to_be_as_many() -> None:
    with pytest.raises(InvalidModelError, match="there must be a value for each key, got 2 and 1"):
        answer("LabelEncoder", 2, WORDS, strings("a"), keys_strings=["a", "b"], values_int64s=[1])


def test_keys_of_another_kind_than_the_input_are_refused() -> None:
    with pytest.raises(NodeError, match="LabelEncoder"):
        answer("LabelEncoder", 2, WORDS, strings("a"), keys_int64s=[1], values_int64s=[1])
    with pytest.raises(NodeError, match="LabelEncoder"):
        answer(
            "LabelEncoder",
            2,
            NUMBERS,
            torch.ones(1).long(),
            keys_strings=["1"],
            values_floats=[1.0],
        )


@pytest.mark.parametrize("x", [strings("a", "z"), torch.tensor([1, 9])])
def test_without_zeros_an_unknown_category_fails(x: Any) -> None:
    given = NUMBERS if isinstance(x, torch.Tensor) else WORDS
    told: dict[str, Any] = {"cats_int64s": [1, 2]} if given is NUMBERS else {"cats_strings": ["a"]}
    assert answer("OneHotEncoder", 1, given, x[:1], **told, zeros=0)[0][0] == 1
    with pytest.raises(NodeError, match="OneHotEncoder"):
        answer("OneHotEncoder", 1, given, x, **told, zeros=0)
