"""Whether source computes what the module computes, also where a free size is 1 or 0.

Symbols stand for sizes of two and more: a kernel may take another way for one or none. Where the
source is wrong then, or cannot run, it says so: the size becomes a condition.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import sympy
import torch
from torch import Tensor, nn

from onnxinterp.errors import OnnxError, SourceError
from onnxinterp.inspection.runnable import Runnable
from onnxinterp.python_source.bodies import Recorded
from onnxinterp.python_source.free_sizes import free_axes
from onnxinterp.runtime.interpreter import Interpreter

EDGES = (1, 0)
SEED = 1  # of networks that draw numbers
RELATIVE_ERROR, ABSOLUTE_ERROR = 1e-4, 1e-5  # of the largest element; torch may sum otherwise
FAILURES = (RuntimeError, IndexError, ValueError, TypeError, OnnxError)


def network(text: str, path: str, stored: Mapping[str, Tensor], device: torch.device) -> nn.Module:
    """The network that source defines, with weights.

    Args:
        text: the source; all names in it were made here.
        path: of the file that it will be.
        stored: path of each weight and constant -> tensor.
        device: where it runs.
    """
    scope: dict[str, Any] = {"__file__": path, "__name__": "written"}
    exec(compile(text, path, "exec"), scope)
    net: nn.Module = scope["Net"]().to(device)
    places = {**net.state_dict(), **dict(net.named_buffers())}
    for name, tensor in stored.items():
        places[name].copy_(tensor.detach())
    return net.eval()


def widened(module: Runnable, given: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """The example with free sizes of 1 doubled, where the module runs so.

    A symbol stands for sizes of two and more; one would be taken for a fixed size.
    """
    infos = module._call.infos
    wider = {name: _doubled(x, infos[name].shape) for name, x in given.items()}
    if all(wider[name] is x for name, x in given.items()):
        return given
    try:
        with torch.no_grad():
            _run(module, wider)
    except FAILURES:
        return given
    return wider


def _doubled(tensor: Tensor, declared: Sequence[Any] | None) -> Tensor:
    for axis in free_axes(declared, tensor.ndim):
        if tensor.shape[axis] == 1:
            tensor = torch.cat([tensor, tensor], axis)
    return tensor


def check(module: Runnable, net: nn.Module, given: Mapping[str, Tensor]) -> None:
    """Compare both on the example.

    Raises:
        SourceError: they differ.
    """
    wanted = _seeded(_run, module, given)
    if not _agree(wanted, _seeded(net, *given.values())):
        raise SourceError("the source computes something else than the module")


def edges(
    module: Runnable, net: nn.Module, recorded: Recorded, given: Mapping[str, Tensor]
) -> list[sympy.Expr]:
    """The conditions under which the source is right for sizes of 1 and 0."""
    found = []
    for symbol, size, inputs in _variants(recorded, given):
        try:
            wanted = _seeded(_run, module, inputs)
        except FAILURES:
            continue
        try:
            is_right = _agree(wanted, _seeded(net, *inputs.values()))
        except FAILURES:
            is_right = False
        if not is_right:
            found.append(symbol > size)
    return found


def _variants(
    recorded: Recorded, given: Mapping[str, Tensor]
) -> Iterator[tuple[sympy.Symbol, int, dict[str, Tensor]]]:
    """The inputs with one free size after the other cut to 1 and 0."""
    shapes = [
        [recorded.replace(getattr(getattr(size, "node", None), "expr", size)) for size in v.shape]
        for v in recorded.body.inputs
    ]
    for symbol in recorded.symbols:
        sums = (e for shape in shapes for e in shape if isinstance(e, sympy.Basic) and e != symbol)
        if any(symbol in e.free_symbols for e in sums):
            continue
        for size in EDGES:
            inputs = {}
            for (name, tensor), shape in zip(given.items(), shapes, strict=True):
                for axis, expression in enumerate(shape):
                    if expression == symbol:
                        tensor = tensor.narrow(axis, 0, min(size, tensor.shape[axis]))
                inputs[name] = tensor
            yield symbol, size, inputs


def _run(module: Runnable, given: Mapping[str, Tensor]) -> tuple[Any, ...]:
    """The results of a module in `eval()` mode."""
    results: tuple[Any, ...] = module._run((), given, module._plans, Interpreter())
    return results


def _seeded(function: Callable[..., Any], *args: Any) -> Any:
    """What a function returns that draws the same numbers in each call."""
    with torch.no_grad(), torch.random.fork_rng():
        torch.manual_seed(SEED)
        return function(*args)


def _agree(wanted: tuple[Any, ...], got: Any) -> bool:
    """Whether results are the same but for the last bits."""
    many = got if isinstance(got, tuple) else (got,)
    return len(wanted) == len(many) and all(map(_is_close, wanted, many))


def _is_close(wanted: Tensor, got: Tensor) -> bool:
    if wanted.shape != got.shape or wanted.dtype != got.dtype:
        return False
    if wanted.is_complex():
        wanted, got = torch.view_as_real(wanted.resolve_conj()), torch.view_as_real(got)
    if not wanted.is_floating_point() or not wanted.numel():
        return torch.equal(wanted, got)
    wanted, got = wanted.double(), got.double()  # torch hardly computes with float8
    finite = wanted[wanted.isfinite()].abs()
    largest = float(finite.max()) if finite.numel() else 0.0
    limit = ABSOLUTE_ERROR + RELATIVE_ERROR * largest
    return torch.allclose(wanted, got, 0.0, limit, equal_nan=True)
