"""The bounds of one call, looked at before torch works: what `Limits` says of calls.

A `Guard` is a dispatch mode. It sees every function of torch below autograd, whichever kernel calls
it, and before the function runs

    looks at the clock
    knows what it would allocate, from the same function on meta tensors, which hold nothing
    knows how long it takes at least, where torch can count its operations

so that no kernel declares anything, and what is refused was never made. Bytes that live are those
of the storages that functions gave and that somebody still holds. What torch does not see, strings
and lists, the interpreter shows to the guard after each step, and kernels that make many Python
objects of a tensor ask before (`reserve`).

Nothing is watched while a graph is captured, nor in a backward pass. Memory that a function of
torch takes for itself until it returns is not seen: some times its inputs, as a rule.
"""

from __future__ import annotations

import math
import sys
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import lru_cache
from time import monotonic
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode, _pop_mode, _push_mode

from onnxinterp.limits import GIB, Limits

aten = torch.ops.aten

PLACE = 8  # bytes of an element of a list
TENSOR_OBJECT = 512  # bytes of a tensor besides its elements
CPU_FLOPS = 1e11  # a second and thread: more than today's cores reach, so that nothing is refused
DEVICE_FLOPS = 2e15  # in vain; the same of other devices
COSTS_KEPT = 4096
NO_SHADOW = ("device", "generator", "pin_memory")  # arguments that belong to a real device
LONG = 64  # a longer list among the arguments is not worth keeping
PURGED_FROM = 4096  # weak references
PORTION = 2**14  # elements that Python passes through between two looks at the clock


class LimitExceeded(Exception):  # noqa: N818  # never leaves: the interpreter says at which node
    """A call went over one of its limits."""


class Cost(NamedTuple):
    """What one call of a function of torch takes.

    Attributes:
        largest: bytes of the largest tensor it makes.
        total: bytes of all it makes.
        flops: its floating point operations, where that is known.
    """

    largest: int = 0
    total: int = 0
    flops: float = 0


NOTHING = Cost()


