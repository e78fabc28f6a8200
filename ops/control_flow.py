"""Control flow: If, Loop, Scan. Python drives the bodies, so gradients simply flow through them.

History: If 1, 11 (branches may differ in shape), 13-25 (types; sequences and optionals).
Loop 1, 11, 13-25 (types; sequences). Scan 8 (a batch axis, sequence_lens), 9 (free axes),
11 (negative axes), 16-25 (types).

Under `torch.compile` and `torch.export` loops are unrolled: the trip count becomes part of the
graph.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import count
from typing import Any

import numpy as np
import onnx
import torch
from torch import Tensor
from torch.nn import functional

from onnxinterp.registry import op, sample
from onnxinterp.sampling import Call, Draw, call
from onnxinterp.values import Host, Ints, OutputType, Scalar, Subgraph, number


@op("If", since=1)
def if_(cond: Scalar, *, then_branch: Subgraph, else_branch: Subgraph) -> tuple[Any, ...]:
    return then_branch() if cond else else_branch()


@op("Loop", since=1)
def loop(
    M: Scalar | None = None,
    cond: Scalar | None = None,
    *v_initial: Any,
    body: Subgraph,
    device: torch.device,
) -> tuple[Any, ...]:
    """The body's condition counts even where the node gives no `cond`.

    The specification ignores it then; onnxruntime does not, and models are made to run there.
    """
    carried: Sequence[Any] = v_initial
    going: Any = Host(True if cond is None else cond, torch.bool)
    rows = []
    for i in count():
        if (M is not None and i >= M) or not number(going):
            break
        going, *results = body(Host(i), going, *carried)
        carried = results[: len(v_initial)]
        rows.append(results[len(v_initial) :])
    declared = body.output_types[1 + len(v_initial) :]
    scanned = [
        _stacked(column, declared[k], 0, device)
        for k, column in enumerate(_columns(rows, len(declared)))
    ]
    return (*carried, *scanned)


@op("Scan", since=9)
def scan(
    *initial_state_and_scan_inputs: Tensor,
    body: Subgraph,
    num_scan_inputs: int,
    scan_input_axes: Ints | None = None,
    scan_input_directions: Ints | None = None,
    scan_output_axes: Ints | None = None,
    scan_output_directions: Ints | None = None,
    device: torch.device,
) -> tuple[Any, ...]:
    n_states = len(initial_state_and_scan_inputs) - num_scan_inputs
    states: Sequence[Any] = initial_state_and_scan_inputs[:n_states]
    inputs = initial_state_and_scan_inputs[n_states:]
    rows = []
    for elements in _elements(inputs, scan_input_axes, scan_input_directions):
        results = body(*states, *elements)
        states = results[:n_states]
        rows.append(results[n_states:])
    declared = body.output_types[n_states:]
    axes = scan_output_axes or [0] * len(declared)
    backwards = scan_output_directions or [0] * len(declared)
    scanned = [
        _stacked(column[::-1] if backwards[k] else column, declared[k], axes[k], device)
        for k, column in enumerate(_columns(rows, len(declared)))
    ]
    return (*states, *scanned)


@op("Scan", since=8)
def scan_8(
    sequence_lens: Ints | None = None,
    *initial_state_and_scan_inputs: Tensor,
    body: Subgraph,
    num_scan_inputs: int,
    directions: Ints | None = None,
    device: torch.device,
) -> tuple[Tensor, ...]:
    """One scan for each element of the batch axis 0, over axis 1; zeros after a sequence's end."""
    n_states = len(initial_state_and_scan_inputs) - num_scan_inputs
    longest = initial_state_and_scan_inputs[-1].shape[1]
    batch = zip(*(x.unbind(0) for x in initial_state_and_scan_inputs), strict=True)
    rows = []
    for b, element in enumerate(batch):
        length = longest if sequence_lens is None else sequence_lens[b]
        if not 0 <= length <= longest:
            raise ValueError(f"a sequence of {length} among inputs of length {longest}")
        results = scan(
            *element[:n_states],
            *(x[:length] for x in element[n_states:]),
            body=body,
            num_scan_inputs=num_scan_inputs,
            scan_input_directions=directions,
            device=device,
        )
        states = [_tensor(s, device) for s in results[:n_states]]
        scanned = [_tensor(y, device) for y in results[n_states:]]
        rows.append(states + [_padded(y, longest - length) for y in scanned])
    return tuple(torch.stack(column) for column in zip(*rows, strict=True))


