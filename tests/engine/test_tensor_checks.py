"""What a tensor in a file must be: its numbers are checked before any memory is asked for."""

from __future__ import annotations

import math
import tracemalloc
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import SparseTensorProto, TensorProto, helper, numpy_helper

from onnxinterp import InvalidModelError, OnnxModule, UnsafeModelError
from onnxinterp.dtypes import CARRIER
from onnxinterp.format.tensor_checks import (
    BITS,
    check_tensor,
    check_weights,
    dense_bytes,
    raw_bytes,
)
from onnxinterp.format.tensor_reader import TensorReader
from onnxinterp.limits import Limits
from onnxinterp.reading.source import complete

T = TensorProto
FLOAT, INT64, STRING = T.FLOAT, T.INT64, T.STRING
KINDS = sorted(CARRIER)


def tensor(kind: int, dims: list[int], **fields: Any) -> TensorProto:
    return TensorProto(name="t", data_type=kind, dims=dims, **fields)


def refused(proto: TensorProto, text: str, error: type[Exception] = InvalidModelError) -> None:
    """The check refuses it, and so does the reader."""
    for look in (check_tensor, TensorReader(None)):
        with pytest.raises(error, match=text):
            look(proto)


@pytest.mark.parametrize("kind", KINDS, ids=T.DataType.Name)
@pytest.mark.parametrize("count", [0, 1, 2, 3, 4, 5, 8])
def test_what_writers_make_passes(kind: int, count: int) -> None:
    """Raw and typed, packed types with odd numbers of elements too; an entry more fails."""
    dtype = helper.tensor_dtype_to_np_dtype(kind)
    raw = numpy_helper.from_array(np.ones(count, dtype), "t")
    typed = helper.make_tensor("t", kind, [count], np.ones(count, dtype).tolist())
    assert len(raw.raw_data) == raw_bytes(kind, count)
    for proto in (raw, typed):
        value = TensorReader(None)(proto)
        assert isinstance(value, torch.Tensor)
        assert (value.dtype, tuple(value.shape)) == (CARRIER[kind], (count,))
        assert dense_bytes(proto) == value.nbytes
    raw.raw_data += b"\0"
    refused(raw, r"must have \d+ entries, got \d+")
    (field,) = [f for f, _ in typed.ListFields() if f.name.endswith("_data")] or [None]
    if field is not None:
        getattr(typed, field.name).append(1)
        refused(typed, r"must have \d+ entries, got \d+")


SHAPES: dict[str, tuple[TensorProto, str]] = {
    "negative": (tensor(FLOAT, [-1], raw_data=b"1234"), "shape"),
    "negative twice": (tensor(FLOAT, [-1, -1], raw_data=b"1234"), "shape"),
    "least": (tensor(FLOAT, [-(2**63)]), "shape"),
    "largest": (tensor(FLOAT, [2**63 - 1]), "shape"),
    "product of 2**64": (tensor(FLOAT, [2**32, 2**32]), "shape"),
    "product of 2**64 and a bit": (tensor(T.INT8, [2**33, 2**31], raw_data=b""), "shape"),
    "bytes overflow, elements do not": (tensor(T.DOUBLE, [2**60]), "shape"),
    "more than there is": (
        tensor(FLOAT, [2**40], raw_data=b"1234"),
        "4398046511104 entries, got 4",
    ),
    "nothing there": (tensor(FLOAT, [1]), "1 entries, got 0"),
    "empty, and vast": (tensor(FLOAT, [0, 2**62]), "shape"),
    "empty, with data": (tensor(FLOAT, [0], float_data=[1]), "0 entries, got 1"),
    "65 dimensions": (tensor(FLOAT, [1] * 65, float_data=[1]), "65 dimensions"),
    "many dimensions": (tensor(FLOAT, [1] * 100_000, float_data=[1]), "100000 dimensions"),
}


@pytest.mark.parametrize("case", SHAPES)
def test_shapes_that_no_tensor_has(case: str) -> None:
    refused(*SHAPES[case])


