"""How many channels the blocks of com.microsoft.nchwc have: 8 or 16.

onnxruntime chooses the number by the instructions of the machine that optimizes the model (16 with
AVX-512 and on 64-bit ARM) and does not write it into the file. Filters have the sizes
[M, C/group, *kernel], both filled up with zeros to whole blocks, and their elements in one of two
orders:

    [M/b, C/b, *kernel, b of C, b of M]    the input is in blocks
    [M/b, C, *kernel, b of M]              it is not, because C < b; or each channel has one filter

What tells the number is a filter whose sizes only one of both divides, a ReorderOutput that leaves
out so many channels, and half blocks of zeros that fill up a block of 16. A model all of whose
channels are multiples of 16 tells nothing: then the user must.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeAlias

import numpy as np
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto

from onnxinterp.schemas import NCHWC

SIZES = (8, 16)
POOLS = ("MaxPool", "AveragePool", "GlobalMaxPool", "GlobalAveragePool", "Upsample")
ADVICE = (
    "the file does not tell whether its blocks have 8 or 16 channels; "
    "pass kernels=onnxinterp.ops.contrib.nchwc.kernels_of(16) if it was saved on a machine with "
    "AVX-512 or on 64-bit ARM, otherwise kernels_of(8)"
)

Read: TypeAlias = Callable[[TensorProto], np.ndarray[Any, Any]]


def block_size(model: ModelProto, read: Read) -> int:
    """The number of channels of a block in a file that onnxruntime has optimized.

    Raises:
        ValueError: both numbers are possible, or none.
    """
    possible = set(SIZES)
    filters: list[tuple[TensorProto, int]] = []
    for graph in _graphs(model.graph):
        tensors = {t.name: t for t in graph.initializer}
        producers = {o: node for node in graph.node for o in node.output if o}
        for node in graph.node:
            if node.domain != NCHWC:
                continue
            if node.op_type == "Conv" and (weight := tensors.get(node.input[1])) is not None:
                filters.append((weight, _integer(node, "group", 1)))
                possible &= {b for b in SIZES if _divides(weight.dims, filters[-1][1], b)}
            elif node.op_type == "ReorderOutput":
                possible &= _that_leave(node, tensors, producers)
    if not possible:
        raise ValueError("its filters are not in blocks of 8 or 16 channels")
    if len(possible) == 1:
        return possible.pop()
    if not filters:
        return SIZES[0]  # no element depends on it
    if any(_is_filled_up(weight, group, read) for weight, group in filters):
        return SIZES[1]
    raise ValueError(ADVICE)


def has_blocks_of_both(sizes: Sequence[int], group: int, block: int) -> bool:
    """Whether filters are in blocks of input channels as well."""
    is_depthwise = group > 1 and sizes[1] == 1 and sizes[0] == group
    return not is_depthwise and sizes[1] >= block


def _divides(sizes: Sequence[int], group: int, block: int) -> bool:
    """Whether filters of these sizes can be in such blocks."""
    if len(sizes) != 4 or group < 1 or sizes[0] % block:
        return False
    if not has_blocks_of_both(sizes, group, block):
        return group in (1, sizes[0])
    return sizes[1] % block == 0 and sizes[0] % group == 0 and sizes[0] // group % block == 0


def _that_leave(
    node: NodeProto, tensors: dict[str, TensorProto], producers: dict[str, NodeProto]
) -> set[int]:
    """The sizes of blocks whose channels a ReorderOutput cuts down to those that it leaves."""
    source = producers.get(node.input[0])
    while source is not None and source.domain == NCHWC and source.op_type in POOLS:
        source = producers.get(source.input[0])
    if source is None or source.domain != NCHWC or source.op_type != "Conv":
        return set(SIZES)
    weight = tensors.get(source.input[1])
    channels = _integer(node, "channels", 0)
    if weight is None or not weight.dims or not channels:
        return set(SIZES)
    return {b for b in SIZES if weight.dims[0] == -(-channels // b) * b}


def _is_filled_up(weight: TensorProto, group: int, read: Read) -> bool:
    """Whether the last block of 16 filters, or of 16 channels, ends with half a block of zeros.

    Of blocks of 8 these elements would be every other part of two blocks.
    """
    if weight.data_location == TensorProto.EXTERNAL:
        return False
    small, large = SIZES
    elements = read(weight).reshape(weight.dims[0] // large, -1, large)
    if _ends_with_zeros(elements[-1], small):
        return True
    if not has_blocks_of_both(weight.dims, group, large):
        return False
    parts = elements.reshape(len(elements), weight.dims[1] // large, -1, large, large)
    return _ends_with_zeros(parts[:, -1].swapaxes(-2, -1), small)


def _ends_with_zeros(elements: np.ndarray[Any, Any], start: int) -> bool:
    """Whether the last axis is zero from `start` on, and not before."""
    return not elements[..., start:].any() and bool(elements[..., :start].any())


def _graphs(graph: GraphProto) -> Iterator[GraphProto]:
    """A graph and all that are in it."""
    pending = [graph]
    while pending:
        yield (current := pending.pop())
        for node in current.node:
            for attribute in node.attribute:
                if attribute.type == AttributeProto.GRAPH:
                    pending.append(attribute.g)
                pending.extend(attribute.graphs)


def _integer(node: NodeProto, name: str, default: int) -> int:
    return next((a.i for a in node.attribute if a.name == name), default)
