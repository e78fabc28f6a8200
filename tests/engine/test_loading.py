"""Where tensors come from: bytes, typed fields, external files; and what is refused."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from onnxinterp import InvalidModelError, OnnxModule, UnsafeModelError
from onnxinterp.dtypes import CARRIER
from onnxinterp.format.tensor_reader import TensorReader

VALUES = [1, 1, 2, 3, 1, 2]  # float8e8m0 has no zero


@pytest.mark.parametrize("kind", sorted(CARRIER), ids=TensorProto.DataType.Name)
@pytest.mark.parametrize("raw", [False, True], ids=["typed", "raw"])
def test_every_type_is_read_from_both_storage_forms(kind: int, raw: bool) -> None:
    dtype = helper.tensor_dtype_to_np_dtype(kind)
    array = np.array(VALUES).astype(dtype).reshape(2, 3)
    if raw:
        proto = numpy_helper.from_array(array, "t")
        assert proto.data_type == kind
    else:
        proto = helper.make_tensor("t", kind, [2, 3], array.flatten().tolist())
    tensor = TensorReader(None)(proto)
    assert isinstance(tensor, torch.Tensor)
    assert tensor.dtype is CARRIER[kind]
    numbers = tensor.real if tensor.is_complex() else tensor
    assert numbers.double().flatten().tolist() == array.real.astype(float).flatten().tolist()


def test_scalars_empty_tensors_and_strings() -> None:
    read = TensorReader(None)
    assert read(numpy_helper.from_array(np.float32(3))).shape == ()
    assert read(numpy_helper.from_array(np.zeros((0, 2), np.int64))).shape == (0, 2)
    text = read(helper.make_tensor("s", TensorProto.STRING, [2], ["a", "ü"]))
    assert text.tolist() == ["a", "ü"]


@pytest.mark.parametrize(
    "proto",
    [
        TensorProto(name="t", data_type=1, dims=[2], raw_data=b"123"),
        TensorProto(name="t", data_type=1, dims=[-1], raw_data=b"1234"),
        TensorProto(name="t", data_type=1, dims=[2**62, 2**62], raw_data=b"1234"),
        TensorProto(name="t", data_type=99, dims=[1], raw_data=b"1"),
        TensorProto(name="t", data_type=1, dims=[3], float_data=[1.0]),
    ],
    ids=["short", "negative", "overflowing", "unknown type", "too few numbers"],
)
def test_data_that_does_not_fit_is_refused(proto: TensorProto) -> None:
    with pytest.raises(InvalidModelError):
        TensorReader(None)(proto)


def test_sparse_initializers_are_read() -> None:
    model = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["": 17]> g (float[2,3] x) => (float[2,3] y)'
        "{ y = Add(x, w) }"
    )
    values = helper.make_tensor("w", TensorProto.FLOAT, [2], [5.0, 7.0])
    linear = helper.make_tensor("i", TensorProto.INT64, [2], [1, 5])
    rows = helper.make_tensor("i", TensorProto.INT64, [2, 2], [0, 1, 1, 2])
    for indices in (linear, rows):
        del model.graph.sparse_initializer[:]
        model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [2, 3]))
        assert OnnxModule(model)(torch.zeros(2, 3)).tolist() == [[0, 5, 0], [0, 0, 7]]


def save_external(folder: Path, location: str = "w.bin") -> Path:
    """Save y = x + w with w = 0..1023 in a file beside the model."""
    model = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["": 17]> g (float[1024] x) => (float[1024] y)'
        "{ y = Add(x, w) }"
    )
    array = np.arange(1024, dtype=np.float32)
    proto = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[1024])
    proto.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, "offset": "4096", "length": "4096"}.items():
        proto.external_data.add(key=key, value=value)
    model.graph.initializer.append(proto)
    (folder / "w.bin").write_bytes(b"\0" * 4096 + array.tobytes())
    onnx.save(model, folder / "m.onnx")
    return folder / "m.onnx"


def test_external_data_is_mapped_trains_and_leaves_the_file_alone(tmp_path: Path) -> None:
    path = save_external(tmp_path)
    before = (tmp_path / "w.bin").read_bytes()
    module = OnnxModule(path)
    x = torch.ones(1024)
    torch.testing.assert_close(module(x), x + torch.arange(1024))
    module(x).sum().backward()
    torch.optim.SGD(module.parameters(), lr=1.0).step()
    torch.testing.assert_close(module(x), torch.arange(1024.0))
    assert (tmp_path / "w.bin").read_bytes() == before
    torch.save(module.weights["w"], tmp_path / "one.pt")
    assert (tmp_path / "one.pt").stat().st_size < 8192, "a tensor saves at its own size"


def test_external_data_needs_a_path(tmp_path: Path) -> None:
    with pytest.raises(InvalidModelError, match=r"w\.bin"):
        OnnxModule(save_external(tmp_path).read_bytes())


@pytest.mark.parametrize("location", ["/etc/passwd", "../w.bin", "a/../../w.bin", ""])
def test_external_data_outside_the_folder_is_refused(tmp_path: Path, location: str) -> None:
    with pytest.raises(UnsafeModelError):
        OnnxModule(save_external(tmp_path, location))


def test_external_data_behind_links_is_refused(tmp_path: Path) -> None:
    path = save_external(tmp_path, "link.bin")
    (tmp_path / "link.bin").symlink_to(tmp_path / "w.bin")
    with pytest.raises(UnsafeModelError):
        OnnxModule(path)
    (tmp_path / "link.bin").unlink()
    os.link(tmp_path / "w.bin", tmp_path / "link.bin")
    with pytest.raises(UnsafeModelError):
        OnnxModule(path)


def test_external_data_that_is_missing_or_short_is_refused(tmp_path: Path) -> None:
    path = save_external(tmp_path)
    (tmp_path / "w.bin").write_bytes(b"\0" * 5000)
    with pytest.raises(InvalidModelError, match=r"'w\.bin' end before those of 'w'"):
        OnnxModule(path)
    (tmp_path / "w.bin").unlink()
    with pytest.raises(InvalidModelError, match="missing"):
        OnnxModule(path)
