"""An untouched model is saved byte for byte, however its writer spelled it."""

from __future__ import annotations

import io
import os
import threading
from importlib.resources import files
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from onnxinterp import OnnxModule
from onnxinterp.dtypes import CARRIER
from onnxinterp.format.tensor_bytes import varints
from onnxinterp.format.wire import LENGTH, VARINT, Wire, edit, fields, varint, walk, write
from tests.saving.models import AFFINE, LARGE, parse, raw, saved, sum_of, tune, write_external

DIGITS = Path(str(files("onnxinterp") / "data" / "digits.onnx"))


@pytest.mark.parametrize("kind", ["path", "bytes", "file", "proto"])
def test_every_kind_of_source_comes_back_as_it_was(kind: str, tmp_path: Path) -> None:
    data = DIGITS.read_bytes()
    proto = onnx.load_from_string(data)
    source = {"path": DIGITS, "bytes": data, "file": io.BytesIO(data), "proto": proto}[kind]
    want = proto.SerializeToString() if kind == "proto" else data
    assert saved(OnnxModule(source), tmp_path / "m.onnx") == want


def test_a_pipe_that_is_open_is_a_source_too(tmp_path: Path) -> None:
    data = sum_of(raw("w", LARGE)).SerializeToString()
    os.mkfifo(tmp_path / "pipe")
    writer = threading.Thread(target=(tmp_path / "pipe").write_bytes, args=(data,))
    writer.start()
    with (tmp_path / "pipe").open("rb") as pipe:
        module = OnnxModule(pipe)
    writer.join()
    assert saved(module, tmp_path / "m.onnx") == data


def test_the_weights_are_not_kept_a_second_time() -> None:
    module = OnnxModule(sum_of(*(raw(f"w{i}", 100, 100, seed=i) for i in range(5))))
    assert module.template.wire is not None
    kept = sum(len(piece) for _, piece in module.template.wire.pieces)
    assert kept < 2_000, "of 200,000 bytes of weights"


@pytest.mark.parametrize("size", [3, LARGE])
@pytest.mark.parametrize("form", ["raw", "typed"])
@pytest.mark.parametrize("kind", sorted(CARRIER), ids=TensorProto.DataType.Name)
def test_every_type_in_either_form(kind: int, form: str, size: int, tmp_path: Path) -> None:
    """Also odd numbers of elements: 4-bit types end in half a byte."""
    dtype = helper.tensor_dtype_to_np_dtype(kind)
    numbers = np.arange(size) % 2 + 1
    if kind in (TensorProto.INT8, TensorProto.INT16, TensorProto.INT32, TensorProto.INT64):
        numbers = -numbers
    array = numbers.astype(dtype)
    tensor = numpy_helper.from_array(array, "w")
    if form == "typed":
        tensor = helper.make_tensor("w", kind, [size], array.tolist())
    graph = helper.make_graph(
        [helper.make_node("Identity", ["w"], ["y"])],
        "g",
        [],
        [helper.make_tensor_value_info("y", kind, [size])],
        [tensor],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 25)])
    data = model.SerializeToString()
    module = OnnxModule(data, trainable="all")
    assert saved(module, tmp_path / "m.onnx") == data
    with torch.no_grad():
        module.weights["w"].copy_(torch.ones(size).to(CARRIER[kind]))
    module.save_onnx(tmp_path / "m.onnx")
    got = onnx.load(tmp_path / "m.onnx").graph.initializer[0]
    assert numpy_helper.to_array(got).real.astype(float).tolist() == [1.0] * size
    assert [f.name for f, _ in got.ListFields()] == [f.name for f, _ in tensor.ListFields()]


def test_bits_that_no_arithmetic_keeps(tmp_path: Path) -> None:
    """Signalling nan, -0, denormals; also the zeros of a type beyond its range."""
    bits = np.array([0x7F800001, 0x80000000, 1, 0xFFC12345] * 500, np.uint32)
    data = sum_of(numpy_helper.from_array(bits.view(np.float32), "w")).SerializeToString()
    assert saved(OnnxModule(data), tmp_path / "m.onnx") == data
    booleans = numpy_helper.from_array(np.ones(LARGE, bool), "w")
    booleans.raw_data = bytes([0, 1, 7, 255] * 250)
    data = sum_of(booleans).SerializeToString()
    model = onnx.load_from_string(data)
    model.graph.node[0].CopyFrom(helper.make_node("And", ["x", "w"], ["y"]))
    assert saved(OnnxModule(model), tmp_path / "m.onnx") == model.SerializeToString()


def _field(number: int, payload: bytes, size: bytes | None = None) -> bytes:
    return varint(number << 3 | LENGTH) + (size or varint(len(payload))) + payload


def _odd_model(count: int) -> bytes:
    """Unknown fields, another order, sizes longer than needed, an unpacked tensor, a group."""
    model = sum_of(raw("w", count), raw("v", count, seed=1))
    numbers = numpy_helper.to_array(raw("v", count, seed=1))
    unpacked = b"".join(varint(4 << 3 | 5) + n.tobytes() for n in numbers)
    typed = unpacked + _field(8, b"v") + varint(2 << 3) + b"\x01" + varint(1 << 3) + varint(count)
    first = model.graph.initializer[0].SerializeToString() + _field(777, b"of the future")
    padded = bytes([len(first) & 127 | 128, len(first) >> 7 & 127 | 128, len(first) >> 14 | 128, 0])
    graph = onnx.GraphProto()
    graph.CopyFrom(model.graph)
    del graph.initializer[:]
    group = varint(99 << 3 | 3) + varint(5 << 3) + b"\x07" + varint(99 << 3 | 4)
    inner = _field(5, typed) + graph.SerializeToString() + _field(5, first, padded) + group
    model.ClearField("graph")
    return _field(1000, b"?") + _field(7, inner) + model.SerializeToString()


