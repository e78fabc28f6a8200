"""Average pools and pools of p-norms: AveragePool, LpPool and their global forms.

History: AveragePool 1, 7 (count_include_pad), 10 (ceil_mode), 11 (wording), 19 (dilations), 22
(bfloat16). LpPool 1 (p is a float), 2 (an integer), 11, 18 (ceil_mode, dilations), 22.
GlobalLpPool 1, 2 (p as in LpPool), 22. GlobalAveragePool 1, 22.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from onnxinterp.ops.spatial import AutoPad, Window, pad, window, window_sum
from onnxinterp.registry import op, sample
from onnxinterp.testing.samples import Call, Draw, call
from onnxinterp.values import Flag
from onnxinterp.versions import forwards, older

AVERAGE_POOLS = (functional.avg_pool1d, functional.avg_pool2d, functional.avg_pool3d)


def can_torch_pad(w: Window, auto_pad: AutoPad, ceil_mode: Flag) -> bool:
    """Whether torch's own padding is enough: symmetric, at most half a kernel, of known size."""
    if ceil_mode or (auto_pad.startswith("SAME") and max(w.strides) > 1):
        return False  # this depends on the size, which may be symbolic
    half = all(b <= k // 2 for b, k in zip(w.begins, w.kernel, strict=True))
    return half and w.begins == w.ends


def pad_to_fit(x: Tensor, w: Window, counts: Sequence[int], value: float) -> Tensor:
    """Pad so that exactly `counts` windows fit; the end may get other pads than the node has."""
    spans = [(c - 1) * s + r for c, s, r in zip(counts, w.strides, w.reach, strict=True)]
    ends = [n - b - size for n, b, size in zip(spans, w.begins, x.shape[2:], strict=True)]
    return pad(x, w.begins, ends, value)


@op("AveragePool", since=19)
def average_pool(
    X: Tensor,
    *,
    auto_pad: AutoPad = "NOTSET",
    ceil_mode: Flag = 0,
    count_include_pad: Flag = 0,
    dilations: list[int] | None = None,
    kernel_shape: list[int],
    pads: list[int] | None = None,
    strides: list[int] | None = None,
) -> Tensor:
    """Positions of a window after the padding (ceil_mode) are not counted as elements."""
    w = window(X.shape[2:], kernel_shape, auto_pad, strides, dilations, pads)
    pool, dilated = AVERAGE_POOLS[X.ndim - 3], max(w.dilations) > 1
    # torch has no average of volumes in half precision on the CPU
    x = X.float() if X.ndim == 5 and X.dtype.itemsize == 2 else X
    # for volumes torch compares the kernel with the size before padding
    fits = X.ndim < 5 or not any(w.begins)
    if not dilated and fits and can_torch_pad(w, auto_pad, ceil_mode):
        return pool(x, w.kernel, w.strides, w.begins, False, bool(count_include_pad)).to(X.dtype)
    counts = w.outputs(X.shape[2:], bool(ceil_mode))
    padded = pad_to_fit(x, w, counts, 0)
    if dilated:
        total = window_sum(padded, w, counts)
    else:
        total = pool(padded, w.kernel, w.strides) * math.prod(w.kernel)
    return (total / _elements(x, w, counts, bool(count_include_pad))).to(X.dtype)


def _elements(x: Tensor, w: Window, counts: Sequence[int], count_padding: bool) -> Tensor:
    """Number of elements in each window, [*counts]."""
    covered = torch.ones((), dtype=x.dtype, device=x.device)
    for axis, count in enumerate(counts):
        starts = torch.arange(count, device=x.device) * w.strides[axis] - w.begins[axis]
        steps = torch.arange(w.kernel[axis], device=x.device) * w.dilations[axis]
        places = starts[:, None] + steps
        end = x.shape[axis + 2] + (w.ends[axis] if count_padding else 0)
        inside = places < end if count_padding else (places >= 0) & (places < end)
        covered = covered[..., None] * inside.sum(1).to(x.dtype)
    return covered


average_pool_10 = older(average_pool, since=10, without=["dilations"])
average_pool_7 = older(average_pool_10, since=7, without=["ceil_mode"])
average_pool_1 = older(average_pool_7, since=1, without=["count_include_pad"])


@op("LpPool", since=18)
def lp_pool(
    X: Tensor,
    *,
    auto_pad: AutoPad = "NOTSET",
    ceil_mode: Flag = 0,
    dilations: list[int] | None = None,
    kernel_shape: list[int],
    p: float = 2,
    pads: list[int] | None = None,
    strides: list[int] | None = None,
) -> Tensor:
    """The p-norm of each window."""
    w = window(X.shape[2:], kernel_shape, auto_pad, strides, dilations, pads)
    counts = w.outputs(X.shape[2:], bool(ceil_mode))
    powers = pad_to_fit(X.abs() ** p, w, counts, 0)
    return window_sum(powers, w, counts) ** (1 / p)


lp_pool_2 = older(lp_pool, since=2, without=["ceil_mode", "dilations"])


@op("LpPool", since=1)
@forwards(lp_pool_2)
def lp_pool_1(X: Tensor, *, kernel_shape: list[int] | None = None, **attributes: Any) -> Tensor:
    """The default window is the whole input."""
    return lp_pool(X, kernel_shape=kernel_shape or list(X.shape[2:]), **attributes)


def spatial_axes(x: Tensor) -> list[int]:
    return list(range(2, x.ndim))


@op("GlobalAveragePool", since=1)
def global_average_pool(X: Tensor) -> Tensor:
    return X.mean(spatial_axes(X), keepdim=True)


@op("GlobalLpPool", since=2)
def global_lp_pool(X: Tensor, *, p: int = 2) -> Tensor:
    norm: Tensor = torch.linalg.vector_norm(X, p, spatial_axes(X), keepdim=True)
    return norm


global_lp_pool_1 = older(global_lp_pool, since=1, defaults={"p": 2.0}, hints={"p": float})


def only_explicit(d: Draw) -> bool:
    """Whether only explicit pads are drawn: the oracle for float64 is wrong about others."""
    return d.dtype() is torch.float64


def draw_pool(d: Draw, ceil_since: int, dilated_since: int) -> tuple[Tensor, dict[str, Any]]:
    """An input and the attributes that all pools have, these two in some versions only."""
    rank = d.integer(1, 3)
    kernel = [d.integer(1, 3) for _ in range(rank)]
    options = [None, "NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID"]
    auto_pad = d.choice(options[:2] if only_explicit(d) else options)
    same = auto_pad in ("SAME_UPPER", "SAME_LOWER")
    # onnxruntime returns too few windows if SAME needs negative pads
    strides = [d.integer(1, k if same else 3) for k in kernel]
    pads = [d.integer(0, k - 1) for k in kernel * 2] if auto_pad in (None, "NOTSET") else None
    # and ignores dilations for SAME
    dilated = d.opset >= dilated_since
    dilations = [d.integer(1, 2) for _ in kernel] if dilated and not same else None
    x = d.tensor((d.integer(1, 2), 2, *[d.integer(1 if same else 5, 8) for _ in kernel]))
    attributes: dict[str, Any] = {
        "auto_pad": auto_pad,
        "kernel_shape": kernel,
        "pads": d.maybe(pads),
        "strides": d.maybe(strides),
    }
    if dilated:
        attributes["dilations"] = d.maybe(dilations)
    if d.opset >= ceil_since:
        attributes["ceil_mode"] = None if only_explicit(d) else d.maybe(d.integer(0, 1))
    return x, attributes


@sample(average_pool)
def _(d: Draw) -> Call:
    x, attributes = draw_pool(d, ceil_since=10, dilated_since=19)
    if d.opset >= 7:
        attributes["count_include_pad"] = d.maybe(d.integer(0, 1))
    elif only_explicit(d):
        del attributes["pads"]  # the reference evaluator counts them as elements
    return call(x, **attributes)


@sample(lp_pool, lp_pool_1)
def _(d: Draw) -> Call:
    x, attributes = draw_pool(d, ceil_since=18, dilated_since=18)
    return call(x, p=d.maybe(d.integer(1, 3)) if d.opset >= 2 else None, **attributes)


@sample(global_average_pool)
def _(d: Draw) -> Call:
    return call(d.tensor(d.shape(min_dims=4, min_side=2)))


@sample(global_lp_pool)
def _(d: Draw) -> Call:
    p = d.integer(1, 3)
    return call(d.tensor(d.shape(min_dims=3)), p=d.maybe(p if d.opset >= 2 else float(p)))
