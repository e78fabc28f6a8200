"""Gradient of a part of the graph: judged by torch.autograd on the same formula."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

import numpy as np
import onnx.parser
import pytest
import torch
from torch import Tensor

from onnxinterp import InvalidModelError, NodeError, OnnxModule

HEADER = """<ir_version: 8, opset_import:
["": 21, "ai.onnx.preview.training": 1, "mine": 1]>\n"""
GRADIENT = "ai.onnx.preview.training.Gradient"

A = torch.tensor([0.5, -1.0, 2.0])
B = torch.tensor([3.0, 0.25, -0.5])


def module(graph: str) -> OnnxModule:
    """A module of a graph in ONNX text, `Gradient` standing for its full name."""
    return OnnxModule(onnx.parser.parse_model(HEADER + graph.replace("Gradient", GRADIENT)))


def wanted(f: Callable[..., Tensor], *xs: Tensor) -> tuple[Tensor, ...]:
    """The gradient of the sum of f, by autograd."""
    leaves = [x.clone().requires_grad_() for x in xs]
    return torch.autograd.grad(f(*leaves).sum(), leaves)


def assert_gradient(
    got: Tensor | tuple[Tensor, ...], f: Callable[..., Tensor], *xs: Tensor
) -> None:
    torch.testing.assert_close(got if isinstance(got, tuple) else (got,), wanted(f, *xs))


def test_a_value_of_several_elements_counts_as_their_sum() -> None:
    m = module("""g (float[3] a, float[3] b) => (float[3] da, float[3] db) {
      s = Sin(a) y = Mul(s, b)
      da, db = Gradient<xs = ["a", "b"], y = "y">(a, b)
    }""")
    assert_gradient(m(A, B), lambda a, b: a.sin() * b, A, B)


def test_the_inputs_are_the_values_of_what_is_named() -> None:
    """Intermediate values too: what makes them does not count."""
    m = module("""g (float[3] a, float[3] h, float[3] b) => (float[3] dh, float[3] dq) {
      q = Exp(a) r = Tanh(q) y = Mul(r, b)
      dh, skipped = Gradient<xs = ["q", "b"], y = "y">(h, b)
      dq = Gradient<xs = ["q"], zs = ["b"], y = "y">(q, b)
    }""")
    at_h, at_q = m(A, B, B)
    assert_gradient(at_h, lambda q: q.tanh() * B, B)
    assert_gradient(at_q, lambda q: q.tanh() * B, A.exp())


def test_an_input_that_depends_on_another_is_independent() -> None:
    m = module("""g (float[3] a) => (float[3] da, float[3] dq, float[3] dr) {
      q, r = Split<axis = 0, num_outputs = 2>(aa) aa = Concat<axis = 0>(a, a)
      y = Sum(qr, a) qr = Mul(q, r)
      da, dq, dr = Gradient<xs = ["a", "q", "r"], y = "y">(a, q, r)
    }""")
    da, dq, dr = m(A)
    assert (da.tolist(), dq.tolist(), dr.tolist()) == ([1, 1, 1], A.tolist(), A.tolist())


def test_no_influence_is_a_gradient_of_zero() -> None:
    m = module("""g (float[3] a, float[2] b)
      => (float[3] da, float[2] db, float[2] dn, float[2] own) {
      y = Mul(a, a)
      n = Shape(b) size = Cast<to = 1>(n)
      da, db = Gradient<xs = ["a", "b"], y = "y">(a, b)
      dn = Gradient<xs = ["b"], y = "size">(b)
      own = Gradient<xs = ["b"], y = "b">(b)
    }""")
    da, db, dn, own = m(A, B[:2])
    assert_gradient(da, lambda a: a * a, A)
    assert (db.tolist(), dn.tolist(), own.tolist()) == ([0, 0], [0, 0], [1, 1])


def test_nodes_may_stand_in_any_order() -> None:
    m = module("""g (float[3] a) => (float[3] da) {
      da = Gradient<xs = ["a"], y = "y">(a)
      y = Mul(s, s) s = Sin(a)
    }""")
    assert_gradient(m(A), lambda a: a.sin() ** 2, A)


def test_skipped_outputs() -> None:
    m = module("""g (float[3] a, float[3] b) => (float[3] db) {
      y = Mul(a, b)
      "", db = Gradient<xs = ["a", "b"], y = "y">(a, b)
    }""")
    assert m(A, B).tolist() == A.tolist()


def test_gradient_of_a_gradient() -> None:
    """The example of the specification: second derivatives, with respect to x and w."""
    m = module("""g (float[2,3] x, float[3,1] w, float[2,1] l)
      => (float o, float[2,3] dx, float[3,1] dw, float[2,3] ddx, float[3,1] ddw) {
      y = MatMul(x, w) e = Sub(y, l) q = Mul(e, e) t = Mul(q, e) o = ReduceSum<keepdims = 0>(t)
      dx, dw = Gradient<xs = ["x", "w"], zs = ["l"], y = "o">(x, w, l)
      ddx, ddw = Gradient<xs = ["x", "w"], zs = ["l"], y = "dw">(x, w, l)
    }""")
    x, w, l = torch.randn(2, 3), torch.randn(3, 1), torch.randn(2, 1)  # noqa: E741  # as there
    o, dx, dw, ddx, ddw = m(x, w, l)

    def loss(x: Tensor, w: Tensor) -> Tensor:
        return ((x @ w - l) ** 3).sum()

    def slope(x: Tensor, w: Tensor) -> Tensor:
        return torch.autograd.grad(loss(x, w), w, create_graph=True)[0]

    torch.testing.assert_close(o, loss(x, w))
    assert_gradient((dx, dw), loss, x, w)
    assert_gradient((ddx, ddw), slope, x, w)


def test_third_derivative() -> None:
    m = module("""g (float[3] a) => (float[3] d3) {
      s = Sin(a) y = Mul(s, a)
      d1 = Gradient<xs = ["a"], y = "y">(a)
      d2 = Gradient<xs = ["a"], y = "d1">(a)
      d3 = Gradient<xs = ["a"], y = "d2">(a)
    }""")
    torch.testing.assert_close(m(A), -3 * A.sin() - A * A.cos())


PENALTY = """g (float[3] a) => (float[3] da) <float[3] w = {1, 2, 3}> {
  aw = Mul(a, w) s = Sin(aw) y = Mul(s, a)
  da = Gradient<xs = ["a"], y = "y">(a)
}"""


SECOND = """g (float[3] a) => (float[3] dda, float[3] da, float[3] dw)
<float[3] w = {1, 2, 3}> {
  aw = Mul(a, w) s = Sin(aw) y = Mul(s, a)
  da, dw = Gradient<xs = ["a", "w"], y = "y">(a, w)
  n = Mul(da, da) dda = Gradient<xs = ["a"], y = "n">(a)
}"""


@pytest.mark.parametrize("mode", [torch.enable_grad, torch.no_grad, torch.inference_mode])
def test_whatever_the_caller_does_with_gradients(
    mode: Callable[[], AbstractContextManager[None]],
) -> None:
    with mode():
        got = module(PENALTY)(A.clone())
    w = torch.tensor([1.0, 2, 3])
    assert_gradient(got.clone(), lambda a: (a * w).sin() * a, A)


def test_torch_goes_on_through_it() -> None:
    """A penalty on a gradient reaches weights and inputs."""
    m = module(PENALTY)
    a, w = A.clone().requires_grad_(), torch.tensor([1.0, 2, 3], requires_grad=True)
    (slope,) = torch.autograd.grad(((a * w).sin() * a).sum(), a, create_graph=True)
    want = torch.autograd.grad((slope**2).sum(), (a, w))
    (m(a) ** 2).sum().backward()
    torch.testing.assert_close((a.grad, m.weights["w"].grad), (want[0], want[1]))
    x = A.double().requires_grad_()
    assert torch.autograd.gradcheck(module(PENALTY).double(), x)


@pytest.mark.parametrize("mode", [torch.enable_grad, torch.no_grad, torch.inference_mode])
def test_compiled(mode: Callable[[], AbstractContextManager[None]]) -> None:
    m = module(PENALTY)
    compiled = torch.compile(m, fullgraph=True, backend="aot_eager")
    with mode():
        torch.testing.assert_close(compiled(A), m(A))


def test_exported() -> None:
    m = module(SECOND)
    exported = torch.export.export(m, (A,)).module()
    torch.testing.assert_close(exported(B), m(B))


def test_a_function_speaks_of_its_own_values() -> None:
    """The two inputs of the second call depend on each other outside the function only."""
    m = module("""g (float[3] a, float[3] b) => (float[3] p, float[3] q) {
      s = Sin(a) p = mine.Slope(b, a) q = mine.Slope(s, a)
    }
    <domain: "mine", opset_import: ["": 21, "ai.onnx.preview.training": 1]>
    Slope (u, v) => (du) {
      uv = Mul(u, v) y = Mul(uv, u)
      du = Gradient<xs = ["u"], zs = ["v"], y = "y">(u, v)
    }""")
    torch.testing.assert_close(m(A, B), (2 * A * B, 2 * A * A.sin()))


def test_a_function_is_blind_to_what_is_around_it() -> None:
    m = module("""g (float[3] a) => (float[3] d) { s = Sin(a) d = mine.Slope(a, s) }
    <domain: "mine", opset_import: ["": 21, "ai.onnx.preview.training": 1]>
    Slope (u, v) => (du) { y = Mul(u, v) du = Gradient<xs = ["u"], y = "y">(u) }""")
    torch.testing.assert_close(m(A), A.sin())


def test_in_branches_and_through_them() -> None:
    m = module("""g (bool c, float[3] a, float[3] b)
      => (float[3] da, float[3] inside, float[3] outer) {
      y = If(c) <
        then_branch = f () => (float[3] r) { r = Mul(a, b) },
        else_branch = h () => (float[3] r) { t = Exp(a) r = Mul(t, b) }
      >
      da = Gradient<xs = ["a"], y = "y">(a)
      inside, outer = If(c) <
        then_branch = k () => (float[3] p, float[3] q) {
          z = Mul(a, a)
          p = Gradient<xs = ["a"], y = "z">(b) q = Gradient<xs = ["b"], y = "y">(b)
        },
        else_branch = l () => (float[3] p, float[3] q) {
          z = Sin(y)
          p = Gradient<xs = ["y"], y = "z">(b) q = Gradient<xs = ["a"], y = "z">(a)
        }
      >
    }""")
    da, inside, outer = m(torch.tensor(True), A, B)
    torch.testing.assert_close((da, inside, outer), (B, 2 * B, A))
    da, inside, outer = m(torch.tensor(False), A, B)
    torch.testing.assert_close((da, inside), (A.exp() * B, B.cos()))
    assert_gradient(outer, lambda a: (a.exp() * B).sin(), A)


def test_through_loops_that_capture() -> None:
    """In the body `a` is an outer value: it is the new one there too; the weight stays one."""
    m = module("""g (float[3] a, int64 n) => (float[3] y, float[3] da) {
      zero = Constant<value = float[3] {0, 0, 0}>()
      y = Loop(n, "", zero) <body = body (int64 i, bool go, float[3] v) => (bool more, float[3] w) {
        more = Identity(go)
        factor = Constant<value = float[3] {1, 2, 3}>()
        s = Sin(a) t = Mul(s, factor) vv = Mul(v, a) w = Add(vv, t)
      }>
      da = Gradient<xs = ["a"], zs = ["n"], y = "y">(a, n)
    }""")

    def loop(a: Tensor, f: Tensor) -> Tensor:
        v = torch.zeros(3)
        for _ in range(4):
            v = v * a + a.sin() * f
        return v

    factor = torch.tensor([1.0, 2, 3], requires_grad=True)
    y, da = m(A, torch.tensor(4))
    assert_gradient(da, lambda a: loop(a, factor.detach()), A)
    assert [n for n, _ in m.named_parameters()] == ["factor"], "zero is a fill"
    (y + da).sum().backward()
    a = A.clone().requires_grad_()
    out = loop(a, factor)
    (slope,) = torch.autograd.grad(out.sum(), a, create_graph=True)
    (want,) = torch.autograd.grad((out + slope).sum(), factor)
    torch.testing.assert_close(m.weights["factor"].grad, want)


def test_conditions_on_what_is_differentiated() -> None:
    """A loop that ends, and a branch taken, by the elements of `a`."""
    m = module("""g (float[3] a) => (float[3] y, float[3] da) {
      v = Loop("", "", a) <body = body (int64 i, bool go, float[3] v) => (bool more, float[3] w) {
        w = Mul(v, a) size = ReduceL2<keepdims = 0>(w)
        limit = Constant<value = float {20}>() more = Less(size, limit)
      }>
      sum = ReduceSum<keepdims = 0>(a) zero = Constant<value = float {0}>() c = Greater(sum, zero)
      y = If(c) < then_branch = f () => (float[3] r) { r = Sin(v) },
                  else_branch = h () => (float[3] r) { r = Exp(v) } >
      da = Gradient<xs = ["a"], y = "y">(a)
    }""")
    y, da = m(A)
    torch.testing.assert_close(y, (A**5).sin())
    assert_gradient(da, lambda a: (a**5).sin(), A)
    assert_gradient(m(-A)[1], lambda a: (a**5).exp(), -A)


def test_a_constant_differentiated_is_no_constant() -> None:
    """What is folded in the graph is a function of its inputs in the part that runs again."""
    m = module("""g (float[3] a) => (float y, float ds, float dt) <float s = {3}> {
      t = Mul(s, s) u = Mul(t, t) at = Mul(a, u) y = ReduceSum<keepdims = 0>(at)
      ds = Gradient<xs = ["s"], y = "y">(s)
      dt = Gradient<xs = ["t"], y = "y">(s)
    }""")
    y, ds, dt = m(A)
    torch.testing.assert_close((y, ds, dt), (81 * A.sum(), 108 * A.sum(), 6 * A.sum()))


def test_types_of_what_is_not_differentiated() -> None:
    m = module("""g (float[3] a, uint32[2] i, string[3] s) => (float[3] d) {
      one = Constant<value = uint32 {1}>() j = Sub(i, one) k = Cast<to = 7>(j)
      w = Constant<value = string {"w"}>() same = Equal(s, w) f = Cast<to = 1>(same)
      b = Gather(a, k) c = ReduceSum<keepdims = 0>(b) af = Mul(a, f) y = Mul(af, c)
      d = Gradient<xs = ["a"], zs = ["i", "s"], y = "y">(a, i, s)
    }""")
    i, s = torch.tensor([1, 3]).to(torch.uint32), np.array(["w", "", "w"], dtype=object)
    f = torch.tensor([1.0, 0, 1])
    assert_gradient(m(A, i, s), lambda a: a * f * (a[0] + a[2]), A)


def test_statistics_are_brought_up_to_date_once() -> None:
    text = """g (float[4,3] a) => (float[4,3] y, float[4,3] d)
    <float[3] s = {1, 1, 1}, float[3] b = {0, 0, 0},
     float[3] mean = {0, 0, 0}, float[3] var = {1, 1, 1}> {
      y = BatchNormalization(a, s, b, mean, var) z = Mul(y, y)
      d = Gradient<xs = ["a"], y = "z">(a)
    }"""
    m, x = module(text).train(), torch.randn(4, 3)
    y, d = m(x)
    torch.testing.assert_close(m.weights["mean"], 0.1 * x.mean(0))
    norm = torch.nn.BatchNorm1d(3)
    torch.testing.assert_close(y, norm(x))
    assert_gradient(
        d, lambda a: torch.nn.functional.batch_norm(a, None, None, training=True) ** 2, x
    )


@pytest.mark.parametrize(
    ("node", "why"),
    [
        ('d = Gradient<xs = ["a", "a"], y = "y">(a, a)', "one value twice"),
        ('d = Gradient<xs = ["a"], y = "nothing">(a)', "is not defined"),
        ('d = Gradient<xs = ["nothing"], y = "y">(a)', "is not defined"),
        ('d = Gradient<xs = ["a"]>(a)', "must have the attribute 'y'"),
        ('d = Gradient<xs = ["a"], y = "e">(a) e = Sin(d)', "cycle"),
    ],
)
def test_what_no_graph_means_is_refused(node: str, why: str) -> None:
    with pytest.raises(InvalidModelError, match=why):
        module(f"g (float[3] a) => (float[3] d) {{ y = Sin(a) {node} }}")


def test_an_integer_has_no_gradient() -> None:
    m = module("""g (int64[3] a) => (float[3] d) {
      y = Cast<to = 1>(a) d = Gradient<xs = ["a"], y = "y">(a) }""")
    with pytest.raises(NodeError):
        m(torch.arange(3))
