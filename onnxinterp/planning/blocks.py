"""Nested plans: runs of steps become blocks, which run inside the call of their module.

    nest(plan, chains, weights)     a plan whose steps are blocks, where they belong to a module

The steps of one level are grouped by the module they are called in. Each group becomes one step, in
a topological order. A group that others both follow and precede (a module called twice, a step of
another module in between) is split into several calls, in the order of the file.
"""

from __future__ import annotations

import heapq
from collections import Counter, defaultdict
from collections.abc import Container, Hashable, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from types import MappingProxyType

from torch import nn

from onnxinterp.graph.scopes import path_of
from onnxinterp.planning.components import Followers, components, connected
from onnxinterp.planning.liveness import live_steps
from onnxinterp.planning.scoping import Chain
from onnxinterp.runtime.plan import Block, Key, Plan, Step, WeightPlace, onnx_name_of


@dataclass(frozen=True)
class _Item:
    """A step, its place in the flat plan, and the modules that it is still to enter."""

    place: int
    step: Step
    chain: Chain


def nest(
    plan: Plan,
    chains: Sequence[Chain],
    weights: Mapping[str, WeightPlace],
    levels: Mapping[tuple[str, ...], nn.Module],
    modules: Mapping[str, tuple[str, ...]],
    sources: Mapping[str, str] = MappingProxyType({}),
) -> Plan:
    """The plan with blocks.

    Args:
        plan: a flat plan.
        chains: for each of its steps, the modules it is called in, outermost first.
        weights: where each weight is that the plan reads.
        levels: the modules of the tree, by the attributes that lead to them.
        modules: path of each module inside that can be called -> attributes that lead to it.
        sources: result of each step that is a call of a layer of torch -> the input of the layer.
    """
    known = [tuple(c for c in chain if path_of(c) in modules) for chain in chains]
    items = [
        _Item(place, step, _own_call(place, chain) if step.outputs[0] in sources else chain)
        for place, (step, chain) in enumerate(zip(plan.steps, known, strict=True))
    ]
    nesting = _Nesting(plan, weights, levels, modules, sources)
    return nesting.plan(items, plan.inputs, plan.outputs, "")


def _own_call(place: int, chain: Chain) -> Chain:
    """A chain whose last module is called for one step only."""
    return (*chain[:-1], f"{path_of(chain[-1])}@{place}")


class _Nesting:
    """Nests one plan."""

    def __init__(
        self,
        flat: Plan,
        weights: Mapping[str, WeightPlace],
        levels: Mapping[tuple[str, ...], nn.Module],
        modules: Mapping[str, tuple[str, ...]],
        sources: Mapping[str, str],
    ) -> None:
        self.flat = flat
        self.weights = weights
        self.levels = levels
        self.modules = modules
        self.sources = sources

    def plan(
        self, items: Sequence[_Item], inputs: Sequence[str], outputs: Sequence[Key], path: str
    ) -> Plan:
        """The plan of a part of the steps, which runs in the module at `path`."""
        groups = group(items, self.weights)
        needed, wanted = set(outputs), list[set[Key]]()  # what is read after each group
        for members in reversed(groups):
            wanted.append(set(needed))
            needed.update(key for item in members for key in item.step.reads)
        steps = [
            members[0].step if not members[0].chain else self._block(members, after, path)
            for members, after in zip(groups, reversed(wanted), strict=True)
        ]
        computed = {*inputs, *(name for step in steps for name in step.outputs)}
        live, dead = live_steps(steps, {*outputs, *inputs}, computed)
        own = {key for step in live for key in step.reads}.union(outputs).difference(inputs)
        # an initializer that a call may give is an input of the flat plan, not a capture
        held = (*self.flat.captures, *(key for key in self.flat.inputs if key in self.weights))
        return replace(
            self.flat,
            steps=tuple(live),
            dead=tuple(dead),
            inputs=tuple(inputs),
            outputs=tuple(outputs),
            captures=tuple(key for key in held if key in own),
            constants={k: v for k, v in self.flat.constants.items() if k in own},
            sized=(),
        )

    def _block(self, members: Sequence[_Item], wanted: Set[Key], around: str) -> Step:
        """The step that runs a group inside of its module."""
        path = path_of(members[0].chain[0])
        made = {name for item in members for name in item.step.outputs}
        known = {*made, *self.flat.constants, *self.weights, ""}
        reads = (key for item in members for key in item.step.reads)
        inputs = tuple(str(key) for key in dict.fromkeys(reads) if key not in known)
        source = self._source(members) if len(members[0].chain) == 1 else None
        *others, last_made = [n for i in members for n in i.step.outputs if n in wanted] or [""]
        # what a module returns is made last; caches and the like follow it
        outputs = (last_made, *others) if last_made else ()
        inner = [_Item(item.place, item.step, item.chain[1:]) for item in members]
        plan = self.plan(inner, inputs, outputs, path)
        reads_weights = [self.weights[str(k)] for k in plan.captures if k in self.weights]
        level = self.levels[self.modules[path]]
        below, above = self.modules[path], self.modules.get(around, ())
        is_inside = below[: len(above)] == above and len(below) > len(above)
        attributes = below[len(above) :] if is_inside else below
        last = members[-1].step
        return Step(
            node=last.node,
            kernel=last.kernel,
            inputs=inputs if source is None else (source,),
            outputs=outputs,
            attributes={},
            direct=False,
            block=Block(
                path=path,
                attributes=attributes,
                is_inside=is_inside,
                level=level,
                plan=plan,
                reads=tuple(reads_weights),
                is_leaf=source is not None,
            ),
        )

    def _source(self, members: Sequence[_Item]) -> Key | None:
        """The input of the layer that a group is a call of; it may be a constant."""
        step = members[0].step
        name = self.sources.get(step.outputs[0])
        return next((key for key in step.reads if onnx_name_of(key) == name), name)