def _elements(
    inputs: Sequence[Tensor], axes: Ints | None, backwards: Ints | None
) -> Iterable[tuple[Tensor, ...]]:
    """What each iteration of a Scan takes of its inputs."""
    axes = axes or [0] * len(inputs)
    backwards = backwards or [0] * len(inputs)
    columns = [x.unbind(axis) for x, axis in zip(inputs, axes, strict=True)]
    turned = [c[::-1] if back else c for c, back in zip(columns, backwards, strict=True)]
    return zip(*turned, strict=True)


def _columns(rows: Sequence[Sequence[Any]], n: int) -> list[Sequence[Any]]:
    """From the results of each iteration to the iterations of each of `n` results."""
    return list(zip(*rows, strict=True)) if rows else [()] * n


def _stacked(
    column: Sequence[Any], declared: OutputType, axis: int, device: torch.device
) -> Tensor | Host | np.ndarray[Any, Any]:
    """A scan output; numbers become a list of numbers.

    Without iterations its shape is what the body declares, with 0 for sizes it does not know.
    """
    if column and all(isinstance(v, Host) and not v.rank for v in column):
        return Host([v.data for v in column], column[0].dtype)
    dtype, shape = declared
    if column and isinstance(column[0], np.ndarray):
        return np.stack(column, axis)
    if column:
        return torch.stack([_tensor(v, device) for v in column], axis)
    sizes = [size if isinstance(size, int) else 0 for size in shape or ()]
    sizes.insert(axis % (len(sizes) + 1), 0)
    if isinstance(dtype, np.dtype):
        return np.empty(sizes, dtype)
    return torch.empty(sizes, dtype=dtype, device=device)


def _tensor(value: Tensor | Host, device: torch.device) -> Tensor:
    return value.tensor(device) if isinstance(value, Host) else value


def _padded(x: Tensor, n: int) -> Tensor:
    """Append n zeros to axis 0."""
    return functional.pad(x, [0, 0] * (x.ndim - 1) + [0, n])


@sample(if_)
def _(d: Draw) -> Call:
    branches = [
        onnx.parser.parse_graph(
            f"branch () => (y) {{ y = Constant <value = float[1] {{{n}}}> () }}"
        )
        for n in (1, 2)
    ]
    return call(d.tensor((), "B"), then_branch=branches[0], else_branch=branches[1])


def _body(text: str, x: Tensor, element: Sequence[int]) -> onnx.GraphProto:
    """A body in ONNX text, `T` standing for tensors like `x` of shape `element`."""
    kind = "double" if x.dtype is torch.float64 else "float"
    return onnx.parser.parse_graph(text.replace("T ", f"{kind}[{', '.join(map(str, element))}] "))


LOOP_BODY = """body (int64 i, bool go, T v) => (bool more, T next, T row, int64 index) {
    more = Identity (go) next = Softsign (v) row = Identity (v) index = Identity (i)
}"""


@sample(loop)
def _(d: Draw) -> Call:
    x, trips, go = d.floats(d.shape()), d.integer(0, 4), d.maybe(d.tensor((), "B"))
    return call(trips, go, x, body=_body(LOOP_BODY, x, x.shape), outputs=3)


SCAN_BODY = """body (T state, T x, T z) => (T next, T row, T other) {
    next = Add (state, x) row = Mul (next, z) other = Identity (z)
}"""


def _sides(d: Draw) -> list[int]:
    """A shape, never an empty one: onnxruntime dies of a division by zero there."""
    return [d.integer(1, 3) for _ in range(d.integer(1, 3))]


@sample(scan)
def _(d: Draw) -> Call:
    shape, time = _sides(d), d.integer(1, 4)
    place = d.integer(0, len(shape))
    negative = d.opset >= 11 and d.boolean()
    axis = place - len(shape) - 1 if negative else place
    state = d.floats(shape)
    return call(
        state,
        d.floats((time, *shape)),
        d.floats((*shape[:place], time, *shape[place:])),
        body=_body(SCAN_BODY, state, shape),
        num_scan_inputs=2,
        scan_input_axes=[0, axis] if place else d.maybe([0, axis]),
        scan_input_directions=d.maybe([d.integer(0, 1), d.integer(0, 1)]),
        scan_output_axes=d.maybe([axis, 0]),
        scan_output_directions=d.maybe([d.integer(0, 1), d.integer(0, 1)]),
        outputs=3,
    )


@sample(scan_8)
def _(d: Draw) -> Call:
    shape, batch, time = _sides(d), d.integer(1, 3), d.integer(1, 4)
    state = d.floats((batch, *shape))
    return call(
        d.maybe(d.ints((batch,), 1, time)),
        state,
        d.floats((batch, time, *shape)),
        d.floats((batch, time, *shape)),
        body=_body(SCAN_BODY, state, shape),
        num_scan_inputs=2,
        directions=d.maybe([d.integer(0, 1), d.integer(0, 1)]),
        outputs=3,
    )
