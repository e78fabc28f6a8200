"""Attributes that are computed when they are first read."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload

if TYPE_CHECKING:
    from typing_extensions import Self  # typing has it from Python 3.11 on

T = TypeVar("T")


class lazy(Generic[T]):  # noqa: N801 - used as a decorator
    """A property that stores its value in the instance: `functools.cached_property` without a lock.

    Before Python 3.12 that one has a lock for all instances. If a process is forked while a thread
    holds it, the child waits for ever. Two threads may compute the value at once; either is right.
    """

    def __init__(self, function: Callable[[Any], T]) -> None:
        self.function = function
        self.__doc__ = function.__doc__

    def __set_name__(self, owner: type, name: str) -> None:
        """Note under which name the value is stored."""
        self.name = name

    @overload
    def __get__(self, instance: None, owner: type) -> Self: ...

    @overload
    def __get__(self, instance: object, owner: type) -> T: ...

    def __get__(self, instance: object | None, owner: type) -> Self | T:
        """Compute and store the value; from then on it is found in the instance itself."""
        if instance is None:
            return self
        value = instance.__dict__[self.name] = self.function(instance)
        return value
