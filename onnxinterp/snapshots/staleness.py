"""Whether the weights of a module have changed since a snapshot of them was made.

Each call asks. What is compared:

- the parameters and buffers themselves, their version counters and the addresses of their data:
  steps of optimizers, assignments, `load_state_dict`, `.data = ...`, in-place functions of torch;
- whether the module has made its plans anew: `.to()`, `load_state_dict`, `refresh()`;
- whether an optimizer of torch has made a step with one of the parameters. A fused step changes
  them without their version counters;
- whether modules of the tree were hooked or replaced.

Not noticed: what writes to the memory of a weight behind torch's back: `weight.data.add_`, numpy
arrays and other tensors that share the memory, C extensions, and other processes.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from itertools import chain
from operator import is_not
from threading import Lock
from typing import Any, TypeAlias
from weakref import WeakSet

import torch
from torch import Tensor, nn
from torch.optim.optimizer import Optimizer, register_optimizer_step_post_hook

from onnxinterp.snapshots.subject import Subject, is_observed, modules_with_modes

Table: TypeAlias = "dict[str, nn.Parameter | None] | dict[str, Tensor | None]"
_are_at = getattr(torch._C, "_tensors_data_ptrs_at_indices_equal", None)  # twice as fast
_LIVE: WeakSet[WeightWatch] = WeakSet()
_lock = Lock()
_registered = False


class Addresses:
    """Where the data of tensors are, which an assignment to `.data` replaces."""

    def __init__(self, tensors: list[Tensor]) -> None:
        self._tensors = tensors
        self._numbers = [t.data_ptr() for t in tensors]
        self._indices = list(range(len(tensors)))
        # as long as the old data live, no new data are at their address
        self._kept = [t.detach() for t in tensors]

    def have_changed(self) -> bool:
        """Whether one differs from what it was."""
        if _are_at is None:
            return [t.data_ptr() for t in self._tensors] != self._numbers
        return not _are_at(self._tensors, self._numbers, self._indices)


class WeightWatch:
    """The weights of a module as they are when this object is made."""

    def __init__(self, module: Subject) -> None:
        tables = [t for m in module.modules() for t in (m._parameters, m._buffers) if t]
        # comparing tables is quickest: equal objects are found by identity, without `==`; tensors
        # that differ raise there, unless they have one element
        single = [t for t in tables if any(w is not None and w.numel() == 1 for w in t.values())]
        ids = set(map(id, single))
        several = [t for t in tables if id(t) not in ids]
        self._single = single
        self._singles = _values(single)
        self._several = several
        self._copies = [dict(table) for table in several]
        held = [w for table in tables for w in table.values() if w is not None]
        self._counted = [w for w in held if not w.is_inference()]
        self._versions = [w._version for w in self._counted]
        self._addresses = Addresses([w for w in held if _has_address(w)])
        self._ids = {id(w) for w in held}
        self._setting = module._plans.setting
        self._modes = modules_with_modes(module)
        self._is_observed = is_observed(module)
        self.stepped = False
        with _lock:
            _LIVE.add(self)
        _register()

    def is_in_training(self) -> bool:
        """Whether a part of the module is in `train()` mode."""
        return any(level.training for level in self._modes)

    def change(self, module: Subject) -> str:
        """What has changed; "" where nothing is known to have."""
        if self.stepped:
            return "an optimizer made a step"
        if module._plans.setting is not self._setting:
            return "the module was moved, loaded or refreshed"
        if is_observed(module) != self._is_observed:
            return "modules of the tree were hooked or replaced"
        if self._is_replaced():
            return "a weight was replaced"
        if [w._version for w in self._counted] != self._versions:
            return "a weight was changed in place"
        if self._addresses.have_changed():
            return "the data of a weight were replaced"
        return ""

    def _is_replaced(self) -> bool:
        try:
            if self._several != self._copies:
                return True
        except RuntimeError:  # torch compares tensors of which none is the other
            return True
        now = _values(self._single)
        return len(now) != len(self._singles) or any(map(is_not, now, self._singles))

    def note_step(self, optimizer: Optimizer) -> None:
        """Note a step of an optimizer, if it has a weight of the module."""
        groups = optimizer.param_groups
        if any(id(p) in self._ids for group in groups for p in group["params"]):
            self.stepped = True


def _values(tables: Iterable[Table]) -> list[Tensor | None]:
    return list(chain.from_iterable([table.values() for table in tables]))


def _has_address(weight: Tensor) -> bool:
    """Whether a tensor has memory of its own that torch shows: some subclasses have none."""
    if weight.is_meta:
        return False
    try:
        weight.data_ptr()
    except RuntimeError:
        return False
    return True


def _note_step(optimizer: Optimizer, _args: Any, _keywords: Any) -> None:
    with _lock:
        live = tuple(_LIVE)
    for watch in live:
        watch.note_step(optimizer)


if hasattr(os, "register_at_fork"):  # posix only; another thread may hold it at that moment
    os.register_at_fork(after_in_child=_lock._at_fork_reinit)  # type: ignore[attr-defined]  # typeshed


def _register() -> None:
    """Ask torch to be told of each step, from the first snapshot on."""
    global _registered
    with _lock:
        if not _registered:
            hook: Callable[[Optimizer, Any, Any], None] = _note_step
            register_optimizer_step_post_hook(hook)
            _registered = True
