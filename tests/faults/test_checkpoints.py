"""Hostile checkpoints are refused, whatever entry is wrong; what is saved is what is computed.

Each is an honest one with one thing changed.
"""

from __future__ import annotations

import io
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor

from onnxinterp import (
    InvalidModelError,
    Limits,
    OnnxError,
    OnnxModule,
    UnsafeModelError,
    checkpoints,
)
from onnxinterp.format.wire import tagged
from tests.processes import Fork
from tests.processes import fork as fork
from tests.saving.models import LARGE, raw, sum_of

State = OrderedDict[str, Any]
NESTED = b")" + 40 * b"q\0h\0\x86"  # the pickle of `_nested()`
REFUSED = """
import resource, signal
from onnxinterp import InvalidModelError, checkpoints
signal.alarm(20)
resource.setrlimit(resource.RLIMIT_AS, (16 << 30, 16 << 30))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for path in arguments:
    try:
        checkpoints.load(path)
    except InvalidModelError:
        pass
    else:
        raise AssertionError(f"{path} was loaded")
grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
assert grown < 200_000, f"{grown} kB more"
"""


def _model(op: str = "Add", size: int = 300) -> onnx.ModelProto:
    infos = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [size]) for name in "xy"]
    weight = numpy_helper.from_array(torch.ones(size).numpy(), "w")
    graph = helper.make_graph(
        [helper.make_node(op, ["x", "w"], ["y"])], "g", infos[:1], infos[1:], [weight]
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], State]:
    """Gives the state dict of an honest checkpoint, anew each time."""
    path = tmp_path_factory.mktemp("honest") / "m.pth"
    checkpoints.save(_model(), path)
    return lambda: torch.load(path, weights_only=True)


ONES = torch.ones(300).numpy().tobytes()  # the data of the weight of `_model()`


def _known(state: State) -> dict[str, Any]:
    known: dict[str, Any] = state._metadata[""][checkpoints.KEY]  # type: ignore[attr-defined]
    return known


def _nested() -> Any:
    value: Any = ()
    for _ in range(40):
        value = (value, value)
    return value


def _bytes(data: bytes) -> Tensor:
    return torch.frombuffer(bytearray(data), dtype=torch.uint8)


def _wide(dtype: torch.dtype) -> Tensor:
    return torch.zeros(1, dtype=dtype).expand(2**36)


def _of(**entries: Any) -> Callable[[State], Any]:
    """Changes entries of the metadata."""
    return lambda state: _known(state).update(entries) or state


def _tensor(value: Any, key: Any = "weights.w") -> Callable[[State], Any]:
    """Changes a tensor."""
    return lambda state: state.update({key: value}) or state


def _metadata(value: Any) -> Callable[[State], Any]:
    def change(state: State) -> Any:
        state._metadata = value  # type: ignore[attr-defined]
        return state

    return change


def _template(model: onnx.ModelProto, **sizes: int) -> Callable[[State], Any]:
    """Changes the model; its tensors have all their data."""
    return _of(template=_bytes(model.SerializeToString()), holes=[], sizes=sizes)


def _graph(change: Callable[[onnx.ModelProto], Any]) -> Callable[[State], Any]:
    """Changes the model, and leaves its weight a hole."""

    def changed(state: State) -> Any:
        model = _model()
        change(model)
        return _cut(model)(state)

    return changed


def _cut(model: onnx.ModelProto | bytes, payload: bytes = ONES) -> Callable[[State], Any]:
    """Changes the model, and leaves a hole for some bytes of it."""
    data = model if isinstance(model, bytes) else model.SerializeToString()
    start = data.index(payload)
    stop = start + len(payload)
    return _of(template=_bytes(data[:start] + data[stop:]), holes=[start, stop])


def _external(location: str, offset: int, op: str = "Add") -> onnx.ModelProto:
    model = _model(op)
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", str(offset))):
        tensor.external_data.add(key=key, value=value)
    return model


def _typed(kind: int) -> Callable[[State], Any]:
    return _graph(lambda m: setattr(m.graph.initializer[0], "data_type", kind))


def _integers(model: onnx.ModelProto) -> None:
    for info in (*model.graph.input, *model.graph.output):
        info.type.tensor_type.elem_type = TensorProto.INT32
    model.graph.initializer[0].data_type = TensorProto.INT32


def _constant(model: onnx.ModelProto) -> None:
    node = model.graph.node.add(op_type="Constant")
    node.attribute.add(name="value", type=onnx.AttributeProto.TENSOR)


