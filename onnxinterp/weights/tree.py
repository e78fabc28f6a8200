"""The modules between an `OnnxModule` and its weights: the tree that torch's tools walk."""

from __future__ import annotations

import copyreg
import re
from collections.abc import Callable, Iterable, Sequence
from functools import wraps
from threading import get_ident
from typing import TYPE_CHECKING, Any, ParamSpec, TypeAlias, TypeVar, cast
from weakref import WeakValueDictionary

from torch import nn

if TYPE_CHECKING:
    from typing_extensions import Self  # typing has it from Python 3.11 on

P = ParamSpec("P")
R = TypeVar("R")
Run: TypeAlias = Callable[[nn.Module, tuple[Any, ...]], Any]
MAX_CLASS_CHARS = 64  # of the name of a class
RESERVED = frozenset({*(name.rstrip("_") for name in dir(nn.Module())), "training", ""})
"""Names that every module uses itself, without underscores at their end."""


class LevelType(type):
    """The class of all classes of levels, which are pickled by their name."""


class Touch:
    """Whether a level of a tree has been given a hook, another class, an attribute, a module.

    Attributes:
        happened: it has; the change may have been undone since.
        root: refers to the module at the root of the tree.
    """

    def __init__(self) -> None:
        self.happened = False
        self.root: Callable[[], nn.Module | None] = _no_root

    def __getstate__(self) -> dict[str, Any]:
        return {"happened": self.happened, "root": _no_root}


def _no_root() -> None:
    """The root of a level that is in no tree, or of a copy that has not found it yet."""


def _touching(method: Callable[P, R]) -> Callable[P, R]:
    """A method of `nn.Module` that also says that the level was touched."""

    @wraps(method)
    def touch(*args: P.args, **keywords: P.kwargs) -> R:
        args[0].__dict__["_touch"].happened = True
        return method(*args, **keywords)

    return touch


class Level(nn.Module, metaclass=LevelType):
    """A module of the tree: it holds weights and other levels, and blocks run inside its call.

    Each has a class of its own, named like that of the torch module which was exported, since tools
    look modules up by the name of their class.
    """

    register_forward_hook = _touching(nn.Module.register_forward_hook)
    register_forward_pre_hook = _touching(nn.Module.register_forward_pre_hook)
    register_backward_hook = _touching(nn.Module.register_backward_hook)
    register_full_backward_hook = _touching(nn.Module.register_full_backward_hook)
    register_full_backward_pre_hook = _touching(nn.Module.register_full_backward_pre_hook)

    def __new__(cls) -> Self:
        """A level that belongs to no tree yet."""
        level = super().__new__(cls)
        object.__setattr__(level, "_touch", Touch())
        object.__setattr__(level, "_runs", {})
        return level

    def __setattr__(self, name: str, value: Any) -> None:
        if name != "training":
            self.__dict__["_touch"].happened = True
        super().__setattr__(name, value)

    def forward(self, *inputs: Any, run: Run | None = None) -> Any:
        """Run a block of the model.

        Args:
            *inputs: the live values that the block reads.
            run: runs the block inside of this module, in a call of the model; a wrapper may not
                pass it on. Without, the module runs by itself.

        Raises:
            RuntimeError: the model does not call the module exactly once, or with other inputs.
        """
        run = run or self.__dict__["_runs"].get(get_ident())
        if run is not None:
            return run(self, inputs)
        root: Any = self.__dict__["_touch"].root()
        if root is None:
            raise RuntimeError("a module of an imported model runs as long as the model exists")
        return root.run_block(self, inputs)


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


def class_name(parts: Sequence[str], depth: int) -> str:
    """A name for the class of the module at `parts[:depth]`: layer1.0 -> Layer1, fc_in -> FcIn.

    What numbered modules are in is a list, unless it is known better.
    """
    if depth < len(parts) and parts[depth].isdigit() and not parts[depth - 1].isdigit():
        return nn.ModuleList.__name__
    words = next((part for part in reversed(parts[:depth]) if not part.isdigit()), "")
    return "".join(word[:1].upper() + word[1:] for word in re.split(r"\W|_", words))


def level_at(root: nn.Module, path: Iterable[str]) -> nn.Module:
    """The module at a path below `root`."""
    level = root
    for part in path:
        level = cast("nn.Module", level._modules[part])
    return level


def escape(part: str, reserved: frozenset[str] = RESERVED) -> str:
    """`half` -> `half_`, `half_` -> `half__`: different from names that need no escape.

    NUL and slash become underscores: the guards of torch.compile cannot contain NUL, and tools name
    the file of a weight like its key.
    """
    part = part.replace("\0", "_").replace("/", "_")
    return part + "_" if part.rstrip("_") in reserved else part


def register(level: nn.Module, kind: str, name: str, value: Any) -> None:
    """Register a "parameter", "buffer" or "module" as torch does, so that torch's hooks see it."""
    getattr(level, f"register_{kind}")(name, value)
