"""`onnxinterp convert`: a model in another format, loaded again and compared with onnxruntime."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from onnxinterp import deploy
from onnxinterp.cli import arguments
from onnxinterp.cli.display import format_bytes, say
from onnxinterp.cli.verify import show_report
from onnxinterp.deploy.formats import SUFFIXES
from onnxinterp.deploy.origin import open_origin
from onnxinterp.deploy.subject import described
from onnxinterp.errors import InputError

EXAMPLES = """\
  onnxinterp convert model.onnx model.pth
  onnxinterp convert model.onnx model.pt2 --input_shape image:1,3,224,224
  onnxinterp convert model.onnx model.pte --dynamic
  onnxinterp convert model.onnx model.pth --simplify_path simple.onnx
  onnxinterp convert model.onnx newer.onnx --opset 20
  onnxinterp convert tuned.pth tuned.onnx
  onnxinterp convert original.safetensors tuned.onnx --like model.onnx"""


def _epilog() -> str:
    """The examples, and the table of formats."""
    names = [", ".join(f.suffixes) for f in deploy.FORMATS]
    width = max(map(len, names))
    lines = []
    for name, form in zip(names, deploy.FORMATS, strict=True):
        extra = f" (pip install onnxinterp[{form.extra}])" if form.extra else ""
        lines.append(f"  {name:{width}}  {form.summary}{extra}")
        load = form.loading.format(path="OUT", source='module = OnnxModule("MODEL")')
        lines.append(f"  {'':{width}}    {load}")
    return "\n".join([EXAMPLES, "", "formats, and how to load each:", *lines])


def add_to(commands: arguments.Commands) -> None:
    """Declare the command."""
    summary = "convert a model to another format, or back to ONNX, and compare with onnxruntime"
    parser = arguments.add_command(commands, "convert", run, summary, _epilog())
    add = parser.add_argument
    source = "input: an ONNX model, a .pth or .pt file of this command, or with --like any weights"
    target = "output; the suffix selects the format: see the table below"
    for name, spellings, kind, metavar, meaning in (
        ("source", ("--onnx_path", "--onnx-path", "--source"), Path, "SRC", source),
        ("target", ("--pytorch_path", "--pytorch-path", "--output"), _target, "DST", target),
    ):
        one = parser.add_mutually_exclusive_group(required=True)
        one.add_argument(name, nargs="?", type=kind, metavar=metavar, help=meaning)
        same = f"the same as {metavar}"
        one.add_argument(*spellings, dest=f"{name}_", type=kind, metavar=metavar, help=same)
    like = "the ONNX model whose weights a .safetensors or plain .pth file has"
    add("--like", type=Path, metavar="MODEL.onnx", help=like)
    opset = "to .onnx: make a new graph of this opset"
    add("--opset", type=arguments.positive_int, metavar="N", help=opset)
    exporter = (
        "to .onnx: make a new graph by this exporter of torch; default: the first from opset 18"
    )
    add("--exporter", choices=("dynamo", "torchscript"), help=exporter)
    dynamic = (
        "let dimensions vary that the model declares so, although --input_shape has a size for "
        "them or the format (.pte) fixes them by default; sizes of a .pte are the largest then"
    )
    add("--dynamic", action="store_true", help=dynamic)
    _add_simplification(parser)
    arguments.add_input_shape(parser)
    arguments.add_untrusted(parser)


def _add_simplification(parser: argparse.ArgumentParser) -> None:
    simplified = (
        "first simplify the model (no Dropout, Identity and Constant nodes), write it to this file "
        "and convert it; a model with other answers is not written: exit status 1"
    )
    names = ("--simplify_path", "--simplify-path")
    parser.add_argument(*names, type=Path, metavar="OUT.onnx", help=simplified)
    allowed = "with --simplify_path: write and convert a model with other answers, too"
    names = ("--allow_changed_answers", "--allow-changed-answers")
    parser.add_argument(*names, action="store_true", help=allowed)


def _target(string: str) -> Path:
    path = Path(string)
    if path.suffix not in SUFFIXES:
        suffixes = ", ".join(SUFFIXES)
        raise argparse.ArgumentTypeError(f"suffix must be one of {suffixes}, got {string!r}")
    return path


def run(options: argparse.Namespace) -> int:
    """Convert and compare; return 1 if the result differs from onnxruntime, else 0."""
    source = options.source or options.source_
    target = options.target or options.target_
    if options.simplify_path and target.suffix == ".onnx":
        raise InputError("--simplify_path cannot be used when an .onnx is written")
    origin = open_origin(source, options.like, options.limits)
    shapes = arguments.shapes_by_name(options.input_shape, origin.module.inputs)
    if options.simplify_path and not _simplify(source, options, shapes):
        return 1
    found = deploy.convert(
        source,
        target,
        shapes=shapes,
        dynamic=options.dynamic,
        like=options.like,
        opset=options.opset,
        exporter=options.exporter,
        simplified=options.simplify_path,
        limits=options.limits,
    )
    return _show(found)


def _simplify(source: Path, options: argparse.Namespace, shapes: Any) -> bool:
    """Write the simplified model; whether it may be converted."""
    target = options.simplify_path
    if target == source:
        raise InputError("--simplify_path must differ from the input, which it would overwrite")
    try:
        found = deploy.simplify(
            source,
            target,
            shapes=shapes,
            allow_changed_answers=options.allow_changed_answers,
            limits=options.limits,
        )
    except deploy.ChangedAnswersError as error:
        hint = "--allow_changed_answers writes it all the same"
        print(f"onnxinterp: {error}\n{hint}", file=sys.stderr)
        return False
    verdict = f"its answers DIFFER in {found.judge}" if found.changed else f"same in {found.judge}"
    say(f"wrote {target}: {found.after} nodes, {found.before} before; {verdict}")
    return True


def _show(found: deploy.Conversion) -> int:
    """Print what was written, and return the exit status."""
    arguments.say_default_sizes(found.assumed)
    say(f"wrote {found.path} ({format_bytes(found.path.stat().st_size)}); to load it:")
    say(f"  {found.loading}")
    if found.dims:
        say(f"dynamic dimensions: {described(found.dims)}")
    elif found.sizes:
        sizes = ", ".join(f"{name} {list(shape)}" for name, shape in found.sizes.items())
        say(f"all sizes are fixed: {sizes}")
    for report, where in zip(found.reports, ("", ", at other sizes"), strict=False):
        say()
        show_report(report, found.title + where)
    for note in found.notes:
        say(note)
    return 0 if found.ok else 1
