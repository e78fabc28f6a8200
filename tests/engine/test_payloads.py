"""Large tensors are parsed without their data: nothing else about a model changes."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from onnxinterp import InvalidModelError, Limits, OnnxModule
from onnxinterp.format import payloads
from onnxinterp.format.memory import Reuse
from onnxinterp.format.payloads import outline
from onnxinterp.format.wire import varint
from onnxinterp.reading import source as reading

LENGTH = 2
WEIGHT = np.arange(1024, dtype=np.float32).reshape(32, 32)
MEGABYTES = 64


def model_of(*initializers: TensorProto, constant: TensorProto | None = None) -> onnx.ModelProto:
    """The sum of the input and of tensors of [32, 32]."""
    names = [t.name for t in initializers]
    nodes = []
    if constant is not None:
        nodes.append(helper.make_node("Constant", [], ["constant"], value=constant))
        names.append("constant")
    nodes.append(helper.make_node("Sum", ["x", *names], ["y"]))
    infos = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [32, 32]) for n in "xy"]
    graph = helper.make_graph(nodes, "g", infos[:1], infos[1:], initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def weight(name: str = "w") -> TensorProto:
    return numpy_helper.from_array(WEIGHT, name)


def field(number: int, payload: bytes) -> bytes:
    return varint(number << 3 | LENGTH) + varint(len(payload)) + payload


def with_graph(model: onnx.ModelProto, graph: bytes) -> bytes:
    """The bytes of a model with other bytes for its graph."""
    model.ClearField("graph")
    return model.SerializeToString() + field(7, graph)


@pytest.fixture(params=["path", "bytes", "file"])
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[bytes], OnnxModule]:
    """Opens a model in each form that a source of bytes has."""

    def open_model(data: bytes) -> OnnxModule:
        if request.param == "path":
            (tmp_path / "m.onnx").write_bytes(data)
            return OnnxModule(tmp_path / "m.onnx")
        return OnnxModule(data if request.param == "bytes" else io.BytesIO(data))

    return open_model


def test_weights_of_initializers_and_constants_are_read(
    opened: Callable[[bytes], OnnxModule], tmp_path: Path
) -> None:
    data = model_of(weight(), constant=weight("c")).SerializeToString()
    found = outline(data)
    assert found is not None
    assert len(found.cuts) == 2, "both are cut out of what protobuf parses"
    assert len(found.marked()) < 1000
    module = opened(data)
    torch.testing.assert_close(module(torch.zeros(32, 32)), torch.from_numpy(2 * WEIGHT))
    module.save_onnx(tmp_path / "saved.onnx")
    assert (tmp_path / "saved.onnx").read_bytes() == data


def test_a_tensor_that_no_node_reads_is_saved(tmp_path: Path) -> None:
    model = model_of(weight())
    model.graph.initializer.append(weight("unused"))
    data = model.SerializeToString()
    OnnxModule(data).save_onnx(tmp_path / "saved.onnx")
    assert (tmp_path / "saved.onnx").read_bytes() == data


def test_elements_of_less_than_a_byte_are_read(tmp_path: Path) -> None:
    numbers = np.arange(4096) % 16 - 8
    tensor = helper.make_tensor("w", TensorProto.INT4, [4096], numbers.tolist())
    tensor = numpy_helper.from_array(numpy_helper.to_array(tensor), "w")
    assert len(tensor.raw_data) == 2048
    x, y = (
        helper.make_tensor_value_info("x", TensorProto.INT64, [1]),
        helper.make_tensor_value_info("y", TensorProto.INT32, [1]),
    )
    nodes = [
        helper.make_node("Cast", ["w"], ["i"], to=TensorProto.INT32),
        helper.make_node("Gather", ["i", "x"], ["y"]),
    ]
    graph = helper.make_graph(nodes, "g", [x], [y], [tensor])
    data = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10
    ).SerializeToString()
    module = OnnxModule(data)
    assert module(torch.tensor([5])).tolist() == [-3]
    module.save_onnx(tmp_path / "saved.onnx")
    assert (tmp_path / "saved.onnx").read_bytes() == data


def test_a_constant_of_a_kernel_that_takes_numbers_is_whole() -> None:
    """ConstantOfShape takes its `value` as an attribute, which keeps its data."""
    value = TensorProto(name="v", data_type=1, dims=[1], raw_data=bytes(2048))
    node = helper.make_node("ConstantOfShape", ["s"], ["y"], value=value)
    s = helper.make_tensor_value_info("s", TensorProto.INT64, [1])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n"])
    graph = helper.make_graph([node], "g", [s], [y])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    assert_same_verdict(model.SerializeToString())


def outcome(data: bytes) -> tuple[object, object]:
    """What becomes of a model: its weights and its template, or the error."""
    try:
        module = OnnxModule(data, limits=Limits(nodes=10_000, weight_bytes=2**24))
    except Exception as error:
        return type(error), str(error)
    wire = module.template.wire
    values = {name: value.detach().clone() for name, value in module.weights.items()}
    bits = {
        n: (v.dtype, v.shape, v.reshape(-1).view(torch.uint8).tolist()) for n, v in values.items()
    }
    return bits, None if wire is None else (wire.holes, b"".join(bytes(p) for _, p in wire.pieces))


def assert_same_verdict(data: bytes) -> object:
    """Check that a model is as when protobuf parses all of it; return the verdict."""
    lean = outcome(data)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reading, "outline", lambda _: None)
        assert lean == outcome(data)
    return lean


def damaged() -> dict[str, bytes]:
    """Files in which a payload is not what it seems."""
    whole = model_of(weight()).SerializeToString()
    raw = weight().SerializeToString()
    header = TensorProto(name="w", data_type=1, dims=[32, 32]).SerializeToString()
    payload = WEIGHT.tobytes()
    plain = model_of()
    plain.graph.node[0].input.append("w")
    graph = plain.graph.SerializeToString()
    at = whole.index(payload)

    def of_tensor(*pieces: bytes) -> bytes:
        model = onnx.ModelProto()
        model.CopyFrom(plain)
        return with_graph(model, graph + b"".join(field(5, piece) for piece in pieces))

    size = varint(len(payload))
    long_size = bytes([size[0], size[1] | 128, 128, 0])
    return {
        "as it is": whole,
        "cut short": whole[: at + 100],
        "without its end": whole[:-1],
        "a length that is too small": whole.replace(size + payload, varint(4092) + payload),
        "a length that is too large": whole.replace(size + payload, varint(5000) + payload),
        "a size of more bytes": of_tensor(header + varint(9 << 3 | 2) + long_size + payload),
        "two payloads": of_tensor(raw + field(9, payload[::-1])),
        "a second, short payload": of_tensor(raw + field(9, b"1234")),
        "an empty payload behind": of_tensor(raw + field(9, b"")),
        "numbers as well": of_tensor(raw + field(4, b"\0\0\x80?")),
        "no numbers as well": of_tensor(raw + field(4, b"")),
        "an unknown field": of_tensor(raw + field(1000, b"?")),
        "a payload of another wire type": of_tensor(raw + varint(9 << 3) + b"\1"),
        "a group inside": of_tensor(raw + varint(9 << 3 | 3) + varint(9 << 3 | 4)),
        "a group that does not end": of_tensor(raw + varint(9 << 3 | 3)),
        "a segment": of_tensor(raw + field(3, b"")),
        "external as well": of_tensor(raw + varint(14 << 3) + b"\1"),
        "not external": of_tensor(raw + varint(14 << 3) + b"\0"),
        "not external, then external": of_tensor(
            raw + varint(14 << 3) + b"\0" + varint(14 << 3) + b"\1"
        ),
        "another shape": of_tensor(raw + varint(1 << 3) + b"\2"),
        "the shape behind": of_tensor(field(9, payload) + header),
        "another type": of_tensor(raw + varint(2 << 3) + b"\x07"),
        "strings": of_tensor(raw + varint(2 << 3) + b"\x08"),
        "an unknown type": of_tensor(raw + varint(2 << 3) + b"\x63"),
        "no shape": of_tensor(
            TensorProto(name="w", data_type=1, raw_data=payload).SerializeToString()
        ),
        "an empty shape": of_tensor(
            TensorProto(name="w", data_type=1, dims=[0], raw_data=payload).SerializeToString()
        ),
        "the shape of a mark": of_tensor(
            TensorProto(name="w", data_type=1, dims=[4], raw_data=payload).SerializeToString()
        ),
        "twice": of_tensor(raw, raw),
        "the graph in two pieces": whole + field(7, field(5, raw.replace(b"w", b"v", 1))),
        "the graph in two pieces, the first empty": field(7, b"") + whole,
        "sparse": with_graph(
            onnx.ModelProto.FromString(plain.SerializeToString()),
            graph
            + field(
                15,
                field(1, raw.replace(b"w", b"v", 1)) + field(2, raw) + varint(3 << 3) + b"\x20",
            ),
        ),
        "in a node in two pieces": with_graph(
            onnx.ModelProto.FromString(plain.SerializeToString()),
            graph
            + field(
                1,
                field(2, b"w")
                + field(4, b"Constant")
                + field(
                    5,
                    field(1, b"value")
                    + varint(20 << 3)
                    + b"\4"
                    + field(5, header)
                    + field(5, field(9, payload)),
                ),
            ),
        ),
    }


@pytest.mark.parametrize("name", damaged())
def test_a_damaged_file_is_as_if_protobuf_had_parsed_all_of_it(name: str) -> None:
    assert_same_verdict(damaged()[name])


def test_damaged_files_are_of_all_kinds() -> None:
    """Some are cut out, some are not; some are refused."""
    outlines = [found for data in damaged().values() if (found := outline(data)) is not None]
    assert 0 < sum(bool(found.cuts) for found in outlines) < len(damaged())
    assert (
        0 < sum(isinstance(outcome(data)[0], type) for data in damaged().values()) < len(damaged())
    )


def test_a_tensor_elsewhere_than_its_place_is_not_read_for_another() -> None:
    """The mark says which tensor it is; the place only where to look."""
    data = model_of(weight("a"), weight("b")).SerializeToString()
    found = outline(data)
    assert found is not None
    model = onnx.ModelProto.FromString(found.marked())
    tensors = found.find(model)
    assert tensors is not None
    assert [t.message.name for t in tensors] == ["a", "b"]
    del model.graph.initializer[0]
    assert found.find(model) is None


def test_a_model_of_many_fields_is_not_looked_through(monkeypatch: pytest.MonkeyPatch) -> None:
    data = model_of(weight()).SerializeToString()
    monkeypatch.setattr(payloads, "MAX_FIELDS", 10)
    assert outline(data) is None
    assert outcome(data)


@pytest.mark.parametrize("change", ["shorter", "same size"])
def test_a_file_that_changes_while_it_is_read_is_refused(
    change: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(model_of(weight()).SerializeToString())
    validate = reading.validate

    def change_file(*args: object) -> None:
        if change == "shorter":
            os.truncate(path, 100)
        else:
            os.utime(path, ns=(0, 0))
        validate(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(reading, "validate", change_file)
    with pytest.raises(InvalidModelError, match=r"m\.onnx was changed while it was read"):
        OnnxModule(path)


def test_the_file_of_embedded_weights_may_change_once_it_is_open(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    data = model_of(weight()).SerializeToString()
    path.write_bytes(data)
    module = OnnxModule(path)
    path.write_bytes(b"another file")
    torch.testing.assert_close(module(torch.zeros(32, 32)), torch.from_numpy(WEIGHT))
    module.save_onnx(path)
    assert path.read_bytes() == data


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.complex64], ids=str)
def test_parts_of_a_tensor_take_its_memory_each_as_a_storage_of_its_own(dtype: torch.dtype) -> None:
    tensor = torch.arange(2 * 40 * 30).to(dtype).reshape(2, 40, 30)
    expected = [part.t().clone() for part in tensor]
    address = tensor.data_ptr()
    parts = Reuse(tensor.nbytes).split(tensor, lambda t: [part.t() for part in t])
    for part, values in zip(parts, expected, strict=True):
        assert torch.equal(part, values)
        assert part.is_contiguous()
        assert part.untyped_storage().nbytes() == part.nbytes
    assert [part.data_ptr() - address for part in parts] == [0, parts[0].nbytes]


PROGRAM = """
import sys
import torch, onnxinterp
source = open(sys.argv[1], "rb").read() if sys.argv[2] == "bytes" else sys.argv[1]
source = open(sys.argv[1], "rb") if sys.argv[2] == "file" else source
def status(key):
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith(key)) / 1024
before = status("VmRSS:")
with open("/proc/self/clear_refs", "w") as peak:
    peak.write("5")  # the peak starts anew
