"""Tensors whose shape, type and data do not belong together, wherever a tensor may stand."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from onnx import AttributeProto, ModelProto, SparseTensorProto, TensorProto, helper

from tests.untrusted.files.case import TIGHT, Case, Must
from tests.untrusted.files.models import (
    FLOAT,
    INT64,
    STRING,
    branch,
    conditional,
    identity,
    model,
    tensor,
)

T = TensorProto
FOUR = np.arange(4, dtype=np.float32)
EXPECTED = (FOUR,)
SHIPPED = replace(TIGHT, weight_bytes=2**26)


def _raw(kind: int, dims: list[int], raw: bytes) -> TensorProto:
    return TensorProto(name="w", data_type=kind, dims=dims, raw_data=raw)


def lies() -> Iterator[tuple[str, TensorProto, Must]]:
    """Tensors called "w", and what must come of them."""
    yield from _shapes()
    yield from _fields()
    yield from _types()


SIXTEEN = FOUR.tobytes()
Lie = tuple[str, TensorProto, Must]


def _shapes() -> Iterator[Lie]:
    """Shapes that the bytes do not fill."""
    sixteen = SIXTEEN
    yield "raw-short", _raw(FLOAT, [5], sixteen), "refused"
    yield "raw-long", _raw(FLOAT, [3], sixteen), "refused"
    yield "raw-odd", _raw(FLOAT, [4], sixteen[:15]), "refused"
    yield "raw-none", _raw(FLOAT, [4], b""), "refused"
    yield "nothing", TensorProto(name="w", data_type=FLOAT, dims=[4]), "refused"
    yield "dims-minus", _raw(FLOAT, [-4], sixteen), "refused"
    yield "dims-two-minus", _raw(FLOAT, [-2, -2], sixteen), "refused"
    yield "dims-overflow", _raw(FLOAT, [2**62, 2**62], sixteen), "refused"
    yield "dims-overflow-to-4", _raw(FLOAT, [2**62 + 1, 4], sixteen), "refused"
    yield "dims-overflow-to-0", _raw(FLOAT, [2**32, 2**32], b""), "refused"
    yield "dims-lowest", _raw(FLOAT, [-(2**63)], b""), "refused"
    yield "dims-vast", _raw(FLOAT, [2**40], sixteen), "refused"
    yield "dims-vast-and-0", _raw(FLOAT, [2**62, 2**62, 0], b""), "either"
    yield "dims-minus-and-0", _raw(FLOAT, [-1, 0], b""), "refused"
    yield "dims-scalar-of-4", _raw(FLOAT, [], sixteen), "refused"
    yield "rank-1000", _raw(FLOAT, [1] * 1000, sixteen[:4]), "either"
    yield "rank-100000", _raw(FLOAT, [1] * 100_000, sixteen[:4]), "either"
    yield "honest", _raw(FLOAT, [4], sixteen), "right"


def _fields() -> Iterator[Lie]:
    """Data in other fields than the type says, or in other numbers."""
    sixteen = SIXTEEN
    yield "type-0", _raw(0, [4], sixteen), "refused"
    yield "type-99", _raw(99, [4], sixteen), "refused"
    yield "type-minus", _raw(-1, [4], sixteen), "refused"
    yield "type-2**31", _raw(2**31 - 1, [4], sixteen), "refused"
    for field, kind in (("int64_data", FLOAT), ("float_data", INT64), ("double_data", FLOAT)):
        wrong = TensorProto(name="w", data_type=kind, dims=[4], **{field: [0, 1, 2, 3]})
        yield f"{field}-of-type-{kind}", wrong, "refused"
    yield "typed-few", T(name="w", data_type=FLOAT, dims=[4], float_data=[1, 2, 3]), "refused"
    yield "typed-many", T(name="w", data_type=FLOAT, dims=[4], float_data=[0] * 5), "refused"
    both = T(name="w", data_type=FLOAT, dims=[4], float_data=[9] * 4, raw_data=sixteen)
    yield "raw-and-typed", both, "either"
    yield "strings-few", T(name="w", data_type=STRING, dims=[4], string_data=[b"a"]), "refused"
    yield "strings-many", T(name="w", data_type=STRING, dims=[1], string_data=[b"a"] * 4), "refused"
    yield "strings-vast", T(name="w", data_type=STRING, dims=[2**40]), "refused"
    yield "strings-minus", T(name="w", data_type=STRING, dims=[-1], string_data=[b"a"]), "refused"
    yield "strings-raw", _raw(STRING, [4], b"abcd"), "refused"
    cut = _raw(FLOAT, [4], sixteen)
    cut.segment.begin, cut.segment.end = 0, 2**62
    yield "segment", cut, "either"
    outside = T(name="w", data_type=FLOAT, dims=[4], data_location=T.EXTERNAL)
    outside.external_data.add(key="location", value="/etc/hostname")
    yield "external", outside, "refused"
    odd_place = T.FromString(_raw(FLOAT, [4], sixteen).SerializeToString() + b"\x70\x09")
    yield "location-unknown", odd_place, "either"


NARROWER = ((T.INT8, 300), (T.UINT8, -1), (T.BOOL, 7), (T.FLOAT16, 2**17), (T.INT4, 999))


def _types() -> Iterator[Lie]:
    """Packed, narrow and complex elements."""
    for kind in (T.INT4, T.UINT4, T.FLOAT4E2M1):
        name = T.DataType.Name(kind).lower()
        yield f"{name}-short", _raw(kind, [5], b"\x21\x43"), "refused"
        yield f"{name}-long", _raw(kind, [2], b"\x21\x43"), "refused"
        yield f"{name}-vast", _raw(kind, [2**40], b"\x21"), "refused"
        few = T(name="w", data_type=kind, dims=[9], int32_data=[33])
        yield f"{name}-typed-few", few, "refused"
    for kind, number in NARROWER:
        name = T.DataType.Name(kind).lower()
        yield f"{name}-beyond", T(name="w", data_type=kind, dims=[1], int32_data=[number]), "either"
    yield "bool-raw-7", _raw(T.BOOL, [4], b"\x00\x01\x07\xff"), "either"
    half = T(name="w", data_type=T.COMPLEX64, dims=[2], float_data=[1, 2, 3])
    yield "complex-odd", half, "refused"
    yield "complex-raw-short", _raw(T.COMPLEX128, [2], bytes(16)), "refused"


def _initializer(w: TensorProto) -> ModelProto:
    return model([identity("w", "y")], initializers=[w])


def _constant(w: TensorProto) -> ModelProto:
    return model([helper.make_node("Constant", [], ["y"], value=w)])


def _then(w: TensorProto) -> ModelProto:
    return model(conditional(branch([identity("w", "o")], "o", [w])))


def _not_taken(w: TensorProto) -> ModelProto:
    taken = branch([helper.make_node("Constant", [], ["t"], value=tensor(FOUR))], "t")
    return model(conditional(taken, branch([identity("w", "o")], "o", [w])))


def _loop(w: TensorProto) -> ModelProto:
    body = helper.make_graph(
        [identity("c", "co"), helper.make_node("Constant", [], ["o"], value=w)],
        "b",
        [helper.make_tensor_value_info("i", INT64, ()), helper.make_tensor_value_info("c", 9, ())],
        [helper.make_tensor_value_info("co", 9, ()), helper.make_empty_tensor_value_info("o")],
    )
    flat = helper.make_node("Reshape", ["s", "shape"], ["y"])
    nodes = [helper.make_node("Loop", ["m", ""], ["s"], body=body), flat]
    held = [tensor(np.int64(1), "m"), tensor(np.array([-1]), "shape")]
    return model(nodes, initializers=held)


def _function(w: TensorProto) -> ModelProto:
    inner = [helper.make_node("Constant", [], ["v"], value=w), identity("v", "o")]
    function = helper.make_function("f", "F", [], ["o"], inner, [helper.make_opsetid("", 21)])
    call = helper.make_node("F", [], ["y"], domain="f")
    return model([call], functions=[function], imports=[("f", 1)])


def _bound(w: TensorProto) -> ModelProto:
    """An attribute of a function's call."""
    inner = helper.make_node("Constant", [], ["o"])
    inner.attribute.add(name="value", ref_attr_name="v", type=AttributeProto.TENSOR)
    function = helper.make_function(
        "f", "F", [], ["o"], [inner], [helper.make_opsetid("", 21)], ["v"]
    )
    call = helper.make_node("F", [], ["y"], domain="f", v=w)
    return model([call], functions=[function], imports=[("f", 1)])


