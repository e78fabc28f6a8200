"""torch's operators of higher order, as kernels use them: `cond`, `while_loop` and `scan`.

They want functions whose results are tensors, none of which is an input: numbers become tensors,
and results are copied. The compiler finds by itself what a function reads of the values around it;
a trace, as by `torch.export`, gets it as operands, and calls the operators themselves, which
compile nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch._higher_order_ops import scan as scan_of_trees
from torch._higher_order_ops import while_loop
from torch._higher_order_ops.cond import cond_op
from torch._higher_order_ops.scan import scan_op
from torch._higher_order_ops.while_loop import while_loop_op
from torch.overrides import TorchFunctionMode

from onnxinterp.values import SYMBOLS, Host, Subgraph

Body: TypeAlias = Callable[[Sequence[Any], Sequence[Any]], tuple[Any, ...]]
"""A function of the inputs of a subgraph, and of what it reads of the values around it."""
Tensors: TypeAlias = tuple[Tensor, ...]


def run_cond(
    pred: Tensor,
    then: Callable[..., Tensors],
    other: Callable[..., Tensors],
    operands: Sequence[Any],
    dtypes: Sequence[Any],
    trains: bool,
) -> Tensors:
    """`torch.cond`; a trace calls the operator, which compiles nothing.

    Its gradient wants floating results alone: others pass as the bits of such.
    """
    if not torch.compiler.is_dynamo_compiling():
        return tuple(cond_op(pred, _traced(then), _traced(other), tuple(operands)))
    whole = [trains and _is_whole(dtype) for dtype in dtypes]

    def passed(branch: Callable[..., Tensors]) -> Callable[..., Tensors]:
        return lambda *operands: tuple(
            [
                value.long().view(torch.float64) if is_whole else value
                for value, is_whole in zip(branch(*operands), whole, strict=True)
            ]
        )

    results = torch.cond(pred, passed(then), passed(other), tuple(operands))
    return tuple(
        [
            value.detach().view(torch.int64).to(dtype) if is_whole else value
            for value, dtype, is_whole in zip(results, dtypes, whole, strict=True)
        ]
    )


def _is_whole(dtype: Any) -> bool:
    """Whether a dtype is that of integers or booleans."""
    is_number = isinstance(dtype, torch.dtype)
    return is_number and not (dtype.is_floating_point or dtype.is_complex)


def run_while(
    goes_on: Callable[..., Tensor],
    advance: Callable[..., Tensors],
    state: Sequence[Tensor],
    operands: Sequence[Any],
) -> Tensors:
    """`while_loop`, likewise."""
    values: Any = tuple(state)  # the operator is annotated for a state of one
    if torch.compiler.is_dynamo_compiling():
        loop: Any = while_loop  # untyped in torch
        return tuple(loop(goes_on, advance, values))
    return tuple(while_loop_op(goes_on, _traced(advance), values, tuple(operands)))


def run_scan(
    step: Callable[[Sequence[Any], Sequence[Any], Sequence[Any]], Tensors],
    states: Tensors,
    rows: Tensors,
    operands: Sequence[Any],
) -> Tensors:
    """`scan`, likewise: the last states and all outputs of a step, which has at least one state."""
    own = states or (torch.zeros((), device=rows[0].device),)
    n, end = len(own), len(own) + len(rows)

    def flat(*values: Any) -> Tensors:
        results = step(values[: len(states)], values[n:end], values[end:])
        return results if states else (values[0].clone(), *results)

    def nested(states: Tensors, row: Tensors) -> tuple[Tensors, Tensors]:
        results = flat(*states, *row)
        return results[:n], results[n:]

    if torch.compiler.is_dynamo_compiling():
        ends, outputs = scan_of_trees(nested, own, rows)
        results = (*ends, *outputs)
    else:
        results = tuple(scan_op(_traced(flat), list(own), list(rows), tuple(operands)))
    return results if states else results[1:]


def lifted(bodies: Sequence[Subgraph]) -> tuple[tuple[Any, ...], list[Body]]:
    """What bodies read of the values around them, and the bodies as functions of it.

    Returns:
        Tensors and symbols, each once, and functions of the inputs of a body and of these. The
        compiler needs none: it finds them in the closures.
    """
    if torch.compiler.is_dynamo_compiling():
        return (), [_bound(body) for body in bodies]
    leaves: dict[int, Any] = {}
    for body in bodies:
        for value in body.outer.values():
            _mapped(value, lambda leaf: leaves.setdefault(id(leaf), leaf))

    def made(body: Subgraph) -> Body:
        def run(inputs: Sequence[Any], operands: Sequence[Any]) -> tuple[Any, ...]:
            inside = dict(zip(leaves, operands, strict=True))
            outer = {k: _mapped(v, lambda leaf: inside[id(leaf)]) for k, v in body.outer.items()}
            return body.run_with(outer, inputs)

        return run

    return tuple(leaves.values()), [made(body) for body in bodies]


def _traced(function: Callable[..., Tensors]) -> Callable[..., Tensors]:
    """A function that a trace makes a graph of, inside of another."""

    def run(*values: Any) -> Tensors:
        with _WithoutConstants():
            return function(*values)

    return run


class _WithoutConstants(TorchFunctionMode):
    """Makes tensors of lists out of numbers: a program with a constant in a body is not saved."""

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        keywords = dict(kwargs or {})
        if func is not torch.tensor or keywords.get("dtype") is None:
            return func(*args, **keywords)
        return _stacked(args[0], keywords)


def _stacked(rows: Any, keywords: Mapping[str, Any]) -> Tensor:
    """A tensor of nested lists of numbers."""
    if not isinstance(rows, (list, tuple)):
        return torch.full((), rows, **keywords)
    if not rows:
        return torch.empty(0, **keywords)
    return torch.stack([_stacked(row, keywords) for row in rows])


def _bound(body: Subgraph) -> Body:
    return lambda inputs, _: body(*inputs)


def _mapped(value: Any, change: Callable[[Any], Any]) -> Any:
    """A value with other tensors and symbols in it."""
    if isinstance(value, SYMBOLS):
        return change(value)
    if isinstance(value, Host):
        return Host([_mapped(n, change) for n in value.numbers], value.dtype, value.shape)
    if isinstance(value, list):
        return [_mapped(v, change) for v in value]
    return value


def sources_of_gradients(values: Sequence[Any]) -> list[Tensor]:
    """The tensors whose gradients may be wanted: all of them, in an exported program."""
    if not torch.is_grad_enabled():
        return []
    floating = [v for v in values if isinstance(v, Tensor) and v.is_floating_point()]
    return [v for v in floating if v.requires_grad or torch.compiler.is_exporting()]


def connected(value: Tensor, sources: Sequence[Tensor]) -> Tensor:
    """The same value; where it is floating, as one that depends on others."""
    if not value.is_floating_point():
        return value
    for source in sources:  # the sum of nothing changes no bit
        value = value - source.flatten()[:0].sum().to(value)
    return value


def owned(results: Sequence[Any], device: torch.device, where: str) -> Tensors:
    """Values as tensors that share no memory with others."""
    form = torch.contiguous_format
    return tuple([r.clone(memory_format=form) for r in as_tensors(results, device, where)])


def as_tensors(results: Sequence[Any], device: torch.device, where: str) -> Tensors:
    return tuple([as_tensor(r, device, where) for r in results])


def as_tensor(value: Any, device: torch.device, where: str) -> Tensor:
    """A value as a tensor.

    Raises:
        TypeError: it is a sequence, an optional or strings.
    """
    if isinstance(value, Host):
        return value.tensor(device)
    if not isinstance(value, Tensor):
        what = f"to be captured, {where} that depends on data must take and return tensors"
        raise TypeError(f"{what}, got a value of type {type(value).__name__}")
    return value
