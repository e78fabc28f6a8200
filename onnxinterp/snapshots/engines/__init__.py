"""The engines of snapshots: each runs a model with copies of its weights.

    Runner      a model prepared by an engine: tensors in, tensors out
    Prepare     makes a runner, or raises EngineError
    ENGINES     the engines by name

An engine is a file in this package with a function `prepare`. It is imported when it is first used.
What it computes is compared with the module before it serves, so that it may refuse late, but must
never be wrong for other values: see `checking`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Protocol, TypeAlias

from torch import Tensor

from onnxinterp.snapshots.subject import Subject


@dataclass(frozen=True)
class Options:
    """What engines are told.

    Attributes:
        threads: how many threads a call may use.
        providers: of onnxruntime, the first that can run a node; None is the processor.
        cache: whether files may be kept in the cache folder.
    """

    threads: int
    providers: tuple[Any, ...] | None = None
    cache: bool = True


class Runner(Protocol):
    """A prepared model. It holds copies of the weights; threads may call it at once.

    Results are contiguous or not, share memory with nothing, and do not require a gradient. An
    `EngineError` in a call says that the engine cannot run these values; then the module does.
    """

    @property
    def takes_any_sizes(self) -> bool:
        """Whether it runs inputs of other sizes than those that it was prepared with."""
        ...

    def __call__(self, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Run once.

        Args:
            inputs: the required inputs in graph order, of the dtypes and devices, and unless it
                `takes_any_sizes`, the sizes of those it was prepared with.
        """
        ...


Prepare: TypeAlias = Callable[[Subject, tuple[Tensor, ...], Options], Runner]
"""Make a runner of a module for inputs such as the given ones; EngineError where it cannot."""


@dataclass(frozen=True)
class Engine:
    """One way to run a model.

    Attributes:
        load: imports the engine.
        by_default: whether it is tried where no engine is named; not, if it takes minutes.
    """

    load: Callable[[], Prepare]
    by_default: bool = True


def _file(name: str, *, by_default: bool = True) -> Engine:
    def load() -> Prepare:
        prepare: Prepare = import_module(f"{__name__}.{name}").prepare
        return prepare

    return Engine(load, by_default)


FAITHFUL = "faithful"  # the module itself
ENGINES: dict[str, Engine] = {
    FAITHFUL: _file("faithful"),
    "torch": _file("torch"),
    "onnxruntime": _file("onnxruntime"),
    "openvino": _file("openvino"),
    "inductor": _file("inductor", by_default=False),
}
"""Name -> engine. Others may be added."""


def engine_names(engine: str | Sequence[str] | None) -> tuple[str, ...]:
    """The names that `engine=` means.

    Raises:
        ValueError: there is no engine of such a name.
    """
    if engine is None:
        return tuple(name for name, known in ENGINES.items() if known.by_default)
    names = (engine,) if isinstance(engine, str) else tuple(dict.fromkeys(engine))
    if not names or any(name not in ENGINES for name in names):
        raise ValueError(f"engine must be one or several of {', '.join(ENGINES)}, got {engine!r}")
    return names
