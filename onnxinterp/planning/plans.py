"""The plans of a module: one for each mode, made when it is first needed, and kept.

    Plans           all plans of one module, and what they depend on
    BoundPlan       one of them, and where the weights it reads are stored

A plan holds constants, so it is made anew when these may have changed: after `.to()`,
`load_state_dict`, `refresh()`. Sizes of inputs that come a second time get a plan of their own, in
which all that depends on these sizes alone is a constant.

Threads may share a module: a table of plans is replaced, never changed, so that whoever reads one
finds it whole. Two threads may make the same plan at once; either is right.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextvars import ContextVar
from copy import copy
from dataclasses import replace
from typing import Any
from weakref import WeakSet

import numpy as np
from torch import Tensor, nn

from onnxinterp.graph.ir import Graph, ValueInfo
from onnxinterp.graph.scopes import module_with_mode
from onnxinterp.graph.types import infer_types, type_of
from onnxinterp.limits import Limits
from onnxinterp.planning.blocks import nest
from onnxinterp.planning.bound import EVAL, BoundPlan, Mode, Sizes
from onnxinterp.planning.constants import large_constants
from onnxinterp.planning.facts import Setting, infer, snapshot
from onnxinterp.planning.isolation import outside_transforms
from onnxinterp.planning.leaves import LeafCall, Leaves, place_layers
from onnxinterp.planning.placement import device_of, floating_dtype
from onnxinterp.planning.planner import make_plan
from onnxinterp.planning.scoping import Chain
from onnxinterp.planning.scoping import chains as chains_of
from onnxinterp.planning.static_shapes import MAX_STEPS, Found, ranks, static_shapes
from onnxinterp.planning.tracing import Tracer
from onnxinterp.programs import WeightSizes
from onnxinterp.runtime.guard import Guard
from onnxinterp.runtime.plan import Key, Plan, WeightPlace
from onnxinterp.values import Host, Shape, constant_when_compiled
from onnxinterp.weights import Weights, tensors_of
from onnxinterp.weights.parametrized import parameters_of
from onnxinterp.weights.trainable import constant_names
from onnxinterp.weights.watch import Watch

MAX_SIZES = 16  # plans for particular sizes, each mode
_FOUND: ContextVar[Found | None] = ContextVar("_FOUND", default=None)


class Plans:
    """The plans of one module.

    Attributes:
        graph: the decoded main graph.
        weights: all weights; where they are and what they are is read when a plan is made.
        strings: constants that are arrays of strings.
        packed: weight -> ONNX type, of types narrower than their torch dtype.
        limits: what folding may take.
        fuse: whether nodes that are one function in torch run as one.
        watch: whether the modules of the tree must be called.
        loaded_as: dtype of the first floating weight at load.
        leaves: the modules that are layers of torch.
    """

    def __init__(
        self,
        graph: Graph,
        weights: Weights,
        strings: Mapping[str, np.ndarray[Any, Any]],
        packed: Mapping[str, int],
        limits: Limits,
        fuse: bool,
        types: Mapping[str, int],
        watch: Watch,
    ) -> None:
        self.watch = watch
        self.graph = graph
        self.weights = weights
        self.strings = strings
        self.packed = packed
        self.limits = limits
        self.fuse = fuse
        self.leaves = Leaves()
        kernels = [node.kernel for node in graph.walk() if node.kernel]
        self.has_modes = any(kernel.has_modes for kernel in kernels)
        self._moded = self._modules_with_modes()
        self.loaded_as = floating_dtype(weights)
        self._hosts: dict[str, Host] = {}  # numbers of the file: they outlast casts and meta
        self._parts: WeakSet[Plans] = WeakSet()
        self._start(self._setting(frozenset()), types)

    def reset(self, frozen_stats: frozenset[str], *, reread: bool = False) -> None:
        """Forget all plans: weights were moved, cast or loaded.

        Args:
            frozen_stats: names of the statistics that training leaves as they are.
            reread: read small constants anew, which were changed in place.
        """
        if reread:  # numbers on the meta device cannot be read again
            self._hosts = {n: h for n, h in self._hosts.items() if self.weights[n].is_meta}
        setting = self._setting(frozen_stats)
        known = {name: type_of(value) for name, value in setting.constants.items()}
        self._start(setting, infer_types(self.graph, known | dict(setting.types)))

    def _start(self, setting: Setting, types: Mapping[str, int]) -> None:
        self.setting = setting
        self._facts = infer(self.graph, types, self.static_shapes)
        self._plans: dict[Mode, BoundPlan] = {}
        self._shapes: Found | None = None
        tracer = self.__dict__.get("tracer")
        if tracer is None or not tracer.is_for(self, setting, types):
            self.tracer = Tracer(self, setting, types)
        for part in tuple(self._parts):
            part._start(setting, types)

    def get(
        self, training: bool, overridden: frozenset[str] = frozenset(), nested: bool = False
    ) -> BoundPlan:
        """The plan for a mode, where a call gives the `overridden` initializers.

        A nested plan runs blocks inside of the modules that their nodes come from. With layers of
        torch in their places, each plan is.
        """
        return self.bound(self.mode(training, overridden, nested))

    def mode(
        self, training: bool, overridden: frozenset[str] = frozenset(), nested: bool = False
    ) -> Mode:
        """What a plan is made for, likewise."""
        apart = frozenset([path for path, level in self._moded if level.training != training])
        nested = nested or bool(self.leaves.calls)
        return Mode(training and self.has_modes, apart, overridden, nested)

    def bound(self, mode: Mode) -> BoundPlan:
        """The plan for a mode."""
        plans = self._plans  # a thread may put another there meanwhile
        if (found := plans.get(mode)) is None:
            found = plans[mode] = self._make_nested(mode) if mode.nested else self._make(mode)
            for part in tuple(self._parts):
                part.bound(mode._replace(overridden=frozenset()))
        return found

    def flat(self, training: bool, apart: frozenset[str], overridden: frozenset[str]) -> BoundPlan:
        """The plan for a mode that calls no modules."""
        return self.bound(Mode(training, apart, overridden, nested=False))

    def _modules_with_modes(self) -> list[tuple[str, nn.Module]]:
        """Path and module, where nodes follow the mode of the module."""
        places, levels = self._modules({}), self.weights.own_levels
        nodes = [n for n in self.graph.walk() if n.kernel and n.kernel.has_modes]
        paths = dict.fromkeys(map(module_with_mode, nodes))
        return [(path, levels[places[path]]) for path in paths if path in places]

    @constant_when_compiled
    def is_nested(self, training: bool) -> bool:
        """Whether a call runs a nested plan, which is made now: not while the call is captured."""
        if not (self.leaves.calls or self.watch.is_observed()):
            return False
        self.get(training, nested=True)
        return True

    def _make_nested(self, mode: Mode) -> BoundPlan:
        flat = self._make(mode)
        places = {place.name: place for place in flat.reads}
        calls = self.leaves.without(mode.overridden)
        modules, levels = self._modules(calls), self.weights.own_levels
        sources = {name: call.source for name, call in calls.items()}
        plan = nest(flat.plan, self._chains(flat.plan), places, levels, modules, sources)
        reads = [place for place in flat.reads if place.name in {*plan.captures, *plan.inputs}]
        return replace(flat, plan=plan, reads=reads)

    def _chains(self, plan: Plan) -> list[Chain]:
        return chains_of(plan.steps, self.setting.weights - self.setting.constants.keys())

    def _modules(self, calls: Mapping[str, LeafCall]) -> Mapping[str, tuple[str, ...]]:
        """Path of each module that a plan calls -> attributes that lead to it."""
        modules = self.weights.modules_called or self.weights.levels()
        unused = self.leaves.layers.keys() - {call.path for call in calls.values()}
        return {path: names for path, names in modules.items() if names not in unused}

    def place_layers(self) -> None:
        """Put layers of torch in the places of the modules that are one."""
        plan, modules = self._make(EVAL._replace(nested=True)).plan, self._modules({})
        self.leaves = place_layers(
            plan.steps, self._chains(plan), self.weights, modules, lambda: self._ranks(plan)
        )
        self.watch = Watch(self.weights.root)
        self._moded = self._modules_with_modes()
        self._plans = {}

    def _ranks(self, plan: Plan) -> dict[str, int]:
        limits = replace(self.limits, steps=MAX_STEPS)
        with outside_transforms(), Guard.of_plan(limits) as guard:
            weights = dict(self.weights.items())
            return ranks(self.graph, plan, weights, self._facts.types, guard)

    def part(self, outputs: Iterable[str]) -> Plans:
        """Plans of other outputs, on the same weights: they are made anew when these are.

        Args:
            outputs: any values of the main graph; nodes that they do not need do not run.
        """
        part, declared = copy(self), {o.name: o for o in self.graph.outputs}
        part.graph = self.graph.pruned([declared.get(n, ValueInfo(n)) for n in outputs])
        part._start(self.setting, self._facts.types)
        self._parts.add(part)
        for mode in tuple(self._plans):
            part.get(mode.training, nested=mode.nested)
        return part

    def unfused(self) -> Plans:
        """Plans of the same graph as it is now, in which each node runs by itself."""
        plans = copy(self)
        plans.leaves, plans._moded = replace(self.leaves, calls={}), []
        plans._start(replace(self.setting, fuse=False), self._facts.types)
        return plans

    def specialize(
        self,
        bound: BoundPlan,
        sizes: Sizes,
        values: Mapping[Any, Any],
        weights: Mapping[Key, Tensor],
        guard: Guard | None,
    ) -> None:
        """Note the sizes of a call; when they come a second time, make a plan for them.

        Args:
            bound: the plan that ran.
            sizes: shapes of the inputs of the call.
            values: what its frame holds at the end.
            weights: those that it read.
            guard: watches the call.
        """
        known, made = bound.by_sizes, None
        if sizes in known:
            made = self.sized(bound, values, guard)
            made.weight_sizes = WeightSizes(weights[place.name] for place in made.reads)
        elif len(known) >= MAX_SIZES:
            known = dict(list(known.items())[1:])
        bound.by_sizes = {**known, sizes: made}

    def sized(
        self, bound: BoundPlan, values: Mapping[Any, Any], guard: Guard | None = None
    ) -> BoundPlan:
        """A plan for the sizes of a call, likewise."""
        found = {n: v for n in bound.plan.sized if isinstance(v := values.get(n), Host)}
        if not found:
            return replace(bound, by_sizes={})
        return self._make(bound.mode, guard, sized=found, folded=large_constants(bound.plan))

    def static_shapes(self, outputs: Sequence[ValueInfo]) -> tuple[Shape, ...]:
        """The shapes of a subgraph's outputs that are known before a call."""
        shapes = self._all_static_shapes()
        return tuple([shapes.get(o.name) for o in outputs])

    @constant_when_compiled
    def _all_static_shapes(self) -> Found:
        """Those of all subgraphs; while they are being found, those that are found so far."""
        found = _FOUND.get() if self._shapes is None else self._shapes
        if found is not None:
            return found
        found = {}
        bound = self._plans.get(EVAL) or self._make(EVAL)
        plan, weights = bound.plan, tensors_of(self.weights)
        token = _FOUND.set(found)
        try:
            limits = replace(self.limits, steps=MAX_STEPS)
            with outside_transforms(), Guard.of_plan(limits) as guard:
                static_shapes(self.graph, plan, weights, self._facts.types, guard, found)
        finally:
            _FOUND.reset(token)
        self._shapes = found
        return found

    def __getstate__(self) -> dict[str, Any]:
        derived = ("setting", "_facts", "_plans", "_shapes", "_parts", "tracer")
        return {k: v for k, v in self.__dict__.items() if k not in derived}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _parts=WeakSet())

    def _make(self, mode: Mode, guard: Guard | None = None, **known: Any) -> BoundPlan:
        base = self.setting
        constants = {n: t for n, t in base.constants.items() if n not in mode.overridden}
        setting = replace(
            base,
            weights=base.weights - mode.overridden,
            constants=constants,
            hosts={n: h for n, h in base.hosts.items() if n in constants},
            training=mode.training,
            apart=mode.apart,
            by_module=mode.nested,
            guard=guard or Guard.of_plan(self.limits),
            **known,
        )
        # a call inside grad, vmap or a trace may need a plan: its constants are for all calls
        with outside_transforms():
            plan = make_plan(self.graph, setting, self._facts)
        needed = {*plan.captures, *plan.inputs}.difference(mode.overridden)
        reads = [self._place(n) for n in self.weights if n in needed]
        return BoundPlan(plan, reads, mode)

    def _place(self, name: str) -> WeightPlace:
        holder, attribute = self.weights.holder(name)
        return WeightPlace(name, None if holder is self.weights.root else holder, attribute)

    def _setting(self, frozen_stats: frozenset[str]) -> Setting:
        """What plans depend on, as it is now: `functional_call` may have replaced weights."""
        weights = tensors_of(self.weights)
        constants = {
            n: weights[n]
            for n in constant_names(self.graph, weights)
            if not parameters_of(*self.weights.holder(n))
        }
        for name, tensor in constants.items():
            if name not in self._hosts and (host := snapshot(tensor)) is not None:
                self._hosts[name] = host
        dtypes = {}
        if self.loaded_as is not None:
            dtypes = {self.loaded_as: floating_dtype(self.weights) or self.loaded_as}
        hosts = self._hosts  # the numbers of the file, in the type that the tensor has now
        hosts = {n: hosts[n].cast(t.dtype) for n, t in constants.items() if n in hosts}
        for name, tensor in constants.items():  # on the meta device numbers are known all the same
            if tensor.is_meta and name in hosts:
                constants[name] = hosts[name].tensor()
        return Setting(
            weights=frozenset(weights),
            constants={**constants, **self.strings},
            hosts=hosts,
            training=False,
            device=device_of(self.weights),
            dtypes=dtypes,
            types={n: type_of(t) for n, t in weights.items()} | dict(self.packed),
            shapes={n: t.shape for n, t in weights.items()},
            frozen_stats=frozen_stats,
            fuse=self.fuse,
        )
