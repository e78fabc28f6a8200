"""Five networks as users of torch write them, and how to make them anew with other weights.

Those of the other tests are reused: a vision transformer, an encoder in the manner of BERT with a
padding mask, a decoder in the manner of GPT with its cache, and an LSTM tagger.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812 - the name by which torch's users know it
from torch import Tensor, nn

from tests.exports.modules.decoder import DECODER, Block, Decoder
from tests.exports.modules.encoder import ENCODER, Encoder, Layer
from tests.exports.modules.tagger import TAGGER, Tagger
from tests.exports.seeding import seed_weights
from tests.training.networks import BasicBlock, ViT, ViTBlock

BLOCKS = (BasicBlock, ViTBlock, Layer, Block, nn.LSTM)
"""What a user wraps, shards, checkpoints and hooks."""

LAYERS = (nn.Linear, nn.Conv2d, nn.BatchNorm2d, nn.LayerNorm, nn.Embedding, nn.LSTM)
"""The modules of torch that hold weights."""


class ResNet(nn.Module):
    """A stem, two stages of one block each, and a linear head."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(8)
        self.layer1 = nn.Sequential(BasicBlock(8, 8, 1))
        self.layer2 = nn.Sequential(BasicBlock(8, 16, 2))
        self.fc = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        """[batch, 3, height, width] -> [batch, 5]."""
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer2(self.layer1(x))
        return self.fc(F.adaptive_avg_pool2d(x, 1).flatten(1))


class TiedDecoder(Decoder):
    """The decoder with the weight of its words as that of its head."""

    def __init__(self) -> None:
        super().__init__()
        self.head.weight = self.words.weight


@dataclass(frozen=True)
class Network:
    """A network and what it is called with.

    Attributes:
        name: the column of the report.
        make: its class.
        inputs: of one call; another seed, other values.
    """

    name: str
    make: Callable[[], nn.Module]
    inputs: Callable[[int], tuple[Tensor, ...]]

    def original(self, seed: int = 0) -> nn.Module:
        """The network in eval mode; no two of its tensors are equal, except tied ones."""
        network = self.make()
        seed_weights(network, seed)
        return network.eval()


def _images(size: int) -> Callable[[int], tuple[Tensor, ...]]:
    return lambda seed: (
        torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(seed)),
    )


NETWORKS = (
    Network("ResNet", ResNet, _images(16)),
    Network("ViT", ViT, _images(32)),
    Network("BERT", Encoder, lambda seed: ENCODER.arguments(ENCODER.sizes[0], seed)),
    Network("GPT", TiedDecoder, lambda seed: DECODER.arguments(DECODER.sizes[0], seed)),
    Network("LSTM", Tagger, lambda seed: TAGGER.arguments(TAGGER.sizes[0], seed)),
)


def blocks(original: nn.Module) -> list[str]:
    """Names of the modules that a user would wrap one by one."""
    return [name for name, module in original.named_modules() if isinstance(module, BLOCKS)]


def layers(original: nn.Module, *kinds: type[nn.Module]) -> list[str]:
    """Names of torch's own modules with weights, or of those of some kinds."""
    return [n for n, module in original.named_modules() if isinstance(module, kinds or LAYERS)]


def another(original: nn.Module, seed: int = 1) -> nn.Module:
    """The same network with other weights."""
    network = type(original)()
    seed_weights(network, seed)
    return network.train(original.training)
