"""`module.forward` with the signature of a graph: what torch.export and `inspect` read."""

from __future__ import annotations

from collections.abc import Callable
from inspect import Signature
from typing import Any


def forward_of(run: Callable[..., Any], signature: Signature) -> Callable[..., Any]:
    """A function of the inputs of a call.

    Args:
        run: takes the inputs.
        signature: what the function tells of itself.
    """

    def forward(*args: Any, **keywords: Any) -> Any:
        return run(*args, **keywords)

    # torch.compile counts recompilations by code object: one module must not use up another's
    forward.__code__ = forward.__code__.replace()
    forward.__signature__ = signature  # type: ignore[attr-defined]  # for inspect
    return forward
