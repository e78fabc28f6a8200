"""Loading and freezing weights and statistics, and groups of parameters for optimizers.

`Tunable` is the part of `OnnxModule` for fine-tuning. Its patterns are those of `fnmatch` over the
names of weights ("layer1.*"), or exact ONNX names; a predicate takes name and tensor.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from torch import Tensor, nn

from onnxinterp.graph.adoption import torch_names
from onnxinterp.graph.ir import Graph
from onnxinterp.patterns import Names, select, similar_names
from onnxinterp.weights import Weights
from onnxinterp.weights.trainable import state_names


class Tunable(nn.Module):
    """Loading, freezing, unfreezing and grouping of weights by their names."""

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
        see `freeze_statistics`.

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

        Settings (quantization scales, tensors of rank 0, ...) are not parameters: name them in the
        module's `trainable=`.

        Args:
            names: a name pattern or several, or a predicate of name and tensor.

        Returns:
            The names of the chosen parameters.

        Raises:
            ValueError: a pattern matches no parameter.
        """
        return self._require_grad(names, True)

    def _require_grad(self, names: Names, required: bool) -> tuple[str, ...]:
        parameters = {n: t for n, t in self.weights.items() if isinstance(t, nn.Parameter)}
        names = torch_names(names, self.weights.stored)
        chosen = select(names, parameters, "names must match a parameter", parameters)
        for name in chosen:
            parameters[name].requires_grad_(required)
        return chosen

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
        self.refresh()
        return chosen

    def unfreeze_statistics(self, names: Names = "*") -> tuple[str, ...]:
        """Undo `freeze_statistics`."""
        chosen = self._statistics(names)
        self.frozen_statistics -= set(chosen)
        self.refresh()
        return chosen

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
                usual. None leaves it to the optimizer.

        Returns:
            Dictionaries with "params", "lr" and "name", from the input to the output; and
            "weight_decay" if it is set.

        Raises:
            ValueError: a trainable weight has none of the prefixes.
        """
        training = {
            name: tensor
            for name, tensor in self.weights.items()
            if isinstance(tensor, nn.Parameter) and tensor.requires_grad
        }
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
            groups.setdefault((level, vector), group)["params"].append(training[name])
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
