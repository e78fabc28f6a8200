"""Whether someone looks into the tree of modules: then calls must go through its modules.

A tool may hook a module, give it another class or `forward`, wrap it, or put another in its place.
None of this tells the module that is called, so each call asks, at C speed: about 0.1 µs a module.
"""

from __future__ import annotations

import torch
from torch import nn

MODULES = torch.nn.modules.module
HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
GLOBAL_HOOKS = tuple(getattr(MODULES, f"_global{hooks}") for hooks in HOOKS)


class Watch:
    """The tree below a module as it is now, and whether it has changed since.

    Args:
        root: the module; hooks of its own do not count.
    """

    def __init__(self, root: nn.Module) -> None:
        levels = [m for m in root.modules() if m is not root]
        self._levels = levels
        self._types = list(map(type, levels))
        self._dicts = [level.__dict__ for level in levels]
        self._size = sum(map(len, self._dicts))
        self._hooks = [level.__dict__[hooks] for level in levels for hooks in HOOKS]
        self._hooks += [level._modules for level in levels if not level._modules]
        tables = (m._modules for m in (root, *levels))
        self._children = [(table, list(table.values())) for table in tables if table]

    def is_observed(self) -> bool:
        """Whether a call must go through the modules of the tree: they are hooked, or exported."""
        return (
            any(self._hooks)
            or any(GLOBAL_HOOKS)
            or list(map(type, self._levels)) != self._types
            or sum(map(len, self._dicts)) != self._size
            or any(list(table.values()) != children for table, children in self._children)
            or torch.compiler.is_exporting()
        )

    # as torch.compiler.assume_constant_result does, which would import the compiler
    is_observed._dynamo_marked_constant = True  # type: ignore[attr-defined]

    def check_replaced(self, called: frozenset[nn.Module]) -> None:
        """Check that modules which were put in the place of others will run.

        Args:
            called: the modules of the tree that a call of the model calls.

        Raises:
            RuntimeError: a module was replaced that is not called: what is in its place, such as an
                adapter, would change nothing.
        """
        for table, children in self._children:
            for (name, now), child in zip(table.items(), children, strict=False):
                if now is child or child is None or called.intersection(child.modules()):
                    continue
                message = f"{name!r} was replaced by a {type(now).__name__}, but the file does not"
                raise RuntimeError(
                    f"{message} tell which nodes the module consists of: it would change nothing"
                )
