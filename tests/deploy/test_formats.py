"""Every format: what is written is loaded again, agrees with onnxruntime, and a fault is seen."""

from __future__ import annotations

import importlib.util
import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from onnxinterp import InputError, OnnxModule, deploy
from onnxinterp.deploy import formats
from onnxinterp.extras import MissingExtraError

ROOT = Path(__file__).parents[2]
PACKAGES = {"executorch": "executorch", "ncnn": "pnnx", "openvino": "openvino"}
LATER = {".py": hasattr(OnnxModule, "to_python"), ".param": importlib.util.find_spec(formats.NCNN)}
DYNAMIC = [".pth", ".pt", ".safetensors", ".pt2", ".py", ".ts", ".xml"]
FIXED = [".pte", ".param"]


def need(suffix: str) -> None:
    """Skip where the tool of a format, or its writer, is not there."""
    form = formats.format_of(Path(f"m{suffix}"), reexport=False)
    package = PACKAGES.get(form.extra, "torch")
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed")
    if not LATER.get(suffix, True):
        pytest.skip(f"nothing writes {suffix} here")


@pytest.mark.parametrize("suffix", DYNAMIC)
def test_dynamic_dimensions_are_named_and_compared_at_two_sizes(
    suffix: str, net: Path, tmp_path: Path
) -> None:
    need(suffix)
    found = deploy.convert(net, tmp_path / f"out{suffix}")
    assert found.ok
    assert found.dims == {"x": {0: "batch"}}
    assert [tuple(r.inputs["x"].shape) for r in found.reports] == [(2, 4), (3, 4)]
    assert str(found.path) in found.loading


@pytest.mark.filterwarnings("ignore")  # of executorch
@pytest.mark.parametrize("suffix", FIXED)
def test_sizes_are_fixed_where_the_tool_wants_to_know_them(
    suffix: str, scores: Path, tmp_path: Path
) -> None:
    need(suffix)
    found = deploy.convert(scores, tmp_path / f"out{suffix}", shapes={"x": (2, 4)})
    assert found.ok
    assert (found.dims, len(found.reports)) == ({}, 1)


@pytest.mark.capture
@pytest.mark.filterwarnings("ignore")  # of executorch
def test_sizes_of_executorch_vary_up_to_those_of_the_examples(net: Path, tmp_path: Path) -> None:
    need(".pte")
    found = deploy.convert(net, tmp_path / "out.pte", shapes={"x": (4, 4)}, dynamic=True)
    assert found.ok
    assert [tuple(r.inputs["x"].shape) for r in found.reports] == [(4, 4), (3, 4)]


@pytest.mark.parametrize("suffix", [".pt2", ".ts", ".xml"])
def test_given_shapes_are_fixed_unless_dimensions_are_to_vary(
    suffix: str, net: Path, tmp_path: Path
) -> None:
    need(suffix)
    path = tmp_path / f"out{suffix}"
    assert deploy.convert(net, path, shapes={"x": (5, 4)}).dims == {}
    assert deploy.convert(net, path, shapes={"x": (5, 4)}, dynamic=True).dims == {"x": {0: "batch"}}


@pytest.mark.parametrize("suffix", [".pth", ".safetensors", ".pt2", ".ts", ".xml"])
def test_a_file_with_another_weight_differs(
    suffix: str, net: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tenth of one weight, changed between writing and loading, must be seen."""
    need(suffix)
    form = formats.format_of(Path(f"m{suffix}"), reexport=False)

    def write(subject: Any, path: Path) -> Any:
        weight = subject.module.weights["fc.weight"]
        kept = weight.detach().clone()
        with torch.no_grad():
            weight[0, 0] *= 1.1
        dims = form.write(subject, path)
        with torch.no_grad():
            weight.copy_(kept)
        return dims

    changed = tuple(replace(f, write=write) if f is form else f for f in formats.FORMATS)
    monkeypatch.setattr(formats, "FORMATS", changed)
    assert not deploy.convert(net, tmp_path / f"out{suffix}").ok


def test_a_size_that_a_file_does_not_follow_is_an_error(
    net: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    form = formats.PROGRAM

    def write(subject: Any, path: Path) -> Any:
        form.write(replace(subject, dims={}), path)
        return subject.dims

    changed = tuple(replace(f, write=write) if f is form else f for f in formats.FORMATS)
    monkeypatch.setattr(formats, "FORMATS", changed)
    with pytest.raises(deploy.ConversionError, match="was written, but cannot be called"):
        deploy.convert(net, tmp_path / "out.pt2")


def test_a_module_is_converted_with_its_current_weights(net: Path, tmp_path: Path) -> None:
    module = OnnxModule(net).train()
    with torch.no_grad():
        module.weights["fc.weight"].mul_(2)
    found = deploy.convert(module, tmp_path / "out.pt2")
    assert found.ok
    assert module.training
    loaded = torch.export.load(found.path).module()
    x = torch.randn(7, 4)
    torch.testing.assert_close(loaded(x)[0], module(x)[0])


@pytest.mark.parametrize(
    ("package", "suffix", "extra"),
    [
        ("executorch.exir", ".pte", "executorch"),
        ("openvino", ".xml", "openvino"),
        ("safetensors", ".safetensors", "safetensors"),
    ],
)
def test_a_missing_tool_is_named_with_its_extra(
    package: str,
    suffix: str,
    extra: str,
    net: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtraError, match=re.escape(f"onnxinterp[{extra}]")):
        deploy.convert(net, tmp_path / f"out{suffix}")


def test_an_unknown_suffix_lists_all(net: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"must be one of \.pth, \.pt, \.safetensors, .*\.param"):
        deploy.convert(net, tmp_path / "out.h5")


@pytest.mark.parametrize("form", formats.FORMATS, ids=lambda form: form.suffixes[0])
def test_every_format_is_documented_and_its_extra_declared(form: deploy.Format) -> None:
    page = (ROOT / "docs" / "deployment.md").read_text()
    assert f"| {', '.join(f'`{s}`' for s in form.suffixes)} |" in page
    declared = (ROOT / "pyproject.toml").read_text()
    if form.extra and LATER.get(form.suffixes[0], True):
        assert f"\n{form.extra} = [" in declared


def test_a_constrained_dimension_is_left_to_torch_and_the_others_keep_their_names() -> None:
    from torch.export import Dim

    from onnxinterp.deploy.exported import _constrained, specification

    spec = specification({"image": {0: "batch", 2: "height", 3: "h + 1"}, "mask": {0: "batch"}})
    assert spec["image"][0] is spec["mask"][0]
    assert (spec["image"][0].__name__, spec["image"][3]) == ("batch", Dim.AUTO)
    looser = _constrained(spec, "Constraints violated (height)! For more information")
    assert looser["image"][0] is spec["image"][0]
    assert looser["image"][2] is Dim.AUTO
