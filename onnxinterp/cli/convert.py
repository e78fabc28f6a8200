"""`onnxinterp convert`: an ONNX file as a PyTorch file, or the way back, compared afterwards."""

from __future__ import annotations

import argparse
import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from google.protobuf.message import EncodeError

from onnxinterp import checkpoints
from onnxinterp.cli.arguments import (
    Commands,
    add_input_shape,
    add_untrusted,
    command,
    say_assumed,
    shapes_by_name,
)
from onnxinterp.cli.display import bytes_text, say
from onnxinterp.cli.verify import show_report, verify_if_installed
from onnxinterp.errors import InputError, OnnxError
from onnxinterp.extras import require
from onnxinterp.format.atomic import atomic_write
from onnxinterp.graph.ir import ValueInfo
from onnxinterp.module import OnnxModule
from onnxinterp.reading.source import read
from onnxinterp.verify.inputs import choose_shapes, random_inputs
from onnxinterp.verify.report import declared_inputs, prepare

EXAMPLES = """\
  onnxinterp convert --onnx_path model.onnx --pytorch_path model.pth
  onnxinterp convert --onnx_path model.onnx --pytorch_path model.pt2 --input_shape image:1,3,224,224
  onnxinterp convert --onnx_path model.onnx --pytorch_path model.pth --simplify_path simple.onnx
  onnxinterp convert --source tuned.pth --output tuned.onnx

reading the result:
  .pth, .pt     from onnxinterp import checkpoints; module = checkpoints.load("model.pth")
                (torch.load("model.pth", weights_only=True) gives the plain state dict)
  .pt2          import torch; module = torch.export.load("model.pt2").module()
  .safetensors  module = OnnxModule("model.onnx"); module.load_safetensors("model.safetensors")"""

STATE_DICT = (".pth", ".pt")
EXPORTED = ".pt2"
TENSORS = ".safetensors"
ONNX = ".onnx"
SIMPLIFICATIONS = (
    "extract_constant_to_initializer",
    "eliminate_nop_dropout",
    "eliminate_identity",
    "eliminate_nop_cast",
    "eliminate_nop_pad",
    "eliminate_nop_transpose",
    "eliminate_duplicate_initializer",
    "eliminate_unused_initializer",
    "eliminate_deadend",
)


NUMBERS = {
    "value_int": np.int64,
    "value_ints": np.int64,
    "value_float": np.float32,
    "value_floats": np.float32,
}
REFUSALS = (RuntimeError, ValueError, AttributeError, EncodeError, onnx.checker.ValidationError)
"""What onnxoptimizer and onnx raise on a model that is too new, too large or incomplete."""


class ConversionError(OnnxError, RuntimeError):
    """The model loads, but cannot be written in the form asked for."""


def add_to(commands: Commands) -> None:
    """Declare the command."""
    parser = command(
        commands, "convert", run, "write an ONNX model as a PyTorch file and compare", EXAMPLES
    )
    parser.add_argument(
        "--onnx_path",
        "--onnx-path",
        "--source",
        type=Path,
        required=True,
        metavar="MODEL",
        help="an ONNX model; or, to write one, a .pth or .pt that this command made",
    )
    parser.add_argument(
        "--pytorch_path",
        "--pytorch-path",
        "--output",
        type=_output,
        required=True,
        metavar="OUT",
        help="the suffix decides: .pth or .pt (state dict with its graph), .pt2 (torch.export), "
        ".safetensors (the weights alone), .onnx (the weights of a .pth in its very graph)",
    )
    parser.add_argument(
        "--simplify_path",
        "--simplify-path",
        type=Path,
        metavar="OUT.onnx",
        help="write the model without Dropout, Identity and Constant nodes here, and convert that",
    )
    add_input_shape(parser)
    add_untrusted(parser)


def _output(text: str) -> Path:
    path = Path(text)
    if path.suffix not in (*STATE_DICT, EXPORTED, TENSORS, ONNX):
        suffixes = ".pth, .pt, .pt2, .safetensors, .onnx"
        raise argparse.ArgumentTypeError(f"{text!r} ends in none of {suffixes}")
    return path


def run(options: argparse.Namespace) -> int:
    """Convert and compare; 0 where onnxruntime agrees or is not there, 1 where it differs."""
    source, out, limits = options.onnx_path, options.pytorch_path, options.limits
    if out.suffix == ONNX:
        return _write_onnx(options)
    declared = declared_inputs(read(source, limits).proto)
    shapes = shapes_by_name(options.input_shape, declared)
    if options.simplify_path == source:
        raise InputError("--simplify_path would overwrite the model: give it another name")
    if options.simplify_path:
        _say_simplified(source, options.simplify_path)
        source = options.simplify_path
    module = OnnxModule(source, limits=limits)
    if out.suffix in STATE_DICT:
        checkpoints.save(source, out, module=module)
        again: Callable[..., Any] = checkpoints.load(out, limits=limits)
        line = f'from onnxinterp import checkpoints; module = checkpoints.load("{out}")'
    elif out.suffix == TENSORS:
        module.save_safetensors(out)
        again = OnnxModule(source, limits=limits)
        again.load_safetensors(out)
        line = f'module = OnnxModule("{source}"); module.load_safetensors("{out}")'
    else:
        shapes = _export(module, declared, shapes, out)
        again = torch.export.load(out).module()
        line = f'import torch; module = torch.export.load("{out}").module()'
    say(f"wrote {out} ({bytes_text(out.stat().st_size)}); to read it:")
    say(f"  {line}")
    return _compare(options.onnx_path, shapes, again, out)


