"""A call that would exceed a limit is refused before it does; any other call is unchanged."""

from __future__ import annotations

import copy
import pickle
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx.backend.test.case.node import collect_testcases
from torch import Tensor

from onnxinterp import Limits, OnnxModule
from onnxinterp.backend import to_torch
from onnxinterp.cli import main
from onnxinterp.errors import InputError, InvalidModelError, NodeError, UnsafeModelError
from onnxinterp.runtime import costs
from tests.engine import bombs
from tests.engine.bombs import BOMBS, SMALL, TIGHT, TINY
from tests.untrusted.calls.running import Cases

HEAD = '<ir_version: 10, opset_import: ["" : 20, "own" : 1]> g '
ENDLESS = """(float[2] x) => (float[2] y) { t = Constant <value = bool {1}> ()
    y = Loop (, t, x) <body = b (int64 i, bool c, float[2] v) => (bool d, float[2] w)
    { d = Identity (c) w = Sin (v) }> }"""
GROWS = {"Concat in a Loop": 170, "rows of a Loop": 170}  # MB: trip by trip, up to live_bytes


def module(text: str, **options: Any) -> OnnxModule:
    return OnnxModule(onnx.parser.parse_model(HEAD + text), **options)


@pytest.fixture(scope="module")
def refusals() -> dict[str, str]:
    return Cases("tests.engine.bombs").results(BOMBS)


@pytest.mark.parametrize("name", BOMBS)
def test_bombs_raise_before_memory_grows(name: str, refusals: dict[str, str]) -> None:
    answer, megabytes = refusals[name].rsplit(" ", 1)
    assert answer == "refused"
    assert int(megabytes) < GROWS.get(name, 64)


@pytest.mark.parametrize("name", BOMBS)
def test_the_same_graphs_pass_where_they_are_small(name: str) -> None:
    """A negative control; and what passes within larger limits raises within smaller ones."""
    within, free = (bombs.call(BOMBS[name], SMALL, limits) for limits in (TIGHT, Limits()))
    if name != "RandomNormalLike":
        np.testing.assert_array_equal(np.asarray(within), np.asarray(free))
    with pytest.raises(UnsafeModelError, match=r"node .*limits\.(tensor|live)_bytes"):
        bombs.call(BOMBS[name], 500, TINY)


@pytest.mark.parametrize(
    ("limits", "word"),
    [
        (Limits(loop_trips=100), "loop_trips"),
        (Limits(steps=100), "steps"),
        (Limits(seconds=0.2), "seconds"),
        (Limits(), "loop_trips"),
    ],
    ids=str,
)
def test_an_endless_loop_ends(limits: Limits, word: str) -> None:
    if limits == Limits():
        limits = Limits(loop_trips=10_000)  # a million takes a minute
    before = time.monotonic()
    with pytest.raises(UnsafeModelError, match=rf"node .*limits\.{word}"):
        module(ENDLESS, limits=limits)(torch.ones(2))
    assert time.monotonic() - before < 10


def test_trips_are_counted_each_time_a_loop_runs() -> None:
    twice = """(float[2] x) => (float[2] y) { n = Constant <value = int64 {60}> ()
        a = Loop (n, , x) <body = b (int64 i, bool c, float[2] v) => (bool c, float[2] w)
        { w = Sin (v) }>
        y = Loop (n, , a) <body = e (int64 j, bool c2, float[2] u) => (bool c2, float[2] z)
        { z = Sin (u) }> }"""
    module(twice, limits=Limits(loop_trips=60))(torch.ones(2))
    with pytest.raises(UnsafeModelError, match=r"\(Loop\) runs its body"):
        module(twice, limits=Limits(loop_trips=59))(torch.ones(2))


def test_a_product_that_cannot_end_in_time_does_not_begin() -> None:
    m = module(
        "(float[n, n] x) => (float[n, n] y) { y = MatMul (x, x) }", limits=Limits(seconds=1.0)
    )
    assert m(torch.ones(8, 8)).shape == (8, 8)
    before = time.monotonic()
    with pytest.raises(UnsafeModelError, match=r"takes at least .* of limits\.seconds"):
        m(torch.ones(1, 1).expand(40_000, 40_000))
    assert time.monotonic() - before < 1


def test_an_output_that_nobody_can_copy_raises() -> None:
    """Expand makes a view: it is small, and its copy is not."""
    text = """(float[1] x, int64[1] n) => (float[m] y, float[1] s)
        { y = Expand (x, n) s = ReduceMax (y) }"""
    m = module(text, limits=Limits(tensor_bytes=4000))
    assert m(torch.ones(1), torch.tensor([1000]))[0].shape == (1000,)
    with pytest.raises(UnsafeModelError, match=r"output 'y' has 4,004 bytes; limits\.tensor_bytes"):
        m(torch.ones(1), torch.tensor([1001]))


