"""The inputs of a model that a command runs: arrays of a file, or random values."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from onnxinterp.cli import arguments
from onnxinterp.errors import InputError
from onnxinterp.reading.source import read
from onnxinterp.training.datasets import read_arrays
from onnxinterp.verify.report import declared_inputs, prepare


def add_to(parser: argparse.ArgumentParser) -> None:
    """Add the model and the arguments for its inputs."""
    add = parser.add_argument
    add("model", type=Path, help="ONNX file")
    inputs = "arrays by input name; default: random values"
    add("--inputs", type=Path, metavar="X.npz", help=inputs)
    arguments.add_input_shape(parser)
    add("--seed", type=int, default=0, help="seed of the random inputs")


def chosen(options: argparse.Namespace) -> dict[str, Any]:
    """The inputs by name; sizes that were chosen by default are printed.

    Raises:
        InputError: the arguments contradict each other, or do not fit the model.
    """
    if options.inputs and options.input_shape:
        raise InputError("--inputs and --input_shape cannot be combined")
    inputs = read_arrays(options.inputs) if options.inputs else None
    declared = declared_inputs(read(options.model, options.limits).proto)
    shapes = arguments.shapes_by_name(options.input_shape, declared)
    values, defaults = prepare(options.model, inputs, shapes, options.seed)
    arguments.say_default_sizes(defaults)
    return values
