"""Convert maps to tensors and back: DictVectorizer, CastMap, ZipMap.

History: 1 (all). A map is a Python dict whose values are numbers or strings; like strings, it is on
the host. As in onnxruntime a map becomes a row, [1, n]; in the specification, [n].
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
import torch
from onnx import TensorProto
from torch import Tensor

from onnxinterp.dtypes import CARRIER
from onnxinterp.ops.ml.registration import ML, ml_op
from onnxinterp.registry import op, sample
from onnxinterp.runtime.guard import reserve
from onnxinterp.testing.samples import Call, Draw, call
from onnxinterp.values import Ints, Strings, host_of, round_to


def _row(values: list[Any], elem_type: int, device: torch.device) -> Tensor | Strings:
    """Numbers or strings as a tensor or an array of shape [1, n]."""
    if elem_type == TensorProto.STRING:
        return np.array([values], dtype=object)
    return torch.tensor([values], dtype=CARRIER[elem_type], device=device)


def _type_of_a_map(_attributes: dict[str, Any], inputs: Sequence[int]) -> int:
    return inputs[0] if inputs else 0


@ml_op("DictVectorizer", since=1, any_type=True, infer_output_type=_type_of_a_map)
def dict_vectorizer(
    X: dict[Any, Any],
    *,
    int64_vocabulary: Ints | None = None,
    string_vocabulary: list[str] | None = None,
    input_type: int = 0,
    device: torch.device,
) -> Tensor | Strings:
    """The values of the map in the order of the vocabulary, 0 or "" for missing keys.

    Keys outside of the vocabulary are omitted, as in onnxruntime; the specification forbids them.
    """
    elem_type = input_type or _elem_type(X)
    absent = "" if elem_type == TensorProto.STRING else 0
    vocabulary = string_vocabulary or int64_vocabulary or []
    return _row([X.get(key, absent) for key in vocabulary], elem_type, device)


def _elem_type(X: dict[Any, Any]) -> int:
    """The type of the values of a map, if the graph does not declare it."""
    types = {str: TensorProto.STRING, int: TensorProto.INT64}
    return types.get(type(next(iter(X.values()), 0.0)), TensorProto.FLOAT)


def _format(value: float | str) -> str:
    """Six digits after the point, as in onnxruntime."""
    return value if isinstance(value, str) else f"{round_to(torch.float32, value):f}"


NUMBER = 64  # bytes of a number as a Python object in a list or a dict
MAP = 256  # bytes of a small dict

CASTS: dict[str, tuple[int, Callable[[Any], Any], Any]] = {  # type, from a string, absent
    "TO_FLOAT": (TensorProto.FLOAT, float, 0.0),
    "TO_INT64": (TensorProto.INT64, int, 0),
    "TO_STRING": (TensorProto.STRING, str, "0.f"),
}


def _type_cast_to(attributes: dict[str, Any], _inputs: Sequence[int]) -> int:
    return CASTS.get(attributes.get("cast_to", "TO_FLOAT"), (0,))[0]


@ml_op("CastMap", since=1, any_type=True, infer_output_type=_type_cast_to)
def cast_map(
    X: dict[int, Any],
    *,
    cast_to: Literal["TO_FLOAT", "TO_STRING", "TO_INT64"] = "TO_FLOAT",
    map_form: Literal["DENSE", "SPARSE"] = "DENSE",
    max_map: int = 1,
    device: torch.device,
) -> Tensor | Strings:
    """The values of the map in the order of their keys, or, if sparse, at the position of the key.

    In the sparse form keys from max_map on are omitted, and a position without a key is 0. As a
    string this is "0.f" as in onnxruntime; the specification does not define it.
    """
    elem_type, parse, absent = CASTS[cast_to]
    if map_form == "SPARSE" and min(X, default=0) < 0:
        raise ValueError(f"keys must not be negative, got {min(X)}")
    keys = range(max_map) if map_form == "SPARSE" else sorted(X)
    reserve(NUMBER * len(keys))
    values = [X.get(key, absent) for key in keys]
    if elem_type == TensorProto.STRING:
        return _row([_format(v) for v in values], elem_type, device)
    numbers = [parse(v) if isinstance(v, str) else v for v in values]
    floats = not all(isinstance(n, int) for n in numbers)
    row = _row(numbers, TensorProto.FLOAT if floats else elem_type, device)
    return row.to(CARRIER[elem_type]) if isinstance(row, Tensor) else row


@op("ZipMap", since=1, domain=ML)
def zip_map(
    X: Tensor,
    *,
    classlabels_int64s: Ints | None = None,
    classlabels_strings: list[str] | None = None,
) -> list[dict[Any, float]]:
    """A map from labels to scores for each row: plain numbers without a gradient."""
    labels = classlabels_strings or classlabels_int64s or []
    if X.ndim > 2:
        raise ValueError(f"X must have rank 1 or 2, got {list(X.shape)}")
    reserve(NUMBER * X.numel() + MAP * len(X))
    rows = host_of(X if X.ndim > 1 else X.unsqueeze(0)).data
    return [dict(zip(labels, row, strict=True)) for row in rows]


WORDS = ("a", "b", "", "c d", "é")


@sample(dict_vectorizer)
def _(d: Draw) -> Call:
    """Maps of all types; the Python type of the values decides, float is float32."""
    words = d.boolean()
    vocabulary: list[Any] = [*WORDS] if words else [3, -1, 0, 7, 2**40]
    keys = [vocabulary[i] for i in d.permutation(len(vocabulary))[: d.integer(1, 5)]]
    value = d.choice(["float", "int64" if words else "string"])
    numbers = [d.real(-4, 4) for _ in keys]
    values = {"float": numbers, "int64": map(int, numbers), "string": map(str, numbers)}[value]
    lists = {"string_vocabulary": vocabulary} if words else {"int64_vocabulary": vocabulary}
    return call(dict(zip(keys, values, strict=True)), **lists)


@sample(cast_map)
def _(d: Draw) -> Call:
    """Maps of floats: no oracle supports strings as values."""
    form = d.maybe(d.choice(["DENSE", "SPARSE"]))
    keys = d.permutation(6)[: d.integer(1, 5)]
    return call(
        {key: d.real(-4, 4) for key in keys},
        cast_to=d.maybe(d.choice(["TO_FLOAT", "TO_STRING", "TO_INT64"])),
        map_form=form,
        max_map=d.maybe(d.integer(1, 8)),
    )


@sample(zip_map)
def _(d: Draw) -> Call:
    places = d.permutation(5)[: d.integer(1, 5)]
    x = d.floats((*d.shape(max_dims=1), len(places)))
    if d.boolean():
        return call(x, classlabels_strings=[WORDS[i] for i in places])
    return call(x, classlabels_int64s=places)
