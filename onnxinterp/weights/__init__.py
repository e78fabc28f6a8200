"""The weights of a model by their names in torch, in a tree of modules.

A weight has the name that it had in the torch module that was exported, where the file shows it
(`graph.adoption`); otherwise it has its ONNX name.

`Weights` is a ParameterDict whose dotted names nest: `weights["layer1.0.weight"]` is stored in the
module tree at `layer1` / `0` / `weight`. The root of the tree is the `OnnxModule`: it and its
`Weights` share their tables of parameters, buffers and modules, so that the state_dict key is
`layer1.0.weight`, too. Tensors that never train are buffers outside of the state dict.

Some names are escaped in attribute and state_dict names: a part that the module uses itself
(`half`, `type`, `training`, the empty part, ...), and a name that is also a prefix (`a` beside
`a.b`). Underscores are appended, and a number after the first, until the name is free. Slashes
become underscores. So do dots below level 64, in names of over 512 characters or with a slash, and
where levels would take far more memory than the weights. `weights[...]` takes names without
escapes, also that of a tensor in the file if it is one weight; `weights.path(name)` returns the
state_dict key.
"""

from __future__ import annotations

import re
import weakref
from collections import defaultdict
from collections.abc import Collection, Iterator, KeysView, Mapping, Sequence, Set
from types import MappingProxyType
from typing import Any

from torch import Tensor, nn

from onnxinterp.graph.adoption import Adoption, Stored
from onnxinterp.values import read_weight
from onnxinterp.weights.constants import Constants
from onnxinterp.weights.layouts import StoredWeights
from onnxinterp.weights.tree import RESERVED, class_name, escape, level_at, level_class, register

MAX_LEVELS = 64  # of nested names: torch visits them by recursion
MAX_NESTED_NAME_CHARS = 512  # characters of a name that nests
LEVELS_PER_WEIGHT = 6  # on average, the deepest names first; torch modules have up to 3
RECURRENT = re.compile(r"\w+_[ih]h_l(\d{1,9})(_reverse)?")
SPARE_LEVELS = 1000  # in addition
TABLES = ("_parameters", "_buffers", "_modules", "_non_persistent_buffers_set")


