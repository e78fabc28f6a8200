"""What several commands take: shapes of inputs, files of inputs; and how a command is declared."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from typing import Any

from onnxinterp.cli.display import say
from onnxinterp.errors import InputError
from onnxinterp.graph.ir import ValueInfo
from onnxinterp.limits import Limits

NamedShape = tuple[str, tuple[int, ...]]
Commands = Any  # argparse keeps the class of sub-parsers to itself


def command(
    commands: Commands, name: str, run: Callable[[Any], int], summary: str, examples: str
) -> argparse.ArgumentParser:
    """Add a command: a line of help, and examples under its own `-h`."""
    added: argparse.ArgumentParser = commands.add_parser(
        name,
        help=summary,
        description=summary[0].upper() + summary[1:] + ".",
        epilog=f"examples:\n{examples}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    added.set_defaults(run=run)
    return added


def add_input_shape(parser: argparse.ArgumentParser) -> None:
    """`--input_shape name:1,3,224,224`, for as many inputs as are to be fixed."""
    parser.add_argument(
        "--input_shape",
        "--input-shape",
        metavar="NAME:SIZES",
        nargs="+",
        action="extend",
        default=[],
        type=named_shape,
        help="shape of an input, as image:1,3,224,224; the name may be left out where there is "
        "only one input; dynamic sizes that are not given get a default, which is printed",
    )


def add_untrusted(parser: argparse.ArgumentParser) -> None:
    """`--untrusted`: `options.limits` are those for files of strangers."""
    parser.add_argument(
        "--untrusted",
        dest="limits",
        action="store_const",
        const=Limits.untrusted(),
        default=Limits(),
        help="hold the model to Limits.untrusted(), before anything else sees it",
    )


def positive(text: str) -> int:
    """Parse a count of at least 1."""
    try:
        count = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no number") from None
    if count < 1:
        raise argparse.ArgumentTypeError("at least 1")
    return count


def named_shape(text: str) -> NamedShape:
    """Parse `name:1,3,224,224`; the name may hold colons, and `name:` is a scalar."""
    name, _, sizes = text.rpartition(":")
    try:
        shape = tuple(int(s) for s in sizes.split(",")) if sizes else ()
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME:SIZE,SIZE,...") from None
    if any(s < 0 for s in shape):
        raise argparse.ArgumentTypeError(f"{text!r} has a negative size")
    return name, shape


def shapes_by_name(
    given: Sequence[NamedShape], inputs: Sequence[ValueInfo]
) -> dict[str, tuple[int, ...]]:
    """The shapes of the command line by input; a shape without a name is that of the only input.

    Raises:
        InputError: a name is missing where there are several inputs.
    """
    if any(not name for name, _ in given) and len(inputs) != 1:
        names = ", ".join(repr(i.name) for i in inputs)
        raise InputError(f"--input_shape needs a name before the colon, one of {names}")
    return {name or inputs[0].name: shape for name, shape in given}


def say_assumed(assumed: dict[str, int]) -> None:
    """Print the sizes that nobody gave."""
    if assumed:
        sizes = ", ".join(f"{name} = {size}" for name, size in assumed.items())
        say(f"sizes assumed for dynamic dimensions: {sizes} (--input_shape decides)")