def _spare() -> onnx.ModelProto:
    """The model with an initializer that nothing reads."""
    model = _model()
    model.graph.initializer.add(
        name="spare", data_type=TensorProto.UINT8, dims=[1200], raw_data=b"s" * 1200
    )
    return model


def _pieces() -> bytes:
    """A model whose weight is a Constant that has its tensor in two pieces."""

    def field(number: int, data: bytes) -> bytes:
        return tagged(number, len(data)) + data

    model = _model()
    tensor = model.graph.initializer.pop().SerializeToString()
    piece = TensorProto(raw_data=bytes(1200)).SerializeToString()
    value = onnx.AttributeProto(name="value", type=onnx.AttributeProto.TENSOR)
    node = onnx.NodeProto(op_type="Constant", output=["w"])
    attribute = value.SerializeToString() + field(5, tensor) + field(5, piece)
    graph = field(1, node.SerializeToString() + field(5, attribute))
    return bytes(model.SerializeToString() + field(7, graph))


def _with(op: str = "Add", opset: int = 21, kind: int = TensorProto.FLOAT) -> onnx.ModelProto:
    model = _model(op)
    model.opset_import[0].version = opset
    model.graph.input[0].type.tensor_type.elem_type = kind
    return model


GRAPH, PLAIN = "damaged model", "not plain data"
TENSOR = "is missing|must have the shape|must be torch"
APART, LARGER = "share their bytes", "larger than their bytes|share their bytes"
HOSTILE: dict[str, tuple[Callable[[State], Any], type[OnnxError], str]] = {
    "the state is a tensor": (lambda _: torch.zeros(3), InvalidModelError, "no graph"),
    "the state is a list": (lambda _: [1], InvalidModelError, "no graph"),
    "the state is a set": (lambda _: {1}, InvalidModelError, PLAIN),
    "the state is made by its length": (lambda _: bytearray(9), InvalidModelError, PLAIN),
    "metadata: None": (_metadata(None), InvalidModelError, "no graph"),
    "metadata: list": (_metadata([1]), InvalidModelError, "no graph"),
    "metadata: list inside": (_metadata({"": [1]}), InvalidModelError, "no graph"),
    "metadata: tensor": (
        _metadata({"": {checkpoints.KEY: torch.ones(1)}}),
        InvalidModelError,
        GRAPH,
    ),
    "metadata: number as key": (_metadata({"": {}, 3: {}}), InvalidModelError, PLAIN),
    "template: absent": (_of(template=None), InvalidModelError, "template must be"),
    "template: list": (_of(template=[1]), InvalidModelError, "template must be"),
    "template: floats": (_of(template=torch.ones(3)), InvalidModelError, "template must be"),
    "template: matrix": (
        _of(template=torch.ones(1, 3, dtype=torch.uint8)),
        InvalidModelError,
        "template must be",
    ),
    "template: empty": (_of(template=_bytes(b"\0")[:0], holes=[]), InvalidModelError, GRAPH),
    "template: no holes": (_of(holes=[]), InvalidModelError, GRAPH),
    "template: meta": (_of(template=torch.ones(3, device="meta")), InvalidModelError, PLAIN),
    "template: no strings": (
        _of(template=_bytes(b"\x3a\x03\x12\x01\xff"), holes=[]),
        InvalidModelError,
        GRAPH,
    ),
    "template: no graph": (
        _of(template=_bytes(b"\x08\x0a"), holes=[]),
        InvalidModelError,
        "a model without a graph",
    ),
    "template: of an older version": (
        _of(graph=_bytes(b"graph")),
        InvalidModelError,
        "an older version of onnxinterp wrote it: convert the .onnx file again",
    ),
    "graph: strings": (_typed(TensorProto.STRING), InvalidModelError, GRAPH),
    "graph: unknown type": (_typed(99), InvalidModelError, GRAPH),
    "graph: another type": (
        _graph(_integers),
        InvalidModelError,
        "must be int32, got torch.float32",
    ),
    "graph: Constant of nothing": (_graph(_constant), InvalidModelError, GRAPH),
    "places: list": (_of(places=["w"]), InvalidModelError, "places"),
    "places: number": (_of(places={"weights.w": 1}), InvalidModelError, "places"),
    "places: strings": (_of(places={"weights.w": ["a"]}), InvalidModelError, "places"),
    "places: negative": (_of(places={"weights.w": [7, 0, 5, -1]}), InvalidModelError, "places"),
    "places: far away": (_of(places={"weights.w": [7, 0, 5, 9]}), InvalidModelError, GRAPH),
    "places: of the graph": (_of(places={"weights.w": [7]}), InvalidModelError, GRAPH),
    "places: one for all": (
        _of(places={"weights.w": [7, 0, 5, 0], "weights.v": [7, 0, 5, 0]}),
        InvalidModelError,
        "missing",
    ),
    "places: absent tensor": (
        _of(places={"weights.v": [7, 0, 5, 0]}),
        InvalidModelError,
        "missing",
    ),
    "places: none": (_of(places={}), InvalidModelError, GRAPH),
    "places: nested": (_of(places={"weights.w": _nested()}), InvalidModelError, "places"),
    "trainable: number": (_of(trainable=3), InvalidModelError, "trainable"),
    "trainable: lists": (_of(trainable=[[1]]), InvalidModelError, "trainable"),
    "trainable: nested": (_of(trainable=[_nested()]), InvalidModelError, "trainable"),
    "outputs: number": (_of(outputs=3), InvalidModelError, "outputs"),
    "outputs: text": (_of(outputs="y"), InvalidModelError, "outputs"),
    "outputs: lists": (_of(outputs=[[1]]), InvalidModelError, "outputs"),
    "outputs: nested": (_of(outputs=[_nested()]), InvalidModelError, "outputs"),
    "outputs: empty": (_of(outputs=[]), InvalidModelError, "outputs"),
    "outputs: unknown": (_of(outputs=["z"]), InvalidModelError, "no values called 'z'"),
    "untied: number": (_of(untied=3), InvalidModelError, "untied"),
    "untied: None": (_of(untied=None), InvalidModelError, "untied"),
    "untied: numbers": (_of(untied=[1]), InvalidModelError, "untied"),
    "a key is a number": (_tensor(torch.ones(1), 3), InvalidModelError, PLAIN),
    "one tensor more": (_tensor(torch.ones(1), "weights.z"), InvalidModelError, TENSOR),
    "w: number": (_tensor(3), InvalidModelError, "plain tensors"),
    "w: shape": (_tensor(torch.ones(3)), InvalidModelError, TENSOR),
    "w: wide": (_tensor(_wide(torch.float32)), UnsafeModelError, APART),
    "w: one element": (_tensor(torch.ones(1).expand(300)), UnsafeModelError, APART),
    "w: meta": (_tensor(torch.ones(300, device="meta")), InvalidModelError, PLAIN),
    "w: sparse": (_tensor(torch.ones(300).to_sparse()), InvalidModelError, PLAIN),
    "w: int64": (_tensor(torch.ones(300, dtype=torch.int64)), InvalidModelError, "int64"),
    "w: bool": (_tensor(torch.ones(300, dtype=torch.bool)), InvalidModelError, "bool"),
    "w: complex": (_tensor(torch.ones(300, dtype=torch.complex64)), InvalidModelError, "complex64"),
    "holes: absent": (_of(holes=None), InvalidModelError, "holes"),
    "holes: number": (_of(holes=3), InvalidModelError, "holes"),
    "holes: strings": (_of(holes=["a", "b"]), InvalidModelError, "holes"),
    "holes: one edge": (_of(holes=[40]), InvalidModelError, "follow one another"),
    "holes: backwards": (_of(holes=[40, 30]), InvalidModelError, "follow one another"),
    "holes: over each other": (_of(holes=[20, 40, 30, 50]), InvalidModelError, "follow one"),
    "holes: behind the end": (_of(holes=[2**20, 2**20 + 9]), InvalidModelError, "follow one"),
    "holes: too large": (_of(holes=[40, 2**70]), InvalidModelError, "follow one another"),
    "holes: first": (_of(holes=[0, 1200]), InvalidModelError, "not protobuf|too long|lacks"),
    "holes: elsewhere": (
        _of(holes=[20, 1220]),
        InvalidModelError,
        "not protobuf|too long|lacks",
    ),
    "holes: in a name": (_cut(_model(), b"Add"), InvalidModelError, "lacks byte"),
    "holes: in a shape": (_cut(_model(), b"\x08\xac\x02\x10"), InvalidModelError, "lacks|protobuf"),
    "holes: before the data": (
        _cut(_model(), b"w" + b"\x4a\xb0\x09" + ONES),
        InvalidModelError,
        "not protobuf|too long|lacks",
    ),
    "holes: behind the data": (_cut(_model(), ONES + b"Z"), InvalidModelError, "not protobuf"),
    "holes: in no weight": (_cut(_spare(), b"s" * 1200), InvalidModelError, "is not a weight"),
    "template: other size": (_template(_model(size=301)), InvalidModelError, TENSOR),
    "template: far away": (_template(_external("a", 2**40)), UnsafeModelError, "go beyond"),
    "template: size of a file": (
        _template(_external("a", 0), a=10**20),
        UnsafeModelError,
        "go beyond",
    ),
    "template: outside": (_template(_external("../a", 0)), UnsafeModelError, "must be inside"),
    "sizes: absent": (_of(sizes=None), InvalidModelError, "sizes"),
    "sizes: negative": (_of(sizes={"a": -1}), InvalidModelError, "sizes"),
    "template: wide": (_of(template=_wide(torch.uint8)), UnsafeModelError, APART),
    "untied: nested": (_of(untied=[_nested()]), InvalidModelError, "untied"),
}
WOULD_HANG = [name for name in HOSTILE if "nested" in name or "wide" in name]


