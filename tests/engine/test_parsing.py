"""Bytes that are no model, texts that are no texts, and what errors show of them."""

from __future__ import annotations

import bz2
import copy
import gzip
import io
import lzma
import pickle
import re
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, helper, numpy_helper

from onnxinterp import (
    InputError,
    InvalidModelError,
    NodeError,
    OnnxError,
    OnnxModule,
    SaveError,
    UnsafeModelError,
    UnsupportedOpError,
    checkpoints,
)
from onnxinterp.cli import display, main
from onnxinterp.errors import MissingOp
from onnxinterp.format.wire import number_of, tagged

CLASSES = (OnnxError, InvalidModelError, UnsafeModelError, InputError, SaveError, NodeError)


def model() -> ModelProto:
    """Make y = x + w."""
    x, y = (helper.make_tensor_value_info(n, 1, ["dddd"]) for n in ("xxxx", "yyyy"))
    add = helper.make_node("Add", ["xxxx", "wwww"], ["yyyy"], name="nnnn", doc_string="docs")
    stored = [numpy_helper.from_array(np.ones(2, np.float32), "wwww")]
    graph = helper.make_graph([add], "gggg", [x], [y], stored)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    made.metadata_props.add(key="kkkk", value="vvvv")
    made.ir_version = 8
    return made


def test_bytes_that_are_no_protobuf() -> None:
    data = model().SerializeToString()
    for given in (data[: len(data) // 2], data[:-1], b"\xff" * 64, b"\x07" + data, b"\x3a\xff"):
        with pytest.raises(InvalidModelError, match="cannot be parsed"):
            OnnxModule(given)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (ModelProto(), "the ModelProto has no graph"),
        (ModelProto(ir_version=8), "the ModelProto has no graph"),
        (ModelProto(ir_version=8).SerializeToString(), "the source is a model without a graph"),
        (io.BytesIO(b""), "the source is empty: download or export it again"),
    ],
)
def test_a_model_without_a_graph(source: Any, message: str) -> None:
    with pytest.raises(InvalidModelError, match=message):
        OnnxModule(source)


def _torch_saved(**keywords: Any) -> bytes:
    out = io.BytesIO()
    torch.save({"w": torch.zeros(3)}, out, **keywords)
    return out.getvalue()


def _tar(data: bytes) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        info = tarfile.TarInfo("model.onnx")
        info.size = len(data)
        archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


ARRAY = io.BytesIO()
np.save(ARRAY, np.zeros(3))
POINTER = (
    b"version https://git-lfs.github.com/spec/v1\n"
    b"oid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\nsize 12345\n"
)
TENSORS = b'{"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'
OTHER_FILES: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "empty: download or export it again"),
    "Git LFS": (POINTER, "a Git LFS pointer, not a model: run `git lfs pull`"),
    "HTML": (
        b"\n<!DOCTYPE html>\n<html><body>404</body></html>",
        "an HTML page, not a model: download the file itself",
    ),
    "HTML without a type": (b"<html><body>\xe9</body></html>", "an HTML page, not a model"),
    "text": ("näher\n".encode() * 200, "a text file, not a model: look at what it says"),
    "JSON": (b'{"error": "not found"}', "a text file, not a model"),
    ".pth": (_torch_saved(), "a zip archive, as torch.save writes, not a model: export the"),
    "old .pth": (
        _torch_saved(_use_new_zipfile_serialization=False),
        "a Python pickle, as old torch.save writes, not a model: export the network",
    ),
    "pickle": (pickle.dumps([1], protocol=4), "a Python pickle"),
    "gzip": (gzip.compress(model().SerializeToString()), "a gzip file, not a model: unpack it"),
    "bzip2": (bz2.compress(model().SerializeToString()), "a bzip2 file, not a model: unpack it"),
    "xz": (lzma.compress(model().SerializeToString()), "an xz file, not a model: unpack it"),
    "tar": (_tar(model().SerializeToString()), "a tar archive, not a model: unpack it"),
    "numpy": (ARRAY.getvalue(), "a numpy array, not a model"),
    "safetensors": (
        len(TENSORS).to_bytes(8, "little") + TENSORS + bytes(4),
        "a safetensors file: weights without a graph, not a model: use module.load_safetensors",
    ),
    "HDF5": (b"\x89HDF\r\n\x1a\n" + bytes(80), "an HDF5 file, as Keras writes, not a model"),
    "TensorFlow Lite": (b"\x1c\0\0\0TFL3" + bytes(80), "a TensorFlow Lite model, not a model"),
    ".ort": (b"\x24\0\0\0ORTM" + bytes(80), "a model in the .ort format, not a model: load the"),
    "GGUF": (b"GGUF\x03\0\0\0" + bytes(80), "a GGUF file"),
}


