"""Changes to an honest checkpoint that make it hostile, and the error that each must raise."""

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor

from onnxinterp import (
    InvalidModelError,
    OnnxError,
    UnsafeModelError,
    checkpoints,
)
from onnxinterp.format.wire import tagged
from tests.processes import fork as fork

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


def model_of(op: str = "Add", size: int = 300) -> onnx.ModelProto:
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
    checkpoints.save(model_of(), path)
    return lambda: torch.load(path, weights_only=True)


ONES = torch.ones(300).numpy().tobytes()  # the data of the weight of `model_of()`


def metadata_of(state: State) -> dict[str, Any]:
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


def with_entries(**entries: Any) -> Callable[[State], Any]:
    """Changes entries of the metadata."""
    return lambda state: metadata_of(state).update(entries) or state


def _tensor(value: Any, key: Any = "w") -> Callable[[State], Any]:
    """Changes a tensor."""
    return lambda state: state.update({key: value}) or state


def _metadata(value: Any) -> Callable[[State], Any]:
    def change(state: State) -> Any:
        state._metadata = value  # type: ignore[attr-defined]
        return state

    return change


def with_template(model: onnx.ModelProto, **sizes: int) -> Callable[[State], Any]:
    """Changes the model; its tensors have all their data."""
    return with_entries(template=_bytes(model.SerializeToString()), holes=[], sizes=sizes)


def _graph(change: Callable[[onnx.ModelProto], Any]) -> Callable[[State], Any]:
    """Changes the model, and leaves its weight a hole."""

    def changed(state: State) -> Any:
        model = model_of()
        change(model)
        return cut(model)(state)

    return changed


def cut(model: onnx.ModelProto | bytes, payload: bytes = ONES) -> Callable[[State], Any]:
    """Changes the model, and leaves a hole for some bytes of it."""
    data = model if isinstance(model, bytes) else model.SerializeToString()
    start = data.index(payload)
    stop = start + len(payload)
    return with_entries(template=_bytes(data[:start] + data[stop:]), holes=[start, stop])


def external(location: str, offset: int, op: str = "Add") -> onnx.ModelProto:
    model = model_of(op)
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
    model = model_of()
    model.graph.initializer.add(
        name="spare", data_type=TensorProto.UINT8, dims=[1200], raw_data=b"s" * 1200
    )
    return model


def in_pieces() -> bytes:
    """A model whose weight is a Constant that has its tensor in two pieces."""

    def field(number: int, data: bytes) -> bytes:
        return tagged(number, len(data)) + data

    model = model_of()
    tensor = model.graph.initializer.pop().SerializeToString()
    piece = TensorProto(raw_data=bytes(1200)).SerializeToString()
    value = onnx.AttributeProto(name="value", type=onnx.AttributeProto.TENSOR)
    node = onnx.NodeProto(op_type="Constant", output=["w"])
    attribute = value.SerializeToString() + field(5, tensor) + field(5, piece)
    graph = field(1, node.SerializeToString() + field(5, attribute))
    return bytes(model.SerializeToString() + field(7, graph))


def model_with(op: str = "Add", opset: int = 21, kind: int = TensorProto.FLOAT) -> onnx.ModelProto:
    model = model_of(op)
    model.opset_import[0].version = opset
    model.graph.input[0].type.tensor_type.elem_type = kind
    return model


def copies(state: State) -> Any:
    """A small file whose model has a tensor many times, each transposed."""
    names = [f"w{i}" for i in range(40)]
    weights = [numpy_helper.from_array(torch.ones(1, 300).numpy(), name) for name in names]
    model = model_of()
    model.graph.ClearField("initializer")
    model.graph.initializer.extend(weights)
    model.graph.node[0].CopyFrom(helper.make_node("Sum", ["x", *names], ["y"]))
    state.clear()
    state["w"] = torch.ones(300, 1)
    places = {name: [7, 0, 5, i] for i, name in enumerate(names)}
    layouts = {name: ["transposed", "w"] for name in names}
    return with_entries(places=places, layouts=layouts)(with_template(model)(state))


