"""Low-rank adapters beside packed weights: nodes of the graph, which any runtime executes.

    y = MatMulNBits(x, W)     becomes     y = MatMulNBits(x, W) + (x @ A) @ B

W stays packed; only A and B train (Hu et al., 2021, arXiv:2106.09685; over 4-bit weights: Dettmers
et al., 2023, arXiv:2305.14314). `OnnxModule.add_lora` adapts float weights; it changes the weights
that a call computes with, which a packed weight cannot be.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import onnx
import torch
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper
from torch import Tensor

from onnxinterp.ops.contrib.packed_products import mat_mul_n_bits
from onnxinterp.patterns import Names, select
from onnxinterp.schemas import MICROSOFT

DOWN, UP = ".lora_A", ".lora_B"
NO_MATCH = "names must match the packed weight of a MatMulNBits"


def add_packed_lora(model: ModelProto, rank: int, names: Names = "*") -> ModelProto:
    """Return a model with an adapter for each MatMulNBits of the main graph.

    The outputs do not change: B is zero. The adapter of a weight `W` is `W.lora_A` [K, rank] and
    `W.lora_B` [rank, N], float32 initializers; pass `trainable="*.lora_?"` to `OnnxModule` to train
    them alone. A starts as in `OnnxModule.add_lora`, from torch's random generator. Nodes that read
    one weight share its adapter.

    Args:
        model: it is not changed.
        rank: of the adapters.
        names: of the packed weights to adapt: a pattern or several (`fnmatch`), or a predicate of
            the name.

    Raises:
        ValueError: the rank is not positive, or a pattern matches no packed weight.
    """
    if rank < 1:
        raise ValueError(f"rank must be positive, got {rank}")
    adapted = ModelProto()
    adapted.CopyFrom(model)
    graph = adapted.graph
    held = {t.name: t for t in graph.initializer}
    nodes = [n for n in graph.node if _is_packed(n) and n.input[1] in held]
    chosen = set(select(names, dict.fromkeys(n.input[1] for n in nodes), NO_MATCH))
    added: dict[str, None] = {}
    result: list[NodeProto] = []
    for node in graph.node:
        result.append(node)
        if _is_packed(node) and node.input[1] in chosen:
            if node.input[1] not in added:
                graph.initializer.extend(_initial(node, held, rank))
                added[node.input[1]] = None
            result += _with_adapter(node)
    _replace(graph.node, result)
    return adapted


def merge_packed_lora(model: ModelProto) -> ModelProto:
    """Return a model where each adapted MatMulNBits is a MatMul with the float32 sum W + A @ B.

    Args:
        model: has adapters of `add_packed_lora`, usually trained ones; it is not changed.

    Raises:
        ValueError: it has none.
    """
    merged = ModelProto()
    merged.CopyFrom(model)
    graph = merged.graph
    tensors = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
    producers = {o: n for n in graph.node for o in n.output}
    sums: dict[str, TensorProto] = {}
    replaced: dict[str, list[NodeProto]] = {}
    for node in graph.node:
        up = producers.get(node.input[1]) if node.op_type == "Add" else None
        if up is None or not up.input[-1].endswith(UP) or up.input[-1] not in tensors:
            continue
        down, base = producers[up.input[0]], producers[node.input[0]]
        name = base.input[1] + ".merged"
        if name not in sums:
            pair = tensors[down.input[1]], tensors[up.input[1]]
            a, b = (torch.from_numpy(t.copy()).double() for t in pair)
            given = {i: torch.from_numpy(tensors[i].copy()) for i in base.input[1:5] if i}
            value = (_dequantized(base, given).double() + a @ b).float()
            sums[name] = numpy_helper.from_array(value.numpy(), name)
        bias = base.input[5] if len(base.input) > 5 else ""
        product = f"{node.output[0]}.product" if bias else node.output[0]
        new = [helper.make_node("MatMul", [base.input[0], name], [product])]
        if bias:
            new.append(helper.make_node("Add", [product, bias], list(node.output)))
        replaced.update({base.output[0]: new, down.output[0]: [], up.output[0]: []})
        replaced[node.output[0]] = []
    if not sums:
        raise ValueError("model must have adapters of add_packed_lora")
    _replace(graph.node, [n for node in graph.node for n in replaced.get(node.output[0], [node])])
    graph.initializer.extend(sums.values())
    _prune(graph)
    return merged


def _is_packed(node: NodeProto) -> bool:
    return (node.domain, node.op_type) == (MICROSOFT, "MatMulNBits")


def _size(node: NodeProto) -> tuple[int, int]:
    """The number of columns (K) and rows (N) of the packed matrix."""
    numbers = {a.name: a.i for a in node.attribute}
    return numbers["K"], numbers["N"]


def _initial(node: NodeProto, held: dict[str, TensorProto], rank: int) -> list[TensorProto]:
    """A and B of a weight, in the type of its scales."""
    columns, rows = _size(node)
    scales = held.get(node.input[2])
    kind = helper.tensor_dtype_to_np_dtype(scales.data_type if scales else TensorProto.FLOAT)
    bound = 1 / math.sqrt(columns)
    a = torch.empty(columns, rank).uniform_(-bound, bound).numpy().astype(kind)
    b = torch.zeros(rank, rows).numpy().astype(kind)
    name = node.input[1]
    return [numpy_helper.from_array(a, name + DOWN), numpy_helper.from_array(b, name + UP)]


def _with_adapter(node: NodeProto) -> list[NodeProto]:
    """The nodes after a product, which gets another output; theirs has its name."""
    name, weight = node.output[0], node.input[1]
    node.output[0] = f"{name}.packed"
    return [
        helper.make_node("MatMul", [node.input[0], weight + DOWN], [f"{name}.down"]),
        helper.make_node("MatMul", [f"{name}.down", weight + UP], [f"{name}.up"]),
        helper.make_node("Add", [f"{name}.packed", f"{name}.up"], [name]),
    ]


def _dequantized(node: NodeProto, tensors: dict[str, Tensor]) -> Tensor:
    """The matrix [K, N] of a product: that with the unit matrix."""
    given = [tensors[i] if i else None for i in node.input[1:5]]
    numbers = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    return mat_mul_n_bits(torch.eye(_size(node)[0]), *given, **numbers)  # type: ignore[arg-type]  # B and scales are there


def _replace(field: Iterable[NodeProto], nodes: list[NodeProto]) -> None:
    copies = [onnx.NodeProto.FromString(n.SerializeToString()) for n in nodes]
    del field[:]  # type: ignore[attr-defined]  # a field of a message is a list
    field.extend(copies)  # type: ignore[attr-defined]


def _prune(graph: GraphProto) -> None:
    """Remove the initializers that nothing reads any more."""
    read = {i for n in _nodes(graph) for i in n.input} | {o.name for o in graph.output}
    kept = [t for t in graph.initializer if t.name in read]
    copies = [TensorProto.FromString(t.SerializeToString()) for t in kept]
    del graph.initializer[:]
    graph.initializer.extend(copies)


def _nodes(graph: GraphProto) -> Iterable[NodeProto]:
    """Those of a graph and of its subgraphs."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for body in (*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])):
                yield from _nodes(body)
