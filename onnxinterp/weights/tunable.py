"""What of a module trains, how fast, and what stays as it is.

`Tunable` is the part of `OnnxModule` that fine-tuning asks for. Its patterns are those of `fnmatch`
over ONNX names ("layer1.*"); a predicate gets name and tensor.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, Literal, TypeAlias

from torch import Tensor, nn

from onnxinterp.graph.ir import Graph
from onnxinterp.weights import Weights, roles

Selection: TypeAlias = "str | Iterable[str] | Callable[[str, Tensor], bool]"


class Tunable(nn.Module):
    """Freezing, unfreezing and grouping of weights by their ONNX names."""

    weights: Weights
    onnx_graph: Graph
    frozen_statistics: frozenset[str]

    def refresh(self) -> None:
        """Take over constants that were changed in place."""
        raise NotImplementedError

    def freeze(self, names: Selection = "*") -> tuple[str, ...]:
        """Make weights stay as they are: `requires_grad` of their parameters becomes False.

        That is all it does, so it survives `train()`, copies and pickling, and whatever else sets
        `requires_grad` works beside it. Statistics of normalisation are no parameters: see
        `freeze_statistics`.

        Args:
            names: a name pattern or several, or a predicate of name and tensor.

        Returns:
            The names of the parameters concerned.

        Raises:
            ValueError: no parameter has such a name.
        """
        return self._require_grad(names, False)

    def unfreeze(self, names: Selection = "*") -> tuple[str, ...]:
        """Make weights train: `requires_grad` of their parameters becomes True.

        Weights that cannot train by default (quantization scales, rank-0 settings) are no
        parameters: name them in the module's `trainable=`.

        Args:
            names: a name pattern or several, or a predicate of name and tensor.

        Returns:
            The names of the parameters concerned.

        Raises:
            ValueError: no parameter has such a name.
        """
        return self._require_grad(names, True)

    def _require_grad(self, names: Selection, required: bool) -> tuple[str, ...]:
        parameters = {n: t for n, t in self.weights.items() if isinstance(t, nn.Parameter)}
        chosen = _chosen(names, parameters, "parameter")
        for name in chosen:
            parameters[name].requires_grad_(required)
        return chosen

    def freeze_statistics(self, names: Selection = "*") -> tuple[str, ...]:
        """Make normalisation use the statistics it has, in `train()` too, and never change them.

        That is what small batches want, and what detectors do to their backbones. Scale and bias
        go on training. It also holds where the file itself asks for the statistics of the batch.

        Args:
            names: of running means or variances: a pattern or several, or a predicate of name and
                tensor.

        Returns:
            The names of the statistics concerned.

        Raises:
            ValueError: no statistics have such a name; exporters fold normalisation into
                convolutions by default.
        """
        chosen = _chosen(names, self._statistics(), "statistics")
        self.frozen_statistics |= set(chosen)
        self.refresh()
        return chosen

    def unfreeze_statistics(self, names: Selection = "*") -> tuple[str, ...]:
        """Undo `freeze_statistics`."""
        chosen = _chosen(names, self._statistics(), "statistics")
        self.frozen_statistics -= set(chosen)
        self.refresh()
        return chosen

    def _statistics(self) -> dict[str, Tensor]:
        state = roles(self.onnx_graph)[1]
        return {name: tensor for name, tensor in self.weights.items() if name in state}

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
        `lr * decay**2`, and so on. Frozen weights are left out; tied ones count where they are
        first read.

        Example:
            >>> torch.optim.AdamW(m.parameter_groups(lr=1e-4, decay=0.8))  # doctest: +SKIP

        Args:
            lr: the learning rate of the last level.
            decay: how much lower that of each level before it is.
            by: "depth", a level for each matrix or kernel on the longest way from the input
                (vectors belong to the matrix before them), or prefixes of names, one a level, from
                the input to the output.
            levels: depths next to each other are joined to this many levels; None keeps them all.
            weight_decay: given for matrices and kernels only; vectors then get 0 in groups of
                their own, as is custom. None leaves it to the optimizer.

        Returns:
            Dictionaries with "params", "lr" and "name", from the input to the output; and
            "weight_decay" where it is given.

        Raises:
            ValueError: a weight that trains is under none of the prefixes.
        """
        training = {
            name: tensor
            for name, tensor in self.weights.items()
            if isinstance(tensor, nn.Parameter) and tensor.requires_grad
        }
        if by == "depth":
            level_of = _joined(depths(self.onnx_graph, training), levels)
        elif isinstance(by, str):
            raise ValueError(f'by is "depth" or a list of prefixes, not {by!r}')
        else:
            level_of = _by_prefix(training, by)
        last = max(level_of.values(), default=0)
        groups: dict[tuple[int, bool], dict[str, Any]] = {}
        for name in sorted(training, key=lambda n: level_of[n]):
            level = level_of[name]
            vector = weight_decay is not None and training[name].ndim < 2
            title = f"depth {level}" if by == "depth" else by[level]
            group = {"params": [], "lr": lr * decay ** (last - level), "name": title}
            if weight_decay is not None:
                group["weight_decay"] = 0.0 if vector else weight_decay
            groups.setdefault((level, vector), group)["params"].append(training[name])
        return list(groups.values())


def depths(graph: Graph, weights: Mapping[str, Tensor]) -> dict[str, int]:
    """How many matrices or kernels stand on the longest way from the input to each weight.

    What is made of weights alone (a transposed or quantized one) counts where it meets data.
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
    """Depths numbered from 0 without gaps, or cut into `levels` equal parts."""
    depths_used = sorted(set(depth_of.values()))
    count = len(depths_used)
    kept = count if levels is None else min(levels, count)
    level = {depth: place * kept // count for place, depth in enumerate(depths_used)}
    return {name: level[depth] for name, depth in depth_of.items()}


def _by_prefix(weights: Iterable[str], prefixes: Sequence[str]) -> dict[str, int]:
    """The place of the longest prefix of each name; "layer.1" is no prefix of "layer.10"."""
    found: dict[str, int] = {}
    for name in weights:
        fitting = [(len(p), place) for place, p in enumerate(prefixes) if _is_under(name, p)]
        if not fitting:
            raise ValueError(f"the weight {name!r} is under none of the prefixes {list(prefixes)}")
        found[name] = max(fitting)[1]
    return found


def _is_under(name: str, prefix: str) -> bool:
    rest = name.removeprefix(prefix)
    return name.startswith(prefix) and not (prefix[-1:].isalnum() and rest[:1].isalnum())


def _chosen(names: Selection, tensors: Mapping[str, Tensor], what: str) -> tuple[str, ...]:
    if callable(names):
        return tuple(n for n, t in tensors.items() if names(n, t))
    patterns = [names] if isinstance(names, str) else list(names)
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in tensors):
            raise ValueError(f"no {what} of this model has a name like {pattern!r}")
    return tuple(n for n in tensors if any(fnmatchcase(n, p) for p in patterns))
