"""A segmentation network in the manner of U-Net, whose height and width may be any number.

A decoder stage resizes to the size of its skip tensor, which the graph reads with Shape: odd sides
that pooling has rounded down come back odd.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812 - the name by which torch's users know it
from torch import Tensor, nn

from tests.exports.case import Case, Input, floats

CLASSES = 5


def convolution(incoming: int, outgoing: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(incoming, outgoing, 3, padding=1, bias=False),
        nn.BatchNorm2d(outgoing),
        nn.ReLU(),
        nn.Conv2d(outgoing, outgoing, 3, padding=1),
        nn.GroupNorm(4, outgoing),
        nn.LeakyReLU(0.1),
    )


class Segmentation(nn.Module):
    """An image in, the logits of each class at the image's own size out."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.down_1 = convolution(8, 8)
        self.down_2 = convolution(8, 16)
        self.bottom = convolution(16, 32)
        self.context = nn.Conv2d(32, 32, 1)
        self.up_2 = convolution(32 + 16, 16)
        self.up_1 = convolution(16 + 8, 8)
        self.upsample = nn.ConvTranspose2d(8, 8, 2, stride=2)
        self.head = nn.Conv2d(8, CLASSES, 1)

    def forward(self, image: Tensor) -> Tensor:
        skip_1 = self.down_1(F.relu(self.stem(image)))
        skip_2 = self.down_2(F.max_pool2d(skip_1, 2))
        x = self.bottom(F.max_pool2d(skip_2, 3, stride=2, padding=1))
        x = x * torch.sigmoid(self.context(F.adaptive_avg_pool2d(x, 1)))
        x = F.interpolate(x, size=skip_2.shape[2:], mode="nearest")
        x = self.up_2(torch.cat((x, skip_2), 1))
        x = F.interpolate(x, size=skip_1.shape[2:], mode="bilinear", align_corners=False)
        x = self.upsample(self.up_1(torch.cat((x, skip_1), 1)))
        logits = self.head(x)
        return F.interpolate(logits, size=image.shape[2:], mode="bilinear", align_corners=True)


SEGMENTATION = Case(
    name="segmentation",
    network=Segmentation,
    inputs=(Input("image", ("batch", 3, "height", "width"), floats),),
    outputs=("logits",),
    sizes=(
        {"batch": 2, "height": 33, "width": 46},
        {"batch": 3, "height": 40, "width": 27},
        {"batch": 2, "height": 51, "width": 64},
    ),
    edges=({"batch": 1, "height": 17, "width": 19},),
    torchscript=(11, 13, 15, 18, 19),
    dynamo=(18, 20),
    folded=("*.0.weight", "*.1.weight", "*.1.bias"),
)
