"""What an imported network keeps for backward is not more than what the original keeps."""

from __future__ import annotations

import weakref
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - the name by which torch's users know it
from torch import Tensor, nn
from torch.autograd.graph import save_on_cpu, saved_tensors_hooks
from torch.func import functional_call, grad
from torch.utils.checkpoint import checkpoint

from onnxinterp import OnnxModule
from tests.exporting import export
from tests.exports.case import Export
from tests.training.exporting import write
from tests.training.networks import ENCODER, TAGGER, VIT

MOST = 1.02  # times the bytes of the original: indices that may be negative are copied


class MaskedLayer(nn.Module):
    """A post-norm transformer block over torch's own attention with a padding mask."""

    def __init__(self, width: int = 32, heads: int = 4) -> None:
        super().__init__()
        self.heads, self.scale = heads, (width // heads) ** -0.5
        self.query, self.key = nn.Linear(width, width), nn.Linear(width, width)
        self.value, self.output = nn.Linear(width, width), nn.Linear(width, width)
        self.first, self.second = nn.LayerNorm(width), nn.LayerNorm(width)
        self.wide, self.narrow = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        batch, length, width = x.shape
        heads = (batch, length, self.heads, width // self.heads)
        parts = (self.query(x), self.key(x), self.value(x))
        q, k, v = (p.view(heads).transpose(1, 2) for p in parts)
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=self.scale)
        x = self.first(x + self.output(mixed.transpose(1, 2).reshape(x.shape)))
        return self.second(x + self.narrow(F.gelu(self.wide(x))))


class Bert(nn.Module):
    """Two such blocks, of words, and the rest of BERT."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(97, 32)
        self.norm = nn.LayerNorm(32)
        self.layers = nn.ModuleList([MaskedLayer(), MaskedLayer()])
        self.pooler = nn.Linear(32, 32)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        seen = (mask > 0)[:, None, None, :].expand(-1, 1, ids.shape[1], -1)
        x = self.norm(self.words(ids))
        for layer in self.layers:
            x = layer(x, seen)
        return torch.tanh(self.pooler(x[:, 0]))


class Recurrent(nn.Module):
    """Two layers of an LSTM or a GRU over words."""

    def __init__(self, layer: Callable[..., nn.Module], both: bool) -> None:
        super().__init__()
        self.words = nn.Embedding(97, 16)
        self.layer = layer(16, 16, 2, batch_first=True, bidirectional=both)
        self.head = nn.Linear(32 if both else 16, 5)

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.layer(self.words(ids))[0])


def transformer(norm_first: bool) -> nn.Module:
    layer = nn.TransformerEncoderLayer(
        32, 4, 64, dropout=0.0, activation="gelu", batch_first=True, norm_first=norm_first
    )
    return nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)


def ids(batch: int = 4, length: int = 16) -> Tensor:
    return torch.randint(97, (batch, length), generator=torch.Generator().manual_seed(0))


def padded() -> tuple[Tensor, Tensor]:
    return ids(), (torch.arange(16) < torch.tensor([[9], [16], [4], [12]])).long()


NETWORKS: dict[str, tuple[Callable[[], nn.Module], Callable[[], tuple[Tensor, ...]]]] = {
    "vit": (VIT.original, lambda: VIT.batch(0)[0]),
    "encoder": (ENCODER.original, lambda: ENCODER.batch(0)[0]),
    "tagger": (TAGGER.original, lambda: TAGGER.batch(0)[0]),
    "bert": (Bert, padded),
    "transformer": (lambda: transformer(False), lambda: (torch.randn(2, 17, 32),)),
    "transformer, norm first": (lambda: transformer(True), lambda: (torch.randn(2, 17, 32),)),
    "lstm": (lambda: Recurrent(nn.LSTM, False), lambda: (ids(),)),
    "gru": (lambda: Recurrent(nn.GRU, True), lambda: (ids(),)),
}


def saved_bytes(module: nn.Module, inputs: tuple[Tensor, ...]) -> int:
    """The bytes saved for backward, each storage once; parameters and inputs are there anyway."""
    there = (*module.parameters(), *module.buffers(), *inputs)
    kept: dict[int, Tensor] = {}
    known = {t.untyped_storage()._cdata for t in there}

    def pack(tensor: Tensor) -> Tensor:
        if tensor.untyped_storage()._cdata not in known:
            kept[tensor.untyped_storage()._cdata] = tensor
        return tensor

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        result = module(*inputs)
    assert result.requires_grad
    return sum(t.untyped_storage().nbytes() for t in kept.values())


EXPORTS = (
    *((name, Export("torchscript", 14)) for name in NETWORKS),
    *((name, Export("torchscript", 17)) for name in ("bert", "transformer", "tagger")),
    *((name, Export("dynamo", 18)) for name in ("bert", "transformer", "lstm")),
    ("bert", Export("dynamo", 23)),
)


@pytest.mark.parametrize("name", ["bert", "transformer", "vit"])
def test_activations_of_an_optimized_export_are_not_kept_twice(name: str) -> None:
    """As torch exports by default: constants have become initializers."""
    torch.manual_seed(0)
    make, draw = NETWORKS[name]
    network, inputs = make(), draw()
    how = Export("dynamo", 18)
    module = OnnxModule(write(network, inputs, how, gradients=True, optimize=True)).train()
    assert saved_bytes(module, inputs) <= MOST * saved_bytes(network.train(), inputs)


@pytest.mark.parametrize(
    ("name", "how"), EXPORTS, ids=lambda x: "-".join(map(str, x)) if isinstance(x, tuple) else x
)
def test_activations_are_not_kept_twice(name: str, how: Export) -> None:
    torch.manual_seed(0)
    make, draw = NETWORKS[name]
    network, inputs = make(), draw()
    module = OnnxModule(write(network, inputs, how, gradients=True)).train()
    most = MOST * saved_bytes(network.train(), inputs)
    for _ in range(3):  # the third time with a plan for these sizes
        assert saved_bytes(module, inputs) <= most


def recurrent(kind: str, both: bool) -> tuple[nn.Module, OnnxModule]:
    """A network and its export, whose weights are joined in the order of ONNX once for all."""
    torch.manual_seed(0)
    network = Recurrent(getattr(nn, kind), both)
    return network, OnnxModule(export(network.eval(), (ids(),), dynamo=False, opset_version=17))


each_recurrent = pytest.mark.parametrize(("kind", "both"), [("LSTM", False), ("GRU", True)])


@each_recurrent
def test_weights_in_another_order_are_not_kept(kind: str, both: bool) -> None:
    network, module = recurrent(kind, both)
    assert saved_bytes(module, (ids(),)) <= MOST * saved_bytes(network, (ids(),))


def gradients(module: nn.Module) -> list[Tensor]:
    """Those that there are; they are taken away."""
    found = [p.grad for p in module.parameters() if p.grad is not None]
    module.zero_grad()
    return found


@each_recurrent
def test_gradients_are_those_of_weights_that_are_kept(kind: str, both: bool) -> None:
    """Also within other hooks, in a checkpoint and twice over one graph."""
    network, module = recurrent(kind, both)
    network(ids()).square().sum().backward()
    module(ids()).square().sum().backward()
    words = module.weights["words.weight"].grad
    torch.testing.assert_close(words, network.get_parameter("words.weight").grad)
    want = gradients(module)
    with save_on_cpu():
        module(ids()).square().sum().backward()
    torch.testing.assert_close(gradients(module), want)
    for reentrant in (False, True):
        start = torch.zeros((), requires_grad=True)
        y = checkpoint(lambda zero: module(ids()) + zero, start, use_reentrant=reentrant)
        y.square().sum().backward()
        torch.testing.assert_close(gradients(module), want)
    loss = module(ids()).square().sum()
    loss.backward(retain_graph=True)
    loss.backward()
    torch.testing.assert_close(gradients(module), [2 * g for g in want])


@each_recurrent
def test_transforms_have_no_hooks(kind: str, both: bool) -> None:
    _, module = recurrent(kind, both)
    weights = {n: p.detach() for n, p in module.named_parameters()}

    def loss(weights: dict[str, Tensor], rows: Tensor) -> Tensor:
        return functional_call(module, weights, (rows,)).square().sum()

    got = grad(loss)(weights, ids())
    module(ids()).square().sum().backward()
    for name, parameter in module.named_parameters():
        torch.testing.assert_close(got[name], parameter.grad)


@each_recurrent
def test_a_weight_that_is_changed_before_backward_is_an_error(kind: str, both: bool) -> None:
    _, module = recurrent(kind, both)
    y = module(ids()).sum()
    with torch.no_grad():
        next(p for n, p in module.weights.items() if p.ndim == 3).add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.backward()


@each_recurrent
def test_nothing_stays_behind(kind: str, both: bool) -> None:
    _, module = recurrent(kind, both)
    y = module(ids())
    left = weakref.ref(y)
    y.sum().backward()
    del y
    assert left() is None  # no cycle holds it