@pytest.mark.parametrize("dims", [[0], [0, 2**40], [2**40, 0, 3], [1] * 64, [], [1, 1]])
def test_shapes_that_a_tensor_may_have(dims: list[int]) -> None:
    count = math.prod(dims)
    assert tuple(TensorReader(None)(tensor(FLOAT, dims, float_data=[1] * count)).shape) == (*dims,)


FIELDS: dict[str, tuple[TensorProto, str]] = {
    "unknown type": (tensor(99, [1], raw_data=b"1"), "unknown type"),
    "negative type": (tensor(-1, [1], raw_data=b"1"), "unknown type"),
    "no type": (TensorProto(name="t", dims=[1], float_data=[1]), "unknown type"),
    "raw and typed": (tensor(FLOAT, [1], raw_data=b"1234", float_data=[1]), "got float_data"),
    "empty raw and typed": (tensor(FLOAT, [1], raw_data=b"", float_data=[1]), "got float_data"),
    "two typed": (tensor(FLOAT, [1], float_data=[1], int32_data=[1]), "got int32_data"),
    "wrong field": (
        tensor(FLOAT, [1], double_data=[1]),
        "in float_data, got double_data",
    ),
    "floats of integers": (tensor(INT64, [1], float_data=[1]), "got float_data"),
    "int32 of int64": (tensor(INT64, [1], int32_data=[1]), "got int32_data"),
    "float16 as floats": (tensor(T.FLOAT16, [1], float_data=[1]), "got float_data"),
    "uint32 as int32": (tensor(T.UINT32, [1], int32_data=[1]), "got int32_data"),
    "half a complex": (
        tensor(T.COMPLEX64, [2], float_data=[1, 2, 3]),
        "4 entries, got 3",
    ),
    "int4 one by one": (tensor(T.INT4, [4], int32_data=[1, 1, 1, 1]), "2 entries, got 4"),
    "float6 packed": (
        tensor(T.FLOAT6E2M3, [4], int32_data=[1, 1, 1]),
        "4 entries, got 3",
    ),
    "raw strings": (tensor(STRING, [1], raw_data=b"a"), "cannot be raw"),
    "too few strings": (tensor(STRING, [2], string_data=[b"a"]), "2 entries, got 1"),
    "too many strings": (
        tensor(STRING, [1], string_data=[b"a", b"b"]),
        "1 entries, got 2",
    ),
    "strings beside numbers": (tensor(FLOAT, [1], float_data=[1], string_data=[b"a"]), "string_"),
    "a segment": (tensor(FLOAT, [1], float_data=[1], segment=T.Segment(begin=0, end=1)), "segment"),
    "external and raw": (tensor(FLOAT, [1], raw_data=b"1234", data_location=1), "and raw_data"),
    "external and typed": (tensor(FLOAT, [1], float_data=[1], data_location=1), "and float_data"),
    "external strings": (tensor(STRING, [1], data_location=1), "cannot be external"),
    "external without a place": (tensor(FLOAT, [1], data_location=1), "external data ''"),
}


@pytest.mark.parametrize("case", FIELDS)
def test_data_stand_in_one_field_that_of_the_type(case: str) -> None:
    refused(*FIELDS[case])


def test_an_unknown_place_is_no_place() -> None:
    """An enumeration of protobuf drops what it does not know: then there are no data."""
    refused(
        TensorProto.FromString(tensor(FLOAT, [1]).SerializeToString() + b"\x70\x07"),
        "1 entries, got 0",
    )


