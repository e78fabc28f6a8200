"""Running eagerly inside of whatever captures or transforms a call: plans are for all calls."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch._functorch.pyfunctorch import temporarily_clear_interpreter_stack
from torch.overrides import _pop_mode, _push_mode
from torch.utils._python_dispatch import _disable_current_modes, _get_current_dispatch_mode_stack

from onnxinterp.values import is_traced


@contextmanager
def outside_transforms() -> Iterator[None]:
    """Run eagerly and without gradients, also inside `grad`, `vmap` or a trace."""
    with (
        torch._C.DisableTorchFunction(),  # those of torch.export, too
        torch.inference_mode(False),
        torch.no_grad(),
        _without_modes(),
        temporarily_clear_interpreter_stack(),
        _untraced(),
    ):
        yield


@contextmanager
def without_function_modes() -> Iterator[None]:
    """Let no `TorchFunctionMode` of the caller see what runs; `torch.device` is one."""
    modes = []
    while torch._C._len_torch_function_stack():
        modes.append(_pop_mode())  # type: ignore[no-untyped-call]  # untyped in torch
    try:
        yield
    finally:
        for mode in reversed(modes):
            _push_mode(mode)  # type: ignore[no-untyped-call]  # as above


def _without_modes() -> AbstractContextManager[object]:
    """Keep what runs out of the graph that `torch.export` or `make_fx` may be recording."""
    if torch.compiler.is_exporting() or _get_current_dispatch_mode_stack():
        return _disable_current_modes()  # it imports the compiler, which is imported already
    return nullcontext()


@contextmanager
def _untraced() -> Iterator[None]:
    """Keep what runs out of the graph that `torch.jit.trace` may be recording."""
    if not is_traced():
        yield
        return
    state = torch._C._get_tracing_state()
    torch._C._set_tracing_state(None)  # type: ignore[attr-defined]  # untyped in torch
    try:
        yield
    finally:
        torch._C._set_tracing_state(state)  # type: ignore[attr-defined]  # as above
