"""What torch trains modules with works on an imported one as on the original."""

from __future__ import annotations

import copy
from functools import cache

import onnx
import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, jvp, vmap
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.checkpoint import checkpoint

from onnxinterp import OnnxModule
from tests.exports.case import Export
from tests.training.exporting import write


class Small(nn.Module):
    """Linear layers as the exporters write them: Gemm for rank 2, MatMul and Add for rank 3."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 8)
        self.norm = nn.LayerNorm(8)
        self.second = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(torch.tanh(self.norm(self.first(x))))


RANKS = {2: (5, 4), 3: (5, 6, 4)}
each_rank = pytest.mark.parametrize("rank", RANKS)


@cache
def written(rank: int) -> onnx.ModelProto:
    return write(original(), (torch.randn(RANKS[rank]),), Export("torchscript", 17))


def original() -> Small:
    torch.manual_seed(0)
    network = Small()
    nn.init.normal_(network.norm.weight)
    return network


def imported(rank: int = 2) -> OnnxModule:
    return OnnxModule(written(rank))


def batch(rank: int = 2) -> Tensor:
    return torch.randn(RANKS[rank], generator=torch.Generator().manual_seed(1))


def same_gradients(module: OnnxModule, network: nn.Module, rtol: float = 1e-4) -> None:
    for name, parameter in network.named_parameters():
        got, want = module.weights[name].grad, parameter.grad
        torch.testing.assert_close(got, want, rtol=rtol, atol=rtol / 10)


@each_rank
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_treats_layers_as_it_treats_linear(rank: int, dtype: torch.dtype) -> None:
    module, network, x = imported(rank), original(), batch(rank)
    with torch.autocast("cpu", dtype):
        got, want = module(x), network(x)
    assert got.dtype is want.dtype is dtype
    torch.testing.assert_close(got, want)
    got.float().square().sum().backward()
    want.float().square().sum().backward()
    same_gradients(module, network, rtol=1e-2)


@each_rank
def test_linear_layers_are_one_step(rank: int) -> None:
    """MatMul and the Add of its bias run as one function; asked for apart, they are apart."""
    module, x = imported(rank), batch(rank)
    steps = module.plan.steps
    assert len([s for s in steps if s.kernel.__name__ in ("linear", "gemm")]) == 2
    names = [o for n in module.onnx_graph.nodes for o in n.outputs]
    torch.testing.assert_close(OnnxModule(written(rank), outputs=names)(x)[-1], module(x))


def test_a_scaler_unscales_and_skips() -> None:
    module, network, x = imported(), original(), batch()
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    scaler.scale(module(x).sum()).backward()
    scaler.unscale_(optimizer)
    network(x).sum().backward()
    same_gradients(module, network)
    next(module.parameters()).grad.fill_(float("inf"))
    before = [p.detach().clone() for p in module.parameters()]
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    scaler = torch.amp.GradScaler("cpu")
    scaler.scale(module(x).sum()).backward()
    scaler.step(optimizer)
    scaler.update()
    assert all(torch.equal(p, b) for p, b in zip(module.parameters(), before, strict=True))


@pytest.mark.parametrize("reentrant", [True, False])
def test_activation_checkpointing(reentrant: bool) -> None:
    module, network, x = imported().train(), original(), batch().requires_grad_()
    checkpoint(module, x, use_reentrant=reentrant).square().sum().backward()
    network(x).square().sum().backward()
    same_gradients(module, network)


def test_gradients_accumulate() -> None:
    module, network, x = imported(), original(), batch()
    for half in (x[:2], x[2:]):
        module(half).square().sum().backward()
    network(x).square().sum().backward()
    same_gradients(module, network)


def test_functional_call_and_per_sample_gradients() -> None:
    module, network, x = imported(), original(), batch()
    module(x[:1])
    weights = {n: p.detach() for n, p in module.named_parameters()}

    def loss(weights: dict[str, Tensor], row: Tensor) -> Tensor:
        return functional_call(module, weights, (row[None],)).square().sum()

    for _ in range(3):  # the third run has plans for the shapes: made outside of transforms
        rows = vmap(grad(loss), in_dims=(None, 0))(weights, x)
        whole = grad(loss)(weights, x[0])
    torch.testing.assert_close(whole, {n: g[0] for n, g in rows.items()})
    network(x).square().sum().backward()
    for name, parameter in network.named_parameters():
        total = rows[name].sum(0)
        torch.testing.assert_close(total, parameter.grad, rtol=1e-4, atol=1e-5)
    doubled = {n: 2 * w for n, w in weights.items()}
    got = functional_call(module, doubled, (x,))
    torch.testing.assert_close(got, functional_call(network, doubled, (x,)))
    torch.testing.assert_close(module(x), network(x))


# torch's own jvp loads decompositions that it still writes with torch.jit.script
@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:FutureWarning")
def test_forward_mode() -> None:
    module, network, x, t = imported(), original(), batch(), torch.randn(RANKS[2])
    torch.testing.assert_close(jvp(module, (x,), (t,)), jvp(network, (x,), (t,)))


def test_averaged_weights() -> None:
    module, network, x = imported(), original(), batch()
    averages = [
        AveragedModel(m, multi_avg_fn=get_ema_multi_avg_fn(0.9), use_buffers=True)
        for m in (module, network)
    ]
    for _ in range(3):
        for trained, average in zip((module, network), averages, strict=True):
            optimizer = torch.optim.SGD(trained.parameters(), lr=0.05)
            trained(x).square().sum().backward()
            optimizer.step()
            optimizer.zero_grad()
            average.update_parameters(trained)
    torch.testing.assert_close(averages[0](x), averages[1](x))
    assert not torch.allclose(averages[0](x), module(x))


def test_a_copy_trains_by_itself() -> None:
    module, x = imported(), batch()
    twin, want = copy.deepcopy(module), module(x)
    twin(x).sum().backward()
    torch.optim.SGD(twin.parameters(), lr=1.0).step()
    torch.testing.assert_close(module(x), want)
    assert all(p.grad is None for p in module.parameters())
