"""Models that onnxruntime saved for its blocked convolutions, with blocks of 8 and of 16."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import helper, numpy_helper

from onnxinterp import InvalidModelError, OnnxModule
from onnxinterp.ops.contrib.nchwc import in_order, kernels_of

NCHWC = "com.microsoft.nchwc"
Array = np.ndarray[Any, Any]


def draw(*shape: int, seed: int = 0) -> Array:
    drawn = np.random.default_rng(seed + sum(shape)).standard_normal(shape)
    return np.asarray(drawn, np.float32)


def fill_up(x: Array, block: int, axes: Sequence[int]) -> Array:
    """X with zeros to whole blocks along some axes."""
    return np.asarray(
        np.pad(x, [(0, -n % block if a in axes else 0) for a, n in enumerate(x.shape)])
    )


def to_blocks(w: Array, block: int, depthwise: bool = False) -> Array:
    """Filters in the order that onnxruntime has for blocks of this size."""
    if depthwise or w.shape[1] < block:
        w = fill_up(w, block, [0])
        m, c, *kernel = w.shape
        parts = w.reshape(m // block, block, c, *kernel).transpose(0, 2, 3, 4, 1)
        return np.asarray(parts.reshape(w.shape))
    w = fill_up(w, block, [0, 1])
    m, c, *kernel = w.shape
    parts = w.reshape(m // block, block, c // block, block, *kernel)
    return np.asarray(parts.transpose(0, 2, 4, 5, 3, 1).reshape(w.shape))


def network(channels: Sequence[int], block: int | None) -> onnx.ModelProto:
    """Four convolutions: of 3 channels, depthwise, of all, and one with a Sum; a pool at the end.

    Args:
        channels: of the first two, and of the last two convolutions.
        block: as onnxruntime saves it with blocks of this size; None for operators of ONNX.
    """
    c, m = channels
    weights = {
        "first": draw(c, 3, 3, 3),
        "depthwise": draw(c, 1, 3, 3),
        "all": draw(m, c, 3, 3),
        "second": draw(m, m, 1, 1),
    }
    biases = {f"{n}_bias": draw(len(w), seed=1) for n, w in weights.items()}
    groups = {"depthwise": c}
    domain = "" if block is None else NCHWC
    if block is not None:
        weights = {n: to_blocks(w, block, n in groups) for n, w in weights.items()}
        biases = {n: fill_up(b, block, [0]) for n, b in biases.items()}
        groups = {"depthwise": len(weights["depthwise"])}
    nodes, values = [], ["x", "a", "b", "c", "d"]
    for (name, w), x, y in zip(weights.items(), values, values[1:], strict=False):
        inputs = [x, name, f"{name}_bias", *(["c"] if block and name == "second" else [])]
        pads, group = [w.shape[-1] // 2] * 4, groups.get(name, 1)
        nodes.append(helper.make_node("Conv", inputs, [y], domain=domain, pads=pads, group=group))
    nodes.append(
        helper.make_node("GlobalAveragePool", ["s" if block is None else "d"], ["g"], domain=domain)
    )
    if block is None:
        nodes.insert(4, helper.make_node("Add", ["d", "c"], ["s"]))
        nodes.append(helper.make_node("Identity", ["g"], ["y"]))
    else:
        nodes.append(helper.make_node("ReorderOutput", ["g"], ["y"], domain=domain, channels=m))
    return as_model(nodes, {**weights, **biases})


def as_model(nodes: Sequence[onnx.NodeProto], tensors: dict[str, Array]) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("x", 1, [1, 3, 9, 9])],
        [helper.make_tensor_value_info("y", 1, None)],
        [numpy_helper.from_array(t, n) for n, t in tensors.items()],
    )
    imports = [helper.make_opsetid("", 17), helper.make_opsetid(NCHWC, 1)]
    return helper.make_model(graph, opset_imports=imports, ir_version=8)


def right(model: onnx.ModelProto, x: torch.Tensor) -> Array:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    return np.asarray(session.run(None, {"x": x.numpy()})[0])


def assert_right(module: OnnxModule, channels: Sequence[int]) -> None:
    x = torch.from_numpy(draw(1, 3, 9, 9))
    want = right(network(channels, None), x)
    np.testing.assert_allclose(module(x).detach(), want, 1e-4, 1e-4)


@pytest.mark.parametrize("block", [8, 16])
@pytest.mark.parametrize("channels", [(24, 40), (24, 32), (32, 40)])
def test_blocks_are_known_from_sizes_and_zeros(block: int, channels: tuple[int, int]) -> None:
    """Of 8 from filters that 16 does not divide, of 16 from what fills up its blocks."""
    assert_right(OnnxModule(network(channels, block)), channels)


@pytest.mark.parametrize("block", [8, 16])
def test_the_user_says_what_the_file_does_not(block: int) -> None:
    model = network((32, 48), block)
    with pytest.raises(InvalidModelError, match=r"kernels_of\(16\)"):
        OnnxModule(model)
    assert_right(OnnxModule(model, kernels=kernels_of(block)), (32, 48))
    x = torch.from_numpy(draw(1, 3, 9, 9))
    wrong = OnnxModule(model, kernels=kernels_of(24 - block))(x)
    assert not np.allclose(wrong.detach(), right(network((32, 48), None), x), atol=1e-2)


def test_a_file_of_this_machine(tmp_path: Path) -> None:
    """Onnxruntime saves it for its own processor; gradients reach all filters."""
    channels = (24, 40)
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "all.onnx")
    options.log_severity_level = 3  # it warns that the file is for this processor
    onnxruntime.InferenceSession(network(channels, None).SerializeToString(), options)
    saved = onnx.load(tmp_path / "all.onnx")
    assert NCHWC in {node.domain for node in saved.graph.node}
    module = OnnxModule(saved)
    assert_right(module, channels)
    module(torch.from_numpy(draw(1, 3, 9, 9))).sum().backward()
    assert all(w.grad is not None and w.grad.any() for w in module.weights.values())


def test_filters_that_fit_no_block_are_refused() -> None:
    model = network((24, 40), 8)
    model.graph.initializer[0].dims[0] = 12
    model.graph.initializer[0].raw_data = bytes(12 * 27 * 4)
    with pytest.raises(InvalidModelError, match="not in blocks of 8 or 16"):
        OnnxModule(model)


@pytest.mark.parametrize("block", [8, 16])
@pytest.mark.parametrize("depthwise", [False, True])
def test_order_of_elements(block: int, depthwise: bool) -> None:
    w = draw(32, 1 if depthwise else 48, 3, 2)
    got = in_order(torch.from_numpy(to_blocks(w, block, depthwise)), 32 if depthwise else 1, block)
    assert torch.equal(got, torch.from_numpy(w))


def test_blocks_must_be_8_or_16() -> None:
    with pytest.raises(ValueError, match="8 or 16, got 4"):
        kernels_of(4)
