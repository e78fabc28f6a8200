"""Regions of images: RoiAlign, MaxRoiPool, NonMaxSuppression.

History: RoiAlign 10, 16 (coordinate_transformation_mode), 22 (bfloat16). MaxRoiPool 1, 22
(bfloat16). NonMaxSuppression 10, 11 (wording).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, cast

import torch
from torch import Tensor

from onnxinterp.ops.gathering import within
from onnxinterp.registry import op, sample
from onnxinterp.testing.samples import Call, Draw, call
from onnxinterp.values import Flag, is_traced, number
from onnxinterp.versions import older

BLOCK = 512  # number of boxes that are compared at a time


@op("RoiAlign", since=16)
def roi_align(
    X: Tensor,
    rois: Tensor,
    batch_indices: Tensor,
    *,
    coordinate_transformation_mode: Literal["half_pixel", "output_half_pixel"] = "half_pixel",
    mode: Literal["avg", "max"] = "avg",
    output_height: int = 1,
    output_width: int = 1,
    sampling_ratio: int = 0,
    spatial_scale: float = 1.0,
) -> Tensor:
    """The mean of the samples of a bin; in mode max, the greatest weighted corner of a sample."""
    if X.ndim != 4 or rois.shape[1:] != (4,) or batch_indices.shape != rois.shape[:1]:
        got = f"{list(X.shape)}, {list(rois.shape)} and {list(batch_indices.shape)}"
        raise ValueError(f"X, rois and batch_indices must be 4-D, [R, 4] and [R], got {got}")
    shift = 0.5 if coordinate_transformation_mode == "half_pixel" else 0.0
    corners = rois * spatial_scale - shift
    starts, extents = corners[:, :2], corners[:, 2:] - corners[:, :2]
    if not shift:
        extents = extents.clamp(min=1)
    rows = _samples(starts[:, 1], extents[:, 1], output_height, sampling_ratio, X.shape[2])
    columns = _samples(starts[:, 0], extents[:, 0], output_width, sampling_ratio, X.shape[3])
    flat, image = X.flatten(2), within(batch_indices, X.shape[0] - 1)[:, None, None, None, None]
    terms = []
    for row, row_weight in zip(rows.places, rows.weights, strict=True):
        for column, column_weight in zip(columns.places, columns.weights, strict=True):
            place = row[:, :, None, :, None] * X.shape[3] + column[:, None, :, None, :]
            weight = row_weight[:, :, None, :, None] * column_weight[:, None, :, None, :]
            terms.append(flat[image, :, place] * weight[..., None])
    real = rows.real[:, None, None, :, None, None] & columns.real[:, None, None, None, :, None]
    if mode == "avg":
        result = sum(t.sum((3, 4)) for t in terms) / real.sum((3, 4)).clamp(min=1)
    else:
        result = torch.stack([t.masked_fill(~real, -math.inf).amax((3, 4)) for t in terms]).amax(0)
        result = result.masked_fill(~real.any(4).any(3), 0)
    return result.movedim(-1, 1).to(X.dtype)


@dataclass(frozen=True)
class _Samples:
    """Samples along one axis.

    Attributes:
        places: positions of the two elements around a sample, [regions, bins, samples] each.
        weights: of these elements; 0 outside the image.
        real: whether a sample exists, [regions, samples]: their number differs between regions.
    """

    places: tuple[Tensor, Tensor]
    weights: tuple[Tensor, Tensor]
    real: Tensor


def _samples(start: Tensor, extent: Tensor, bins: int, ratio: int, size: int) -> _Samples:
    """Without a ratio the distance of samples is about 1, so their number depends on the data."""
    counts = torch.ceil(extent / bins) if ratio == 0 else torch.full_like(extent, ratio)
    most = ratio
    if ratio == 0:
        greatest = torch.cat([counts, counts.new_ones(1)]).amax()
        most = 1 if extent.is_meta else number(greatest.int())  # on meta only the shape matters
    k = torch.arange(most, device=start.device)
    i = torch.arange(bins, device=start.device)[:, None]
    step = extent / bins
    within = (k + 0.5) * (step / counts.clamp(min=1))[:, None, None]
    place = start[:, None, None] + i * step[:, None, None] + within
    real = k < counts[:, None]
    counted = real[:, None] & (place >= -1) & (place <= size)
    place = place.clamp(0, size - 1)
    low = place.floor()
    weight = place - low
    return _Samples(
        (low.long(), (low + 1).clamp(max=size - 1).long()),
        ((1 - weight) * counted, weight * counted),
        real,
    )


roi_align_10 = older(
    roi_align,
    since=10,
    without=["coordinate_transformation_mode"],
    defaults={"coordinate_transformation_mode": "output_half_pixel"},
)


@op("MaxRoiPool", since=1, frozen=("rois",))
def max_roi_pool(
    X: Tensor, rois: Tensor, *, pooled_shape: list[int], spatial_scale: float = 1.0
) -> Tensor:
    """Regions are (image, x1, y1, x2, y2) with rounded, inclusive corners; an empty bin is 0.

    As in onnxruntime and in the pooling of Fast R-CNN, halves are rounded away from 0.
    """
    if X.ndim != 4 or rois.shape[1:] != (5,) or len(pooled_shape) != 2:
        got = f"{list(X.shape)}, {list(rois.shape)} and {pooled_shape}"
        raise ValueError(f"X, rois and pooled_shape must be 4-D, [R, 5] and [2], got {got}")
    scaled = rois[:, 1:] * spatial_scale
    corners = torch.floor(scaled.abs() + 0.5) * scaled.sign()
    images = X.index_select(0, rois[:, 0].long())
    in_rows = _bins(corners[:, 1], corners[:, 3], pooled_shape[0], X.shape[2])
    in_columns = _bins(corners[:, 0], corners[:, 2], pooled_shape[1], X.shape[3])
    rows = []
    for in_row in in_rows.unbind(1):
        tall = images.masked_fill(~in_row[:, None, :, None], -math.inf).amax(2)
        bins = [tall.masked_fill(~c[:, None], -math.inf).amax(2) for c in in_columns.unbind(1)]
        rows.append(torch.stack(bins, -1))
    pooled = torch.stack(rows, -2)
    empty = ~(in_rows.any(2)[:, :, None] & in_columns.any(2)[:, None])
    return pooled.masked_fill(empty[:, None], 0)


def _bins(first: Tensor, last: Tensor, bins: int, size: int) -> Tensor:
    """Whether an element of an axis is in a bin, [regions, bins, size]."""
    step = (last - first + 1).clamp(min=1)[:, None] / bins
    i = torch.arange(bins, device=first.device)
    begin = (torch.floor(i * step) + first[:, None])[..., None]
    end = (torch.ceil((i + 1) * step) + first[:, None])[..., None]
    place = torch.arange(size, device=first.device)
    return (place >= begin) & (place < end)


@op("NonMaxSuppression", since=10, data_shaped=True)
def non_max_suppression(
    boxes: Tensor,
    scores: Tensor,
    max_output_boxes_per_class: int | None = None,
    iou_threshold: float | None = None,
    score_threshold: float | None = None,
    *,
    center_point_box: Flag = 0,
) -> Tensor:
    """Rows of (image, class, box), the best box of each class first."""
    limit = max_output_boxes_per_class or 0
    least = -math.inf if score_threshold is None else score_threshold
    overlap, centered = iou_threshold or 0.0, bool(center_point_box)
    if not 0 <= overlap <= 1:
        raise ValueError(f"iou_threshold must be 0 to 1, got {overlap}")
    rule: Any = _suppress
    if torch.compiler.is_compiling() or is_traced():  # a trace would have the loops of one image
        rule = _captured
    if is_traced() and torch.onnx.is_in_onnx_export():
        _register_written()
    return cast(Tensor, rule(boxes, scores, limit, overlap, least, centered))


def _suppress(
    boxes: Tensor, scores: Tensor, limit: int, overlap: float, least: float, centered: bool
) -> Tensor:
    """Rows of (image, class, box); the number of iterations depends on the data."""
    if boxes.shape[:2] != (scores.shape[0], scores.shape[2]):
        raise ValueError(f"boxes must fit scores {list(scores.shape)}, got {list(boxes.shape)}")
    if centered:
        center, half = boxes[..., :2], boxes[..., 2:] / 2
        boxes = torch.cat([center - half, center + half], -1)
    low = torch.minimum(boxes[..., :2], boxes[..., 2:])
    high = torch.maximum(boxes[..., :2], boxes[..., 2:])
    boxes, rows = torch.cat([low, high], -1), []
    for image in range(scores.shape[0]):
        for label in range(scores.shape[1]):
            order = scores[image, label].argsort(descending=True, stable=True)
            order = order[scores[image, label, order] > least]
            kept = order[_greedy(boxes[image, order], limit, overlap)]
            place = torch.tensor([image, label], device=boxes.device).expand(len(kept), 2)
            rows.append(torch.cat([place, kept[:, None]], 1))
    return torch.cat(rows) if rows else boxes.new_zeros((0, 3), dtype=torch.int64)


_captured = torch.library.custom_op(
    "onnxinterp::non_max_suppression", _suppress, mutates_args=()
)  # one operator in a captured graph


@cache
def _register_written() -> None:
    """Tell torch's exporter of traces that the captured operator is NonMaxSuppression."""
    from torch.onnx import symbolic_helper  # no earlier: it loads the whole exporter

    @symbolic_helper.parse_args("v", "v", "i", "f", "f", "b")
    def written(
        graph: Any, boxes: Any, scores: Any, limit: int, overlap: float, least: float, point: bool
    ) -> Any:
        most = graph.op("Constant", value_t=torch.tensor([limit]))
        bounds = [graph.op("Constant", value_t=torch.tensor([x])) for x in (overlap, least)]
        given = (boxes, scores, most, *bounds)
        return graph.op("NonMaxSuppression", *given, center_point_box_i=int(point))

    register: Any = torch.onnx.register_custom_op_symbolic  # type: ignore[attr-defined]  # in torch
    register("onnxinterp::non_max_suppression", written, 11)


