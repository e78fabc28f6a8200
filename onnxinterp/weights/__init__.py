"""The weights of a model under their ONNX names, and what of them trains.

`Weights` is a ParameterDict whose dotted names nest: `weights["layer1.0.weight"]` stands in the
module tree at `layer1` / `0` / `weight`, so that its state_dict key is `layer1.0.weight` too.

Escape: a part of a name that nn.Module or ParameterDict uses itself (`half`, `type`, `training`,
the empty part, ...) and a tensor whose name is also a prefix (`a` beside `a.b`) get underscores
appended in attribute and state_dict names, a number too after the first, until they are free. Below
the 64th level, in names of over 512 characters, and where levels would take far more memory than
the weights, dots are underscores. `weights[...]` always takes the ONNX name, and
`weights.path(name)` tells where it stands.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, KeysView, Mapping
from fnmatch import fnmatchcase
from typing import Any, TypeAlias, cast

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from onnxinterp.errors import InvalidModelError, UnsafeModelError
from onnxinterp.format.tensor_reader import TensorReader
from onnxinterp.graph.ir import Graph, Holder, Model, WeightRef
from onnxinterp.limits import REPEATED
from onnxinterp.registry import Kind

Trainable: TypeAlias = "str | Iterable[str] | Callable[[str, Tensor], bool]"

TENSORS = (Kind.TENSOR, Kind.OPERAND, Kind.ANY)
MAX_LEVELS = 64  # that names may nest: torch goes through them one inside the other
MAX_NESTED_NAME_CHARS = 512  # characters of a name that nests: each level keeps the rest of it
ROOM = 6  # levels for each weight, the deepest first; models of torch modules have up to 3
SPARE = 1000  # levels beside these
KEY = 1 / 8  # of a level: what a name takes in one that is there
RESERVED = frozenset(dir(nn.ParameterDict())) | {"training", ""}


class Weights(nn.ParameterDict):
    """A ParameterDict with ONNX names as keys: floating tensors that may train are parameters.

    Everything else (integers, statistics, bounds) is a buffer. A nested level, such as
    `weights.layer1`, is a `Weights` of its own with names relative to it.
    """

    # ParameterDict keeps an ordered set of its names here; ours also tells where each stands
    _keys: dict[str, tuple[str, ...]]  # type: ignore[assignment]

    def __init__(self, values: Mapping[str, Tensor] | None = None) -> None:
        super().__init__()
        values = values or {}
        room = SPARE + ROOM * float(len(values))
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
        """Find a free place for a new name; make the levels on the way and tell them.

        Returns:
            The memory this takes, in levels.
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
                level._modules[part] = Weights()
                made += 1
            levels.append(cast("Weights", level._modules[part]))
            path.append(part)
        path.append(levels[-1]._free(_escape(parts[-1].replace(".", "_"))))
        for depth, level in enumerate(levels):
            level._keys[".".join(parts[depth:])] = tuple(path[depth:])
        return made + KEY * len(levels)

    def _free(self, part: str) -> str:
        """A part of a name with as much behind it as it takes to be alone on this level."""
        tables: tuple[Mapping[str, object], ...] = (self._modules, self._parameters, self._buffers)

        def is_taken(name: str) -> bool:
            return any(name in table for table in tables)

        if is_taken(part):
            part += "_"
        if not is_taken(part):
            return part
        number = sum(map(len, tables))  # grows with the names, so that few are tried
        while is_taken(f"{part}{number}"):
            number *= 2
        return f"{part}{number}"

    def __getitem__(self, name: str) -> Tensor:
        return read(*self.holder(name))

    def __setitem__(self, name: str, value: Any) -> None:
        if name not in self._keys:
            self._enter(name)
        holder, leaf = self.holder(name)
        old = holder._parameters.pop(leaf, None)
        holder._buffers.pop(leaf, None)
        if old is not None and not isinstance(value, nn.Parameter):
            value = nn.Parameter(value, old.requires_grad)
        table: dict[str, Any] = holder._buffers
        if isinstance(value, nn.Parameter):
            table = holder._parameters
        table[leaf] = value

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
        """Remove and give the last (ONNX name, tensor)."""
        name = next(reversed(self._keys))
        return name, self.pop(name)

    def copy(self) -> Weights:
        """The same tensors under the same names in a new dictionary."""
        return Weights(dict(self.items()))

    def extra_repr(self) -> str:
        """How many there are: a model has too many to print."""
        count = sum(v.numel() for v in self.values())
        return f"{len(self)} tensors, {count} elements"

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.extra_repr()})"

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *rest: Any, **keywords: Any
    ) -> None:
        """A torch model's count of batches is no weight of ONNX: ignored where it is given."""
        paths = {self.path(name) for name in self._keys}
        for key in [k for k in state_dict if k.startswith(prefix)]:
            if key.endswith("num_batches_tracked") and key.removeprefix(prefix) not in paths:
                del state_dict[key]
        super()._load_from_state_dict(state_dict, prefix, *rest, **keywords)


def _escape(part: str) -> str:
    """`half` -> `half_`, `half_` -> `half__`: told apart from names that need no escape.

    NUL, which the guards of torch.compile cannot hold, becomes an underscore.
    """
    part = part.replace("\0", "_")
    return part + "_" if part.rstrip("_") in RESERVED else part


