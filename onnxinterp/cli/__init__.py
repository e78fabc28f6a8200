"""The command line: `onnxinterp COMMAND ...`, one file per command.

Exit status: 0 all is well, 1 the answer is negative (outputs differ, operators are missing),
2 wrong usage or an error.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from onnxinterp.cli import convert, demo, finetune, inspect, ops, verify
from onnxinterp.errors import OnnxError

COMMANDS = (demo, finetune, convert, verify, inspect, ops)


def parser() -> argparse.ArgumentParser:
    """The parser of all commands; each sets `run` to the function that carries it out."""
    main_parser = argparse.ArgumentParser(
        prog="onnxinterp",
        description="Run, check, convert and fine-tune ONNX models as PyTorch modules.",
        epilog="examples:\n  onnxinterp demo\n  onnxinterp verify model.onnx\n"
        "  onnxinterp COMMAND -h",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = main_parser.add_subparsers(metavar="COMMAND", required=True)
    for command in COMMANDS:
        command.add_to(commands)
    return main_parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Carry out one command and return its exit status; `arguments` default to sys.argv."""
    options = parser().parse_args(arguments)
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
