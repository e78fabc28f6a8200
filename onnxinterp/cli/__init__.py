"""The command line: `onnxinterp COMMAND ...`, one module per command.

Exit status: 0 success, 1 negative result (outputs differ, operators are missing), 2 wrong usage or
another error.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from onnxinterp.cli import convert, demo, finetune, generate, inspect, ops, profile, verify
from onnxinterp.errors import OnnxError

COMMANDS = (demo, finetune, convert, verify, generate, profile, inspect, ops)

EPILOG = """\
examples:
  onnxinterp demo
  onnxinterp verify model.onnx
  onnxinterp finetune model.onnx --data photos/ --head auto --output tuned.onnx

Run `onnxinterp COMMAND -h` for the options of a command, with examples.
Exit status: 0 success, 1 negative result (for example, outputs differ), 2 error."""


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of all commands; each command sets `run` to its function."""
    parser = argparse.ArgumentParser(
        prog="onnxinterp",
        description="Run, verify, convert and fine-tune ONNX models as PyTorch modules.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in COMMANDS:
        command.add_to(commands)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status; `arguments` default to sys.argv."""
    options = make_parser().parse_args(arguments)
    try:
        status: int = options.run(options)
        sys.stdout.flush()
    except (OnnxError, OSError) as error:
        if isinstance(error, BrokenPipeError):  # as in `onnxinterp ops | head`
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 0
        print(f"onnxinterp: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return status
