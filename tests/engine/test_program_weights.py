"""Programs read the weights at each call, whatever has become of them."""

from __future__ import annotations

import copy
import functools
import io
import pickle
from collections.abc import Callable
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize, prune
from torch.testing._internal.two_tensor import TwoTensor
from torch.utils.checkpoint import checkpoint

from onnxinterp import OnnxModule
from tests.models import parse
from tests.programs import (
    MLP,
    X,
    assert_same,
    both,
    home,
    looped,
    warm,
    weight_of,
)

SIZED = """g (float[n, 4] x) => (float[a, b] y)
<float[4, 6] w1 = {1, -2, 3, 4, 5, -6, 7, 8, 9, 1, 2, 3, 4, 5, 6, 7, -8, 9, 1, 2, 3, 4, 5, 6}>
{ h = MatMul(x, w1) s = Shape(h) z = ConstantOfShape(s) r = Reshape(h, s) y = Add(r, z) }"""


@pytest.mark.parametrize("with_grad", [True, False])
@pytest.mark.parametrize("how", ["functional_call", "data", "assign"])
def test_weights_of_another_size(how: str, with_grad: bool) -> None:
    """Sizes that a plan or a program takes for known depend on them."""
    with torch.set_grad_enabled(with_grad):
        module, loop = both(SIZED, X)
        other = torch.arange(12.0).reshape(4, 3)
        for net in (module, loop):
            warm(net, X)
        (name,) = dict(module.named_parameters())
        if how == "functional_call":
            got, want = (torch.func.functional_call(m, {name: other}, (X,)) for m in (module, loop))
        else:
            for net in (module, loop):
                if how == "data":
                    next(net.parameters()).data = other
                else:
                    level, attribute = home(net)
                    setattr(level, attribute, nn.Parameter(other))
            got, want = module(X), loop(X)
        assert got.shape == want.shape == (2, 3)
        assert_same(got, want)


def test_weights_of_another_type() -> None:
    module, loop = both(
        "g (float[n] x) => (float[n] y) <float[2] w = {1, 2}> { y = Mul(x, w) }", X[0, :2]
    )
    (name,) = dict(module.named_parameters())
    other = {name: torch.tensor([1.5, 2], dtype=torch.float64)}
    for net in (module, loop):
        got = torch.func.functional_call(net, other, (X[0, :2].double(),))
        assert got.dtype is torch.float64


class Logged(Tensor):
    """A tensor whose class sees the functions that it is an argument of."""

    seen: ClassVar[list[str]] = []

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        cls.seen.append(func.__name__)
        return super().__torch_function__(func, types, args, kwargs or {})


CLASSES: dict[str, Callable[[Tensor], Tensor]] = {
    "of two tensors": lambda w: TwoTensor(w, w.clone()),
    "that sees functions": lambda w: w.as_subclass(Logged),
}


@pytest.mark.parametrize("kind", CLASSES)
@pytest.mark.parametrize("with_grad", [True, False])
@pytest.mark.parametrize("calls_before", [0, 4])
def test_weights_of_another_class(kind: str, with_grad: bool, calls_before: int) -> None:
    """Tools put tensors there that have no memory, or that see each function."""
    module, loop = OnnxModule(parse(MLP)), looped(MLP)
    with torch.set_grad_enabled(with_grad):
        for _ in range(calls_before):
            module(X)
        for net in (module, loop):
            level, name = home(net)
            weight = CLASSES[kind](weight_of(net).detach())
            del level._parameters[name]
            level.register_parameter(name, nn.Parameter(weight))
        for _ in range(6):
            counts = []
            for net in (module, loop):
                Logged.seen.clear()
                result = net(X)
                counts.append([n for n in Logged.seen if n in ("relu", "linear", "addmm")])
            assert type(result) is type(module(X))
            assert counts[0] == counts[1]
            got, want = module(X), loop(X)
            if isinstance(want, TwoTensor):
                got, want = got.a, want.a
            assert_same(got.as_subclass(Tensor), want.as_subclass(Tensor))


# ---- weights that change

