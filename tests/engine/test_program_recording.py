"""Programs and data: where a kernel looks at data, other data lead to what the loop computes.

The kernels here count as kernels of the library, which alone become programs.
"""

from __future__ import annotations

from collections.abc import Callable
from types import FunctionType
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812  # as torch's own documentation calls it

from onnxinterp import OnnxModule
from onnxinterp.programs import MAX_DEVIATIONS, tape
from onnxinterp.runtime.steps import StepCall
from onnxinterp.values import Subgraph
from tests.models import parse
from tests.programs import assert_same, compiled, looped, the_program, warm

HEADER = '<ir_version: 8, opset_import: ["": 17, "c": 1]>'


def own(function: Callable[..., Any]) -> Any:
    """The function as if it were written in the library."""
    variables = {**function.__globals__, "__name__": "onnxinterp.ops.of_a_test"}
    copied = FunctionType(
        function.__code__, variables, function.__name__, function.__defaults__, function.__closure__
    )
    copied.__annotations__, copied.__kwdefaults__ = (
        function.__annotations__,
        function.__kwdefaults__,
    )
    return copied


def pair(text: str, kernel: Callable[..., Any]) -> tuple[OnnxModule, OnnxModule]:
    kernels = {"c::Op": own(kernel)}
    return OnnxModule(parse(HEADER + text), kernels=kernels), looped(HEADER + text, kernels=kernels)


SIZES_OF_DATA: dict[str, tuple[Callable[[Tensor, Tensor], Tensor], list[int], list[int]]] = {
    "x[:n]": (lambda x, n: x[: n[0]], [2, 0], [1, 0]),
    "x[n:]": (lambda x, n: x[n[0] :], [2, 0], [1, 0]),
    "x[mask]": (lambda x, n: x[:2][n > 0], [2, 0], [1, 1]),
    "masked_select": (lambda x, n: x[:2].masked_select(n > 0), [2, 0], [1, 1]),
    "nonzero": (lambda x, n: n.nonzero() * x[0], [2, 0], [1, 1]),
    "argwhere": (lambda x, n: torch.argwhere(n) * x[0], [2, 0], [1, 1]),
    "where": (lambda x, n: torch.where(n)[0] * x[0], [2, 0], [1, 1]),
    "unique": (lambda x, n: torch.unique(n) * x[0], [2, 2], [1, 2]),
    "unique_consecutive": (lambda x, n: torch.unique_consecutive(n) * x[0], [2, 2], [1, 2]),
    "bincount": (lambda x, n: torch.bincount(n) * x[0], [2, 2], [1, 3]),
    "one_hot": (lambda x, n: F.one_hot(n) * x[0], [2, 2], [1, 3]),
    "repeat_interleave": (lambda x, n: x[:2].repeat_interleave(n), [2, 2], [1, 2]),
    "tensor_split": (lambda x, n: torch.tensor_split(x, n)[1], [1, 2], [0, 3]),
    "arange": (lambda x, n: torch.arange(n[0]) * x[0], [2, 2], [1, 2]),
    "zeros": (lambda x, n: torch.zeros(n[0]) + x[0], [2, 2], [1, 2]),
    "full": (lambda x, n: torch.full((n[0], 2), 3.0) * x[0], [2, 2], [1, 2]),
    "new_zeros": (lambda x, n: x.new_zeros(n[0]) + x[0], [2, 2], [1, 2]),
    "topk": (lambda x, n: x.topk(n[0]).values, [2, 2], [1, 2]),
    "narrow": (lambda x, n: x.narrow(0, n[0], 1), [2, 2], [1, 2]),
    "expand": (lambda x, n: x[:1].expand(n[0]), [2, 2], [1, 2]),
    "repeat": (lambda x, n: x.repeat(n[0]), [2, 2], [1, 2]),
    "tolist": (lambda x, n: x[: n.tolist()[0]], [2, 2], [1, 2]),
    "item": (lambda x, n: x * n[0].item(), [2, 2], [1, 2]),
    "bool": (lambda x, n: x * 2 if n[0] == 2 else x, [2, 2], [1, 2]),
    "numpy": (lambda x, n: x * 2 if n.numpy()[0] == 2 else x, [2, 2], [1, 2]),
    "format": (lambda x, n: x * len(f"{n[0]}"), [2, 2], [13, 2]),
    "iteration": (lambda x, n: x[: sum(int(i) for i in n)], [2, 1], [1, 1]),
    "equal": (lambda x, n: x * 2 if torch.equal(n, n.flip(0)) else x, [2, 2], [1, 2]),
    "pad": (lambda x, n: F.pad(x, (n[0], 0)), [2, 2], [1, 2]),
    "view": (lambda x, n: x.view(n[0], -1), [2, 2], [1, 2]),
}


