"""If, Loop and Scan by data and by sizes, compiled and exported.

One graph takes every branch and makes any number of trips. Eager mode and onnxruntime are the
judges. test_captured_gradients.py has the gradients.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.export import Dim

from onnxinterp import NodeError, OnnxModule
from tests.engine.test_control_flow import X, assert_same, onnxruntime_answers, parse

Inputs = tuple[Tensor, ...]
Z = X.flip(0) + 1

IF = """g (bool c, float[4,3] x, float[4,3] z) => (float[4,3] y, int64[4] best, float m) {
  y, best, m = If (c) <
    then_branch = a () => (float[4,3] y1, int64[4] k1, float m1) {
      y1 = Mul (x, z)  k1 = ArgMax<axis = 1, keepdims = 0>(x)  m1 = ReduceSum<keepdims = 0>(z)
    },
    else_branch = b () => (float[4,3] y2, int64[4] k2, float m2) {
      y2 = Identity (x)  k2 = Constant<value = int64[4] {7, 8, 9, 4}>()
      m2 = Constant<value = float {0.5}>()
    }
  >
}"""

WEIGHTS = """g (bool c, float[4,3] x) => (float[4,3] y)
  <float[3] w = {0.5, 1.0, 2.0}, float[3] u = {3.0, 1.0, -1.0}> {
  y = If (c) <
    then_branch = a () => (float[4,3] y1) { y1 = Mul (x, w) },
    else_branch = b () => (float[4,3] y2) { s = Add (x, u)  y2 = Tanh (s) }
  >
}"""

COUNT = """g (int64 m, float[4,3] x) => (float[4,3] y, float[4,3] sum) { ...
  none = Mul (x, nought)
  y, sum = Loop (m, yes, x, none) <body = body (int64 i, bool go, float[4,3] v, float[4,3] s)
    => (bool more, float[4,3] w, float[4,3] t) {
      more = Identity (go)
      f = Cast<to = 1>(i)
      a = Tanh (v)
      w = Add (a, x)
      b = Mul (w, f)
      t = Add (s, b)
    }
  >
}""".replace("none = Mul", "nought = Constant<value = float {0.0}>()  none = Mul")

ROWS = """g (int64 m, float[4,3] x) => (float[4,3] y, float[N,4,3] rows, int64[N] numbers) { ...
  y, rows, numbers = Loop (m, yes, x) <body = body (int64 i, bool go, float[4,3] v)
    => (bool more, float[4,3] w, float[4,3] row, int64 j) {
      more = Identity (go)
      t = Tanh (v)
      w = Add (t, x)
      row = Mul (v, v)
      j = Add (i, one)
    }
  >
}"""

WHILE = """g (float[4,3] x, float limit) => (float[4,3] y, int64 n) { ...
  y, n = Loop ("", yes, x, zero) <body = body (int64 i, bool go, float[4,3] v, int64 k)
    => (bool more, float[4,3] w, int64 next) {
      half = Constant<value = float {0.5}>()
      w = Mul (v, half)
      size = Abs (w)
      sum = ReduceSum<keepdims = 0>(size)
      more = Greater (sum, limit)
      next = Add (k, one)
    }
  >
}"""

LIMITED = """g (float[4,3] x, float limit, bool first) => (float[4,3] y, float[N] sums) { ...
  most = Constant<value = int64 {6}>()
  y, sums = Loop (most, first, x) <body = body (int64 i, bool go, float[4,3] v)
    => (bool more, float[4,3] w, float sum) {
      half = Constant<value = float {0.5}>()
      w = Mul (v, half)
      size = Abs (w)
      sum = ReduceSum<keepdims = 0>(size)
      more = Greater (sum, limit)
    }
  >
}"""

BRANCH_IN_LOOP = """g (int64 m, float[4,3] x, float[4,3] z) => (float[4,3] y) { ...
  y = Loop (m, yes, x) <body = outer (int64 i, bool go, float[4,3] v)
    => (bool more, float[4,3] w) {
      more = Identity (go)
      limit = Constant<value = float {0.1}>()
      sum = ReduceSum<keepdims = 0>(v)
      large = Greater (sum, limit)
      w = If (large) <
        then_branch = p () => (float[4,3] q) { q = Mul (v, z) },
        else_branch = r () => (float[4,3] q) { h = Sin (v)  q = Add (h, x) }
      >
    }
  >
}"""

LOOP_IN_LOOP = """g (int64 m, int64 k, float[4,3] x) => (float[4,3] y) { ...
  y = Loop (m, yes, x) <body = outer (int64 i, bool go, float[4,3] v)
    => (bool more, float[4,3] w) {
      more = Identity (go)
      nought = Constant<value = float[4,3] {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}>()
      last, sum = Loop (k, yes, v, nought) <
        body = inner (int64 j, bool on, float[4,3] a, float[4,3] s)
        => (bool still, float[4,3] b, float[4,3] t) {
          still = Identity (on)
          b = Sin (a)
          c = Mul (b, x)
          t = Add (s, c)
        }
      >
      w = Add (last, sum)
    }
  >
}"""

SCAN = """g (float[3] s, float[T,3] x, float[3,T] z)
  => (float[3] last, float[3,N] rows, float[N,3] u) {
  last, rows, u = Scan (s, x, z) <num_scan_inputs = 2, scan_input_axes = [0, -1],
    scan_input_directions = [0, 1], scan_output_axes = [-1, 0], scan_output_directions = [1, 0],
    body = body (float[3] a, float[3] v, float[3] w) => (float[3] b, float[3] row, float[3] other) {
      p = Mul (v, w)
      q = Add (a, p)
      b = Tanh (q)
      row = Add (b, s)
      other = Identity (v)
    }
  >
}"""

SIZE = """g (float[T,3] x) => (float[3] y, float[N,3] rows) { ...
  shape = Shape (x)
  n = Gather (shape, zero)
  start = Constant<value = float[3] {0.0, 0.0, 0.0}>()
  y, rows = Loop (n, yes, start) <body = body (int64 i, bool go, float[3] v)
    => (bool more, float[3] w, float[3] row) {
      more = Identity (yes)
      row = Gather (x, i)
      square = Mul (row, row)
      w = Add (v, square)
    }
  >
}"""


def number(n: int) -> Tensor:
    return torch.tensor(n)


def sequence(length: int) -> Inputs:
    x = torch.linspace(-1, 1, 3 * length).reshape(length, 3)
    return torch.tensor([0.5, -0.5, 1.0]), x, x.T.contiguous() + 1


CASES: dict[str, tuple[str, list[Inputs]]] = {
    "If": (IF, [(torch.tensor(c), X, Z) for c in (True, False)]),
    "If with weights": (WEIGHTS, [(torch.tensor(c), X) for c in (False, True)]),
    "Loop by a count": (COUNT, [(number(n), X) for n in (2, 0, 1, 5)]),
    "Loop by a count, with rows": (ROWS, [(number(n), X) for n in (2, 5, 3)]),
    "Loop by a condition": (WHILE, [(X, torch.tensor(v)) for v in (0.3, 10.0, 0.1)]),
    "Loop by a condition, with rows": (
        LIMITED,
        [
            (X, torch.tensor(v), torch.tensor(first))
            for v, first in ((0.3, True), (10.0, True), (0.0, True), (0.3, False))
        ],
    ),
    "If in Loop": (BRANCH_IN_LOOP, [(number(n), X + s, Z) for n in (2, 0, 4) for s in (0, 1)]),
    "Loop in Loop": (LOOP_IN_LOOP, [(number(n), number(k), X) for n in (2, 0, 3) for k in (2, 0)]),
    "Loop by a size": (SIZE, [(X,), (torch.cat([X, X + 1]),), (X[:2].clone(),)]),
    "Scan by a size": (SCAN, [sequence(n) for n in (4, 7, 2)]),
}
cases = pytest.mark.parametrize(("graph", "calls"), CASES.values(), ids=CASES)


def as_list(results: Any) -> list[Tensor]:
    return list(results) if isinstance(results, tuple | list) else [results]


def compiled(module: OnnxModule, calls: list[Inputs]) -> Callable[..., Any]:
    """A function that fails where another call than the first would be compiled."""
    torch.compiler.reset()
    pairs = [(a, b) for call in calls for a, b in zip(calls[0], call, strict=True)]
    dynamic = any(a.shape != b.shape for a, b in pairs)
    function = torch.compile(module, fullgraph=True, backend="aot_eager", dynamic=dynamic or None)
    stances = iter(["default"])

    def run(*inputs: Tensor) -> Any:
        with torch.compiler.set_stance(next(stances, "fail_on_recompile")):
            return function(*inputs)

    return run


def exported(module: OnnxModule, calls: list[Inputs]) -> Callable[..., Any]:
    """A program that went through its file."""
    shapes = tuple(
        {axis: Dim.DYNAMIC for axis in range(a.ndim) if a.shape[axis] != b.shape[axis]}
        for a, b in zip(calls[0], calls[1], strict=True)
    )
    file = io.BytesIO()
    torch.export.save(torch.export.export(module, calls[0], dynamic_shapes=shapes), file)
    file.seek(0)
    return torch.export.load(file).module()


def feeds_of(module: OnnxModule, inputs: Inputs) -> dict[str, Any]:
    """The inputs of a call as onnxruntime takes them."""
    return dict(zip(module.input_names, [x.numpy() for x in inputs], strict=True))


CAPTURES = {"compile": compiled, "export": exported}


# torch's own tracing of loops looks at .grad of what is no leaf.
LEAVES = pytest.mark.filterwarnings(
    "ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning"
)
pytestmark = LEAVES


@pytest.mark.parametrize("capture", CAPTURES.values(), ids=CAPTURES)
@cases
def test_one_graph_serves_all_values(graph: str, calls: list[Inputs], capture: Any) -> None:
    model = parse(graph)
    module = OnnxModule(model)
    function = capture(module, calls)
    for inputs in calls:
        got = [r.detach() for r in as_list(function(*inputs))]
        eager = [r.detach() for r in as_list(module(*inputs))]
        torch.testing.assert_close(got, eager)
        assert_same(got, onnxruntime_answers(model, feeds_of(module, inputs)))


@pytest.mark.parametrize("capture", CAPTURES.values(), ids=CAPTURES)
def test_branches_may_differ_in_size(capture: Any) -> None:
    graph = """g (bool c, float[4,3] x) => (float[M,K] y) {
      y = If (c) <
        then_branch = a () => (float[M,K] r) { r = Tanh (x) },
        else_branch = b () => (float[M,K] r) { r = ReduceSum<keepdims = 1>(x) }
      >
    }"""
    module = OnnxModule(parse(graph))
    calls = [(torch.tensor(c), X) for c in (True, False)]
    function = capture(module, calls)
    for inputs in calls:
        torch.testing.assert_close(function(*inputs), module(*inputs))


@pytest.mark.parametrize("capture", CAPTURES.values(), ids=CAPTURES)
@pytest.mark.parametrize(
    ("branches", "message"),
    [
        (("float[4,3] r) { r = Tanh (x) }", "float r) { r = ReduceSum<keepdims = 0>(x) }"), "rank"),
        (("float[4,3] r) { r = Tanh (x) }", "int64[4,3] r) { r = Cast<to = 7>(x) }"), "dtypes"),
    ],
)
def test_branches_that_differ_otherwise_are_refused(
    branches: tuple[str, str], message: str, capture: Any
) -> None:
    then, other = branches
    graph = f"""g (bool c, float[4,3] x) => (y) {{
      y = If (c) <then_branch = a () => ({then}, else_branch = b () => ({other}>
    }}"""
    module = OnnxModule(parse(graph))
    calls = [(torch.tensor(c), X) for c in (True, False)]
    for inputs in calls:
        module(*inputs)
    with pytest.raises(Exception, match=f"branches that depend on data must.*{message}"):
        capture(module, calls)(*calls[0])


ONE_SIZE = """g (bool c, float[N] x) => (float[3] y) {
  y = If (c) <
    then_branch = a () => (float[3] r) {
      w = Constant<value = float[3] {1, 2, 3}>()  r = Mul (x, w)
    },
    else_branch = b () => (float[3] r) {
      five = Constant<value = int64[2] {5, 3}>()  m = Reshape (x, five)
      r = ReduceSum<keepdims = 0>(m, zero)
    }
  >
}""".replace("y = If", "zero = Constant<value = int64[1] {0}>()  y = If", 1)


@pytest.mark.parametrize("capture", CAPTURES.values(), ids=CAPTURES)
@pytest.mark.parametrize(("condition", "length"), [(True, 3), (False, 15)])
def test_a_branch_that_cannot_run_at_the_sizes_of_a_graph_is_refused_when_it_is_to_run(
    condition: bool, length: int, capture: Any
) -> None:
    module = OnnxModule(parse(ONE_SIZE))
    x = torch.linspace(-1, 1, length)
    calls = [(torch.tensor(c), x) for c in (condition, not condition)]
    function = capture(module, calls)
    torch.testing.assert_close(function(*calls[0]), module(*calls[0]))
    with pytest.raises(NodeError):
        module(*calls[1])
    with pytest.raises(RuntimeError, match=f"can run only where its condition is {condition}"):
        function(*calls[1])


def test_an_onnx_file_cannot_refuse_a_branch(tmp_path: Path) -> None:
    pytest.importorskip("onnxscript", reason="torch's exporter needs it")
    module = OnnxModule(parse(ONE_SIZE))
    with pytest.raises(Exception, match="an ONNX file cannot check that"):
        torch.onnx.export(
            module,
            (torch.tensor(True), torch.ones(3)),
            tmp_path / "m.onnx",
            dynamo=True,
            verbose=False,
        )


@pytest.mark.parametrize("capture", CAPTURES.values(), ids=CAPTURES)
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("w = Mul (v, half)", "p = Mul (v, half)  w = Concat<axis = 0>(p, p)"), "keep"),
        (("w = Mul (v, half)", "w = Mul (v, half)  row = Neg (w)"), "no scan outputs"),
    ],
)
def test_loops_that_no_graph_can_make_are_refused(
    change: tuple[str, str], message: str, capture: Any
) -> None:
    graph = WHILE.replace(*change)
    if "row" in change[1]:
        graph = graph.replace("int64 next)", "int64 next, float[4,3] row)")
        graph = graph.replace("int64 n)", "int64 n, float[N,4,3] rows)")
        graph = graph.replace("y, n =", "y, n, rows =")
    graph = graph.replace("(float[4,3] y,", "(float[M,3] y,").replace(
        "float[4,3] w", "float[M,3] w"
    )
    module = OnnxModule(parse(graph))
    calls = [(X, torch.tensor(v)) for v in (10.0, 20.0)]
    module(*calls[0])
    with pytest.raises(Exception, match=message):
        capture(module, calls)(*calls[0])


def test_a_loop_that_carries_a_sequence_is_unrolled_for_each_size() -> None:
    graph = """g (float[T,3] x) => (float[N,3] y) { ...
      empty = SequenceEmpty ()
      shape = Shape (x)
      n = Gather (shape, zero)
      all = Loop (n, yes, empty) <body = body (int64 i, bool go, seq(float[3]) s)
        => (bool more, seq(float[3]) t) {
          more = Identity (go)
          row = Gather (x, i)
          t = SequenceInsert (s, row)
        }
      >
      y = ConcatFromSequence<axis = 0, new_axis = 1>(all)
    }"""
    module = OnnxModule(parse(graph))
    torch.compiler.reset()
    function = torch.compile(module, fullgraph=True, backend="aot_eager", dynamic=True)
    for length in (4, 2):
        torch.testing.assert_close(function(X[:length].clone()), X[:length])
