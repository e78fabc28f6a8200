"""com.microsoft.nchwc: models that onnxruntime optimized for its blocked convolutions (level ALL).

There, tensors are [N, C/b, H, W, b]. Here they are [N, C, H, W], the channels filled up to whole
blocks, so that convolutions and pools are those of torch. ReorderInput fills up, ReorderOutput cuts
off. The weights of the module are those of the file; `Conv` brings their elements in order, which
passes gradients, and `nchwc_blocks` finds the number of channels of a block.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from torch import Tensor
from torch.nn import functional

from onnxinterp.ops.contrib.fused import fused_conv
from onnxinterp.ops.contrib.nchwc_blocks import SIZES, block_size, has_blocks_of_both
from onnxinterp.ops.max_pooling import global_max_pool, max_pool
from onnxinterp.ops.pooling import average_pool, draw_pool, global_average_pool
from onnxinterp.ops.resizing import resize
from onnxinterp.registry import op, sample
from onnxinterp.schemas import NCHWC
from onnxinterp.testing.samples import Call, Draw, call, draw_integers
from onnxinterp.values import Flag
from onnxinterp.versions import forwards


@op("Conv", since=1, domain=NCHWC, data_shaped=False, survey=block_size)
@forwards(fused_conv, without=["Z"])
def conv(
    X: Tensor,
    W: Tensor,
    B: Tensor | None = None,
    Sum: Tensor | None = None,
    *,
    group: int = 1,
    prepared: int,
    **attributes: Any,
) -> Tensor:
    """Sum is added before the activation."""
    return fused_conv(X, in_order(W, group, prepared), B, Sum, group=group, **attributes)


def in_order(W: Tensor, group: int, block: int) -> Tensor:
    """Filters as torch has them, from those in blocks."""
    m, c, *kernel = W.shape
    if has_blocks_of_both(W.shape, group, block):
        parts = W.reshape(m // block, c // block, *kernel, block, block)
        return parts.permute(0, 5, 1, 4, 2, 3).reshape(W.shape)
    return W.reshape(m // block, c, *kernel, block).permute(0, 4, 1, 2, 3).reshape(W.shape)


@op("ReorderInput", since=1, domain=NCHWC, data_shaped=False, survey=block_size)
def reorder_input(X: Tensor, *, channels_last: Flag = 0, prepared: int) -> Tensor:
    """From [N, C, H, W] or [N, H, W, C]; zeros fill the last block."""
    X = X.movedim(-1, 1) if channels_last else X
    missing = -X.shape[1] % prepared
    return functional.pad(X, [0, 0] * (X.ndim - 2) + [0, missing]) if missing else X


@op("ReorderOutput", since=1, domain=NCHWC, data_shaped=False)
def reorder_output(X: Tensor, *, channels: int = 0, channels_last: Flag = 0) -> Tensor:
    """To [N, channels, H, W] or [N, H, W, channels]."""
    if channels < 1:
        raise ValueError(f"channels must be positive, got {channels}")
    y = X.narrow(1, 0, channels)
    return y.movedim(1, -1) if channels_last else y


@op("MaxPool", since=1, domain=NCHWC, data_shaped=False)
@forwards(max_pool, without=["n_outputs"])
def nchwc_max_pool(X: Tensor, **attributes: Any) -> Any:
    return max_pool(X, n_outputs=1, **attributes)


@op("AveragePool", since=1, domain=NCHWC, data_shaped=False)
@forwards(average_pool)
def nchwc_average_pool(X: Tensor, **attributes: Any) -> Tensor:
    return average_pool(X, **attributes)


@op("GlobalMaxPool", since=1, domain=NCHWC, data_shaped=False)
def nchwc_global_max_pool(X: Tensor) -> Tensor:
    return global_max_pool(X)


@op("GlobalAveragePool", since=1, domain=NCHWC, data_shaped=False)
def nchwc_global_average_pool(X: Tensor) -> Tensor:
    return global_average_pool(X)


@op("Upsample", since=1, domain=NCHWC, data_shaped=False)
def upsample(
    X: Tensor,
    *,
    coordinate_transformation_mode: Literal[
        "asymmetric", "align_corners", "half_pixel"
    ] = "asymmetric",
    mode: Literal["nearest", "linear"] = "nearest",
    scales: list[int] | None = None,
) -> Tensor:
    """The nearest element is that before; the scales are whole numbers for all four axes."""
    factors = [float(s) for s in scales or [1] * X.ndim]
    if len(factors) != X.ndim:
        raise ValueError(f"scales must be {X.ndim} numbers, got {scales}")
    return resize(
        X,
        scales=factors,
        coordinate_transformation_mode=coordinate_transformation_mode,
        mode=mode,
        nearest_mode="floor",
    )


def kernels_of(block: int) -> dict[str, Callable[..., Any]]:
    """The kernels for a model whose file does not tell how many channels a block has.

    Pass them as `OnnxModule(path, kernels=kernels_of(16))`.

    Args:
        block: 16 for files saved on machines with AVX-512 or 64-bit ARM, 8 on others.

    Raises:
        ValueError: there are no such blocks.
    """
    if block not in SIZES:
        raise ValueError(f"block must be 8 or 16, got {block}")

    @forwards(conv, without=["prepared"])
    def convolve(*inputs: Any, **attributes: Any) -> Tensor:
        return conv(*inputs, prepared=block, **attributes)

    @forwards(reorder_input, without=["prepared"])
    def reorder(*inputs: Any, **attributes: Any) -> Tensor:
        return reorder_input(*inputs, prepared=block, **attributes)

    return {f"{NCHWC}::Conv": convolve, f"{NCHWC}::ReorderInput": reorder}


def _draw_channels(d: Draw) -> int:
    """So many that blocks of 16 do not fit."""
    return d.choice([8, 24])


def _draw_image(d: Draw, channels: int) -> Any:
    return d.tensor((d.integer(1, 2), channels, *draw_integers(d, 2, 5, 7)), lo=-3, hi=3)


@sample(conv)
def _(d: Draw) -> Call:
    """The three kinds of filters."""
    filters, kernel = _draw_channels(d), draw_integers(d, 2, 1, 3)
    channels, group = d.choice([(3, 1), (1, 1), (24, 1), (filters, filters), (48, 2)])
    filters = 48 if group == 2 else filters
    x = _draw_image(d, channels)
    w = d.tensor((filters, channels // group, *kernel), lo=-1, hi=1)
    attributes: dict[str, Any] = {
        "group": group if group > 1 else d.maybe(1),
        "kernel_shape": d.maybe(kernel),
        "pads": d.maybe(draw_integers(d, 4, 0, 2)),
        "strides": d.maybe(draw_integers(d, 2, 1, 3)),
        "dilations": d.maybe(draw_integers(d, 2, 1, 2)),
    }
    shape = fused_conv(x.double(), w.double(), **{"group": 1, **_given(attributes)}).shape
    activation, parameters = d.choice(
        [(None, None), ("Relu", None), ("LeakyRelu", [0.25]), ("Clip", [-1.0, 2.0])]
    )
    return call(
        x,
        w,
        d.maybe(d.tensor((filters,), lo=-1, hi=1)),
        d.maybe(d.tensor(tuple(shape), lo=-1, hi=1)),
        activation=activation,
        activation_params=parameters,
        **attributes,
    )


def _given(attributes: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in attributes.items() if value is not None}


@sample(reorder_input)
def _(d: Draw) -> Call:
    x = _draw_image(d, d.integer(1, 20))
    channels_last = d.maybe(d.integer(0, 1))
    return call(x.movedim(1, -1) if channels_last else x, channels_last=channels_last)


@sample(reorder_output)
def _(d: Draw) -> Call:
    x = _draw_image(d, _draw_channels(d))
    return call(x, channels=d.integer(1, x.shape[1]), channels_last=d.maybe(d.integer(0, 1)))


@sample(nchwc_max_pool)
def _(d: Draw) -> Call:
    x, attributes = draw_pool(d, ceil_since=1, dilated_since=1)
    return call(x, storage_order=d.maybe(d.integer(0, 1)), **attributes)


@sample(nchwc_average_pool)
def _(d: Draw) -> Call:
    x, attributes = draw_pool(d, ceil_since=1, dilated_since=1)
    return call(x, count_include_pad=d.maybe(d.integer(0, 1)), **attributes)


@sample(nchwc_global_max_pool, nchwc_global_average_pool)
def _(d: Draw) -> Call:
    return call(_draw_image(d, _draw_channels(d)))


@sample(upsample)
def _(d: Draw) -> Call:
    mode = d.maybe(d.choice(["nearest", "linear"]))
    coordinates = d.maybe(d.choice(["asymmetric", "align_corners", "half_pixel"]))
    return call(
        _draw_image(d, _draw_channels(d)),
        coordinate_transformation_mode=coordinates if mode == "linear" else None,
        mode=mode,
        scales=d.maybe([1, 1, d.integer(1, 3), d.integer(1, 3)]),
    )
