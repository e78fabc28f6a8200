"""The cost of one call of a torch function, estimated before it runs: bytes of results, and work.

Both follow from shapes, dtypes and numbers. The functions that kernels call have a formula in
`cost_formulas`. Any other function runs on meta tensors, which hold no elements; torch then imports
sympy and its compiler, once, which takes seconds and more than 100 MB.

Work is counted in floating point operations, as a lower bound: matrix products, convolutions and
the like by formula; any other function accesses each element of its largest input, expanded or not,
and of its largest result.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from onnxinterp.runtime.cost_formulas import (
    FLOPS,
    FORMULAS,
    PIECES,
    READS_A_PART,
    REDUCTIONS,
    SAME_SIZE,
    SLOW,
    Arguments,
    Sizes,
    per_result,
)

TENSOR_OBJECT = 512  # bytes of a tensor besides its elements
ELEMENT_FLOPS = 5.0  # an access to an element takes as long as so many operations
SLOW_ELEMENT_FLOPS = 50.0  # the same in functions that are `SLOW`
MAX_CACHED_COSTS = 4096
MAX_CACHED_LIST = 64  # elements; a call with a longer list among its arguments is not cached
DEVICE_ARGUMENTS = ("device", "generator", "pin_memory")
HIDDEN_VIEWS = frozenset({"_unsafe_view"})  # the schema does not declare that these are views
ALSO_POINTWISE = frozenset({"complex", "floor_divide"})  # without torch's tag


class Cost(NamedTuple):
    """What one call of a torch function takes.

    Attributes:
        largest: bytes of the largest tensor it makes.
        total: bytes of all tensors it makes.
        flops: floating point operations that take no longer than the call.
    """

    largest: int = 0
    total: int = 0
    flops: float = 0


NO_COST = Cost()

_cache: dict[Any, Cost] = {}


def cost_of(
    function: Any,
    args: tuple[Any, ...],
    keywords: Mapping[str, Any],
    before_meta: Callable[[], object],
) -> Cost:
    """The cost of a call.

    Args:
        function: an overload of a torch operator.
        args: its arguments.
        keywords: its keyword arguments.
        before_meta: called before a function without a formula runs on meta tensors.
    """
    key = (function, _key(args), *[(name, _key(value)) for name, value in keywords.items()])
    cost = _cache.get(key)
    if cost is None:
        cost = formula_cost(function, args, keywords)
        if cost is None:
            before_meta()
            cost = meta_cost(function, args, keywords)
        if len(_cache) >= MAX_CACHED_COSTS:
            _cache.clear()
        if not any(isinstance(a, (list, tuple)) and len(a) > MAX_CACHED_LIST for a in args):
            _cache[key] = cost
    return cost


def _key(value: Any) -> Any:
    """The part of an argument that decides the cost; the type of a number, because 1 == 1.0."""
    if isinstance(value, Tensor):
        return value.shape, value.dtype
    if isinstance(value, (list, tuple)):
        return tuple([_key(element) for element in value])
    return (value.__class__, value) if isinstance(value, (int, float, complex)) else value


@lru_cache(maxsize=4096)
def is_free(function: Any) -> bool:
    """Whether a function returns one view of its argument, or is seen function by function."""
    schema = getattr(function, "_schema", None)
    if schema is None or _name(function) in PIECES:
        return schema is None
    aliases = [r.alias_info for r in schema.returns]
    return _name(function) in HIDDEN_VIEWS or any(a and not a.is_write for a in aliases)


@lru_cache(maxsize=4096)
def makes_tensors(function: Any) -> bool:
    """Whether a function returns new tensors, and not only its arguments."""
    returns = function._schema.returns
    return any("Tensor" in str(r.type) and r.alias_info is None for r in returns)


def _name(function: Any) -> str:
    name: str = function._schema.name
    return name.removeprefix("aten::")


def tensors_in(value: Any) -> Iterator[Tensor]:
    """The tensors in a value, in lists of it and lists of these."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (list, tuple)):
        for element in value:
            yield from tensors_in(element)


def map_tensors(function: Callable[[Tensor], Tensor], value: Any) -> Any:
    """The same value with other tensors."""
    if isinstance(value, Tensor):
        return function(value)
    if isinstance(value, (list, tuple)):
        return type(value)([map_tensors(function, element) for element in value])
    return value


