"""Control flow: If, Loop, Scan. Python runs the bodies, so gradients flow through them.

History: If 1, 11 (branches may differ in shape), 13-25 (types; sequences and optionals).
Loop 1, 11, 13-25 (types; sequences). Scan 8 (a batch axis, sequence_lens), 9 (free axes),
11 (negative axes), 16-25 (types).

Under `torch.compile` and `torch.export` what is known while a graph is captured is decided then: a
branch is chosen, a loop is unrolled. What depends on data, or on sizes that may change, becomes an
operator of torch: see `captured_branches` and `captured_loops`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from itertools import count
from typing import Any

import numpy as np
import onnx
import torch
from torch import Tensor
from torch.nn import functional

from onnxinterp.dtypes import onnx_name
from onnxinterp.ops import captured_branches, captured_loops
from onnxinterp.ops.shapes import from_front
from onnxinterp.registry import op, sample
from onnxinterp.runtime.costs import TENSOR_OBJECT as ROW
from onnxinterp.runtime.guard import chunks, reserve
from onnxinterp.testing.samples import Call, Draw, call
from onnxinterp.values import Host, Ints, LateScalar, OutputType, Shape, Subgraph, number


@op("If", since=1, any_type=True)
def if_(cond: LateScalar, *, then_branch: Subgraph, else_branch: Subgraph) -> tuple[Any, ...]:
    if isinstance(cond, Tensor) and captured_branches.is_open(cond):
        return captured_branches.chosen(cond, then_branch, else_branch)
    return then_branch() if _only(cond) else else_branch()


@op("Loop", since=1, any_type=True, extra_body_outputs=1)
def loop(
    M: LateScalar | None = None,
    cond: LateScalar | None = None,
    *v_initial: Any,
    body: Subgraph,
    device: torch.device,
) -> tuple[Any, ...]:
    """The condition of the body is used even if the node has no input `cond`.

    The specification ignores it then; onnxruntime does not, and models are made for onnxruntime.
    """
    carried: Sequence[Any] = v_initial
    if len(body.output_types) <= len(v_initial):
        raise ValueError(f"the body gives no condition and {len(v_initial)} carried values")
    going: Any = Host(True, torch.bool) if cond is None else cond
    is_captured = torch.compiler.is_compiling()
    most = M if M is None or (is_captured and isinstance(M, Tensor)) else _only(M)
    rows: list[Sequence[Any]] = []
    for i in count():
        if is_captured and captured_loops.is_unknown(most, going):
            found = captured_loops.looped(most, cond, v_initial, body, device)
            if found is not None:
                return found
            is_captured = False
        if (most is not None and i >= most) or not _only(going):
            break
        going, *results = body(Host(i), going, *carried)
        carried = results[: len(v_initial)]
        _keep(rows, results[len(v_initial) :])
    declared = _types(body, rows, 1 + len(v_initial))
    columns = _columns(rows, len(declared))
    scanned = [
        _stacked(column, told, 0, device) for column, told in zip(columns, declared, strict=True)
    ]
    return (*carried, *scanned)


@op("Scan", since=9, any_type=True)
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
    if num_scan_inputs < 1 or n_states < 0:
        raise ValueError(f"{num_scan_inputs} scan inputs of {n_states + num_scan_inputs}")
    if len(body.output_types) < n_states:
        raise ValueError(f"the body does not give {n_states} states")
    for directions in (scan_input_directions, scan_output_directions):
        if any(way not in (0, 1) for way in directions or ()):
            raise ValueError(f"directions {directions} are not all 0 or 1")
    states: Sequence[Any] = initial_state_and_scan_inputs[:n_states]
    inputs = initial_state_and_scan_inputs[n_states:]
    if captured_loops.is_long(inputs, scan_input_axes):
        turned = _turned(inputs, scan_input_axes, scan_input_directions)
        ends, outputs = captured_loops.scanned(states, turned, body, device)
        return (*ends, *_placed(outputs, scan_output_axes, scan_output_directions))
    rows: list[Sequence[Any]] = []
    for elements in _elements(inputs, scan_input_axes, scan_input_directions):
        results = body(*states, *elements)
        states = results[:n_states]
        _keep(rows, results[n_states:])
    declared = _types(body, rows, n_states)
    axes = scan_output_axes or [0] * len(declared)
    backwards = scan_output_directions or [0] * len(declared)
    columns = _columns(rows, len(declared))
    scanned = [
        _stacked(column[::-1] if back else column, told, axis, device)
        for column, told, axis, back in zip(columns, declared, axes, backwards, strict=True)
    ]
    return (*states, *scanned)


@op("Scan", since=8, any_type=True)
def scan_8(
    sequence_lens: Ints | None = None,
    *initial_state_and_scan_inputs: Tensor,
    body: Subgraph,
    num_scan_inputs: int,
    directions: Ints | None = None,
    device: torch.device,
) -> tuple[Tensor, ...]:
    """Scan axis 1 of each element of the batch (axis 0); zeros after the end of a sequence."""
    n_states = len(initial_state_and_scan_inputs) - num_scan_inputs
    n_batch, longest = initial_state_and_scan_inputs[-1].shape[:2]
    if sequence_lens is not None and len(sequence_lens) != n_batch:
        raise ValueError(f"{len(sequence_lens)} lengths of {n_batch} sequences")
    batch = zip(*(_unbound(x, 0) for x in initial_state_and_scan_inputs), strict=True)
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
    return tuple(_joined(column) for column in zip(*rows, strict=True))


def _elements(
    inputs: Sequence[Tensor], axes: Ints | None, backwards: Ints | None
) -> Iterable[tuple[Tensor, ...]]:
    """The slices of the inputs for each iteration of a Scan."""
    axes = axes or [0] * len(inputs)
    backwards = backwards or [0] * len(inputs)
    columns = [_unbound(x, axis) for x, axis in zip(inputs, axes, strict=True)]
    turned = [c[::-1] if back else c for c, back in zip(columns, backwards, strict=True)]
    return zip(*turned, strict=True)


def _turned(inputs: Sequence[Tensor], axes: Ints | None, backwards: Ints | None) -> list[Tensor]:
    """The inputs of a Scan with its axis in front, from the first iteration to the last."""
    axes = axes or [0] * len(inputs)
    backwards = backwards or [0] * len(inputs)
    moved = [x.movedim(axis, 0) for x, axis in zip(inputs, axes, strict=True)]
    return [x.flip(0) if back else x for x, back in zip(moved, backwards, strict=True)]


def _placed(outputs: Sequence[Tensor], axes: Ints | None, backwards: Ints | None) -> list[Tensor]:
    """The outputs of a Scan with its axis where it belongs, and in the order that it has there."""
    axes = axes or [0] * len(outputs)
    backwards = backwards or [0] * len(outputs)
    turned = [y.flip(0) if back else y for y, back in zip(outputs, backwards, strict=True)]
    return [y.movedim(0, from_front(axis, y.ndim)) for y, axis in zip(turned, axes, strict=True)]


def _only(value: LateScalar) -> Any:
    """Read the one element of a count or a condition.

    Raises:
        ValueError: it has none, or several.
    """
    if isinstance(value, Tensor) and value.numel() != 1:
        raise ValueError(f"a count or a condition must have one element, got {list(value.shape)}")
    return number(value)


def _keep(rows: list[Sequence[Any]], row: Sequence[Any]) -> None:
    """Append the results of an iteration, from which scan outputs are made."""
    if any(isinstance(value, (list, dict)) for value in row):
        raise TypeError("a scan output is made of tensors, not of sequences")
    rows.append(row)
    reserve(ROW * len(rows) * len(row))


def _types(body: Subgraph, rows: Sequence[Any], first: int) -> Sequence[OutputType]:
    """The types of the body's scan outputs; without iterations all sizes that are known."""
    declared = body.output_types[first:]
    if rows or all(_is_static(shape) for _, shape in declared):
        return declared
    known = body.static_shapes()[first:]
    pairs = zip(declared, known, strict=True)
    return [(dtype, _merged(shape, inferred)) for (dtype, shape), inferred in pairs]


