"""What a plan depends on besides the graph, and what is inferred about its values first.

Setting     the weights as they are now, the mode, the device: given by the module
Facts       ONNX types and straight-through values: inferred from the graph, then read-only
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import torch
from onnx import TensorProto
from torch import Tensor

from onnxinterp.dtypes import CARRIER
from onnxinterp.graph.ir import Graph, ValueInfo
from onnxinterp.kinds import Kind
from onnxinterp.limits import Limits
from onnxinterp.runtime.guard import Guard
from onnxinterp.values import HOST_LENGTH, HOST_MATRIX_LENGTH, READABLE, Dtype, Host, Shape, host_of

NUMBER_KINDS = (Kind.LIST, Kind.SCALAR, Kind.HOST)
TENSOR_KINDS = (Kind.TENSOR, Kind.OPERAND)  # what a host rule takes plain numbers for
Constant: TypeAlias = "Tensor | Host | np.ndarray[Any, Any]"


@dataclass(frozen=True)
class Setting:
    """What a plan depends on besides the graph.

    Attributes:
        weights: names of all weights of the module.
        constants: those weights that never train, and values that are no tensors (strings).
        hosts: the small ones among them as plain numbers.
        training: whether dropout drops and normalisation uses the statistics of the batch.
        device: where the weights are.
        dtypes: what the module's floating type has become since loading (float32 -> bfloat16).
        apart: paths of the torch modules that are in the other mode meanwhile.
        sized: host values that are known because the shapes of the inputs are.
        folded: large constants of the plan for all sizes, which one for some sizes shares.
        types: the ONNX types of the weights.
        shapes: the shapes of the weights.
        frozen_stats: names of the state that is not updated in training.
        fuse: whether nodes that are one function in torch run as one.
        by_module: whether nodes of different torch modules never run as one.
        guard: watches the nodes that run while the plan is made (constant folding).
    """

    weights: Set[str]
    constants: Mapping[str, Constant]
    hosts: Mapping[str, Host]
    training: bool
    device: torch.device
    dtypes: Mapping[torch.dtype, torch.dtype]
    apart: Set[str] = frozenset()
    sized: Mapping[str, Host] = field(default_factory=dict)
    folded: Mapping[str, Tensor] = field(default_factory=dict)
    types: Mapping[str, int] = field(default_factory=dict)
    shapes: Mapping[str, torch.Size] = field(default_factory=dict)
    frozen_stats: Set[str] = frozenset()
    fuse: bool = True
    by_module: bool = False
    guard: Guard = field(default_factory=lambda: Guard.of_plan(Limits()))


@dataclass(frozen=True)
class Facts:
    """What holds for the values of a graph in every plan of one module.

    Attributes:
        types: name -> ONNX element type; values whose type is not known are missing or 0.
        straight_through: values whose readers all take floating numbers in place of integers.
        static_shapes: returns the shapes of subgraphs' outputs that are known before a call.
    """

    types: Mapping[str, int]
    straight_through: Set[str]
    static_shapes: Callable[[Sequence[ValueInfo]], tuple[Shape, ...]]

    def type_of(self, value: ValueInfo) -> int:
        """The type that a graph declares for a value, or else the inferred one."""
        return value.elem_type or self.types.get(value.name, 0)

    def dtype_of(self, value: ValueInfo, dtypes: Mapping[torch.dtype, torch.dtype]) -> Dtype:
        """How a value is stored; `dtypes` as in `Setting`."""
        elem_type = self.type_of(value)
        if elem_type == TensorProto.STRING:
            return np.dtype(object)
        dtype = CARRIER.get(elem_type)
        return None if dtype is None else dtypes.get(dtype, dtype)


def infer(
    graph: Graph,
    types: Mapping[str, int],
    static_shapes: Callable[[Sequence[ValueInfo]], tuple[Shape, ...]],
) -> Facts:
    """What holds for a graph and its subgraphs; `types` are those of all values."""
    straight_through = frozenset().union(*(g.straight_through for g in graph.graphs()))
    return Facts(types, straight_through, static_shapes)


def snapshot(value: Constant) -> Host | None:
    """A constant as plain numbers, where it is small enough; a matrix of floats is data."""
    if isinstance(value, Host):
        return value
    if not isinstance(value, Tensor) or value.is_meta or value.dtype not in READABLE:
        return None
    if value.ndim > 1 and value.is_floating_point():
        return None
    most = HOST_LENGTH if value.ndim <= 1 else HOST_MATRIX_LENGTH
    return host_of(value) if value.numel() <= most else None
