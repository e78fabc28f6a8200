"""Loading and freezing weights, LoRA adapters, and groups of parameters for optimizers.

`Tunable` is the part of `OnnxModule` for fine-tuning. Its patterns are those of `fnmatch` over the
names of weights ("layer1.*"), or exact ONNX names; a predicate takes name and tensor.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from onnxinterp.graph.adoption import torch_names
from onnxinterp.graph.ir import Graph
from onnxinterp.patterns import Names, select, similar_names
from onnxinterp.weights import Weights
from onnxinterp.weights.lora import LoRA
from onnxinterp.weights.parametrized import (
    adapter_of,
    check_can_parametrize,
    make_copyable,
    parameters_of,
    parametrizations_of,
)
from onnxinterp.weights.trainable import state_names
from onnxinterp.weights.tree import Level

MATRICES = "names must match a parameter of rank 2 or more"


class Tunable(nn.Module):
    """Loading, freezing, unfreezing, adapting and grouping of weights by their names."""

    weights: Weights
    onnx_graph: Graph
    frozen_statistics: frozenset[str]

    def refresh(self) -> None:
        """Take over constants that were changed in place."""
        raise NotImplementedError

    def load_state_dict(self, *args: Any, **keywords: Any) -> Any:
        """As `nn.Module.load_state_dict`; constants are read again.

        Raises:
            RuntimeError: names or shapes do not match; the message lists them, and similar names.
        """
        try:
            result = super().load_state_dict(*args, **keywords)
        except RuntimeError as error:
            given = args[0] if args else keywords["state_dict"]
            raise RuntimeError(f"{error}{similar_names(given, self.state_dict())}") from None
        self.refresh()
        return result

    def freeze(self, names: Names = "*") -> tuple[str, ...]:
        """Freeze weights: `requires_grad` of their parameters becomes False.

        It sets nothing else, so it survives `train()`, copies and pickling, and it can be combined
        with other code that sets `requires_grad`. Statistics of normalization are not parameters:
        see `freeze_statistics`. Of a parametrized weight, the parameters from which it is computed
        are frozen.

        Args:
            names: a name pattern or several, or a predicate of name and tensor.

        Returns:
            The names of the chosen parameters.

        Raises:
            ValueError: a pattern matches no parameter.
        """
        return self._require_grad(names, False)

    def unfreeze(self, names: Names = "*") -> tuple[str, ...]:
        """Unfreeze weights: `requires_grad` of their parameters becomes True.

        Of a weight with a LoRA adapter, this is the adapter; the weight itself stays frozen until
        `merge_lora` or `remove_lora`. Settings (quantization scales, tensors of rank 0, ...) are
        not parameters: name them in the module's `trainable=`.

        Args:
            names: a name pattern or several, or a predicate of name and tensor.

        Returns:
            The names of the chosen parameters.

        Raises:
            ValueError: a pattern matches no parameter.
        """
        return self._require_grad(names, True)

    def _require_grad(self, names: Names, required: bool) -> tuple[str, ...]:
        parameters = self._parameters_of_weights()
        names = torch_names(names, self.weights.stored)
        tensors = {name: self.weights[name] for name in parameters}
        chosen = select(names, parameters, "names must match a parameter", tensors)
        for parameter in (p for name in chosen for p in parameters[name]):
            parameter.requires_grad_(required)
        return chosen

    def _parameters_of_weights(self) -> dict[str, tuple[nn.Parameter, ...]]:
        """Name -> the parameters that train a weight; without buffers."""
        found = {name: parameters_of(*self.weights.holder(name)) for name in self.weights}
        return {name: parameters for name, parameters in found.items() if parameters}

    def add_lora(self, names: Names, rank: int = 8, alpha: float | None = None) -> tuple[str, ...]:
        """Add LoRA adapters to weights, and freeze all other parameters (Hu et al., 2021).

        A call then computes with weight + alpha / rank * B @ A, where only the small matrices A
        and B train. B is zero at the start, so the outputs are unchanged. `save_onnx`,
        `save_safetensors` and `checkpoints.save` write this sum. Unfreeze other parameters that
        shall train, too: `unfreeze("*.bias")`.

        A weight that several nodes read has one adapter. Each call computes each sum once, at the
        cost of a tensor of the weight's size. There is no dropout: it would apply to the inputs of
        layers, not to weights. See `weights.lora` for convolutions and recurrent layers.

        Example:
            >>> m.add_lora(["*.query.weight", "*.value.weight"], rank=8)  # doctest: +SKIP
            >>> torch.optim.AdamW(m.parameter_groups(lr=1e-3))  # doctest: +SKIP

        Args:
            names: of parameters of rank 2 or more: a pattern or several, or a predicate of name
                and tensor. Parameters of a lower rank are left out.
            rank: of the product.
            alpha: scales the product, with alpha / rank; `rank` by default.

        Returns:
            The names of the chosen weights.

        Raises:
            ValueError: a pattern matches no parameter of rank 2 or more, a weight has an adapter
                or another parametrization already, or `rank` is less than 1.
        """
        if rank < 1:
            raise ValueError(f"rank must be at least 1, got {rank}")
        weights, parameters = self.weights, self._parameters_of_weights()
        matrices = {name: t for name in parameters if (t := weights[name]).ndim > 1}
        if not (chosen := select(names, matrices, MATRICES, matrices)):
            raise ValueError(f"{MATRICES}, got {names!r}")
        firsts = dict.fromkeys(weights.tied.get(name, name) for name in chosen)
        for name in (name for first in firsts for name in self._names_of(first)):
            check_can_parametrize(*weights.holder(name), name)
        adapters = {n: LoRA(matrices[n], rank, rank if alpha is None else alpha) for n in firsts}
        others = (own for n, own in parameters.items() if not adapter_of(*weights.holder(n)))
        for parameter in (p for own in others for p in own):
            parameter.requires_grad_(False)
        for first, adapter in adapters.items():
            for holder, attribute in map(weights.holder, self._names_of(first)):
                parametrize.register_parametrization(holder, attribute, adapter)
                make_copyable(holder)
        return chosen

    def merge_lora(self) -> tuple[str, ...]:
        """Add the products of all LoRA adapters to their weights, and remove the adapters.

        The outputs are the same. All that was frozen stays frozen: see `unfreeze`.

        Returns:
            The names of the weights that had an adapter.
        """
        return self._end_lora(merge=True)

    def remove_lora(self) -> tuple[str, ...]:
        """Remove all LoRA adapters; the weights are again what they were before `add_lora`.

        All that was frozen stays frozen: see `unfreeze`.

        Returns:
            The names of the weights that had an adapter.
        """
        return self._end_lora(merge=False)

    @torch.no_grad()
    def _end_lora(self, merge: bool) -> tuple[str, ...]:
        adapters = dict(self._adapters())
        for name, adapter in adapters.items():
            for number, place in enumerate(map(self.weights.holder, self._names_of(name))):
                parametrizations = parametrizations_of(*place)
                assert parametrizations is not None, "the adapter is one of them"
                if merge and not number:  # all names are of one parameter
                    parametrizations.original.copy_(adapter(parametrizations.original))
                del parametrizations[list(parametrizations).index(adapter)]
                if not parametrizations:  # nobody has added another one since
                    parametrize.remove_parametrizations(*place, leave_parametrized=False)
        return tuple(adapters)

    def lora_state_dict(self) -> dict[str, Tensor]:
        """The matrices of all LoRA adapters, by the name of the weight + ".lora_A" or ".lora_B".

        As in a state dict, the tensors share memory with the parameters. Rank and alpha are not
        stored: to load it, call `add_lora` with the same arguments first.
        """
        return {
            f"{name}.{matrix}": parameter.detach()
            for name, adapter in self._adapters()
            for matrix, parameter in adapter.named_parameters()
        }

    def load_lora_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Load what `lora_state_dict` returned into the adapters of this module, in place.

        Args:
            state: exactly the matrices of this module's adapters, by name; of any floating dtype.

        Raises:
            ValueError: names or shapes differ; all are listed, and nothing is changed.
        """
        own = self.lora_state_dict()
        wrong = [f"missing: {name}" for name in own.keys() - state.keys()]
        wrong += [f"not in the module: {name}" for name in state.keys() - own.keys()]
        wrong += [
            f"{name} must be {list(own[name].shape)}, got {list(state[name].shape)}"
            for name in own.keys() & state.keys()
            if own[name].shape != state[name].shape
        ]
        if wrong:
            hint = "state must be of the same adapters: call add_lora with the same arguments first"
            raise ValueError("\n  ".join([hint, *sorted(wrong)]))
        for name, tensor in own.items():
            tensor.copy_(state[name])

    def _adapters(self) -> Iterator[tuple[str, LoRA]]:
        for name in (name for name in self.weights if name not in self.weights.tied):
            if (adapter := adapter_of(*self.weights.holder(name))) is not None:
                yield name, adapter

    def _names_of(self, first: str) -> list[str]:
        """All names of a weight, by its first one."""
        tied = self.weights.tied.items()
        return [first, *(n for n, f in tied if f == first and n in self.weights)]

    def freeze_statistics(self, names: Names = "*") -> tuple[str, ...]:
        """Make normalization use its stored statistics, in `train()` too, and never update them.

        This suits small batches; detectors do it to their backbones. Scale and bias still train. It
        also holds where the file itself requires the statistics of the batch.

        Args:
            names: of running means or variances: a pattern or several, or a predicate of name and
                tensor.

        Returns:
            The names of the chosen statistics.

        Raises:
            ValueError: a pattern matches no statistics; exporters fold normalization into
                convolutions by default.
        """
        chosen = self._statistics(names)
        self.frozen_statistics |= set(chosen)
        self._set_modes(chosen, training=False)
        self.refresh()
        return chosen

    def unfreeze_statistics(self, names: Names = "*") -> tuple[str, ...]:
        """Undo `freeze_statistics`."""
        chosen = self._statistics(names)
        self.frozen_statistics -= set(chosen)
        self._set_modes(chosen, training=self.training)
        self.refresh()
        return chosen

    def _set_modes(self, names: Iterable[str], *, training: bool) -> None:
        """Set the mode of the layers of torch that hold statistics; others know from the plan."""
        for holder in (self.weights.holder(name)[0] for name in names):
            if holder is not self and not isinstance(holder, Level):
                holder.training = training

    def _statistics(self, names: Names) -> tuple[str, ...]:
        state = state_names(self.onnx_graph)
        statistics = {name: tensor for name, tensor in self.weights.items() if name in state}
        names = torch_names(names, self.weights.stored)
        return select(names, statistics, "names must match a running statistic", statistics)

    def parameter_groups(
        self,
        lr: float,
        *,
        decay: float = 1.0,
        by: Literal["depth"] | Sequence[str] = "depth",
        levels: int | None = None,
        weight_decay: float | None = None,
    ) -> list[dict[str, Any]]:
        """Groups for an optimizer, with lower learning rates towards the input.

        The level nearest to the output trains with `lr`, the one before it with `lr * decay`, then
        `lr * decay**2`, and so on. Frozen weights are left out. A tied weight belongs to the level
        that reads it first.

        Example:
            >>> torch.optim.AdamW(m.parameter_groups(lr=1e-4, decay=0.8))  # doctest: +SKIP

        Args:
            lr: the learning rate of the last level.
            decay: the factor between the learning rates of adjacent levels.
            by: "depth", a level for each matrix or kernel on the longest path from the input
                (vectors belong to the matrix before them), or prefixes of names, one per level,
                from the input to the output.
            levels: adjacent depths are joined to this many levels; None keeps all depths.
            weight_decay: for matrices and kernels only; vectors get 0 in groups of their own, as
                usual. None leaves it to the optimizer. Adapters of LoRA are matrices.

        Returns:
            Dictionaries with "params", "lr" and "name", from the input to the output; and
            "weight_decay" if it is set.

        Raises:
            ValueError: a trainable weight has none of the prefixes.
        """
        parameters = {
            name: [p for p in own if p.requires_grad]
            for name, own in self._parameters_of_weights().items()
        }
        training = {name: self.weights[name] for name, own in parameters.items() if own}
        if by == "depth":
            level_of = _joined(depths(self.onnx_graph, training), levels)
        elif isinstance(by, str):
            raise ValueError(f'by must be "depth" or a list of prefixes, got {by!r}')
        else:
            level_of = _by_prefix(training, by)
        last = max(level_of.values(), default=0)
        groups: dict[tuple[int, bool], dict[str, Any]] = {}
        grouped: set[int] = set()  # a tied weight has several names
        for name in sorted(training, key=lambda n: level_of[n]):
            if id(training[name]) in grouped:
                continue
            grouped.add(id(training[name]))
            level = level_of[name]
            vector = weight_decay is not None and training[name].ndim < 2
            title = f"depth {level}" if by == "depth" else by[level]
            group = {"params": [], "lr": lr * decay ** (last - level), "name": title}
            if weight_decay is not None:
                group["weight_decay"] = 0.0 if vector else weight_decay
            groups.setdefault((level, vector), group)["params"] += parameters[name]
        return list(groups.values())