@_captured.register_fake
def _(boxes: Tensor, *_: Tensor | float) -> Tensor:
    rows = torch.library.get_ctx().new_dynamic_size()
    return boxes.new_empty((rows, 3), dtype=torch.int64)


def _greedy(boxes: Tensor, limit: int, overlap: float) -> Tensor:
    """The boxes to keep, best first: a box is dropped if it overlaps a better one that is kept."""
    kept = torch.zeros(0, dtype=torch.int64, device=boxes.device)
    for start in range(0, len(boxes), BLOCK):
        if len(kept) >= limit:
            break
        block = boxes[start : start + BLOCK]
        free = ~(_overlaps(boxes[kept], block) > overlap).any(0)
        better = (_overlaps(block, block) > overlap).triu(1)
        keep, before = free, torch.zeros_like(free)
        while not torch.equal(keep, before):  # each iteration decides at least one more box
            keep, before = free & ~(better & keep[:, None]).any(0), keep
        kept = torch.cat([kept, keep.nonzero().squeeze(1) + start])
    return kept[:limit]


def _overlaps(a: Tensor, b: Tensor) -> Tensor:
    """Intersection over union of all boxes of a and b; 0 if a box is empty."""
    low = torch.maximum(a[:, None, :2], b[None, :, :2])
    high = torch.minimum(a[:, None, 2:], b[None, :, 2:])
    tall, wide = (high - low).clamp(min=0).unbind(-1)
    common = tall * wide
    areas = [(x[:, 2] - x[:, 0]) * (x[:, 3] - x[:, 1]) for x in (a, b)]
    union = areas[0][:, None] + areas[1] - common
    return torch.where(common > 0, common / union, 0)


