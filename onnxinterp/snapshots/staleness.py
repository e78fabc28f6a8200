"""Whether the weights of a module have changed since a snapshot of them was made.

Each call asks. What is compared:

- the version counter of each parameter and buffer, and the address of its data: assignments,
  `load_state_dict`, `.data = ...`, in-place functions of torch, most optimizers. This takes some
  tenths of a microsecond for each weight;
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
from operator import attrgetter
from threading import Lock
from typing import Any, TypeAlias
from weakref import WeakSet

from torch import Tensor
from torch.optim.optimizer import Optimizer, register_optimizer_step_post_hook

from onnxinterp.snapshots.subject import Subject, is_observed, modules_with_modes, root_hooks

Table: TypeAlias = "dict[str, Any]"  # of parameters or buffers
_address_of: Callable[[Tensor], int] = Tensor.data_ptr
_version_of: Callable[[Tensor], int] = attrgetter("_version")
_LIVE: WeakSet[WeightWatch] = WeakSet()
_lock = Lock()
_registered = False


class WeightWatch:
    """The weights of a module as they are when this object is made."""

    def __init__(self, module: Subject) -> None:
        self._tables = [t for m in module.modules() for t in (m._parameters, m._buffers) if t]
        self._seen = _look(self._tables)
        # as long as the old data live, no new data are at their address
        self._kept = [w.detach() for w in _held(self._tables)]
        self._setting = module._plans.setting
        self._modes = modules_with_modes(module)
        self._hooks = root_hooks(module)
        self._is_observed = is_observed(module)
        self.stepped = False
        with _lock:
            _LIVE.add(self)
        _register()

    def is_in_training(self) -> bool:
        """Whether a part of the module is in `train()` mode."""
        for level in self._modes:  # noqa: SIM110  # any() takes longer for the usual one
            if level.training:
                return True
        return False

    def change(self, module: Subject) -> str:
        """What has changed; "" where nothing is known to have."""
        if self.stepped:
            return "an optimizer made a step"
        if module._plans.setting is not self._setting:
            return "the module was moved, loaded or refreshed"
        observed = any(self._hooks) or module._plans.watch.is_observed()
        if observed != self._is_observed:
            return "modules of the tree were hooked or replaced"
        addresses, versions = _look(self._tables)
        if addresses != self._seen[0]:
            return "a weight was replaced"
        if versions != self._seen[1]:
            return "a weight was changed in place"
        return ""

    def note_step(self, optimizer: Optimizer) -> None:
        """Note a step of an optimizer, if it has a weight of the module."""
        own = set(map(id, _held(self._tables)))
        if any(id(p) in own for group in optimizer.param_groups for p in group["params"]):
            self.stepped = True


def _held(tables: Iterable[Table]) -> list[Tensor]:
    return [w for table in tables for w in table.values() if w is not None]


def _look(tables: Iterable[Table]) -> tuple[list[int | None], list[int | None]]:
    """Where the data of weights are, and how often they were changed in place."""
    held: list[Any] = list(chain.from_iterable(map(dict.values, tables)))
    try:  # a loop in Python would take twice as long
        return list(map(_address_of, held)), list(map(_version_of, held))
    except (RuntimeError, AttributeError, TypeError):
        pass  # a tensor made in inference mode, a subclass without memory, or None
    held = [w for w in held if w is not None]
    return [_read(w, _address_of) for w in held], [_read(w, _version_of) for w in held]


def _read(weight: Tensor, what: Callable[[Tensor], int]) -> int | None:
    try:
        return what(weight)
    except RuntimeError:
        return None


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
