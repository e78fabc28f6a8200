"""Programs: whatever tensors a caller gives and keeps, a call is what the loop computes.

A program runs from the fourth call of equal sizes on.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from onnxinterp import OnnxModule
from tests.models import parse
from tests.programs import (
    MLP,
    X,
    assert_same,
    both,
    compiled,
    flat,
    looped,
    runs,
    the_program,
    warm,
)

TWO = "g (float[n, m] x, float[n, m] w) => (float[n, m] y) { a = Sub(x, w) y = Mul(a, x) }"


@pytest.mark.parametrize("with_grad", [True, False])
def test_the_fourth_call_runs_a_program_that_the_third_made(with_grad: bool) -> None:
    module = OnnxModule(parse(MLP))
    with torch.set_grad_enabled(with_grad):
        module(X)
        assert compiled(module) == []
        module(X)
        assert compiled(module) == []
        module(X)
        made = the_program(module)
        assert runs(made, lambda: module(X)) == 1
        assert runs(made, lambda: module(torch.ones(3, 4))) == 0  # another size


# ---- inputs

GIVEN: dict[str, Callable[[], tuple[Tensor, Tensor]]] = {
    "one tensor twice": lambda: (a := torch.randn(4, 4), a),
    "views of one tensor": lambda: ((a := torch.randn(4, 8))[:, :4], a[:, 4:]),
    "expanded": lambda: (torch.randn(1, 4).expand(4, 4), torch.randn(4, 1).expand(4, 4)),
    "transposed": lambda: (torch.randn(4, 4).t(), torch.randn(4, 4).t()),
    "strided": lambda: (torch.randn(8, 8)[::2, 1::2], torch.randn(4, 4)),
    "for gradients": lambda: (torch.randn(4, 4, requires_grad=True), torch.randn(4, 4)),
    "parameters": lambda: (nn.Parameter(torch.randn(4, 4)), nn.Parameter(torch.randn(4, 4))),
    "overlapping": lambda: (torch.randn(8).unfold(0, 4, 1)[:4], torch.randn(4, 4)),
}


@pytest.mark.parametrize("recorded", GIVEN)
@pytest.mark.parametrize("then", GIVEN)
@pytest.mark.parametrize("with_grad", [True, False])
def test_tensors_of_any_kind_are_inputs(recorded: str, then: str, with_grad: bool) -> None:
    """What the program was recorded with says nothing of the next call."""
    with torch.set_grad_enabled(with_grad):
        module, loop = both(TWO, *GIVEN[recorded]())
        inputs = GIVEN[then]()
        before = [t.detach().clone() for t in inputs]
        made = the_program(module)
        results: list[Any] = []
        assert runs(made, lambda: results.append(module(*inputs))) == 1
        assert_same(results[0], loop(*inputs))
        assert_same(list(inputs), before)
        if with_grad and any(t.requires_grad for t in inputs):
            leaves = [t for t in inputs if t.requires_grad]
            got = torch.autograd.grad(results[0].sum(), leaves)
            assert_same(got, torch.autograd.grad(loop(*inputs).sum(), leaves))


@pytest.mark.parametrize("shape", [(0, 4), (4, 0), (1, 1), (0, 0)])
def test_empty_inputs(shape: tuple[int, int]) -> None:
    x = torch.ones(shape)
    module, loop = both(TWO, x, x)
    the_program(module)
    assert_same(module(x, x), loop(x, x))


def test_numbers_of_rank_0() -> None:
    text = "g (float x) => (float y, int64 n) { y = Sqrt(x) r = Ceil(y) n = Cast<to=7>(r) }"
    module, loop = both(text, torch.tensor(4.0))
    for value in (2.0, -1.0, float("inf"), -0.0):
        assert_same(module(torch.tensor(value)), loop(torch.tensor(value)))
    the_program(module)


def test_inputs_by_name_in_any_order() -> None:
    module, loop = both(TWO, X, X + 1)
    made = the_program(module)
    assert runs(made, lambda: assert_same(module(w=X + 1, x=X), loop(X, X + 1))) == 1


OPTIONAL = """g (float[n] x, float[n] a, float[n] b) => (float[n] y)
<float[2] a = {1, 2}, float[2] b = {3, 4}> { p = Mul(x, a) y = Sub(p, b) }"""


def test_optional_inputs_by_name_in_any_order() -> None:
    x, a, b = torch.tensor([[1.0, 2], [5, 7], [2, 9]])
    module, loop = OnnxModule(parse(OPTIONAL)), looped(OPTIONAL)
    for given in ({"a": a, "b": b}, {"b": b, "a": a}, {"b": b}, {"a": a}, {}, {"b": a, "a": b}):
        for _ in range(5):
            assert_same(module(x, **given), loop(x, **given))
        assert_same(module(**given, x=x), loop(x, **given))


def test_other_types() -> None:
    module, loop = both(MLP, X)
    for dtype in (torch.bfloat16, torch.float64, torch.float16, torch.float32):
        module.to(dtype)
        loop.to(dtype)
        for _ in range(5):
            assert_same(module(X.to(dtype)), loop(X.to(dtype)))
        assert compiled(module)[0] is not None


# ---- outputs

OUTPUTS = """g (float[n] x) => (float[n] x1, float[2] w1, float[2] c, float[n] y, float[n] y2)
<float[2] w = {1, 2}> { x1 = Identity(x) w1 = Identity(w) c = Constant<value = float[2] {3, 4}>()
  s = Add(x, w) y = Mul(s, c) y2 = Identity(y) }"""


@pytest.mark.parametrize("with_grad", [True, False])
def test_a_caller_may_write_to_outputs(with_grad: bool) -> None:
    x = torch.tensor([5.0, 6])
    module, loop = both(OUTPUTS, x)
    with torch.set_grad_enabled(with_grad):
        warm(module, x)
        want = [t.detach().clone() for t in loop(x)]
        for index in range(1, len(want)):
            outputs = module(x)
            assert_same(outputs, want)
            with torch.no_grad():
                outputs[index].add_(1)
            assert_same(module(x), want)
        assert x.tolist() == [5, 6]


CHAIN = f"""g (float[n] x) => (float[n] a, seq(float[n]) s, float[n] y)
{{ a = Neg(x) b = Exp(a) c = Abs(b) s = SequenceConstruct(a, b) d = Relu(a) e = Sqrt(d)
  {" ".join(f"t{i} = Relu({f't{i - 1}' if i else 'e'})" for i in range(5))} y = Add(t4, c) }}"""


def test_memory_that_is_used_again_is_never_that_of_a_result() -> None:
    """Also not where the result is an element of a sequence, or was of the call before."""
    module, loop = both(CHAIN, X.flatten())
    with torch.no_grad():
        warm(module, X.flatten())
        inputs = [torch.randn(8) for _ in range(4)]
        kept = [module(x) for x in inputs]
        for x, results in zip(inputs, kept, strict=True):
            assert_same(results, loop(x))
    assert "relu_" in compiled(module)[-1].source


PARTS = """g (float[4, n] x) => (float[4, n] y, float[4, n] r, float[4, n] z)
<float[4, 2] w = {1, 2, 3, 4, 5, 6, 7, 8}>
{ r = Relu(x) a, b = Split<axis = 0>(r) y = Concat<axis = 0>(a, b)
  c, d = Split<axis = 0>(w) z = Concat<axis = 0>(c, d) }"""


def test_what_is_put_together_again_is_a_copy() -> None:
    x = torch.ones(4, 2)
    with torch.no_grad():
        module, loop = both(PARTS.replace('"": 17', '"": 13'), x)
        want = loop(x)
        for output in module(x):
            output.add_(1)
        assert_same(module(x), want)


def test_a_caller_may_write_to_inputs_after_a_call() -> None:
    module, loop = both(
        "g (float[n] x) => (float[n] y, float[n] z) { y = Relu(x) z = Exp(y) }", X[0]
    )
    with torch.no_grad():
        x = X[0].clone()
        warm(module, x)
        got, want = module(x), loop(x.clone())
        x.fill_(9)
        assert_same(got, want)


def test_threads() -> None:
    """Two threads, each with data of its own, while programs are made and run."""
    loop = looped(CHAIN)
    module = OnnxModule(parse(CHAIN))
    wrong: list[Any] = []

    def work(seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        for number in range(150):
            x = torch.randn(64 + number // 30, generator=generator)
            with torch.set_grad_enabled(number % 2 == 0):
                got, want = module(x), loop(x)
            if not all(map(torch.equal, flat(got), flat(want))):
                wrong.append((seed, number))

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert any(made is not None for made in compiled(module))
