"""All graphs of a model, those for training and those of functions that are not called included."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeAlias

from onnx import AttributeProto, FunctionProto, GraphProto, ModelProto

from onnxinterp.errors import UnsafeModelError

Body: TypeAlias = "GraphProto | FunctionProto"


def bodies(proto: ModelProto, max_depth: int) -> Iterator[Body]:
    """Every graph and function, outer ones first.

    Args:
        proto: a model.
        max_depth: how deep subgraphs may be nested.

    Raises:
        UnsafeModelError: they are nested deeper.
    """
    stack = [_of_model(proto)]
    while stack:
        body = next(stack[-1], None)
        if body is None:
            stack.pop()
            continue
        if len(stack) > max_depth + 1:
            raise UnsafeModelError(f"graph {body.name!r} must be nested at most {max_depth} deep")
        yield body
        stack.append(_inside(body))


def _of_model(proto: ModelProto) -> Iterator[Body]:
    yield proto.graph
    yield from proto.functions
    for training in proto.training_info:
        if training.HasField("initialization"):
            yield training.initialization
        if training.HasField("algorithm"):
            yield training.algorithm


def _inside(body: Body) -> Iterator[Body]:
    for attribute in _attributes(body):
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def _attributes(body: Body) -> Iterator[AttributeProto]:
    """The attributes of its nodes, and the defaults of a function."""
    for node in body.node:
        yield from node.attribute
    if isinstance(body, FunctionProto):
        yield from body.attribute_proto
