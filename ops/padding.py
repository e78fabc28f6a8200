"""Add elements around a tensor, or crop it: Pad, CenterCropPad.

History: Pad 1 (`paddings`), 2 (`pads`), 11 (pads and value are inputs), 13, 18 (axes), 19 (wrap),
21-25 (types). CenterCropPad 18.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from onnxinterp.ops.shapes import axes_from_front
from onnxinterp.registry import host, op, sample
from onnxinterp.testing.samples import Call, Draw, call
from onnxinterp.values import HOST_LENGTH, Host, Ints, Operand, is_known, number
from onnxinterp.versions import older


@op("Pad", since=19, uint64="bits", frozen=("constant_value",))
def pad(
    data: Tensor,
    pads: Ints,
    constant_value: Operand | None = None,
    axes: Ints | None = None,
    *,
    mode: Literal["constant", "reflect", "edge", "wrap"] = "constant",
) -> Tensor:
    """Pads are all begins, then all ends. Negative pads crop, before others are filled."""
    places = range(data.ndim) if axes is None else axes_from_front(axes, data.ndim)
    begins, ends = pads[: len(places)], pads[len(places) :]
    if mode == "constant":
        return _filled(data, places, begins, ends, 0 if constant_value is None else constant_value)
    for axis, begin, end in zip(places, begins, ends, strict=True):
        if min(begin, end) < 0:
            data = _filled(data, [axis], [min(begin, 0)], [min(end, 0)], 0)
        if max(begin, end) > 0:
            data = _extended(data, axis, max(begin, 0), max(end, 0), SOURCES[mode])
    return data


pad_18 = older(pad, since=18, hints={"mode": Literal["constant", "reflect", "edge"]})
pad_11 = older(pad_18, since=11, without=["axes"])


@op("Pad", since=2, uint64="bits")
def pad_2(
    data: Tensor,
    *,
    mode: Literal["constant", "reflect", "edge"] = "constant",
    pads: Ints,
    value: float = 0.0,
) -> Tensor:
    return pad(data, pads, value, mode=mode)


@op("Pad", since=1, uint64="bits")
def pad_1(
    data: Tensor,
    *,
    mode: Literal["constant", "reflect", "edge"] = "constant",
    paddings: Ints,
    value: float = 0.0,
) -> Tensor:
    return pad(data, paddings, value, mode=mode)


@host(pad)
def _(
    data: Host,
    pads: Ints,
    constant_value: Host | None = None,
    axes: Ints | None = None,
    *,
    mode: str = "constant",
) -> Any:
    if len(pads) != 2:
        return NotImplemented
    begin, end = pads
    if mode != "constant" or data.rank != 1 or axes not in (None, [0], [-1]) or min(pads) < 0:
        return NotImplemented
    if begin + end + len(data.numbers) > HOST_LENGTH:
        return NotImplemented
    fill = 0 if constant_value is None else number(constant_value)
    return Host([fill] * begin + data.numbers + [fill] * end, data.dtype)


def _filled(data: Tensor, axes: Sequence[int], begins: Ints, ends: Ints, value: Operand) -> Tensor:
    """Pad with one value; torch takes (begin, end) of the last axis first."""
    amounts = dict(zip(axes, zip(begins, ends, strict=True), strict=True))
    pairs = [amounts.get(axis, (0, 0)) for axis in reversed(range(data.ndim))]
    flat = [n for pair in pairs for n in pair]
    if not isinstance(value, Tensor):
        return torch.constant_pad_nd(data, flat, value)
    inside = torch.constant_pad_nd(torch.ones_like(data, dtype=torch.bool), flat, False)
    return torch.where(inside, torch.constant_pad_nd(data, flat), value.reshape(()))


def _extended(
    data: Tensor, axis: int, begin: int, end: int, source: Callable[[Tensor, int], Tensor]
) -> Tensor:
    """Pad with elements of the tensor; `source` maps positions to those of the elements."""
    n = data.shape[axis]
    if not (is_known(begin) and is_known(end)):  # no graph depends on whether a part has size 1
        return data.index_select(axis, source(torch.arange(-begin, n + end, device=data.device), n))
    before = torch.arange(-begin, 0, device=data.device)
    after = torch.arange(n, n + end, device=data.device)
    head, tail = (data.index_select(axis, source(places, n)) for places in (before, after))
    return torch.cat([head, data, tail], axis)


def _reflected(places: Tensor, n: int) -> Tensor:
    """Reflect positions at the first and the last element, without repeating these."""
    there_and_back = places % max(2 * (n - 1), 1)
    return (n - 1) - (there_and_back - (n - 1)).abs()


SOURCES: dict[str, Callable[[Tensor, int], Tensor]] = {
    "reflect": _reflected,
    "edge": lambda places, n: places.clamp(0, n - 1),
    "wrap": lambda places, n: places % n,
}


@op("CenterCropPad", since=18)
def center_crop_pad(input_data: Tensor, shape: Ints, *, axes: Ints | None = None) -> Tensor:
    """An odd difference crops or pads one element more at the end."""
    rank = input_data.ndim
    places = range(rank) if axes is None else axes_from_front(axes, rank)
    missing = [n - input_data.shape[axis] for axis, n in zip(places, shape, strict=True)]
    begins = [m // 2 if m >= 0 else -(-m // 2) for m in missing]
    ends = [m - begin for m, begin in zip(missing, begins, strict=True)]
    return _filled(input_data, places, begins, ends, 0)


def _pads(d: Draw, sizes: Sequence[int], mode: str | None, least: int) -> list[int]:
    """Begins and ends that are valid for the mode and leave at least one element."""
    most = [max(n - 1, 0) if mode == "reflect" else 3 for n in sizes]
    begins = [d.integer(least if n > 2 else 0, m) for n, m in zip(sizes, most, strict=True)]
    left = [n + min(b, 0) for n, b in zip(sizes, begins, strict=True)]
    ends = [d.integer(0, max(n - 1, 0) if mode == "reflect" else 3) for n in left]
    return begins + ends


@sample(pad, pad_2, pad_1)
def _(d: Draw) -> Call:
    modes = ["constant", "reflect", "edge", *(["wrap"] if d.opset >= 19 else [])]
    mode = d.maybe(d.choice(modes))
    x = d.tensor(d.shape(min_dims=1, max_side=5))
    axes = d.maybe(d.axes(x.ndim, 1)) if d.opset >= 18 else None
    sizes = x.shape if axes is None else [x.shape[a] for a in axes]
    if mode is not None and 0 in x.shape:
        mode = "constant"
    pads = _pads(d, sizes, mode, -2 if d.opset > 1 else 0)
    if d.opset < 11:
        name = "pads" if d.opset > 1 else "paddings"
        return call(x, **{name: pads}, mode=mode, value=d.maybe(d.real(-3, 3)))
    inputs = [x, pads, d.maybe(d.tensor(()))]
    return call(*inputs, axes, mode=mode) if d.opset >= 18 else call(*inputs, mode=mode)


@sample(center_crop_pad)
def _(d: Draw) -> Call:
    x = d.tensor(d.shape(min_dims=1, max_side=5))
    axes = d.maybe(d.axes(x.ndim, 1))
    return call(x, [d.integer(1, 6) for _ in (x.shape if axes is None else axes)], axes=axes)