class Guard(TorchDispatchMode):  # type: ignore[no-untyped-call]  # untyped in torch
    """Watches one call, in one thread, between `__enter__` and `__exit__`.

    Args:
        limits: the second group of them counts; the clock starts now.
    """

    supports_higher_order_operators = True

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # to have each call wrapped in what skips it costs more than the call

    @classmethod
    def ignore_compile_internals(cls) -> bool:
        """What a kernel compiles is not looked into."""
        return True

    def __init__(self, limits: Limits) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # untyped in torch
        if limits.seconds is not None:
            _import_late_parts()
        self.limits = limits
        self._deadline = math.inf if limits.seconds is None else monotonic() + limits.seconds
        self._flops = CPU_FLOPS * torch.get_num_threads()
        self._steps = 0
        self._held: dict[int, tuple[Callable[[], bool], int]] = {}  # -> is it gone, its bytes
        self._bytes = 0
        self._purge_at = PURGED_FROM

    @classmethod
    def of_plan(cls, limits: Limits) -> Guard:
        """One for folding, which is bounded even where calls are not: 1 GiB a tensor, 4 in all."""
        tensor_bytes = GIB if limits.tensor_bytes is None else limits.tensor_bytes
        live_bytes = 4 * GIB if limits.live_bytes is None else limits.live_bytes
        return cls(replace(limits, tensor_bytes=tensor_bytes, live_bytes=live_bytes))

    def __enter__(self) -> Guard:
        """Watch this thread; torch's own way in keeps a flag for all of them, and not in order."""
        _push_mode(self)
        _entered().append(self)
        return self

    def __exit__(self, *error: Any) -> None:
        _entered().pop()
        _pop_mode()

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Refuse what goes over the limits, run everything else, remember what it made."""
        del types
        keywords = kwargs or {}
        left = self.seconds_left()
        cost = cost_of(func, args, keywords) if _makes_tensors(func) else NOTHING
        if cost is NOTHING:
            return func(*args, **keywords)
        self.reserve(cost.largest, cost.total)
        if cost.flops and cost.flops > left * (self._flops if _on_cpu(args) else DEVICE_FLOPS):
            message = f"{func} has {cost.flops:.3g} operations for the {left:.3g} seconds left"
            raise LimitExceeded(f"{message} of limits.seconds = {self.limits.seconds:g}")
        result = func(*args, **keywords)
        for tensor in (result,) if isinstance(result, Tensor) else _tensors(result):
            if tensor.layout is torch.strided and not tensor.is_meta:
                self._hold_storage(tensor.untyped_storage())
        return result

    def seconds_left(self) -> float:
        """How long the call may still take.

        Raises:
            LimitExceeded: its time is over.
        """
        left = self._deadline - monotonic()
        if left < 0:
            raise LimitExceeded(
                f"the call took longer than limits.seconds = {self.limits.seconds:g}"
            )
        return left

    def reserve(self, largest: int, total: int) -> None:
        """Let a call make something: `total` bytes, of which one thing has `largest`.

        Raises:
            LimitExceeded: that is more than one thing may have, or than may live at a time.
        """
        most, live = self.limits.tensor_bytes, self.limits.live_bytes
        if most is not None and largest > most:
            raise LimitExceeded(
                f"it makes {largest:,} bytes at once; limits.tensor_bytes = {most:,}"
            )
        if live is None or self._bytes + total <= live:
            return
        self._purge()
        if self._bytes + total > live:
            message = f"it makes {total:,} bytes beside {self._bytes:,} that live"
            raise LimitExceeded(f"{message}; limits.live_bytes = {live:,}")

    def record(self, result: Any) -> None:
        """Count a step of the interpreter, and what it gave that torch does not see.

        Raises:
            LimitExceeded: too many steps, too late, or too much.
        """
        self._steps += 1
        if self.limits.steps is not None and self._steps > self.limits.steps:
            raise LimitExceeded(f"the call takes more than limits.steps = {self.limits.steps:,}")
        self.seconds_left()
        for value in result if isinstance(result, tuple) else (result,):
            if isinstance(value, list):
                self.reserve(0, PLACE * len(value))
                for element in value:
                    self._hold_object(element)
            elif isinstance(value, np.ndarray):
                self._hold_object(value)

    def _hold_storage(self, storage: torch.UntypedStorage) -> None:
        if storage._cdata not in self._held:
            reference = StorageWeakRef(storage)  # type: ignore[no-untyped-call]  # untyped in torch
            self._hold(reference.cdata, reference.expired, storage.nbytes() + TENSOR_OBJECT)

    def _hold_object(self, value: Any) -> None:
        """Count an array of strings, or a tensor as an element of a sequence."""
        if not isinstance(value, (np.ndarray, Tensor)):
            return
        known = self._held.get(-id(value))
        if known is not None and not known[0]():
            return
        size = TENSOR_OBJECT if isinstance(value, Tensor) else bytes_of_strings(value)
        self.reserve(size, size)
        reference = weakref.ref(value)
        self._hold(-id(value), lambda: reference() is None, size)

    def _hold(self, key: int, is_gone: Callable[[], bool], size: int) -> None:
        self._held[key] = is_gone, size
        self._bytes += size
        if len(self._held) > self._purge_at:
            self._purge()
            self._purge_at = max(PURGED_FROM, 2 * len(self._held))

    def _purge(self) -> None:
        """Forget what is gone."""
        self._held = {key: held for key, held in self._held.items() if not held[0]()}
        self._bytes = sum(size for _, size in self._held.values())


def _import_late_parts() -> None:
    """What torch imports when it is first needed, for seconds: not on the time of a call."""
    import torch._dynamo
    import torch.utils.flop_counter  # noqa: F401


def guard_of(limits: Limits, inputs: Mapping[str, Any]) -> Guard | None:
    """What watches a call; None where nothing bounds it, or a graph is being captured."""
    if not limits.watches_calls or torch.compiler.is_compiling():
        return None
    sizes = (n for x in inputs.values() if isinstance(x, Tensor) for n in x.shape)
    return Guard(limits) if all(type(n) is int for n in sizes) else None


_local = threading.local()


def _entered() -> list[Guard]:
    """The guards that this thread is under."""
    if not hasattr(_local, "guards"):
        _local.guards = []
    guards: list[Guard] = _local.guards
    return guards


def is_watched() -> bool:
    """Whether the call that runs in this thread is bounded."""
    return bool(_entered())


def reserve(size: int, seconds: float = 0) -> None:
    """Ask before making Python objects or numpy arrays of `size` bytes, in so many seconds.

    Raises:
        LimitExceeded: the limits of the call that runs in this thread do not admit it.
    """
    for guard in _entered():
        if (left := guard.seconds_left()) < seconds:
            message = f"it can take {seconds:.3g} of the {left:.3g} seconds left"
            raise LimitExceeded(f"{message} of limits.seconds = {guard.limits.seconds:g}")
        guard.reserve(size, size)


def portions(count: int) -> Iterator[slice]:
    """Slices of something of `count` elements; before each of them the clock is looked at."""
    for start in range(0, count, PORTION):
        reserve(0)
        yield slice(start, start + PORTION)


def bytes_of_strings(array: np.ndarray[Any, Any]) -> int:
    """What an array of strings takes, each text once."""
    different: dict[int, str] = {}
    texts = array.reshape(-1)
    for part in portions(len(texts)):
        some = texts[part].tolist()
        different.update(zip(map(id, some), some, strict=True))
    return array.nbytes + sum(map(sys.getsizeof, different.values()))


def _on_cpu(args: tuple[Any, ...]) -> bool:
    return all(t.device.type == "cpu" for t in _tensors(args))


def _tensors(value: Any) -> Iterator[Tensor]:
    """The tensors in a value, in lists of it and lists of these."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (list, tuple)):
        for element in value:
            yield from _tensors(element)


