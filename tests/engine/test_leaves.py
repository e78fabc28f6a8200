"""Which nodes become a layer of torch with `leaves="nn"`, and which have none that is the same."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from torch import Tensor, nn
from torch.nn import functional

from onnxinterp import OnnxModule

Shapes = dict[str, tuple[int, ...]]


class Node(NamedTuple):
    """One node of a module called `layer`."""

    op: str
    x: tuple[int, ...]
    weights: Shapes
    attributes: dict[str, Any]
    opset: int = 17


def model(node: Node, optional: bool = False) -> onnx.ModelProto:
    """The node between an input and an output; an optional weight is an input, too."""
    generator = np.random.default_rng(0)
    tensors = [
        numpy_helper.from_array(generator.uniform(0.5, 1, shape).astype(np.float32), name)
        for name, shape in node.weights.items()
    ]
    kind = TensorProto.INT64 if node.op == "Gather" else TensorProto.FLOAT
    inputs = [helper.make_tensor_value_info("x", kind, node.x)]
    if optional:
        inputs += [
            helper.make_tensor_value_info(t.name, TensorProto.FLOAT, t.dims) for t in tensors
        ]
    names = [*node.weights, "x"] if node.op == "Gather" else ["x", *node.weights]
    call = helper.make_node(node.op, names, ["y"], name=f"/layer/{node.op}", **node.attributes)
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)]
    graph = helper.make_graph([call], "g", inputs, outputs, tensors)
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", node.opset)], ir_version=8
    )


W, B = "layer.weight", "layer.bias"
IMAGE, FILTER = (2, 4, 6, 6), (6, 4, 3, 3)
STATISTICS = {W: (4,), B: (4,), "layer.running_mean": (4,), "layer.running_var": (4,)}
LAYERS = {
    "gemm": (nn.Linear, Node("Gemm", (3, 4), {W: (5, 4), B: (5,)}, {"transB": 1})),
    "gemm_of_old": (nn.Linear, Node("Gemm", (3, 4), {W: (5, 4), B: (5,)}, {"transB": 1}, 9)),
    "gather": (nn.Embedding, Node("Gather", (3, 2), {W: (7, 4)}, {})),
    "conv_1": (nn.Conv1d, Node("Conv", (2, 4, 6), {W: (6, 4, 3), B: (6,)}, {})),
    "conv_2": (nn.Conv2d, Node("Conv", IMAGE, {W: FILTER}, {"pads": [1, 2, 1, 2]})),
    "conv_of_groups": (nn.Conv2d, Node("Conv", IMAGE, {W: (6, 2, 3, 3)}, {"group": 2})),
    "up_2": (
        nn.ConvTranspose2d,
        Node("ConvTranspose", IMAGE, {W: (4, 3, 3, 3)}, {"strides": [2, 2], "dilations": [1, 2]}),
    ),
    "batch": (nn.BatchNorm2d, Node("BatchNormalization", IMAGE, STATISTICS, {"epsilon": 0.01})),
    "batch_of_rows": (nn.BatchNorm1d, Node("BatchNormalization", (3, 4), STATISTICS, {})),
    "instance": (nn.InstanceNorm2d, Node("InstanceNormalization", IMAGE, {W: (4,), B: (4,)}, {})),
    "group": (
        nn.GroupNorm,
        Node("GroupNormalization", IMAGE, {W: (4,), B: (4,)}, {"num_groups": 2}, 21),
    ),
    "layer_norm": (nn.LayerNorm, Node("LayerNormalization", (3, 4), {W: (4,)}, {"axis": 1})),
}
OTHERS = {
    "alpha": Node("Gemm", (3, 4), {W: (5, 4), B: (5,)}, {"transB": 1, "alpha": 2.0}),
    "beta": Node("Gemm", (3, 4), {W: (5, 4), B: (5,)}, {"transB": 1, "beta": 0.5}),
    "columns": Node("Gemm", (3, 4), {W: (4, 5), B: (5,)}, {}),
    "transposed_input": Node("Gemm", (4, 3), {W: (5, 4), B: (5,)}, {"transA": 1, "transB": 1}),
    "bias_for_all": Node("Gemm", (3, 4), {W: (5, 4), B: (1, 5)}, {"transB": 1}),
    "other_axis": Node("Gather", (3, 2), {W: (7, 4)}, {"axis": 1}),
    "one_side": Node("Conv", IMAGE, {W: FILTER}, {"pads": [1, 1, 0, 0]}),
    "auto_pad": Node("Conv", IMAGE, {W: FILTER}, {"auto_pad": "SAME_UPPER"}),
    "output_shape": Node("ConvTranspose", IMAGE, {W: (4, 3, 3, 3)}, {"output_shape": [8, 8]}),
    "a_group_each": Node("GroupNormalization", IMAGE, {W: (2,), B: (2,)}, {"num_groups": 2}, 18),
    "broadcast_scale": Node("LayerNormalization", (3, 2, 4), {W: (4,)}, {"axis": 1}),
    "other_names": Node("Gemm", (3, 4), {"layer.kernel": (5, 4), B: (5,)}, {"transB": 1}),
    "weights_elsewhere": Node("Gemm", (3, 4), {W: (5, 4), "other.bias": (5,)}, {"transB": 1}),
}


def argument(node: Node) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    if node.op == "Gather":
        return torch.randint(4, node.x, generator=generator)
    return torch.randn(node.x, generator=generator)


def check(module: OnnxModule, node: Node) -> None:
    """The reference evaluator is the judge."""
    x = argument(node)
    (want,) = ReferenceEvaluator(model(node)).run(None, {"x": x.numpy()})
    got = module(x).detach().numpy()
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", LAYERS)
def test_a_node_that_is_a_layer_becomes_it(name: str) -> None:
    kind, node = LAYERS[name]
    module = OnnxModule(model(node), leaves="nn")
    layer = module.get_submodule("layer")
    assert type(layer) is kind
    assert module.plan.steps[0].block.level is layer
    check(module, node)


@pytest.mark.parametrize("name", OTHERS)
def test_a_node_that_is_no_layer_stays(name: str) -> None:
    node = OTHERS[name]
    module = OnnxModule(model(node), leaves="nn")
    assert not [m for m in module.modules() if type(m).__module__.startswith("torch.nn")]
    check(module, node)


def test_statistics_of_each_batch_are_no_layer() -> None:
    """nn.BatchNorm in eval mode uses those of its buffers; the file asks for those of the batch."""
    node = Node("BatchNormalization", IMAGE, STATISTICS, {"training_mode": 1})
    module = OnnxModule(model(node), leaves="nn")
    assert not isinstance(module.get_submodule("layer"), nn.BatchNorm2d)
    want = functional.batch_norm(
        argument(node), None, None, module.get_parameter(W), module.get_parameter(B), True
    )
    torch.testing.assert_close(module(argument(node)), want)


def test_a_call_may_give_the_weight() -> None:
    """Then the layer is not called."""
    _, node = LAYERS["gemm"]
    module = OnnxModule(model(node, optional=True), leaves="nn")
    layer, x = module.get_submodule("layer"), argument(node)
    assert isinstance(layer, nn.Linear)
    weight = torch.randn(5, 4)
    torch.testing.assert_close(module(x, **{W: weight}), functional.linear(x, weight, layer.bias))
    torch.testing.assert_close(module(x), layer(x))


def test_kernels_of_the_caller_are_called() -> None:
    def kernel(A: Tensor, B: Tensor, C: Tensor, *, transB: int = 0) -> Tensor:
        return A.new_zeros(A.shape[0], transB)

    _, node = LAYERS["gemm"]
    module = OnnxModule(model(node), leaves="nn", kernels={"Gemm": kernel})
    assert module(argument(node)).shape == (3, 1)


def test_a_weight_of_two_modules_stays_where_it_is() -> None:
    _, node = LAYERS["gemm"]
    proto = model(node)
    again = helper.make_node("Gemm", ["x", W, B], ["z"], name="/other/Gemm", transB=1)
    proto.graph.node.append(again)
    proto.graph.output.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, None))
    module = OnnxModule(proto, leaves="nn", untie=False)
    assert [n for n, m in module.named_modules() if isinstance(m, nn.Linear)] == ["layer"]
    first, second = module(argument(node))
    torch.testing.assert_close(first, second)