def _is_static(shape: Shape) -> bool:
    return shape is not None and all(isinstance(size, int) for size in shape)


def _merged(declared: Shape, inferred: Shape) -> Shape:
    """A declared shape with inferred sizes where it has symbols."""
    if declared is None or inferred is None or len(declared) != len(inferred):
        return inferred if declared is None else declared
    pairs = zip(declared, inferred, strict=True)
    return tuple([size if isinstance(size, int) else known for size, known in pairs])


def _columns(rows: Sequence[Sequence[Any]], n: int) -> list[Sequence[Any]]:
    """From the results of each iteration to the iterations of each of `n` results."""
    return list(zip(*rows, strict=True)) if rows else [()] * n


def _stacked(column: Sequence[Any], declared: OutputType, axis: int, device: torch.device) -> Any:
    """A scan output; numbers become a list of numbers.

    Without iterations it has the shape that is known of the body's output; unknown sizes are 0.
    """
    if column and all(isinstance(v, Host) and not v.rank for v in column):
        from_front(axis, 1)
        return Host([v.data for v in column], column[0].dtype)
    if column:
        return _joined([_tensor(v, device) for v in column], axis)
    dtype, shape = declared
    if dtype is None:
        raise TypeError("nothing tells the type of a scan output without iterations")
    sizes = [size if isinstance(size, int) else 0 for size in shape or ()]
    sizes.insert(from_front(axis, len(sizes) + 1), 0)
    if isinstance(dtype, np.dtype):
        return np.full(sizes, "", dtype)
    return torch.empty(sizes, dtype=dtype, device=device)