@pytest.mark.parametrize("name", [name for name in HOSTILE if name not in WOULD_HANG])
def test_what_lies_is_refused(name: str, honest: Callable[[], State], tmp_path: Path) -> None:
    change, error, message = HOSTILE[name]
    torch.save(change(honest()), tmp_path / "m.pth")
    with pytest.raises(error, match=message) as caught:
        checkpoints.load(tmp_path / "m.pth")
    assert str(caught.value).isprintable()
    assert isinstance(caught.value, UnsafeModelError) == (error is UnsafeModelError)


def test_what_would_hang_or_need_all_memory_is_refused(
    honest: Callable[[], State], tmp_path: Path, fork: Fork
) -> None:
    """In a process of its own, which ends after 20 seconds."""
    for number, name in enumerate(WOULD_HANG):
        torch.save(HOSTILE[name][0](honest()), tmp_path / f"{number}.pth")
    packed = {
        "deflated": _archive(b"", {"data/0": bytes(2**28)}, compression=zipfile.ZIP_DEFLATED),
        "keys": _archive(b"}" + NESTED + b"K\x01s."),
        "set": _archive(b"c__builtin__\nset\n]" + NESTED + b"a\x85R."),
        "array": _archive(b"cbuiltins\nbytearray\n(J\xff\xff\xff\x7ftR."),
        "memo": _archive(b"]r\xff\xff\xff\x7f."),
    }
    for name, data in packed.items():
        (tmp_path / f"{name}.pth").write_bytes(data)
    files = sorted(tmp_path.iterdir())
    assert len(files) == len(WOULD_HANG) + len(packed)
    assert fork(REFUSED, *files) == 0