@pytest.mark.parametrize("kind", OTHER_FILES)
def test_other_files_are_named(kind: str, tmp_path: Path) -> None:
    """As a file, as bytes, by a command: the message says what the file is and what to do."""
    data, message = OTHER_FILES[kind]
    path = tmp_path / "model.onnx"
    path.write_bytes(data)
    for source, name in ((path, str(path)), (data, "the source")):
        with pytest.raises(InvalidModelError, match=re.escape(f"{name} is {message}")):
            OnnxModule(source)


@pytest.mark.parametrize("kind", ["Git LFS", "HTML", "old .pth"])
def test_commands_and_checkpoints_name_other_files(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, message = OTHER_FILES[kind]
    path = tmp_path / "model.onnx"
    path.write_bytes(data)
    assert main(["inspect", str(path)]) == 2
    assert f"{path} is {message}" in capsys.readouterr().err
    with pytest.raises(InvalidModelError, match=re.escape(f"plain tensors: it is {message}")):
        checkpoints.load(path)


def test_external_data_that_are_another_file_are_named(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    onnx.save_model(
        model(), path, save_as_external_data=True, size_threshold=0, location="model.data"
    )
    assert OnnxModule(path)(torch.zeros(2)).tolist() == [1, 1]
    (tmp_path / "model.data").write_bytes(b"1234567")
    with pytest.raises(InvalidModelError, match=r"'model\.data' end before those of 'wwww'.*text"):
        OnnxModule(path)
    (tmp_path / "model.data").write_bytes(POINTER[:7])
    large = onnx.load(path, load_external_data=False)
    large.graph.initializer[0].dims[0] = 1000
    large.graph.initializer[0].external_data[2].value = "4000"
    path.write_bytes(large.SerializeToString())
    (tmp_path / "model.data").write_bytes(POINTER)
    with pytest.raises(InvalidModelError, match=r"the file is a Git LFS pointer.*`git lfs pull`"):
        OnnxModule(path)
    (tmp_path / "model.data").write_bytes(bytes(20))
    with pytest.raises(InvalidModelError, match=r"end before those of 'wwww'$"):
        OnnxModule(path)


def test_a_model_that_looks_like_another_file_loads() -> None:
    """Only what cannot be parsed is looked at: any field may be first, any string in it."""
    data = ModelProto(producer_name="x" * 200, doc_string="<html>").SerializeToString()
    given = data + model().SerializeToString()
    assert OnnxModule(given)(torch.zeros(2)).tolist() == [1, 1]


def test_messages_in_each_other_without_end() -> None:
    inner = b""
    for _ in range(1000):
        for kind, field in ((AttributeProto, "g"), (NodeProto, "attribute"), (GraphProto, "node")):
            inner = tagged(number_of(kind, field), len(inner)) + inner
    deep = tagged(number_of(ModelProto, "graph"), len(inner)) + inner
    with pytest.raises(InvalidModelError, match="cannot be parsed"):
        OnnxModule(deep)
    with pytest.raises(InvalidModelError, match="more than 100 nested messages"):
        OnnxModule(model()).save_onnx("never.onnx", like=deep)


@pytest.mark.parametrize("source", [None, 3, [b""], io.StringIO("text")])
def test_what_is_no_source_is_the_callers_mistake(source: Any) -> None:
    with pytest.raises(TypeError, match=r"a model (file )?must be"):
        OnnxModule(source)


@pytest.mark.parametrize("text", ["xxxx", "yyyy", "wwww", "nnnn", "gggg", "dddd", "kkkk", "Add"])
def test_texts_are_utf_8(text: str) -> None:
    data = model().SerializeToString().replace(text.encode(), b"\xff" * len(text))
    for source in (data, ModelProto.FromString(data)):
        with pytest.raises(InvalidModelError, match="must be valid UTF-8, got"):
            OnnxModule(source)


def test_documentation_may_be_in_any_encoding() -> None:
    data = model().SerializeToString().replace(b"docs", b"\xfcber")
    assert OnnxModule(data)(torch.zeros(2)).tolist() == [1, 1]


NASTY = "a\nb\r\x1b[2Jc\0\x7f\x85\u202e\u2028\ud800\udcff'\"\\"
SHOWN = "a\\nb\\r\\x1b[2Jc\\x00\\x7f\\x85\\u202e\\u2028\\ud800\\udcff'\"\\"


@pytest.mark.parametrize("kind", CLASSES)
def test_messages_show_what_cannot_be_printed(kind: type[OnnxError]) -> None:
    error = kind(f"node {NASTY} failed", "second line", "第三行")
    assert str(error) == f"node {SHOWN} failed\nsecond line\n第三行"


@pytest.mark.parametrize("kind", CLASSES)
@pytest.mark.parametrize("text", ["x", "ü", "\n", "€\x1b", "\udcff"])
def test_messages_end_and_keep_what_is_wrong(kind: type[OnnxError], text: str) -> None:
    for length in (10, 1499, 1501, 10**6):
        error = kind(f"node {text * length} failed", *["line"] * 1000)
        first = str(error).split("\n")[0]
        assert first.startswith("node ")
        assert len(str(error).encode()) <= 2000
        if text.isprintable():
            assert first.endswith(" failed")


@pytest.mark.parametrize("kind", CLASSES)
def test_errors_can_be_sent_elsewhere(kind: type[OnnxError]) -> None:
    for lines in ([], [""], ["one"], [NASTY, "two"], ["x" * 10**4, *["\0" * 500] * 9]):
        error = kind(*lines)
        error.add_note("a note")
        for sent in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
            assert (type(sent), str(sent), sent.__notes__) == (kind, str(error), ["a note"])


def test_missing_operators_are_listed_one_a_line() -> None:
    error = UnsupportedOpError(MissingOp("mine", f"Op{i}\n", 7, "n\n") for i in range(3))
    lines = str(error).split("\n")
    assert len(lines) == 7
    assert lines[1] == "  - mine::Op0\\n at opset 7, required by node 'n\\n'"
    assert lines[2] == "      @onnxinterp.op('Op0\\n', since=7, domain='mine')"
    sent = pickle.loads(pickle.dumps(error))
    assert (str(sent), sent.missing) == (str(error), error.missing)
    many = UnsupportedOpError(MissingOp("mine", f"Op{i}", 7, "n") for i in range(1000))
    assert len(many.missing) == 1000
    assert len(str(many).encode()) <= 2000


def test_what_a_model_is_called_commands_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    given = model()
    given.graph.input[0].name = given.graph.node[0].input[0] = "x\x1b[2J\n"
    given.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "\x1b"
    module = OnnxModule(given)
    assert "\x1b" not in repr(module)
    display.say("a\x1b\nb")
    display.table("t\x1b", ("c", "d"), [("e\x1b", "f\n")])
    display.markdown(("c",), [("g\x1b",)])
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert "f\\n" in out


def test_a_function_is_read_too() -> None:
    """Texts of functions count, whether anybody calls them or not."""
    given = model()
    given.functions.append(
        helper.make_function("mine", "ffff", ["a"], ["b"], [onnx.NodeProto(op_type="Op")], [])
    )
    data = given.SerializeToString().replace(b"ffff", b"\xff" * 4)
    with pytest.raises(InvalidModelError, match="name of a FunctionProto must be valid UTF-8"):
        OnnxModule(data)
