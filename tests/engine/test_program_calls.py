"""Programs: what is around a call, watches it or ends it, does what it does around the loop."""

from __future__ import annotations

import functools
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from onnxinterp import Limits, NodeError, OnnxModule
from onnxinterp.errors import InputError
from onnxinterp.registry import lookup
from onnxinterp.runtime.interpreter import Interpreter
from tests.models import parse
from tests.programs import (
    MLP,
    X,
    assert_same,
    both,
    compiled,
    home,
    looped,
    the_program,
    warm,
    weight_of,
)

# ---- what is around a call


def test_inference_mode() -> None:
    """What was made in it serves calls outside, and the other way round."""
    for modes in ((torch.inference_mode, torch.no_grad), (torch.no_grad, torch.inference_mode)):
        module, loop = OnnxModule(parse(MLP)), looped(MLP)
        for mode in (*modes, torch.enable_grad, *modes):
            with mode():
                assert_same(warm(module, X), loop(X))
        module(X).sum().backward()
        assert weight_of(module).grad is not None


@pytest.mark.filterwarnings("ignore:.*CPU Autocast:UserWarning")
def test_autocast_between_calls() -> None:
    module, loop = both(MLP, X)
    for enabled in (True, False, True, False):
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            assert_same(module(X), loop(X))


@pytest.mark.filterwarnings("ignore:`torch.jit.script:FutureWarning")  # torch's own, for jvp
def test_transforms_of_torch_func() -> None:
    module, loop = both(MLP, X)
    weights = {name: p.detach() for name, p in module.named_parameters()}

    def loss(net: OnnxModule, w: dict[str, Tensor], x: Tensor) -> Tensor:
        return torch.func.functional_call(net, w, (x,)).square().sum()

    got = torch.func.grad(functools.partial(loss, module))(weights, X)
    assert_same(
        list(got.values()),
        list(torch.func.grad(functools.partial(loss, loop))(weights, X).values()),
    )
    batch = torch.randn(5, 2, 4)
    assert_same(torch.func.vmap(module)(batch), torch.func.vmap(loop)(batch))
    per_sample = torch.func.vmap(torch.func.grad(functools.partial(loss, module)), (None, 0))
    of_loop = torch.func.vmap(torch.func.grad(functools.partial(loss, loop)), (None, 0))
    assert_same(list(per_sample(weights, batch).values()), list(of_loop(weights, batch).values()))
    got = torch.func.jvp(module, (X,), (X + 1,))
    assert_same(got, torch.func.jvp(loop, (X,), (X + 1,)))
    assert_same(module(X), loop(X))


@pytest.mark.filterwarnings("ignore:`torch.jit.script:FutureWarning")  # as above
@pytest.mark.parametrize("with_grad", [True, False])
def test_forward_mode(with_grad: bool) -> None:
    """Dual tensors are plain tensors to Python."""
    module, loop = both(MLP, X)
    with torch.set_grad_enabled(with_grad):
        warm(module, X)
        with torch.autograd.forward_ad.dual_level():
            dual = torch.autograd.forward_ad.make_dual(X, X + 1)
            got = torch.autograd.forward_ad.unpack_dual(module(dual))
            want = torch.autograd.forward_ad.unpack_dual(loop(dual))
        assert_same(list(got), list(want))


# ---- what watches steps


def test_what_shows_the_inside_still_does() -> None:
    module, loop = both(MLP, X)
    seen: list[Any] = []
    captured, of_loop = module.capture("r"), loop.capture("r")
    for _ in range(5):
        assert_same(captured(X)["r"], of_loop(X)["r"])
    assert module.summary(X).rows == loop.summary(X).rows
    level, _ = home(module)
    if level is not module:
        hook = level.register_forward_hook(lambda *args: seen.append(args))
        module(X)
        assert len(seen) == 1
        hook.remove()
    assert_same(module(X), loop(X))


class Counting(Interpreter):
    def __init__(self) -> None:
        self.ran = 0

    def run_step(self, step: Any, frame: Any) -> Any:
        self.ran += 1
        return super().run_step(step, frame)


def test_an_interpreter_of_the_user_runs_each_step() -> None:
    module, _ = both(MLP, X)
    module.interpreter = Counting()
    module(X)
    assert module.interpreter.ran == len(module.plan.steps)


def test_a_method_that_is_replaced_in_the_interpreter_runs() -> None:
    module, _ = both(MLP, X)
    ran = []
    run_step = module.interpreter.run_step
    module.interpreter.run_step = lambda *args: (ran.append(1), run_step(*args))[1]
    module(X)
    assert len(ran) == len(module.plan.steps)