def depths(graph: Graph, weights: Mapping[str, Tensor]) -> dict[str, int]:
    """The number of matrices or kernels on the longest path from the input to each weight.

    A value computed from weights alone (a transposed or quantized one) counts where a node combines
    it with data.
    """
    reached = {i.name: 0 for i in graph.inputs if i.name not in weights}
    made_of: dict[str, set[str]] = {name: {name} for name in weights}
    found: dict[str, int] = {}
    for node in graph.nodes:
        own = set().union(*(made_of.get(name, set()) for name in node.reads))
        data = [reached[name] for name in node.reads if name in reached]
        if not data:
            made_of.update(dict.fromkeys(node.outputs, own))
            continue
        deepens = any(weights[name].ndim > 1 for name in own)
        depth = max(data) + deepens
        for name in own:
            found.setdefault(name, depth)
        reached.update(dict.fromkeys(node.outputs, depth))
    return {name: found.get(name, 0) for name in weights}


def _joined(depth_of: dict[str, int], levels: int | None) -> dict[str, int]:
    """Depths numbered from 0 without gaps, or divided into `levels` equal parts."""
    depths_used = sorted(set(depth_of.values()))
    count = len(depths_used)
    kept = count if levels is None else min(levels, count)
    level = {depth: place * kept // count for place, depth in enumerate(depths_used)}
    return {name: level[depth] for name, depth in depth_of.items()}


def _by_prefix(weights: Iterable[str], prefixes: Sequence[str]) -> dict[str, int]:
    """The index of the longest prefix of each name; "layer.1" is not a prefix of "layer.10"."""
    found: dict[str, int] = {}
    for name in weights:
        fitting = [(len(p), place) for place, p in enumerate(prefixes) if _is_under(name, p)]
        if not fitting:
            raise ValueError(f"by must have a prefix of {name!r}, got {list(prefixes)}")
        found[name] = max(fitting)[1]
    return found


def _is_under(name: str, prefix: str) -> bool:
    rest = name.removeprefix(prefix)
    return name.startswith(prefix) and not (prefix[-1:].isalnum() and rest[:1].isalnum())
