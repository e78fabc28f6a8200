"""Rewrites of elementwise operators for ncnn."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper

from onnxinterp.deploy.ncnn_context import (
    Context,
    Link,
    Refused,
    attributes,
    rewrites,
)

MAX_FACTORS = 8  # of a power that is written as a product


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
    links: list[Link] = [
        ("Abs", [], {}),
        ("Add", [one], {}),
        ("Reciprocal", [], {}),
        ("Mul", [x], {}),
    ]
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