def test_kernels_of_the_user_run_once_in_each_call() -> None:
    """Also one that calls itself a kernel of this library, and one whose size is another."""
    relu, calls = lookup("Relu", 14).function, []

    @functools.wraps(relu)
    def logged(x: Tensor) -> Tensor:
        calls.append("relu")
        return relu(x)

    def positive(x: Tensor) -> Tensor:
        calls.append("positive")
        return x[x > 0]

    text = """<ir_version: 8, opset_import: ["": 17, "c": 1]> g (float[n] x) => (float[m] y)
    { z = c.Positive(x) y = Relu(z) }"""
    module = OnnxModule(parse(text), kernels={"Relu": logged, "c::Positive": positive})
    for number in range(10):
        calls.clear()
        assert module(X[0] - 0.1 * number).tolist() == [
            v for v in (X[0] - 0.1 * number).tolist() if v > 0
        ]
        assert calls == ["positive", "relu"]


BODY = """<ir_version: 8, opset_import: ["": 17, "c": 1]> g (bool c, float[n] x) => (float[n] y)
{ y = If (c) <then_branch = t () => (float[n] a) { a = c.Mine(x) },
              else_branch = e () => (float[n] b) { b = Neg(x) }> }"""


def test_kernels_of_the_user_in_a_body_run_once_in_each_call() -> None:
    calls = []

    def mine(x: Tensor) -> Tensor:
        calls.append(1)
        return x + 1

    module = OnnxModule(parse(BODY), kernels={"c::Mine": mine})
    for number in range(8):
        calls.clear()
        module(torch.tensor(number % 3 != 1), X[0])
        assert len(calls) == (number % 3 != 1)


def test_limits_are_those_of_the_loop() -> None:
    module = OnnxModule(parse(MLP), limits=Limits(steps=100))
    warm(module, X)
    assert compiled(module) == []


def test_modes_see_the_calls() -> None:
    module, loop = both(MLP, X)
    flops = []
    for net in (module, loop):
        with FlopCounterMode(display=False) as counter:
            net(X)
        flops.append(counter.get_total_flops())
    assert flops[0] == flops[1] > 0

    class Seen(torch.overrides.TorchFunctionMode):
        names: ClassVar[list[str]] = []

        def __torch_function__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            self.names.append(func.__name__)
            return func(*args, **(kwargs or {}))

    seen = []
    for net in (module, loop):
        Seen.names = []
        with Seen():
            net(X)
        seen.append([n for n in Seen.names if n in ("matmul", "linear", "relu", "add", "addmm")])
    assert seen[0] == seen[1]
    assert "relu" in seen[0]


def test_a_profile_has_the_functions() -> None:
    module, loop = both(MLP, X)
    counts = []
    for net in (module, loop):
        with torch.profiler.profile() as profile:
            net(X)
        counts.append(
            {e.key: e.count for e in profile.key_averages() if e.key.startswith("aten::relu")}
        )
    assert counts[0] == counts[1]


# ---- errors


def test_an_error_is_that_of_the_loop() -> None:
    """Also that of a node in a body, and one that no function of torch raises."""
    models = [
        (
            "g (float[n] x, int64[m] i) => (float[m] y) { y = Gather(x, i) }",
            torch.tensor([0]),
            torch.tensor([99]),
        ),
        (
            "g (float[4] x, int64[m] i) => (float[m] y) { y = Reshape(x, i) }",
            torch.tensor([4]),
            torch.tensor([3]),
        ),
        (
            "g (float[n] x, int64 k) => (float[m] y) { o = Constant<value = int64 {1}>() "
            "r = Range(k, k, o) f = Cast<to=1>(r) y = Concat<axis=0>(f, x) }",
            torch.tensor(1),
            torch.tensor(2),
        ),
    ]
    for text, right, wrong in models:
        module, loop = both(text, X[0], right)
        for _ in range(7):
            assert outcome(module, X[0], wrong) == outcome(loop, X[0], wrong)
        assert_same(module(X[0], right), loop(X[0], right))


def outcome(module: OnnxModule, *inputs: Any) -> str:
    try:
        return repr(module(*inputs))
    except (NodeError, InputError) as error:
        return f"{type(error).__name__}: {error}"


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_an_interruption_passes(error: type[BaseException]) -> None:
    module, loop = both(MLP, X)
    made = the_program(module)
    function = made.function

    def interrupted(*_: Any) -> Any:
        raise error

    made.function = interrupted
    with pytest.raises(error):
        module(X)
    made.function = function
    assert_same(module(X), loop(X))


def test_what_torch_ends_a_call_with_passes() -> None:
    module, _ = both(MLP, X)

    class _Stop(Exception):  # noqa: N818  # named as those of torch are
        __module__ = "torch.utils.checkpoint"

    def stopped(*_: Any) -> Any:
        raise _Stop

    the_program(module).function = stopped
    with pytest.raises(_Stop):
        module(X)