def test_an_element_of_an_output_that_nobody_can_copy_raises() -> None:
    text = """(float[1] x, int64[1] n) => (seq(float[m]) y)
        { z = Expand (x, n) y = SequenceConstruct (x, z) }"""
    m = module(text, limits=Limits(tensor_bytes=4000))
    assert len(m(torch.ones(1), torch.tensor([1000]))) == 2
    with pytest.raises(UnsafeModelError, match="output 'y' has 4,004 bytes"):
        m(torch.ones(1), torch.tensor([1001]))


def test_a_view_within_a_call_may_have_any_logical_size() -> None:
    text = """(float[1] x, int64[1] n) => (float[2] y)
        { z = Expand (x, n) a = Constant <value = int64[1] {0}> ()
        b = Constant <value = int64[1] {2}> () y = Slice (z, a, b) }"""
    m = module(text, limits=Limits(tensor_bytes=4000))
    assert m(torch.ones(1), torch.tensor([10**15])).tolist() == [1, 1]


def test_freed_memory_does_not_count() -> None:
    steps = " ".join(f"a{i + 1} = Sin (a{i})" for i in range(50))
    text = f"(float[n] a0) => (float[n] a50) {{ {steps} }}"
    limits = Limits(live_bytes=3_000_000)
    module(text, limits=limits)(torch.ones(250_000))  # 50 of a megabyte each, two at a time
    with pytest.raises(UnsafeModelError, match="that live"):
        module(text, limits=limits)(torch.ones(250_000, requires_grad=True))  # kept for a gradient


def test_each_thread_has_its_own_budget() -> None:
    steps = " ".join(f"a{i + 1} = Sin (a{i})" for i in range(60))
    limits = Limits(steps=60, live_bytes=1_300_000)
    m = module(f"(float[n] a0) => (float[n] a60) {{ {steps} }}", limits=limits)
    x = torch.ones(100_000)
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: m(x), range(64)))
    assert all(torch.equal(a, answers[0]) for a in answers)
    assert not torch.utils._python_dispatch._get_current_dispatch_mode_stack()


def test_capture_is_not_watched_and_has_the_same_results() -> None:
    text = "(float[n, 4] x) => (float[n, 4] y) { a = Softmax (x) b = Shape (a) y = Reshape (a, b) }"
    m = module(text, limits=Limits.untrusted())
    x = torch.randn(3, 4)
    compiled = torch.compile(m, fullgraph=True, backend="eager")
    exported = torch.export.export(m, (x,), strict=False).module()
    for run in (compiled, exported):
        torch.testing.assert_close(run(x), m(x))


def test_gradients_and_copies_are_the_same_as_without_limits() -> None:
    w = "<float[4, 4] w = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}>"
    text = f"(float[n, 4] x) => (float[n, 4] y) {w} {{ a = MatMul (x, w) y = Tanh (a) }}"
    free, held = (module(text, limits=limits) for limits in (Limits(), Limits.untrusted()))
    copies = [free, held, copy.deepcopy(held), pickle.loads(pickle.dumps(held))]
    x = torch.randn(2, 4)
    for m in copies:
        m(x).sum().backward()
    assert all(torch.equal(m.weights["w"].grad, free.weights["w"].grad) for m in copies)
    assert copies[-1].limits == Limits.untrusted()


BY_VALUES = {"aten.nonzero.default", "aten.index.Tensor", "aten._unique2.default"}
BY_VALUES |= {"aten.unique_dim.default"}  # the most that values can need, by formula


def test_onnx_cases_have_the_same_results_with_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    """And the formula of each function that makes tensors returns what torch's meta run does."""
    without_formula: set[str] = set()
    wrong: dict[str, Any] = {}
    formula_cost = costs.formula_cost

    def compared(function: Any, *rest: Any) -> costs.Cost | None:
        cost = formula_cost(function, *rest)
        exact = costs.meta_cost(function, *rest)
        name = str(function)
        if cost is None:
            without_formula.add(name)
        elif costs.makes_tensors(function) and name not in BY_VALUES and cost[:2] != exact[:2]:
            wrong[name] = cost, exact
        return cost

    monkeypatch.setattr(costs, "formula_cost", compared)
    costs._cache.clear()
    differing, count = [], 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # numpy's, of ONNX's own inputs
        cases = [c for c in collect_testcases(None) if not c.name.endswith("_expanded")]
    for case in cases:
        answers = [_answer(case, limits) for limits in (Limits(), Limits.untrusted())]
        count += answers[0] is not None
        if not _same(*answers):
            differing.append(case.name)
    assert count > 700
    assert differing == []
    assert wrong == {}
    assert without_formula == set()