def _write_onnx(options: argparse.Namespace) -> int:
    """Write the weights of a checkpoint into its graph, and compare the file with the module."""
    source, out = options.onnx_path, options.pytorch_path
    if source.suffix not in STATE_DICT or options.simplify_path:
        raise InputError("an .onnx is written of a .pth or .pt, and as it was")
    module = checkpoints.load(source, limits=options.limits)
    module.save_onnx(out)
    say(f"wrote {out} ({bytes_text(out.stat().st_size)})")
    shapes = shapes_by_name(options.input_shape, declared_inputs(read(out).proto))
    return _compare(out, shapes, module, source)


def _compare(
    original: Path, shapes: Mapping[str, tuple[int, ...]], module: Callable[..., Any], out: Path
) -> int:
    """Compare what was written, read again, with onnxruntime on the original file."""
    values, assumed = prepare(original, None, shapes, 0)
    say_assumed(assumed)
    report = verify_if_installed(original, values, module=module)
    if report is None:
        return 0
    say()
    show_report(report, f"{out.name} against onnxruntime on {original.name}")
    return 0 if report.ok else 1


def _say_simplified(source: Path, target: Path) -> None:
    before, after = simplify(source, target)
    say(f"wrote {target}: {after} nodes, {before} before")


def simplify(source: Path, target: Path) -> tuple[int, int]:
    """Write a model without what only matters to its exporter; the nodes before and after.

    Raises:
        MissingExtraError: onnxoptimizer is not installed.
        ConversionError: onnxoptimizer cannot take the model.
    """
    optimizer = require("onnxoptimizer", "simplify")
    try:
        model = onnx.load(source)
        before = len(model.graph.node)
        _neutralise_dropout(model)
        _spell_constants_as_tensors(model)
        simple = optimizer.optimize(model, list(SIMPLIFICATIONS), fixed_point=True)
        data = simple.SerializeToString()
    except REFUSALS as error:
        raise ConversionError(f"onnxoptimizer cannot simplify {source}: {error}") from error
    atomic_write(target, lambda out: out.write(data))
    return before, len(simple.graph.node)


def _neutralise_dropout(model: onnx.ModelProto) -> None:
    """Make an Identity of each Dropout that passes its input on; onnxoptimizer takes those out.

    Since opset 7 it does, unless an input switches training on or its mask is asked for.
    """
    opset = max((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), default=0)
    for node in model.graph.node:
        plain = (
            node.domain in ("", "ai.onnx") and not any(node.input[2:]) and not any(node.output[1:])
        )
        if node.op_type == "Dropout" and plain and opset >= 7:
            node.op_type = "Identity"
            del node.input[1:], node.output[1:], node.attribute[:]


def _spell_constants_as_tensors(model: onnx.ModelProto) -> None:
    """Give Constant nodes a tensor in place of `value_ints` and its like: onnxoptimizer asks so."""
    for node in model.graph.node:
        attributes = {a.name: a for a in node.attribute}
        for name, dtype in NUMBERS.items():
            if node.op_type == "Constant" and name in attributes:
                numbers = np.array(onnx.helper.get_attribute_value(attributes[name]), dtype)
                value = onnx.helper.make_attribute("value", onnx.numpy_helper.from_array(numbers))
                node.attribute[0].CopyFrom(value)


def _export(
    module: OnnxModule,
    declared: list[ValueInfo],
    given: Mapping[str, tuple[int, ...]],
    out: Path,
) -> dict[str, tuple[int, ...]]:
    """Write a .pt2 whose dynamic sizes stay dynamic, but for inputs with a given shape.

    Returns:
        The shapes it was traced with.
    """
    if strange := [i for i in declared if i.dtype is None]:
        raise InputError(f"torch.export takes tensors only, not {strange[0]}")
    chosen = choose_shapes(declared, given, batch=2)  # a size of 1 would be taken for fixed
    say_assumed(chosen.assumed)
    values = random_inputs(declared, chosen.sizes)
    auto = torch.export.Dim.AUTO
    dynamic = tuple(
        {}
        if i.name in given
        else {axis: auto for axis, dim in enumerate(i.shape or ()) if not isinstance(dim, int)}
        for i in declared
    )
    try:
        program = torch.export.export(module, tuple(values.values()), dynamic_shapes=dynamic)
        file = io.BytesIO()
        torch.export.save(program, file)
    except Exception as error:  # torch.export raises whatever the failing stage raises
        raise ConversionError(f"torch.export cannot capture the model: {error}") from error
    atomic_write(out, lambda part: part.write(file.getbuffer()))
    return chosen.sizes