def _archive(program: bytes, entries: dict[str, bytes] | None = None, **keywords: Any) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", **keywords) as archive:
        for name, data in {"data.pkl": program, **(entries or {})}.items():
            archive.writestr(f"m/{name}", data)
    return out.getvalue()


def test_a_tensor_does_not_reach_beyond_its_entry(
    honest: Callable[[], State], tmp_path: Path
) -> None:
    """The pickle says how long a storage is; the archive knows."""
    path = tmp_path / "m.pth"
    torch.save(honest(), path)
    with zipfile.ZipFile(path) as archive:
        root = archive.namelist()[0].partition("/")[0]
        held = {n.removeprefix(f"{root}/"): archive.read(n) for n in archive.namelist()}
    path.write_bytes(_archive(held.pop("data.pkl"), {**held, "data/0": held["data/0"][:-4]}))
    with pytest.raises(UnsafeModelError, match="larger than their bytes"):
        checkpoints.load(path)


def test_damaged_bytes_are_refused(honest: Callable[[], State], tmp_path: Path) -> None:
    path = tmp_path / "m.pth"
    torch.save(honest(), path)
    data = path.read_bytes()
    generator = torch.Generator().manual_seed(0)
    for _ in range(150):
        at = int(torch.randint(len(data), (1,), generator=generator))
        bit = int(torch.randint(8, (1,), generator=generator))
        path.write_bytes(data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1 :])
        try:
            checkpoints.load(path)
        except OnnxError:
            continue
    for at in range(0, len(data), len(data) // 50):
        path.write_bytes(data[:at])
        with pytest.raises(InvalidModelError):
            checkpoints.load(path)


def test_limits_and_allowed_operators_hold(honest: Callable[[], State], tmp_path: Path) -> None:
    path = tmp_path / "m.pth"
    torch.save(honest(), path)
    assert checkpoints.load(path, limits=Limits.untrusted(), allowed_ops={"Add"}).input_names
    with pytest.raises(UnsafeModelError, match="Add"):
        checkpoints.load(path, allowed_ops={"Sub"})
    for limits in (Limits(weight_bytes=100), Limits(nodes=0), Limits(model_bytes=10)):
        with pytest.raises(UnsafeModelError):
            checkpoints.load(path, limits=limits)


OTHER: dict[str, tuple[Callable[[State], Any], onnx.ModelProto]] = {
    "another node": (_template(_model("Sub")), _model("Sub")),
    "another version": (_template(_with(opset=13)), _with(opset=13)),
    "another input type": (_template(_with("Mul")), _with("Mul")),
    "a hole": (_cut(_model("Sub")), _model("Sub")),
    "external data": (_template(_external("a", 0, "Sub")), _model("Sub")),
}


@pytest.mark.parametrize("name", OTHER)
def test_what_is_saved_is_what_is_computed(
    name: str, honest: Callable[[], State], tmp_path: Path
) -> None:
    """A checkpoint holds one model: one that somebody has put there is computed as it is saved."""
    change, model = OTHER[name]
    torch.save(change(honest()), tmp_path / "m.pth")
    module = checkpoints.load(tmp_path / "m.pth")
    x = torch.rand(300)
    assert torch.equal(module(x), OnnxModule(model)(x))
    module.save_onnx(tmp_path / "m.onnx")
    saved = onnx.load(tmp_path / "m.onnx")
    assert saved.opset_import == model.opset_import
    assert saved.graph.node == model.graph.node
    assert numpy_helper.to_array(saved.graph.initializer[0]).tolist() == 300 * [1]
    assert torch.equal(OnnxModule(tmp_path / "m.onnx")(x), module(x))


def test_a_tensor_in_pieces_is_not_saved(honest: Callable[[], State], tmp_path: Path) -> None:
    """There is no one place for what the pieces hold together."""
    state = _of(places={"weights.w": [7, 0, 1, 1, 5, 0, 5, 0]})(_cut(_pieces())(honest()))
    torch.save(state, tmp_path / "m.pth")
    module = checkpoints.load(tmp_path / "m.pth")
    assert torch.equal(module(torch.zeros(300)), torch.ones(300))
    with pytest.raises(InvalidModelError, match="in several pieces"):
        module.save_onnx(tmp_path / "m.onnx")


def test_a_wrong_place_changes_nothing(tmp_path: Path) -> None:
    """Weights have the tensors of their names, wherever the file says that they belong."""
    model = sum_of(raw("w", LARGE), raw("v", LARGE, seed=1))
    checkpoints.save(model, tmp_path / "m.pth")
    state = torch.load(tmp_path / "m.pth", weights_only=True)
    places = _known(state)["places"]
    places["weights.w"], places["weights.v"] = places["weights.v"], places["weights.w"]
    torch.save(state, tmp_path / "m.pth")
    module = checkpoints.load(tmp_path / "m.pth")
    for name, tensor in OnnxModule(model).weights.items():
        assert torch.equal(module.weights[name], tensor)
    module.save_onnx(tmp_path / "m.onnx")
    assert onnx.load(tmp_path / "m.onnx") == model


@pytest.mark.parametrize("location", ["conftest.py", ".github/x.yml", "w.bin"])
def test_a_checkpoint_names_no_file(
    location: str, honest: Callable[[], State], tmp_path: Path
) -> None:
    torch.save(_template(_external(location, 0))(honest()), tmp_path / "m.pth")
    module = checkpoints.load(tmp_path / "m.pth")
    folder = tmp_path / "out"
    folder.mkdir()
    for _ in range(2):  # over a model that has data of its own, too
        module.save_onnx(folder / "m.onnx")
        assert {p.name for p in folder.rglob("*")} == {"m.onnx", "m.onnx.data"}
        x = torch.rand(300)
        assert torch.equal(OnnxModule(folder / "m.onnx")(x), module(x))


def test_weights_of_every_layout_come_back(tmp_path: Path) -> None:
    """Transposed, on one storage, and trained apart from each other."""
    model = sum_of(raw("w", 20, LARGE), raw("v", 20, LARGE, seed=1))
    module = OnnxModule(model)
    with torch.no_grad():
        module.weights["w"] = torch.nn.Parameter(torch.rand(LARGE, 20).T)
        module.weights["v"] = torch.nn.Parameter(module.weights["w"][:])
    checkpoints.save(model, tmp_path / "m.pth", module=module)
    again = checkpoints.load(tmp_path / "m.pth")
    assert again.weights["w"].stride() == (1, 20)
    assert again.weights["w"].data_ptr() == again.weights["v"].data_ptr()
    assert torch.equal(again.weights["w"], module.weights["w"])
