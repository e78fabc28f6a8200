"""What is trained: small networks of four kinds, one task for each, and their exports.

ResNet-18 (He et al., 2015) and the vision transformer (Dosovitskiy et al., 2020) are written here;
the encoder in the manner of BERT and the LSTM tagger are those of the export tests.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812 - the name by which torch's users know it
from torch import Tensor, nn

from tests.exports.modules.encoder import VOCABULARY as ENCODER_VOCABULARY
from tests.exports.modules.encoder import Encoder
from tests.exports.modules.tagger import TAGS, Tagger
from tests.exports.modules.tagger import VOCABULARY as TAGGER_VOCABULARY


class BasicBlock(nn.Module):
    """Two convolutions and a way around them."""

    def __init__(self, incoming: int, outgoing: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(incoming, outgoing, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outgoing)
        self.conv2 = nn.Conv2d(outgoing, outgoing, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outgoing)
        self.downsample = nn.Sequential()
        if stride > 1:
            self.downsample = nn.Sequential(
                nn.Conv2d(incoming, outgoing, 1, stride, bias=False), nn.BatchNorm2d(outgoing)
            )

    def forward(self, x: Tensor) -> Tensor:
        """[batch, incoming, height, width] -> [batch, outgoing, height / stride, ...]."""
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(y + self.downsample(x))


class ResNet18(nn.Module):
    """All its 18 layers; `width` channels in the first stage, 64 in the original."""

    def __init__(self, width: int = 8, classes: int = 5) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 7, 2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        sizes = [width, width, 2 * width, 4 * width, 8 * width]
        for stage in range(1, 5):
            blocks = nn.Sequential(
                BasicBlock(sizes[stage - 1], sizes[stage], 1 if stage == 1 else 2),
                BasicBlock(sizes[stage], sizes[stage], 1),
            )
            self.add_module(f"layer{stage}", blocks)
        self.fc = nn.Linear(sizes[4], classes)

    def forward(self, x: Tensor) -> Tensor:
        """[batch, 3, height, width] -> [batch, classes]."""
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 3, 2, padding=1)
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(F.adaptive_avg_pool2d(x, 1).flatten(1))


class ViTBlock(nn.Module):
    """A pre-norm transformer block."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.ln_1 = nn.LayerNorm(width)
        self.in_proj = nn.Linear(width, 3 * width)
        self.out_proj = nn.Linear(width, width)
        self.ln_2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        """[batch, tokens, width] -> the same."""
        batch, tokens, width = x.shape
        joined = self.in_proj(self.ln_1(x)).view(batch, tokens, 3, self.heads, -1)
        joined = joined.permute(2, 0, 3, 1, 4)
        q, k, v = joined[0], joined[1], joined[2]
        attention = (q @ k.transpose(-1, -2) * (width // self.heads) ** -0.5).softmax(-1)
        x = x + self.out_proj((attention @ v).transpose(1, 2).reshape(batch, tokens, width))
        return x + self.mlp(self.ln_2(x))


class ViT(nn.Module):
    """Patches of 8 x 8 pixels of an image of 32 x 32."""

    def __init__(self, width: int = 32, heads: int = 4, depth: int = 2, classes: int = 5) -> None:
        super().__init__()
        self.conv_proj = nn.Conv2d(3, width, 8, 8)
        self.class_token = nn.Parameter(torch.randn(1, 1, width))
        self.pos_embedding = nn.Parameter(torch.randn(1, 17, width) * 0.1)
        self.layers = nn.ModuleList([ViTBlock(width, heads) for _ in range(depth)])
        self.ln = nn.LayerNorm(width)
        self.head = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        """[batch, 3, 32, 32] -> [batch, classes]."""
        patches = self.conv_proj(x).flatten(2).transpose(1, 2)
        token = self.class_token.expand(x.shape[0], -1, -1)
        x = torch.cat([token, patches], 1) + self.pos_embedding
        for layer in self.layers:
            x = layer(x)
        return self.head(self.ln(x)[:, 0])


class EncoderClassifier(Encoder):
    """The encoder with one output, so that all its parameters are trained by one loss."""

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:  # type: ignore[override]
        """[batch, length] twice -> [batch, width]."""
        return super().forward(ids, mask)[1]


class TaggerScores(Tagger):
    """The tagger with its scores alone."""

    def forward(self, ids: Tensor) -> Tensor:  # type: ignore[override]
        """[batch, time] -> [batch, tags, time]."""
        return super().forward(ids)[0].transpose(1, 2)


@dataclass(frozen=True)
class Task:
    """A network and what it learns.

    Attributes:
        name: of the network.
        network: makes it.
        inputs: of one batch.
        target: classes, of one batch.
        lr: of the optimizer.
    """

    name: str
    network: Callable[[], nn.Module]
    inputs: Callable[[torch.Generator], tuple[Tensor, ...]]
    target: Callable[[torch.Generator], Tensor]
    lr: float

    def original(self) -> nn.Module:
        """The network with the same weights at every call; no two of its tensors are equal."""
        torch.manual_seed(0)
        network = self.network()
        with torch.no_grad():
            for tensor in (*network.parameters(), *network.buffers()):
                if tensor.is_floating_point() and tensor.ndim == 1:
                    tensor.add_(0.05 * torch.randn(tensor.shape).abs())
        return network

    def batch(self, seed: int) -> tuple[tuple[Tensor, ...], Tensor]:
        generator = torch.Generator().manual_seed(seed)
        return self.inputs(generator), self.target(generator)


def images(generator: torch.Generator) -> tuple[Tensor, ...]:
    return (torch.randn(8, 3, 32, 32, generator=generator),)


def five_classes(generator: torch.Generator) -> Tensor:
    return torch.randint(5, (8,), generator=generator)


def masked_tokens(generator: torch.Generator) -> tuple[Tensor, ...]:
    ids = torch.randint(ENCODER_VOCABULARY, (4, 9), generator=generator)
    used = torch.randint(5, 10, (4, 1), generator=generator)
    return ids, (torch.arange(9) < used).long()


RESNET = Task("resnet18", ResNet18, images, five_classes, 0.01)
VIT = Task("vit", ViT, images, five_classes, 0.01)
ENCODER = Task(
    "encoder",
    EncoderClassifier,
    masked_tokens,
    lambda g: torch.randint(32, (4,), generator=g),
    0.01,
)
TAGGER = Task(
    "tagger",
    TaggerScores,
    lambda g: (torch.randint(TAGGER_VOCABULARY, (4, 7), generator=g),),
    lambda g: torch.randint(TAGS, (4, 7), generator=g),
    1.0,
)
TASKS = (RESNET, VIT, ENCODER, TAGGER)
