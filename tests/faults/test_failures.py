"""A module answers as before after a call that failed, was interrupted, or was tampered with."""

from __future__ import annotations

import re
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from onnxinterp import InputError, Interpreter, NodeError, OnnxModule
from onnxinterp.runtime.interpreter import Frame
from onnxinterp.runtime.plan import Step
from tests.faults.models import MODELS, call_of
from tests.saving.models import parse

HUGE = """<ir_version: 8, opset_import: ["": 17]> g (float[1] x, int64 k) => (float[n] y) {
    size = Unsqueeze(k, zero)
    zero = Constant<value_ints = [0]>()
    many = ConstantOfShape(size)
    y = Sub(x, many)
}"""


class Failing(Interpreter):
    """Raises in the last step of a call."""

    def __init__(self, error: BaseException) -> None:
        self.error: BaseException | None = error

    def run_step(self, step: Step, frame: Frame) -> Any:
        if "y" in step.outputs and self.error is not None:
            raise self.error
        return super().run_step(step, frame)


@pytest.mark.parametrize("name", ["sizes", "overridden", "strings", "network"])
@pytest.mark.parametrize(
    ("error", "comes_out_as"),
    [
        (KeyboardInterrupt(), KeyboardInterrupt),
        (SystemExit(3), SystemExit),
        (MemoryError("no more"), NodeError),
        (torch.OutOfMemoryError("no more"), NodeError),
        (RecursionError("too deep"), NodeError),
        (StopIteration("at the end"), NodeError),
        (GeneratorExit("at the end"), GeneratorExit),
        (OSError("unplugged"), NodeError),
    ],
)
def test_an_error_in_the_midst_of_a_call(
    error: BaseException, comes_out_as: type[BaseException], name: str
) -> None:
    module = OnnxModule(MODELS[name])
    calls = [call_of(name, i % 3) for i in range(9)]
    want = [OnnxModule(MODELS[name])(*args, **keywords) for args, keywords in calls]
    for i, (args, keywords) in enumerate(calls):
        module.interpreter = Failing(error)
        with pytest.raises(comes_out_as) as caught:
            module(*args, **keywords)
        if comes_out_as is NodeError:
            assert caught.value.__cause__ is error
        module.interpreter = Interpreter()
        got = module(*args, **keywords)
        same = torch.equal if isinstance(got, Tensor) else lambda a, b: str(a) == str(b)
        assert same(got, want[i])


def test_memory_that_is_not_there() -> None:
    """No allocator gives an exabyte; the module goes on."""
    module = OnnxModule(parse(HUGE))
    for _ in range(3):
        with pytest.raises(NodeError, match="Sub") as caught:
            module(torch.ones(1), torch.tensor(2**58))
        assert isinstance(caught.value.__cause__, (RuntimeError, MemoryError))
        assert module(torch.ones(1), torch.tensor(3)).tolist() == [1, 1, 1]


def test_an_interrupt_from_the_keyboard() -> None:
    """A long loop is left at once; nothing of it remains."""
    module = OnnxModule(MODELS["loop"])
    x = torch.ones(2, 3)
    want = module(x, torch.tensor(3))
    interrupt = threading.Timer(0.1, signal.raise_signal, (signal.SIGINT,))
    interrupt.start()
    start = time.perf_counter()
    with pytest.raises(KeyboardInterrupt):
        module(x, torch.tensor(900_000))
    assert time.perf_counter() - start < 30
    interrupt.join()
    assert all(map(torch.equal, module(x, torch.tensor(3)), want))


HOOKS: dict[str, Callable[[OnnxModule, Callable[..., None]], Any]] = {
    "before": lambda module, hook: module.register_forward_pre_hook(hook),
    "after": lambda module, hook: module.register_forward_hook(hook),
    "backward": lambda module, hook: module.register_full_backward_hook(hook),
    "gradient": lambda module, hook: module.weights["fc_w"].register_hook(hook),
}


