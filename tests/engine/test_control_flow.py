"""If, Loop and Scan: values, gradients, what bodies see and carry, and capture.

The models are written as ONNX text and judged by onnxruntime.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor

from onnxinterp import InvalidModelError, NodeError, OnnxModule
from onnxinterp.runtime.interpreter import Frame, Interpreter
from onnxinterp.runtime.plan import Step
from onnxinterp.values import Host
from tests import models

CONSTANTS = """
  yes = Constant<value = bool {1}>()  no = Constant<value = bool {0}>()
  zero = Constant<value = int64 {0}>()  one = Constant<value = int64 {1}>()
  two = Constant<value = int64 {2}>()  three = Constant<value = int64 {3}>()
"""


def parse(graph: str, opset: int = 17) -> onnx.ModelProto:
    """A model; CONSTANTS stand where the text has `...`."""
    return models.parse(graph.replace("...", CONSTANTS), opset)


def onnxruntime_answers(model: onnx.ModelProto, feeds: dict[str, Any]) -> list[Any]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return list(session.run(None, feeds))


def assert_same(got: Any, want: Any) -> None:
    if isinstance(want, list):
        assert len(got) == len(want)
        for g, w in zip(got, want, strict=True):
            assert_same(g, w)
        return
    assert got.dtype == torch.from_numpy(want).dtype
    np.testing.assert_allclose(got.detach().numpy(), want, rtol=1e-5, atol=1e-6)
    assert got.shape == want.shape


def check(graph: str, *inputs: Tensor, opset: int = 17) -> OnnxModule:
    """Compare with onnxruntime; give the module."""
    model = parse(graph, opset)
    module = OnnxModule(model)
    feeds = {n: x.numpy() for n, x in zip(module.input_names, inputs, strict=True)}
    got = module(*inputs)
    assert_same(list(got) if isinstance(got, tuple) else [got], onnxruntime_answers(model, feeds))
    return module


X = torch.arange(12, dtype=torch.float32).reshape(4, 3) / 8 - 0.5

IF = """g (bool c, float[4,3] x, float[4,3] z) => (float[M,K] y) { ...
  y = If (c) <
    then_branch = a () => (float[M,K] r) { r = Mul (x, z) },
    else_branch = b () => (float[M,K] r) { s = ReduceSum<keepdims = 1>(x) r = Tanh (s) }
  >
}"""

NESTED_IF = """g (float[4,3] x, int64 n) => (float[4,3] y) { ...
  small = Less (n, two)
  y = If (small) <
    then_branch = a () => (float[4,3] r) {
      none = Less (n, one)
      r = If (none) <
        then_branch = c () => (float[4,3] q) { q = Neg (x) },
        else_branch = d () => (float[4,3] q) { q = Exp (x) }
      >
    },
    else_branch = b () => (float[4,3] r) { r = Identity (x) }
  >
}"""

LOOP = """g (int64 m, float[4,3] x) => (float[4,3] y, float[N,4,3] rows) { ...
  y, rows = Loop (m, yes, x) <body = body (int64 i, bool go, float[4,3] v)
    => (bool more, float[4,3] w, float[4,3] row) {
      more = Identity (go)
      t = Tanh (v)
      w = Add (t, x)
      row = Mul (v, v)
    }
  >
}"""

WHILE = """g (float[4,3] x) => (float[4,3] y, float[N] sums) { ...
  y, sums = Loop ("", yes, x) <body = body (int64 i, bool go, float[4,3] v)
    => (bool more, float[4,3] w, float sum) {
      half = Constant<value = float {0.5}>()
      w = Mul (v, half)
      size = Abs (w)
      sum = ReduceSum<keepdims = 0>(size)
      limit = Constant<value = float {0.3}>()
      more = Greater (sum, limit)
    }
  >
}"""

COUNTS = """g (float[4,3] x) => (float[3] y, int64 k, int64[N] seen) { ...
  start = Constant<value = float[3] {0.0, 0.0, 0.0}>()
  y, k, seen = Loop (three, yes, start, zero) <body = body (int64 i, bool go, float[3] v, int64 n)
    => (bool more, float[3] w, int64 next, int64 old) {
      next = Add (n, one)
      more = Less (next, two)
      row = Gather (x, n)
      w = Add (v, row)
      old = Identity (n)
    }
  >
}"""

SEQUENCE = """g (float[4,3] x) => (float[N,3] y) { ...
  empty = SequenceEmpty ()
  all = Loop (three, yes, empty) <body = body (int64 i, bool go, seq(float[3]) s)
    => (bool more, seq(float[3]) t) {
      more = Identity (go)
      row = Gather (x, i)
      t = SequenceInsert (s, row)
    }
  >
  y = ConcatFromSequence<axis = 0, new_axis = 1>(all)
}"""

NESTED_LOOP = """g (float[4,3] x) => (float[4,3] y) { ...
  y = Loop (two, yes, x) <body = outer (int64 i, bool go, float[4,3] v)
    => (bool more, float[4,3] w) {
      more = Identity (go)
      trips = Add (i, one)
      w = Loop (trips, go, v) <body = inner (int64 j, bool on, float[4,3] a)
        => (bool still, float[4,3] b) {
          still = Identity (on)
          even = Less (j, i)
          b = If (even) <
            then_branch = p () => (float[4,3] q) { q = Sin (a) },
            else_branch = r () => (float[4,3] q) { q = Mul (a, x) }
          >
        }
      >
    }
  >
}"""

SCAN = """g (float[3] s, float[4,3] x, float[3,4] z) => (float[3] last, float[3,N] rows) {
  last, rows = Scan (s, x, z) <num_scan_inputs = 2, scan_input_axes = [0, 1],
    scan_input_directions = [0, 1], scan_output_axes = [1], scan_output_directions = [1],
    body = body (float[3] a, float[3] u, float[3] w) => (float[3] b, float[3] row) {
      p = Mul (u, w)
      q = Add (a, p)
      b = Tanh (q)
      row = Add (b, s)
    }
  >
}"""

SHADOWED = """g (float[4,3] x) => (float[4,3] y, float[4,3] u) { ...
  t = Neg (x)
  y = Loop (two, yes, x) <body = body (int64 i, bool go, float[4,3] v)
    => (bool more, float[4,3] w) { more = Identity (go)  k = Exp (v)  w = Mul (k, t) }
  >
  k = Add (x, t)
  u = Add (k, y)
}"""

ROWS = """g (float[A,B] x) => (float[N,B] y) { ...
  shape = Shape (x)
  n = Gather (shape, zero)
  y = Loop (n, yes) <body = body (int64 i, bool go) => (bool more, float[B] row) {
      more = Identity (yes)
      row = Gather (x, i)
    }
  >
}"""


@pytest.mark.parametrize("condition", [True, False])
def test_if_takes_one_branch(condition: bool) -> None:
    check(IF, torch.tensor(condition), X, X + 1)


@pytest.mark.parametrize("n", [0, 1, 2])
def test_an_if_inside_an_if_sees_all_around_it(n: int) -> None:
    check(NESTED_IF, X, torch.tensor(n))


@pytest.mark.parametrize("trips", [0, 1, 4])
def test_loop_counts_trips(trips: int) -> None:
    check(LOOP, torch.tensor(trips), X)


def test_loop_ends_by_its_condition() -> None:
    check(WHILE, X)


def test_loop_carries_numbers() -> None:
    check(COUNTS, X)


def test_loop_carries_sequences() -> None:
    check(SEQUENCE, X)


def test_loops_nest() -> None:
    check(NESTED_LOOP, X)


def test_scan_along_axes_and_backwards() -> None:
    check(SCAN, X[0], X, X.T.contiguous() + 1)


def test_a_body_may_use_names_of_the_graph_around_it_again() -> None:
    other_names = SHADOWED.replace("k = Exp (v)  w = Mul (k, t)", "e = Exp (v)  w = Mul (e, t)")
    want = onnxruntime_answers(parse(other_names), {"x": X.numpy()})  # it refuses the first form
    assert_same(list(OnnxModule(parse(SHADOWED))(X)), want)


def test_trips_may_come_from_a_shape() -> None:
    check(ROWS, X)


def test_a_condition_in_the_body_counts_without_one_outside() -> None:
    graph = """g (int64 m) => (float[N] y) { ...
      y = Loop (m, "") <body = body (int64 i, bool go) => (bool more, float row) {
          more = Less (i, one)
          row = Cast<to = 1>(i)
        }
      >
    }"""
    check(graph, torch.tensor(5))


@pytest.mark.parametrize("opset", [7, 10, 11, 13, 16, 18])
def test_every_version_of_loop(opset: int) -> None:
    check(LOOP, torch.tensor(3), X, opset=opset)


def test_scan_8_has_a_batch_axis_and_lengths() -> None:
    graph = """g (int64[B] lens, float[B,3] s, float[B,T,3] x)
        => (float[B,3] last, float[B,T,3] y) {
      last, y = Scan (lens, s, x) <num_scan_inputs = 1, directions = [1],
        body = body (float[3] a, float[3] u) => (float[3] b, float[3] row) {
          b = Add (a, u)
          row = Mul (a, u)
        }
      >
    }"""
    x = torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(0))
    check(graph, torch.tensor([2, 4]), torch.ones(2, 3), x, opset=8)


@pytest.mark.parametrize(
    "graph", [LOOP.replace("int64 m, ", "").replace("(m,", "(three,"), WHILE, COUNTS, SEQUENCE]
)
def test_gradients_flow_through_loops(graph: str) -> None:
    module = OnnxModule(parse(graph.replace("float[", "double[").replace("float ", "double ")))
    x = X.double().requires_grad_()

    def floating(x: Tensor) -> list[Tensor]:
        results = module(x)
        results = results if isinstance(results, tuple) else (results,)
        return [r for r in results if r.is_floating_point()]

    assert torch.autograd.gradcheck(floating, (x,))


def test_gradients_flow_through_nested_loops_and_branches() -> None:
    module = OnnxModule(parse(NESTED_LOOP.replace("float[", "double[")))
    assert torch.autograd.gradcheck(module, (X.double().requires_grad_(),))


@pytest.mark.parametrize("condition", [True, False])
def test_gradients_flow_through_the_branch_that_runs(condition: bool) -> None:
    module = OnnxModule(parse(IF.replace("float[", "double[")))
    x, z = X.double().requires_grad_(), (X + 1).double().requires_grad_()
    y = module(torch.tensor(condition), x, z)
    y.sum().backward()
    assert x.grad is not None
    assert (z.grad is not None) == condition


def test_gradients_flow_through_scan() -> None:
    module = OnnxModule(parse(SCAN.replace("float[", "double[")))
    s, x, z = (t.double().requires_grad_() for t in (X[0], X, X.T + 1))
    assert torch.autograd.gradcheck(module, (s, x, z))


def test_weights_of_a_body_train() -> None:
    graph = """g (float[3] x) => (float[3] y) { ...
      y = Loop (three, yes, x) <body = body (int64 i, bool go, float[3] v)
        => (bool more, float[3] r) <float[3] w = {0.5, 1.0, 2.0}> {
          more = Identity (go)
          r = Mul (v, w)
        }
      >
    }"""
    module = check(graph, X[0])
    module(X[0]).sum().backward()
    w = module.weights["w"]
    torch.testing.assert_close(w.grad, X[0] * 3 * w.detach() ** 2)


class Recorder(Interpreter):
    """Keeps what every step gave."""

    def __init__(self) -> None:
        self.results: list[tuple[str, Any]] = []

    def run_step(self, step: Step, frame: Frame) -> Any:
        result = super().run_step(step, frame)
        self.results.append((step.outputs[0], result))
        return result


def test_counters_and_conditions_stay_plain_numbers() -> None:
    module = OnnxModule(parse(COUNTS))
    module.interpreter = recorder = Recorder()
    module(X)
    counted = [r for name, r in recorder.results if name in ("next", "more", "old")]
    assert counted
    assert all(isinstance(r, Host) for r in counted)


@pytest.mark.parametrize("graph", [COUNTS, SEQUENCE, NESTED_LOOP, SHADOWED])
def test_loops_are_captured(graph: str) -> None:
    module = OnnxModule(parse(graph))
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    program = torch.export.export(module, (X,)).module()
    want = module(X)
    torch.testing.assert_close(compiled(X), want)
    torch.testing.assert_close(program(X), want)


SCAN_OF_ONE = """g (float[4,3] x) => (y) { ...
  y = Scan <num_scan_inputs = 1, OPTIONS, body = body (float[3] v) => (BODY) {
    r = Mul (v, v)
    n = Size (v)
  }> (x)
}"""


@pytest.mark.parametrize(
    ("graph", "message"),
    [
        (
            IF.replace("(float[M,K] r) { r = Mul", "(float[M,K] r, float[M,K] x) { r = Mul"),
            "must have 1 output",
        ),
        (
            LOOP.replace("y, rows = Loop", "y = Loop").replace(", float[N,4,3] rows", ""),
            "must have 2 output",
        ),
        (
            SCAN_OF_ONE.replace("OPTIONS, ", "").replace("BODY", "float[3] r, int64 n"),
            "must have 1 output",
        ),
    ],
)
def test_bodies_give_as_much_as_their_node(graph: str, message: str) -> None:
    """What one gave more was dropped; onnxruntime refuses it."""
    with pytest.raises(InvalidModelError, match=message):
        OnnxModule(parse(graph))


@pytest.mark.parametrize(
    ("option", "body"),
    [
        ("scan_output_axes = [1]", "int64 n"),
        ("scan_output_axes = [5]", "float[3] r"),
        ("scan_input_directions = [7]", "float[3] r"),
        ("scan_output_directions = [-1]", "float[3] r"),
    ],
)
def test_axes_and_directions_that_no_scan_has(option: str, body: str) -> None:
    module = OnnxModule(parse(SCAN_OF_ONE.replace("OPTIONS", option).replace("BODY", body)))
    with pytest.raises(NodeError):
        module(X)
