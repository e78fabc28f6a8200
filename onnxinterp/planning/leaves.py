"""Typed leaves: a module of the tree that is one layer of torch becomes this layer.

A tool that adapts or quantizes layers looks for nn.Linear, nn.Conv2d, ... and changes what it
finds. Which kernels are such layers is declared beside them (`registry.leaf`). A module becomes a
layer if its steps are calls of one, with exactly the weights that the module holds, under the names
that torch has for them. The layer holds the same parameters, and is called with its input alone.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from functools import cached_property
from inspect import Parameter, signature
from typing import Any

import torch
from torch import Tensor, nn

from onnxinterp.errors import SaveError
from onnxinterp.graph.scopes import path_of
from onnxinterp.planning.scoping import Chain
from onnxinterp.registry import LEAVES, Leaf
from onnxinterp.runtime.plan import Step, onnx_name_of
from onnxinterp.weights import Weights
from onnxinterp.weights.tree import level_at, register


@dataclass(frozen=True)
class LeafCall:
    """A call of a layer.

    Attributes:
        path: attributes that lead to the layer.
        source: the ONNX name of its input.
        weights: ONNX name of each weight of the layer -> its attribute there.
    """

    path: tuple[str, ...]
    source: str
    weights: Mapping[str, str]


@dataclass(frozen=True)
class Leaves:
    """The layers of one module.

    Attributes:
        calls: name of the result of each call of a layer -> the call.
        layers: attributes that lead to a layer -> the layer; a tool may put another in its place.
    """

    calls: dict[str, LeafCall] = field(default_factory=dict)
    layers: dict[tuple[str, ...], nn.Module] = field(default_factory=dict)

    def calls_without(self, overridden: Set[str]) -> dict[str, str]:
        """Result of each call of a layer -> its input; unless a call of the model gives weights."""
        calls = self.calls.items()
        return {name: c.source for name, c in calls if overridden.isdisjoint(c.weights)}

    def layers_with(self, overridden: Set[str]) -> set[tuple[str, ...]]:
        """The layers whose weights a call of the model gives: they are not called."""
        calls = self.calls.values()
        return {call.path for call in calls if not overridden.isdisjoint(call.weights)}

    def check_kept(self, root: nn.Module) -> None:
        """Check that no layer was replaced by one with parameters of its own.

        Raises:
            SaveError: one was, so that the weights of the file are not all that it computes with.
        """
        for path, layer in self.layers.items():
            now = level_at(root, path)
            if added := set(now.parameters()).difference(layer.parameters()):
                raise SaveError(
                    f"{'.'.join(path)!r} must have no other parameters than those of the file, got "
                    f"a {type(now).__name__} with {len(added)} more: merge adapters first"
                )


def place_layers(
    steps: Sequence[Step],
    chains: Sequence[Chain],
    weights: Weights,
    modules: Mapping[str, tuple[str, ...]],
    ranks: Callable[[], Mapping[str, int]],
) -> Leaves:
    """Find the modules that are one layer of torch, and put layers in their places.

    Args:
        steps: of a flat plan, in which no step is of two modules.
        chains: for each step, the modules it is called in, outermost first.
        weights: all weights.
        modules: path of each module that can be called -> attributes that lead to it.
        ranks: returns the ranks of the values of the plan, where they are known.
    """
    members = defaultdict[str, list[Step]](list)
    for step, chain in zip(steps, chains, strict=True):
        for path in dict.fromkeys(map(path_of, chain)):
            members[path].append(step)
    found, finder = Leaves(), _Finder(weights, ranks)
    for path, attributes in modules.items():
        layers = [finder.layer(step, attributes) for step in members[path]]
        kinds = {None if layer is None else finder.kind(*layer) for layer in layers}
        if len(kinds) == 1 and layers[0] is not None:
            found.layers[attributes] = layers[0][0]
            calls = [layer[1] for layer in layers if layer is not None]
            found.calls.update(zip((s.outputs[0] for s in members[path]), calls, strict=True))
    for attributes, module in found.layers.items():
        *around, name = attributes
        register(level_at(weights.root, around), "module", name, module)
    return found


class _Finder:
    """Finds the layers that steps are calls of."""

    def __init__(self, weights: Weights, ranks: Callable[[], Mapping[str, int]]) -> None:
        self.weights = weights
        self._ranks = ranks

    @cached_property
    def ranks(self) -> Mapping[str, int]:
        """The ranks of values: found when they are first needed."""
        return self._ranks()

    def kind(self, module: nn.Module, call: LeafCall) -> tuple[str, tuple[str, ...]]:
        """What two calls of one layer have in common."""
        return repr(module), tuple(call.weights)

    def layer(self, step: Step, path: tuple[str, ...]) -> tuple[nn.Module, LeafCall] | None:
        """The layer that a step calls, with the weights of the module at a path."""
        function = step.fused or step.kernel
        build, level = LEAVES.get(function), level_at(self.weights.root, path)
        if build is None or level._modules or len(step.outputs) > 1:
            return None
        parameters = signature(build).parameters.values()
        own = [p.name for p in parameters if p.kind is not Parameter.KEYWORD_ONLY]
        taken = {p.name for p in parameters} - set(own)
        given = _arguments(function, step)
        sources = [name for parameter, name in given.items() if parameter not in own and name]
        held = {p: name for p, name in given.items() if p in own and name in self.weights}
        if len(sources) != 1 or len(held) != sum(map(bool, given.values())) - 1:
            return None
        attributes = {name: value for name, value in _attributes(step).items() if name in taken}
        if "rank" in taken:
            attributes["rank"] = self.ranks.get(sources[0])
        tensors = {parameter: self.weights[name] for parameter, name in held.items()}
        try:
            leaf: Leaf | None = build(**tensors, **attributes)
        except (ValueError, TypeError, RuntimeError):  # an invalid node raises when it runs
            return None
        if leaf is None or not _is_filled(leaf, tensors):
            return None
        names = {name: leaf.names[parameter] for parameter, name in held.items()}
        if any(self.weights.holder(n) != (level, attribute) for n, attribute in names.items()):
            return None
        if len(names) != len(level._parameters) + len(level._buffers):
            return None
        return _fill(leaf, tensors), LeafCall(path, sources[0], names)


def _arguments(function: Callable[..., Any], step: Step) -> dict[str, str]:
    """Parameter of a kernel -> ONNX name of what a step passes, "" for nothing."""
    positional = [
        p.name for p in signature(function).parameters.values() if p.kind is not p.KEYWORD_ONLY
    ]
    names = [onnx_name_of(key) for key in step.inputs]
    return dict(zip(positional, names, strict=False)) if len(names) <= len(positional) else {}


def _attributes(step: Step) -> dict[str, Any]:
    """The keyword arguments of a step, and the defaults of its kernel."""
    parameters = signature(step.fused or step.kernel).parameters.values()
    defaults = {p.name: p.default for p in parameters if p.default is not p.empty}
    return {**{n: v for n, v in defaults.items()}, **step.attributes}


def _is_filled(leaf: Leaf, tensors: Mapping[str, Tensor]) -> bool:
    """Whether weights are all that a layer needs, and of its shapes."""
    module = leaf.module
    attributes = {leaf.names[parameter]: tensor for parameter, tensor in tensors.items()}
    wanted = {name: p for name, p in module._parameters.items() if p is not None}
    buffers = {name: b for name, b in module._buffers.items() if name in attributes}
    if attributes.keys() != {*wanted, *buffers} or len({t.dtype for t in attributes.values()}) > 1:
        return False
    return all(
        tensor.shape == (wanted | buffers)[name].shape
        and isinstance(tensor, nn.Parameter) == (name in wanted)
        for name, tensor in attributes.items()
    )


def _fill(leaf: Leaf, tensors: Mapping[str, Tensor]) -> nn.Module:
    """The layer with these very weights; a count of its own starts at zero, where they are."""
    module = leaf.module.eval()
    device = next(iter(tensors.values())).device
    for name, buffer in module._buffers.items():
        if buffer is not None:
            module._buffers[name] = torch.zeros_like(buffer, device=device)
    for parameter, tensor in tensors.items():
        name = leaf.names[parameter]
        table = module._parameters if isinstance(tensor, nn.Parameter) else module._buffers
        table[name] = tensor  # type: ignore[assignment]
    return module
