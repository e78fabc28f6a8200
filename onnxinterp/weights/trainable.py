"""Which weights are trainable."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from fnmatch import fnmatchcase
from typing import TypeAlias

from torch import Tensor, nn

from onnxinterp.graph.ir import Graph, WeightRef
from onnxinterp.registry import Kind

Trainable: TypeAlias = "str | Iterable[str] | Callable[[str, Tensor], bool]"

TENSORS = (Kind.TENSOR, Kind.OPERAND, Kind.ANY)


def roles(graph: Graph) -> tuple[frozenset[str], frozenset[str]]:
    """What the kernels say of the values they read.

    Returns:
        The names some kernel takes as a tensor to compute with, neither frozen nor state: weights
        among them train. And the names that are state, brought up to date in training.
    """
    computed: set[str] = set()
    state: set[str] = set()
    for node in graph.walk():
        kernel = node.kernel
        for index, name in enumerate(node.inputs):
            parameter = kernel.parameter(index) if kernel else None
            if kernel is None or parameter is None:
                continue
            if parameter.name in kernel.state:
                state.add(name)
            elif parameter.name not in kernel.frozen and kernel.kinds[parameter.name] in TENSORS:
                computed.add(name)
        frozen = kernel.frozen if kernel else ()
        held = {k: v for k, v in node.attributes.items() if isinstance(v, WeightRef)}
        computed.update(v.name for k, v in held.items() if k not in frozen)
    return frozenset(computed), frozenset(state)


def parameters(
    tensors: Mapping[str, Tensor], graph: Graph, trainable: Trainable
) -> dict[str, Tensor]:
    """Wrap the tensors that train, or may be made to, as parameters.

    By default a floating tensor of rank 1 or more trains when a kernel computes with it. A rank-0
    tensor is taken for a setting (an epsilon, a scale), not for a weight.

    Args:
        tensors: all weights of the model.
        graph: the graph that uses them.
        trainable: "weights" (the default set), "none" (the default set, frozen), "all" (every
            floating tensor but statistics), a name pattern or several (`fnmatch`), or a predicate
            of name and tensor.
    """
    computed, state = roles(graph)
    wrapped: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        floating = tensor.is_floating_point() or tensor.is_complex()
        default = name in computed and tensor.ndim > 0
        trains = _trains(trainable, name, tensor, default)
        if floating and name not in state and (default or trains):
            wrapped[name] = nn.Parameter(tensor, requires_grad=trains)
        else:
            wrapped[name] = tensor
    return wrapped


def _trains(trainable: Trainable, name: str, tensor: Tensor, default: bool) -> bool:
    if isinstance(trainable, str) and trainable in ("weights", "all", "none"):
        return {"weights": default, "all": True, "none": False}[trainable]
    if callable(trainable):
        return bool(trainable(name, tensor))
    patterns = [trainable] if isinstance(trainable, str) else list(trainable)
    return any(fnmatchcase(name, pattern) for pattern in patterns)