PIECES: dict[Any, Callable[..., int]] = {  # views of one tensor, and how many
    aten.unbind.int: lambda x, dim=0: x.shape[dim],
    aten.split.Tensor: lambda x, size, dim=0: x.shape[dim] // max(size, 1),
    aten.split_with_sizes.default: lambda _, sizes, dim=0: len(sizes),  # noqa: ARG005  # torch's
}
AS_DATA_ASKS: dict[Any, Callable[..., int]] = {  # how large an answer can be that the data make
    aten.nonzero.default: lambda x: 8 * x.numel() * max(x.ndim, 1),
    aten.masked_select.default: lambda x, mask: x.itemsize * max(x.numel(), mask.numel()),
    aten._unique2.default: lambda x, *_: (x.itemsize + 16) * x.numel(),
    aten.unique_dim.default: lambda x, dim, *_: x.nbytes + 16 * x.shape[dim],
    aten.unique_consecutive.default: lambda x, *_, **__: (x.itemsize + 16) * x.numel(),
}


@lru_cache(maxsize=4096)
def _makes_tensors(func: Any) -> bool:
    """Whether what a function gives is new, not a view and not one of its arguments."""
    if func in PIECES:
        return True
    schema = getattr(func, "_schema", None)
    if schema is None:
        return False
    return any("Tensor" in str(r.type) and r.alias_info is None for r in schema.returns)


_costs: dict[Any, Cost] = {}  # what a function takes depends on shapes, types and numbers alone