@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [
        (T.INT8, [-128, 127], [-129, 128]),
        (T.UINT8, [0, 255], [-1, 256]),
        (T.INT16, [-(2**15), 2**15 - 1], [-(2**15) - 1, 2**15]),
        (T.UINT16, [0, 65535], [-1, 65536]),
        (T.FLOAT16, [0, 65535, -1], [65536, -65536]),
        (T.BFLOAT16, [0, 65535, -1], [65536, -65536]),
        (T.FLOAT8E4M3FN, [0, 255, -1], [256, -256]),
        (T.UINT4, [0, 255], [256]),
        (T.INT2, [0, 255], [256]),
        (T.FLOAT6E2M3, [0, 63], [64, -1]),
        (T.UINT32, [0, 2**32 - 1], [2**32, 2**64 - 1]),
    ],
)
def test_numbers_of_a_field_are_within_the_type(kind: int, good: list[int], bad: list[int]) -> None:
    """Of floats and packed types the field has bits, with the sign or without."""
    field = "uint64_data" if kind == T.UINT32 else "int32_data"
    elements = 8 // BITS[kind] if BITS[kind] in (2, 4) else 1
    for number in good:
        TensorReader(None)(tensor(kind, [elements], **{field: [number]}))
    for number in bad:
        with pytest.raises(InvalidModelError, match=r"numbers must be from -?\d+ to \d+"):
            TensorReader(None)(tensor(kind, [elements], **{field: [number]}))


def sparse(dims: list[int], values: TensorProto, indices: TensorProto) -> SparseTensorProto:
    values.name = "s"
    return SparseTensorProto(dims=dims, values=values, indices=indices)


def floats(*numbers: float) -> TensorProto:
    return tensor(FLOAT, [len(numbers)], float_data=numbers)


def rows(*numbers: Any) -> TensorProto:
    return numpy_helper.from_array(np.array(numbers, np.int64))


SPARSE: dict[str, tuple[SparseTensorProto, str]] = {
    "twice": (sparse([4], floats(1, 2), rows(1, 1)), "ascend"),
    "descending": (sparse([4], floats(1, 2), rows(2, 1)), "ascend"),
    "rows descending": (sparse([2, 2], floats(1, 2), rows([1, 0], [0, 1])), "ascend"),
    "outside": (sparse([4], floats(1), rows(4)), "outside"),
    "negative": (sparse([4], floats(1), rows(-1)), "outside"),
    "row outside, position inside": (sparse([2, 2], floats(1), rows([0, 3])), "outside"),
    "negative column": (sparse([2, 2], floats(1), rows([1, -1])), "outside"),
    "position overflows": (sparse([2, 2], floats(1), rows([2**62, 2**62])), "outside"),
    "in nothing": (sparse([0], floats(1), rows(0)), "outside"),
    "fewer indices": (sparse([4], floats(1, 2), rows(1)), "rank 1 has"),
    "more indices": (sparse([4], floats(1), rows(1, 2)), "rank 1 has"),
    "short rows": (sparse([2, 2, 2], floats(1, 2), rows([0, 0], [1, 1])), "rank 3 has"),
    "values of rank 2": (sparse([4], tensor(FLOAT, [1, 1], float_data=[1]), rows(1)), "rank 1 has"),
    "values of rank 0": (sparse([4], tensor(FLOAT, [], float_data=[1]), rows(1)), "rank 1 has"),
    "cubes of indices": (sparse([4], floats(1), rows([[1]])), "rank 1 has"),
    "int32": (sparse([4], floats(1), tensor(T.INT32, [1], int32_data=[1])), "must be int64"),
    "strings": (sparse([4], tensor(STRING, [1], string_data=[b"a"]), rows(1)), "strings"),
    "too few values": (
        sparse([4], tensor(FLOAT, [2], float_data=[1]), rows(1, 2)),
        "2 entries, got 1",
    ),
    "negative shape": (sparse([-4], floats(), rows()), "shape"),
    "vast shape": (sparse([2**40, 2**40], floats(), rows()), "shape"),
    "no parts": (SparseTensorProto(dims=[4]), "unknown type"),
}


@pytest.mark.parametrize("case", SPARSE)
def test_sparse_tensors_that_mean_nothing(case: str) -> None:
    proto, text = SPARSE[case]
    with pytest.raises(InvalidModelError, match=text):
        TensorReader(None).sparse(proto)


