"""Bytes that are no model, texts that are no texts, and what errors show of them."""

from __future__ import annotations

import copy
import io
import pickle
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
)
from onnxinterp.cli import display
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
    damaged = [data[: len(data) // 2], data[:-1], b"\xff" * 64, b"PK\x03\x04" + data, b"\x3a\xff"]
    for given in damaged:
        with pytest.raises(InvalidModelError, match="cannot be parsed"):
            OnnxModule(given)


@pytest.mark.parametrize("source", [b"", io.BytesIO(b""), ModelProto(), ModelProto(ir_version=8)])
def test_a_model_without_a_graph(source: Any) -> None:
    with pytest.raises(InvalidModelError, match="no ONNX graph"):
        OnnxModule(source)


def test_messages_in_each_other_without_end() -> None:
    inner = b""
    for _ in range(1000):
        for kind, field in ((AttributeProto, "g"), (NodeProto, "attribute"), (GraphProto, "node")):
            inner = tagged(number_of(kind, field), len(inner)) + inner
    deep = tagged(number_of(ModelProto, "graph"), len(inner)) + inner
    with pytest.raises(InvalidModelError, match="cannot be parsed"):
        OnnxModule(deep)
    with pytest.raises(InvalidModelError, match="in each other"):
        OnnxModule(model()).save_onnx("never.onnx", like=deep)


@pytest.mark.parametrize("source", [None, 3, [b""], io.StringIO("text")])
def test_what_is_no_source_is_the_callers_mistake(source: Any) -> None:
    with pytest.raises(TypeError, match="a model is"):
        OnnxModule(source)


@pytest.mark.parametrize("text", ["xxxx", "yyyy", "wwww", "nnnn", "gggg", "dddd", "kkkk", "Add"])
def test_texts_are_utf_8(text: str) -> None:
    data = model().SerializeToString().replace(text.encode(), b"\xff" * len(text))
    for source in (data, ModelProto.FromString(data)):
        with pytest.raises(InvalidModelError, match="is no UTF-8"):
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
    assert lines[1] == "  - mine::Op0\\n at opset 7, asked for by node 'n\\n'"
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
    with pytest.raises(InvalidModelError, match="name of a FunctionProto is no UTF-8"):
        OnnxModule(data)