GRAPH, PLAIN = "damaged model", "not plain data"
TENSOR = "is missing|must have the shape|must be torch"
APART, LARGER = "share their bytes", "larger than their bytes|share their bytes"
HOSTILE: dict[str, tuple[Callable[[State], Any], type[OnnxError], str]] = {
    "the state is a tensor": (lambda _: torch.zeros(3), InvalidModelError, "it is a Tensor"),
    "the state is a list": (lambda _: [1], InvalidModelError, "it is a list"),
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
    "template: absent": (with_entries(template=None), InvalidModelError, "template must be"),
    "template: list": (with_entries(template=[1]), InvalidModelError, "template must be"),
    "template: floats": (
        with_entries(template=torch.ones(3)),
        InvalidModelError,
        "template must be",
    ),
    "template: matrix": (
        with_entries(template=torch.ones(1, 3, dtype=torch.uint8)),
        InvalidModelError,
        "template must be",
    ),
    "template: empty": (
        with_entries(template=_bytes(b"\0")[:0], holes=[]),
        InvalidModelError,
        GRAPH,
    ),
    "template: no holes": (with_entries(holes=[]), InvalidModelError, GRAPH),
    "template: meta": (
        with_entries(template=torch.ones(3, device="meta")),
        InvalidModelError,
        PLAIN,
    ),
    "template: no strings": (
        with_entries(template=_bytes(b"\x3a\x03\x12\x01\xff"), holes=[]),
        InvalidModelError,
        GRAPH,
    ),
    "template: no graph": (
        with_entries(template=_bytes(b"\x08\x0a"), holes=[]),
        InvalidModelError,
        "a model without a graph",
    ),
    "template: of an older version": (
        with_entries(graph=_bytes(b"graph")),
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
    "places: list": (with_entries(places=["w"]), InvalidModelError, "places"),
    "places: number": (with_entries(places={"w": 1}), InvalidModelError, "places"),
    "places: strings": (with_entries(places={"w": ["a"]}), InvalidModelError, "places"),
    "places: negative": (
        with_entries(places={"w": [7, 0, 5, -1]}),
        InvalidModelError,
        "places",
    ),
    "places: far away": (
        with_entries(places={"w": [7, 0, 5, 9]}),
        InvalidModelError,
        GRAPH,
    ),
    "places: of the graph": (with_entries(places={"w": [7]}), InvalidModelError, GRAPH),
    "places: one for all": (
        with_entries(places={"w": [7, 0, 5, 0], "v": [7, 0, 5, 0]}),
        InvalidModelError,
        "missing",
    ),
    "places: absent tensor": (
        with_entries(places={"v": [7, 0, 5, 0]}),
        InvalidModelError,
        "missing",
    ),
    "places: none": (with_entries(places={}), InvalidModelError, GRAPH),
    "places: nested": (with_entries(places={"w": _nested()}), InvalidModelError, "places"),
    "trainable: number": (with_entries(trainable=3), InvalidModelError, "trainable"),
    "trainable: lists": (with_entries(trainable=[[1]]), InvalidModelError, "trainable"),
    "trainable: nested": (with_entries(trainable=[_nested()]), InvalidModelError, "trainable"),
    "outputs: number": (with_entries(outputs=3), InvalidModelError, "outputs"),
    "outputs: text": (with_entries(outputs="y"), InvalidModelError, "outputs"),
    "outputs: lists": (with_entries(outputs=[[1]]), InvalidModelError, "outputs"),
    "outputs: nested": (with_entries(outputs=[_nested()]), InvalidModelError, "outputs"),
    "outputs: empty": (with_entries(outputs=[]), InvalidModelError, "outputs"),
    "outputs: unknown": (with_entries(outputs=["z"]), InvalidModelError, "no values called 'z'"),
    "layouts: None": (with_entries(layouts=None), InvalidModelError, "layouts must be"),
    "layouts: list": (with_entries(layouts=["w"]), InvalidModelError, "layouts must be"),
    "layouts: number": (with_entries(layouts={"w": 1}), InvalidModelError, "layouts must be"),
    "layouts: numbers": (with_entries(layouts={"w": [1]}), InvalidModelError, "layouts must be"),
    "layouts: nested": (with_entries(layouts={"w": _nested()}), InvalidModelError, "layouts"),
    "layouts: empty": (with_entries(layouts={"w": []}), InvalidModelError, "must name a layout"),
    "layouts: none": (
        with_entries(layouts={"w": ["transposed"]}),
        InvalidModelError,
        "its tensors",
    ),
    "layouts: unknown": (with_entries(layouts={"w": ["x", "w"]}), InvalidModelError, "a layout"),
    "layouts: two as they are": (
        with_entries(layouts={"w": ["", "w", "w"]}),
        InvalidModelError,
        "must name a layout",
    ),
    "layouts: absent tensor": (with_entries(layouts={"w": ["", "v"]}), InvalidModelError, TENSOR),
    "layouts: of a matrix": (
        with_entries(layouts={"w": ["transposed", "w"]}),
        InvalidModelError,
        r"must be tensors of the shapes \[\]",
    ),
    "layouts: of gates": (
        with_entries(layouts={"w": ["biases_4_1", "w", "w"]}),
        InvalidModelError,
        r"must be tensors of the shapes \[\]",
    ),
    "layouts: of channels": (
        with_entries(layouts={"w": ["per_channel_2_0", "w"]}),
        InvalidModelError,
        r"must be tensors of the shapes \[\]",
    ),
    "layouts: copies": (copies, UnsafeModelError, "too many copies"),
    "shared: None": (with_entries(shared=None), InvalidModelError, "shared must be"),
    "shared: numbers": (with_entries(shared=[1]), InvalidModelError, "shared must be"),
    "tied: None": (with_entries(tied=None), InvalidModelError, "tied must be"),
    "tied: number": (with_entries(tied=1), InvalidModelError, "tied must be"),
    "untied: number": (with_entries(untied=3), InvalidModelError, "untied"),
    "untied: None": (with_entries(untied=None), InvalidModelError, "untied"),
    "untied: numbers": (with_entries(untied=[1]), InvalidModelError, "untied"),
    "a key is a number": (_tensor(torch.ones(1), 3), InvalidModelError, PLAIN),
    "one tensor more": (_tensor(torch.ones(1), "z"), InvalidModelError, TENSOR),
    "w: number": (_tensor(3), InvalidModelError, "plain tensors"),
    "w: shape": (_tensor(torch.ones(3)), InvalidModelError, TENSOR),
    "w: wide": (_tensor(_wide(torch.float32)), UnsafeModelError, APART),
    "w: one element": (_tensor(torch.ones(1).expand(300)), UnsafeModelError, APART),
    "w: meta": (_tensor(torch.ones(300, device="meta")), InvalidModelError, PLAIN),
    "w: sparse": (_tensor(torch.ones(300).to_sparse()), InvalidModelError, PLAIN),
    "w: int64": (_tensor(torch.ones(300, dtype=torch.int64)), InvalidModelError, "int64"),
    "w: bool": (_tensor(torch.ones(300, dtype=torch.bool)), InvalidModelError, "bool"),
    "w: complex": (_tensor(torch.ones(300, dtype=torch.complex64)), InvalidModelError, "complex64"),
    "holes: absent": (with_entries(holes=None), InvalidModelError, "holes"),
    "holes: number": (with_entries(holes=3), InvalidModelError, "holes"),
    "holes: strings": (with_entries(holes=["a", "b"]), InvalidModelError, "holes"),
    "holes: one edge": (with_entries(holes=[40]), InvalidModelError, "follow one another"),
    "holes: backwards": (with_entries(holes=[40, 30]), InvalidModelError, "follow one another"),
    "holes: over each other": (
        with_entries(holes=[20, 40, 30, 50]),
        InvalidModelError,
        "follow one",
    ),
    "holes: behind the end": (
        with_entries(holes=[2**20, 2**20 + 9]),
        InvalidModelError,
        "follow one",
    ),
    "holes: too large": (with_entries(holes=[40, 2**70]), InvalidModelError, "follow one another"),
    "holes: first": (
        with_entries(holes=[0, 1200]),
        InvalidModelError,
        "not protobuf|too long|lacks",
    ),
    "holes: elsewhere": (
        with_entries(holes=[20, 1220]),
        InvalidModelError,
        "not protobuf|too long|lacks",
    ),
    "holes: in a name": (cut(model_of(), b"Add"), InvalidModelError, "lacks byte"),
    "holes: in a shape": (
        cut(model_of(), b"\x08\xac\x02\x10"),
        InvalidModelError,
        "lacks|protobuf",
    ),
    "holes: before the data": (
        cut(model_of(), b"w" + b"\x4a\xb0\x09" + ONES),
        InvalidModelError,
        "not protobuf|too long|lacks",
    ),
    "holes: behind the data": (cut(model_of(), ONES + b"Z"), InvalidModelError, "not protobuf"),
    "holes: in no weight": (cut(_spare(), b"s" * 1200), InvalidModelError, "is not a weight"),
    "template: other size": (with_template(model_of(size=301)), InvalidModelError, TENSOR),
    "template: far away": (with_template(external("a", 2**40)), UnsafeModelError, "go beyond"),
    "template: size of a file": (
        with_template(external("a", 0), a=10**20),
        UnsafeModelError,
        "go beyond",
    ),
    "template: outside": (with_template(external("../a", 0)), UnsafeModelError, "must be inside"),
    "sizes: absent": (with_entries(sizes=None), InvalidModelError, "sizes"),
    "sizes: negative": (with_entries(sizes={"a": -1}), InvalidModelError, "sizes"),
    "template: wide": (with_entries(template=_wide(torch.uint8)), UnsafeModelError, APART),
    "untied: nested": (with_entries(untied=[_nested()]), InvalidModelError, "untied"),
}
WOULD_HANG = [name for name in HOSTILE if "nested" in name or "wide" in name]
