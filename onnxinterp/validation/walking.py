"""All graphs of a model: of training and of functions nobody calls, too."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeAlias

from onnx import AttributeProto, FunctionProto, GraphProto, ModelProto

from onnxinterp.errors import UnsafeModelError

Body: TypeAlias = "GraphProto | FunctionProto"


def bodies(proto: ModelProto, deepest: int | None = None) -> Iterator[Body]:
    """Every graph and function, those around others first.

    Args:
        proto: a model.
        deepest: how deep subgraphs may stand in each other.

    Raises:
        UnsafeModelError: they stand deeper.
    """
    training = [g for t in proto.training_info for g in (t.initialization, t.algorithm)]
    stack: list[tuple[Body, int]] = [(b, 0) for b in (*training, *proto.functions, proto.graph)]
    while stack:
        body, depth = stack.pop()
        if deepest is not None and depth > deepest:
            raise UnsafeModelError(f"graph {body.name!r}: more than {deepest} graphs around it")
        yield body
        for attribute in _attributes(body):
            if attribute.HasField("g"):
                stack.append((attribute.g, depth + 1))
            stack.extend((graph, depth + 1) for graph in attribute.graphs)


def _attributes(body: Body) -> Iterator[AttributeProto]:
    """Those of its nodes, and the defaults of a function."""
    for node in body.node:
        yield from node.attribute
    if isinstance(body, FunctionProto):
        yield from body.attribute_proto
