"""Tensor parallelism: linear layers are split in pairs, by columns and by rows."""

from __future__ import annotations

from typing import Any

import onnx
import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - the name by which torch's users know it
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

from onnxinterp import OnnxModule
from onnxinterp.training.parallel import tensor_parallel_plan
from tests.distributed.network import DEPTH, EXPORTERS, batch, exported, original, train
from tests.distributed.ranks import RANKS, Together
from tests.exporting import export

Styles = dict[str, str]
MLP = {"mlp.fc1": "ColwiseParallel", "mlp.fc2": "RowwiseParallel"}
ATTENTION = {
    "attention.q": "ColwiseParallel",
    "attention.k": "ColwiseParallel",
    "attention.v": "ColwiseParallel",
    "attention.o": "RowwiseParallel",
}
each_exporter = pytest.mark.parametrize("exporter", EXPORTERS)
each_heads = pytest.mark.parametrize("heads", ["fixed number", "fixed width"])


def styles(module: OnnxModule, *example: Tensor, ranks: int = RANKS) -> Styles:
    plan = tensor_parallel_plan(module, example, ranks)
    return {path: type(style).__name__ for path, style in plan.items()}


def by_block(*pairs: Styles) -> Styles:
    return {
        f"blocks.{place}.{name}": style
        for place in range(DEPTH)
        for pair in pairs
        for name, style in pair.items()
    }


@each_exporter
@each_heads
def test_attention_is_split_where_heads_have_a_fixed_width(exporter: str, heads: str) -> None:
    """The MLP always is; a fixed number of heads in the file is that of one device."""
    module = OnnxModule(exported(exporter, heads=heads), leaves="nn")
    want = by_block(ATTENTION, MLP) if heads == "fixed width" else by_block(MLP)
    assert styles(module, batch()[0]) == want


@each_exporter
def test_nothing_is_split_unevenly(exporter: str) -> None:
    module = OnnxModule(exported(exporter, heads="fixed width"), leaves="nn")
    assert styles(module, batch()[0], ranks=8) == by_block(MLP), "there are four heads"
    assert styles(module, batch()[0], ranks=3) == {}


def parallel(rank: int, exporter: str, heads: str) -> tuple[list[float], float]:
    """The losses, and the part of the elements of the split layers that this rank has."""
    module = OnnxModule(exported(exporter, heads=heads), leaves="nn")
    plan = tensor_parallel_plan(module, batch()[:1], RANKS)
    parallelize_module(module, init_device_mesh("cpu", (RANKS,)), plan, src_data_rank=None)
    weights = [level.weight for level in module.modules() if isinstance(level, nn.Linear)]
    split = [weight for weight in weights if isinstance(weight, DTensor)]
    assert len(split) == len(plan)
    here, whole = (sum(w.numel() for w in ws) for ws in ([w.to_local() for w in split], split))
    return train(module), here / whole


@pytest.mark.parametrize(
    ("exporter", "heads"), [("dynamo", "fixed width"), ("torchscript", "fixed number")]
)
def test_losses_are_those_of_one_process(exporter: str, heads: str, together: Together) -> None:
    want = train(original(heads=heads))
    for losses, part in together(parallel, exporter, heads):
        assert part == 1 / RANKS
        torch.testing.assert_close(losses, want, rtol=2e-6, atol=2e-6)


class Pair(nn.Module):
    """Two linear layers and what is between them."""

    def __init__(self, between: str) -> None:
        super().__init__()
        self.between = between
        self.first, self.last = nn.Linear(4, 8), nn.Linear(8, 4)
        self.register_buffer("shift", torch.arange(8.0))

    def forward(self, x: Tensor) -> Any:
        y = self.first(x)
        match self.between:
            case "elements":
                return self.last(torch.tanh(y) * 2 + 1)
            case "nothing":
                return self.last(y)
            case "a constant of each column":
                return self.last(y + self.shift)
            case "a sum over columns":
                return self.last(F.softmax(y, -1))
            case "columns in another order":
                return self.last(y.flip(-1))
            case "another reader":
                return self.last(F.relu(y)) + y.sum(-1, keepdim=True)
            case _:
                return self.last(F.relu(y)), y


VALID = {"elements", "nothing"}
BETWEEN = [
    *sorted(VALID), "a constant of each column", "a sum over columns", "columns in another order",
    "another reader", "an output",
]  # fmt: skip


@pytest.mark.parametrize("between", BETWEEN)
def test_what_may_be_between_two_layers(between: str) -> None:
    torch.manual_seed(0)
    x = torch.randn(3, 5, 4)
    model: onnx.ModelProto = export(Pair(between).eval(), (x,), dynamo=True, optimize=False)
    plan = tensor_parallel_plan(OnnxModule(model, leaves="nn"), (x,), RANKS)
    if between not in VALID:
        assert plan == {}
    else:
        assert isinstance(plan["first"], ColwiseParallel)
        assert isinstance(plan["last"], RowwiseParallel)


def test_what_is_refused() -> None:
    with pytest.raises(ValueError, match=r'must have layers of type nn\.Linear \(leaves="nn"\)'):
        tensor_parallel_plan(OnnxModule(exported()), batch()[:1], 2)
    with pytest.raises(ValueError, match="ranks must be positive, got 0"):
        tensor_parallel_plan(OnnxModule(exported(), leaves="nn"), batch()[:1], 0)