def test_sparse_tensors_that_mean_something() -> None:
    read = TensorReader(None).sparse
    assert read(sparse([2, 2], floats(5, 7), rows([0, 1], [1, 0]))).tolist() == [[0, 5], [7, 0]]
    assert read(sparse([], floats(5), rows(0))).tolist() == 5
    assert read(sparse([3], floats(), rows())).tolist() == [0, 0, 0]
    assert read(sparse([0, 3], floats(), rows())).shape == (0, 3)


@pytest.mark.parametrize("limits", [Limits(), Limits(weight_bytes=2**20), Limits.untrusted()])
def test_a_small_sparse_tensor_cannot_become_a_vast_one(limits: Limits) -> None:
    """4 GiB are the most where no limit is set: the file does not have to ship them."""
    proto = sparse([2**34], floats(1), rows(5))
    with pytest.raises(UnsafeModelError, match=r"limits\.weight_bytes"):
        TensorReader(None, limits).sparse(proto)


def test_nothing_is_asked_for_that_is_not_there() -> None:
    """Neither the check nor the reader takes memory for what a shape claims."""
    claims = [tensor(FLOAT, [2**34], raw_data=b"1234"), tensor(STRING, [2**34], string_data=[b"a"])]
    claims += [tensor(T.INT4, [2**34], int32_data=[1]), tensor(T.DOUBLE, [2**34])]
    tracemalloc.start()
    for proto in claims:
        refused(proto, r"must have \d+ entries, got \d+")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**20


def model_with(where: str, proto: TensorProto) -> onnx.ModelProto:
    """Make y = x with a tensor somewhere in it, in a place that nothing reads."""
    node = helper.make_node("Identity", ["x"], ["y"])
    x, y = (helper.make_tensor_value_info(n, FLOAT, [1]) for n in "xy")
    graph = helper.make_graph([node], "g", [x], [y])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    sparse_tensor = SparseTensorProto(dims=proto.dims, values=proto, indices=rows())
    attribute = onnx.AttributeProto(name="value", type=onnx.AttributeProto.TENSOR, t=proto)
    constant = onnx.NodeProto(op_type="Constant", output=["c"], attribute=[attribute])
    if where == "initializer":
        model.graph.initializer.append(proto)
    elif where == "sparse initializer":
        model.graph.sparse_initializer.append(sparse_tensor)
    elif where == "attribute":
        model.graph.node.append(constant)
    elif where == "subgraph":
        inner = helper.make_graph([constant], "inner", [], [y])
        model.graph.node.append(helper.make_node("If", ["x"], ["z"], then_branch=inner))
    elif where == "function":
        model.functions.add(name="f", domain="mine", output=["c"], node=[constant])
    else:
        model.training_info.add().algorithm.initializer.append(proto)
    return model


PLACES = ["initializer", "sparse initializer", "attribute", "subgraph", "function", "training"]


@pytest.mark.parametrize("where", PLACES)
def test_all_tensors_of_a_model_are_looked_at_wherever_they_are(where: str) -> None:
    for proto, text in [
        (tensor(FLOAT, [-1]), "shape"),
        (tensor(99, [1]), "unknown type"),
        (tensor(FLOAT, [2**20], data_location=1), "external data ''"),
    ]:
        with pytest.raises(InvalidModelError, match=text):
            OnnxModule(model_with(where, proto))
    large = model_with(where, tensor(FLOAT, [2**20], raw_data=bytes(2**22)))
    check_weights(large, Limits(weight_bytes=2**24))
    with pytest.raises(UnsafeModelError, match=r"limits\.weight_bytes"):
        check_weights(large, Limits(weight_bytes=2**22 - 1))


def test_a_complete_model_has_been_checked() -> None:
    with pytest.raises(InvalidModelError, match=r"must have \d+ entries, got \d+"):
        complete(model_with("initializer", tensor(FLOAT, [2], float_data=[1])))
