"""The weights of a model by their ONNX names.

`Weights` is a ParameterDict whose dotted names nest: `weights["layer1.0.weight"]` is stored in the
module tree at `layer1` / `0` / `weight`, so that its state_dict key is `layer1.0.weight` too.

Some names are escaped in attribute and state_dict names: a part that nn.Module or ParameterDict
uses itself (`half`, `type`, `training`, the empty part, ...), and a name that is also a prefix (`a`
beside `a.b`). Underscores are appended, and a number after the first, until the name is free. Dots
become underscores below level 64, in names of over 512 characters, and where levels would take far
more memory than the weights. `weights[...]` always takes the ONNX name, and `weights.path(name)`
returns the state_dict key.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, KeysView, Mapping
from typing import Any, cast

from torch import Tensor, nn

MAX_LEVELS = 64  # of nested names: torch visits them by recursion
MAX_NESTED_NAME_CHARS = 512  # characters of a name that nests: each level stores the rest of it
LEVELS_PER_WEIGHT = 6  # on average, the deepest names first; torch modules have up to 3
SPARE_LEVELS = 1000  # in addition
LEVELS_PER_KEY = 1 / 8  # memory of a name in a level that exists
RESERVED = frozenset(dir(nn.ParameterDict())) | {"training", ""}


class Weights(nn.ParameterDict):
    """A ParameterDict with ONNX names as keys: floating tensors that may train are parameters.

    Everything else (integers, statistics, bounds) is a buffer. A nested level, such as
    `weights.layer1`, is a `Weights` of its own with names relative to it.
    """

    # ParameterDict has an ordered set of its names here; ours also has the path of each
    _keys: dict[str, tuple[str, ...]]  # type: ignore[assignment]

    def __init__(self, values: Mapping[str, Tensor] | None = None) -> None:
        super().__init__()
        values = values or {}
        room = SPARE_LEVELS + LEVELS_PER_WEIGHT * float(len(values))
        for name in sorted(values, key=lambda n: -n.count(".")):  # levels before their namesakes
            room -= self._enter(name, MAX_LEVELS if room > 0 else 0)
            self[name] = values[name]
        in_order = {name: self._keys[name] for name in values}
        self._keys = in_order  # pyright: ignore[reportIncompatibleVariableOverride]  # as above

    def path(self, name: str) -> str:
        """The attribute path and state_dict key of a weight: its name, but for escapes."""
        return ".".join(self._keys[name])

    def holder(self, name: str) -> tuple[nn.Module, str]:
        """The level that holds a weight, and its attribute name there."""
        path = self._keys[name]
        return self._level(path[:-1]), path[-1]

    def _level(self, path: Iterable[str]) -> nn.Module:
        level: nn.Module = self
        for part in path:
            level = cast("nn.Module", level._modules[part])
        return level

    def _enter(self, name: str, deepest: int = MAX_LEVELS) -> float:
        """Find a free place for a new name; add the levels on the way, and the name to each.

        Returns:
            The memory for it, in levels.
        """
        parts = name.split(".", deepest if len(name) <= MAX_NESTED_NAME_CHARS else 0)
        levels: list[Weights] = [self]
        path: list[str] = []
        made = 0
        for part in map(_escape, parts[:-1]):
            level = levels[-1]
            while part in level._parameters or part in level._buffers:
                part += "_"
            if part not in level._modules:
                _register(level, "module", part, Weights())
                made += 1
            levels.append(cast("Weights", level._modules[part]))
            path.append(part)
        path.append(levels[-1]._free(_escape(parts[-1].replace(".", "_"))))
        for depth, level in enumerate(levels):
            level._keys[".".join(parts[depth:])] = tuple(path[depth:])
        return made + LEVELS_PER_KEY * len(levels)

    def _free(self, part: str) -> str:
        """A part of a name, with a suffix where this level has the name already."""
        tables: tuple[Mapping[str, object], ...] = (self._modules, self._parameters, self._buffers)

        def is_taken(name: str) -> bool:
            return any(name in table for table in tables)

        if is_taken(part):
            part += "_"
        if not is_taken(part):
            return part
        number = sum(map(len, tables))  # it grows with the names, so that few are tried
        while is_taken(f"{part}{number}"):
            number *= 2
        return f"{part}{number}"

    def __getitem__(self, name: str) -> Tensor:
        return read_weight(*self.holder(name))

    def __setitem__(self, name: str, value: Any) -> None:
        if name not in self._keys:
            self._enter(name)
        holder, leaf = self.holder(name)
        old = holder._parameters.pop(leaf, None)
        holder._buffers.pop(leaf, None)
        if old is not None and not isinstance(value, nn.Parameter):
            value = nn.Parameter(value, old.requires_grad)
        kind = "parameter" if isinstance(value, nn.Parameter) else "buffer"
        _register(holder, kind, leaf, value)

    def __delitem__(self, name: str) -> None:
        holder, leaf = self.holder(name)
        holder._parameters.pop(leaf, None)
        holder._buffers.pop(leaf, None)
        path = self._keys[name]
        parts = name.split(".", len(path) - 1)
        for depth in range(len(parts)):
            level = cast("Weights", self._level(path[:depth]))
            del level._keys[".".join(parts[depth:])]

    def __contains__(self, name: object) -> bool:
        return name in self._keys

    def __iter__(self) -> Iterator[str]:
        return iter(self._keys)

    def __len__(self) -> int:
        return len(self._keys)

    def keys(self) -> KeysView[str]:
        """The ONNX names, in the order of the file."""
        return self._keys.keys()

    def items(self) -> list[tuple[str, Tensor]]:
        """(ONNX name, tensor) pairs."""
        return [(name, self[name]) for name in self._keys]

    def values(self) -> list[Tensor]:
        """The tensors."""
        return [self[name] for name in self._keys]

    def popitem(self) -> tuple[str, Tensor]:
        """Remove and return the last (ONNX name, tensor)."""
        name = next(reversed(self._keys))
        return name, self.pop(name)

    def copy(self) -> Weights:
        """The same tensors under the same names in a new dictionary."""
        return Weights(dict(self.items()))

    def extra_repr(self) -> str:
        """The number of tensors and elements: a model has too many to print."""
        count = sum(v.numel() for v in self.values())
        return f"{len(self)} tensors, {count} elements"

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.extra_repr()})"

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *rest: Any, **keywords: Any
    ) -> None:
        """Ignore the count of batches of a torch model: it is not a weight in ONNX."""
        paths = {self.path(name) for name in self._keys}
        for key in [k for k in state_dict if k.startswith(prefix)]:
            if key.endswith("num_batches_tracked") and key.removeprefix(prefix) not in paths:
                del state_dict[key]
        super()._load_from_state_dict(state_dict, prefix, *rest, **keywords)


def _escape(part: str) -> str:
    """`half` -> `half_`, `half_` -> `half__`: different from names that need no escape.

    NUL becomes an underscore: the guards of torch.compile cannot contain it.
    """
    part = part.replace("\0", "_")
    return part + "_" if part.rstrip("_") in RESERVED else part


def _register(level: nn.Module, kind: str, name: str, value: Any) -> None:
    """Register a "parameter", "buffer" or "module" as torch does, so that torch's hooks see it.

    Torch refuses names that a level has as attributes beyond `RESERVED`, such as `path`.
    """
    if hasattr(level, name):
        getattr(level, f"_{kind}s")[name] = value
    else:
        getattr(level, f"register_{kind}")(name, value)


def read_weight(holder: nn.Module, attribute: str) -> Tensor:
    """The current value of a weight: a parameter, a buffer, or the result of a parametrization."""
    found: Tensor | None = holder._parameters.get(attribute)
    if found is None:
        found = holder._buffers.get(attribute)
    return cast("Tensor", getattr(holder, attribute)) if found is None else found
