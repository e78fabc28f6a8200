"""The speed benchmark reports what it measured, and marks what is wrong or absent."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import onnx
import pytest

from benchmarks.speed.__main__ import count_nodes, measure, models_in
from benchmarks.speed.checkout import Checkout
from benchmarks.speed.engines import ONNXRUNTIME, OPENVINO, PLAIN, TORCH, mean_squared_error
from benchmarks.speed.picture import picture
from benchmarks.speed.results import BASELINE, CURRENT, Result, geometric_mean, table_of
from benchmarks.zoo.make import entries, make_models
from tests.zoo.fetch import NoNetworkError
from tests.zoo.manifest import Model

ROOT = Path(__file__).resolve().parent.parent.parent
SECONDS = {TORCH: 4e-3, PLAIN: 2e-3, ONNXRUNTIME: 1e-3}
HOSTILE = "<script>\"'&"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with one model, of two inputs."""
    text = """<ir_version: 8, opset_import: ["": 17]> g (float[4, 8] x, float[8, 4] w)
        => (float[4, 4] y) { m = MatMul(x, w)  y = Relu(m) }"""
    onnx.save(onnx.parser.parse_model(text), tmp_path / "small.onnx")
    arrays = {"x": np.ones((4, 8), np.float32), "w": np.ones((8, 4), np.float32)}
    np.savez(tmp_path / "small.inputs.npz", **arrays)
    return tmp_path


def test_a_model_is_measured_in_each_engine(folder: Path) -> None:
    (path,) = models_in(folder, ["small"])
    with Checkout(ROOT) as old, Checkout(ROOT) as new:
        result = measure(path, 1, 2, (PLAIN, ONNXRUNTIME), {BASELINE: old, CURRENT: new})
    assert result.seconds.keys() == {PLAIN, ONNXRUNTIME, BASELINE, CURRENT}
    assert all(seconds > 0 for seconds in result.seconds.values())
    assert result.errors == {PLAIN: 0.0, ONNXRUNTIME: 0.0}
    assert result.nodes == 2
    assert "old / new" in table_of([result], 1).columns


def test_an_engine_that_fails_is_reported(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("no such operator")

    monkeypatch.setattr("benchmarks.speed.engines.OnnxModule", broken)
    result = measure(folder / "small.onnx", 1, 1, (PLAIN, ONNXRUNTIME))
    assert result.failures == {PLAIN: "RuntimeError: no such operator"}
    assert "fails" in table_of([result], 1).markdown()


def test_an_unknown_name_is_refused(folder: Path) -> None:
    with pytest.raises(ValueError, match="got large"):
        models_in(folder, ["small", "large"])
    with pytest.raises(ValueError, match="got large"):
        make_models(folder, ["large"])


def test_a_checkout_without_the_package_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="folder must be a checkout of onnxinterp"):
        Checkout(tmp_path)


def test_wheels_that_cannot_be_downloaded_are_absent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable(_: Model) -> Path:
        raise NoNetworkError("the package index is out of reach")

    monkeypatch.setattr(Model, "file", unreachable)
    absent = make_models(tmp_path, ["silero_vad"])
    assert absent == {"silero_vad": "absent (the package index is out of reach)"}
    assert not list(tmp_path.glob("*.onnx"))


def test_files_that_exist_are_kept(tmp_path: Path) -> None:
    (tmp_path / "mlp300.onnx").write_bytes(b"another file")
    assert make_models(tmp_path, ["mlp300"]) == {}
    assert (tmp_path / "mlp300.onnx").read_bytes() == b"another file"
    with np.load(tmp_path / "mlp300.inputs.npz") as arrays:
        assert arrays.files == ["x"]


def test_weights_and_inputs_are_the_same_each_time() -> None:
    entry = entries()["mlp300"]
    one, other = entry.build().state_dict(), entry.build().state_dict()
    assert all(np.array_equal(one[name], other[name]) for name in one)
    assert all(np.array_equal(x, y) for x, y in zip(*(entry.inputs().values(),) * 2, strict=True))


def test_nodes_of_subgraphs_count() -> None:
    model = onnx.parser.parse_model("""<ir_version: 8, opset_import: ["": 17]>
      g (float[2] x, bool c) => (float[2] y) {
        y = If(c) < then_branch = yes () => (float[2] p) { p = Neg(x) },
                    else_branch = no () => (float[2] q) { a = Neg(x) q = Neg(a) } > }""")
    assert count_nodes(model.graph) == 4


def test_ratios_are_to_onnxruntime_and_means_are_geometric() -> None:
    assert geometric_mean([0.5, 2.0, None]) == pytest.approx(1)
    assert geometric_mean([None]) is None
    small = Result("small", "first", 3, 1, SECONDS, {PLAIN: 1e-9})
    seconds = {PLAIN: 8e-3, ONNXRUNTIME: 1e-3}
    large = Result("large", "first", 3, 1, seconds, {PLAIN: 1e-6, ONNXRUNTIME: math.nan})
    page = table_of([small, large], 1).markdown()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in page.splitlines()[4:]]
    assert rows[0] == ["model", "nodes", "onnxruntime ms", "torch", "onnxinterp", "MSE"]
    assert rows[2] == ["small", "3", "1.00", "4.00", "2.00", "1e-09"]
    assert rows[3] == ["large", "3", "1.00", "-", "8.00 (!)", "1e-06"]
    assert rows[4][3:] == ["4.00 (1)", "4.00", ""]


def test_shapes_of_outputs_must_be_equal() -> None:
    a, b = np.zeros((2, 3)), np.zeros((3, 2))
    with pytest.raises(ValueError, match="must have the shapes"):
        mean_squared_error([a], [b])
    assert mean_squared_error([a, a + 2], [a, a]) == 4


def test_the_picture_is_xml_in_which_names_are_text() -> None:
    seconds = {**SECONDS, OPENVINO: 1e-5, HOSTILE: 1.0}  # beyond both ends of the scale
    image = picture([Result(HOSTILE, "first", 3, 1, seconds, {})], 1)
    root = ElementTree.fromstring(image)
    tags = {element.tag.rpartition("}")[2] for element in root.iter()}
    assert tags == {"svg", "title", "rect", "line", "text"}
    texts = [element.text for element in root.iter() if element.text]
    assert texts.count(HOSTILE) == 2  # of the model and of the engine
    width = float(root.attrib["width"])
    for rect in root.iter("{http://www.w3.org/2000/svg}rect"):
        left = float(rect.get("x", "0"))
        assert 0 <= left <= left + float(rect.attrib["width"]) <= width
        assert not math.isnan(left)


def test_speed_runs_from_the_command_line(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from benchmarks.speed.__main__ import main

    arguments = ["--models", str(folder), "--engines", "onnxinterp,onnxruntime", "--rounds", "1"]
    monkeypatch.setattr(sys, "argv", ["speed", *arguments, "--json", str(folder / "out.json")])
    main()
    assert "small" in (folder / "out.json").read_text()
