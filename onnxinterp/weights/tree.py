"""The modules between an `OnnxModule` and its weights: the tree that torch's tools walk."""

from __future__ import annotations

import copyreg
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any, cast
from weakref import WeakValueDictionary

from torch import nn

MAX_CLASS_CHARS = 64  # of the name of a class
RESERVED = frozenset({*(name.rstrip("_") for name in dir(nn.Module())), "training", ""})
"""Names that every module uses itself, without underscores at their end."""


class LevelType(type):
    """The class of all classes of levels, which are pickled by their name."""


class Level(nn.Module, metaclass=LevelType):
    """A module of the tree: it holds weights and other levels, and blocks run inside its call.

    Each has a class of its own, named like that of the torch module which was exported, since tools
    look modules up by the name of their class.
    """

    def forward(self, *inputs: Any, run: Callable[[nn.Module, tuple[Any, ...]], Any]) -> Any:
        """Run a block of the model.

        Args:
            *inputs: the live values that the block reads.
            run: runs the block inside of this module.
        """
        return run(self, inputs)


_CLASSES: WeakValueDictionary[str, type[Level]] = WeakValueDictionary()


def level_class(name: str) -> type[Level]:
    """The class of levels of a name, which may come from a file."""
    name = name if name.isidentifier() and len(name) <= MAX_CLASS_CHARS else Level.__name__
    found = _CLASSES.get(name)
    if found is None:
        found = _CLASSES[name] = cast("type[Level]", LevelType(name, (Level,), {"__doc__": None}))
    return found


def _reduce_class(kind: LevelType) -> str | tuple[Any, ...]:
    """Pickle a class of levels by its name; others, which tools derive from it, as torch does."""
    name = kind.__name__
    return (level_class, (name,)) if _CLASSES.get(name) is kind else kind.__qualname__


copyreg.pickle(LevelType, _reduce_class)


def class_name(parts: Sequence[str]) -> str:
    """A name for the class of the module at a path: layer1.0 -> Layer1, encoder.fc_in -> FcIn."""
    words = next((part for part in reversed(parts) if not part.isdigit()), "")
    return "".join(word[:1].upper() + word[1:] for word in re.split(r"\W|_", words))


def level_at(root: nn.Module, path: Iterable[str]) -> nn.Module:
    """The module at a path below `root`."""
    level = root
    for part in path:
        level = cast("nn.Module", level._modules[part])
    return level


def escape(part: str, reserved: frozenset[str] = RESERVED) -> str:
    """`half` -> `half_`, `half_` -> `half__`: different from names that need no escape.

    NUL becomes an underscore: the guards of torch.compile cannot contain it.
    """
    part = part.replace("\0", "_")
    return part + "_" if part.rstrip("_") in reserved else part


def register(level: nn.Module, kind: str, name: str, value: Any, **keywords: Any) -> None:
    """Register a "parameter", "buffer" or "module" as torch does, so that torch's hooks see it."""
    getattr(level, f"register_{kind}")(name, value, **keywords)