@pytest.mark.parametrize("kind", HOOKS)
def test_hooks_of_the_user_that_fail(kind: str) -> None:
    """Their error comes as it is; afterwards all is well."""
    module = OnnxModule(MODELS["network"])
    x = torch.randn(2, 3, 5, 5, requires_grad=True)

    def gradients() -> list[Tensor]:
        return list(torch.autograd.grad(module(x).square().sum(), [x, *module.parameters()]))

    def hook(*_: object) -> None:
        raise ZeroDivisionError("of the user")

    want = gradients()
    handle = HOOKS[kind](module, hook)
    for _ in range(3):
        with pytest.raises(ZeroDivisionError, match="of the user"):
            gradients()
    handle.remove()
    assert all(map(torch.equal, gradients(), want))


def test_a_training_step_that_fails_may_be_tried_again() -> None:
    """Statistics move with the step that ran, weights and their gradients not at all."""
    module, x = OnnxModule(MODELS["network"]).train(), torch.randn(2, 3, 5, 5)
    weights = {n: p.detach().clone() for n, p in module.named_parameters()}
    module.interpreter = Failing(MemoryError())
    with pytest.raises(NodeError):
        module(x)
    assert all(p.grad is None and torch.equal(p, weights[n]) for n, p in module.named_parameters())
    module.interpreter = Interpreter()
    module(x).sum().backward()
    assert all(p.grad is not None for p in module.parameters())


def test_wrong_inputs_between_right_ones() -> None:
    module = OnnxModule(MODELS["network"])
    x = torch.randn(2, 3, 5, 5)
    want = module(x)
    for wrong in ((), (x, x), (x.long(),), (x[0],), (x[:, :2],), (None,), ("x",)):
        with pytest.raises((InputError, NodeError)):
            module(*wrong)
        assert torch.equal(module(x), want)


CHANGES: dict[str, Callable[[OnnxModule, Tensor], object]] = {
    "a weight": lambda module, _: module.weights["fc_w"].add_(1),
    "a kernel": lambda module, _: module.weights["conv_w"].mul_(2),
    "an optimizer's step": lambda module, _: torch.optim.SGD(module.parameters(), 1.0).step(),
    "a loaded state": lambda module, _: module.load_state_dict(module.state_dict()),
    "the input": lambda _, x: x.zero_(),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("fuse", [True, False])
def test_what_was_changed_before_the_backward_is_told(change: str, fuse: bool) -> None:
    """Gradients of values that are no longer there are torch's error, never other gradients."""
    module = OnnxModule(MODELS["network"], fuse=fuse)
    for p in module.parameters():
        p.grad = torch.ones_like(p)
    x = torch.randn(2, 3, 5, 5)
    x.requires_grad_(change != "the input")
    loss = module(x).square().sum()
    loss.backward(retain_graph=True)
    with torch.no_grad():
        CHANGES[change](module, x)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()
    module(x).square().sum().backward()


def test_a_graph_serves_once_unless_it_is_kept() -> None:
    module, x = OnnxModule(MODELS["network"]), torch.randn(2, 3, 5, 5)
    loss = module(x).square().sum()
    loss.backward(retain_graph=True)
    loss.backward()
    with pytest.raises(RuntimeError, match="a second time"):
        loss.backward()


class Meddling(Interpreter):
    """Somebody else, a thread say, writes to the input between two steps."""

    def run_step(self, step: Step, frame: Frame) -> Any:
        result = super().run_step(step, frame)
        if step.node.op_type in ("Conv", "Mul"):
            with torch.no_grad():
                next(v for n, v in frame.values.items() if n == "x").zero_()
        return result


@pytest.mark.parametrize("name", ["network", "overridden"])
def test_an_input_changed_during_the_call(name: str) -> None:
    """Later steps see it, as in torch; the next call is not touched, the gradient is an error."""
    module = OnnxModule(MODELS[name])
    args, _ = call_of(name, 1)
    before = args[0].clone()
    want = module(before.clone())
    module.interpreter = Meddling()
    if name == "network":
        answer = module(args[0])
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            answer.sum().backward()
    module.interpreter = Interpreter()
    assert torch.equal(module(before), want)


def test_no_message_depends_on_what_failed_before() -> None:
    module = OnnxModule(parse(HUGE))
    texts = set()
    for _ in range(3):
        with pytest.raises(NodeError) as caught:
            module(torch.ones(1), torch.tensor(2**58))
        texts.add(re.sub(r"0x[0-9a-f]+", "", str(caught.value)))
    assert len(texts) == 1
