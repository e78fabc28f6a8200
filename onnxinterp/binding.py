"""`module.forward` with the signature of a graph: what torch.export and `inspect` read."""

from __future__ import annotations

from collections.abc import Callable
from inspect import Signature
from typing import Any


class Forward:
    """Binds a module's own function, `_forward`, when it is asked for.

    A module that held the bound method would hold itself, and keep its weights until the collector
    runs. What somebody assigns to `module.forward` takes its place.
    """

    def __get__(self, module: Any, owner: object = None) -> Any:
        return self if module is None else module._forward.__get__(module)  # what dynamo follows


def forward_of(run: Callable[..., Any], signature: Signature) -> Callable[..., Any]:
    """A function of a module and of the inputs of a call.

    Args:
        run: takes the module, positional and keyword arguments.
        signature: what the function tells of itself.
    """

    def forward(module: object, /, *args: Any, **keywords: Any) -> Any:
        return run(module, args, keywords)

    # torch.compile counts recompilations by code object: one module must not use up another's
    forward.__code__ = forward.__code__.replace()
    forward.__signature__ = signature  # type: ignore[attr-defined]  # for inspect
    return forward
