"""Limits of one call, checked before torch works.

A `Guard` is a dispatch mode. It sees every torch function below autograd, whichever kernel calls
it. Before the function runs, the guard checks

    the time left
    the bytes that the function would allocate
    the time that it takes at least

(`costs`), so that no kernel declares anything, and what is over a limit is never allocated. Live
bytes are those of the storages that functions returned and that somebody still holds. Strings and
lists, which torch does not see, are counted by the interpreter after each step (`record`), and
kernels that make many Python objects ask before (`reserve`).

Not watched: graph capture, backward passes, and the memory that a torch function takes for itself
until it returns, as a rule a few times its inputs.
"""

from __future__ import annotations

import math
import sys
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from time import monotonic
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode, _pop_mode, _push_mode

from onnxinterp.errors import UnsafeModelError
from onnxinterp.limits import GIB, Limits
from onnxinterp.runtime.costs import TENSOR_OBJECT, cost_of, is_free, makes_tensors, tensors_in

PLACE = 8  # bytes of an element of a list
CPU_FLOPS = 1e11  # per second and thread: more than a core reaches today
DEVICE_FLOPS = 2e15  # per second, of other devices
FOLDED_SECONDS = 10.0  # a torch function that takes longer runs in the call, not while loading
MIN_PURGED_REFERENCES = 4096
CHUNK_ELEMENTS = 2**14  # in Python, between two checks of the time


class LimitExceeded(Exception):  # noqa: N818  # internal: the interpreter adds the node
    """A call went over one of its limits."""


