"""`onnxinterp ops`: the supported operators and versions, read from the kernel registry."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import onnx
from onnx import helper

from onnxinterp.cli.arguments import Commands, add_command, add_untrusted
from onnxinterp.cli.display import markdown, say, table
from onnxinterp.errors import MissingOp
from onnxinterp.graph.build import build
from onnxinterp.graph.ir import Model, Node
from onnxinterp.limits import Limits
from onnxinterp.reading.source import read
from onnxinterp.registry import KERNELS, lookup
from onnxinterp.schemas import all_schemas

EXAMPLES = """\
  onnxinterp ops
  onnxinterp ops --markdown > operators.md
  onnxinterp ops --missing model.onnx"""

AI_ONNX = "ai.onnx"
BODY = "function body"  # no kernel, but the schema defines the operator as a function


@dataclass(frozen=True)
class Row:
    """One operator and its versions.

    Attributes:
        domain: the domain; "ai.onnx" for the default domain.
        op_type: the operator name.
        supported: supported schema versions.
        missing: schema versions without a kernel or a function body that runs.
        kernels: versions that have their own kernel.
        source: the file of the kernels, or "function body".
    """

    domain: str
    op_type: str
    supported: tuple[int, ...]
    missing: tuple[int, ...]
    kernels: tuple[int, ...]
    source: str


def add_to(commands: Commands) -> None:
    """Declare the command."""
    summary = "list the supported operators and versions"
    parser = add_command(commands, "ops", run, summary, EXAMPLES)
    missing = "list the operators of this model that have no kernel"
    parser.add_argument("--missing", type=Path, metavar="MODEL", help=missing)
    add_untrusted(parser)
    parser.add_argument("--markdown", action="store_true", help="print the table as Markdown")


def run(options: argparse.Namespace) -> int:
    """Print the table; with --missing, return 1 if an operator of the model has no kernel."""
    if options.missing:
        return _show_missing(options.missing, options.limits)
    columns = ("operator", "domain", "supported versions", "missing versions", "kernels", "file")
    rows = operators()
    cells = [
        (r.op_type, r.domain, *map(_numbers, (r.supported, r.missing, r.kernels)), r.source)
        for r in rows
    ]
    if options.markdown:
        markdown(columns, cells)
        return 0
    table("operators", columns, cells)
    supported = sum(bool(r.supported) for r in rows)
    versions = sum(len(r.supported) for r in rows)
    total = versions + sum(len(r.missing) for r in rows)
    say(f"{supported} of {len(rows)} operators, {versions} of {total} versions")
    return 0


def operators() -> list[Row]:
    """Return all operators that have a schema or a kernel, ai.onnx first."""
    versions: dict[tuple[str, str], list[onnx.defs.OpSchema]] = {k: [] for k in KERNELS}
    for schema in all_schemas():
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
    """Whether this operator's function body has only nodes with kernels."""
    inputs = [f"x{i}" for i in range(len(schema.inputs))]
    outputs = [f"y{i}" for i in range(len(schema.outputs))]
    node = helper.make_node(schema.name, inputs, outputs, domain=schema.domain)
    inputs_info, outputs_info = (
        [onnx.ValueInfoProto(name=n) for n in names] for names in (inputs, outputs)
    )
    opset = helper.make_opsetid(schema.domain, schema.since_version)
    graph = helper.make_graph([node], "one", inputs_info, outputs_info)
    model = helper.make_model(graph, opset_imports=[opset])
    return all(n.kernel is not None for n in build(model).graph.walk())


def _file(module: str) -> str:
    """`onnxinterp.ops.clip` -> `ops/clip.py`; other modules keep their names."""
    inside = module.removeprefix("onnxinterp.")
    return module if inside == module else inside.replace(".", "/") + ".py"


def _numbers(versions: tuple[int, ...]) -> str:
    return " ".join(map(str, versions))


def missing_operators(path: Path, limits: Limits = Limits()) -> list[MissingOp]:
    """Return the operators of a model that have no kernel, once each; weights are not read."""
    used = nodes_by_operator(build(read(path, limits).proto, limits=limits))
    return [nodes[0].missing() for nodes in used.values() if nodes[0].kernel is None]


def nodes_by_operator(model: Model) -> dict[tuple[str, str, int], list[Node]]:
    """Return the nodes of each (domain, operator, opset), in the order of the graph."""
    found: dict[tuple[str, str, int], list[Node]] = {}
    for node in model.graph.walk():
        found.setdefault((node.domain or AI_ONNX, node.op_type, node.opset), []).append(node)
    return found


def _show_missing(path: Path, limits: Limits) -> int:
    missing = missing_operators(path, limits)
    if not missing:
        say(f"{path.name}: every operator has a kernel")
        return 0
    show_missing(missing)
    return 1


def show_missing(missing: Iterable[MissingOp]) -> None:
    """Print operators without a kernel, and the decorator that would register one."""
    columns = ("operator", "domain", "opset", "first node", "register with")
    rows = [(m.op_type, m.domain or AI_ONNX, m.opset, m.node, m.registration()) for m in missing]
    table("operators without a kernel", columns, rows)
