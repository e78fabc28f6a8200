"""Checkpoints that lie are refused, whatever lies in them; what is saved is what was loaded.

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


def _graph(change: Callable[[onnx.ModelProto], Any]) -> Callable[[State], Any]:
    """Changes the graph."""

    def changed(state: State) -> Any:
        model = onnx.ModelProto.FromString(bytes(_known(state)["graph"].numpy()))
        change(model)
        return _of(graph=_bytes(model.SerializeToString()))(state)

    return changed


def _template(model: onnx.ModelProto, **sizes: int) -> Callable[[State], Any]:
    """Changes what is saved."""
    data = model.SerializeToString()
    return _pieces(starts=[0], pieces=[_bytes(data)], size=len(data), sizes=sizes)


def _pieces(**entries: Any) -> Callable[[State], Any]:
    def change(state: State) -> Any:
        return _of(template={**_known(state)["template"], **entries})(state)

    return change


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


def _constant(model: onnx.ModelProto) -> None:
    node = model.graph.node.add(op_type="Constant")
    node.attribute.add(name="value", type=onnx.AttributeProto.TENSOR)


def _with(op: str = "Add", opset: int = 21, kind: int = TensorProto.FLOAT) -> onnx.ModelProto:
    model = _model(op)
    model.opset_import[0].version = opset
    model.graph.input[0].type.tensor_type.elem_type = kind
    return model


GRAPH, TENSOR, PLAIN = "damaged graph", "missing|in the (graph|file)|has the shape", "plain data"
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
    "graph: absent": (_of(graph=None), InvalidModelError, GRAPH),
    "graph: floats": (_of(graph=torch.ones(3)), InvalidModelError, GRAPH),
    "graph: matrix": (_of(graph=torch.ones(1, 3, dtype=torch.uint8)), InvalidModelError, GRAPH),
    "graph: empty": (_of(graph=_bytes(b"\0")[:0]), InvalidModelError, GRAPH),
    "graph: meta": (_of(graph=torch.ones(3, device="meta")), InvalidModelError, PLAIN),
    "graph: no texts": (_of(graph=_bytes(b"\x3a\x03\x12\x01\xff")), InvalidModelError, GRAPH),
    "graph: strings": (_typed(TensorProto.STRING), InvalidModelError, GRAPH),
    "graph: unknown type": (_typed(99), InvalidModelError, GRAPH),
    "graph: another type": (_typed(TensorProto.INT64), InvalidModelError, TENSOR),
    "graph: Constant of nothing": (_graph(_constant), InvalidModelError, GRAPH),
    "keys: list": (_of(keys=["w"]), InvalidModelError, "keys"),
    "keys: number": (_of(keys={"w": 1}), InvalidModelError, "keys"),
    "keys: one for all": (_of(keys={"w": "a", "v": "a"}), InvalidModelError, "twice"),
    "keys: absent tensor": (_of(keys={"w": "weights.v"}), InvalidModelError, "missing"),
    "keys: none": (_of(keys={}), InvalidModelError, GRAPH),
    "keys: nested": (_of(keys={"w": _nested()}), InvalidModelError, "keys"),
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
    "untied: patterns": (_of(untied=["*a" * 30]), InvalidModelError, "untied"),
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
    "template: list": (_of(template=[1]), InvalidModelError, "template"),
    "template: empty": (_of(template={}), InvalidModelError, "size"),
    "template: no pieces": (_pieces(pieces=[], starts=[]), InvalidModelError, "pieces"),
    "template: pieces of numbers": (_pieces(pieces=[1, 1]), InvalidModelError, "template"),
    "template: backwards": (_pieces(starts=[40, 0]), InvalidModelError, "pieces"),
    "template: over each other": (_pieces(starts=[0, 1]), InvalidModelError, "pieces"),
    "template: too short": (_pieces(size=3), InvalidModelError, "pieces"),
    "template: a hole too many": (
        _pieces(size=2**30),
        InvalidModelError,
        "no protobuf|lacks bytes|not end",
    ),
    "template: size": (_pieces(size=2**70), InvalidModelError, "pieces"),
    "template: no size": (_pieces(size=None), InvalidModelError, "size"),
    "template: other node": (_template(_model("Sub")), InvalidModelError, "another model"),
    "template: other version": (_template(_with(opset=13)), InvalidModelError, "another model"),
    "template: other input": (_template(_with(kind=11)), InvalidModelError, "another model"),
    "template: other size": (_template(_model(size=301)), InvalidModelError, "another model"),
    "template: far away": (_template(_external("a", 2**40)), UnsafeModelError, "go beyond"),
    "template: size of a file": (
        _template(_external("a", 0), a=10**20),
        UnsafeModelError,
        "go beyond",
    ),
    "template: outside": (_template(_external("../a", 0)), UnsafeModelError, "outside"),
    "template: external and other": (
        _template(_external("a", 0, "Sub")),
        InvalidModelError,
        "another model",
    ),
    "template: wide": (_pieces(pieces=[_wide(torch.uint8)] * 2), UnsafeModelError, APART),
    "graph: wide": (_of(graph=_wide(torch.uint8)), UnsafeModelError, APART),
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