def cost_of(func: Any, args: tuple[Any, ...], keywords: Mapping[str, Any]) -> Cost:
    """What a function of torch would take with these arguments, of whatever shape."""
    if func in PIECES:
        count = PIECES[func](*args, **keywords)
        return Cost(total=count * TENSOR_OBJECT) if count > LONG else NOTHING
    if func in AS_DATA_ASKS:
        size = AS_DATA_ASKS[func](*args, **keywords)
        return Cost(size, size)
    key = (func, _form(args), *[(name, _form(value)) for name, value in keywords.items()])
    cost = _costs.get(key)
    if cost is None:
        cost = _foreseen(func, args, keywords)
        if len(_costs) >= COSTS_KEPT:
            _costs.clear()
        if not any(isinstance(a, (list, tuple)) and len(a) > LONG for a in args):
            _costs[key] = cost
    return cost


def _form(value: Any) -> Any:
    """Of an argument what the size of the answer can depend on; the type, because 1 == 1.0."""
    if isinstance(value, Tensor):
        return value.shape, value.dtype
    if isinstance(value, (list, tuple)):
        return tuple([_form(element) for element in value])
    return (value.__class__, value) if isinstance(value, (int, float, complex)) else value


def _foreseen(func: Any, args: tuple[Any, ...], keywords: Mapping[str, Any]) -> Cost:
    """Run a function on tensors without elements.

    What has no such form, or what the data decide, is taken for as large as all its inputs.
    """
    shadows = _shadow(args)
    others = {n: _shadow(v) for n, v in keywords.items() if n not in NO_SHADOW}
    named = {a.name for a in func._schema.arguments}
    others.update({n: v for n, v in (("device", "meta"), ("generator", None)) if n in named})
    try:
        with torch._C._DisableTorchDispatch():
            result = func(*shadows, **others)
    except Exception:  # what is wrong with the call itself, the call itself will say
        size = sum(t.numel() * t.itemsize for t in _tensors((args, tuple(keywords.values()))))
        return Cost(size, size)
    given = {t.untyped_storage()._cdata for t in _tensors((shadows, tuple(others.values())))}
    made = {t.untyped_storage()._cdata: t.untyped_storage().nbytes() for t in _tensors(result)}
    sizes = [size for storage, size in made.items() if storage not in given]
    return Cost(max(sizes), sum(sizes), _flops(func, shadows, others, result)) if sizes else NOTHING


def _shadow(value: Any) -> Any:
    """The same without elements."""
    if isinstance(value, Tensor):
        return torch.empty(value.shape, dtype=value.dtype, device="meta")
    if isinstance(value, (list, tuple)):
        return type(value)([_shadow(element) for element in value])
    return value


def _flops(func: Any, args: tuple[Any, ...], keywords: Mapping[str, Any], result: Any) -> float:
    """How many operations a function takes; 0 where nobody counts them."""
    from torch.utils.flop_counter import flop_registry  # here: only those who are watched wait

    packet = func._overloadpacket
    if packet in flop_registry:
        count: float = flop_registry[packet](*args, **keywords, out_val=result)
        return count
    return COUNTED[packet](result, *args) if packet in COUNTED else 0


def _of_windows(result: Any, _: Tensor, kernel: list[int], *__: Any) -> float:
    """Of a pool: each element looks at a whole window."""
    return next(_tensors(result)).numel() * math.prod(kernel)


COUNTED: dict[Any, Callable[..., float]] = {
    aten.max_pool2d_with_indices: _of_windows,
    aten.max_pool3d_with_indices: _of_windows,
    aten.avg_pool2d: _of_windows,
    aten.avg_pool3d: _of_windows,
    aten._cdist_forward: lambda result, a, *_: result.numel() * a.shape[-1],
    aten._linalg_det: lambda _, a: a.numel() * a.shape[-1] * 2 / 3,
    aten._scaled_dot_product_flash_attention_for_cpu: lambda _, q, k, v, *__: (
        2 * math.prod(q.shape[:-1]) * k.shape[-2] * (q.shape[-1] + v.shape[-1])
    ),
}
