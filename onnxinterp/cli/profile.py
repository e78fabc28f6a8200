"""`onnxinterp profile`: where a call of a model spends its time."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import get_args

import torch

from onnxinterp.cli import arguments, model_inputs
from onnxinterp.cli.display import say, table
from onnxinterp.inspection.profile import SLOWEST_NODES, By, Profile
from onnxinterp.module import OnnxModule
from onnxinterp.verify import time_nodes

EXAMPLES = """\
  onnxinterp profile model.onnx
  onnxinterp profile model.onnx --input_shape image:1,3,224,224 --threads 1 --by layer
  onnxinterp profile model.onnx --inputs inputs.npz --onnxruntime --html profile.html"""
TITLES = {
    "operator": "operators",
    "layer": "modules and the nodes outside of them",
    "node": "slowest nodes",
}


def add_to(commands: arguments.Commands) -> None:
    """Declare the command."""
    parser = arguments.add_command(
        commands, "profile", run, "show where a call of a model spends its time", EXAMPLES
    )
    add = parser.add_argument
    model_inputs.add_to(parser)
    positive = arguments.positive_int
    add("--runs", type=positive, default=10, help="number of timed runs, default %(default)s")
    add("--threads", type=positive, help="number of threads, default: as many as torch uses")
    by = "the tables to print, default: operator node"
    add("--by", nargs="+", choices=get_args(By), default=["operator", "node"], help=by)
    first = f"number of nodes to print, default {SLOWEST_NODES}"
    add("--first", type=positive, default=SLOWEST_NODES, metavar="N", help=first)
    reference = "also show the times of the same nodes in onnxruntime, without optimization"
    add("--onnxruntime", action="store_true", help=reference)
    page = "also write a page with a timeline and all tables"
    add("--html", type=Path, metavar="OUT.html", help=page)
    arguments.add_untrusted(parser)


def run(options: argparse.Namespace) -> int:
    """Profile the model; return 0."""
    if options.threads:
        torch.set_num_threads(options.threads)
    values = model_inputs.chosen(options)
    module = OnnxModule(options.model, limits=options.limits)
    runs = options.runs
    reference = time_nodes(options.model, values, runs=runs) if options.onnxruntime else None
    found = module.profile(*values.values(), runs=runs)
    found = found if reference is None else found.beside(reference)
    _show(found, options.by, options.first)
    if options.html:
        found.save_html(options.html)
        say(f"wrote {options.html}")
    return 0


def _show(found: Profile, tables: list[By], first: int) -> None:
    say(found.name, *found.totals())
    for by in tables:
        rows = found.rows(by)[: first if by == "node" else None]
        say()
        table(TITLES[by], found.columns(by), [found.cells(row) for row in rows])