def _unbound(x: Any, axis: int) -> Sequence[Any]:
    """The slices along an axis, of strings too."""
    if isinstance(x, np.ndarray):
        slices = np.moveaxis(x, axis, 0)
        reserve(ROW * len(slices))
        parts = (part for some in chunks(len(slices)) for part in slices[some])
        return [np.asarray(part, dtype=object) for part in parts]
    return list(x.unbind(axis))


def _joined(parts: Sequence[Any], axis: int = 0) -> Any:
    """Slices along a new axis, of strings too."""
    if isinstance(parts[0], np.ndarray):
        return np.stack(parts, axis)
    return torch.stack(list(parts), axis)


def _tensor(value: Any, device: torch.device) -> Any:
    return value.tensor(device) if isinstance(value, Host) else value


def _padded(x: Any, n: int) -> Any:
    """Append n zeros, or empty strings, to axis 0."""
    if isinstance(x, np.ndarray):
        return np.concatenate([x, np.full((n, *x.shape[1:]), "", dtype=object)])
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


COMPUTED = ("float", "double")  # bodies of other types only pass values on


def _body(d: Draw, rules: str, head: str, element: Sequence[int]) -> onnx.GraphProto:
    """A body in ONNX's text format; `T` is a tensor of the type of V and of shape `element`."""
    kind = onnx_name(d.elem_type("V"))
    if kind == "float" and d.dtype("V") is torch.float64:  # what gradients are checked in
        kind = "double"
    if kind not in COMPUTED:
        rules = re.sub(r"= \w+ \((\w+)[^)]*\)", r"= Identity (\1)", rules)
        head = head.replace("T ", "")
    head = head.replace("T ", f"{kind}[{', '.join(map(str, element))}] ")
    return onnx.parser.parse_graph(f"body {head} {{ {rules.replace(';', '')} }}")


LOOP_HEAD = "(int64 i, bool go, T v) => (bool more, T next, T row)"
LOOP_RULES = "more = Identity (go); next = Tanh (v); row = Identity (v)"
LOOP_INDEX = "; index = Identity (i)"


@sample(loop)
def _(d: Draw) -> Call:
    x, go = d.tensor(d.shape(), "V"), d.maybe(d.tensor((), "B"))
    if onnx_name(d.elem_type("V")) in COMPUTED:
        body = _body(d, LOOP_RULES + LOOP_INDEX, LOOP_HEAD[:-1] + ", int64 index)", x.shape)
        return call(d.integer(0, 4), go, x, body=body, outputs=3)
    go = None  # without iterations an undeclared shape is unknown
    return call(d.integer(1, 4), go, x, body=_body(d, LOOP_RULES, LOOP_HEAD, x.shape), outputs=2)


SCAN_HEAD = "(T state, T x, T z) => (T next, T row, T other)"
SCAN_RULES = "next = Add (state, x); row = Mul (next, z); other = Identity (z)"


def _sides(d: Draw) -> list[int]:
    """A shape without 0: onnxruntime would divide by zero."""
    return [d.integer(1, 3) for _ in range(d.integer(1, 3))]


@sample(scan)
def _(d: Draw) -> Call:
    shape, time = _sides(d), d.integer(1, 4)
    place = d.integer(0, len(shape))
    negative = d.opset >= 11 and d.boolean()
    axis = place - len(shape) - 1 if negative else place
    state = d.tensor(shape, "V")
    return call(
        state,
        d.tensor((time, *shape), "V"),
        d.tensor((*shape[:place], time, *shape[place:]), "V"),
        body=_body(d, SCAN_RULES, SCAN_HEAD, shape),
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
    state = d.tensor((batch, *shape), "V")
    return call(
        d.maybe(d.ints((batch,), 1, time)),
        state,
        d.tensor((batch, time, *shape), "V"),
        d.tensor((batch, time, *shape), "V"),
        body=_body(d, SCAN_RULES, SCAN_HEAD, shape),
        num_scan_inputs=2,
        directions=d.maybe([d.integer(0, 1), d.integer(0, 1)]),
        outputs=3,
    )
