"""A new head: the last linear layer of a model with another number of outputs.

The head is found by going back from an output of the graph: it is a Gemm, a MatMul (and the Add of
its bias) or a Conv of kernel size 1, with a weight that the file stores. Operators that keep the
dimension of outputs may follow it: activations, Softmax, pooling, Flatten, Reshape, ... From the
head, all dependent values are followed forwards: their stored sizes and declared shapes change too.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from math import prod
from typing import Any, NamedTuple

import onnx
import torch
from onnx import NodeProto, TensorProto, helper, numpy_helper
from torch import Tensor

from onnxinterp.errors import OnnxError
from onnxinterp.limits import Limits
from onnxinterp.reading.source import Source, complete, read
from onnxinterp.reading.toposort import toposort

LINEAR = ("Gemm", "MatMul", "Conv")
ARITHMETIC = ("Add", "Sub", "Mul", "Div")
KEEPING = (  # operators of one input that leave the dimension of outputs where it is
    *("Identity", "Cast", "Dropout", "Softmax", "LogSoftmax", "Sigmoid", "HardSigmoid", "Tanh"),
    *("Relu", "LeakyRelu", "Elu", "Gelu", "Softplus", "Clip", "Exp", "Log", "Neg"),
    *("GlobalAveragePool", "GlobalMaxPool", "AveragePool", "MaxPool", "Resize", "Upsample"),
)
MOVING = ("Flatten", "Reshape", "Squeeze", "Transpose")
ENDING = ("ArgMax", "ArgMin", "TopK", "Shape", "ReduceMax", "ReduceSum")  # they remove it


class HeadError(OnnxError, ValueError):
    """The model has no head that can be replaced; the message describes what was found."""


class Stored(NamedTuple):
    """A tensor of the file, and the node that reads it.

    Attributes:
        node: the node that reads it.
        place: the index of the input.
        tensor: the tensor.
        turned: whether a Transpose is between the tensor and the head.
    """

    node: NodeProto
    place: int
    tensor: TensorProto
    turned: bool = False

    @property
    def name(self) -> str:
        """The name of the value that the node reads."""
        return str(self.node.input[self.place])


@dataclass(frozen=True)
class Head:
    """The last linear layer before an output.

    Attributes:
        node: the Gemm, MatMul or Conv.
        weight: its matrix or kernel.
        axis: the dimension of outputs in the stored weight.
        bias: the bias, also if an Add adds it.
    """

    node: NodeProto
    weight: Stored
    axis: int
    bias: Stored | None

    @property
    def out_features(self) -> int:
        """The number of outputs."""
        return int(self.weight.tensor.dims[self.axis])

    @property
    def names(self) -> tuple[str, ...]:
        """The names of its weights."""
        return tuple(s.name for s in (self.weight, self.bias) if s is not None)


def replace_head(
    source: Source,
    out_features: int,
    *,
    output: str | None = None,
    generator: torch.Generator | None = None,
    limits: Limits = Limits(),
    data_root: str | os.PathLike[str] | None = None,
) -> onnx.ModelProto:
    """A model whose last linear layer has another number of outputs, and fresh weights.

    The result is an ordinary ONNX model, to be loaded with `OnnxModule`. Only that layer and the
    shapes that depend on it differ. The weights keep their names and types, and are initialized as
    by `nn.Linear`. A weight that another node reads too (an embedding tied to the head) stays, and
    the head gets its own.

    Example:
        >>> model = replace_head("resnet.onnx", 5)  # doctest: +SKIP
        >>> m = OnnxModule(model).train()  # doctest: +SKIP

    Args:
        source: the model; not changed.
        out_features: the number of outputs, at least 1.
        output: the output of the graph to start from; by default the first one.
        generator: the random generator for the weights; by default that of torch.
        limits: the limits for reading the model.
        data_root: a folder within which external data may lie behind links.

    Returns:
        A new model that contains all its tensors.

    Raises:
        HeadError: there is no such layer, or a node behind it depends on the number of its outputs.
        ValueError: `out_features` is less than 1.
    """
    if out_features < 1:
        raise ValueError(f"out_features must be at least 1, got {out_features}")
    surgery = _Surgery(complete(source, limits, data_root))
    head = surgery.head(output)
    before = head.out_features
    surgery.follow(head, before, out_features)
    shape = [int(n) for n in head.weight.tensor.dims]
    features = shape.pop(head.axis)
    bound = (features / max(prod(head.weight.tensor.dims), 1)) ** 0.5  # 1 / sqrt(inputs)
    weight = torch.empty(out_features, *shape).uniform_(-bound, bound, generator=generator)
    surgery.put(head.weight, weight.movedim(0, head.axis))
    if head.bias is not None:
        dims = [*head.bias.tensor.dims[:-1], out_features]
        surgery.put(head.bias, torch.empty(dims).uniform_(-bound, bound, generator=generator))
    return surgery.model


def find_head(source: Source, output: str | None = None, limits: Limits = Limits()) -> Head:
    """The last linear layer before an output (the first by default) of a model.

    Raises:
        HeadError: there is none that can be replaced.
    """
    return _Surgery(read(source, limits).proto).head(output)


class _Surgery:
    """A model that is changed: the maker and the readers of each value, and stored tensors."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = model
        self.graph = graph = model.graph
        self.tensors = {t.name: t for t in graph.initializer}
        self.makers = {o: n for n in graph.node for o in n.output if o}
        for node in graph.node:
            if node.op_type == "Constant" and node.attribute and node.attribute[0].HasField("t"):
                self.tensors[node.output[0]] = node.attribute[0].t
        reads = (name for node in _walk(graph.node) for name in node.input)
        self.reads = Counter([*reads, *(o.name for o in graph.output)])
        self.infos: dict[str, list[onnx.ValueInfoProto]] = {}
        for info in (*graph.input, *graph.output, *graph.value_info):
            self.infos.setdefault(info.name, []).append(info)

    def head(self, output: str | None) -> Head:
        """Go back from an output to the last linear layer."""
        names = [o.name for o in self.graph.output]
        if output is not None and output not in names:
            raise HeadError(f"output must be one of {names}, got {output!r}")
        value = output or names[0]
        passed: list[NodeProto] = []
        while True:
            node = self.makers.get(value)
            if node is None:
                raise self._no_head(passed, f"the value {value!r}, which no node computes")
            if node.op_type in LINEAR:
                return self._head(node, passed)
            data = self._data(node)
            if data is None:
                raise self._no_head(passed, f"{_label(node)}, which is not a linear layer")
            passed.append(node)
            value = data

    def _data(self, node: NodeProto) -> str | None:
        """The input that may depend on the head; None if the node combines its outputs."""
        if node.op_type in ARITHMETIC:
            stored = [self.stored(node, index) is not None for index in range(2)]
            return node.input[stored.index(False)] if stored.count(True) == 1 else None
        return node.input[0] if node.op_type in (*KEEPING, *MOVING) else None

    def _head(self, node: NodeProto, passed: list[NodeProto]) -> Head:
        weight = self.stored(node, 1)
        if weight is None:
            made = self.makers.get(node.input[1])
            origin = f"comes from {_label(made)}" if made else "is an input of the graph"
            raise self._no_head(passed, f"{_label(node)}, whose weight {origin}")
        dims = list(weight.tensor.dims)
        flat = set(dims[2:]) <= {1} and _attribute(node, "group", 1) == 1
        if not flat or (node.op_type != "Conv" and len(dims) != 2):
            raise self._no_head(passed, f"{_label(node)} with a weight of shape {dims}")
        if weight.tensor.data_type not in _FLOATING:
            raise self._no_head(passed, f"{_label(node)}, whose weight is not a floating tensor")
        outputs_first = node.op_type == "Conv" or bool(_attribute(node, "transB", 0))
        axis = int(outputs_first == weight.turned)
        bias = self.stored(node, 2)
        add = passed[-1] if passed and node.op_type == "MatMul" else None
        if add is not None and add.op_type == "Add":
            bias = self.stored(add, 0) or self.stored(add, 1)
        if bias is not None and list(bias.tensor.dims[-1:]) != [dims[axis]]:
            bias = None  # one number for all outputs
        return Head(node, weight, axis, bias)

    def stored(self, node: NodeProto, index: int) -> Stored | None:
        """The stored tensor of an input, if any, also through Identity and Transpose."""
        if index >= len(node.input):
            return None
        turned = False
        while (name := node.input[index]) not in self.tensors:
            made = self.makers.get(name)
            if made is None or made.op_type not in ("Identity", "Transpose"):
                return None
            if made.op_type == "Transpose":
                if _attribute(made, "perm", [1, 0]) != [1, 0]:
                    return None
                turned = not turned
            node, index = made, 0
        return Stored(node, index, self.tensors[name], turned)

    def put(self, old: Stored, value: Tensor) -> None:
        """Store a value under the old name, or under a new one if another node reads the tensor."""
        node, name = old.node, old.name
        kind = helper.tensor_dtype_to_np_dtype(old.tensor.data_type)
        array = value.contiguous().numpy().astype(kind)
        if self.reads[name] == 1:
            old.tensor.CopyFrom(numpy_helper.from_array(array, old.tensor.name))
            for info in self.infos.get(name, ()):  # initializers may be inputs, too
                declared = info.type.tensor_type.shape.dim
                for dim, size in zip(declared, array.shape, strict=True):
                    dim.dim_value = size
            return
        if node.op_type == "Identity":  # an exporter merged two tensors: this is the second name
            name = node.output[0]
            self.graph.node.remove(node)
        else:
            name = node.input[old.place] = self._free(f"{name}.head")
        self.graph.initializer.append(numpy_helper.from_array(array, name))
        if self.model.ir_version < 4:
            info = helper.make_tensor_value_info(name, old.tensor.data_type, array.shape)
            self.graph.input.append(info)

    def _free(self, name: str) -> str:
        while name in self.tensors or name in self.makers:
            name += "_"
        return name

    def follow(self, head: Head, before: int, after: int) -> None:
        """Change stored sizes and declared shapes of the values that depend on the head."""
        rank = len(head.weight.tensor.dims)
        axes = {head.node.output[0]: -1 if head.node.op_type == "MatMul" else 1}
        self._redeclare(head.node.output[0], axes[head.node.output[0]], after)
        for node in toposort(self.graph.node):
            read = [name for name in node.input if name in axes]
            if not read or node.op_type in ENDING:
                continue
            if self._data(node) not in axes:
                raise HeadError(f"{_label(node)} behind the head {_label(head.node)} depends on it")
            self._refuse_own_numbers(node, head, before)
            axis = axes[read[0]]
            if node.op_type in MOVING:
                axis = self._moved(node, axis, rank, before, after)
            axes[node.output[0]] = axis
            self._redeclare(node.output[0], axis, after)

    def _refuse_own_numbers(self, node: NodeProto, head: Head, before: int) -> None:
        """Refuse arithmetic with one stored number per output, except the bias: it has new ones."""
        if node.op_type not in ARITHMETIC:
            return
        own = self.stored(node, 0) or self.stored(node, 1)
        is_bias = own is not None and head.bias is not None and own.tensor is head.bias.tensor
        if own is not None and not is_bias and before in own.tensor.dims and before > 1:
            raise HeadError(
                f"{_label(node)} behind the head {_label(head.node)} has a number for each of the "
                f"{before} outputs: {own.tensor.name!r}"
            )

    def _moved(self, node: NodeProto, axis: int, rank: int, before: int, after: int) -> int:
        """The dimension of outputs after a node that may move it."""
        if node.op_type == "Flatten" and _attribute(node, "axis", 1) in (1, -1):
            return 1
        if node.op_type == "Transpose":
            perm = _attribute(node, "perm", None)
            return -1 - axis if perm is None else int(perm.index(axis % len(perm)))
        if node.op_type == "Squeeze":
            axes = self._numbers(node, 1) or _attribute(node, "axes", [])
            return axis if axis < 0 else axis - sum(n % rank < axis for n in axes)
        if node.op_type == "Reshape":
            return self._reshaped(node, axis, before, after)
        raise HeadError(f"{_label(node)} behind the head mixes its outputs with other dimensions")

    def _reshaped(self, node: NodeProto, axis: int, before: int, after: int) -> int:
        """Change a stored size: that of the outputs, or none if it is inferred (-1 or 0)."""
        sizes = self._numbers(node, 1)
        target = self.stored(node, 1)
        maker = self.makers.get(node.input[1]) if len(node.input) > 1 else None
        if target is None and maker is not None and maker.op_type == "Concat":
            parts = [self._numbers(maker, i) or [0] for i in range(len(maker.input))]
            sizes = [n for part in parts for n in part]
            place = next((i for i, part in enumerate(parts) if part == [before]), -1)
            target = self.stored(maker, place) if place >= 0 else None
        if before in sizes and target is not None:
            axis = len(sizes) - 1 - sizes[::-1].index(before)
            stored = numpy_helper.to_array(target.tensor).copy()
            stored[axis if len(stored) > 1 else 0] = after
            self.put(target, torch.from_numpy(stored))
            return axis
        if -1 in sizes:
            return sizes.index(-1)
        if sizes and 0 <= axis < len(sizes) and sizes[axis] == 0:
            return axis
        raise HeadError(f"{_label(node)} behind the head has the size {sizes or 'of an input'}")

    def _numbers(self, node: NodeProto, index: int) -> list[int]:
        """The integers stored for an input; none if they are computed."""
        stored = self.stored(node, index)
        return [] if stored is None else numpy_helper.to_array(stored.tensor).reshape(-1).tolist()

    def _redeclare(self, name: str, axis: int, size: int) -> None:
        for info in self.infos.get(name, ()):
            dims = info.type.tensor_type.shape.dim
            if -len(dims) <= axis < len(dims) and dims[axis].HasField("dim_value"):
                dims[axis].dim_value = size

    def _no_head(self, passed: Iterable[NodeProto], found: str) -> HeadError:
        way = ", ".join(node.op_type for node in passed)
        return HeadError(
            f"no head to replace: back from the output{' through ' + way if way else ''} is "
            f"{found}; a head is a Gemm, a MatMul or a Conv of kernel size 1 with a stored weight"
        )


_FLOATING = (TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16)


def _walk(nodes: Iterable[NodeProto]) -> Iterator[NodeProto]:
    """All nodes, those of subgraphs included."""
    for node in nodes:
        yield node
        for attribute in node.attribute:
            yield from _walk(attribute.g.node)


def _attribute(node: NodeProto, name: str, default: Any) -> Any:
    found = (helper.get_attribute_value(a) for a in node.attribute if a.name == name)
    return next(found, default)


def _label(node: NodeProto) -> str:
    return f"{node.op_type} {(node.name or node.output[0])!r}"
