"""`onnxinterp verify`: compare the outputs of a model with those of onnxruntime."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from onnxinterp.cli import arguments, model_inputs
from onnxinterp.cli.display import say, table
from onnxinterp.errors import InputError
from onnxinterp.extras import MissingExtraError
from onnxinterp.format.atomic import atomic_write
from onnxinterp.module import OnnxModule
from onnxinterp.reading.source import Source, serialized
from onnxinterp.verify import Comparison, NodeReport, Report, Tolerance, isolate, trace
from onnxinterp.verify import verify as verify_model
from onnxinterp.verify.report import Inputs

EXAMPLES = """\
  onnxinterp verify model.onnx
  onnxinterp verify model.onnx --inputs inputs.npz --rtol 1e-4
  onnxinterp verify model.onnx --input_shape ids:1,12 mask:1,12
  onnxinterp verify model.onnx --per-node --submodel smallest.onnx"""


def add_to(commands: arguments.Commands) -> None:
    """Declare the command."""
    parser = arguments.add_command(
        commands, "verify", run, "compare the outputs of a model with onnxruntime", EXAMPLES
    )
    default = Tolerance()
    add = parser.add_argument
    model_inputs.add_to(parser)
    for option, value, meaning in (
        ("--rtol", default.rtol, "relative tolerance"),
        ("--atol", default.atol, "absolute tolerance"),
        ("--mse", default.mse, "maximum mean squared error"),
    ):
        add(option, type=float, default=value, help=f"{meaning}, default %(default)s")
    add("--unoptimized", action="store_true", help="leave out onnxruntime's optimised runs")
    arguments.add_untrusted(parser)
    per_node = "compare every node and show the first that differs; exit status 1 if one differs"
    add("--per-node", action="store_true", help=per_node)
    submodel = (
        "with --per-node: write the smallest model that reproduces the difference, and its inputs "
        "as OUT.npz"
    )
    add("--submodel", type=Path, metavar="OUT.onnx", help=submodel)


def run(options: argparse.Namespace) -> int:
    """Compare the model with onnxruntime; return 0 if all values agree, else 1."""
    if options.submodel and not options.per_node:
        raise InputError("--submodel requires --per-node")
    values = model_inputs.chosen(options)
    report = verify_model(
        options.model,
        values,
        rtol=options.rtol,
        atol=options.atol,
        mse=options.mse,
        optimize=not options.unoptimized,
        module=OnnxModule(options.model, limits=options.limits),
    )
    show_report(report, f"{options.model.name} against onnxruntime")
    nodes_ok = not options.per_node or _per_node(options.model, report, options.submodel)
    return 0 if report.ok and nodes_ok else 1


def verify_if_installed(source: Source, inputs: Inputs, **options: Any) -> Report | None:
    """Call `onnxinterp.verify.verify`; print a message and return None without onnxruntime."""
    try:
        return verify_model(source, inputs, **options)
    except MissingExtraError as error:
        say(f"not compared: {error}")
        return None


def agrees_if_installed(source: Path, inputs: Inputs, title: str, **options: Any) -> bool:
    """Compare, show the report and return the verdict; True if onnxruntime is not installed."""
    report = verify_if_installed(source, inputs, **options)
    if report is not None:
        say()
        show_report(report, title)
    return report is None or report.ok


def show_report(report: Report, title: str) -> None:
    """Print the comparison of all outputs and the verdict."""
    columns = ("output", "type", "shape", "MSE", "max abs", "max ULP", "verdict")
    table(title, columns, _rows(report.outputs))
    limit = report.tolerance
    bounds = f"MSE < {limit.mse:g}, rtol {limit.rtol:g}, atol {limit.atol:g}"
    say(f"{'agrees' if report.ok else 'DIFFERS'} ({bounds})")
    for note in report.notes:
        say(f"note: {note}")


def _rows(comparisons: Sequence[Comparison]) -> list[tuple[str, ...]]:
    return [
        (
            c.name,
            c.dtype,
            "x".join(map(str, c.shape)) or "scalar",
            f"{c.mse:.3g}",
            f"{c.max_abs:.3g}",
            "" if c.max_ulp is None else f"{c.max_ulp:.4g}",
            "ok" if c.ok else c.problem or "differs",
        )
        for c in comparisons
    ]


def _per_node(model: Path, report: Report, submodel: Path | None) -> bool:
    """Compare all nodes, show the first that differs, and return whether all agree."""
    reports = trace(model, report.inputs, tolerance=report.tolerance)
    first = next((r for r in reports if not r.ok), None)
    say()
    if first is None:
        worst = max((c for r in reports for c in r.outputs), key=lambda c: c.mse, default=None)
        detail = f"; largest MSE {worst.mse:.3g} at {worst.name!r}" if worst else ""
        say(f"all {len(reports)} nodes agree{detail}")
        return True
    _show_first(first, reports)
    if submodel is not None:
        _write_submodel(model, report, first, submodel)
    return False


def _show_first(first: NodeReport, reports: list[NodeReport]) -> None:
    nearby = reports[max(0, first.index - 2) : first.index + 2]
    rows = [
        (r.index + 1, r.op_type, *(row[i] for i in (0, 3, 4, 5, 6)))
        for r in nearby
        for row in _rows(r.outputs)
    ]
    columns = ("node", "operator", "value", "MSE", "max abs", "max ULP", "verdict")
    count = len(reports)
    where = f"node {first.index + 1} of {count}: {first.op_type} {first.name!r}"
    table(f"first difference at {where}", columns, rows)


def _write_submodel(model: Path, report: Report, first: NodeReport, out: Path) -> None:
    part = isolate(model, report.inputs, first, tolerance=report.tolerance)
    atomic_write(out, lambda file: file.write(serialized(part.model)))
    inputs = out.with_suffix(".npz")
    arrays = {k: _array(k, v) for k, v in part.inputs.items()}
    atomic_write(inputs, lambda file: np.savez(file, allow_pickle=False, **arrays))
    nodes = "1 node" if part.nodes == 1 else f"{part.nodes} nodes"
    verb = "does not reproduce" if part.report.ok else "reproduces"
    say(f"wrote {out} ({nodes}) and {inputs}; this model {verb} the difference:")
    say(f"  onnxinterp verify {out} --inputs {inputs} --unoptimized")


def _array(name: str, value: Any) -> np.ndarray[Any, Any]:
    """Convert a value for .npz: dtypes that numpy lacks to float32, strings to `str` arrays."""
    if isinstance(value, Tensor):
        narrow = value.is_floating_point() and value.dtype.itemsize <= 2
        wide = value.float() if narrow and value.dtype != torch.float16 else value
        array: np.ndarray[Any, Any] = wide.numpy(force=True)
        return array
    if isinstance(value, np.ndarray):
        return value.astype(str)
    raise InputError(f"input {name!r} must be a tensor to be saved as .npz, got a sequence")
