"""Arguments that several commands share, and the declaration of a command."""

from __future__ import annotations

import argparse
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from onnxinterp.cli.display import say
from onnxinterp.errors import InputError
from onnxinterp.graph.ir import ValueInfo
from onnxinterp.limits import Limits

NamedShape = tuple[str, tuple[int, ...]]
Commands = Any  # argparse's class of sub-parsers is private


def add_command(
    commands: Commands, name: str, run: Callable[[Any], int], summary: str, examples: str
) -> argparse.ArgumentParser:
    """Add a command with a one-line summary and examples at the end of its `-h`."""
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=summary,
        description=summary[0].upper() + summary[1:] + ".",
        epilog=f"examples:\n{examples}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run)
    return parser


def add_input_shape(parser: argparse.ArgumentParser) -> None:
    """Add `--input_shape NAME:SIZES ...`."""
    parser.add_argument(
        "--input_shape",
        "--input-shape",
        metavar="NAME:SIZES",
        nargs="+",
        action="extend",
        default=[],
        type=named_shape,
        help="shapes of inputs, for example image:1,3,224,224; the name is optional if the model "
        "has one input; other dynamic dimensions get a default size, which is printed",
    )


def add_untrusted(parser: argparse.ArgumentParser) -> None:
    """Add `--untrusted`, which sets `options.limits` to the limits for untrusted files."""
    parser.add_argument(
        "--untrusted",
        dest="limits",
        action="store_const",
        const=Limits.untrusted(),
        default=Limits(),
        help="for untrusted files: apply Limits.untrusted() to the model before anything else "
        "reads it",
    )


def positive_int(string: str) -> int:
    """Parse an integer of at least 1."""
    try:
        count = int(string)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be an integer, got {string!r}") from None
    if count < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {count}")
    return count


def named_shape(string: str) -> NamedShape:
    """Parse `name:1,3,224,224`; the name may contain colons, and `name:` is a scalar."""
    name, _, sizes = string.rpartition(":")
    try:
        shape = tuple(int(s) for s in sizes.split(",")) if sizes else ()
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be NAME:SIZE,SIZE,..., got {string!r}") from None
    if any(s < 0 for s in shape):
        raise argparse.ArgumentTypeError(f"sizes must not be negative, got {string!r}")
    return name, shape


def shapes_by_name(
    shapes: Sequence[NamedShape], inputs: Sequence[ValueInfo]
) -> dict[str, tuple[int, ...]]:
    """Return shapes by input name; a shape without a name belongs to the only input.

    Raises:
        InputError: a name is missing, and the model has several inputs.
    """
    if any(not name for name, _ in shapes) and len(inputs) != 1:
        names = ", ".join(repr(i.name) for i in inputs)
        raise InputError(f"--input_shape must be NAME:SIZES, where NAME is one of {names}")
    return {name or inputs[0].name: shape for name, shape in shapes}


def read_arrays(path: Path) -> dict[str, np.ndarray[Any, Any]]:
    """The arrays of an .npz file by name; nothing in it is executed.

    Raises:
        InputError: it is no such file, or holds pickled objects.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            return dict(archive)
    except (ValueError, AttributeError, TypeError, zipfile.BadZipFile) as error:
        raise InputError(f"{path} is no .npz file of plain arrays: {error}") from error


def say_default_sizes(defaults: dict[str, int]) -> None:
    """Print the sizes of dynamic dimensions that the command line does not set."""
    if defaults:
        sizes = ", ".join(f"{name} = {size}" for name, size in defaults.items())
        say(f"default sizes of dynamic dimensions: {sizes} (set them with --input_shape)")
