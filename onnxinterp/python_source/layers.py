"""Kernels that are a layer of torch: `nn.Linear`, `nn.Conv2d`, ..."""

from __future__ import annotations

from collections.abc import Mapping
from inspect import signature
from typing import Any

from torch import Tensor, nn

from onnxinterp.runtime.plan import Key, Step, onnx_name_of
from onnxinterp.torch_weights import LEAVES
from onnxinterp.weights import Weights

Found = tuple[nn.Module, Key, dict[str, Key]]


def layer_of(step: Step, weights: Weights, values: Mapping[Key, Any]) -> Found | None:
    """The layer that a step is a call of.

    Args:
        step: the step.
        weights: of the module.
        values: those that the step reads.

    Returns:
        The layer without data, the key of its input, and attribute of the layer -> key of its
        weight; None where the step is none, or reads something else than weights and one input.
    """
    function = step.fused or step.kernel
    leaf = LEAVES.get(function)
    if leaf is None or len(step.outputs) > 1 or step.subgraphs:
        return None
    parameters = signature(function).parameters.values()
    positional = [p.name for p in parameters if p.kind is not p.KEYWORD_ONLY]
    given = {p: key for p, key in zip(positional, step.inputs, strict=False) if key != ""}
    sources = [key for name, key in given.items() if name not in leaf.names]
    held = {leaf.names[name]: key for name, key in given.items() if name in leaf.names}
    names = {attribute: onnx_name_of(key) for attribute, key in held.items()}
    if len(sources) != 1 or any(name not in weights for name in names.values()):
        return None
    tensors = {p: weights[onnx_name_of(key)] for p, key in given.items() if p in leaf.names}
    attributes = {p.name: p.default for p in parameters} | step.attributes | tensors
    attributes["rank"] = getattr(values.get(sources[0]), "ndim", None)
    wanted = signature(leaf.build).parameters
    try:
        layer = leaf.build(**{n: v for n, v in attributes.items() if n in wanted})
    except (ValueError, TypeError, RuntimeError):  # an attribute that torch has no layer for
        return None
    tensors = {attribute: weights[name] for attribute, name in names.items()}
    types = {tensor.dtype for tensor in tensors.values()}
    if layer is None or len(types) > 1 or not all(dtype.is_floating_point for dtype in types):
        return None
    if not _fits(layer, tensors):
        return None
    for dtype in types:
        layer.to(dtype)
    return layer, sources[0], held


def _fits(layer: nn.Module, tensors: dict[str, Tensor]) -> bool:
    """Whether weights are all that a layer needs, and have its shapes."""
    parameters = {name for name, p in layer._parameters.items() if p is not None}
    buffers = {name for name in layer._buffers if name in tensors}
    shapes: Any = {name: getattr(layer, name).shape for name in tensors if hasattr(layer, name)}
    return tensors.keys() == parameters | buffers and all(
        t.shape == shapes[name] for name, t in tensors.items()
    )
