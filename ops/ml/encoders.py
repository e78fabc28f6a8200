"""Map labels to other labels: LabelEncoder, CategoryMapper, OneHotEncoder.

History: LabelEncoder 1 (strings and their positions in a list), 2 (keys to values), 4 (keys and
values may be tensors, of more types; NaN equals NaN). CategoryMapper 1, OneHotEncoder 1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from onnx import TensorProto
from torch import Tensor

from onnxinterp.ops.ml.labels import Given, Labels, labels_of
from onnxinterp.ops.ml.registration import ml_op
from onnxinterp.registry import sample
from onnxinterp.testing.samples import Call, Draw, call
from onnxinterp.values import Flag, Strings
from onnxinterp.versions import forwards, older


class Coding(NamedTuple):
    """A map of labels: a key becomes the value at its position, another label the default."""

    keys: Labels
    values: Labels
    default: Any = None

    def __call__(self, X: Tensor | Strings, device: torch.device) -> Tensor | Strings:
        """The values, of the shape of X."""
        return self.values.take(self.keys.find(X), self.default, device)


def _coding(keys: Labels, values: Labels, default: Any = None) -> Coding:
    if keys.size != values.size:
        raise ValueError(f"there must be a value for each key, got {keys.size} and {values.size}")
    return Coding(keys, values, default)


def _default_of(values: Labels, of_floats: float, of_int64s: int, of_strings: str) -> Any:
    """The default for the type of the values."""
    if values.numbers is None:
        return of_strings
    dtype = values.numbers.dtype
    default = {torch.float32: of_floats, torch.int64: of_int64s}.get(dtype)
    if default is None:
        return -0.0 if dtype.is_floating_point else -1
    return default


def _type_of_values(attributes: dict[str, Any], _inputs: Sequence[int]) -> int:
    """The type of the values of the node: that of the output from version 2 on."""
    tensor = attributes.get("values_tensor")
    if isinstance(tensor, TensorProto):
        return int(tensor.data_type)
    if attributes.get("values_strings"):
        return int(TensorProto.STRING)
    return int(TensorProto.INT64 if attributes.get("values_int64s") else TensorProto.FLOAT)


def _other_type(_attributes: dict[str, Any], inputs: Sequence[int]) -> int:
    """Integers for strings, strings for integers."""
    strings, integers = int(TensorProto.STRING), int(TensorProto.INT64)
    return {strings: integers, integers: strings}.get(inputs[0], 0) if inputs else 0


def _encode(
    first_counts: bool,
    *,
    default_float: float = -0.0,
    default_int64: int = -1,
    default_string: str = "_Unused",
    default_tensor: Given = None,
    keys_floats: Given = None,
    keys_int64s: Given = None,
    keys_strings: Given = None,
    keys_tensor: Given = None,
    values_floats: Given = None,
    values_int64s: Given = None,
    values_strings: Given = None,
    values_tensor: Given = None,
) -> Coding:
    given = keys_tensor, keys_strings, keys_int64s, keys_floats
    keys = labels_of(*given, first_counts=first_counts)
    values = labels_of(values_tensor, values_strings, values_int64s, values_floats)
    default = _default_of(values, default_float, default_int64, default_string)
    if default_tensor is not None and len(default_tensor):
        default = default_tensor[0]
    return _coding(keys, values, default)


@forwards(_encode)
def _encoding(**attributes: Any) -> Coding:
    return _encode(False, **attributes)


@ml_op("LabelEncoder", since=4, any_type=True, infer_output_type=_type_of_values, prepare=_encoding)
def label_encoder(
    X: Tensor | Strings, *, device: torch.device, prepared: Coding
) -> Tensor | Strings:
    """The last of equal keys counts, as in the specification; in onnxruntime the first.

    A default of another type than the values counts as absent, as in onnxruntime.
    """
    return prepared(X, device)


@forwards(_encode, without=["default_tensor", "keys_tensor", "values_tensor"])
def _encoding_2(**attributes: Any) -> Coding:
    """The first of equal keys counts, as in onnxruntime; the specification does not say which."""
    return _encode(True, **attributes)


# NaN may be a key, as the specification says; onnxruntime and the reference never find it
label_encoder_2 = older(label_encoder, since=2, prepare=_encoding_2)


def _classes(*, classes_strings: Given = None) -> Labels:
    return labels_of(classes_strings)


@ml_op("LabelEncoder", since=1, any_type=True, infer_output_type=_other_type, prepare=_classes)
def label_encoder_1(
    X: Tensor | Strings,
    *,
    default_int64: int = -1,
    default_string: str = "_Unused",
    device: torch.device,
    prepared: Labels,
) -> Tensor | Strings:
    """Strings to their positions, positions to strings."""
    count = prepared.size
    if isinstance(X, np.ndarray):
        found = torch.from_numpy(prepared.find(X)).to(device)
        return torch.where(found == count, default_int64, found)
    known = torch.where(X.ge(0) & X.lt(count), X, count)
    return prepared.take(known, default_string, device)


def _mapping(*, cats_int64s: Given = None, cats_strings: Given = None) -> Coding:
    return _coding(labels_of(cats_strings), labels_of(cats_int64s))


@ml_op("CategoryMapper", since=1, any_type=True, infer_output_type=_other_type, prepare=_mapping)
def category_mapper(
    X: Tensor | Strings,
    *,
    default_int64: int = -1,
    default_string: str = "_Unused",
    device: torch.device,
    prepared: Coding,
) -> Tensor | Strings:
    """Strings to integers and integers to strings."""
    strings, numbers, _ = prepared
    if isinstance(X, np.ndarray):
        return numbers.take(strings.find(X), default_int64, device)
    return strings.take(numbers.find(X), default_string, device)


def _categories(*, cats_int64s: Given = None, cats_strings: Given = None) -> Labels:
    return labels_of(cats_strings, cats_int64s)


@ml_op("OneHotEncoder", since=1, any_type=True, prepare=_categories)
def one_hot_encoder(
    X: Tensor | Strings,
    *,
    zeros: Flag = 1,
    output_type: torch.dtype = torch.float32,
    device: torch.device,
    prepared: Labels,
) -> Tensor:
    """Numbers are truncated; other labels become zeros, or raise if `zeros` is 0."""
    found = prepared.find(X if isinstance(X, np.ndarray) else X.to(torch.int64))
    positions = found if isinstance(found, Tensor) else torch.from_numpy(found).to(device)
    count, at = prepared.size, positions.unsqueeze(-1)
    hot = torch.zeros((*positions.shape, count), dtype=output_type, device=positions.device)
    if not zeros:
        return hot.scatter_(-1, at, 1.0)  # raises for labels that are not categories
    return hot.scatter_(-1, at.clamp(max=count - 1), (at < count).to(output_type))


LABELS: dict[str, list[Any]] = {  # the last one is never a key
    "string": ["a", "b", "", "c d", "é", "x"],
    "int64": [3, -1, 0, 7, 2**40, 5],
    "int32": [3, -1, 0, 7, 2**30, 5],
    "int16": [3, -1, 0, 7, 2**14, 5],
    "float": [1.5, -1.0, 0.0, 0.25, 3e38, 9.0],
    "double": [0.1, -1.0, 0.0, 1e-300, 1e300, 9.0],
}
LISTED = {"string": "strings", "int64": "int64s", "float": "floats"}


def _array(labels: list[Any], type: str, shape: tuple[int, ...] | None = None) -> Any:
    """Labels as a tensor or an array of strings."""
    shape = (len(labels),) if shape is None else shape
    if type != "string":
        return torch.tensor(labels, dtype=getattr(torch, type)).reshape(shape)
    return np.array(labels, dtype=object).reshape(shape)


def _draw_labels(d: Draw, type: str, most: int = 5) -> list[Any]:
    """Different labels of a type, without the one that is never a key."""
    return [LABELS[type][i] for i in d.permutation(5)[: d.integer(1, most)]]


def _draw_input(d: Draw, keys: list[Any], type: str) -> Any:
    """Keys and a value that is not a key."""
    shape = d.shape(max_dims=3)
    picked = d.ints(shape, 0, len(keys))
    known = [*keys, LABELS[type][-1]]
    return _array([known[i] for i in picked.flatten().tolist()], type, shape)


@sample(label_encoder)
def _(d: Draw) -> Call:
    """Maps between all types; those that onnxruntime lacks in the form of the reference."""
    key, value = d.choice([*LABELS]), d.choice([*LABELS])
    keys = _draw_labels(d, key)
    values = [LABELS[value][d.integer(0, 4)] for _ in keys]
    if key in ("float", "double") and value in ("string", "int64") and d.boolean():
        keys[-1] = math.nan
    rare = {"int32", "int16"} & {key, value} or {key, value} == {"float", "double"}
    attributes: dict[str, Any] = {}
    for name, labels, type in (("keys", keys, key), ("values", values, value)):
        as_list = not rare and type in LISTED and d.boolean()
        attribute = f"{name}_{LISTED[type]}" if as_list else f"{name}_tensor"
        attributes[attribute] = labels if as_list else _array(labels, type)
    default = LABELS[value][-1]
    if rare or d.boolean():
        attributes["default_tensor"] = _array([default], value)
    elif value in LISTED:
        attributes[f"default_{LISTED[value][:-1]}"] = d.maybe(default)
    return call(_draw_input(d, keys, key), **attributes)


@sample(label_encoder_2)
def _(d: Draw) -> Call:
    """A key may be repeated."""
    key, value = d.choice([*LISTED]), d.choice([*LISTED])
    keys = [*(some := _draw_labels(d, key)), d.choice(some)]
    values = [LABELS[value][d.integer(0, 4)] for _ in keys]
    default = d.maybe(LABELS[value][-1])
    lists = {f"keys_{LISTED[key]}": keys, f"values_{LISTED[value]}": values}
    return call(_draw_input(d, keys, key), **lists, **{f"default_{LISTED[value][:-1]}": default})


@sample(label_encoder_1)
def _(d: Draw) -> Call:
    classes = _draw_labels(d, "string")
    if d.boolean():
        x, default = d.ints(d.shape(), -1, len(classes)), d.maybe("none")
        return call(x, classes_strings=classes, default_string=default)
    default_int64 = d.maybe(d.integer(-9, 9))
    x = _draw_input(d, classes, "string")
    return call(x, classes_strings=classes, default_int64=default_int64)


@sample(category_mapper)
def _(d: Draw) -> Call:
    strings = [d.choice(LABELS["string"][:5]) for _ in range(d.integer(1, 6))]
    numbers = [d.choice(LABELS["int64"][:5]) for _ in strings]
    default: dict[str, Any] = {"default_string": "none"} if d.boolean() else {"default_int64": -7}
    from_strings = d.boolean()
    keys, type = (strings, "string") if from_strings else (numbers, "int64")
    x = _draw_input(d, keys, type)
    return call(x, cats_strings=strings, cats_int64s=numbers, **(default if d.boolean() else {}))


@sample(one_hot_encoder)
def _(d: Draw) -> Call:
    """Categories may be repeated, except for int32, which only the reference supports."""
    type = d.choice(["string", "int64", "float", "double", "int32"])
    name = "string" if type == "string" else "int16"
    categories = [d.choice(LABELS[name][:5]) for _ in range(d.integer(1, 6))]
    if type == "int32":
        categories = list(dict.fromkeys(categories))
    zeros = d.maybe(d.integer(0, 1))
    known = [*categories, LABELS[name][-1]] if zeros != 0 else categories
    shape = d.shape(min_dims=1, max_dims=2)
    picked = d.ints(shape, 0, len(known) - 1).flatten().tolist()
    x = _array([known[i] for i in picked], type, shape)
    if type in ("float", "double"):
        x = x + x.sign() * 0.5  # truncated by the kernel
    attribute = "cats_strings" if type == "string" else "cats_int64s"
    return call(x, zeros=zeros, **{attribute: categories})