def formula_cost(function: Any, args: tuple[Any, ...], keywords: Mapping[str, Any]) -> Cost | None:
    """The cost by formula; None where there is none for these arguments."""
    name = _name(function)
    try:
        if name in PIECES:
            count = PIECES[name](_bind(function, args, keywords))
            return Cost(total=count * TENSOR_OBJECT) if count > MAX_CACHED_LIST else NO_COST
        sizes = _result_sizes(name, function, args, keywords)
    except Exception:  # an invalid call, which torch itself refuses, or an unusual one
        return None
    return None if sizes is None else _cost(function, args, keywords, sizes)


def _result_sizes(
    name: str, function: Any, args: tuple[Any, ...], keywords: Mapping[str, Any]
) -> Sizes | None:
    if not makes_tensors(function):
        return []
    if name in FORMULAS:
        return FORMULAS[name](_bind(function, args, keywords))
    if name in REDUCTIONS or name in SAME_SIZE:
        return per_result(name, function._schema.returns, _bind(function, args, keywords))
    tags = function.tags
    if torch.Tag.nondeterministic_seeded in tags:
        return None  # a run on one element would draw a random number
    if torch.Tag.pointwise in tags or name in ALSO_POINTWISE:
        return _pointwise(function, args, keywords)
    return None


def _pointwise(function: Any, args: tuple[Any, ...], keywords: Mapping[str, Any]) -> Sizes:
    """The broadcast shape; the dtype is that of a run on one element."""
    shape = np.broadcast_shapes(*[t.shape for t in _inputs(args, keywords)])
    with torch._C._DisableTorchDispatch():
        others = {name: map_tensors(_one, value) for name, value in keywords.items()}
        result = function(*map_tensors(_one, args), **others)
    return [(math.prod(shape), result.itemsize)]


def _one(x: Tensor) -> Tensor:
    return torch.ones([1] * x.ndim, dtype=x.dtype)


def meta_cost(function: Any, args: tuple[Any, ...], keywords: Mapping[str, Any]) -> Cost:
    """The cost by a run on meta tensors; where that fails, results are as large as all inputs."""
    try:
        with torch._C._DisableTorchDispatch():
            result = function(*map_tensors(_meta, args), **meta_keywords(function, keywords))
    except Exception:  # what is wrong with the call itself, the call itself will say
        sizes = [(t.numel(), t.itemsize) for t in _inputs(args, keywords)]
        sizes = [(sum(n for n, _ in sizes), max((size for _, size in sizes), default=1))]
    else:
        made = {t.untyped_storage()._cdata: t for t in tensors_in(result)}.values()
        sizes = [(t.untyped_storage().nbytes() // t.itemsize, t.itemsize) for t in made]
    return _cost(function, args, keywords, sizes)


def meta_keywords(function: Any, keywords: Mapping[str, Any]) -> dict[str, Any]:
    """The keyword arguments of a run on meta tensors."""
    named = {a.name for a in function._schema.arguments}
    given = {n: map_tensors(_meta, v) for n, v in keywords.items() if n not in DEVICE_ARGUMENTS}
    return given | {n: v for n, v in (("device", "meta"), ("generator", None)) if n in named}


def _meta(x: Tensor) -> Tensor:
    return torch.empty(x.shape, dtype=x.dtype, device="meta")


def _cost(function: Any, args: tuple[Any, ...], keywords: Mapping[str, Any], sizes: Sizes) -> Cost:
    nbytes = [elements * size for elements, size in sizes]
    flops = _flops(function, args, keywords, sizes)
    return Cost(max(nbytes, default=0), sum(nbytes), flops)


def _flops(
    function: Any, args: tuple[Any, ...], keywords: Mapping[str, Any], sizes: Sizes
) -> float:
    name = _name(function)
    read = () if name in READS_A_PART else (t.numel() for t in _inputs(args, keywords))
    elements = max((*read, *(elements for elements, _ in sizes)), default=0)
    accesses = elements * (SLOW_ELEMENT_FLOPS if name in SLOW else ELEMENT_FLOPS)
    if name not in FLOPS or not sizes:
        return accesses
    return max(accesses, FLOPS[name](_bind(function, args, keywords), sizes))


def _inputs(args: tuple[Any, ...], keywords: Mapping[str, Any]) -> Iterator[Tensor]:
    return tensors_in((args, tuple(keywords.values())))


def _bind(function: Any, args: tuple[Any, ...], keywords: Mapping[str, Any]) -> Arguments:
    """The arguments by the names of the schema, with its defaults."""
    declared = function._schema.arguments
    named = {a.name: a.default_value if a.has_default_value() else None for a in declared}
    named.update({a.name: value for a, value in zip(declared, args, strict=False)})
    named.update(keywords)
    return Arguments(**named, first=next(iter(named.values()), None))
