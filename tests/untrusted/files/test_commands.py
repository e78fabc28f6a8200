"""The command line tells what is in a hostile file, or why it is refused, in lines of this size."""

from __future__ import annotations

from pathlib import Path

import onnx.parser
import pytest
from onnx import TensorProto

from onnxinterp.cli import main
from tests.untrusted.files.collection import cases
from tests.untrusted.files.judging import controls

MAX_PRINTED_CHARS = 100_000  # of a command: a table of a few hundred short lines


@pytest.mark.parametrize("group", ["damaged", "tensors", "external", "graphs", "names"])
@pytest.mark.parametrize("command", [["inspect", "--weights"], ["ops", "--missing"]])
def test_commands_keep_the_promise(
    command: list[str], group: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [case for case in cases(group) if case.race is None and case.beside is None]
    assert files
    for case in files:
        path = tmp_path / "m.onnx"
        path.write_bytes(case.content)
        status = main([*command, str(path)])
        told = "".join(capsys.readouterr())
        assert status in (0, 1, 2), case.name
        assert told, case.name
        assert len(told) < MAX_PRINTED_CHARS, case.name
        assert not controls(told), case.name


@pytest.mark.parametrize("command", ["inspect", "verify"])
def test_commands_hold_strangers_to_their_limits(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    vast = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[2**31])
    vast.data_location = TensorProto.EXTERNAL
    vast.external_data.add(key="location", value="w.bin")
    model = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]> g (float[n] x) => (float[n] y) { y = Neg (x) }'
    )
    model.graph.initializer.append(vast)
    path = tmp_path / "m.onnx"
    path.write_bytes(model.SerializeToString())
    assert main(["inspect", str(path)]) == 0
    assert main([command, str(path), "--untrusted"]) == 2
    assert "limits.weight_bytes" in capsys.readouterr().err