def _unused(w: TensorProto) -> ModelProto:
    return model([identity("v", "y")], initializers=[tensor(FOUR, "v"), w])


def _training(w: TensorProto) -> ModelProto:
    built = model([identity("v", "y")], initializers=[tensor(FOUR, "v")])
    built.training_info.add().algorithm.initializer.append(w)
    return built


def _default(w: TensorProto) -> ModelProto:
    """An initializer behind an input of the graph."""
    info = helper.make_tensor_value_info("w", w.data_type if 0 <= w.data_type < 24 else 1, None)
    return model([identity("w", "y")], [info], initializers=[w])


def _unknown(w: TensorProto) -> ModelProto:
    """An attribute that the operator does not have."""
    node = helper.make_node("Identity", ["v"], ["y"], odd=w)
    return model([node], initializers=[tensor(FOUR, "v")])


def _values(w: TensorProto) -> ModelProto:
    indices = T(name="i", data_type=INT64, dims=[4], int64_data=[0, 1, 2, 3])
    built = model([identity("w", "y")])
    built.graph.sparse_initializer.append(SparseTensorProto(values=w, indices=indices, dims=[4]))
    return built


PLACES: dict[str, tuple[Callable[[TensorProto], ModelProto], bool]] = {
    "initializer": (_initializer, True),
    "default": (_default, True),
    "Constant": (_constant, True),
    "If": (_then, True),
    "Loop": (_loop, True),
    "function": (_function, True),
    "bound": (_bound, True),
    "sparse": (_values, True),
    "not-taken": (_not_taken, False),
    "unused": (_unused, False),
    "training": (_training, False),
    "unknown": (_unknown, False),
}
"""How a tensor is put there, and whether the answer needs it."""