class Guard(TorchDispatchMode):  # type: ignore[no-untyped-call]  # untyped in torch
    """Watches one call, in one thread, between `__enter__` and `__exit__`.

    Args:
        limits: those of calls are used; the time of the call starts now.
        function_seconds: the most that one torch function may take, whatever the limits.
    """

    supports_higher_order_operators = True

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # a wrapper that skips it would cost more than the call

    @classmethod
    def ignore_compile_internals(cls) -> bool:
        """Functions that a kernel compiles are not watched."""
        return True

    def __init__(self, limits: Limits, function_seconds: float = math.inf) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # untyped in torch
        self.limits = limits
        self._deadline = math.inf if limits.seconds is None else monotonic() + limits.seconds
        self._function_seconds = function_seconds
        self._cpu_flops = CPU_FLOPS * torch.get_num_threads()
        self._steps = 0
        self._live: dict[int, tuple[Callable[[], bool], int]] = {}  # -> is it gone, its bytes
        self._live_bytes = 0
        self._purge_at = MIN_PURGED_REFERENCES

    @classmethod
    def of_plan(cls, limits: Limits) -> Guard:
        """A guard for constant folding, which has limits even where calls have none.

        1 GiB for one tensor, 4 GiB for all of them, and 10 seconds for one torch function.
        """
        tensor_bytes = GIB if limits.tensor_bytes is None else limits.tensor_bytes
        live_bytes = 4 * GIB if limits.live_bytes is None else limits.live_bytes
        bounded = replace(limits, tensor_bytes=tensor_bytes, live_bytes=live_bytes)
        return cls(bounded, FOLDED_SECONDS)

    def __enter__(self) -> Guard:
        """Watch this thread. Torch's own `__enter__` sets a flag that all threads share."""
        _push_mode(self)
        _active_guards().append(self)
        return self

    def __exit__(self, *error: Any) -> None:
        _active_guards().pop()
        _pop_mode()

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Check the limits, run the function, count the tensors that it made."""
        del types
        keywords = kwargs or {}
        self.seconds_left()
        if is_free(func):
            return func(*args, **keywords)
        cost = cost_of(func, args, keywords, self._prepare_meta_run)
        self.reserve(cost.largest, cost.total)
        self._check_time(func, cost.flops, args)
        result = func(*args, **keywords)
        if makes_tensors(func):
            for tensor in (result,) if isinstance(result, Tensor) else tensors_in(result):
                if tensor.layout is torch.strided and not tensor.is_meta:
                    self._count_storage(tensor.untyped_storage())
        return result

    def _prepare_meta_run(self) -> None:
        """Import what a run on meta tensors needs, which takes seconds: not those of the call."""
        before = monotonic()
        import torch._dynamo
        import torch.fx.experimental.symbolic_shapes  # noqa: F401

        self._deadline += monotonic() - before

    def _check_time(self, function: Any, flops: float, args: tuple[Any, ...]) -> None:
        left = min(self.seconds_left(), self._function_seconds)
        if flops <= left * self._cpu_flops:
            return
        on_cpu = all(t.device.type == "cpu" for t in tensors_in(args))
        seconds = flops / (self._cpu_flops if on_cpu else DEVICE_FLOPS)
        if seconds > left:
            message = f"{function} takes at least {seconds:.3g} seconds, and {left:.3g} are left"
            raise LimitExceeded(f"{message} of limits.seconds = {self.limits.seconds}")

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
        """Check that `total` bytes may be allocated, of which one object has `largest`.

        Raises:
            LimitExceeded: one object, or all that are alive at a time, would be over a limit.
        """
        most, live = self.limits.tensor_bytes, self.limits.live_bytes
        if most is not None and largest > most:
            raise LimitExceeded(
                f"it makes {largest:,} bytes at once; limits.tensor_bytes = {most:,}"
            )
        if live is None or self._live_bytes + total <= live:
            return
        self._purge()
        if self._live_bytes + total > live:
            message = f"it makes {total:,} bytes beside {self._live_bytes:,} that live"
            raise LimitExceeded(f"{message}; limits.live_bytes = {live:,}")

    def record(self, result: Any) -> None:
        """Count a step of the interpreter, and those of its results that torch does not see.

        Raises:
            LimitExceeded: too many steps, too much time, or too much memory.
        """
        self._steps += 1
        if self.limits.steps is not None and self._steps > self.limits.steps:
            raise LimitExceeded(f"the call takes more than limits.steps = {self.limits.steps:,}")
        self.seconds_left()
        for value in result if isinstance(result, tuple) else (result,):
            if isinstance(value, list):
                self.reserve(0, PLACE * len(value))
                for element in value:
                    self._count_object(element)
            elif isinstance(value, np.ndarray):
                self._count_object(value)

    def check_outputs(self, names: Iterable[str], results: Iterable[Any]) -> None:
        """Check the logical sizes of what a call returns.

        A tensor that `Expand` repeats is a view: it takes no memory here, and does where the caller
        copies it.

        Raises:
            UnsafeModelError: an output, or an element of one, is over `limits.tensor_bytes`.
        """
        most = self.limits.tensor_bytes
        for name, result in zip(names, results, strict=True):
            for tensor in tensors_in(result):
                size = tensor.numel() * tensor.itemsize
                if most is not None and size > most:
                    message = f"output {name!r} has {size:,} bytes"
                    raise UnsafeModelError(f"{message}; limits.tensor_bytes = {most:,}")

    def _count_storage(self, storage: torch.UntypedStorage) -> None:
        if storage._cdata not in self._live:
            reference = StorageWeakRef(storage)  # type: ignore[no-untyped-call]  # untyped in torch
            self._count(reference.cdata, reference.expired, storage.nbytes() + TENSOR_OBJECT)

    def _count_object(self, value: Any) -> None:
        """Count an array of strings, or a tensor as an element of a sequence."""
        if not isinstance(value, (np.ndarray, Tensor)):
            return
        counted = self._live.get(-id(value))
        if counted is not None and not counted[0]():
            return
        size = TENSOR_OBJECT if isinstance(value, Tensor) else bytes_of_strings(value)
        self.reserve(size, size)
        reference = weakref.ref(value)
        self._count(-id(value), lambda: reference() is None, size)

    def _count(self, key: int, is_gone: Callable[[], bool], size: int) -> None:
        self._live[key] = is_gone, size
        self._live_bytes += size
        if len(self._live) > self._purge_at:
            self._purge()
            self._purge_at = max(MIN_PURGED_REFERENCES, 2 * len(self._live))

    def _purge(self) -> None:
        """Remove objects that are gone."""
        self._live = {key: entry for key, entry in self._live.items() if not entry[0]()}
        self._live_bytes = sum(size for _, size in self._live.values())


def guard_of(limits: Limits, inputs: Mapping[str, Any]) -> Guard | None:
    """The guard of a call; None where it has no limits, or a graph is being captured."""
    if not limits.watches_calls or torch.compiler.is_compiling():
        return None
    sizes = (n for x in inputs.values() if isinstance(x, Tensor) for n in x.shape)
    return Guard(limits) if all(type(n) is int for n in sizes) else None


class _Local(threading.local):
    """What each thread has of its own; made at once, so that no graph depends on whether it is."""

    def __init__(self) -> None:
        self.guards: list[Guard] = []


_local = _Local()


def _active_guards() -> list[Guard]:
    """The guards that watch this thread."""
    return _local.guards


def is_watched() -> bool:
    """Whether a guard watches this thread."""
    return bool(_active_guards())


def reserve(size: int, seconds: float = 0) -> None:
    """Check that a kernel may make Python objects or numpy arrays.

    Args:
        size: their bytes.
        seconds: how long it can take.

    Raises:
        LimitExceeded: it would be over a limit of the call that runs in this thread.
    """
    for guard in _active_guards():
        if (left := guard.seconds_left()) < seconds:
            message = f"it can take {seconds:.3g} of the {left:.3g} seconds left"
            raise LimitExceeded(f"{message} of limits.seconds = {guard.limits.seconds:g}")
        guard.reserve(size, size)


def chunks(count: int) -> Iterator[slice]:
    """Slices of something of `count` elements; the time is checked before each of them."""
    for start in range(0, count, CHUNK_ELEMENTS):
        reserve(0)
        yield slice(start, start + CHUNK_ELEMENTS)


def bytes_of_strings(array: np.ndarray[Any, Any]) -> int:
    """The memory of an array of strings, each different string object once."""
    different: dict[int, str] = {}
    strings = array.reshape(-1)
    for part in chunks(len(strings)):
        some = strings[part].tolist()
        different.update(zip(map(id, some), some, strict=True))
    return array.nbytes + sum(map(sys.getsizeof, different.values()))
