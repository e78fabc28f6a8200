"""verify() finds a difference, trace() its node, and isolate() a model of that node."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor

from onnxinterp import InputError, OnnxModule
from onnxinterp.registry import KERNELS, lookup
from onnxinterp.verify import Tolerance, isolate, trace, verify

DIGITS = Path(str(files("onnxinterp") / "data" / "digits.onnx"))
IMAGES = {"image": np.random.default_rng(0).random((4, 1, 8, 8), dtype=np.float32)}


@contextmanager
def replaced(op_type: str, function: Callable[..., Any]) -> Iterator[None]:
    """Replace the kernel of an operator of opset 20."""
    kernel = lookup(op_type, 20)
    assert kernel is not None
    with pytest.MonkeyPatch.context() as patch:
        versions = KERNELS["", op_type]
        patch.setitem(versions, kernel.since, dataclasses.replace(kernel, function=function))
        yield


def wrong_relu(X: Tensor) -> Tensor:
    return X.relu() * 1.01


def slightly_wrong_relu(X: Tensor) -> Tensor:
    return X.relu() * 1.0008


def test_the_included_model_agrees() -> None:
    report = verify(DIGITS, IMAGES)
    assert report.ok
    assert [o.name for o in report.outputs] == ["logits"]
    assert report.outputs[0].shape == (4, 10)
    assert report.mse == report.outputs[0].mse < 1e-10
    assert not report.assumed


@pytest.mark.parametrize("kind", ["path", "bytes", "file", "proto"])
def test_any_source(kind: str) -> None:
    data = DIGITS.read_bytes()
    sources = {
        "path": str(DIGITS),
        "bytes": data,
        "file": io.BytesIO(data),
        "proto": onnx.load(DIGITS),
    }
    report = verify(sources[kind], shapes={"image": (2, 1, 8, 8)})
    assert report.ok
    assert report.inputs["image"].shape == (2, 1, 8, 8)


def test_ten_per_cent_of_noise_on_one_weight_is_found() -> None:
    module = OnnxModule(DIGITS)
    with torch.no_grad():
        noise = torch.randn(10, 128, generator=torch.Generator().manual_seed(0))
        module.weights["head.weight"].mul_(1 + 0.1 * noise)
    report = verify(DIGITS, IMAGES, module=module)
    assert not report.ok
    assert report.mse > 1e-4


def test_another_module_is_compared_by_its_outputs() -> None:
    with pytest.raises(InputError, match="must return 1 outputs, got 2"):
        verify(DIGITS, IMAGES, module=lambda image: (image, image))
    report = verify(DIGITS, IMAGES, module=lambda image: image)
    assert report.outputs[0].problem == "shape [4, 1, 8, 8] instead of [4, 10]"


def test_inputs_by_order_by_name_and_at_random() -> None:
    by_order = verify(DIGITS, [IMAGES["image"]])
    assert by_order.outputs == verify(DIGITS, IMAGES).outputs
    random = verify(DIGITS, seed=3)
    assert random.assumed == {"batch": 1}
    assert torch.equal(random.inputs["image"], verify(DIGITS, seed=3).inputs["image"])


@pytest.mark.parametrize("wrong", [{"picture": IMAGES["image"]}, [], [IMAGES["image"]] * 2])
def test_inputs_that_do_not_fit_are_named(wrong: Any) -> None:
    with pytest.raises(InputError, match="inputs must be 'image', got"):
        verify(DIGITS, wrong)


def test_trace_compares_every_node() -> None:
    reports = trace(DIGITS, IMAGES)
    assert [r.op_type for r in reports if r.op_type in ("Conv", "Relu", "Gemm")] == [
        "Conv",
        "Relu",
        "Conv",
        "Relu",
        "Gemm",
    ]
    assert all(r.ok for r in reports)


def test_a_wrong_kernel_is_found_at_its_first_node_and_cut_out() -> None:
    with replaced("Relu", wrong_relu):
        assert not verify(DIGITS, IMAGES).ok
        first = next(r for r in trace(DIGITS, IMAGES) if not r.ok)
        part = isolate(DIGITS, IMAGES, first)
        assert not verify(part.model, part.inputs).ok
    assert (first.op_type, first.outputs[0].name) == ("Relu", "relu")
    assert part.nodes == 1
    assert [n.op_type for n in part.model.graph.node] == ["Relu"]
    assert not part.report.ok
    onnx.checker.check_model(part.model)
    assert verify(part.model, part.inputs).ok, "the model is right, only the kernel was wrong"


def test_an_accumulated_difference_takes_the_nodes_it_needs() -> None:
    """One such Relu stays within a tolerance of 1e-3, two of them in a row do not."""
    text = """
        <ir_version: 10, opset_import: ["": 20]>
        g (float[4] x) => (float[4] y) <float[1] c = {1.0}> {
            a = Relu(x) b = Relu(a) y = Add(b, c)
        }"""
    model = onnx.parser.parse_model(text)
    inputs = {"x": np.array([0.05, 0.1, 0.2, 0.3], np.float32)}
    with replaced("Relu", slightly_wrong_relu):
        relative = Tolerance(rtol=1e-3, atol=1e-7, mse=1.0)
        first = next(r for r in trace(model, inputs, tolerance=relative) if not r.ok)
        part = isolate(model, inputs, first, tolerance=relative)
    assert first.outputs[0].name == "b"
    assert [n.op_type for n in part.model.graph.node] == ["Relu", "Relu"]
    assert list(part.inputs) == ["x"]


def test_parts_keep_weights_constants_and_outer_values_of_subgraphs(tmp_path: Path) -> None:
    text = """
        <ir_version: 10, opset_import: ["": 20]>
        g (float[2] x, bool c) => (float[2] y) <float[2] w = {1.0, 2.0}> {
            k = Constant <value = float[2] {3.0, 4.0}> ()
            a = Neg(x)
            b = Add(a, w)
            y = If (c) <
                then_branch = t () => (float[2] t1) { t1 = Mul(b, k) },
                else_branch = e () => (float[2] e1) { e1 = Relu(b) }
            >
        }"""
    path = tmp_path / "m.onnx"
    onnx.save_model(
        onnx.parser.parse_model(text),
        path,
        save_as_external_data=True,
        location="m.data",
        size_threshold=0,
    )
    inputs = {"x": np.array([-5.0, -6.0], np.float32), "c": np.array(False)}
    with replaced("Relu", wrong_relu):
        first = next(r for r in trace(path, inputs) if not r.ok)
        part = isolate(path, inputs, first)
    assert first.op_type == "If"
    assert set(part.inputs) == {"b", "c"}
    assert [n.op_type for n in part.model.graph.node] == ["Constant", "If"]
    assert verify(part.model, part.inputs).ok