def _answer(case: Any, limits: Limits) -> Any:
    """None where this library does not run the case: tests/backend/cases.txt lists these."""
    torch.manual_seed(0)
    try:
        m = OnnxModule(case.model.SerializeToString(), limits=limits)
        feeds = case.data_sets[0][0]
        return m(*[[*map(to_torch, x)] if isinstance(x, list) else to_torch(x) for x in feeds])
    except UnsafeModelError:
        raise
    except Exception:
        return None


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, (tuple, list)):
        return len(a) == len(b) and all(map(_same, a, b))
    if isinstance(a, Tensor):
        return torch.equal(torch.isnan(a), torch.isnan(b)) and bool((a == b)[~a.isnan()].all())
    return bool(np.all(a == b))


def test_constant_folding_has_limits_of_its_own() -> None:
    """A file with a huge computed constant loads; its node raises when it runs."""
    text = """(float[1] x) => (float[n] y) { n = Constant <value = int64[1] {40000000000}> ()
        z = ConstantOfShape (n) y = Neg (z) }"""
    m = module(text, limits=Limits(tensor_bytes=2**20))
    with pytest.raises(UnsafeModelError, match=r"Neg.*limits\.tensor_bytes"):
        m(torch.ones(1))
    assert module(text).onnx_graph.nodes  # loaded, and nothing was computed


def test_any_exception_of_a_kernel_names_the_node() -> None:
    errors: list[Callable[[], BaseException]] = [
        lambda: np._core._exceptions._ArrayMemoryError((2**60,), np.dtype("f4")),  # type: ignore[attr-defined]
        lambda: RecursionError("deep"),
        lambda: MemoryError(),
        lambda: AssertionError("no"),
        lambda: StopIteration(),
        lambda: torch.OutOfMemoryError("full"),
    ]
    for error in errors:

        def own(x: Tensor, error: Any = error) -> Tensor:
            raise error()

        m = module(
            "(float[1] x) => (float[1] y) { y = own.Own (x) }", kernels={"own::Own": _of_one(own)}
        )
        with pytest.raises(NodeError, match="Own"):
            m(torch.ones(1))


def _of_one(function: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    def kernel(x: Tensor) -> Tensor:
        return function(x)

    return kernel


def test_a_kernel_that_compiles_runs_in_limits() -> None:
    compiled = torch.compile(lambda x: x.sin() + 1, backend="eager")

    def own(x: Tensor) -> Tensor:
        answer: Tensor = compiled(x)
        return answer

    text = "(float[1] x) => (float[1] y) { y = own.Own (x) }"
    m = module(text, kernels={"own::Own": own}, limits=Limits.untrusted())
    torch.testing.assert_close(m(torch.ones(1)), torch.ones(1).sin() + 1)


@pytest.mark.parametrize(
    "x", [None, 3, "x", np.ones(2), [1.0, 2.0], torch.ones(2, dtype=torch.int8), {}, object()]
)
def test_odd_inputs_are_input_errors(x: Any) -> None:
    with pytest.raises(InputError):
        module("(float[2] x) => (float[2] y) { y = Neg (x) }")(x)


def test_an_invalid_attribute_names_the_node() -> None:
    text = 'y = Conv <auto_pad = "EVIL"> (x, x)'
    with pytest.raises(InvalidModelError, match="auto_pad is 'EVIL', not one of"):
        module(f"(float[1, 1, 2] x) => (float[1, 1, 1] y) {{ {text} }}")


@pytest.mark.parametrize(
    "node",
    [
        "ReduceMin <keepdims = 4> (x)",
        "ArgMax <select_last_index = -1> (x)",
        "Cast <to = 1, saturate = 256> (x)",
        "AveragePool <kernel_shape = [1], ceil_mode = 2> (x)",
        "CumSum <reverse = 9223372036854775807> (x, x)",
    ],
)
def test_a_flag_must_be_0_or_1(node: str) -> None:
    """Runtimes differ in whether it counts as set."""
    with pytest.raises(InvalidModelError, match=r"not one of \[0, 1\]"):
        module(f"(float[1, 1, 2] x) => (y) {{ y = {node} }}")


@pytest.mark.parametrize("results", [(), (1,), None])
def test_fewer_results_than_outputs_are_a_node_error(results: tuple[int, ...] | None) -> None:
    def own(x: Tensor) -> Any:
        return x if results is None else results

    m = module("(float[2] x) => (float[2] a) { b, a = own.Own (x) }", kernels={"own::Own": own})
    with pytest.raises(NodeError, match="the kernel must return 2 outputs, got"):
        m(torch.ones(2))


def test_verify_checks_the_limits_before_onnxruntime_runs(tmp_path: Any, capsys: Any) -> None:
    path = tmp_path / "bomb.onnx"
    text = """(float[1] x) => (float[n] y) { n = Constant <value = int64[1] {4000000000}> ()
        z = Expand (x, n) y = Neg (z) }"""
    onnx.save(onnx.parser.parse_model(HEAD + text), path)
    assert main(["verify", str(path), "--untrusted"]) == 2
    assert "limits.tensor_bytes" in capsys.readouterr().err