class Weights(nn.ParameterDict):
    """A ParameterDict of the weights by name: floating tensors that may train are parameters.

    Running statistics are buffers; everything else (integers, bounds) is a constant.

    Args:
        values: the tensors by name; those that are an `nn.Parameter` become parameters.
        owner: the module at whose root the names are stored; by default, the dictionary itself.
        transient: names of the constants, which are neither in the tree nor in the state dict.
        adoption: how the tensors of a file are made of the weights.
        modules: path of each module that is called -> name of its class; others hold weights.

    Attributes:
        stored: tensor of the file -> the weights that it is made of.
        tied: further name of a weight -> its first name.
        transient: names of the constants.
        constants: holds the constants.
        own_levels: the attributes that lead to each module of the tree -> the module.
        modules_called: path of each module that is called -> the attributes that lead to it.
    """

    constants: Constants
    # ParameterDict has an ordered set of its names here; ours also has the path of each
    _keys: dict[str, tuple[str, ...]]  # type: ignore[assignment]

    def __init__(
        self,
        values: Mapping[str, Tensor] | None = None,
        owner: nn.Module | None = None,
        transient: Collection[str] = (),
        adoption: Adoption | None = None,
        modules: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        super().__init__()
        adoption = adoption or Adoption()
        self.stored: Mapping[str, Stored] = adoption.stored
        self.tied: Mapping[str, str] = adoption.tied
        self.attach(owner)
        root = self.root
        annotated = (vars(c).get("__annotations__", ()) for c in type(root).__mro__)
        names = set(dir(root)).union(*annotated)
        self._reserved = RESERVED.union(name.rstrip("_") for name in names)
        self.transient = frozenset(transient)
        self.__dict__["constants"] = Constants()
        self.own_levels: dict[tuple[str, ...], nn.Module] = {}
        self._descended: dict[tuple[str, ...], tuple[str, ...]] | None = {}
        values = values or {}
        room = SPARE_LEVELS + LEVELS_PER_WEIGHT * float(len(values)) + len(modules)
        self.modules_called: dict[str, tuple[str, ...]] = {}
        for path, kind in modules.items():
            *around, last = path.split(".")
            if room > 0 and len(around) < MAX_LEVELS:
                attributes, made = self._descend([*around, last], kind)
                self.modules_called[path] = attributes
                room -= made
        in_tree = [name for name in values if name not in self.transient]
        renamed = _renamed(adoption)
        in_tree = _in_torch_order(in_tree, renamed)
        for name in sorted(in_tree, key=lambda n: -n.count(".")):  # levels before their namesakes
            room -= self._enter(name, MAX_LEVELS if room > 0 else 0)
            self[name] = values[name]
        self._enter_constants({n: t for n, t in values.items() if n in self.transient})
        others = {*self.transient, *renamed, *self.tied, *self.tied.values()}
        self._sort_levels([name for name in values if name not in others])
        in_order = {name: self._keys[name] for name in values}
        self._descended = None  # from now on, tools may change the tree
        self._keys = in_order  # pyright: ignore[reportIncompatibleVariableOverride]  # as above

    def _sort_levels(self, names: Sequence[str]) -> None:
        """Order modules as the file orders their weights, as torch does where they were registered.

        A module without such a weight follows the module that is called before it.

        Args:
            names: of weights whose names are in the file, in its order; without tied weights, which
                may be elsewhere there.
        """
        place: dict[tuple[str, ...], int] = {}
        for index, name in enumerate(names):
            path = self._keys[name]
            for depth in range(1, len(path)):
                place.setdefault(path[:depth], index)
        for path in [(), *self.own_levels]:
            last, modules = -1, level_at(self.root, path)._modules
            order: dict[str, int] = {}
            for part in modules:
                order[part] = last = place.get((*path, part), last)
            for part in sorted(order, key=order.__getitem__):
                modules[part] = modules.pop(part)

    def attach(self, owner: nn.Module | None) -> None:
        """Share the tables of `owner`, which is not referenced: it is freed as it goes."""
        self.__dict__["_owner"] = None if owner is None else weakref.ref(owner)
        if owner is not None:
            self.__dict__.update({table: owner.__dict__[table] for table in TABLES})

    @property
    def root(self) -> nn.Module:
        """The module at the root of the tree."""
        owner = self.__dict__["_owner"]
        found: nn.Module | None = None if owner is None else owner()
        return self if found is None else found

    def tie(self) -> None:
        """Make all names of a weight one parameter again, that of its first name."""
        for name, first in self.tied.items():
            self[name] = self[first]

    @property
    def as_stored(self) -> StoredWeights:
        """The tensors of the file, by their names and in their layouts there."""
        return StoredWeights(self)

    def _find(self, name: str) -> tuple[str, ...]:
        """The path of a weight, by its name or by that of the tensor in the file.

        Raises:
            KeyError: there is none, or the tensor has several weights.
        """
        if name not in self._keys and name in self.stored:
            names = self.stored[name].names
            if len(names) != 1:
                raise KeyError(f"{name!r} is stored as the weights {', '.join(map(repr, names))}")
            name = names[0]
        return self._keys[name]

    def path(self, name: str) -> str:
        """The attribute path and state_dict key of a weight: its name, but for escapes."""
        return ".".join(self._find(name))

    def holder(self, name: str) -> tuple[nn.Module, str]:
        """The module that holds a weight, and its attribute name there."""
        *around, leaf = self._find(name)
        if name in self.transient:
            return self.constants, name
        level = self._level(around)
        if around and not _has(level, leaf):  # put in place of the file's own
            level = self.own_levels[tuple(around)]
        return level, leaf

    def _level(self, path: Sequence[str]) -> nn.Module:
        """The module at a path: the file's own, also inside of a wrapper, or what replaced it."""
        level = self.root
        for depth, part in enumerate(path):
            own, found = self.own_levels[tuple(path[: depth + 1])], level._modules.get(part)
            is_inside = found is not None and found is not own and own in found.modules()
            level = own if found is None or is_inside else found
        return level

    def levels(self) -> dict[str, tuple[str, ...]]:
        """Path of each module in the tree -> the attributes that lead to it."""
        return {".".join(attributes): attributes for attributes in self.own_levels}

    def _enter(self, name: str, deepest: int = MAX_LEVELS) -> int:
        """Find a free place for a new name, and add the levels on the way; return their number."""
        nests = len(name) <= MAX_NESTED_NAME_CHARS and "/" not in name  # which no module has
        parts = name.split(".", deepest if nests else 0)
        path, made = self._descend(parts[:-1])
        leaf = escape(parts[-1].replace(".", "_"), RESERVED if path else self._reserved)
        self._keys[name] = (*path, _free(level_at(self.root, path), leaf))
        return made

    def _enter_constants(self, values: Mapping[str, Tensor]) -> None:
        """Store constants; a key in files is the name, or a longer one where a weight has it."""
        taken = {".".join(path) for path in self._keys.values()}
        for name, value in values.items():
            key = name
            while key in taken:
                key += "_"
            taken.add(key)
            self._keys[name] = (key,)
            self.constants.store(name, value)

    def _descend(self, parts: Sequence[str], kind: str = "") -> tuple[tuple[str, ...], int]:
        """The attributes that lead to a module, and how many levels were made on the way."""
        key, descended = tuple(parts), self._descended
        if descended is not None and key in descended:
            return descended[key], 0
        level, path, made, reserved = self.root, list[str](), 0, self._reserved
        for depth, part in enumerate(parts, 1):
            part = escape(part, reserved)
            while part in level._parameters or part in level._buffers:
                part += "_"
            if part not in level._modules:
                own = kind if kind and depth == len(parts) else class_name(parts, depth)
                place = (*path, part)
                self.own_levels[place] = level_class(own)()
                register(level, "module", part, self.own_levels[place])
                made += 1
            level, reserved = level_at(level, (part,)), RESERVED
            path.append(part)
        if descended is not None:
            descended[key] = tuple(path)
        return tuple(path), made

    def __getitem__(self, name: str) -> Tensor:
        return read_weight(*self.holder(name))

    def __setitem__(self, name: str, value: Any) -> None:
        if name not in self._keys and self.stored.get(name, ("", (name,)))[1] == (name,):
            self._enter(name)
        if name in self.transient:
            self.constants.store(name, value)
            return
        holder, leaf = self.holder(name)
        old = holder._parameters.pop(leaf, None)
        holder._buffers.pop(leaf, None)
        if old is not None and not isinstance(value, nn.Parameter):
            value = nn.Parameter(value, old.requires_grad)
        if isinstance(value, nn.Parameter):
            register(holder, "parameter", leaf, value)
        else:
            register(holder, "buffer", leaf, value)

    def __delitem__(self, name: str) -> None:
        if name in self.transient:
            self.constants.remove(name)
        else:
            holder, leaf = self.holder(name)
            holder._parameters.pop(leaf, None)
            holder._buffers.pop(leaf, None)
        del self._keys[name]

    def __contains__(self, name: object) -> bool:
        if name in self._keys or name not in self.stored:
            return name in self._keys
        names = self.stored[str(name)].names
        return len(names) == 1 and names[0] in self._keys

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
        """As torch does, but for what `take` has taken out of the state dict."""
        self.take(state_dict, prefix)
        super()._load_from_state_dict(state_dict, prefix, *rest, **keywords)

    def take(self, state_dict: dict[str, Any], prefix: str = "") -> None:
        """Take the entries that are no parameters of the module out of a state dict.

        Escaped names may stand in it as they are in ONNX, and constants of the model may be in it,
        too: those are loaded here. The count of batches of a torch model is not a weight in ONNX.
        """
        paths = {self.path(name): name for name in self._keys}
        buffers = self.root.named_buffers()
        counts = {n: b for n, b in buffers if n.endswith("num_batches_tracked")}
        for path, count in counts.items():  # as torch itself does for older state dicts
            state_dict.setdefault(prefix + path, count)
        for name in self._keys:
            path = self.path(name)
            if path != name and prefix + name in state_dict and name not in paths:
                state_dict.setdefault(prefix + path, state_dict.pop(prefix + name))
        for key in [k for k in state_dict if k.startswith(prefix)]:
            path = key.removeprefix(prefix)
            if path in paths:
                if paths[path] in self.transient:
                    self.constants.load(paths[path], state_dict.pop(key))
            elif path.endswith("num_batches_tracked") and path not in counts:
                del state_dict[key]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_owner": None}


def _renamed(adoption: Adoption) -> set[str]:
    """The weights whose names are not in the file."""
    return {n for origin, made in adoption.stored.items() for n in made.names if n != origin}


def _in_torch_order(names: Sequence[str], renamed: Set[str]) -> list[str]:
    """Names in the order of the file, those of a module with renamed weights in torch's order.

    States of optimizers go by the place of a parameter.
    """
    modules = [name.rpartition(".")[0] for name in names]
    own = defaultdict[str, list[str]](list)
    for module, name in zip(modules, names, strict=True):
        own[module].append(name)
    sorted_own = {
        module: iter(sorted(own[module], key=_place_in_module))
        for module in own
        if not renamed.isdisjoint(own[module])
    }
    pairs = zip(modules, names, strict=True)
    return [next(sorted_own[module]) if module in sorted_own else name for module, name in pairs]


def _place_in_module(name: str) -> tuple[int, bool, bool, bool]:
    """weight, bias; in a recurrent module weight_ih_l0, weight_hh_l0, bias_ih_l0, ... by layer."""
    leaf = name.rpartition(".")[2]
    layer = RECURRENT.fullmatch(leaf)
    number, backward = (int(layer[1]), bool(layer[2])) if layer else (0, False)
    return number, backward, "bias" in leaf, "_hh_" in leaf


def _has(level: nn.Module, name: str) -> bool:
    """Whether a module has a weight, perhaps one that parametrizations compute."""
    return name in level._parameters or name in level._buffers or hasattr(type(level), name)


def tensors_of(weights: Weights) -> dict[str, Tensor]:
    """The weights that are tensors: those of a layer that a tool has replaced may be gone."""
    return {name: value for name, value in weights.items() if isinstance(value, Tensor)}


def _free(level: nn.Module, part: str) -> str:
    """A part of a name, with a suffix where a level has the name already."""
    tables: tuple[Mapping[str, object], ...] = (level._modules, level._parameters, level._buffers)

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
