"""What flows in and out of bodies: shapes, types, sequences, optionals, and their gradients."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from onnxinterp import NodeError, OnnxModule
from tests.engine.test_control_flow import X, assert_same, check, onnxruntime_answers, parse

WORDS = np.array(["a", "b"], dtype=object)
LARGE = torch.tensor([3, 2**31 + 1], dtype=torch.uint32)


def drawn(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


BRANCHES = {
    "shapes": """g (bool c, float[4,3] x) => (float[M] y, int64[K] z) { ...
      y, z = If (c) <
        then_branch = a () => (float[M] r, int64[K] n) {
          flat = Constant<value = int64[1] {-1}>() r = Reshape(x, flat) n = Shape(r)
        },
        else_branch = b () => (float[M] r, int64[K] n) { r = Gather(x, one) n = Shape(x) }
      > }""",
    "ranks": """g (bool c, float[4,3] x) => (float y) { ...
      y = If (c) <
        then_branch = a () => (float r) { r = ReduceSum<keepdims = 0>(x) },
        else_branch = b () => (float[4,3] r) { r = Identity(x) }
      > }""",
    "numbers": """g (bool c, float[4,3] x) => (int64 y) { ...
      y = If (c) <
        then_branch = a () => (int64 r) { r = Identity(three) },
        else_branch = b () => (int64 r) { n = Size(x) r = Add(n, three) }
      > }""",
    "sequences": """g (bool c, float[4,3] x) => (seq(float[M,3]) y) { ...
      y = If (c) <
        then_branch = a () => (seq(float[M,3]) r) { r = SplitToSequence<axis = 0>(x, two) },
        else_branch = b () => (seq(float[M,3]) r) { r = SequenceConstruct(x, x, x) }
      > }""",
    "optionals": """g (bool c, float[4,3] x) => (bool y) { ...
      o = If (c) <
        then_branch = a () => (optional(float[4,3]) r) { r = Optional(x) },
        else_branch = b () => (optional(float[4,3]) r) { r = Optional<type = float[4,3]>() }
      >
      y = OptionalHasElement(o) }""",
}


@pytest.mark.parametrize("graph", BRANCHES.values(), ids=BRANCHES)
@pytest.mark.parametrize("condition", [True, False])
def test_branches_need_not_be_alike(graph: str, condition: bool) -> None:
    check(graph, torch.tensor(condition), X)


@pytest.mark.parametrize("condition", [True, False])
def test_a_condition_of_one_element(condition: bool) -> None:
    check(BRANCHES["ranks"].replace("bool c", "bool[1] c"), torch.tensor([condition]), X)


def test_a_branch_may_give_a_value_from_around_it() -> None:
    """The specification lets it; onnxruntime wants an Identity in between."""
    graph = """g (bool c, float[3] x) => (float[3] y) { q = Neg(x)
      y = If (c) <then_branch = a () => (float[3] q) {}, else_branch = b () => (float[3] x) {}> }"""
    module = OnnxModule(parse(graph))
    assert_same(module(torch.tensor(True), X[0]), -X[0].numpy())
    assert_same(module(torch.tensor(False), X[0]), X[0].numpy())


WITHOUT_COUNT = """g ({condition} float[4,3] x) => (float[4,3] y, int64[N] seen) {{ ...
  y, seen = Loop ("", {cond}, x) <body = body (int64 i, bool go, float[4,3] v)
    => (bool more, float[4,3] w, int64 k) {{ more = Less(i, two) w = Mul(v, v) k = Identity(i) }}
  > }}"""


@pytest.mark.parametrize("condition", [None, True, False])
def test_a_loop_without_a_count(condition: bool | None) -> None:
    if condition is None:
        check(WITHOUT_COUNT.format(condition="", cond='""'), X)
    else:
        graph = WITHOUT_COUNT.format(condition="bool c,", cond="c")
        check(graph, torch.tensor(condition), X)


SCANNED = """g (int64 m, float[4,3] x)
=> (float[K,3] y, double[N,3,2] a, bool[N] b, float16[N,4,3] c, int64[N] d) { ...
  y, a, b, c, d = Loop (m, "", x) <body = body (int64 i, bool go, float[A,3] v)
    => (bool more, float[B,3] w, double[3,2] e, bool f, float16[4,3] h, int64 k) {
      more = Identity(go) w = Concat<axis = 0>(v, x)
      e = Constant<value = double[3,2] {1, 2, 3, 4, 5, 6}>()
      f = Less(i, one) h = Cast<to = 10>(x) k = Identity(i)
    }
  > }"""


@pytest.mark.parametrize("trips", [-1, 0, 1, 3])
def test_scan_outputs_have_their_type_and_shape_without_a_trip_too(trips: int) -> None:
    check(SCANNED, torch.tensor(trips), X)


@pytest.mark.parametrize("trips", [0, 2])
def test_scan_outputs_of_a_model_in_another_type(trips: int) -> None:
    """As the module is, not as the file was."""
    graph = """g (int64 m, float[2] x) => (float[N,2] y) <float[2] w = {1, 2}> { ...
      y = Loop (m, "") <body = body (int64 i, bool go) => (bool more, float[2] row) {
        more = Identity(go) row = Mul(x, w)
      }> }"""
    y = OnnxModule(parse(graph)).bfloat16()(torch.tensor(trips), torch.ones(2).bfloat16())
    assert (y.dtype, y.shape) == (torch.bfloat16, (trips, 2))


@pytest.mark.parametrize("trips", [0, 2])
def test_what_a_body_gives_keeps_its_type(trips: int) -> None:
    graph = """g (int64 m, uint32[2] x) => (uint32[2] y, uint32[N,2] z) { ...
      v, rows = Loop (m, "", x) <body = body (int64 i, bool go, uint32[2] v)
        => (bool more, uint32[2] w, uint32[2] row) {
          more = Identity(go) w = Add(v, v) row = Identity(v)
        }>
      y = Add(v, v) z = Mul(rows, rows) }"""
    check(graph, torch.tensor(trips), LARGE)


STRINGS = """g (int64 m, string[2] x) => (string y, string[N,2] z) { ...
  v, rows = Loop (m, "", x) <body = body (int64 i, bool go, string[2] v)
    => (bool more, string[2] w, string[2] row) {
      more = Identity(go) b = Gather(v, one) a = Gather(v, zero)
      bb = Unsqueeze(b, start) aa = Unsqueeze(a, start) start = Constant<value = int64[1] {0}>()
      w = Concat<axis = 0>(bb, aa) row = Identity(v)
    }>
  y = Gather(v, zero) z = Concat<axis = 0>(rows, rows) }"""


@pytest.mark.parametrize("trips", [0, 3])
def test_strings(trips: int) -> None:
    """Written out: onnxruntime loses all rows but the first."""
    y, z = OnnxModule(parse(STRINGS))(torch.tensor(trips), WORDS)
    turned = [["a", "b"], ["b", "a"], ["a", "b"]][:trips]
    assert (y.shape, y.item()) == ((), "b" if trips else "a")
    assert (z.shape, z.tolist()) == ((2 * trips, 2), turned * 2)


OPTIONAL = """g (int64 m, double[2] x) => (bool has, double[2] y) {
  nothing = Optional<type = double[2]>()
  last = Loop (m, "", nothing) <body = body (int64 i, bool go, optional(double[2]) v)
    => (bool more, optional(double[2]) w) {
      more = Identity(go) full = OptionalHasElement(v)
      t = If (full) <
        then_branch = a () => (double[2] r) { e = OptionalGetElement(v) r = Mul(e, x) },
        else_branch = b () => (double[2] r) { r = Identity(x) }
      >
      w = Optional(t)
    }
  >
  has = OptionalHasElement(last)
  y = If (has) <
    then_branch = c () => (double[2] r) { r = OptionalGetElement(last) },
    else_branch = d () => (double[2] r) { r = Neg(x) }
  > }"""

SEQUENCES = """g (seq(double[A,3]) s) => (double[K,3] y, seq(double[A,3]) turned) { ...
  n = SequenceLength(s) empty = SequenceEmpty<dtype = 11>()
  rest, turned = Loop (n, "", s, empty) <
    body = body (int64 i, bool go, seq(double[A,3]) v, seq(double[A,3]) u)
      => (bool more, seq(double[A,3]) w, seq(double[A,3]) t) {
        more = Identity(go) first = SequenceAt(v, zero) e = Sin(first)
        tail = SequenceErase(v, zero) w = SequenceInsert(tail, e) t = SequenceInsert(u, e, zero)
      }
  >
  y = ConcatFromSequence<axis = 0>(turned) }"""

MAP = """g (seq(double[A,3]) s, {kind} o) => (seq(double[A,3]) y, seq(int64[R]) shapes) {{
  y, shapes = SequenceMap (s, o) <body = body (double[A,3] u, double[A,3] w)
    => (double[A,3] v, int64[R] n) {{ v = Mul(u, w) n = Shape(v) }}
  > }}"""

PARTS = [drawn(2, 3).double(), drawn(1, 3).double(), drawn(4, 3).double()]


@pytest.mark.parametrize("trips", [0, 1, 3])
def test_a_loop_carries_optionals(trips: int) -> None:
    x = drawn(2).double()
    module = check(OPTIONAL, torch.tensor(trips), x)

    def through(x: Tensor) -> Any:
        return module(torch.tensor(trips), x)[1]

    assert torch.autograd.gradcheck(through, x.requires_grad_())


def assert_differentiable(module: OnnxModule, parts: list[Tensor], *others: Any) -> None:
    def through(*parts: Tensor) -> tuple[Tensor, ...]:
        first = module(list(parts), *others)[0]
        return tuple(first) if isinstance(first, list) else (first,)

    assert torch.autograd.gradcheck(through, [p.clone().requires_grad_() for p in parts])


def judged(graph: str, *inputs: Any) -> OnnxModule:
    """As `check`, where inputs are sequences."""
    model = parse(graph)
    module = OnnxModule(model)
    feeds = {
        name: [v.numpy() for v in value] if isinstance(value, list) else value.numpy()
        for name, value in zip(module.input_names, inputs, strict=True)
    }
    assert_same(list(module(*inputs)), onnxruntime_answers(model, feeds))
    return module


def test_a_loop_carries_several_sequences() -> None:
    assert_differentiable(judged(SEQUENCES, PARTS), PARTS)


def test_sequence_map() -> None:
    kinds: dict[str, Any] = {"double[B,3]": drawn(1, 3).double(), "seq(double[A,3])": PARTS[::-1]}
    for kind, other in kinds.items():
        parts = [p[:1] for p in PARTS] if kind.startswith("seq") else PARTS
        assert_differentiable(judged(MAP.format(kind=kind), parts, other), parts, other)


def test_sequence_map_over_nothing() -> None:
    graph = """g (float[2,3] x) => (int64 n, int64 k) { none = SequenceEmpty()
      y, z = SequenceMap (none, x) <body = body (float[A,B] u, float[A,B] w)
        => (float[A,B] v, float[A,B] t) { v = Mul(u, w) t = Add(u, w) }>
      n = SequenceLength(y) k = SequenceLength(z) }"""
    check(graph, drawn(2, 3))


SCAN = """g (float[3] s, float[A,B] x, float[C,D] z)
=> (float[3] last, float[M,N] r, float[K,L] q) {{
  last, r, q = Scan (s, x, z) <num_scan_inputs = 2,
    scan_input_axes = {axes}, scan_input_directions = {inward},
    scan_output_axes = {axes}, scan_output_directions = {outward},
    body = body (float[3] a, float[3] u, float[3] w) => (float[3] b, float[3] v, float[3] d) {{
      p = Mul(u, w) b = Add(a, p) v = Mul(b, u) d = Sub(b, w)
    }}
  > }}"""


VERSIONS = [(n, [0, 1]) for n in (9, 11, 16, 21)] + [(n, [-1, -2]) for n in (11, 16, 21)]


@pytest.mark.parametrize(("opset", "axes"), [*VERSIONS, (9, [1, 0])])
@pytest.mark.parametrize(("inward", "outward"), [([0, 0], [1, 0]), ([1, 0], [0, 1])])
def test_scan(opset: int, axes: list[int], inward: list[int], outward: list[int]) -> None:
    """Negative axes came with opset 11."""
    graph = SCAN.format(axes=axes, inward=inward, outward=outward)
    x, z = (drawn(4, 3) if axis in (0, -2) else drawn(4, 3).T.contiguous() for axis in axes)
    check(graph, X[0], x, z, opset=opset)


SCANS = {
    "inner axes": """g (float[2,3] s, float[2,5,3] x)
      => (float[2,3] last, float[A,B,C] r, float[D,E,F] q) {
      last, r, q = Scan (s, x) <num_scan_inputs = 1, scan_input_axes = [1],
        scan_output_axes = [-1, 2], scan_output_directions = [1, 0],
        body = body (float[2,3] a, float[2,3] u) => (float[2,3] b, float[2,3] v, float[2,3] w) {
          b = Add(a, u) v = Mul(b, u) w = Sub(b, u)
        }> }""",
    "no scan output": """g (float[2,3] s, float[5,2,3] x) => (float[2,3] last) {
      last = Scan (s, x) <num_scan_inputs = 1,
        body = body (float[2,3] a, float[2,3] u) => (float[2,3] b) { b = Mul(a, u) }> }""",
    "numbers": """g (int64 s, int64[5] x) => (int64 last, int64[N] r) { ...
      last, r = Scan (s, x) <num_scan_inputs = 1,
        body = body (int64 a, int64 u) => (int64 b, int64 v) { b = Add(a, three) v = Mul(u, b) }
      > }""",
}


def test_scan_along_inner_axes() -> None:
    check(SCANS["inner axes"], drawn(2, 3), drawn(2, 5, 3))


def test_scan_without_a_state_or_an_output() -> None:
    check(SCANS["no scan output"], drawn(2, 3), drawn(5, 2, 3))
    stateless = """g (float[5,3] x) => (float[N,3] r) { r = Scan (x) <num_scan_inputs = 1,
      body = body (float[3] u) => (float[3] v) { v = Mul(u, u) }> }"""
    check(stateless, drawn(5, 3))


def test_scan_of_numbers() -> None:
    check(SCANS["numbers"], torch.tensor(2), torch.arange(5))


def test_scan_over_nothing() -> None:
    """Written out: onnxruntime refuses it."""
    s = drawn(2, 3)
    last, r, q = OnnxModule(parse(SCANS["inner axes"]))(s, drawn(2, 0, 3))
    assert torch.equal(last, s)
    assert (r.shape, q.shape) == ((2, 3, 0), (2, 3, 0))


SCAN_8 = """g ({lens} float[B,3] s, float[B,T,3] x, float[B,T,3] z)
=> (float[B,3] last, float[B,T,3] y, float[B,T,3] q) {{
  last, y, q = Scan ({name}, s, x, z) <num_scan_inputs = 2, directions = {directions},
    body = body (float[3] a, float[3] u, float[3] w) => (float[3] b, float[3] row, float[3] k) {{
      b = Add (a, u) row = Mul (b, u) k = Sub (w, b)
    }}
  > }}"""


@pytest.mark.parametrize("lens", [None, [1, 4], [4, 4], [3, 1]])
@pytest.mark.parametrize("directions", [[0, 0], [0, 1], [1, 1]])
def test_scan_8(lens: list[int] | None, directions: list[int]) -> None:
    told = {"lens": "", "name": '""'} if lens is None else {"lens": "int64[B] n,", "name": "n"}
    graph = SCAN_8.format(**told, directions=directions)
    inputs = drawn(2, 3), drawn(2, 4, 3), drawn(2, 4, 3) + 1
    given = inputs if lens is None else (torch.tensor(lens), *inputs)
    check(graph, *given, opset=8)
    doubled = OnnxModule(parse(graph.replace("float[", "double["), 8))

    def through(*floating: Tensor) -> Any:
        return doubled(*given[:-3], *floating)

    assert torch.autograd.gradcheck(through, [x.double().requires_grad_() for x in inputs])


@pytest.mark.parametrize("length", [-1, 5])
def test_scan_8_refuses_a_length_that_is_none(length: int) -> None:
    graph = SCAN_8.format(lens="int64[B] n,", name="n", directions=[0, 0])
    with pytest.raises(NodeError) as error:
        OnnxModule(parse(graph, 8))(
            torch.tensor([2, length]), drawn(2, 3), drawn(2, 4, 3), drawn(2, 4, 3)
        )
    assert f"a sequence of {length} among inputs of length 4" in str(error.value.__cause__)


def test_bodies_three_deep_see_all_around_them() -> None:
    """Counters and states of outer loops, and a name that is used again at every level."""
    graph = """g (float[4,3] x) => (float[4,3] v, float[4,3] y) {{ ...
      a = Neg (x)
      {v} = Loop (three, "", x) <body = one_ (int64 i, bool go, float[4,3] v1)
        => (bool m1, float[4,3] {w1}) {{
          m1 = Identity (go) t = Mul (v1, a)
          {w1} = Loop (two, "", t) <body = two_ (int64 j, bool go2, float[4,3] v2)
            => (bool m2, float[4,3] {w2}) {{
              m2 = Identity (go2) ij = Add (i, j) f = Cast<to = 1>(ij) p = Mul (v2, f)
              {w2} = Loop (two, "", p) <body = three_ (int64 k, bool go3, float[4,3] v3)
                => (bool m3, float[4,3] {w3}) {{
                  m3 = Identity (go3) u = Add (v3, v1) ki = Add (k, i) g = Cast<to = 1>(ki)
                  {w3} = Sub (u, g)
                }}
              >
            }}
          >
        }}
      >
      y = Add ({v}, a) }}"""
    names = {"v": "v", "w1": "w1", "w2": "w2", "w3": "w3"}
    want = onnxruntime_answers(parse(graph.format(**names)), {"x": X.numpy()})
    check(graph.format(**names), X)
    again = graph.format(**dict.fromkeys(names, "v"))
    assert_same(list(OnnxModule(parse(again))(X)), want)
    doubled = OnnxModule(
        parse(graph.format(**names).replace("float[", "double[").replace("to = 1", "to = 11"))
    )
    assert torch.autograd.gradcheck(doubled, X.double().requires_grad_())


def test_a_loop_that_runs_zero_times_gives_empty_rows_of_the_declared_type() -> None:
    graph = """g (float[4,3] x, int64[R] shape) => (float[N,P,Q] rows, int64[N] ids) { ...
      rows, ids = Loop (zero, yes) <body = body (int64 i, bool go)
        => (bool more, float[P,Q] row, int64 id) {
          more = Identity (go)
          row = Reshape (x, shape)
          id = Identity (i)
        }
      >
    }"""
    rows, ids = OnnxModule(parse(graph))(X, torch.tensor([3, 4]))
    assert (rows.shape, rows.dtype) == ((0, 0, 0), torch.float32)
    assert (ids.shape, ids.dtype) == ((0,), torch.int64)
