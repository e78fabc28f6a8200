"""ONNX again: weights of others in the original graph, and new graphs by torch's exporters."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path

import onnx
import pytest
import torch
from safetensors.torch import save_file

from onnxinterp import InputError, InvalidModelError, OnnxModule, deploy

STATE = {"fc.weight": torch.arange(12.0).reshape(3, 4), "fc.bias": torch.ones(3)}


def opset(path: Path) -> int:
    return {o.domain: o.version for o in onnx.load(path).opset_import}[""]


def weights_in(folder: Path, suffix: str) -> Path:
    path = folder / f"original{suffix}"
    if suffix == ".safetensors":
        save_file(STATE, path)
    else:
        torch.save(OrderedDict(STATE), path)
    return path


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
@pytest.mark.parametrize("target", [".onnx", ".pt2"])
def test_weights_of_the_original_module_go_into_its_graph(
    suffix: str, target: str, net: Path, tmp_path: Path
) -> None:
    found = deploy.convert(weights_in(tmp_path, suffix), tmp_path / f"out{target}", like=net)
    assert found.ok
    assert found.reports
    if target == ".onnx":
        for name, weight in STATE.items():
            assert torch.equal(OnnxModule(found.path).weights[name], weight)


def test_weights_that_do_not_fit_are_an_error(net: Path, tmp_path: Path) -> None:
    torch.save(OrderedDict({"fc.weight": torch.ones(3, 4)}), tmp_path / "w.pth")
    with pytest.raises(InvalidModelError, match=r"(?s)does not fit the model.*fc\.bias"):
        deploy.convert(tmp_path / "w.pth", tmp_path / "out.onnx", like=net)
    assert not (tmp_path / "out.onnx").exists()


def test_weights_alone_need_their_graph(net: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has weights only: give the ONNX model"):
        deploy.convert(weights_in(tmp_path, ".safetensors"), tmp_path / "out.onnx")
    with pytest.raises(InvalidModelError, match="has no graph"):
        deploy.convert(weights_in(tmp_path, ".pth"), tmp_path / "out.onnx")
    with pytest.raises(InputError, match=r"must be one of \.pth, \.pt, \.safetensors, got"):
        deploy.convert(net, tmp_path / "out.pt2", like=net)


@pytest.mark.parametrize(("version", "exporter"), [(13, None), (15, "torchscript"), (20, None)])
def test_another_opset_has_the_names_of_the_source(
    version: int, exporter: str | None, net: Path, tmp_path: Path
) -> None:
    found = deploy.convert(net, tmp_path / "out.onnx", opset=version, exporter=exporter)
    assert found.ok
    assert opset(found.path) == version
    assert len(found.reports) == 2
    graph = onnx.load(found.path).graph
    assert [i.name for i in graph.input] == ["x"]
    assert [o.name for o in graph.output] == ["scores", "best"]
    assert graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"
    assert OnnxModule(found.path).weights.keys() >= STATE.keys()


def test_the_exporter_of_torch_export_refuses_old_opsets(net: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="opset 18 and newer, got 13: use torchscript"):
        deploy.convert(net, tmp_path / "out.onnx", opset=13, exporter="dynamo")
    with pytest.raises(InputError, match=r"opset and exporter are for \.onnx files"):
        deploy.convert(net, tmp_path / "out.pt2", opset=20)


def test_a_layer_norm_leaves_by_the_exporter_on_torchscript(
    normalized: Path, tmp_path: Path
) -> None:
    """That exporter must know the sizes of the layer while the batch varies."""
    for version in (14, 17):
        found = deploy.convert(normalized, tmp_path / "out.onnx", opset=version)
        assert found.ok
        assert found.dims == {"x": {0: "batch"}}
