"""Named activations of a module: the part of its graph that computes them, on the same weights."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from glob import escape
from typing import Any

from torch import nn

from onnxinterp.errors import plain
from onnxinterp.graph.ir import Graph
from onnxinterp.inspection.runnable import Runnable
from onnxinterp.patterns import select

MUST_MATCH = "names must match a torch module or a value of the graph"
MAX_SHOWN_NAMES = 20


class Capture(nn.Module):
    """Computes named activations of a module, and nothing that they do not need.

    A call takes what a call of the module takes. It returns a dictionary from name to tensor, in
    the order in which they are computed; to a tuple of tensors where a module has several outputs.

    The weights are those of the module, which is the submodule `model`: training one trains the
    other, and `.to()`, `load_state_dict`, `train()` and `freeze()` of one hold for both. A copy, or
    a pickled one, has a module of its own.

    Attributes:
        model: the module.
        names: name -> the ONNX names of its values.
    """

    model: Runnable

    def __init__(self, model: Runnable, names: Mapping[str, tuple[str, ...]]) -> None:
        super().__init__()
        self.model = model
        self.names = dict(names)
        self.training = model.training
        self._plans = model._plans.part(self._values())

    def forward(self, *args: Any, **keywords: Any) -> dict[str, Any]:
        """Run the part of the graph; inputs and errors as of the module's own `forward`."""
        results = self.model._run(args, keywords, self._plans)
        values = dict(zip(self._values(), results, strict=True))
        return {
            name: values[own[0]] if len(own) == 1 else tuple([values[n] for n in own])
            for name, own in self.names.items()
        }

    def _values(self) -> dict[str, None]:
        return dict.fromkeys([value for own in self.names.values() for value in own])

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k != "_plans"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call]  # untyped in torch
        self._plans = self.model._plans.part(self._values())

    def extra_repr(self) -> str:
        """The first names, each cut."""
        shown = [plain(name, 100) for name in list(self.names)[:MAX_SHOWN_NAMES]]
        more = len(self.names) - len(shown)
        return ", ".join([*shown, f"{more} more"] if more else shown)


def named_values(
    graph: Graph, names: Iterable[str], modules: Mapping[str, tuple[str, ...]]
) -> dict[str, tuple[str, ...]]:
    """Names of modules and values -> the ONNX names of their values, as they are computed.

    Args:
        graph: a main graph.
        names: patterns of `fnmatch`, or names as they are; a module comes before a value that has
            its name.
        modules: path -> the outputs of the module.

    Raises:
        ValueError: there is no name, or one matches nothing.
    """
    place = {name: i for i, node in enumerate(graph.nodes) for name in node.outputs}
    known = {name: (name,) for name in place} | dict(modules)
    patterns = [escape(name) if name in known else name for name in names]
    if not patterns:
        raise ValueError(f"{MUST_MATCH}, got none")
    chosen = select(patterns, known, MUST_MATCH)
    # an inner module returns before the one around it
    order = {name: (place[known[name][-1]], -name.count(".")) for name in chosen}
    return {name: known[name] for name in sorted(chosen, key=order.__getitem__)}
