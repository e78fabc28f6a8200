"""Usage, help, exit status and errors of all commands."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from onnxinterp.cli import COMMANDS, main

NAMES = [c.__name__.rpartition(".")[2] for c in COMMANDS]
Captured = pytest.CaptureFixture[str]


def test_the_documented_commands_exist() -> None:
    names = {"demo", "finetune", "convert", "verify", "generate", "profile", "inspect", "ops"}
    assert set(NAMES) == names


@pytest.mark.parametrize("name", NAMES)
def test_help_shows_an_example(name: str, capsys: Captured) -> None:
    with pytest.raises(SystemExit) as exit_:
        main([name, "-h"])
    assert exit_.value.code == 0
    out = capsys.readouterr().out
    examples = out.partition("examples:\n")[2]
    assert f"  onnxinterp {name}" in examples


def test_main_help_lists_every_command(capsys: Captured) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(["-h"])
    assert exit_.value.code == 0
    assert all(f"\n    {name} " in capsys.readouterr().out for name in NAMES[:1])


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["no-such-command"],
        ["verify"],
        ["convert", "--onnx_path", "m.onnx"],
        ["convert", "--onnx_path", "m.onnx", "--pytorch_path", "m.h5"],
        ["verify", "m.onnx", "--input_shape", "x:1,two"],
        ["verify", "m.onnx", "--input_shape", "x:1,-2"],
        ["demo", "--epochs", "0"],
        ["generate", "m.onnx"],
        ["generate", "m.onnx", "--ids", "1,two"],
        ["generate", "m.onnx", "--ids", "1", "--prompt", "two"],
        ["generate", "m.onnx", "--ids", "1", "--max-new-tokens", "0"],
    ],
)
def test_wrong_usage_exits_2(arguments: list[str], capsys: Captured) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(arguments)
    assert exit_.value.code == 2
    assert "usage:" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["verify", "{absent}"], "No such file"),
        (["inspect", "{absent}"], "No such file"),
        (["profile", "{absent}"], "No such file"),
        (["generate", "{absent}", "--prompt", "text"], "No such file"),
        (["generate", "{absent}", "--ids", "1"], "No such file"),
        (["ops", "--missing", "{absent}"], "No such file"),
        (["convert", "--onnx_path", "{absent}", "--pytorch_path", "{out}"], "No such file"),
        (["verify", "{broken}"], "cannot be parsed"),
        (["inspect", "{broken}"], "cannot be parsed"),
        (["profile", "{broken}"], "cannot be parsed"),
        (["generate", "{broken}", "--ids", "1"], "cannot be parsed"),
        (["generate", "{digits}", "--ids", "1"], "no input is 'input_ids'; its inputs are image"),
        (["verify", "{unserved}"], "my.domain::Foo at opset 1"),
        (["profile", "{unserved}"], "my.domain::Foo at opset 1"),
        (["convert", "--onnx_path", "{unserved}", "--pytorch_path", "{out}"], "my.domain::Bar"),
        (
            [
                *("convert", "--onnx_path", "{digits}"),
                *("--pytorch_path", "{out}", "--simplify_path", "{digits}"),
            ],
            "must differ from the input, which it would overwrite",
        ),
        (["verify", "{digits}", "--submodel", "x.onnx"], "--submodel requires --per-node"),
        (["verify", "{digits}", "--input_shape", "image:1,1,9,9"], "does not fit input image"),
        (["verify", "{digits}", "--input_shape", "picture:1,1,8,8"], "no input 'picture'"),
        (
            ["verify", "{two_inputs}", "--input_shape", "4,3"],
            "--input_shape must be NAME:SIZES, where NAME is one of 'x', 'y'",
        ),
        (["verify", "{digits}", "--inputs", "{broken}"], "no .npz file"),
        (["verify", "{digits}", "--inputs", "{wrong}"], "inputs must be 'image', got 'img'"),
        (
            ["verify", "{digits}", "--inputs", "{wrong}", "--input_shape", "1"],
            "--inputs and --input_shape cannot be combined",
        ),
    ],
)
def test_errors_exit_2_with_one_message(
    arguments: list[str],
    message: str,
    digits: Path,
    two_inputs: Path,
    unserved: Path,
    tmp_path: Path,
    capsys: Captured,
) -> None:
    broken, wrong = tmp_path / "broken.onnx", tmp_path / "wrong.npz"
    broken.write_bytes(b"\x00 not protobuf \xff")
    np.savez(wrong, img=np.zeros(3))
    paths = {
        "{absent}": tmp_path / "absent.onnx",
        "{broken}": broken,
        "{wrong}": wrong,
        "{out}": tmp_path / "out.pth",
        "{digits}": digits,
        "{two_inputs}": two_inputs,
        "{unserved}": unserved,
    }
    assert main([str(paths.get(a, a)) for a in arguments]) == 2
    err = capsys.readouterr().err
    assert err.startswith("onnxinterp: ")
    assert message in err
    assert "Traceback" not in err
    assert not (tmp_path / "out.pth").exists()


@pytest.mark.parametrize(
    ("package", "command"),
    [
        ("onnxruntime", "pip install onnxinterp[verify]"),
        ("onnxoptimizer", "pip install onnxinterp[simplify]"),
    ],
)
def test_missing_extras_print_the_install_command(
    package: str,
    command: str,
    digits: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Captured,
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    simple, out = str(tmp_path / "simple.onnx"), str(tmp_path / "out.pth")
    arguments = {
        "onnxruntime": ["verify", str(digits)],
        "onnxoptimizer": [
            *("convert", "--onnx_path", str(digits)),
            *("--pytorch_path", out, "--simplify_path", simple),
        ],
    }
    assert main(arguments[package]) == 2
    assert command in capsys.readouterr().err


def test_importing_the_library_does_not_import_the_commands() -> None:
    code = (
        "import sys, onnxinterp\n"
        "names = ('onnxinterp.cli', 'onnxinterp.verify', 'onnxruntime', 'rich', 'onnxoptimizer',"
        "    'tokenizers')\n"
        "assert not [n for n in names if n in sys.modules], sorted(sys.modules)\n"
        "import onnxinterp.cli\n"
        "assert not [n for n in names[2:] if n in sys.modules], sorted(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_a_closed_pipe_is_not_an_error() -> None:
    code = "import sys; from onnxinterp.cli import main; sys.exit(main(['ops']))"
    command = f'{sys.executable} -c "{code}" | head -1; echo ${{PIPESTATUS[0]}}'
    done = subprocess.run(
        ["bash", "-c", command], check=True, capture_output=True, text=True, timeout=60
    )
    assert done.stdout.split()[-1] == "0"
    assert done.stderr == ""
