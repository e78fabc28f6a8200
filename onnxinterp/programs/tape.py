"""The tape of a recording: notes each function of torch that is called, and with which values.

A tensor that a function returns instead of a new one, depending on strides or data, is a value of
its own: another call may return another tensor.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from onnxinterp.programs.calls import Call, Check, Value, mapped, values_in
from onnxinterp.programs.functions import (
    METADATA,
    has_size_of_data,
    is_in_place,
    is_property,
    looks_at_strides,
    name_of,
    without_overrides,
)
from onnxinterp.runtime.steps import StepCall

MAX_CALLS = 20_000  # of a program
MAX_CHECKED = 1024  # elements of the data that a check compares
PLAIN = (int, float, bool, complex, str, type(None), torch.dtype, torch.device, type(...))
LITERALS = (*PLAIN, torch.memory_format, torch.layout)


class NotRecordableError(Exception):
    """A plan cannot become a program."""


class Tape(TorchFunctionMode):
    """Notes calls of torch functions.

    Attributes:
        calls: what was called, in order.
        failure: why what has run since it was last None cannot be recorded.
        step: index of the step that runs.
        is_on: whether it sees functions now.
        is_closed: whether it has given up, and notes nothing any more.
        constants: id -> tensor that is the same in each call.
        used: id -> value and tensor of the constants that calls read.
    """

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[Call] = []
        self.failure: str | None = None
        self.step = 0
        self.constants: dict[int, Tensor] = {}
        self.used: dict[int, tuple[Value, Tensor]] = {}
        self._values: dict[int, tuple[weakref.ref[Tensor], Value]] = {}
        self._added: list[tuple[int, Value]] = []
        self.is_on = False
        self.is_closed = False
        self._is_paused = False
        self._within: list[Any] = []  # functions written in Python, of which some call themselves
        self._with_grad = torch.is_grad_enabled()

    def distinct(self, tensor: Tensor) -> Tensor:
        """A tensor that is not known yet; a view of it where it is."""
        if id(tensor) in self._values:
            tensor = tensor.view_as(tensor)
        self.add(tensor)
        return tensor

    def add(self, tensor: Tensor) -> Value:
        """The value of a tensor, a new one where it has none."""
        found = self._find(tensor)
        if found is None:
            found = Value.of(tensor)
            self._values[id(tensor)] = weakref.ref(tensor), found
            self._added.append((id(tensor), found))
        return found

    def _find(self, tensor: Tensor) -> Value | None:
        reference, value = self._values.get(id(tensor), (None, None))
        return value if reference is not None and reference() is tensor else None

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Note nothing meanwhile."""
        before, self._is_paused = self._is_paused, True
        try:
            yield
        finally:
            self._is_paused = before

    def mark(self) -> tuple[int, int]:
        """What `take_back` goes back to."""
        return len(self.calls), len(self._added)

    def take_back(self, begin: tuple[int, int]) -> None:
        """Forget the calls since a mark, and the values that are new since then."""
        n_calls, n_values = begin
        for key, value in self._added[n_values:]:
            if self._values.get(key, (None, None))[1] is value:
                del self._values[key]
        del self._added[n_values:], self.calls[n_calls:]
        self.failure = None

    def close(self) -> None:
        """Note nothing any more: there can be no program."""
        self.is_closed = True
        self.calls, self._added = [], []
        self._values, self.used = {}, {}

    def __enter__(self) -> Tape:
        self.is_on = True
        super().__enter__()  # type: ignore[no-untyped-call]  # untyped in torch
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)  # type: ignore[no-untyped-call]  # as above
        self.is_on = False

    def encode(self, structure: Any) -> Any:
        """Arguments with values in place of tensors.

        Raises:
            NotRecordableError: a tensor of unknown origin, or an object of unknown meaning.
        """
        return mapped(structure, self._encode)

    def _encode(self, leaf: Any) -> Any:
        if isinstance(leaf, Tensor):
            if (value := self._find(leaf)) is not None:
                if value.requires_grad is not leaf.requires_grad:
                    raise NotRecordableError("a function with a gradient of its own")
                return value
            if self.constants.get(id(leaf)) is not leaf:
                raise NotRecordableError("a tensor of unknown origin")
            return self.used.setdefault(id(leaf), (Value.of(leaf), leaf))[0]
        if isinstance(leaf, LITERALS):
            return leaf
        raise NotRecordableError(f"an argument of type {type(leaf).__name__}")

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call a function of torch, and note the call."""
        kwargs = kwargs or {}
        if self._is_paused or self.is_closed:
            return func(*args, **kwargs)
        python = without_overrides(func)
        if python is not None and func not in self._within:
            self._within.append(func)
            try:
                with self:
                    return python(*args, **kwargs)
            finally:
                self.is_on = True
                self._within.pop()
        return self._noted(func, args, kwargs, func(*args, **kwargs))

    def _noted(self, func: Any, args: Any, kwargs: dict[str, Any], result: Any) -> Any:
        """Note a call unless one before it could not be; return its result."""
        if self.failure is None:
            try:
                return self._note(func, args, kwargs, result)
            except NotRecordableError as error:
                self.failure = str(error)
        return result

    def _note(self, func: Any, args: Any, kwargs: dict[str, Any], result: Any) -> Any:
        """Note a call; return its result, or a view of it which is a value of its own."""
        name = name_of(func)
        if name in METADATA or (name == "requires_grad" and not self._with_grad):
            return result
        if torch.is_grad_enabled() is not self._with_grad or name.startswith("_set_"):
            raise NotRecordableError("a change of a setting of torch")
        encoded, keywords = self.encode(args), self.encode(kwargs)
        if isinstance(result, Tensor) and self._find(result) is not None:
            if looks_at_strides(name, kwargs):
                result = result.view_as(result)
            elif not is_in_place(name, kwargs):
                return result  # it had nothing to do, for tensors of these sizes and types
        tensors = [result] if isinstance(result, Tensor) else result
        if isinstance(tensors, (tuple, list)) and any(isinstance(t, Tensor) for t in tensors):
            if not all(t is None or isinstance(t, Tensor) for t in tensors):
                raise NotRecordableError("a result of tensors and something else")
            values = [None if t is None else self.add(t) for t in tensors]
            _note_shared((args, kwargs), (encoded, keywords), tensors, values)
            self._add_call(func, encoded, keywords, values, not isinstance(result, Tensor))
            if has_size_of_data(func, args, kwargs):
                self._check_shapes(tensors, values)
        elif result is None and not is_property(func):
            self._add_call(func, encoded, keywords)
        elif result is None or _is_plain(result):
            if any(values_in((encoded, keywords))):  # else numbers of numbers
                self._add_check(func, encoded, keywords, result)
        else:
            raise NotRecordableError(f"a result of type {type(result).__name__}")
        return result

    def _add_call(
        self,
        function: Any,
        args: Any,
        kwargs: Any,
        results: Sequence[Value | None] = (),
        is_many: bool = False,
    ) -> None:
        if len(self.calls) >= MAX_CALLS:
            self.close()
        if not self.is_closed:
            self.calls.append(Call(function, args, kwargs, list(results), is_many, self.step))

    def _add_check(self, function: Any, args: Any, kwargs: Any, expected: Any) -> None:
        self._add_call(function, args, kwargs)
        if not self.is_closed:
            self.calls[-1] = Check(function, args, kwargs, [], False, self.step, expected)

    def _check_shapes(self, tensors: Sequence[Any], values: Sequence[Value | None]) -> None:
        for tensor, value in zip(tensors, values, strict=True):
            if value is not None:
                self._add_check(Tensor.size, (value,), {}, tensor.shape)

    def note_step(self, call: StepCall, arguments: Sequence[Any], results: Sequence[Any]) -> Any:
        """Note a whole step as one call; sizes of its results are checked.

        Returns:
            Its result, in which a tensor that was known before is a view of it: another call may
            return another tensor.

        Raises:
            NotRecordableError: it takes or returns something else than tensors.
        """
        encoded = self.encode(tuple(arguments))
        if not all(isinstance(r, Tensor) for r in results if r is not None):
            raise NotRecordableError("a step that returns something else than tensors")
        distinct = tuple([None if r is None else self.distinct(r) for r in results])
        values = [None if r is None else self.add(r) for r in distinct]
        many = len(results) != 1
        self._add_call(call, encoded, {}, values, many)
        self._check_shapes(distinct, values)
        return distinct if many else distinct[0]


def tensors_in(structure: Any) -> dict[int, Tensor]:
    """The tensors in nested lists, tuples, dicts and slices, by id."""
    found: dict[int, Tensor] = {}

    def visit(leaf: Any) -> None:
        if isinstance(leaf, Tensor):
            found[id(leaf)] = leaf

    mapped(structure, visit)
    return found


def _note_shared(
    arguments: Any, encoded: Any, tensors: Sequence[Any], values: Sequence[Value | None]
) -> None:
    """Note which argument, or result before it, a result shares memory with."""
    given = zip(tensors_in(arguments).values(), dict.fromkeys(values_in(encoded)), strict=True)
    memory = {_memory(t): value for t, value in given if t.numel()}
    for tensor, value in zip(tensors, values, strict=True):
        if value is not None and tensor.numel():
            base = memory.setdefault(_memory(tensor), value)
            value.base = value.base if base is value else base


def _memory(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)  # fake tensors have no data pointer


def _is_plain(result: Any) -> bool:
    """Whether a result is numbers, few enough to compare them in each call."""
    if isinstance(result, (list, tuple)):
        return len(result) <= MAX_CHECKED and all(map(_is_plain, result))
    return isinstance(result, (int, float, complex))
