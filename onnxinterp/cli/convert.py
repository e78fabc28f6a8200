"""`onnxinterp convert`: ONNX to PyTorch formats or back, and a comparison of the result."""

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
from onnx.checker import ValidationError

from onnxinterp import checkpoints
from onnxinterp.cli import arguments
from onnxinterp.cli.display import format_bytes, say
from onnxinterp.cli.verify import agrees_if_installed
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

how to load the output:
  .pth, .pt     from onnxinterp import checkpoints; module = checkpoints.load("model.pth")
                (torch.load("model.pth", weights_only=True) returns the plain state dict)
  .pt2          import torch; module = torch.export.load("model.pt2").module()
  .safetensors  module = OnnxModule("model.onnx"); module.load_safetensors("model.safetensors")
  .onnx         OnnxModule("tuned.onnx"), onnxruntime, or any other ONNX tool"""

CHECKPOINT_SUFFIXES = (".pth", ".pt")
EXPORT_SUFFIX = ".pt2"
SAFETENSORS_SUFFIX = ".safetensors"
ONNX_SUFFIX = ".onnx"
SUFFIXES = (*CHECKPOINT_SUFFIXES, EXPORT_SUFFIX, SAFETENSORS_SUFFIX, ONNX_SUFFIX)
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
CONSTANT_DTYPES = {
    "value_int": np.int64,
    "value_ints": np.int64,
    "value_float": np.float32,
    "value_floats": np.float32,
}
SIMPLIFY_ERRORS = (RuntimeError, ValueError, AttributeError, EncodeError, ValidationError)
"""Errors of onnxoptimizer and onnx for a model that is too new, too large or incomplete."""


class ConversionError(OnnxError, RuntimeError):
    """The model loads, but cannot be written in the requested format."""


def add_to(commands: arguments.Commands) -> None:
    """Declare the command."""
    summary = "convert an ONNX model to a PyTorch file or back, and compare with onnxruntime"
    parser = arguments.add_command(commands, "convert", run, summary, EXAMPLES)
    add = parser.add_argument
    source = "input: an ONNX model, or a .pth or .pt file of this command to convert back to ONNX"
    source_names = ("--onnx_path", "--onnx-path", "--source")
    add(*source_names, type=Path, required=True, metavar="MODEL", help=source)
    target = (
        "output; the suffix selects the format: .pth or .pt (state dict and graph), .pt2 "
        "(torch.export), .safetensors (weights only), .onnx (a .pth back to ONNX, into the "
        "original graph)"
    )
    target_names = ("--pytorch_path", "--pytorch-path", "--output")
    add(*target_names, type=_output_path, required=True, metavar="OUT", help=target)
    simplified = (
        "first simplify the model (no Dropout, Identity and Constant nodes), write it to this file "
        "and convert it"
    )
    simplified_names = ("--simplify_path", "--simplify-path")
    add(*simplified_names, type=Path, metavar="OUT.onnx", help=simplified)
    arguments.add_input_shape(parser)
    arguments.add_untrusted(parser)


def _output_path(string: str) -> Path:
    path = Path(string)
    if path.suffix not in SUFFIXES:
        suffixes = ", ".join(SUFFIXES)
        raise argparse.ArgumentTypeError(f"suffix must be one of {suffixes}, got {string!r}")
    return path


def run(options: argparse.Namespace) -> int:
    """Convert and compare; return 1 if the result differs from onnxruntime, else 0."""
    source, out, limits = options.onnx_path, options.pytorch_path, options.limits
    if out.suffix == ONNX_SUFFIX:
        return _write_onnx(options)
    declared = declared_inputs(read(source, limits).proto)
    shapes = arguments.shapes_by_name(options.input_shape, declared)
    if options.simplify_path == source:
        raise InputError("--simplify_path must differ from the input, which it would overwrite")
    if options.simplify_path:
        before, after = simplify(source, options.simplify_path)
        say(f"wrote {options.simplify_path}: {after} nodes, {before} before")
        source = options.simplify_path
    module = OnnxModule(source, limits=limits)
    if out.suffix in CHECKPOINT_SUFFIXES:
        checkpoints.save(source, out, module=module)
        again: Callable[..., Any] = checkpoints.load(out, limits=limits)
        line = f'from onnxinterp import checkpoints; module = checkpoints.load("{out}")'
    elif out.suffix == SAFETENSORS_SUFFIX:
        module.save_safetensors(out)
        again = OnnxModule(source, limits=limits)
        again.load_safetensors(out)
        line = f'module = OnnxModule("{source}"); module.load_safetensors("{out}")'
    else:
        shapes = _export(module, declared, shapes, out)
        again = torch.export.load(out).module()
        line = f'import torch; module = torch.export.load("{out}").module()'
    say(f"wrote {out} ({format_bytes(out.stat().st_size)}); to load it:")
    say(f"  {line}")
    return _compare(options.onnx_path, shapes, again, out)


def _write_onnx(options: argparse.Namespace) -> int:
    """Write a checkpoint as an ONNX model, and compare the file with the module."""
    source, out = options.onnx_path, options.pytorch_path
    if source.suffix not in CHECKPOINT_SUFFIXES:
        raise InputError(f"the input must be a .pth or .pt file to write an .onnx, got {source}")
    if options.simplify_path:
        raise InputError("--simplify_path cannot be used when an .onnx is written")
    module = checkpoints.load(source, limits=options.limits)
    module.save_onnx(out)
    say(f"wrote {out} ({format_bytes(out.stat().st_size)})")
    declared = declared_inputs(read(out).proto)
    shapes = arguments.shapes_by_name(options.input_shape, declared)
    return _compare(out, shapes, module, source)


def _compare(
    original: Path, shapes: Mapping[str, tuple[int, ...]], module: Callable[..., Any], out: Path
) -> int:
    """Compare the module, loaded from the output, with onnxruntime on the original model."""
    values, defaults = prepare(original, None, shapes, 0)
    arguments.say_default_sizes(defaults)
    title = f"{out.name} against onnxruntime on {original.name}"
    return 0 if agrees_if_installed(original, values, title, module=module) else 1


def simplify(source: Path, target: Path) -> tuple[int, int]:
    """Write a simplified model and return the number of nodes before and after.

    Raises:
        MissingExtraError: onnxoptimizer is not installed.
        ConversionError: onnxoptimizer does not support the model.
    """
    optimizer = require("onnxoptimizer", "simplify")
    try:
        model = onnx.load(source)
        before = len(model.graph.node)
        _replace_dropout(model)
        _convert_constants(model)
        simple = optimizer.optimize(model, list(SIMPLIFICATIONS), fixed_point=True)
        data = simple.SerializeToString()
    except SIMPLIFY_ERRORS as error:
        raise ConversionError(f"onnxoptimizer cannot simplify {source}: {error}") from error
    atomic_write(target, lambda out: out.write(data))
    return before, len(simple.graph.node)


def _replace_dropout(model: onnx.ModelProto) -> None:
    """Replace each Dropout that returns its input by an Identity, which onnxoptimizer removes.

    Since opset 7 it does, unless an input enables training mode or the mask output is used.
    """
    opset = max((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), default=0)
    for node in model.graph.node:
        is_dropout = node.op_type == "Dropout" and node.domain in ("", "ai.onnx")
        if is_dropout and opset >= 7 and not any((*node.input[2:], *node.output[1:])):
            node.op_type = "Identity"
            del node.input[1:], node.output[1:], node.attribute[:]


def _convert_constants(model: onnx.ModelProto) -> None:
    """Replace `value_ints` and the like by a tensor, which onnxoptimizer requires."""
    constants = (node for node in model.graph.node if node.op_type == "Constant")
    for attribute in (a for node in constants for a in node.attribute):
        if dtype := CONSTANT_DTYPES.get(attribute.name):
            numbers = np.array(onnx.helper.get_attribute_value(attribute), dtype)
            value = onnx.helper.make_attribute("value", onnx.numpy_helper.from_array(numbers))
            attribute.CopyFrom(value)


def _export(
    module: OnnxModule,
    inputs: list[ValueInfo],
    shapes: Mapping[str, tuple[int, ...]],
    out: Path,
) -> dict[str, tuple[int, ...]]:
    """Write a .pt2; dynamic dimensions stay dynamic, except in inputs that `shapes` names.

    Returns:
        The input shapes of the export.
    """
    if others := [i for i in inputs if i.dtype is None]:
        raise InputError(f"inputs must be tensors for torch.export, got {others[0]}")
    chosen = choose_shapes(inputs, shapes, batch=2)  # torch.export specializes a size of 1
    arguments.say_default_sizes(chosen.assumed)
    values = random_inputs(inputs, chosen.sizes)
    auto = torch.export.Dim.AUTO
    declared = [chosen.sizes[i.name] if i.name in shapes else i.shape or () for i in inputs]
    dynamic = tuple(
        {axis: auto for axis, dim in enumerate(sizes) if not isinstance(dim, int)}
        for sizes in declared
    )
    try:
        program = torch.export.export(module, tuple(values.values()), dynamic_shapes=dynamic)
        file = io.BytesIO()
        torch.export.save(program, file)
    except Exception as error:  # each stage of torch.export raises its own errors
        raise ConversionError(f"torch.export cannot capture the model: {error}") from error
    atomic_write(out, lambda part: part.write(file.getbuffer()))
    return chosen.sizes
