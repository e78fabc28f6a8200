"""RNN, GRU and LSTM on torch's own layers.

The order of the gates differs: ONNX has iofc and zrh, torch ifco and rzh.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain
from typing import Any

import torch
from torch import Tensor
from torch._C._autograd import (
    _saved_tensors_hooks_get_disabled_error_message,
    _top_saved_tensors_default_hooks,
)
from torch._C._functorch import peek_interpreter_stack
from torch.autograd.graph import saved_tensors_hooks

from onnxinterp.ops.recurrent_cells import Layer, States, batch_first, equal_parts, last, run
from onnxinterp.values import Flag, is_traced

TORCH_ORDER = {1: (0,), 3: (1, 0, 2), 4: (0, 2, 3, 1)}  # number of gates -> where torch's stand


def has_native() -> bool:
    """Whether torch's layers can run: not in a captured graph, where time may be symbolic.

    In transforms of torch.func they write in place, or have no rule for a batch.
    """
    return not torch.compiler.is_compiling() and peek_interpreter_stack() is None


def run_native(layer: Layer, kind: str, layout: Flag) -> tuple[Tensor, ...]:
    """With torch's layer; where sequences differ in length, without the final cell state."""
    if layer.is_empty:
        return batch_first(layer.empty_results(), layout)
    with _in_torch_order(layer) as every:
        return batch_first(_directions(layer, kind, every), layout)


def _directions(layer: Layer, kind: str, every: Sequence[list[Tensor]]) -> tuple[Tensor, ...]:
    """Both directions at once, or one by one where their sequences differ in length."""
    if layer.n_directions == 2 and layer.lengths is None:
        Y, *finals = native(kind, layer.X, layer.states, [*every[0], *every[1]], both=True)
        return (Y.reshape(*Y.shape[:-1], 2, -1).transpose(1, 2), *finals)

    def direction(k: int, X: Tensor, states: States) -> tuple[Tensor, States]:
        initial = tuple(s.unsqueeze(0) for s in states)
        Y, *finals = native(kind, X, initial, every[k], both=False)
        if layer.lengths is not None:
            return Y, (last(Y, layer.lengths),)
        return Y, tuple(s.squeeze(0) for s in finals)

    return run(layer, direction)


@contextmanager
def _in_torch_order(layer: Layer) -> Iterator[list[list[Tensor]]]:
    """W, R and biases of each direction, their gates in torch's order.

    What autograd saves of these copies for backward is how to make them again: kept, they would
    take the memory of the weights a second time. Hooks of the caller see all other tensors.
    """
    order = TORCH_ORDER[layer.n_gates]
    weights = [layer.parameters(k) for k in range(layer.n_directions)]
    if len(order) == 1:
        yield weights
        return
    copies = [[in_order(w, order) for w in some] for some in weights]
    if not torch.is_grad_enabled() or _saved_tensors_hooks_get_disabled_error_message():
        yield copies  # inside of torch.func's transforms there are no hooks
        return
    recipes = {
        _storage(copy): _Recipe(w.detach(), order)
        for copy, w in zip(chain(*copies), chain(*weights), strict=True)
    }
    with saved_tensors_hooks(*_hooks(recipes)):
        yield copies


def in_order(weight: Tensor, order: Sequence[int]) -> Tensor:
    """A copy of a weight with its gates in another order."""
    gates = equal_parts(weight, len(order))
    return torch.cat([gates[i] for i in order])


def _storage(tensor: Tensor) -> int:
    """What tells whether two tensors share their memory, on any device."""
    number: int = tensor.untyped_storage()._cdata
    return number


class _Recipe:
    """How to make a copy of a weight again: once for all that is saved of it."""

    def __init__(self, weight: Tensor, order: Sequence[int]) -> None:
        self.weight, self.order = weight, order
        self.version = None if weight.is_inference() else weight._version
        self.copy: Tensor | None = None

    def make(self) -> Tensor:
        """The copy.

        Raises:
            RuntimeError: the weight was changed since; torch says so of all that it saves.
        """
        if self.version is not None and self.weight._version != self.version:
            raise RuntimeError(
                "a weight needed for gradient computation has been modified by an inplace operation"
            )
        if self.copy is None:
            with torch.no_grad():
                self.copy = in_order(self.weight, self.order)
        return self.copy


def _hooks(
    recipes: Mapping[int, _Recipe],
) -> tuple[Callable[[Tensor], Any], Callable[[Any], Tensor]]:
    """What saves a recipe in place of a copy, and hands all else to the caller's own hooks."""
    outer = _top_saved_tensors_default_hooks(True)
    outer_pack, outer_unpack = outer or (lambda tensor: tensor, lambda packed: packed)

    def pack(tensor: Tensor) -> tuple[Any, ...]:
        recipe = recipes.get(_storage(tensor))
        if recipe is None:
            return None, outer_pack(tensor)
        return recipe, tensor.shape, tensor.stride(), tensor.storage_offset()

    def unpack(packed: tuple[Any, ...]) -> Tensor:
        recipe, *rest = packed
        return outer_unpack(*rest) if recipe is None else recipe.make().as_strided(*rest)

    return pack, unpack


def native(
    kind: str, X: Tensor, states: States, parameters: list[Tensor], *, both: bool
) -> tuple[Tensor, ...]:
    biased = len(parameters) > (4 if both else 2)
    # cuDNN keeps what the backward pass needs only where it is told that it trains; a trace is
    # that of a layer in eval mode, since OpenVINO converts no other
    trains = torch.is_grad_enabled() and not is_traced()
    rest = (biased, 1, 0.0, trains, both, False)
    if kind == "lstm":
        return torch.lstm(X, states, parameters, *rest)
    rule = {"gru": torch.gru, "tanh": torch.rnn_tanh, "relu": torch.rnn_relu}[kind]
    return rule(X, states[0], parameters, *rest)
