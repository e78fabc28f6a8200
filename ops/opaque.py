"""Functions in Python that count as one function of torch.

Where functions of torch are noted, such a one is noted as a whole, and what it calls is not. So it
may choose at each call, by tensors that it has stored.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function


class Opaque:
    """A function of tensors and numbers, without gradients, whose result is a new tensor."""

    def __init__(self, function: Callable[..., Tensor]) -> None:
        self._function = function
        self.__name__ = function.__name__
        self.__doc__ = function.__doc__

    def __call__(self, *args: Any) -> Tensor:
        """Call the function, or who looks at functions of torch."""
        tensors = tuple([a for a in args if isinstance(a, Tensor)])
        if has_torch_function(tensors):
            result: Tensor = handle_torch_function(self, tensors, *args)
            return result
        return self._function(*args)
