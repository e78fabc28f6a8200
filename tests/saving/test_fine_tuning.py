"""What fine-tuning adds to a module or takes from it leaves saving alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper

from onnxinterp import OnnxModule, reinsert_normalization
from tests.saving.models import (
    HEADER,
    differences,
    mean_square_error,
    parse,
    raw,
    run,
    saved,
    tune,
)


def convolutions() -> onnx.ModelProto:
    """Two of them, as an exporter leaves them that has folded normalisation away."""
    model = parse(f"""{HEADER} g (float[n,3,6,6] x) => (float[n,2,2,2] y) {{
      a = Conv(x, w, b)
      c = Relu(a)
      y = Conv(c, v)
    }}""")
    for old, tensor in {
        "w": raw("one.weight", 4, 3, 3, 3),
        "b": raw("one.bias", 4, seed=1),
        "v": raw("two.weight", 2, 4, 3, 3, seed=2),
    }.items():
        array = 0.2 * numpy_helper.to_array(tensor)
        model.graph.initializer.append(numpy_helper.from_array(array, tensor.name))
        for node in model.graph.node:
            node.input[:] = [tensor.name if name == old else name for name in node.input]
    return model


def train(module: OnnxModule, x: torch.Tensor) -> None:
    module.train()
    optimizer = torch.optim.SGD(module.parameters(), lr=0.001)
    for _ in range(3):
        optimizer.zero_grad()
        (module(x) - x[:, :2, :2, :2]).square().mean().backward()
        optimizer.step()
    module.eval()


@pytest.mark.parametrize("frozen", [(), ("one.*",), ("*",)])
def test_reinserted_normalization(frozen: tuple[str, ...], tmp_path: Path) -> None:
    x, path = torch.randn(8, 3, 6, 6), tmp_path / "m.onnx"
    model = reinsert_normalization(convolutions(), x)
    module = OnnxModule(model)
    assert saved(module, path) == model.SerializeToString()
    if frozen:
        module.freeze_statistics(frozen)
    train(module, 2 * torch.randn(8, 3, 6, 6) + 1)
    data = saved(module, path)
    assert mean_square_error(module(x), run(path, x)) < 1e-10
    changed = {d.rpartition(":")[2] for d in differences(model, onnx.load(path))}
    statistics = {name for name in module.weights if "running" in name}
    still = {n for n in statistics if frozen and (frozen == ("*",) or n.startswith("one."))}
    assert changed & statistics == statistics - still
    assert {"one.weight", "one.normalization.weight", "two.normalization.bias"} <= changed
    again = OnnxModule(path)
    assert all(torch.equal(again.weights[n], w) for n, w in module.weights.items())
    assert saved(again, path) == data


@pytest.mark.parametrize("swapped", [False, True])
def test_a_product_and_its_bias_that_run_as_one(swapped: bool, tmp_path: Path) -> None:
    """Also where two products share the bias that is then written apart."""
    sums = (
        "t = Add(b, s) z = MatMul(t, w) y = Add(b, z)"
        if swapped
        else ("t = Add(s, b) z = MatMul(t, w) y = Add(z, b)")
    )
    model = parse(f"{HEADER} g (float[2,3] x) => (float[2,3] y) {{ s = MatMul(x, w) {sums} }}")
    model.graph.initializer.append(raw("w", 3, 3))
    model.graph.initializer.append(numpy_helper.from_array(np.zeros(3, np.float32), "one.bias"))
    for node, scope in zip(model.graph.node, ("one", "one", "two", "two"), strict=True):
        node.metadata_props.add(
            key="pkg.torch.onnx.name_scopes", value=f"['', '{scope}', 'linear']"
        )
        node.input[:] = ["one.bias" if name == "b" else name for name in node.input]
    module, x, path = OnnxModule(model), torch.randn(2, 3), tmp_path / "m.onnx"
    steps = module.plan.steps
    assert len(steps) == 2, "each pair is one step"
    assert saved(module, path) == model.SerializeToString()
    tune(module)
    saved(module, path)
    assert mean_square_error(module(x), run(path, x)) < 1e-10
    graph = onnx.load(path).graph
    assert [n.op_type for n in graph.node] == ["MatMul", "Add", "MatMul", "Add"]
    assert [t.name for t in graph.initializer] == ["w", "one.bias", "two.bias"]
    assert helper.printable_node(graph.node[3]).count("two.bias") == 1
