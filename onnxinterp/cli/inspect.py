"""`onnxinterp inspect`: what a model contains, without running it or reading external data."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from onnx import SparseTensorProto, TensorProto

from onnxinterp.cli.arguments import Commands, add_command, add_untrusted
from onnxinterp.cli.display import format_bytes, say, table
from onnxinterp.cli.ops import AI_ONNX, nodes_by_operator, show_missing
from onnxinterp.dtypes import CARRIER, onnx_name
from onnxinterp.errors import MissingOp
from onnxinterp.format.tensor_checks import raw_bytes
from onnxinterp.format.tensor_reader import TensorReader
from onnxinterp.graph.adoption import adopt, rewrite
from onnxinterp.graph.build import build
from onnxinterp.graph.ir import Holder, Model, Node
from onnxinterp.graph.ties import untie_weights
from onnxinterp.graph.types import infer_types, type_of
from onnxinterp.reading.source import read
from onnxinterp.weights.loading import header, read_tensor
from onnxinterp.weights.trainable import (
    UNKNOWN_RANGE,
    Range,
    choose_parameters,
    trained,
    value_range,
)

EXAMPLES = """\
  onnxinterp inspect model.onnx
  onnxinterp inspect model.onnx --weights"""


@dataclass(frozen=True)
class Weight:
    """One tensor of a model.

    Attributes:
        name: the ONNX name.
        elem_type: the ONNX number of its type.
        shape: its sizes.
        trains: whether it trains by default.
    """

    name: str
    elem_type: int
    shape: tuple[int, ...]
    trains: bool

    @property
    def count(self) -> int:
        """The number of elements."""
        return torch.Size(self.shape).numel()

    @property
    def bytes(self) -> int:
        """The size of its data in the file; 0 for strings."""
        return raw_bytes(self.elem_type, self.count)


def add_to(commands: Commands) -> None:
    """Declare the command."""
    parser = add_command(
        commands, "inspect", run, "show inputs, outputs, operators and weights of a model", EXAMPLES
    )
    parser.add_argument("model", type=Path, help="ONNX file")
    add_untrusted(parser)
    parser.add_argument("--weights", action="store_true", help="list every weight")


def run(options: argparse.Namespace) -> int:
    """Print what the file contains; 1 if an operator has no kernel."""
    model = build(read(options.model, options.limits).proto, limits=options.limits)
    weights = weights_of(model)
    _show_summary(options.model, model, weights)
    _show_values(model)
    missing = _show_operators(model)
    if options.weights:
        rows = [
            (w.name, onnx_name(w.elem_type), _shape(w.shape), w.bytes, "yes" if w.trains else "no")
            for w in weights
        ]
        table("weights", ("name", "type", "shape", "bytes", "trains"), rows)
    if missing:
        show_missing(missing)
        say("which weights train is certain only if every operator has a kernel")
    return 1 if missing else 0


def weights_of(model: Model) -> list[Weight]:
    """Every weight of the module that `OnnxModule` makes of a model; reads no external data.

    Whether external data is finite is not known; it counts as finite. Nor is it known whether it is
    equal to other data: then the module may have fewer parameters.
    """
    model = untie_weights(model, True)
    graph = model.graph.pruned(model.infos(None))
    used = {*graph.captures, *(i.name for i in graph.inputs)}
    headers = {n: _header(stored) for n, stored in model.tensors.items() if n in used}
    shells = {
        name: torch.empty(shape, dtype=CARRIER[kind], device="meta")
        for name, (kind, shape) in headers.items()
        if kind in CARRIER
    }

    def value_of(name: str) -> torch.Tensor | None:
        if _is_external(model.tensors[name]):
            return None
        value = read_tensor(model.tensors[name], TensorReader(None))
        assert isinstance(value, torch.Tensor), "strings have no carrier"
        return value

    adoption = adopt(model, graph, shells, cache(value_of))
    graph, shells = rewrite(graph, adoption), adoption.weights(shells)
    origins = adoption.origins()
    kinds = {name: headers[origin][0] for name, origin in origins.items()}

    def range_of(name: str) -> Range:
        value = value_of(origins[name])
        return UNKNOWN_RANGE if value is None else value_range(value)

    strings = {n: kind for n, (kind, _) in headers.items() if n not in adoption.stored}
    types = infer_types(graph, kinds | strings)
    trains = trained(
        choose_parameters(model, graph, shells, types, range_of=range_of), adoption.tied
    )
    weights = {n: (kinds[n], tuple(t.shape)) for n, t in shells.items()}
    weights |= {n: headers[n] for n in strings}
    first = adoption.tied.get
    return [
        Weight(n, k, shape, trains.get(first(n, n), False)) for n, (k, shape) in weights.items()
    ]


def _is_external(stored: Holder) -> bool:
    held = stored.attributes.values() if isinstance(stored, Node) else (stored,)
    tensors = [t.values if isinstance(t, SparseTensorProto) else t for t in held]
    external = TensorProto.EXTERNAL
    return any(isinstance(t, TensorProto) and t.data_location == external for t in tensors)


def _header(stored: Holder) -> tuple[int, tuple[int, ...]]:
    """Element type and shape, also of a node that has numbers or strings."""
    elem_type, shape = header(stored)
    if elem_type or not isinstance(stored, Node):
        return elem_type, shape
    value = read_tensor(stored, TensorReader(None))
    return type_of(value), tuple(value.shape)


def _show_summary(path: Path, model: Model, weights: list[Weight]) -> None:
    opsets = ", ".join(f"{d or AI_ONNX} {v}" for d, v in model.opset_imports.items())
    training = [w for w in weights if w.trains]
    rows = [
        ("file", f"{path.name}, {format_bytes(path.stat().st_size)}"),
        ("producer", model.producer or "unknown"),
        ("IR version", str(model.ir_version)),
        ("opsets", opsets),
        ("nodes", str(sum(1 for _ in model.graph.walk()))),
        ("weights", _summary(weights)),
        ("that train", _summary(training)),
        *((f"metadata {k}", v) for k, v in model.metadata.items()),
    ]
    table(model.graph.name or path.stem, ("", ""), rows)


def _summary(weights: list[Weight]) -> str:
    count, size = sum(w.count for w in weights), sum(w.bytes for w in weights)
    return f"{len(weights)} tensors, {count:,} elements, {format_bytes(size)}"


def _shape(shape: tuple[int | str | None, ...] | None) -> str:
    if shape is None:
        return "any"
    return " x ".join("?" if d is None else str(d) for d in shape) or "scalar"


def _show_values(model: Model) -> None:
    rows = [
        (role, v.name, v.type_text, _shape(v.shape) if v.kind == "tensor" else "")
        for role, values in (("input", model.graph.inputs), ("output", model.graph.outputs))
        for v in values
        if v.name not in model.tensors
    ]
    table("inputs and outputs", ("", "name", "type", "shape"), rows)


def _show_operators(model: Model) -> list[MissingOp]:
    """Print every operator with its kernel; return those without one, once each."""
    used, rows = nodes_by_operator(model), []
    for domain, op_type, opset in sorted(used):
        nodes = used[domain, op_type, opset]
        kernel = nodes[0].kernel
        served = "MISSING" if kernel is None else f"{op_type}-{kernel.since}"
        rows.append((op_type, domain, len(nodes), opset, served))
    table("operators", ("operator", "domain", "nodes", "opset", "supported by"), rows)
    return [nodes[0].missing() for nodes in used.values() if nodes[0].kernel is None]
