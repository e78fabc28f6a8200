"""`onnxinterp ops`: which operators are served at which versions, read off the dispatch table."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import onnx
from onnx import helper

from onnxinterp.cli.arguments import Commands, add_untrusted, command
from onnxinterp.cli.display import markdown, say, table
from onnxinterp.errors import MissingOp
from onnxinterp.graph.build import build
from onnxinterp.limits import Limits
from onnxinterp.reading.source import read
from onnxinterp.registry import KERNELS, lookup

EXAMPLES = """\
  onnxinterp ops
  onnxinterp ops --markdown > operators.md
  onnxinterp ops --missing model.onnx"""

AI_ONNX = "ai.onnx"
BODY = "function body"  # no kernel, but the schema gives the operator's meaning as nodes


@dataclass(frozen=True)
class Row:
    """One operator: its schema versions by what serves them.

    Attributes:
        domain: as people write it: "ai.onnx", not "".
        op_type: operator name.
        served: schema versions that run.
        missing: schema versions that do not.
        kernels: opsets that have a kernel of their own.
        source: the file of the kernels, or what stands in for one.
    """

    domain: str
    op_type: str
    served: tuple[int, ...]
    missing: tuple[int, ...]
    kernels: tuple[int, ...]
    source: str


def add_to(commands: Commands) -> None:
    """Declare the command."""
    parser = command(commands, "ops", run, "list the operators and versions served", EXAMPLES)
    parser.add_argument(
        "--missing", type=Path, metavar="MODEL", help="only what this model lacks a kernel for"
    )
    add_untrusted(parser)
    parser.add_argument("--markdown", action="store_true", help="print the table in Markdown")


def run(options: argparse.Namespace) -> int:
    """Print the table; with --missing, 1 where the model cannot run."""
    if options.missing:
        return _show_missing(options.missing, options.limits)
    columns = ("operator", "domain", "versions served", "not served", "kernels", "file")
    rows = operators()
    cells = [
        (r.op_type, r.domain, *map(_numbers, (r.served, r.missing, r.kernels)), r.source)
        for r in rows
    ]
    if options.markdown:
        markdown(columns, cells)
        return 0
    table("operators", columns, cells)
    served, known = sum(bool(r.served) for r in rows), len(rows)
    versions = sum(len(r.served) for r in rows), sum(len(r.served + r.missing) for r in rows)
    say(f"{served} of {known} operators, {versions[0]} of {versions[1]} versions")
    return 0


def operators() -> list[Row]:
    """Every operator that has a schema or a kernel, ai.onnx first."""
    versions: dict[tuple[str, str], list[onnx.defs.OpSchema]] = {k: [] for k in KERNELS}
    for schema in onnx.defs.get_all_schemas_with_history():
        domain = "" if schema.domain == AI_ONNX else schema.domain
        if not schema.deprecated:
            versions.setdefault((domain, schema.name), []).append(schema)
    return [_row(*key, versions[key]) for key in sorted(versions)]


def _row(domain: str, op_type: str, schemas: Iterable[onnx.defs.OpSchema]) -> Row:
    kernels = KERNELS.get((domain, op_type), {})
    known = {s.since_version: s for s in schemas}
    by_kernel = {v for v in known if lookup(op_type, v, domain) is not None}
    by_body = {v for v, s in known.items() if v not in by_kernel and _has_runnable_body(s)}
    sources = sorted({_file(k.function.__module__) for k in kernels.values()})
    return Row(
        domain or AI_ONNX,
        op_type,
        tuple(sorted((by_kernel | by_body) if known else set(kernels))),
        tuple(sorted(set(known) - by_kernel - by_body)),
        tuple(sorted(kernels)),
        ", ".join(sources + [BODY] * bool(by_body)),
    )


def _has_runnable_body(schema: onnx.defs.OpSchema) -> bool:
    """Whether the engine opens a node of this operator into nodes that all have kernels."""
    inputs = [f"x{i}" for i in range(len(schema.inputs))]
    outputs = [f"y{i}" for i in range(len(schema.outputs))]
    node = helper.make_node(schema.name, inputs, outputs, domain=schema.domain)
    takes, gives = ([onnx.ValueInfoProto(name=n) for n in names] for names in (inputs, outputs))
    opset = helper.make_opsetid(schema.domain, schema.since_version)
    graph = helper.make_graph([node], "one", takes, gives)
    model = helper.make_model(graph, opset_imports=[opset])
    return all(n.kernel is not None for n in build(model).graph.walk())


def _file(module: str) -> str:
    """`onnxinterp.ops.clip` -> `ops/clip.py`; a module of somebody else's keeps its name."""
    inside = module.removeprefix("onnxinterp.")
    return module if inside == module else inside.replace(".", "/") + ".py"


def _numbers(versions: tuple[int, ...]) -> str:
    return " ".join(map(str, versions))


def missing_operators(path: Path, limits: Limits = Limits()) -> list[MissingOp]:
    """The operators of a model that have no kernel, once each; no weight is read."""
    found: dict[tuple[str, str, int], MissingOp] = {}
    for node in build(read(path, limits).proto, limits=limits).graph.walk():
        if node.kernel is None:
            found.setdefault((node.domain, node.op_type, node.opset), node.missing())
    return list(found.values())


def _show_missing(path: Path, limits: Limits) -> int:
    missing = missing_operators(path, limits)
    if not missing:
        say(f"{path.name}: every operator has a kernel")
        return 0
    show_missing(missing)
    return 1


def show_missing(missing: Iterable[MissingOp]) -> None:
    """Print operators without a kernel, and the line that would register one for each."""
    columns = ("operator", "domain", "opset", "first asked for by", "register with")
    rows = [(m.op_type, m.domain or AI_ONNX, m.opset, m.node, m.registration()) for m in missing]
    table("operators without a kernel", columns, rows)
