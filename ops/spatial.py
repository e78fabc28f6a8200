"""Arithmetic of windows that slide over spatial axes, for convolutions and pools.

Sizes may be symbolic: they are compared only if the attributes of the file require it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, cast

from torch import Tensor
from torch.nn import functional

from onnxinterp.values import sym_max, sym_min

AutoPad: TypeAlias = Literal["NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID", ""]
"""The empty string means NOTSET."""


@dataclass(frozen=True)
class Window:
    """How a window slides, one entry per spatial axis.

    Attributes:
        kernel: number of its elements.
        strides: steps between its positions.
        dilations: steps between its elements.
        begins: padding before the first element of the input.
        ends: padding after the last one.
    """

    kernel: list[int]
    strides: list[int]
    dilations: list[int]
    begins: list[int]
    ends: list[int]

    @property
    def reach(self) -> list[int]:
        """The size of the window with its dilations."""
        return [(k - 1) * d + 1 for k, d in zip(self.kernel, self.dilations, strict=True)]

    def outputs(self, sizes: Sequence[int], ceil_mode: bool = False) -> list[int]:
        """Number of positions on each axis; with `ceil_mode` also those partly outside.

        A window that starts in the padding at the end is omitted.
        """
        padded = [n + b + e for n, b, e in zip(sizes, self.begins, self.ends, strict=True)]
        free = [n - r for n, r in zip(padded, self.reach, strict=True)]
        if not ceil_mode:
            return [f // s + 1 for f, s in zip(free, self.strides, strict=True)]
        starts = [n + b for n, b in zip(sizes, self.begins, strict=True)]
        return [
            sym_min(-(-f // s), (start - 1) // s) + 1
            for f, s, start in zip(free, self.strides, starts, strict=True)
        ]


def at_least(size: int, least: int) -> int:
    """max(size, least), also for a symbolic size."""
    return cast(int, sym_max(size, least))


def filter_sizes(W: Tensor, kernel_shape: Sequence[int] | None) -> Sequence[int]:
    """The spatial sizes of a filter; `kernel_shape` of the node must be the same."""
    sides = W.shape[2:]
    if kernel_shape and sides != tuple(kernel_shape):
        raise ValueError(f"kernel_shape must be {list(sides)}, got {kernel_shape}")
    return sides


def with_bias(y: Tensor, B: Tensor | None) -> Tensor:
    """Add a number to each channel."""
    if B is None:
        return y
    if B.shape != y.shape[1:2]:
        raise ValueError(f"B must be [{y.shape[1]}], got {list(B.shape)}")
    return y + B.reshape(-1, *[1] * (y.ndim - 2))


def window(
    sizes: Sequence[int],
    kernel: Sequence[int],
    auto_pad: AutoPad = "NOTSET",
    strides: Sequence[int] | None = None,
    dilations: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
) -> Window:
    """A window from the attributes of the node; `sizes` are those of the input."""
    rank = len(sizes)
    strides, dilations = list(strides or [1] * rank), list(dilations or [1] * rank)
    sides = kernel if isinstance(kernel, list) else ()  # torch raises for a filter without elements
    if min(*strides, *dilations, *sides, 1) < 1 or not (
        rank == len(kernel) == len(strides) == len(dilations)
        and (not pads or len(pads) == 2 * rank)
    ):  # torch's pools and slices do not raise
        message = f"kernel {list(kernel)}, strides {strides}, dilations {dilations}, pads {pads}"
        raise ValueError(f"a window must have positive sizes for {rank} axes, got {message}")
    begins, ends = [0] * rank, [0] * rank
    if auto_pad in ("NOTSET", "") and pads:
        begins, ends = list(pads[:rank]), list(pads[rank:])
    elif auto_pad in ("SAME_UPPER", "SAME_LOWER"):
        begins, ends = _same_pads(sizes, kernel, strides, dilations, auto_pad == "SAME_LOWER")
    return Window(list(kernel), strides, dilations, begins, ends)


def _same_pads(
    sizes: Sequence[int],
    kernel: Sequence[int],
    strides: Sequence[int],
    dilations: Sequence[int],
    lower: bool,
) -> tuple[list[int], list[int]]:
    """Pads for ceil(size / stride) outputs; an odd pad is at the end, or at the beginning."""
    begins, ends = [], []
    for n, k, s, d in zip(sizes, kernel, strides, dilations, strict=True):
        total = (k - 1) * d  # for each size if the stride is 1
        if s > 1:
            total = at_least((-(-n // s) - 1) * s + (k - 1) * d + 1 - n, 0)
        begins.append((total + 1) // 2 if lower else total // 2)
        ends.append(total - begins[-1])
    return begins, ends


def pad(x: Tensor, begins: Sequence[int], ends: Sequence[int], value: float = 0) -> Tensor:
    """Pad the last axes; negative numbers crop."""
    flat = [n for pair in zip(reversed(begins), reversed(ends), strict=True) for n in pair]
    return functional.pad(x, flat, value=value)


def taps(x: Tensor, w: Window, axis: int, count: int) -> list[Tensor]:
    """Along one spatial axis: the input elements of each window element, at all positions.

    Args:
        x: padded, [N, C, *spatial].
        w: the window.
        axis: which spatial axis, from 0.
        count: number of positions of the window.
    """
    stride, dilation = w.strides[axis], w.dilations[axis]
    span = (count - 1) * stride + 1
    rows = [x.narrow(axis + 2, k * dilation, span) for k in range(w.kernel[axis])]
    if stride == 1:
        return rows
    steps = (slice(None),) * (axis + 2) + (slice(None, None, stride),)
    return [row[steps] for row in rows]


def window_sum(x: Tensor, w: Window, counts: Sequence[int]) -> Tensor:
    """The sums over the windows of a padded x, one axis after the other."""
    for axis, count in enumerate(counts):
        first, *rest = taps(x, w, axis, count)
        x = sum(rest, first)
    return x