@pytest.mark.parametrize("how", SIZES_OF_DATA)
@pytest.mark.parametrize("with_grad", [True, False])
def test_sizes_and_branches_that_depend_on_data(how: str, with_grad: bool) -> None:
    kernel, first, second = SIZES_OF_DATA[how]

    def named(x: Tensor, n: Tensor) -> Tensor:
        return kernel(x, n)

    text = """g (float[k] x, int64[2] n) => (float[m] y, int64[r] size)
    { a = c.Op(x, n) b = Cast<to = 1>(a) e = Exp(b) y = Relu(e) size = Shape(b) }"""
    module, loop = pair(text, named)
    x = torch.linspace(0, 1, 4)
    with torch.set_grad_enabled(with_grad):
        warm(module, x, torch.tensor(first))
        for _ in range(2):
            for data in (first, second):
                assert_same(module(x, torch.tensor(data)), loop(x, torch.tensor(data)))


def test_after_some_deviations_the_loop_runs_alone() -> None:
    text = "g (float[k] x, int64[2] n) => (float[m] y) { y = c.Op(x, n) }"

    def kernel(x: Tensor, n: Tensor) -> Tensor:
        return x[: n[0]]

    module, loop = pair(text, kernel)
    x = torch.ones(4)
    warm(module, x, torch.tensor([2, 2]))
    for _ in range(MAX_DEVIATIONS + 2):
        assert_same(module(x, torch.tensor([1, 1])), loop(x, torch.tensor([1, 1])))
    assert compiled(module) == [None]


NUMBER = "g (float[k] x, float[1] n) => (float[m] y) { y = c.Op(x, n) }"


def divide(x: Tensor, n: Tensor) -> Tensor:
    return x / n.tolist()[0]


@pytest.mark.parametrize("first", [0.0, -0.0, float("nan"), 1.0, float("inf")])
@pytest.mark.parametrize("second", [0.0, -0.0, float("nan"), 1.0, float("inf")])
def test_numbers_that_are_read_are_told_apart_by_their_bits(first: float, second: float) -> None:
    module, loop = pair(NUMBER, divide)
    x = torch.ones(4)
    warm(module, x, torch.tensor([first]))
    assert the_program(module).deviations == 0
    assert_same(module(x, torch.tensor([second])), loop(x, torch.tensor([second])))
    made = compiled(module)[0]
    assert made is not None
    assert made.deviations == (repr(first) != repr(second))


def test_a_property_that_was_none_may_be_something() -> None:
    def kernel(x: Tensor, n: Tensor) -> Tensor:
        return x + n if x.grad_fn is None else x * 100

    module, loop = pair(NUMBER, kernel)
    x, n = torch.ones(4), torch.ones(1)
    warm(module, x, n)
    other = x.clone().requires_grad_() * 1
    assert_same(module(other, n), loop(other, n))


SHARED = """g (float[k, l] x) => (float[k, l] y, float[k, l] z)
{ r = Relu(x) a = c.Op(r) e = Exp(a) y = Add(e, r) z = Sub(r, e) }"""


def from_numpy(x: Tensor) -> Tensor:
    return x if x.numpy().sum() > 3 else x * 2


def shuffled(x: Tensor) -> Tensor:
    return F.pixel_shuffle(x[None, None], 1)[0, 0]


def dense(x: Tensor) -> Tensor:
    return x.contiguous()


def reshaped(x: Tensor) -> Tensor:
    return x.reshape(-1).view(x.shape)


def joined(x: Tensor) -> Tensor:
    return torch.einsum("ij->ij", x)


@pytest.mark.parametrize("kernel", [from_numpy, shuffled, dense, reshaped, joined])
@pytest.mark.parametrize("recorded", ["dense", "transposed"])
def test_a_function_may_return_its_argument_in_one_call_and_not_in_another(
    kernel: Callable[[Tensor], Tensor], recorded: str
) -> None:
    module, loop = pair(SHARED, kernel)
    given = {"dense": torch.ones(2, 2), "transposed": torch.tensor([[0.1, 0.2], [0.3, 0.4]]).t()}
    with torch.no_grad():
        warm(module, given[recorded])
        for x in given.values():
            assert_same(module(x), loop(x))
        for x in given.values():
            other = x.clone(memory_format=torch.preserve_format) - 0.05
            assert_same(module(other), loop(other))


def test_results_that_share_memory_with_each_other() -> None:
    def kernel(x: Tensor) -> tuple[Tensor, Tensor]:
        both = torch.stack([x, x * 2])
        return both[0], both[0]

    text = """g (float[k] x) => (float[k] y, float[k] z)
    { a, b = c.Op(x) e = Exp(a) y = Add(e, b) z = Neg(b) }"""
    module, loop = pair(text, kernel)
    with torch.no_grad():
        warm(module, torch.ones(4))
        assert_same(module(torch.ones(4)), loop(torch.ones(4)))


def test_a_failure_around_a_body_is_not_forgotten_in_it() -> None:
    """A kernel that reads data in a way that cannot be recorded, and runs a body after that."""

    def kernel(x: Tensor, *, body: Subgraph) -> Tensor:
        large = bool(x.numpy().sum() > 3)
        (y,) = body()
        return y * 2 if large else y + 1

    text = """g (float[k] x) => (float[k] y)
    { y = c.Op(x) <body = inner () => (float[k] b) { a = Neg(x) b = Exp(a) }> }"""
    module, loop = pair(text, kernel)
    warm(module, torch.ones(4))
    assert any(isinstance(c.function, StepCall) for c in the_program(module).program.calls)
    assert_same(module(torch.zeros(4)), loop(torch.zeros(4)))