module = onnxinterp.OnnxModule(source)
print(status("VmHWM:") - before)
module(torch.zeros(1))
compiler = ("torch._dynamo", "torch._inductor", "sympy")
print(*[n for n in sys.modules if n.startswith(compiler)])
"""


@pytest.mark.parametrize(("kind", "times"), [("path", 1.5), ("bytes", 1.5), ("file", 2.5)])
@pytest.mark.skipif(not os.path.exists("/proc/self/clear_refs"), reason="Linux alone has peaks")
def test_opening_takes_little_more_memory_than_the_weights(
    kind: str, times: float, tmp_path: Path
) -> None:
    """A file object is read into memory first. Torch's compiler is not imported, nor by a call."""
    array = np.zeros((8, MEGABYTES // 8 * 2**18), np.float32)
    tensors = [numpy_helper.from_array(part, f"w{i}") for i, part in enumerate(array)]
    info = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n"])
    result = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n"])
    node = helper.make_node("Sum", ["x", *(t.name for t in tensors)], ["y"])
    graph = helper.make_graph([node], "g", [info], [result], tensors)
    path = tmp_path / "m.onnx"
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path
    )
    command = [sys.executable, "-c", PROGRAM, str(path), kind]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    peak, compiler = done.stdout.splitlines()
    assert float(peak) < times * MEGABYTES
    assert not compiler
