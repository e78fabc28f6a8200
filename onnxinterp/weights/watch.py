"""Whether someone looks into the tree of modules: then calls must go through its modules.

A tool may hook a module, give it another class or `forward`, wrap it, or put another in its place.
Each call asks; while no level was touched (see `tree.Level`) this takes less than a microsecond.
"""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Iterator
from itertools import chain

import torch
from torch import nn
from torch.nn.utils.parametrize import type_before_parametrizations

from onnxinterp.errors import SaveError
from onnxinterp.weights.tree import Level, Touch

HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
GLOBAL_HOOKS = tuple(getattr(torch.nn.modules.module, f"_global{hooks}") for hooks in HOOKS)


class Watch:
    """The tree below a module as it is now, and whether it has changed since.

    Args:
        root: the module; hooks of its own do not count.
    """

    def __init__(self, root: nn.Module) -> None:
        levels = [m for m in root.modules() if m is not root]
        self._touch = Touch()
        self.attach(root)
        for level in levels:
            if isinstance(level, Level):
                object.__setattr__(level, "_touch", self._touch)
        self._levels = levels
        self._types = list(map(type, levels))
        self._sizes = [len(level.__dict__) for level in levels]
        self._tables = [m._modules for m in (root, *levels) if m._modules]
        self._children = self._now()
        self._own = frozenset(self._children)

    def attach(self, root: nn.Module) -> None:
        """Let the levels know the root of their tree, without a cycle."""
        self._touch.root = weakref.ref(root)

    def is_observed(self) -> bool:
        """Whether a call must go through the modules of the tree: they are hooked, or exported."""
        return (
            any(GLOBAL_HOOKS)
            or (self._now() != self._children and self._own_now() != self._children)
            or (self._touch.happened and self._is_changed())
            or torch.compiler.is_exporting()
        )

    def _now(self) -> list[nn.Module | None]:
        return list(chain.from_iterable(map(dict.values, self._tables)))

    def _own_now(self) -> list[nn.Module | None]:
        """The modules as they are now, without those that compute weights: no call passes them."""
        return [module for _, module in self._named()]

    def _named(self) -> Iterator[tuple[str, nn.Module | None]]:
        items = chain.from_iterable(table.items() for table in self._tables)
        return (item for item in items if item[0] != "parametrizations" or item[1] in self._own)

    def _is_changed(self) -> bool:
        return (
            any(level.__dict__[hooks] for level in self._levels for hooks in HOOKS)
            or list(map(type_before_parametrizations, self._levels)) != self._types
            or [len(level.__dict__) for level in self._levels] != self._sizes
        )

    def check_kept(self) -> None:
        """Check that no module was replaced: a file has the graph of the old one.

        A module around the old one is no replacement, but what it computes is not in the file: that
        is a warning, except for modules of torch, which only place or recompute.

        Raises:
            SaveError: one was replaced, or what is around it has parameters of its own.
        """
        for (name, new), child in zip(self._named(), self._children, strict=False):
            if new is child or child is None or new is None:
                continue
            kind = type(new)
            if child not in new.modules():
                message = f"{name!r} was replaced by a {kind.__name__}"
                raise SaveError(f"{message}, which is not in the graph of the file")
            if not set(new.parameters()) <= set(child.parameters()):
                message = f"{name!r}: the file has no place for the parameters of {kind.__name__}"
                raise SaveError(f"{message}: merge adapters first")
            if not kind.__module__.startswith("torch.distributed."):
                message = f"what the {kind.__name__} around {name!r} computes is not in the file"
                warnings.warn(message, stacklevel=4)

    def check_replaced(self, called: frozenset[nn.Module]) -> None:
        """Check that modules which were put in the place of others will run.

        Args:
            called: the modules of the tree that a call of the model calls.

        Raises:
            RuntimeError: a module was replaced that is not called: what is in its place, such as an
                adapter, would change nothing.
        """
        for (name, new), child in zip(self._named(), self._children, strict=False):
            if new is child or child is None or called.intersection(child.modules()):
                continue
            message = f"{name!r} was replaced by a {type(new).__name__}, but the file does not tell"
            raise RuntimeError(
                f"{message} which nodes the module consists of: it would change nothing"
            )
