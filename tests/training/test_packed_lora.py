"""Low-rank adapters beside packed weights: as nodes, and merged, both as onnxruntime runs them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from onnxinterp import OnnxModule
from onnxinterp.training.adapters import add_packed_lora, merge_packed_lora

K, N, BLOCK = 40, 24, 16
X = torch.randn(5, K, generator=torch.Generator().manual_seed(0))


def packed(*, bits: int = 4, zero: bool = False, bias: bool = False, twice: bool = False) -> bytes:
    """One product, or two with the same weight."""
    random = np.random.default_rng(0)
    blocks = -(-K // BLOCK)
    arrays = {
        "w": random.integers(0, 256, (N, blocks, BLOCK * bits // 8), dtype=np.uint8),
        "s": random.uniform(0.01, 0.1, (N, blocks)).astype(np.float32),
        "z": random.integers(0, 256, (N, -(-blocks * bits // 8)), dtype=np.uint8),
        "b": random.standard_normal(N).astype(np.float32),
    }
    inputs = ["w", "s", "z" if zero else "", "", "b" if bias else ""]
    attributes = {"K": K, "N": N, "block_size": BLOCK, "bits": bits, "domain": "com.microsoft"}
    nodes = [helper.make_node("MatMulNBits", ["x", *inputs], ["y"], **attributes)]
    if twice:
        nodes.append(helper.make_node("MatMulNBits", ["x2", *inputs], ["y2"], **attributes))
    names = [("x", "y"), ("x2", "y2")][: len(nodes)]
    graph = helper.make_graph(
        nodes,
        "packed",
        [helper.make_tensor_value_info(x, TensorProto.FLOAT, ["n", K]) for x, _ in names],
        [helper.make_tensor_value_info(y, TensorProto.FLOAT, ["n", N]) for _, y in names],
        [numpy_helper.from_array(a, n) for n, a in arrays.items() if n in inputs],
    )
    imports = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=imports, ir_version=10).SerializeToString()


def by_onnxruntime(model: onnx.ModelProto) -> list[NDArray[np.float32]]:
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    results: list[NDArray[np.float32]] = session.run(
        None, {i.name: X.numpy() for i in session.get_inputs()}
    )
    return results


def trained(model: onnx.ModelProto) -> OnnxModule:
    module = OnnxModule(add_packed_lora(model, rank=3), trainable="*.lora_?")
    optimizer = torch.optim.Adam([p for p in module.parameters() if p.requires_grad], lr=0.03)
    for _ in range(5):
        optimizer.zero_grad()
        outputs = module(*[X] * len(model.graph.input))
        sum(
            (y**2).mean() for y in (outputs if isinstance(outputs, tuple) else [outputs])
        ).backward()
        optimizer.step()
    return module


FORMS = [
    {},
    {"bits": 2},
    {"bits": 8},
    {"zero": True},
    {"zero": True, "bias": True},
    {"twice": True},
]


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_both_files_have_the_trained_outputs(form: dict[str, int], tmp_path: Path) -> None:
    model = onnx.load_from_string(packed(**form))
    module = trained(model)
    names = [n for n, p in module.weights.items() if getattr(p, "requires_grad", False)]
    assert names == ["w.lora_A", "w.lora_B"]
    outputs = module(*[X] * len(model.graph.input))
    wanted = [y.detach() for y in (outputs if isinstance(outputs, tuple) else [outputs])]
    module.save_onnx(tmp_path / "adapted.onnx")
    beside = onnx.load(tmp_path / "adapted.onnx")
    merged = merge_packed_lora(beside)
    assert not any(n.op_type == "MatMulNBits" for n in merged.graph.node)
    for saved in (beside, merged):
        onnx.checker.check_model(saved)
        for got, want in zip(by_onnxruntime(saved), wanted, strict=True):
            np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4)
    before = by_onnxruntime(model)
    assert all(np.abs(w.numpy() - b).max() > 0.01 for w, b in zip(wanted, before, strict=True))


def test_an_adapter_changes_nothing_at_first() -> None:
    model = onnx.load_from_string(packed(bias=True))
    (got,), (want,) = by_onnxruntime(add_packed_lora(model, 4)), by_onnxruntime(model)
    np.testing.assert_array_equal(got, want)


def test_wrong_arguments_are_errors() -> None:
    model = onnx.load_from_string(packed())
    with pytest.raises(ValueError, match="rank must be positive, got 0"):
        add_packed_lora(model, 0)
    with pytest.raises(ValueError, match="packed weight"):
        add_packed_lora(model, 4, "another")
    with pytest.raises(ValueError, match="must have adapters"):
        merge_packed_lora(model)