SOME = ("raw-short", "dims-overflow", "dims-vast", "type-99", "typed-few", "strings-few",
        "external", "raw-and-typed", "int4-short", "honest", "dims-minus", "rank-1000")  # fmt: skip
"""Lies that are told in every place; the others in two."""


def cases() -> Iterator[Case]:
    for name, proto, must in lies():
        for place, (put, needed) in PLACES.items():
            if name not in SOME and place not in ("initializer", "Constant"):
                continue
            content = put(proto).SerializeToString()
            wanted: Must = must if needed else "either"
            expected: Any = EXPECTED if must == "right" else None
            if place == "unknown":
                wanted, expected = "refused", None
            odd = name in ("bool-raw-7", "location-unknown", "raw-and-typed") or "beyond" in name
            yield Case(
                f"tensors/{name}/{place}",
                content,
                wanted,
                {},
                expected,
                limits=TIGHT if "vast" in name else None,
                asked=not odd and needed,
            )
    yield from _fills()
    yield from _sparse()


def _fills() -> Iterator[Case]:
    """What ConstantOfShape is to fill with: one element."""
    lies_of_one = {
        "none": T(data_type=FLOAT, dims=[0]),
        "two": tensor(FOUR[:2]),
        "scalar": tensor(np.float32(2)),
        "square": tensor(np.ones((1, 1), np.float32)),
        "short": T(data_type=FLOAT, dims=[1], raw_data=b"\0\0"),
        "text": T(data_type=STRING, dims=[1], string_data=[b"a"]),
        "type-99": T(data_type=99, dims=[1], raw_data=b"\0\0\0\0"),
        "minus": T(data_type=FLOAT, dims=[-1], raw_data=b"\0\0\0\0"),
    }
    for name, value in lies_of_one.items():
        node = helper.make_node("ConstantOfShape", ["s"], ["y"], value=value)
        content = model([node], initializers=[tensor(np.array([2, 2]), "s")]).SerializeToString()
        must: Must = "either" if name in ("scalar", "square") else "refused"
        yield Case(f"tensors/fill-{name}", content, must)


