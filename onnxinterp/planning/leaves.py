"""Typed leaves: a module of the tree that is one layer of torch becomes this layer.

A tool that adapts or quantizes layers looks for nn.Linear, nn.Conv2d, ... and changes what it
finds. Which kernels are such layers is declared beside them (`torch_weights.leaf`). A module
becomes a layer if its steps are calls of one, with exactly the weights that the module holds, under
the names that torch has for them. The layer holds the same parameters, and is called with its input
alone.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from inspect import signature
from typing import Any

import torch
from torch import Tensor, nn

from onnxinterp.errors import SaveError
from onnxinterp.graph.scopes import path_of
from onnxinterp.lazy import lazy
from onnxinterp.planning.scoping import Chain
from onnxinterp.runtime.plan import Step, onnx_name_of
from onnxinterp.torch_weights import LEAVES
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

    def without(self, overridden: Set[str]) -> dict[str, LeafCall]:
        """The calls of layers whose weights a call of the model does not give."""
        calls = self.calls.items()
        return {name: call for name, call in calls if overridden.isdisjoint(call.weights)}

    def check_kept(self, root: nn.Module) -> None:
        """Check that all layers compute with their weights alone.

        Raises:
            SaveError: one was replaced by a module with other parameters.
        """
        for path, layer in self.layers.items():
            now = root.get_submodule(".".join(path))
            if set(now.parameters()) != set(layer.parameters()):
                raise SaveError(
                    f"{'.'.join(path)!r} must have exactly the parameters of the file, got a "
                    f"{type(now).__module__}.{type(now).__name__}: merge adapters first"
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
    members = defaultdict[str, list[tuple[Step, Chain]]](list)
    for step, chain in zip(steps, chains, strict=True):
        paths = tuple([path for scope in chain if (path := path_of(scope)) in modules])
        for path in set(paths):
            members[path].append((step, paths))
    found, finder = Leaves(), _Finder(weights, ranks)
    for path, called in members.items():
        if any(paths[-1] != path for _, paths in called):
            continue
        layers = [layer for step, _ in called if (layer := finder.layer(step, modules[path]))]
        if len(layers) == len(called) and len({repr(module) for module, _ in layers}) == 1:
            found.layers[modules[path]] = layers[0][0]
            found.calls.update(
                {s.outputs[0]: c for (s, _), (_, c) in zip(called, layers, strict=True)}
            )
    for attributes, module in found.layers.items():
        *around, name = attributes
        weights.own_levels[attributes] = module
        register(level_at(weights.root, around), "module", name, module)
    return found


class _Finder:
    """Finds the layers that steps are calls of."""

    def __init__(self, weights: Weights, ranks: Callable[[], Mapping[str, int]]) -> None:
        self.weights = weights
        self._ranks = ranks

    @lazy
    def ranks(self) -> Mapping[str, int]:
        """The ranks of values: found when they are first needed."""
        return self._ranks()

    def layer(self, step: Step, path: tuple[str, ...]) -> tuple[nn.Module, LeafCall] | None:
        """The layer that a step calls, with the weights of the module at a path."""
        leaf = LEAVES.get(step.fused or step.kernel)
        level = level_at(self.weights.root, path)
        given = self._arguments(step)
        if leaf is None or given is None or level._modules or len(step.outputs) > 1:
            return None
        sources = [name for parameter, name in given.items() if parameter not in leaf.names]
        held = {name: leaf.names[p] for p, name in given.items() if p in leaf.names}
        if len(sources) != 1 or not all(self._is_held(level, *names) for names in held.items()):
            return None
        weights = {p: self.weights[name] for p, name in given.items() if p in leaf.names}
        module = self._build(leaf.build, {**_attributes(step), **weights}, sources[0])
        tensors = {leaf.names[parameter]: tensor for parameter, tensor in weights.items()}
        if module is None or not _fits(module, tensors, level):
            return None
        return _fill(module, tensors), LeafCall(path, sources[0], held)

    def _build(
        self, build: Callable[..., nn.Module | None], given: Mapping[str, Any], source: str
    ) -> nn.Module | None:
        """The layer, with what its function takes; None for a node that is not valid."""
        wanted = signature(build).parameters
        keywords = {name: value for name, value in given.items() if name in wanted}
        if "rank" in wanted:
            keywords["rank"] = self.ranks.get(source)
        try:
            return build(**keywords)
        except (ValueError, TypeError, RuntimeError):  # it is raised when the node runs
            return None

    def _is_held(self, level: nn.Module, name: str, attribute: str) -> bool:
        """Whether a weight is in a module, under this name."""
        return name in self.weights and self.weights.holder(name) == (level, attribute)

    def _arguments(self, step: Step) -> dict[str, str] | None:
        """Parameter of a kernel -> ONNX name of what a step passes; None where it reads more.

        The constants of a pattern are no arguments of the function.
        """
        parameters = signature(step.fused or step.kernel).parameters.values()
        positional = [p.name for p in parameters if p.kind is not p.KEYWORD_ONLY]
        names = [onnx_name_of(key) for key in step.inputs]
        others = names[len(positional) :]
        if not all(n in self.weights and not _is_parameter(self.weights[n]) for n in others):
            return None
        return {p: name for p, name in zip(positional, names, strict=False) if name}


def _is_parameter(tensor: Tensor) -> bool:
    return isinstance(tensor, nn.Parameter)


def _attributes(step: Step) -> dict[str, Any]:
    """The keyword arguments of a step, and the defaults of its kernel."""
    parameters = signature(step.fused or step.kernel).parameters.values()
    return {**{p.name: p.default for p in parameters}, **step.attributes}


def _fits(module: nn.Module, tensors: Mapping[str, Tensor], level: nn.Module) -> bool:
    """Whether the weights of a module are all that a layer needs, of its shapes and one dtype."""
    parameters = {name for name, p in module._parameters.items() if p is not None}
    buffers = {name for name in module._buffers if name in tensors}
    return (
        tensors.keys() == parameters | buffers
        and len(tensors) == len(level._parameters) + len(level._buffers)
        and len({tensor.dtype for tensor in tensors.values()}) == 1
        and all(t.shape == getattr(module, name).shape for name, t in tensors.items())
        and all(_is_parameter(t) == (name in parameters) for name, t in tensors.items())
    )


def _fill(module: nn.Module, tensors: Mapping[str, Tensor]) -> nn.Module:
    """Give a layer these very weights; a counter of its own starts at zero, where they are."""
    device = next(iter(tensors.values())).device
    for name, buffer in module._buffers.items():
        if buffer is not None:
            module._buffers[name] = torch.zeros_like(buffer, device=device)
    for name, tensor in tensors.items():
        table = module._parameters if _is_parameter(tensor) else module._buffers
        table[name] = tensor  # type: ignore[assignment]  # each has the type of its table
    return module.eval()
