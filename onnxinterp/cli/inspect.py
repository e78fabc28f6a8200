"""`onnxinterp inspect`: what is in a model, without running it and without reading its weights."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import onnx
import torch
from onnx import TensorProto

from onnxinterp.cli.arguments import Commands, add_command, add_untrusted
from onnxinterp.cli.display import format_bytes, say, table
from onnxinterp.cli.ops import AI_ONNX, show_missing
from onnxinterp.dtypes import CARRIER, onnx_name
from onnxinterp.errors import InvalidModelError, MissingOp
from onnxinterp.graph.build import build
from onnxinterp.graph.ir import Holder, Model, Node
from onnxinterp.reading.source import read
from onnxinterp.weights import parameters

EXAMPLES = """\
  onnxinterp inspect model.onnx
  onnxinterp inspect model.onnx --weights"""

FOUR_BITS = (TensorProto.INT4, TensorProto.UINT4, TensorProto.FLOAT4E2M1)


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
        """The size of its data; of strings, 0."""
        carrier = CARRIER.get(self.elem_type)
        if carrier is None:
            return 0
        return -(-self.count // 2) if self.elem_type in FOUR_BITS else self.count * carrier.itemsize


def add_to(commands: Commands) -> None:
    """Declare the command."""
    parser = add_command(
        commands, "inspect", run, "show inputs, outputs, operators and weights of a model", EXAMPLES
    )
    parser.add_argument("model", type=Path, help="ONNX file")
    add_untrusted(parser)
    parser.add_argument("--weights", action="store_true", help="list every weight")


def run(options: argparse.Namespace) -> int:
    """Print what the file holds; 1 where an operator has no kernel."""
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
        say("what trains is known for sure once every operator has a kernel")
    return 1 if missing else 0


def weights_of(model: Model) -> list[Weight]:
    """Every tensor of a model that its graph uses, described by its header alone."""
    used = {*model.graph.captures, *(i.name for i in model.graph.inputs)}
    headers = {n: _header(t) for n, t in model.tensors.items() if n in used}
    shells = {
        name: torch.empty(shape, dtype=CARRIER[kind], device="meta")
        for name, (kind, shape) in headers.items()
        if kind in CARRIER
    }
    trains: Mapping[str, torch.Tensor] = parameters(shells, model.graph, "weights")
    return [
        Weight(name, kind, shape, name in trains and trains[name].requires_grad)
        for name, (kind, shape) in headers.items()
    ]


SCALARS = {
    "value_float": TensorProto.FLOAT,
    "value_int": TensorProto.INT64,
    "value_string": TensorProto.STRING,
}
"""Attributes of Constant besides tensors -> element type; with an s behind, a list of them."""


def _header(stored: Holder) -> tuple[int, tuple[int, ...]]:
    """Element type and shape; a sparse tensor counts as the dense one it stands for."""
    if isinstance(stored, TensorProto):
        return stored.data_type, tuple(stored.dims)
    if isinstance(stored, onnx.SparseTensorProto):
        return stored.values.data_type, tuple(stored.dims)
    if isinstance(stored, onnx.AttributeProto):
        return TensorProto.FLOAT, (len(stored.floats),)
    if len(stored.attributes) != 1:
        what = f"node {stored.name!r} ({stored.op_type})"
        raise InvalidModelError(f"{what} has {len(stored.attributes)} values, not one")
    (name, value), *_ = stored.attributes.items()
    if isinstance(value, (TensorProto, onnx.SparseTensorProto)):
        return _header(value)
    if name in SCALARS:
        return SCALARS[name], ()
    return SCALARS.get(name.removesuffix("s"), TensorProto.UNDEFINED), (len(value),)


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
    """Print every operator with the kernel that serves it; what has none, once each."""
    count: Counter[tuple[str, str, int]] = Counter()
    first: dict[tuple[str, str, int], Node] = {}
    for node in model.graph.walk():
        key = (node.domain or AI_ONNX, node.op_type, node.opset)
        count[key] += 1
        first.setdefault(key, node)
    rows = []
    for (domain, op_type, opset), times in sorted(count.items()):
        kernel = first[domain, op_type, opset].kernel
        served = "MISSING" if kernel is None else f"{op_type}-{kernel.since}"
        rows.append((op_type, domain, times, opset, served))
    table("operators", ("operator", "domain", "nodes", "opset", "served by"), rows)
    return [node.missing() for node in first.values() if node.kernel is None]