CHANGES: dict[str, Callable[[OnnxModule], Any]] = {
    "data": lambda m: setattr(weight_of(m), "data", weight_of(m).data * 2),
    "data in place": lambda m: weight_of(m).data.mul_(2),
    "a new parameter": lambda m: setattr(*home(m), nn.Parameter(weight_of(m).detach() * 2)),
    "swap": lambda m: torch.utils.swap_tensors(
        weight_of(m), nn.Parameter(weight_of(m).detach() * 2)
    ),
    "load": lambda m: m.load_state_dict({k: v * 2 for k, v in m.state_dict().items()}),
    "assign": lambda m: m.load_state_dict(
        {k: v * 2 for k, v in m.state_dict().items()}, assign=True
    ),
    "parametrization": lambda m: parametrize.register_parametrization(*home(m), Doubled()),
    "weight norm": lambda m: parametrizations.weight_norm(*home(m)),
    "pruning": lambda m: prune.l1_unstructured(*home(m), amount=0.5),
    "lora": lambda m: (m.add_lora("*", rank=2), adapted(m)),
    "double and back": lambda m: (m.double(), weight_of(m).data.mul_(2), m.float()),
    "requires_grad": lambda m: (m.requires_grad_(False), weight_of(m).data.mul_(2)),
    "refresh": lambda m: (weight_of(m).data.mul_(2), m.refresh()),
    "modes": lambda m: (m.train(), m(X), m.eval(), weight_of(m).data.mul_(2)),
    "sgd": lambda m: step(m, torch.optim.SGD),
    "adam": lambda m: step(m, torch.optim.Adam),
    "fused adam": lambda m: step(m, functools.partial(torch.optim.Adam, fused=True)),
}


class Doubled(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * 2


def adapted(module: OnnxModule) -> None:
    torch.manual_seed(0)
    for name, p in module.named_parameters():
        if "lora" in name.lower():
            nn.init.normal_(p)


def step(module: OnnxModule, optimizer: Any) -> None:
    with torch.enable_grad():
        chosen = optimizer(module.parameters(), lr=0.1)
        module(X).sum().backward()
        chosen.step()


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("with_grad", [True, False])
def test_weights_may_change_after_the_program_was_made(change: str, with_grad: bool) -> None:
    module, loop = both(MLP, X)
    with torch.set_grad_enabled(with_grad):
        before = warm(module, X)
        for net in (module, loop):
            CHANGES[change](net)
        want = loop(X)
        assert not torch.equal(before, want) or change == "weight norm"
        for _ in range(5):
            assert_same(module(X), want)


def test_pruning_that_ends() -> None:
    module, loop = both(MLP, X)
    for net in (module, loop):
        prune.l1_unstructured(*home(net), amount=0.5)
        warm(net, X)
        prune.remove(*home_of_pruned(net))
        warm(net, X)
        weight_of(net).data.add_(1)
    assert_same(module(X), loop(X))


def home_of_pruned(module: OnnxModule) -> tuple[nn.Module, str]:
    return next(
        (level, name.removesuffix("_orig"))
        for level in module.modules()
        for name in level._parameters
        if name.endswith("_orig")
    )


TIED = """g (float[n, 2] x) => (float[n, 2] y)
<float[2, 2] a = {1, 2, 3, 4}, float[2, 2] b = {1, 2, 3, 4}>
{ h = MatMul(x, a) t = Transpose(b) y = MatMul(h, t) }"""


def test_one_parameter_under_two_names_that_are_untied_later() -> None:
    module, loop = OnnxModule(parse(TIED)), looped(TIED)
    x = torch.eye(2)
    for net in (module, loop):
        first, second = next(iter(net.named_parameters())), list(net.weights)
        assert len(second) == 2
        shared = nn.Parameter(first[1].detach().clone())
        places = [
            (net.get_submodule(".".join(n.split(".")[:-1])), n.split(".")[-1])
            for n, _ in net.named_parameters(remove_duplicate=False)
        ]
        for level, name in places:
            setattr(level, name, shared)
        warm(net, x)
        setattr(*places[-1], nn.Parameter(torch.tensor([[5.0, 6], [7, 8]])))
    assert_same(module(x), loop(x))
    with torch.no_grad():
        assert_same(warm(module, x), loop(x))


def test_gradients_are_those_of_the_loop() -> None:
    module, loop = both(MLP, X)
    for toggled in (True, False, True):
        for net in (module, loop):
            net.zero_grad()
            weight_of(net).requires_grad_(toggled)
            x = X.clone().requires_grad_()
            net(x).square().sum().backward()
        got = [p.grad for p in module.parameters()]
        want = [p.grad for p in loop.parameters()]
        assert_same(got, want)


def test_copies_have_their_own_weights() -> None:
    module = both(MLP, X)[0]
    want = module(X)
    copies = [copy.deepcopy(module), pickle.loads(pickle.dumps(module)), copy.copy(module)]
    buffer = io.BytesIO()
    torch.save(module, buffer)
    buffer.seek(0)
    copies.append(torch.load(buffer, weights_only=False))
    for other in copies:
        assert_same(warm(other, X), want)
    weight_of(copies[0]).data.zero_()
    assert_same(module(X), want)
    assert not torch.equal(warm(copies[0], X), want)


@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad:UserWarning")
def test_gradient_checkpoints(reentrant: bool) -> None:
    module, loop = OnnxModule(parse(SIZED)), looped(SIZED)
    for _ in range(6):
        for net in (module, loop):
            net.zero_grad()
            x = X.clone().requires_grad_()
            checkpoint(net, x, use_reentrant=reentrant).square().sum().backward()
        assert_same([p.grad for p in module.parameters()], [p.grad for p in loop.parameters()])
