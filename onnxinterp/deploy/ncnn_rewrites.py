"""What pnnx and ncnn get wrong or do not know, in forms that they get right.

Each entry of `REWRITES` takes a node and returns nodes that compute the same, or None where the node
may stay; it raises `Refused` where no right form is known. Measured with pnnx and ncnn 20261020:

    silently wrong    MaxPool and AveragePool with auto_pad, Resize with asymmetric coordinates,
                      antialiasing or another cubic coefficient, Pow of negative numbers, Shrink with a
                      bias, SpaceToDepth, ConvTranspose with output_shape, Gather of several indices,
                      reductions with one axis as an input, normalization of several axes or groups
    not converted     Conv and ConvTranspose with auto_pad or unequal pads, AveragePool with unequal
                      pads, DepthToSpace in DCR order, Slice with steps, Softsign, ThresholdedRelu

Values that pass through products with zeros and ones are exact, as long as they are finite.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import torch
from onnx import helper, numpy_helper

from onnxinterp.deploy.fixed_sizes import Array, FixedModel, value_info
from onnxinterp.module import OnnxModule

OPSET = 17
"""The newest one in which pnnx reads all reductions: their axes are attributes."""

MAX_FACTORS = 8  # of a power that is written as a product


class Refused(Exception):  # noqa: N818  # an answer, which the caller turns into an error
    """No form of the node is known that pnnx and ncnn compute right; the message says of what."""


Rewrite = Callable[[onnx.NodeProto, "Context"], "list[onnx.NodeProto] | None"]
REWRITES: dict[str, Rewrite] = {}


@dataclass
class Context:
    """What a rewrite knows of the model.

    Attributes:
        values: name -> a value of the sizes that the model is fixed at.
        constants: names of the values that do not depend on the inputs.
        opset: of the model before.
        added: new constants.
    """

    values: Mapping[str, Array]
    constants: set[str]
    opset: int
    added: dict[str, Array] = field(default_factory=dict)
    _count: int = 0

    def shape(self, name: str) -> tuple[int, ...]:
        """The sizes of a value of the model."""
        return self.values[name].shape

    def constant(self, node: onnx.NodeProto, index: int) -> Array | None:
        """An input that is a constant; None where it is left out.

        Raises:
            Refused: it is computed from the inputs of the model.
        """
        name = node.input[index] if index < len(node.input) else ""
        if not name:
            return None
        if name not in self.constants:
            raise Refused(f"input {index} must be a constant")
        return self.values[name]

    def name(self) -> str:
        """A new name of a value."""
        self._count += 1
        return f"onnxinterp_{self._count}"

    def add(self, value: Any, dtype: Any = np.float32) -> str:
        """The name of a new constant."""
        name = self.name()
        self.added[name] = np.asarray(value, dtype)
        return name

    def chain(self, node: onnx.NodeProto, *links: Link) -> list[onnx.NodeProto]:
        """Nodes one after the other, from the first input of `node` to its first output."""
        value, nodes = node.input[0], []
        for number, (op, others, attributes) in enumerate(links, 1):
            result = node.output[0] if number == len(links) else self.name()
            nodes.append(helper.make_node(op, [value, *others], [result], **attributes))
            value = result
        return nodes


Link = tuple[str, Sequence[str], Mapping[str, Any]]
"""Operator, inputs after the first one, attributes."""


def rewrites(*operators: str) -> Callable[[Rewrite], Rewrite]:
    """Register the rewrite of operators."""

    def register(rewrite: Rewrite) -> Rewrite:
        REWRITES.update(dict.fromkeys(operators, rewrite))
        return rewrite

    return register


def rewrite_node(node: onnx.NodeProto, context: Context) -> list[onnx.NodeProto]:
    """The nodes that stand in for a node; the node alone where it may stay.

    Raises:
        Refused: no right form is known.
    """
    rewrite = REWRITES.get(node.op_type) if node.domain in ("", "ai.onnx") else None
    return (rewrite(node, context) if rewrite else None) or [node]


def rewritten(model: FixedModel, nodes: Sequence[onnx.NodeProto], context: Context) -> Any:
    """The model with other nodes, at an opset that pnnx reads."""
    reads = dict.fromkeys(name for node in nodes for name in node.input if name)
    stored = {**model.values, **context.added}
    computed = {name for node in nodes for name in node.output} | set(model.inputs)
    graph = helper.make_graph(
        nodes,
        "rewritten",
        [value_info(name, as_float_or_int(model.values[name])) for name in model.inputs],
        [value_info(name, model.values[name]) for name in model.outputs],
        [numpy_helper.from_array(np.asarray(stored[n]), n) for n in reads if n not in computed],
    )
    imports = [helper.make_opsetid("", min(context.opset, OPSET))]
    return helper.make_model(graph, opset_imports=imports, ir_version=8)


def as_float_or_int(value: Array) -> Array:
    """A value in the types of ncnn, which have 32 bits."""
    return value.astype(np.int32) if value.dtype == np.int64 else value


def attributes(node: onnx.NodeProto) -> dict[str, Any]:
    """The attributes of a node; strings as `str`."""
    found = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    return {n: v.decode() if isinstance(v, bytes) else v for n, v in found.items()}


def along(context: Context, rank: int, axis: int, matrix: Array) -> list[Link]:
    """A product of one axis with a matrix [old size, new size]."""
    product: Link = ("MatMul", [context.add(matrix)], {})
    if axis == rank - 1:
        return [product]
    perm = [i for i in range(rank) if i != axis] + [axis]
    back = [perm.index(i) for i in range(rank)]
    return [("Transpose", [], {"perm": perm}), product, ("Transpose", [], {"perm": back})]


# Windows: padding as explicit numbers.


def _pads(node: onnx.NodeProto, context: Context, kernel: Sequence[int]) -> list[int]:
    """The pads of a window, at the start of each axis and then at the end."""
    given, rank = attributes(node), len(kernel)
    mode = given.get("auto_pad", "NOTSET")
    if not mode.startswith("SAME"):
        return list(given.get("pads", [0] * (2 * rank)))
    strides, dilations = given.get("strides", [1] * rank), given.get("dilations", [1] * rank)
    before, after = context.shape(node.input[0])[2:], context.shape(node.output[0])[2:]
    needs = [
        max((after[i] - 1) * strides[i] + (kernel[i] - 1) * dilations[i] + 1 - before[i], 0)
        for i in range(rank)
    ]
    starts = [n // 2 if mode == "SAME_UPPER" else n - n // 2 for n in needs]
    return [*starts, *[n - s for n, s in zip(needs, starts, strict=True)]]


def _with(node: onnx.NodeProto, *without: str, **changed: Any) -> onnx.NodeProto:
    """A copy of a node with other attributes."""
    kept = {n: v for n, v in attributes(node).items() if n not in without}
    return helper.make_node(node.op_type, node.input, node.output, node.name, **(kept | changed))


@rewrites("Conv")
def explicit_pads(node: onnx.NodeProto, context: Context) -> list[onnx.NodeProto] | None:
    """`auto_pad` as pads."""
    given = attributes(node)
    if given.get("auto_pad", "NOTSET") == "NOTSET":
        return None
    kernel = given.get("kernel_shape") or context.shape(node.input[1])[2:]
    return [_with(node, "auto_pad", pads=_pads(node, context, kernel))]


@rewrites("MaxPool")
def maximum_of_lowest(node: onnx.NodeProto, context: Context) -> list[onnx.NodeProto] | None:
    """Unequal pads: zeros, and the lowest float added to them."""
    given = attributes(node)
    kernel = given["kernel_shape"]
    rank = len(kernel)
    if len([name for name in node.output if name]) > 1:
        raise Refused("indices of maxima are not converted")
    pads = _pads(node, context, kernel)
    if pads[:rank] == pads[rank:]:
        return [_with(node, "auto_pad", pads=pads)] if "auto_pad" in given else None
    shape = context.shape(node.input[0])
    widths = [(0, 0), (0, 0), *zip(pads[:rank], pads[rank:], strict=True)]
    lowest = np.finfo(np.float32).min
    edge = np.pad(np.zeros((1, 1, *shape[2:])), widths, constant_values=lowest)
    links: list[Link] = [*_zeros_around(context, shape, pads), ("Add", [context.add(edge)], {})]
    how = {n: v for n, v in given.items() if n not in ("auto_pad", "pads")}
    return context.chain(node, *links, ("MaxPool", [], how))


@rewrites("AveragePool")
def average_of_zeros(node: onnx.NodeProto, context: Context) -> list[onnx.NodeProto] | None:
    """Unequal pads: the average with zeros, times size of the window / elements in it."""
    given = attributes(node)
    kernel = given["kernel_shape"]
    rank = len(kernel)
    pads = _pads(node, context, kernel)
    if pads[:rank] == pads[rank:]:
        return [_with(node, "auto_pad", pads=pads)] if "auto_pad" in given else None
    if given.get("ceil_mode") or any(d != 1 for d in given.get("dilations", ())):
        raise Refused("unequal pads with ceil_mode or dilations are not converted")
    pool = {"kernel_shape": kernel, "strides": given.get("strides", [1] * rank)}
    links: list[Link] = [*_zeros_around(context, context.shape(node.input[0]), pads)]
    links.append(("AveragePool", [], pool))
    if not given.get("count_include_pad"):
        ones = torch.ones(1, 1, *context.shape(node.input[0])[2:])
        counted = helper.make_node("AveragePool", ["x"], ["y"], pads=pads, **pool)
        counted.attribute.append(helper.make_attribute("count_include_pad", 1))
        links.append(("Mul", [context.add(1 / _run(counted, ones))], {}))
    return context.chain(node, *links)


def _zeros_around(context: Context, shape: Sequence[int], pads: Sequence[int]) -> list[Link]:
    """Zeros around the last axes: products with matrices that have rows of an identity."""
    links: list[Link] = []
    rank = len(pads) // 2
    for i in range(rank):
        axis = len(shape) - rank + i
        if pads[i] or pads[rank + i]:
            size = shape[axis]
            matrix = np.eye(size, size + pads[i] + pads[rank + i], pads[i])
            links += along(context, len(shape), axis, matrix)
    return links


@rewrites("ConvTranspose")
def cropped(node: onnx.NodeProto, context: Context) -> list[onnx.NodeProto] | None:
    """Unequal pads and `output_shape`: all that the product gives, and a Slice of it."""
    given = attributes(node)
    kernel, rank = context.shape(node.input[1])[2:], len(context.shape(node.input[1])) - 2
    pads = list(given.get("pads", [0] * (2 * rank)))
    plain = given.get("auto_pad", "NOTSET") == "NOTSET" and "output_shape" not in given
    if plain and pads[:rank] == pads[rank:]:
        return None
    strides, dilations = given.get("strides", [1] * rank), given.get("dilations", [1] * rank)
    extra = given.get("output_padding", [0] * rank)
    before, after = context.shape(node.input[0])[2:], context.shape(node.output[0])[2:]
    starts = []
    for i in range(rank):
        whole = (before[i] - 1) * strides[i] + extra[i] + (kernel[i] - 1) * dilations[i] + 1
        upper = given.get("auto_pad") == "SAME_UPPER"
        spare = whole - after[i]
        starts.append(pads[i] if plain else spare // 2 if upper else spare - spare // 2)
        if min(starts[i], spare - starts[i]) < 0:
            raise Refused("an output larger than the product is not converted")
    dropped = ("auto_pad", "output_shape", "pads")
    product = {n: v for n, v in given.items() if n not in dropped}
    ends = [s + a for s, a in zip(starts, after, strict=True)]
    window = [context.add(v, np.int64) for v in (starts, ends, range(2, 2 + rank))]
    links: list[Link] = [("ConvTranspose", node.input[1:], product), ("Slice", window, {})]
    return context.chain(node, *links)


# Linear maps that are given as matrices.


@rewrites("Resize")
def as_products(node: onnx.NodeProto, context: Context) -> list[onnx.NodeProto] | None:
    """Other coordinates and filters: a product of each axis with its matrix."""
    given = attributes(node)
    coordinates = given.get("coordinate_transformation_mode", "half_pixel")
    mode = given.get("mode", "nearest")
    if coordinates == "tf_crop_and_resize":
        raise Refused("tf_crop_and_resize is not converted")
    before, after = context.shape(node.input[0]), context.shape(node.output[0])
    has_sizes = len(node.input) > 3 and bool(node.input[3])
    scales = [a / b for a, b in zip(after, before, strict=True)]
    if not has_sizes:
        scales = [float(v) for v in np.asarray(context.constant(node, 2))]
        if (axes := given.get("axes")) is not None:
            every = dict(zip([a % len(before) for a in axes], scales, strict=True))
            scales = [every.get(i, 1.0) for i in range(len(before))]
    default = {"antialias": 0, "exclude_outside": 0, "cubic_coeff_a": -0.75}
    is_plain = all(given.get(n, v) == v for n, v in default.items())
    centred = coordinates in ("half_pixel", "pytorch_half_pixel", "align_corners")
    is_whole = all(s == int(s) for s in scales) and coordinates in ("asymmetric", "half_pixel")
    if len(before) == 4 and is_plain and before[:2] == after[:2]:
        if mode != "nearest" and centred and all(s > 1 for s in after[2:]):
            return _resize_to(node, context, mode, coordinates)
        if mode == "nearest" and is_whole:
            return _resize_to(node, context, mode, "asymmetric")
    links: list[Link] = []
    for axis, (old, new) in enumerate(zip(before, after, strict=True)):
        if old != new or scales[axis] != 1:
            matrix = _resize_matrix(given, old, new, None if has_sizes else scales[axis])
            links += along(context, len(before), axis, matrix)
    return context.chain(node, *(links or [("Identity", [], {})]))


def _resize_to(
    node: onnx.NodeProto, context: Context, mode: str, coordinates: str
) -> list[onnx.NodeProto]:
    """A Resize to the sizes of its result, in a form that opset 11 has, too."""
    how = {"mode": mode, "coordinate_transformation_mode": coordinates}
    if mode == "nearest":
        how["nearest_mode"] = "floor"
    sizes = context.add(context.shape(node.output[0]), np.int64)
    return context.chain(node, ("Resize", ["", "", sizes], how))


def _resize_matrix(given: Mapping[str, Any], old: int, new: int, scale: float | None) -> Array:
    """What a Resize does to one axis, [old size, new size]: its result for an identity."""
    kept = {n: v for n, v in given.items() if n not in ("axes", "keep_aspect_ratio_policy")}
    names = ["x", "", "", "target"] if scale is None else ["x", "", "target"]
    resize = helper.make_node("Resize", names, ["y"], **kept)
    target = np.array([old, new]) if scale is None else np.array([1, scale], np.float32)
    return _run(resize, torch.eye(old), target, opset=19)


@rewrites("SpaceToDepth")
def one_hot_convolution(node: onnx.NodeProto, context: Context) -> list[onnx.NodeProto]:
    """A convolution whose kernels pick one element each."""
    size, channels = attributes(node)["blocksize"], context.shape(node.input[0])[1]
    kernel = np.zeros((size, size, channels, channels, size, size), np.float32)
    for y in range(size):
        for x in range(size):
            kernel[y, x, :, :, y, x] = np.eye(channels)
    kernel = kernel.reshape(-1, channels, size, size)
    return context.chain(node, ("Conv", [context.add(kernel)], {"strides": [size, size]}))


@rewrites("DepthToSpace")
def one_hot_transposed(node: onnx.NodeProto, context: Context) -> list[onnx.NodeProto] | None:
    """DCR order: a transposed convolution whose kernels place one element each."""
    given, channels = attributes(node), context.shape(node.output[0])[1]
    if given.get("mode", "DCR") == "CRD":
        return None
    size = given["blocksize"]
    kernel = np.zeros((size, size, channels, channels, size, size), np.float32)
    for y in range(size):
        for x in range(size):
            kernel[y, x, :, :, y, x] = np.eye(channels)
    weight = context.add(kernel.reshape(-1, channels, size, size))
    return context.chain(node, ("ConvTranspose", [weight], {"strides": [size, size]}))


@rewrites("Slice")
def steps(node: onnx.NodeProto, context: Context) -> list[onnx.NodeProto] | None:
    """Steps and reversed axes: a product with the columns of an identity."""
    if context.opset < 10:
        return None
    step = context.constant(node, 4)
    if step is None or (np.asarray(step) == 1).all():
        return None
    shape = context.shape(node.input[0])
    starts, ends, axes = (context.constant(node, i) for i in (1, 2, 3))
    axes = np.arange(len(np.asarray(starts))) if axes is None else axes
    rows = [np.arange(n) for n in shape]
    for start, end, axis, by in zip(*(np.asarray(v).tolist() for v in (starts, ends, axes, step))):
        stop = None if by < 0 and end < -shape[axis] else end
        rows[axis % len(shape)] = np.arange(shape[axis])[start:stop:by]
    return context.chain(node, *_picked(context, shape, rows))


@rewrites("Gather")
def picked(node: onnx.NodeProto, context: Context) -> list[onnx.NodeProto] | None:
    """Several constant indices: a product with the columns of an identity."""
    if node.input[0] in context.constants:
        return None
    indices = np.asarray(context.constant(node, 1))
    shape = context.shape(node.input[0])
    axis = attributes(node).get("axis", 0) % len(shape)
    if indices.size == 1 and indices.ndim == 0:
        return None
    if indices.ndim != 1:
        raise Refused("indices of several axes are not converted")
    rows = [np.arange(n) for n in shape]
    rows[axis] = indices % shape[axis]
    return context.chain(node, *_picked(context, shape, rows))


def _picked(context: Context, shape: Sequence[int], rows: Sequence[Array]) -> list[Link]:
    links: list[Link] = []
    for axis, picked in enumerate(rows):
        if not np.array_equal(picked, np.arange(shape[axis])):
            matrix = np.eye(shape[axis], dtype=np.float32)[:, picked]
            links += along(context, len(shape), axis, matrix)
    return links or [("Identity", [], {})]


# Elementwise operators.


@rewrites("Pow")
def products(node: onnx.NodeProto, context: Context) -> list[onnx.NodeProto] | None:
    """Whole exponents: ncnn computes exp(y log x), which is wrong for negative x."""
    if node.input[0] in context.constants:
        return None
    exponent = np.asarray(context.constant(node, 1), np.float64)
    number = exponent.flat[0] if exponent.size else 1.0
    if (exponent != number).any():
        raise Refused("several exponents are not converted")
    if number != int(number):
        return None
    if not 1 <= abs(number) <= MAX_FACTORS:
        raise Refused(f"the exponent must be from 1 to {MAX_FACTORS}, got {number:g}")
    x = node.input[0]
    links: list[Link] = [("Mul", [x], {})] * (int(abs(number)) - 1)
    links += [("Reciprocal", [], {})] if number < 0 else []
    return context.chain(node, *(links or [("Identity", [], {})]))


@rewrites("Shrink")
def hard_shrink(node: onnx.NodeProto, context: Context) -> list[onnx.NodeProto] | None:
    """A bias: Shrink without one, minus the bias times its sign."""
    given = attributes(node)
    bias, threshold = given.get("bias", 0.0), given.get("lambd", 0.5)
    if threshold < 0:
        raise Refused("a negative lambd is not converted")
    if not bias:
        return None
    hard, sign, part = (context.name() for _ in range(3))
    return [
        helper.make_node("Shrink", node.input, [hard], lambd=threshold),
        helper.make_node("Sign", [hard], [sign]),
        helper.make_node("Mul", [sign, context.add(bias)], [part]),
        helper.make_node("Sub", [hard, part], node.output),
    ]


@rewrites("ThresholdedRelu")
def by_sign(node: onnx.NodeProto, context: Context) -> list[onnx.NodeProto]:
    """X times relu(sign(x - alpha))."""
    alpha, x = context.add(attributes(node).get("alpha", 1.0)), node.input[0]
    links: list[Link] = [("Sub", [alpha], {}), ("Sign", [], {}), ("Relu", [], {}), ("Mul", [x], {})]
    return context.chain(node, *links)


@rewrites("Softsign")
def by_reciprocal(node: onnx.NodeProto, context: Context) -> list[onnx.NodeProto]:
    """X times 1 / (1 + |x|)."""
    one, x = context.add(1), node.input[0]
    links: list[Link] = [("Abs", [], {}), ("Add", [one], {}), ("Reciprocal", [], {}), ("Mul", [x], {})]
    return context.chain(node, *links)


@rewrites("Selu")
def by_elu(node: onnx.NodeProto, context: Context) -> list[onnx.NodeProto] | None:
    """Other constants than the usual ones: gamma times Elu."""
    given = attributes(node)
    if not given:
        return None
    alpha, gamma = given.get("alpha", 1.67326319217681884), given.get("gamma", 1.05070102214813232)
    elu: Link = ("Elu", [], {"alpha": alpha})
    return context.chain(node, elu, ("Mul", [context.add(gamma)], {}))


@rewrites("Gelu")
def by_erf(node: onnx.NodeProto, context: Context) -> list[onnx.NodeProto]:
    """Half of x times (1 + erf(x / sqrt 2)), or the form with tanh."""
    if attributes(node).get("approximate", "none") != "none":
        raise Refused("the approximation by tanh is not converted")
    x, root, one, half = node.input[0], *(context.add(v) for v in (2**-0.5, 1, 0.5))
    links: list[Link] = [("Mul", [root], {}), ("Erf", [], {}), ("Add", [one], {})]
    return context.chain(node, *links, ("Mul", [x], {}), ("Mul", [half], {}))


@rewrites("Mish")
def by_softplus(node: onnx.NodeProto, context: Context) -> list[onnx.NodeProto]:
    """X times tanh(softplus(x))."""
    return context.chain(node, ("Softplus", [], {}), ("Tanh", [], {}), ("Mul", [node.input[0]], {}))


@rewrites("Cast", "Dropout")
def left_out(node: onnx.NodeProto, context: Context) -> list[onnx.NodeProto] | None:
    """A Cast to the type that a value has; Dropout, which does nothing in inference."""
    before, after = (context.values[n].dtype for n in (node.input[0], node.output[0]))
    if node.op_type == "Cast" and before != after:
        raise Refused(f"a cast from {before} to {after} is not converted")
    return context.chain(node, ("Identity", [], {}))


# Reductions and normalization.


REDUCTIONS = ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "Sum", "SumSquare")


@rewrites(*[f"Reduce{kind}" for kind in REDUCTIONS])
def axes_as_attribute(node: onnx.NodeProto, context: Context) -> list[onnx.NodeProto] | None:
    """Axes as an attribute; one after the other for maxima, a mean times its size for sums."""
    given, kind = attributes(node), node.op_type.removeprefix("Reduce")
    shape, keepdims = context.shape(node.input[0]), given.get("keepdims", 1)
    axes = given.get("axes")
    if axes is None:
        told = context.constant(node, 1)
        axes = [] if told is None else np.asarray(told).tolist()
    if not axes and given.get("noop_with_empty_axes"):
        raise Refused("noop_with_empty_axes is not converted")
    axes = sorted(a % len(shape) for a in axes) or list(range(len(shape)))
    if kind in ("Max", "Min"):
        links: list[Link] = [(node.op_type, [], {"axes": [a], "keepdims": 0}) for a in axes[::-1]]
        to_shape = context.add(context.shape(node.output[0]), np.int64)
        return context.chain(node, *links, ("Reshape", [to_shape], {}))
    form = {"axes": axes, "keepdims": keepdims}
    if kind == "Sum":
        count = context.add(np.prod([shape[a] for a in axes]))
        return context.chain(node, ("ReduceMean", [], form), ("Mul", [count], {}))
    return context.chain(node, (node.op_type, [], form))


@rewrites("LayerNormalization")
def one_axis(node: onnx.NodeProto, context: Context) -> list[onnx.NodeProto] | None:
    """Several axes as one; zeros where there is no bias."""
    given, shape = attributes(node), context.shape(node.input[0])
    axis = given.get("axis", -1) % len(shape)
    if len([o for o in node.output if o]) > 1:
        raise Refused("means and deviations as outputs are not converted")
    size = int(np.prod(shape[axis:]))
    scale, bias = context.constant(node, 1), context.constant(node, 2)
    if axis == len(shape) - 1 and bias is not None:
        return None
    scale = np.broadcast_to(np.asarray(scale), shape[axis:]).reshape(size)
    bias = np.zeros(size) if bias is None else np.broadcast_to(bias, shape[axis:]).reshape(size)
    flat, back = (context.add(s, np.int64) for s in ((*shape[:axis], size), shape))
    norm = [context.add(scale), context.add(bias)]
    how = {"axis": -1, "epsilon": given.get("epsilon", 1e-5)}
    links: list[Link] = [("Reshape", [flat], {}), ("LayerNormalization", norm, how)]
    return context.chain(node, *links, ("Reshape", [back], {}))


@rewrites("GroupNormalization")
def by_instances(node: onnx.NodeProto, context: Context) -> list[onnx.NodeProto]:
    """Each group as a channel of InstanceNormalization, then scale and bias."""
    given, shape = attributes(node), context.shape(node.input[0])
    groups, ones = given["num_groups"], [1] * (len(shape) - 2)
    by_channel = [np.asarray(context.constant(node, i)) for i in (1, 2)]
    if by_channel[0].size == groups:
        by_channel = [v.repeat(shape[1] // groups) for v in by_channel]
    scale, bias = (context.add(v.reshape(1, -1, *ones)) for v in by_channel)
    flat, back = (context.add(s, np.int64) for s in ((shape[0], groups, -1, 1), shape))
    norm = [context.add(np.ones(groups)), context.add(np.zeros(groups))]
    how = {"epsilon": given.get("epsilon", 1e-5)}
    links: list[Link] = [("Reshape", [flat], {}), ("InstanceNormalization", norm, how)]
    links += [("Reshape", [back], {}), ("Mul", [scale], {}), ("Add", [bias], {})]
    return context.chain(node, *links)


def _run(node: onnx.NodeProto, x: torch.Tensor, target: Any = None, opset: int = 13) -> Array:
    """The result of a node y = f(x), whose input `target` is a constant."""
    infos = [value_info("x", x.numpy()), onnx.ValueInfoProto(name="y")]
    tensors = [] if target is None else [numpy_helper.from_array(target, "target")]
    graph = helper.make_graph([node], "one", infos[:1], infos[1:], tensors)
    imports = [helper.make_opsetid("", opset)]
    model = helper.make_model(graph, opset_imports=imports, ir_version=8)
    result: Array = OnnxModule(model)(x).numpy()
    return result
