"""`onnxinterp inspect` and `onnxinterp ops` list operators, weights and missing operators."""

from __future__ import annotations

from pathlib import Path

import onnx.defs
import pytest

from onnxinterp.cli import main
from onnxinterp.cli.inspect import weights_of
from onnxinterp.cli.ops import missing_operators, operators
from onnxinterp.graph.build import build
from onnxinterp.module import OnnxModule
from onnxinterp.reading.source import read
from onnxinterp.registry import KERNELS, lookup

Captured = pytest.CaptureFixture[str]


def test_inspect_shows_the_content_of_a_model(digits: Path, capsys: Captured) -> None:
    assert main(["inspect", str(digits)]) == 0
    out = capsys.readouterr().out
    kernel = lookup("Conv", 20)
    assert kernel is not None
    served = f"Conv-{kernel.since}"
    for text in ("batch x 1 x 8 x 8", "ai.onnx 20", "pytorch", served, "31.0 kB"):
        assert text in out


def test_inspect_and_the_module_have_the_same_trainable_weights(digits: Path) -> None:
    weights = {w.name: w for w in weights_of(build(read(digits).proto))}
    module = OnnxModule(digits)
    assert list(weights) == list(module.weights)
    for name, tensor in module.weights.items():
        assert weights[name].shape == tuple(tensor.shape)
        assert weights[name].bytes == tensor.nbytes
        assert weights[name].trains == tensor.requires_grad


def test_inspect_reports_missing_operators(unserved: Path, capsys: Captured) -> None:
    assert main(["inspect", str(unserved), "--weights"]) == 1
    out = capsys.readouterr().out
    assert "MISSING" in out
    assert "Relu-" in out
    assert "@onnxinterp.op('Foo', since=1, domain='my.domain')" in out
    assert "w float 2 8 no" in " ".join(out.split())


def test_inspect_reads_no_external_data(tmp_path: Path, digits: Path, capsys: Captured) -> None:
    path = tmp_path / "m.onnx"
    onnx.save_model(onnx.load(digits), path, save_as_external_data=True, location="m.data")
    (tmp_path / "m.data").unlink()
    assert main(["inspect", str(path)]) == 0
    assert "6,284 elements" in capsys.readouterr().out


def test_ops_lists_every_operator_of_the_specification() -> None:
    rows = {(r.domain, r.op_type): r for r in operators()}
    for schema in onnx.defs.get_all_schemas_with_history():
        if not schema.deprecated:
            row = rows[schema.domain or "ai.onnx", schema.name]
            assert (schema.since_version in row.supported) != (schema.since_version in row.missing)
    assert all((d or "ai.onnx", n) in rows for d, n in KERNELS)


def test_ops_names_the_file_and_the_versions() -> None:
    (row,) = [r for r in operators() if r.op_type == "Clip"]
    assert row.source == "ops/clip.py"
    assert row.kernels == tuple(sorted(KERNELS["", "Clip"]))
    assert {11, 12, 13} <= set(row.supported)


def test_ops_prints_a_table_and_markdown(capsys: Captured) -> None:
    assert main(["ops"]) == 0
    plain = capsys.readouterr().out
    assert main(["ops", "--markdown"]) == 0
    marked = capsys.readouterr().out
    assert marked.startswith("| operator | domain |")
    assert "| Clip | ai.onnx |" in marked
    assert " operators, " in plain


def test_ops_missing_lists_each_once(unserved: Path, digits: Path, capsys: Captured) -> None:
    assert main(["ops", "--missing", str(digits)]) == 0
    assert "every operator has a kernel" in capsys.readouterr().out
    assert main(["ops", "--missing", str(unserved)]) == 1
    assert [m.op_type for m in missing_operators(unserved)] == ["Foo", "Bar"]
