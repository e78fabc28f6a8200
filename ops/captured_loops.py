"""Loop and Scan in a graph that is being captured, where it cannot have each of their iterations.

    Loop    while_loop    where the condition or the number of trips is a tensor
            scan          where the number of trips is a size that may be another in the next call
    Scan    scan          where the length is such a size, or large

The body becomes a graph of its own: what it carries are tensors that keep their dtypes and shapes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from onnxinterp.ops.higher_order import (
    Tensors,
    as_tensor,
    as_tensors,
    connected,
    lifted,
    owned,
    run_cond,
    run_scan,
    run_while,
    sources_of_gradients,
)
from onnxinterp.values import Host, Ints, Subgraph, is_known

BODY = "the body of a loop"
MAX_ROWS = 2**16  # of a scan output whose number depends on data: memory is taken for all
MAX_TRIPS = torch.iinfo(torch.int64).max
UNROLLED = 32  # iterations of a Scan of known length that become part of the graph


def is_unknown(most: int | Tensor | None, going: Any) -> bool:
    """Whether a Loop that is being captured depends on data, or on a size that may change."""
    return isinstance(most, Tensor) or isinstance(going, Tensor) or not is_known(most or 0)


def looped(
    M: Any, going: Any, initial: Sequence[Any], body: Subgraph, device: torch.device
) -> tuple[Any, ...] | None:
    """A Loop whose number of trips is known only when the graph runs.

    None where only its size is a symbol, and the values that it carries cannot be those of a graph:
    then it is unrolled, for that size.

    Args:
        M: the largest number of trips: a number, a symbol, a tensor, or None.
        going: whether there is a first one; None is true.
        initial: the carried values.
        body: from the number of a trip, a condition and the carried values to the next ones.
        device: where new tensors are created.

    Raises:
        TypeError: the body returns other values than tensors that keep their dtypes and ranks.
        ValueError: they do not keep their sizes; or there are scan outputs of unlimited length.
    """
    going, n = Host(True, torch.bool) if going is None else going, len(initial)
    zero = torch.zeros((), dtype=torch.int64, device=device)
    first, *results = body(Host(zero, torch.int64), Host(True, torch.bool), *initial)
    is_counted = M is not None and _is_true(first) and _is_true(going)
    problem = _difference(initial, results[:n])
    if problem and is_counted and not isinstance(M, Tensor):
        return None
    if problem:
        raise TypeError(problem)
    carried = owned(initial, device, BODY)
    if is_counted and not isinstance(M, Tensor):
        return _counted(M, carried, body, device)
    rows = as_tensors(results[n:], device, BODY)
    limit = _most_rows(M, is_counted) if rows else 0
    buffers = tuple([row.new_zeros((limit, *row.shape)) for row in rows])
    left = M if isinstance(M, Tensor) else torch.full((), MAX_TRIPS if M is None else M)
    going = as_tensor(going, device, BODY)
    numbers = (zero, left.to(device).reshape(()).clone(), going.reshape(()).clone())
    trips, *ends = _while(numbers, carried, buffers, body)
    return (*ends[:n], *[_first(buffer, trips, limit) for buffer in ends[n:]])


def _most_rows(M: Any, is_counted: bool) -> Any:
    """How long a scan output may become.

    Raises:
        ValueError: nothing limits it.
    """
    if is_counted:
        count = M.clamp(min=0).item()  # a symbol of the graph
        torch._check(count >= 0)
        return count
    if M is None or isinstance(M, Tensor) or (is_known(M) and M > MAX_ROWS):
        what = f"the number of trips depends on data, and nothing limits it to {MAX_ROWS}"
        raise ValueError(f"{what}: to be captured, a Loop must have no scan outputs then")
    return M


def _first(buffer: Tensor, trips: Tensor, most: Any) -> Tensor:
    """The rows that the trips of a loop have filled."""
    length = trips.item()  # a symbol of the graph
    torch._check(length >= 0)
    torch._check(length <= most)
    return buffer[:length]


def _while(
    numbers: tuple[Tensor, Tensor, Tensor], carried: Tensors, buffers: Tensors, body: Subgraph
) -> Tensors:
    """The number of trips, and what is carried and filled after the last one.

    Args:
        numbers: the trips so far and those left, and the condition.
        carried: the values that the body carries.
        buffers: what the rows of each scan output are written into.
        body: that of the Loop.
    """
    (operands, (run,)), n, size = lifted([body]), len(carried), 3 + len(carried) + len(buffers)

    def goes_on(_: Tensor, left: Tensor, going: Tensor, *__: Any) -> Tensor:
        return going & (left > 0)

    def advance(*values: Any) -> Tensors:
        i, left, going, *inner = values[:size]
        made = run((i, going, *inner[:n]), values[size:])
        going, *results = owned(made, i.device, BODY)
        pairs = zip(inner[n:], results[n:], strict=True)
        filled = [filling.index_copy(0, i.reshape(1), row[None]) for filling, row in pairs]
        return (i + 1, left - 1, going.reshape(()), *results[:n], *filled)

    def loop(*values: Any) -> Tensors:
        trips, _, _, *ends = run_while(goes_on, advance, values[:size], values[size:])
        return (trips, *ends) if buffers else tuple(ends)

    state = (*numbers, *carried, *buffers)
    sources = sources_of_gradients((*state, *body.outer.values()))
    if not sources:
        ends = loop(*state, *operands)
    else:  # or no gradient flows back through a carried value that has none at first
        state = tuple([v if v.requires_grad else connected(v, sources) for v in state])
        kept = slice(0, 1) if buffers else slice(0, 0)  # the number of trips
        ends = _guarded(goes_on(*state), loop, state, operands, kept)
    return ends if buffers else (numbers[0], *ends)


def _guarded(
    goes_on: Tensor,
    loop: Callable[..., Tensors],
    state: Tensors,
    operands: Sequence[Any],
    kept: slice,
) -> Tensors:
    """A loop that runs only where it makes a trip: else its gradient is that of one trip."""

    def rest(*values: Any) -> Tensors:
        return tuple([value.clone() for value in values[kept] + values[3 : len(state)]])

    dtypes = [value.dtype for value in state[kept] + state[3:]]
    return run_cond(goes_on, loop, rest, (*state, *operands), dtypes, trains=True)


def _counted(M: Any, carried: Tensors, body: Subgraph, device: torch.device) -> Tensors:
    """A Loop that nothing but the number of its trips ends, which is a size."""
    operands, (run,) = lifted([body])

    def step(states: Sequence[Any], row: Sequence[Any], operands: Sequence[Any]) -> Tensors:
        _, *results = run((*row, Host(True, torch.bool), *states), operands)
        return owned(results, device, BODY)

    return run_scan(step, carried, (torch.arange(M, device=device),), operands)


def is_long(inputs: Sequence[Any], axes: Ints | None) -> bool:
    """Whether a Scan that is being captured is not unrolled."""
    if not torch.compiler.is_compiling() or not isinstance(inputs[0], Tensor):
        return False
    length = inputs[0].shape[axes[0] if axes else 0]
    return not is_known(length) or length > UNROLLED


def scanned(
    states: Sequence[Any], inputs: Sequence[Tensor], body: Subgraph, device: torch.device
) -> tuple[Tensors, Tensors]:
    """The last states of a Scan, and its outputs, along axis 0 as its inputs.

    Raises:
        As `looped`.
    """
    (operands, (run,)), first = lifted([body]), owned(states, device, BODY)

    def step(states: Sequence[Any], row: Sequence[Any], operands: Sequence[Any]) -> Tensors:
        return owned(run((*states, *row), operands), device, BODY)

    results = run_scan(step, first, tuple(inputs), operands)
    return results[: len(first)], results[len(first) :]


def _is_true(value: Any) -> bool:
    """Whether a condition is a number that is known, and not 0."""
    return isinstance(value, Host) and all(is_known(n) and n for n in value.numbers)


def _difference(carried: Sequence[Any], results: Sequence[Any]) -> str | None:
    """Why a graph cannot carry values: they are not tensors, or change in dtype, rank or size."""
    for i, (old, new) in enumerate(zip(carried, results, strict=True)):
        kinds = [type(v).__name__ for v in (old, new) if not isinstance(v, (Tensor, Host))]
        if kinds:
            got = kinds[0]
        elif old.dtype != new.dtype or len(old.shape) != len(new.shape):
            got = f"{old.dtype}{list(old.shape)} and {new.dtype}{list(new.shape)}"
        elif any(map(_differ, old.shape, new.shape)):
            got = f"shapes {list(old.shape)} and {list(new.shape)}"
        else:
            continue
        what = "to be captured, a Loop must carry tensors that keep their dtypes and shapes"
        return f"{what}, got {got} of value {i}"
    return None


def _differ(a: Any, b: Any) -> bool:
    """Whether two sizes are known to be different ones."""
    return is_known(a) and is_known(b) and bool(a != b)