def read(holder: nn.Module, attribute: str) -> Tensor:
    """A weight as it is now: a parameter, a buffer, or what a parametrization makes of one."""
    found: Tensor | None = holder._parameters.get(attribute)
    if found is None:
        found = holder._buffers.get(attribute)
    return cast("Tensor", getattr(holder, attribute)) if found is None else found


def roles(graph: Graph) -> tuple[frozenset[str], frozenset[str]]:
    """What the kernels say of the values they read.

    Returns:
        The names some kernel takes as a tensor to compute with, neither frozen nor state: weights
        among them train. And the names that are state, brought up to date in training.
    """
    computed: set[str] = set()
    state: set[str] = set()
    for node in graph.walk():
        kernel = node.kernel
        for index, name in enumerate(node.inputs):
            parameter = kernel.parameter(index) if kernel else None
            if kernel is None or parameter is None:
                continue
            if parameter.name in kernel.state:
                state.add(name)
            elif parameter.name not in kernel.frozen and kernel.kinds[parameter.name] in TENSORS:
                computed.add(name)
        frozen = kernel.frozen if kernel else ()
        held = {k: v for k, v in node.attributes.items() if isinstance(v, WeightRef)}
        computed.update(v.name for k, v in held.items() if k not in frozen)
    return frozenset(computed), frozenset(state)


def parameters(
    tensors: Mapping[str, Tensor],
    graph: Graph,
    trainable: Trainable,
    constants: Collection[str] = (),
) -> dict[str, Tensor]:
    """Wrap the tensors that train, or may be made to, as parameters.

    By default a floating tensor of rank 1 or more trains when a kernel computes with it. A rank-0
    tensor is taken for a setting (an epsilon, a scale), not for a weight; so is one element out of
    a Constant node, whatever its rank.

    Args:
        tensors: all weights of the model.
        graph: the graph that uses them.
        constants: those that come out of Constant nodes.
        trainable: "weights" (the default set), "none" (the default set, frozen), "all" (every
            floating tensor but statistics), a name pattern or several (`fnmatch`), or a predicate
            of name and tensor.
    """
    computed, state = roles(graph)
    wrapped: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        floating = tensor.is_floating_point() or tensor.is_complex()
        setting = tensor.ndim == 0 or (name in constants and tensor.numel() == 1)
        default = name in computed and not setting
        trains = _trains(trainable, name, tensor, default)
        if floating and name not in state and (default or trains):
            wrapped[name] = nn.Parameter(tensor, requires_grad=trains)
        else:
            wrapped[name] = tensor
    return wrapped


def _trains(trainable: Trainable, name: str, tensor: Tensor, default: bool) -> bool:
    if isinstance(trainable, str) and trainable in ("weights", "all", "none"):
        return {"weights": default, "all": True, "none": False}[trainable]
    if callable(trainable):
        return bool(trainable(name, tensor))
    patterns = [trainable] if isinstance(trainable, str) else list(trainable)
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def read_tensors(
    model: Model, graph: Graph, reader: TensorReader
) -> tuple[dict[str, Tensor], dict[str, np.ndarray[Any, Any]]]:
    """The tensors the graph uses, and apart from them the arrays of strings.

    Raises:
        InvalidModelError: the data of one does not fit.
        UnsafeModelError: what `ties` made weights of their own is too large for so many copies.
    """
    most = reader.limits.weight_bytes
    left = REPEATED if most is None else most
    used = set(graph.captures).union(i.name for i in graph.inputs)
    tensors: dict[str, Tensor] = {}
    strings: dict[str, np.ndarray[Any, Any]] = {}
    seen: set[int] = set()
    for name, stored in model.tensors.items():
        if name not in used:
            continue
        value = _read_tensor(stored, reader)
        if isinstance(value, Tensor):  # untied weights do not share the memory of a mapped file
            if id(stored) in seen:
                left -= value.nbytes
                if left < 0:
                    raise UnsafeModelError(f"tensor {name!r} is too large for as many copies of it")
                value = value.clone()
            tensors[name] = value
            seen.add(id(stored))
        else:
            strings[name] = value
    return tensors, strings


def _read_tensor(stored: Holder, reader: TensorReader) -> Tensor | np.ndarray[Any, Any]:
    if isinstance(stored, onnx.TensorProto):
        return reader(stored)
    if isinstance(stored, onnx.SparseTensorProto):
        return reader.sparse(stored)
    if isinstance(stored, onnx.AttributeProto):
        return torch.tensor(stored.floats, dtype=torch.float32)
    assert stored.kernel is not None, "a node becomes a weight only by its kernel's declaration"
    protos = (onnx.TensorProto, onnx.SparseTensorProto)
    attributes = {
        k: _read_tensor(v, reader) if isinstance(v, protos) else v
        for k, v in stored.attributes.items()
    }
    try:
        value: Tensor | np.ndarray[Any, Any] = stored.kernel.function(**attributes)
    except (ValueError, TypeError, LookupError, ArithmeticError) as error:
        what = f"node {stored.name!r} ({stored.op_type})"
        raise InvalidModelError(f"{what}: {error}") from error
    return value


def elem_type(stored: Holder) -> int:
    """The ONNX type of a weight; 0 where a node holds it as something else than a tensor."""
    if isinstance(stored, onnx.TensorProto):
        return stored.data_type
    if isinstance(stored, onnx.SparseTensorProto):
        return stored.values.data_type
    if isinstance(stored, onnx.AttributeProto):
        return onnx.TensorProto.FLOAT
    value = stored.attributes.get("value")
    return value.data_type if isinstance(value, onnx.TensorProto) else 0