def sparse_lies() -> Iterator[tuple[str, dict[str, Any], Must]]:
    """What is changed of a vector of four elements, two of them not zero."""
    yield "index-beyond", {"indices": [1, 4]}, "refused"
    yield "index-minus", {"indices": [-1, 2]}, "refused"
    yield "index-far", {"indices": [1, 2**62]}, "refused"
    yield "index-twice", {"indices": [2, 2]}, "refused"
    yield "index-unsorted", {"indices": [2, 1]}, "either"
    yield "indices-few", {"indices": [1]}, "refused"
    yield "indices-many", {"indices": [1, 2, 3]}, "refused"
    yield "indices-none", {"indices": []}, "refused"
    yield "indices-float", {"indices": np.float32([1, 2])}, "refused"
    yield "indices-int32", {"indices": np.int32([1, 2])}, "refused"
    yield "indices-text", {"indices": np.array(["1", "2"], object)}, "refused"
    yield "indices-rank-3", {"indices": np.ones((2, 1, 1), np.int64)}, "refused"
    yield "rows-wide", {"indices": [[1, 0], [2, 0]]}, "refused"
    yield "rows-0", {"indices": np.zeros((2, 0), np.int64)}, "refused"
    yield "rows-beyond", {"indices": [[0, 5], [1, 0]], "dims": [2, 2]}, "refused"
    yield "rows-beyond-but-within", {"indices": [[0, 0], [0, 3]], "dims": [2, 2]}, "refused"
    yield "rows-minus", {"indices": [[1, -1], [1, 1]], "dims": [2, 2]}, "refused"
    yield "rows-overflow", {"indices": [[2**62, 0], [1, 1]], "dims": [2, 4]}, "refused"
    yield "dims-none", {"dims": []}, "refused"
    yield "dims-minus", {"dims": [-4]}, "refused"
    yield "dims-0", {"dims": [0]}, "refused"
    yield "dims-overflow", {"dims": [2**40, 2**40]}, "refused"
    yield "dims-vast", {"dims": [2**45]}, "refused"
    yield "dims-large", {"dims": [2**31]}, "refused"
    yield "values-rank-2", {"values": np.float32([[1, 2]])}, "refused"
    yield "values-text", {"values": np.array(["a", "b"], object)}, "either"
    yield "values-none", {"values": np.float32([]), "indices": []}, "either"
    yield "honest", {}, "right"


def _sparse() -> Iterator[Case]:
    expected = (np.float32([0, 5, 6, 0]),)
    for name, change, must in sparse_lies():
        parts = {"values": np.float32([5, 6]), "indices": [1, 2], "dims": [4], **change}
        indices = np.array(parts["indices"])
        indices = (
            indices.astype(np.int64) if indices.dtype.kind == "f" and not indices.size else indices
        )
        sparse = SparseTensorProto(
            values=tensor(parts["values"], "w"), indices=tensor(indices, "i"), dims=parts["dims"]
        )
        initializer = model([identity("w", "y")])
        initializer.graph.sparse_initializer.append(sparse)
        constant = helper.make_node("Constant", [], ["y"], sparse_value=sparse)
        places = {
            "initializer": initializer,
            "Constant": model([constant]),
            "If": model(conditional(branch([identity("w", "o")], "o", [sparse]))),
        }
        for place, built in places.items():
            content = built.SerializeToString()
            wanted = expected if must == "right" else None
            limits = SHIPPED if name in ("dims-large", "dims-vast") else None
            yield Case(
                f"tensors/sparse-{name}/{place}", content, must, {}, wanted, limits, asked=False
            )
