"""A tensor gets the name of a torch module only where nothing is lost by it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import NodeProto, TensorProto, helper, numpy_helper
from torch import nn

from onnxinterp import OnnxModule
from tests.saving.models import run

SCOPES = "pkg.torch.onnx.name_scopes"
X = torch.randn(2, 8, generator=torch.Generator().manual_seed(0))


def node(op: str, inputs: list[str], output: str, *scopes: str, **attributes: object) -> NodeProto:
    """A node of a torch module, as the newer exporter writes it."""
    made = helper.make_node(op, inputs, [output], **attributes)
    noted = "".join(f"'{scope}', " for scope in ("", *scopes))
    made.metadata_props.add(key=SCOPES, value=f"[{noted}'op']")
    return made


def model(nodes: list[NodeProto], **tensors: np.ndarray) -> onnx.ModelProto:
    """A graph from x to y; a name has __ for a dot."""
    weights = [numpy_helper.from_array(t, n.replace("__", ".")) for n, t in tensors.items()]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 8])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    graph = helper.make_graph(nodes, "g", [x], [y], weights)
    imports = [helper.make_opsetid("", 17)]
    return helper.make_model(graph, opset_imports=imports, ir_version=8)


def matrix(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((8, 8)).astype(np.float32)


def judged(proto: onnx.ModelProto, folder: Path, **options: bool) -> OnnxModule:
    """The module, whose outputs are those of onnxruntime and which writes the file as it was."""
    module, path = OnnxModule(proto, **options), folder / "m.onnx"
    onnx.save(proto, path)
    torch.testing.assert_close(module(X), torch.from_numpy(run(path, X)[0]))
    module.save_onnx(path)
    assert path.read_bytes() == proto.SerializeToString()
    return module


def test_a_matrix_gets_the_name_and_the_layout_of_its_layer(tmp_path: Path) -> None:
    module = judged(model([node("MatMul", ["x", "val_1"], "y", "fc")], val_1=matrix(0)), tmp_path)
    assert list(module.weights) == ["fc.weight"]
    assert torch.equal(module.fc.weight, torch.from_numpy(matrix(0)).T)
    assert module.weights["val_1"] is module.fc.weight


@pytest.mark.parametrize("name", ["fc.weight", "t"])
def test_a_name_that_is_taken_stays_with_its_owner(name: str, tmp_path: Path) -> None:
    """Of another tensor, or of a value of the graph."""
    nodes = [node("MatMul", ["x", "fc.weight"], "t"), node("MatMul", ["t", "val_1"], "y", "fc")]
    if name == "t":
        nodes = [node("MatMul", ["x", "w"], "fc.weight"), nodes[1]]
        nodes[1].input[0] = "fc.weight"
    tensors = {"fc__weight" if name == "fc.weight" else "w": matrix(1)}
    module = judged(model(nodes, val_1=matrix(0), **tensors), tmp_path)
    assert "val_1" in set(module.weights)
    assert torch.equal(module.weights["val_1"], torch.from_numpy(matrix(0)))


def test_one_number_repeated_is_a_constant(tmp_path: Path) -> None:
    """As an exporter writes the scale of a module that has none."""
    nodes = [
        node("LayerNormalization", ["x", "val_0", "val_1"], "s", "plain"),
        node("LayerNormalization", ["s", "val_2", "val_3"], "y", "norm"),
    ]
    ones, zeros = np.ones(8, np.float32), np.zeros(8, np.float32)
    tensors = {"val_0": ones, "val_1": zeros, "val_2": matrix(0)[0], "val_3": matrix(1)[0]}
    module = judged(model(nodes, **tensors), tmp_path)
    assert set(module.state_dict()) == {"norm.weight", "norm.bias"}
    assert {"val_0", "val_1"} <= set(module.weights)


def test_a_bias_tells_the_name_of_the_weight_beside_it(tmp_path: Path) -> None:
    """Of a layer that is not called itself, as in nn.MultiheadAttention."""
    nodes = [
        node("MatMul", ["x", "val_0"], "s", "attention"),
        node("Add", ["s", "attention.out.bias"], "y", "attention"),
    ]
    module = judged(model(nodes, val_0=matrix(0), attention__out__bias=matrix(1)[0]), tmp_path)
    assert set(module.state_dict()) == {"attention.out.weight", "attention.out.bias"}


def test_a_module_with_modules_may_read_the_weight_of_another(tmp_path: Path) -> None:
    """A head that computes with the embedding that it is given: the parameter has one name."""
    nodes = [
        node("MatMul", ["x", "words.weight"], "r", "words"),
        node("MatMul", ["r", "val_0"], "s", "head", "head.dense"),
        node("MatMul", ["s", "val_1"], "y", "head"),
    ]
    tensors = {"words__weight": matrix(0), "val_0": matrix(1), "val_1": matrix(0).T.copy()}
    module = judged(model(nodes, **tensors), tmp_path)
    assert set(module.state_dict()) == {"words.weight", "head.dense.weight"}
    apart = judged(model(nodes, **tensors), tmp_path, tie=False)
    assert set(apart.state_dict()) == {"words.weight", "head.dense.weight", "head.weight"}


@pytest.mark.parametrize("names", [("a.fc", "b.fc"), ("layers.0", "layers.1")])
def test_equal_matrices_are_one_but_not_those_of_numbered_layers(
    names: tuple[str, str], tmp_path: Path
) -> None:
    nodes = [
        node("MatMul", ["x", "val_0"], "s", names[0]),
        node("MatMul", ["s", "val_1"], "y", names[1]),
    ]
    module = judged(model(nodes, val_0=matrix(0), val_1=matrix(0)), tmp_path)
    assert set(module.state_dict()) == {f"{name}.weight" for name in names}
    assert len(list(module.parameters())) == (1 if names[0] == "a.fc" else 2)


@pytest.mark.parametrize("value", [np.eye(8), np.zeros((8, 8)), np.tri(8)])
def test_masks_are_not_tied(value: np.ndarray, tmp_path: Path) -> None:
    nodes = [node("MatMul", ["x", "a.w"], "s", "a"), node("MatMul", ["s", "b.w"], "y", "b")]
    tensors = dict.fromkeys(("a__w", "b__w"), value.astype(np.float32))
    module = judged(model(nodes, **tensors), tmp_path)
    assert module.weights["a.w"] is not module.weights["b.w"]


def test_subgraphs_read_weights_too(tmp_path: Path) -> None:
    def branch(output: str, weight: str) -> onnx.GraphProto:
        info = helper.make_tensor_value_info(output, TensorProto.FLOAT, None)
        made = node("MatMul", ["x", weight], output, f"layer_{output}")
        return helper.make_graph([made], output, [], [info])

    sides = {"then_branch": branch("p", "val_0"), "else_branch": branch("q", "val_1")}
    condition = numpy_helper.from_array(np.array(True), "c")
    nodes = [
        helper.make_node("Constant", [], ["c"], value=condition),
        helper.make_node("If", ["c"], ["y"], **sides),
    ]
    module = judged(model(nodes, val_0=matrix(0), val_1=matrix(1)), tmp_path)
    assert set(module.state_dict()) == {"layer_p.weight", "layer_q.weight"}
    with torch.no_grad():
        module.layer_p.weight.copy_(2 * module.layer_p.weight)
    module.save_onnx(tmp_path / "m.onnx")
    torch.testing.assert_close(module(X), torch.from_numpy(run(tmp_path / "m.onnx", X)[0]))


def test_files_without_modules_keep_their_names() -> None:
    proto = model([helper.make_node("MatMul", ["x", "val_1"], ["y"])], val_1=matrix(0))
    module = OnnxModule(proto)
    assert list(module.weights) == ["val_1"]
    assert isinstance(module.weights["val_1"], nn.Parameter)
