"""Shape arithmetic of any rank runs on plain numbers: pads pass through an (n, 2) matrix."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx.parser
import onnxruntime
import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim
from torch.nn import functional

from onnxinterp import NodeError, OnnxModule
from onnxinterp.runtime.interpreter import Frame, Interpreter
from onnxinterp.runtime.plan import Step
from onnxinterp.values import Host
from tests import exporting

SIZES = (7, 9, 8)
OTHER_SIZES = ((8, 6, 9), (12, 13, 7), (22, 10, 6))


class Recorder(Interpreter):
    """Notes the operators whose results are tensors."""

    def __init__(self) -> None:
        self.of_tensors: list[str] = []

    def run_step(self, step: Step, frame: Frame) -> Any:
        result = super().run_step(step, frame)
        values = result if isinstance(result, tuple) else (result,)
        if not all(isinstance(value, Host) for value in values):
            self.of_tensors.append(step.node.op_type)
        return result


def operators_of_tensors(module: OnnxModule, x: Tensor) -> list[str]:
    """The operators of a call whose results are not plain numbers."""
    module.interpreter = Recorder()
    module(x)
    found = module.interpreter.of_tensors
    module.interpreter = Interpreter()
    return found


class Padded(nn.Module):
    """Pads that follow the sizes of the last `rank` axes."""

    def __init__(self, mode: str, rank: int) -> None:
        super().__init__()
        self.mode, self.rank = mode, rank

    def forward(self, x: Tensor) -> Tensor:
        pads: list[int] = []
        for size in x.shape[: -self.rank - 1 : -1]:
            pads += [size // 3, size // 2]
        return functional.pad(x, pads, mode=self.mode)


class Same(nn.Module):
    """A convolution with `padding="same"` and strides, as Keras defines it."""

    def __init__(self) -> None:
        super().__init__()
        self.mode, self.rank = "same", 2
        self.convolution = nn.Conv2d(2, 3, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        pads: list[int] = []
        for size in x.shape[:1:-1]:
            total = (size + 1) // 2 * 2 + 1 - size
            pads += [total // 2, total - total // 2]
        return self.convolution(functional.pad(x, pads))


NETWORKS = [Padded(mode, n) for mode in ("constant", "reflect", "replicate") for n in (1, 2, 3)]
NETWORKS = [network.eval() for network in (*NETWORKS, Same())]
networks = pytest.mark.parametrize("network", NETWORKS, ids=lambda n: f"{n.mode}-{n.rank}")
dynamo = pytest.mark.parametrize("dynamo", [False, True], ids=["torchscript", "dynamo"])


def free(network: Any) -> tuple[dict[int, Any]]:
    """The axes of sizes that are free."""
    return (dict.fromkeys(range(2, network.rank + 2), Dim.DYNAMIC),)


def load(network: Any, dynamo: bool) -> OnnxModule:
    x = torch.randn(1, 2, *SIZES[: network.rank])
    if dynamo:
        options: dict[str, Any] = {"dynamo": True, "dynamic_shapes": free(network)}
    else:
        axes = {axis: f"d{axis}" for axis in free(network)[0]}
        options = {"dynamo": False, "opset_version": 17, "dynamic_axes": {"x": axes}}
    return OnnxModule(exporting.export(network, (x,), input_names=["x"], **options))


def inputs(network: Any) -> list[Tensor]:
    return [torch.randn(1, 2, *sizes[: network.rank]) for sizes in (SIZES, *OTHER_SIZES)]


@networks
@dynamo
def test_pads_are_plain_numbers(network: Any, dynamo: bool) -> None:
    module = load(network, dynamo)
    for x in inputs(network):
        torch.testing.assert_close(module(x), network(x))
    computed = operators_of_tensors(module, inputs(network)[1])
    assert set(computed) <= {"Pad", "Conv"}
    assert "Pad" in computed


@networks
@dynamo
def test_pads_have_shapes_without_data(network: Any, dynamo: bool) -> None:
    x = inputs(network)[2]
    assert load(network, dynamo).to("meta")(x.to("meta")).shape == network(x).shape


@pytest.mark.parametrize(
    ("network", "dynamo"),
    [
        pytest.param(NETWORKS[9], False, id="same-torchscript"),
        pytest.param(NETWORKS[9], True, id="same-dynamo", marks=pytest.mark.capture),
        pytest.param(NETWORKS[5], False, id="reflect-3-torchscript", marks=pytest.mark.capture),
        pytest.param(NETWORKS[7], True, id="replicate-2-dynamo", marks=pytest.mark.capture),
    ],
)
def test_one_graph_pads_all_sizes(network: Any, dynamo: bool) -> None:
    module = load(network, dynamo)
    torch.compiler.reset()
    compiled = torch.compile(module, fullgraph=True, dynamic=True, backend="aot_eager")
    dims = free(network)
    exported = torch.export.export(module, (inputs(network)[0],), dynamic_shapes=dims).module()
    for x in inputs(network):
        torch.testing.assert_close(compiled(x), network(x))
        torch.testing.assert_close(exported(x), network(x))


ON_MATRICES = {
    "Transpose": "y = Transpose(m)",
    "Slice backwards": "y = Slice(m, last, least, zero, last)",
    "Slice of two axes": "y = Slice(m, one_zero, ends, zero_one)",
    "Slice of nothing": "y = Slice(m, two, two, zero)",
    "Gather a row": "y = Gather(m, last)",
    "Gather a number": "r = Gather(m, one) y = Gather(r, one)",
    "Gather columns": "y = Gather<axis = 1>(m, ends)",
    "Gather along -1": "y = Gather<axis = -1>(m, matrix)",
    "GatherElements": "y = GatherElements<axis = 1>(m, matrix)",
    "GatherND rows": "y = GatherND(m, places)",
    "GatherND numbers": "y = GatherND(m, ends)",
    "Concat": "y = Concat<axis = 1>(m, m, matrix3)",
    "Concat of rows": "y = Concat<axis = -2>(m, matrix3)",
    "Flatten": "y = Flatten<axis = -1>(m)",
    "Reshape with 0 and -1": "y = Reshape(m, copied)",
    "Reshape without elements": "e = Slice(m, two, two, zero) y = Reshape<allowzero = 1>(e, empty)",
    "Squeeze": "u = Unsqueeze(m, ends) y = Squeeze(u)",
    "Squeeze of an axis": "u = Unsqueeze(m, ends) y = Squeeze(u, last)",
    "Unsqueeze": "y = Unsqueeze(m, ends)",
    "Expand": "y = Expand(m, cube)",
    "Expand of a column": "c = Slice(m, zero, one1, last) y = Expand(c, cube)",
    "Tile": "y = Tile(m, ends2)",
    "Split": "a, b = Split<axis = 1>(m, parts) y = Concat<axis = 1>(b, a)",
    "Add broadcasts": "v = Gather(m, last) y = Add(m, v)",
    "Sub of a row and a column": "c = Slice(m, zero, one1, last) y = Sub(v3, c)",
    "Mul": "y = Mul(m, m)",
    "Div": "y = Div(m, matrix3)",
    "Mod": "y = Mod(m, v3)",
    "Max": "y = Max(m, v3)",
    "Where": "c = Less(m, v3) y = Where(c, m, v3)",
    "Not and Or": "a = Equal(m, v3) n = Not(a) o = Or(a, n) y = Where(o, m, v3)",
    "Cast": "f = Cast<to = 1>(m) h = Floor(f) y = Cast<to = 7>(h)",
    "ReduceProd": "y = ReduceProd<axes = [0]>(m)",
    "ReduceMax": "y = ReduceMax<axes = [1], keepdims = 0>(m)",
    "ReduceMin of all": "y = ReduceMin(m)",
    "ReduceSum": "y = ReduceSum<keepdims = 0>(m, last)",
    "ReduceSum of nothing": "e = Slice(m, two, two, zero) y = ReduceSum<keepdims = 0>(e, zero)",
    "Shape": "y = Shape(m)",
    "Size": "y = Size(m)",
    "ConstantOfShape": "y = ConstantOfShape<value = int64[1] {3}>(ends2)",
    "ScatterND": "y = ScatterND(m, places, row)",
    "ScatterElements": "y = ScatterElements<axis = 1>(m, matrix, matrix)",
}

MODEL = """<ir_version: 8, opset_import: ["": 17]> g (float[a,b,c,d,e,f] x) => (int64[?] y)
<int64[2] rows = {{2, 3}}, int64[1] last = {{-1}}, int64[1] zero = {{0}}, int64[1] two = {{2}},
 int64[1] least = {{-9223372036854775807}}, int64 one = {{1}}, int64[1] one1 = {{1}},
 int64[2] one_zero = {{1, 0}}, int64[2] zero_one = {{0, 1}}, int64[2] ends = {{0, -1}},
 int64[2] ends2 = {{2, 1}}, int64[2,2] matrix = {{0, -1, 1, 2}}, int64[1,1] places = {{-1}},
 int64[1,3] row = {{7, 8, 9}}, int64[2,3] matrix3 = {{-1, 2, -3, 4, 5, 6}},
 int64[3] v3 = {{3, 4, 5}}, int64[3] cube = {{2, 2, 3}}, int64[2] parts = {{1, 2}},
 int64[3] copied = {{0, 1, -1}}, int64[2] empty = {{3, 0}}>
{{ s = Shape(x) m = Reshape(s, rows) {rule} }}"""


def parse(rule: str) -> onnx.ModelProto:
    """A model that computes y, of any rank, from m: the shape of x in two rows."""
    model = onnx.parser.parse_model(MODEL.format(rule=rule))
    model.graph.output[0].type.tensor_type.ClearField("shape")
    return model


@pytest.mark.parametrize("rule", ON_MATRICES.values(), ids=ON_MATRICES)
def test_matrices_of_numbers(rule: str) -> None:
    model = parse(rule)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    module, x = OnnxModule(model), np.zeros((5, 3, 2, 4, 7, 6), dtype=np.float32)
    (want,) = session.run(None, {"x": x})
    got = module(torch.from_numpy(x))
    assert (got.dtype, list(got.shape)) == (torch.int64, list(want.shape))
    assert got.tolist() == want.tolist()
    assert operators_of_tensors(module, torch.from_numpy(x)) == []


@pytest.mark.parametrize(
    "rule",
    [
        "y = Gather(m, v3)",
        "y = GatherElements(m, matrix3)",
        "y = GatherND(m, v3)",
        "y = Reshape(m, cube)",
        "y = Concat<axis = 2>(m, m)",
        "y = Concat<axis = 0>(m, matrix)",
        "y = Squeeze(m, last)",
        "y = Add(m, matrix)",
        "y = Transpose<perm = [0, 2]>(m)",
        "y = ScatterND(m, places, v3)",
        "u = Unsqueeze(m, ends) y = Expand(m, u)",
    ],
)
def test_invalid_arithmetic_on_matrices_raises(rule: str) -> None:
    module = OnnxModule(parse(rule))
    with pytest.raises(NodeError, match="node 'y'"):
        module(torch.zeros(5, 3, 2, 4, 7, 6))


def test_large_matrices_are_tensors() -> None:
    """They are masks and tables of positions, for which torch is faster."""
    rule = "t = Tile(m, ends2) u = Tile(t, ends2) w = Tile(u, ends2) z = Tile(w, ends2) y = Neg(z)"
    module, x = OnnxModule(parse(rule)), torch.zeros(5, 3, 2, 4, 7, 6)
    assert operators_of_tensors(module, x) == ["Tile", "Neg"]
    assert module(x).tolist() == [[-5, -3, -2], [-4, -7, -6]] * 16


@pytest.mark.parametrize("shape", [(), (3,), (2, 3), (2, 0), (0, 2), (1, 2, 2)])
def test_a_host_value_is_what_its_tensor_is(shape: tuple[int, ...]) -> None:
    tensor = torch.arange(torch.Size(shape).numel()).reshape(shape)
    host = Host(tensor.flatten().tolist(), torch.int64, shape)
    assert host.tensor().shape == shape
    assert host.data == tensor.tolist()
    assert host.tensor().equal(tensor)