def test_a_setting_of_torch_that_a_kernel_changes() -> None:
    def kernel(x: Tensor) -> Tensor:
        with torch.no_grad():
            y = x * 3
        return y + x

    module, loop = pair("g (float[k] x) => (float[k] y) { y = c.Op(x) }", kernel)
    x = torch.ones(4, requires_grad=True)
    warm(module, x)
    got, want = (torch.autograd.grad(net(x).sum(), x) for net in (module, loop))
    assert_same(got, want)


# ---- control flow

IF = """g (float[n] x) => (float[n] y)
{ t = ReduceSum<keepdims = 0>(x) zero = Constant<value = float {0}>() c = Greater(t, zero)
  y = If (c) <then_branch = a () => (float[n] p) { p = Exp(x) },
              else_branch = b () => (float[n] q) { r = Neg(x) q = Exp(r) }> }"""
LOOP = """g (int64 trips, float[n] x) => (float[n] y, float[k, n] all)
{ yes = Constant<value = bool {1}>()
  y, all = Loop (trips, yes, x) <body = b (int64 i, bool c, float[n] s)
    => (bool c2, float[n] s2, float[n] o) { c2 = Identity(c) s2 = Add(s, x) o = Mul(s, s2) }> }"""
WHILE = """g (float limit, float[n] x) => (float[n] y)
{ none = Constant<value = int64 {9}>() yes = Constant<value = bool {1}>()
  y = Loop (none, yes, x) <body = b (int64 i, bool c, float[n] s) => (bool c2, float[n] s2)
    { s2 = Add(s, x) t = ReduceSum<keepdims = 0>(s2) c2 = Less(t, limit) }> }"""
SCAN = """g (float[n] s, float[k, n] x) => (float[n] y, float[k, n] all)
{ y, all = Scan <num_scan_inputs = 1, body = b (float[n] a, float[n] e) => (float[n] a2, float[n] o)
    { a2 = Add(a, e) o = Mul(a2, e) }> (s, x) }"""
X = torch.tensor([1.0, 2])
FLOWS = {
    "if": (IF, [(X,), (-X,)]),
    "loop": (LOOP, [(torch.tensor(n), X) for n in (3, 1, 0, 5)]),
    "while": (WHILE, [(torch.tensor(limit), X) for limit in (7.0, 1.0, 20.0)]),
    "scan": (SCAN, [(X, torch.stack([X, X + i])) for i in range(3)]),
}


@pytest.mark.parametrize("flow", FLOWS)
@pytest.mark.parametrize("with_grad", [True, False])
def test_control_flow_that_changes_between_calls(flow: str, with_grad: bool) -> None:
    text, calls = FLOWS[flow]
    for first in calls:
        module, loop = OnnxModule(parse(text)), looped(text)
        with torch.set_grad_enabled(with_grad):
            warm(module, *first)
            assert compiled(module)[0] is not None
            for _ in range(2):
                for inputs in calls:
                    assert_same(module(*inputs), loop(*inputs))


def test_a_loop_of_many_trips_is_not_recorded_to_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tape, "MAX_CALLS", 50)
    module, loop = OnnxModule(parse(LOOP)), looped(LOOP)
    for _ in range(5):
        assert_same(module(torch.tensor(200), X), loop(torch.tensor(200), X))
    assert compiled(module) == [None]


# ---- random numbers

DRAWN = """g (float[n] x) => (float[n] y, float[k, m] z)
{ r = RandomNormalLike(x) u = RandomUniformLike<seed = 3.0>(x) s = Add(r, u) y = Add(x, s)
  nz = NonZero(x) z = Cast<to = 1>(nz) }"""


@pytest.mark.parametrize("with_grad", [True, False])
def test_random_numbers_are_those_of_the_loop(with_grad: bool) -> None:
    """Also in the call whose data lead elsewhere, after numbers were drawn, and in the next."""
    module, loop = OnnxModule(parse(DRAWN)), looped(DRAWN)
    results = []
    with torch.set_grad_enabled(with_grad):
        for net in (module, loop):
            torch.manual_seed(0)
            results.append([net(torch.ones(4)) for _ in range(5)])
            results[-1] += [net(torch.tensor([1.0, 0, 1, 1])), net(torch.ones(4))]
    assert_same(*results)
    assert compiled(module)[0] is not None


def test_dropout_in_training() -> None:
    text = "g (float[n] x) => (float[n] y) { r, m = Dropout(x) y = Relu(r) }"
    results = []
    for net in (OnnxModule(parse(text)).train(), looped(text).train()):
        torch.manual_seed(0)
        results.append([net(torch.ones(50)) for _ in range(6)])
        net.eval()
        results[-1] += [net(torch.ones(50)) for _ in range(5)]
    assert_same(*results)
    assert not torch.equal(results[0][4], results[0][5])
