"""Which weights are parameters, and which of them train.

A parameter is a floating tensor that some kernel computes with, on a path to an output along which
a gradient flows. All other tensors are settings: a kernel declares its input as plain numbers, as
`frozen` or as state, or all that is computed from the tensor ends at such inputs or becomes an
integer. Planning folds what depends on settings alone. Three more kinds of tensors are settings:

    rank 0        an epsilon, a scale, ...
    one number    a Constant node of one element, or of one number repeated.
    no name       if the file records the torch module of each node: every Constant node, and an
                  initializer of one number repeated whose name is not one of torch, or of one
                  element that no node of the module in its name reads. Exporters store constants
                  as initializers, too.
    not finite    a mask filled with -inf, or with the largest number of its type: a step with
                  weight decay could make it NaN.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import cache
from typing import TypeAlias

import torch
from torch import Tensor, nn

from onnxinterp.graph.ir import Graph, Model, Node
from onnxinterp.graph.scopes import are_separate, is_torch_name
from onnxinterp.patterns import select
from onnxinterp.weights.gradient_flow import reached_inputs

Trainable: TypeAlias = "str | Iterable[str] | Callable[[str, Tensor], bool]"
Range: TypeAlias = "tuple[float, float]"

SETS = ("weights", "all", "none")  # values of `trainable` that are no patterns
CAN_TRAIN = "trainable must match a floating and finite tensor that a gradient can reach"
MAX_TESTED_ELEMENTS = 2**16  # of one tensor: a test of all would read all of a mapped file
TESTED_PARTS = 64  # of a larger tensor, from its start to its end
UNKNOWN_RANGE: Range = (-1.0, 1.0)
NOT_TIED: Mapping[str, str] = {}


def parameters(
    model: Model,
    graph: Graph,
    tensors: Mapping[str, Tensor],
    types: Mapping[str, int],
    trainable: Trainable,
    tied: Mapping[str, str] = NOT_TIED,
) -> dict[str, Tensor]:
    """The weights, parameters among them; see `choose_parameters` for the arguments.

    Names of one weight (`tied`: further name -> first name) get one parameter.
    """
    trains = trained(choose_parameters(model, graph, tensors, types, trainable), tied)
    made = {n: nn.Parameter(tensors[n], required) for n, required in trains.items()}
    return {n: made.get(tied.get(n, n), t) for n, t in tensors.items()}


def trained(chosen: Mapping[str, bool], tied: Mapping[str, str]) -> dict[str, bool]:
    """First name of each parameter -> whether it trains under any of its names."""
    trains: dict[str, bool] = {}
    for name, is_chosen in chosen.items():
        first = tied.get(name, name)
        trains[first] = trains.get(first, False) or is_chosen
    return trains


def choose_parameters(
    model: Model,
    graph: Graph,
    tensors: Mapping[str, Tensor],
    types: Mapping[str, int],
    trainable: Trainable = "weights",
    range_of: Callable[[str], Range] | None = None,
) -> dict[str, bool]:
    """Name of each parameter -> whether it trains.

    Args:
        model: the model, for what the file says of a weight.
        graph: the graph that reads the weights.
        tensors: the weights by name.
        types: the ONNX type of each value of the graph.
        trainable: "weights" (the default set), "none" (the default set, frozen), "all" (every
            floating and finite tensor that a gradient can reach), a name pattern or several
            (`fnmatch`), or a predicate of name and tensor. Named tensors train even if they are
            settings by default, if they are floating and finite and a gradient can reach them.
        range_of: the least and the largest element of a weight; by default, `value_range`.

    Raises:
        ValueError: a pattern matches no tensor that can train.
    """
    state = state_names(graph)
    floating = {n: t for n, t in tensors.items() if t.is_floating_point() or t.is_complex()}
    range_of = cache(range_of or (lambda name: value_range(tensors[name])))

    def can_train(reached: set[str]) -> list[str]:
        reached = reached - state
        return [n for n, t in floating.items() if n in reached and _is_finite(range_of(n), t.dtype)]

    able = can_train(reached_inputs(graph, types))
    settings = _numbers(model, graph, {n: tensors[n] for n in able}, range_of)
    default = [name for name in able if name not in settings]
    if trainable in ("weights", "none"):
        return dict.fromkeys(default, trainable == "weights")
    able = can_train(reached_inputs(graph, types, frozen=True))
    chosen = set(able if trainable == "all" else select(trainable, able, CAN_TRAIN, tensors))
    wrapped = chosen.union(default)
    return {name: name in chosen for name in able if name in wrapped}


def _numbers(
    model: Model, graph: Graph, tensors: Mapping[str, Tensor], range_of: Callable[[str], Range]
) -> set[str]:
    """The tensors that are settings because they are one number."""
    single = {name for name, t in tensors.items() if t.numel() == 1}
    small = (name for name, t in tensors.items() if t.numel() <= MAX_TESTED_ELEMENTS)
    repeated = single.union(name for name in small if len(set(range_of(name))) == 1)
    is_scoped = any(node.scopes for node in graph.nodes)
    nodes = {name for name in tensors if isinstance(model.tensors.get(name), Node)}
    constants = nodes if is_scoped else nodes & repeated
    scalars = {name for name in single if not tensors[name].ndim}
    unnamed = {name for name in repeated if not is_torch_name(name)}
    return scalars | constants | _apart_from_readers(graph, single | unnamed)


def state_names(graph: Graph) -> frozenset[str]:
    """The values that a kernel declares as state: training updates them without a gradient."""
    return frozenset(
        name
        for node in graph.walk()
        if node.kernel and node.kernel.state
        for index, name in enumerate(node.inputs)
        if (parameter := node.kernel.parameter(index)) and parameter.name in node.kernel.state
    )


def constant_names(graph: Graph, weights: Mapping[str, Tensor]) -> list[str]:
    """The weights that never change: neither parameters nor state."""
    state = state_names(graph)
    return [n for n, t in weights.items() if not isinstance(t, nn.Parameter) and n not in state]


def value_range(tensor: Tensor) -> Range:
    """The least and the largest of at most `MAX_TESTED_ELEMENTS`; NaN where an element is."""
    flat, count = tensor.reshape(-1), tensor.numel()
    if not count:
        return UNKNOWN_RANGE
    if count > MAX_TESTED_ELEMENTS:
        size = MAX_TESTED_ELEMENTS // TESTED_PARTS
        starts = [i * (count - size) // (TESTED_PARTS - 1) for i in range(TESTED_PARTS)]
        flat = torch.cat([flat[start : start + size] for start in starts])
    if flat.is_complex():
        flat = torch.view_as_real(flat)
    if flat.dtype.itemsize == 1:  # torch cannot compare 8-bit floats
        flat = flat.float()
    low, high = torch.aminmax(flat)
    return float(low), float(high)


def _is_finite(values: Range, dtype: torch.dtype) -> bool:
    """Whether all are finite and smaller than the largest number of their type."""
    largest = torch.finfo(dtype).max if dtype.itemsize > 1 else math.inf
    return -largest < values[0] and values[1] < largest


def _apart_from_readers(graph: Graph, names: Collection[str]) -> set[str]:
    """The weights whose names are of another torch module than all the nodes that read them."""
    apart = set(names)
    for node in graph.walk() if names else ():
        apart.difference_update(
            name
            for name in apart.intersection(node.inputs)
            if not are_separate(node.scope, name.rpartition(".")[0])
        )
    return apart