def group(items: Sequence[_Item], weights: Container[Key]) -> list[list[_Item]]:
    """The items of one level, grouped by the module to enter next, in a topological order.

    An item that enters none is a group of its own.
    """
    keys: list[Hashable] = [item.chain[0] if item.chain else item.place for item in items]
    keys = _by_call(items, keys, weights)
    cyclic = {key for part in components(_followers(items, keys)) if len(part) > 1 for key in part}
    if cyclic:
        keys = _split(keys, cyclic)
    members = _members(items, keys)
    return [members[key] for key in _in_order(_followers(items, keys))]


def _by_call(
    items: Sequence[_Item], keys: Sequence[Hashable], weights: Container[Key]
) -> list[Hashable]:
    """Keys by which equal parts of a group that share no value are groups of their own.

    They are calls of one module, which an exporter noted under one name.
    """
    members = _members(items, keys)
    by_place = dict(zip((item.place for item in items), keys, strict=True))
    for key, group in members.items():
        parts = _parts(group) if len(group) > 1 else []
        if len(parts) > 1 and len({_outline(part, weights) for part in parts}) == 1:
            by_place.update((i.place, (key, n)) for n, part in enumerate(parts) for i in part)
    return list(by_place.values())


def _members(items: Sequence[_Item], keys: Sequence[Hashable]) -> dict[Hashable, list[_Item]]:
    members = defaultdict[Hashable, list[_Item]](list)
    for item, key in zip(items, keys, strict=True):
        members[key].append(item)
    return members


def _parts(items: Sequence[_Item]) -> list[list[_Item]]:
    """The parts of a group between which no value passes."""
    places = connected([(item.step.reads, item.step.outputs) for item in items])
    return [[items[place] for place in part] for part in places]


def _outline(items: Sequence[_Item], weights: Container[Key]) -> Hashable:
    """What a part of a group computes, whatever its inputs are."""
    steps = [item.step for item in items]
    return tuple([(s.node.op_type, *(key for key in s.reads if key in weights)) for s in steps])


def _followers(items: Sequence[_Item], keys: Sequence[Hashable]) -> Followers:
    """Key of each group -> keys of the groups that read its results."""
    made = {n: key for item, key in zip(items, keys, strict=True) for n in item.step.outputs}
    followers: Followers = {key: {} for key in keys}
    for item, key in zip(items, keys, strict=True):
        for name in item.step.reads:
            source = made.get(str(name), key)
            if source != key:
                followers[source][key] = None
    return followers


def _split(keys: Sequence[Hashable], cyclic: Set[Hashable]) -> list[Hashable]:
    """Keys by which a group of a cycle is split wherever another one of a cycle comes between."""
    split: list[Hashable] = []
    number, last = 0, None
    for key in keys:
        if key in cyclic:
            number += key != last
            last = key
            split.append((key, number))
        else:
            split.append(key)
    return split


def _in_order(followers: Followers) -> list[Hashable]:
    """A topological order; of several groups that are ready, the first in the file comes next."""
    place = {key: index for index, key in enumerate(followers)}
    waiting = Counter(key for after in followers.values() for key in after)
    ready = [index for key, index in place.items() if not waiting[key]]
    keys, order = list(followers), list[Hashable]()
    while ready:
        key = keys[heapq.heappop(ready)]
        order.append(key)
        for after in followers[key]:
            waiting[after] -= 1
            if not waiting[after]:
                heapq.heappush(ready, place[after])
    return order