@sample(roi_align)
def _(d: Draw) -> Call:
    """Also regions that are partly or fully outside, or end before they start."""
    x = d.tensor((d.integer(1, 2), 2, d.integer(1, 8), d.integer(1, 8)), "T1")
    regions = d.integer(1, 3)
    corner = d.floats((regions, 2), -4, 8)
    rois = torch.cat([corner, corner + d.floats((regions, 2), -2, 8)], 1).to(x.dtype)
    options = ["half_pixel", "output_half_pixel"]
    return call(
        x,
        rois,
        d.ints((regions,), 0, x.shape[0] - 1),
        coordinate_transformation_mode=d.maybe(d.choice(options)) if d.opset >= 16 else None,
        mode=d.maybe(d.choice(MODES if d.opset < 22 else MODES[:1])),
        output_height=d.maybe(d.integer(1, 3)),
        output_width=d.maybe(d.integer(1, 3)),
        sampling_ratio=d.maybe(d.integer(0, 3)),
        spatial_scale=d.maybe(d.choice([0.5, 1.0, 2.0])),
    )


# from opset 22 on the reference evaluator is the only oracle; its maximum is that of samples, the
# maximum of onnxruntime that of their four weighted neighbours
MODES = ("avg", "max")


@sample(max_roi_pool)
def _(d: Draw) -> Call:
    """Corners on elements, between them or outside; also ends before starts."""
    x = d.tensor((d.integer(1, 2), 2, d.integer(1, 8), d.integer(1, 8)))
    regions = d.integer(1, 3)
    image = d.ints((regions, 1), 0, x.shape[0] - 1)
    corner, size = d.floats((regions, 2), -3, 8), d.floats((regions, 2), -2, 8)
    if d.boolean():
        corner, size = corner.round(), size.round()
    rois = torch.cat([image, corner, corner + size], 1).to(x.dtype)
    shape, scale = [d.integer(1, 3), d.integer(1, 3)], d.maybe(d.choice([0.5, 0.25, 2.0]))
    return call(x, rois, pooled_shape=shape, spatial_scale=scale)


@sample(non_max_suppression)
def _(d: Draw) -> Call:
    """Equal scores and boxes, corners in any order, no limit (which keeps no box)."""
    images, classes, boxes = d.integer(1, 2), d.integer(1, 3), d.integer(1, 9)
    center, size = d.floats((images, boxes, 2), 0, 8), d.floats((images, boxes, 2), 0, 6)
    scores = d.floats((images, classes, boxes), 0, 1)
    if d.boolean():
        center, size, scores = center.round(), size.round(), (scores * 4).round() / 4
    centered = d.boolean()
    second = size if centered else center + size * d.choice([1, -1])
    threshold = d.choice([0.0, 1.0, d.real(0.125, 0.75)])
    return call(
        torch.cat([center, second], -1),
        scores,
        d.choice([d.integer(0, 5), [d.integer(0, 5)], None]),
        d.maybe(threshold),
        d.maybe(d.real(0.125, 0.75)),
        center_point_box=1 if centered else d.maybe(0),
    )
