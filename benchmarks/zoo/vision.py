"""Convolutional networks that torchvision does not have, in plain torch."""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F  # noqa: N812 - the usual name in torch
from torch import Tensor, nn


def _conv(incoming: int, outgoing: int, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    """Return a convolution with BatchNorm and SiLU, the unit of recent detectors."""
    return nn.Sequential(
        nn.Conv2d(incoming, outgoing, kernel, stride, padding=kernel // 2, bias=False),
        nn.BatchNorm2d(outgoing),
        nn.SiLU(),
    )


class Bottleneck(nn.Module):
    """Two 3x3 convolutions, with a skip connection if `skip`."""

    def __init__(self, width: int, *, skip: bool) -> None:
        super().__init__()
        self.first, self.second, self.skip = _conv(width, width), _conv(width, width), skip

    def forward(self, x: Tensor) -> Tensor:
        """[batch, width, height, width] -> the same shape."""
        y: Tensor = self.second(self.first(x))
        return x + y if self.skip else y


class CrossStage(nn.Module):
    """A cross-stage-partial block: half of the channels pass bottlenecks, all are joined."""

    def __init__(self, incoming: int, outgoing: int, depth: int, *, skip: bool) -> None:
        super().__init__()
        half = outgoing // 2
        self.split = _conv(incoming, 2 * half, 1)
        self.blocks = nn.ModuleList(Bottleneck(half, skip=skip) for _ in range(depth))
        self.join = _conv((2 + depth) * half, outgoing, 1)

    def forward(self, x: Tensor) -> Tensor:
        """[batch, incoming, height, width] -> [batch, outgoing, height, width]."""
        parts = list(self.split(x).chunk(2, 1))
        for block in self.blocks:
            parts.append(block(parts[-1]))
        return self.join(torch.cat(parts, 1))


class PyramidPooling(nn.Module):
    """Three max poolings one after the other, joined (SPPF)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.reduce, self.join = _conv(width, width // 2, 1), _conv(2 * width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """[batch, width, height, width] -> the same shape."""
        parts = [self.reduce(x)]
        for _ in range(3):
            parts.append(F.max_pool2d(parts[-1], 5, 1, 2))
        return self.join(torch.cat(parts, 1))


class Detector(nn.Module):
    """A one-stage detector with three scales, similar to the smallest YOLOv8."""

    def __init__(self, width: int = 16, classes: int = 80) -> None:
        super().__init__()
        w = [width * 2**i for i in range(5)]
        self.stem = nn.Sequential(_conv(3, w[0], 3, 2), _conv(w[0], w[1], 3, 2))
        self.stage2 = CrossStage(w[1], w[1], 1, skip=True)
        self.stage3 = nn.Sequential(_conv(w[1], w[2], 3, 2), CrossStage(w[2], w[2], 2, skip=True))
        self.stage4 = nn.Sequential(_conv(w[2], w[3], 3, 2), CrossStage(w[3], w[3], 2, skip=True))
        self.stage5 = nn.Sequential(
            _conv(w[3], w[4], 3, 2), CrossStage(w[4], w[4], 1, skip=True), PyramidPooling(w[4])
        )
        self.up4 = CrossStage(w[4] + w[3], w[3], 1, skip=False)
        self.up3 = CrossStage(w[3] + w[2], w[2], 1, skip=False)
        self.down3, self.down4 = _conv(w[2], w[2], 3, 2), _conv(w[3], w[3], 3, 2)
        self.out4 = CrossStage(w[2] + w[3], w[3], 1, skip=False)
        self.out5 = CrossStage(w[3] + w[4], w[4], 1, skip=False)
        self.heads = nn.ModuleList(
            nn.Sequential(_conv(c, w[2]), _conv(w[2], w[2]), nn.Conv2d(w[2], 4 + classes, 1))
            for c in (w[2], w[3], w[4])
        )

    def forward(self, image: Tensor) -> Tensor:
        """[batch, 3, height, width] -> [batch, 4 + classes, anchors]."""
        x3 = self.stage3(self.stage2(self.stem(image)))
        x4 = self.stage4(x3)
        x5 = self.stage5(x4)
        y4 = self.up4(torch.cat([F.interpolate(x5, scale_factor=2.0), x4], 1))
        y3 = self.up3(torch.cat([F.interpolate(y4, scale_factor=2.0), x3], 1))
        z4 = self.out4(torch.cat([self.down3(y3), y4], 1))
        z5 = self.out5(torch.cat([self.down4(z4), x5], 1))
        found = [head(x).flatten(2) for head, x in zip(self.heads, (y3, z4, z5), strict=True)]
        boxes, scores = torch.cat(found, 2).split((4, found[0].size(1) - 4), 1)
        return torch.cat([boxes, scores.sigmoid()], 1)


class DoubleConv(nn.Sequential):
    """Two 3x3 convolutions with BatchNorm and ReLU."""

    def __init__(self, incoming: int, outgoing: int) -> None:
        super().__init__(
            nn.Conv2d(incoming, outgoing, 3, padding=1, bias=False),
            nn.BatchNorm2d(outgoing),
            nn.ReLU(),
            nn.Conv2d(outgoing, outgoing, 3, padding=1, bias=False),
            nn.BatchNorm2d(outgoing),
            nn.ReLU(),
        )


class UNet(nn.Module):
    """A U-Net of four levels, with ConvTranspose on the way up."""

    def __init__(self, width: int = 16, levels: int = 4, classes: int = 2) -> None:
        super().__init__()
        widths = [width * 2**i for i in range(levels + 1)]
        self.enter = DoubleConv(3, width)
        pairs = list(pairwise(widths))
        self.down = nn.ModuleList(DoubleConv(a, b) for a, b in pairs)
        self.up = nn.ModuleList(nn.ConvTranspose2d(b, a, 2, 2) for a, b in reversed(pairs))
        self.merge = nn.ModuleList(DoubleConv(2 * a, a) for a, _ in reversed(pairs))
        self.leave = nn.Conv2d(width, classes, 1)

    def forward(self, image: Tensor) -> Tensor:
        """[batch, 3, height, width] -> [batch, classes, height, width]."""
        levels = [self.enter(image)]
        for down in self.down:
            levels.append(down(F.max_pool2d(levels[-1], 2)))
        x = levels.pop()
        for up, merge in zip(self.up, self.merge, strict=True):
            x = merge(torch.cat([levels.pop(), up(x)], 1))
        return self.leave(x)
