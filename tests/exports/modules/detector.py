"""A detector: one convolutional grid of boxes and scores, then non-maximum suppression.

How many boxes are left depends on the image.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torchvision.ops import nms

from tests.exports.case import Case, Input, floats

STRIDE = 8


class Detector(nn.Module):
    """An image in, the boxes that are kept (x1, y1, x2, y2) and their scores out."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.stage = nn.Conv2d(8, 16, 3, stride=4, padding=1)
        self.boxes = nn.Conv2d(16, 4, 1)
        self.score = nn.Conv2d(16, 1, 1)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        x = self.stage(self.stem(image).relu()).relu()
        rows = torch.arange(x.size(2), device=x.device) * STRIDE
        columns = torch.arange(x.size(3), device=x.device) * STRIDE
        y, x_ = torch.meshgrid(rows, columns, indexing="ij")
        centres = torch.stack((x_, y), -1).reshape(-1, 2)
        sides = self.boxes(x)[0].permute(1, 2, 0).reshape(-1, 4).sigmoid() * 3 * STRIDE
        boxes = torch.cat((centres - sides[:, :2], centres + sides[:, 2:]), 1)
        scores = self.score(x)[0].flatten().sigmoid()
        kept = nms(boxes, scores, 0.4)
        return boxes[kept], scores[kept]


DETECTOR = Case(
    name="detector",
    network=Detector,
    inputs=(Input("image", (1, 3, "height", "width"), floats),),
    outputs=("boxes", "scores"),
    sizes=(
        {"height": 64, "width": 48},
        {"height": 48, "width": 80},
        {"height": 32, "width": 40},
    ),
    edges=({"height": 16, "width": 16},),
    torchscript=(14, 17),
    dynamo=(18,),
)
"""The exporters write torchvision's nms as NonMaxSuppression."""