@pytest.mark.parametrize("count", [3, LARGE])
def test_unusual_spellings_are_kept(count: int, tmp_path: Path) -> None:
    data = _odd_model(count)
    module = OnnxModule(data)
    assert saved(module, tmp_path / "m.onnx") == data
    with torch.no_grad():
        module.weights["w"].add_(1)
    got = saved(module, tmp_path / "m.onnx")
    assert len(got) == len(data)
    assert sum(a != b for a, b in zip(got, data, strict=True)) <= 4 * count
    with torch.no_grad():
        module.weights["v"].add_(1)
    got = saved(module, tmp_path / "m.onnx")
    again = OnnxModule(got)
    for name in "vw":
        assert torch.equal(again.weights[name], module.weights[name])
    for odd in (b"of the future", _field(1000, b"?"), varint(99 << 3 | 3)):
        assert odd in got
    assert saved(again, tmp_path / "n.onnx") == got, "a fixed point"


def test_a_message_in_two_pieces_is_one(tmp_path: Path) -> None:
    """As protobuf says: the second graph field is merged into the first."""
    one, two = sum_of(raw("w", LARGE), raw("v", LARGE)), onnx.ModelProto()
    two.graph.initializer.append(one.graph.initializer.pop())
    data = one.SerializeToString() + two.SerializeToString()
    module = OnnxModule(data)
    assert saved(module, tmp_path / "m.onnx") == data
    tune(module)
    again = OnnxModule(saved(module, tmp_path / "m.onnx"))
    assert torch.equal(again.weights["v"], module.weights["v"])


def test_a_small_piece_of_a_graph_counts(tmp_path: Path) -> None:
    """Its tensors come before those of the next piece, which are large and partly not read."""
    one, two = sum_of(raw("s", 1), raw("w", LARGE)), onnx.ModelProto()
    two.graph.initializer.append(one.graph.initializer.pop())
    two.graph.initializer.append(raw("unread", LARGE, seed=1))
    data = one.SerializeToString() + two.SerializeToString()
    module = OnnxModule(data)
    assert saved(module, tmp_path / "m.onnx") == data
    tune(module)
    again = onnx.load_from_string(saved(module, tmp_path / "m.onnx"))
    assert again.graph.initializer[2] == two.graph.initializer[1]
    assert torch.equal(OnnxModule(again).weights["w"], module.weights["w"])


def test_a_tensor_in_two_pieces_is_one(tmp_path: Path) -> None:
    """Its file is written anew: there is no one place for what the pieces hold together."""
    head = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[3]).SerializeToString()
    numbers = TensorProto(raw_data=np.float32([1, 2, 3]).tobytes()).SerializeToString()
    value = onnx.AttributeProto(name="value", type=onnx.AttributeProto.TENSOR).SerializeToString()
    held = value + _field(5, head) + _field(5, numbers)
    made = onnx.NodeProto(op_type="Constant", output=["w"]).SerializeToString() + _field(5, held)
    model = parse(AFFINE)
    del model.graph.initializer[:]
    data = model.SerializeToString() + _field(7, _field(1, made))
    module = OnnxModule(data)
    assert module.weights["w"].tolist() == [1, 2, 3]
    tune(module)
    for like in (None, data):
        module.save_onnx(tmp_path / "m.onnx", like=like)
        again = OnnxModule(tmp_path / "m.onnx")
        assert torch.equal(again.weights["w"], module.weights["w"])


def test_external_data_with_gaps_comes_back_as_it_was(tmp_path: Path) -> None:
    model = sum_of(raw("w", LARGE), raw("v", LARGE), raw("u", LARGE))
    path = write_external(model, tmp_path / "a" / "m.onnx", "w", "v", location="sub/w.bin")
    (tmp_path / "b").mkdir()
    assert saved(OnnxModule(path), tmp_path / "b" / "n.onnx") == path.read_bytes()
    want = (path.parent / "sub" / "w.bin").read_bytes()
    assert (tmp_path / "b" / "sub" / "w.bin").read_bytes() == want


def test_edits_of_nested_messages_keep_every_size_right() -> None:
    """A payload that grows makes the sizes around it grow, by more bytes where they need these."""
    data = parse(AFFINE).SerializeToString()
    wire = Wire([(0, data)], len(data))
    (chain,) = [chain for _, kind, chain in walk(wire) if kind is TensorProto]
    name = next(f for f in fields(wire, chain[-1].start, chain[-1].stop) if f.number == 8)
    for size in (0, 1, 200, 20_000, 3_000_000):
        out = io.BytesIO()
        write(wire, [edit(name.start, name.stop, b"n" * size, (*chain, name))], out)
        want = parse(AFFINE)
        want.graph.initializer[0].name = "n" * size
        assert onnx.load_from_string(out.getvalue()) == want


def test_varints_of_every_length() -> None:
    numbers = [0, 1, 127, 128, 2**14 - 1, 2**14, 2**31, 2**63 - 1, -1, -(2**63)]
    assert varints(np.array(numbers, np.int64)) == b"".join(varint(n % 2**64) for n in numbers)
    assert VARINT == 0
