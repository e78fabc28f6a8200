"""Nodes of diffusion models, which onnxruntime's optimizer writes for GPUs.

GroupNorm and SkipGroupNorm, BiasAdd and BiasSplitGelu, and BiasSoftmax of its training graphs.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor
from torch.nn import functional

from onnxinterp.ops.contrib.registration import contrib_op
from onnxinterp.ops.normalization import NARROW
from onnxinterp.ops.shapes import from_front
from onnxinterp.registry import sample
from onnxinterp.testing.samples import Call, Draw, call, draw_integers


@contrib_op("GroupNorm")
def group_norm(
    X: Tensor,
    gamma: Tensor,
    beta: Tensor,
    *,
    activation: Literal[0, 1],
    channels_last: int = 1,
    epsilon: float = 9.999999747378752e-06,
    groups: int,
) -> Tensor:
    """Activation 1 is SiLU. The parameters may have another type than X."""
    channels = X.shape[-1 if channels_last else 1]
    if X.ndim != 4 or groups < 1 or channels % groups:
        raise ValueError(f"X must be 4-D with groups of channels, got {list(X.shape)}, {groups}")
    wide = X.float() if X.dtype in NARROW else X
    wide = wide.movedim(-1, 1) if channels_last else wide
    y = functional.group_norm(wide, groups, gamma.to(wide.dtype), beta.to(wide.dtype), epsilon)
    y = functional.silu(y) if activation else y
    return (y.movedim(1, -1) if channels_last else y).to(X.dtype)


@contrib_op("SkipGroupNorm")
def skip_group_norm(
    X: Tensor,
    gamma: Tensor,
    beta: Tensor,
    skip: Tensor,
    bias: Tensor | None = None,
    *,
    activation: Literal[0, 1],
    channels_last: int = 1,
    epsilon: float = 9.999999747378752e-06,
    groups: int,
) -> tuple[Tensor, Tensor]:
    """GroupNorm of X + skip + bias, which is the second output."""
    total = X + _skip_like(X, skip, channels_last)
    if bias is not None:
        _check_bias(X, bias, -1 if channels_last else 1)
        total = total + (bias if channels_last else bias[:, None, None])
    y = group_norm(
        total,
        gamma,
        beta,
        activation=activation,
        channels_last=channels_last,
        epsilon=epsilon,
        groups=groups,
    )
    return y, total


def _skip_like(X: Tensor, skip: Tensor, channels_last: int) -> Tensor:
    """A skip of the shape of X, or of one number for each channel of each image."""
    if X.ndim != 4:
        raise ValueError(f"X must be 4-D, got {list(X.shape)}")
    if skip.shape == X.shape:
        return skip
    images, channels = X.shape[0], X.shape[-1 if channels_last else 1]
    spread = (images, 1, 1, channels) if channels_last else (images, channels, 1, 1)
    if skip.shape not in ((images, channels), spread):
        raise ValueError(f"skip must be {list(X.shape)} or {list(spread)}, got {list(skip.shape)}")
    return skip.reshape(spread)


def _check_bias(x: Tensor, bias: Tensor, axis: int = -1) -> None:
    """Check a size that torch would broadcast."""
    if bias.ndim != 1 or bias.shape[0] != x.shape[axis]:
        raise ValueError(f"the bias must be [{x.shape[axis]}], got {list(bias.shape)}")


@contrib_op("BiasAdd")
def bias_add(X: Tensor, bias: Tensor, skip: Tensor) -> Tensor:
    _check_bias(X, bias)
    if skip.shape != X.shape:
        raise ValueError(f"skip must be {list(X.shape)}, got {list(skip.shape)}")
    return X + bias + skip


@contrib_op("BiasSplitGelu")
def bias_split_gelu(X: Tensor, bias: Tensor) -> Tensor:
    """The left half times the Gelu (erf) of the right half."""
    _check_bias(X, bias)
    if X.shape[-1] % 2:
        raise ValueError(f"the last axis must be even, got {list(X.shape)}")
    left, right = (X + bias).chunk(2, -1)
    return left * functional.gelu(right)


@contrib_op("BiasSoftmax")
def bias_softmax(data: Tensor, bias: Tensor, *, axis: int = 1, is_inner_broadcast: int) -> Tensor:
    """Softmax over all axes from `axis` on.

    The bias has 1 where it is repeated: on the axes just before `axis` (inner), or on the first.
    """
    first = from_front(axis, data.ndim)
    _check_repeats(data, bias, first, bool(is_inner_broadcast))
    y = (data + bias).flatten(first).softmax(-1)
    return y.reshape(data.shape)


def _check_repeats(data: Tensor, bias: Tensor, first: int, inner: bool) -> None:
    """Check that the bias is repeated along neighbouring axes on the side that the node says."""
    padded = (1,) * (data.ndim - bias.ndim) + tuple(bias.shape)
    repeated = [i for i, (b, n) in enumerate(zip(padded, data.shape, strict=False)) if b != n]
    if bias.ndim > data.ndim or any(padded[i] != 1 or i >= first for i in repeated):
        raise ValueError(f"bias must fit data {list(data.shape)}, got {list(bias.shape)}")
    kept = [i for i in range(first) if padded[i] != 1]
    if kept and repeated and (min(repeated) < max(kept) if inner else max(repeated) > min(kept)):
        side = "just before the axis" if inner else "in front"
        raise ValueError(f"bias must be repeated along axes {side}, got {list(bias.shape)}")


@sample(group_norm)
def _(d: Draw) -> Call:
    x, parameters, attributes = _draw_groups(d)
    return call(x, *parameters, **attributes)


@sample(skip_group_norm)
def _(d: Draw) -> Call:
    x, parameters, attributes = _draw_groups(d)
    last = attributes["channels_last"] != 0
    images, channels = x.shape[0], x.shape[-1 if last else 1]
    spread = (images, 1, 1, channels) if last else (images, channels, 1, 1)
    skip = d.tensor(d.choice([tuple(x.shape), spread, (images, channels)]), lo=-1, hi=1)
    bias = d.maybe(d.tensor((channels,), lo=-1, hi=1))
    return call(x, *parameters, skip, bias, outputs=d.integer(1, 2), **attributes)


def _draw_groups(d: Draw) -> tuple[Tensor, list[Tensor], dict[str, int | float | None]]:
    """X, gamma and beta, attributes. The elements of a group differ: no variance is near 0."""
    groups, size, last = d.integer(1, 3), d.integer(1, 3), d.choice([None, 1, 0])
    images, *sides = d.integer(1, 2), *draw_integers(d, 2, 2, 3)
    channels = groups * size
    shape = (images, channels, *sides) if last == 0 else (images, *sides, channels)
    x = d.tensor(shape, lo=-1, hi=1)
    x[..., :1] += 6
    if last != 0:
        x[:, :1] += 6
    parameters = [d.tensor((channels,), "M", lo=-1, hi=1) for _ in range(2)]
    attributes = {
        "activation": d.integer(0, 1),
        "channels_last": last,
        "epsilon": d.maybe(d.real(0.25, 1)),
        "groups": groups,
    }
    return x, parameters, attributes


@sample(bias_add)
def _(d: Draw) -> Call:
    shape = d.shape(min_dims=3, max_dims=3)
    return call(d.tensor(shape), d.tensor(shape[-1:]), d.tensor(shape))


@sample(bias_split_gelu)
def _(d: Draw) -> Call:
    shape = (*d.shape(min_dims=2, max_dims=2), 2 * d.integer(1, 3))
    return call(d.tensor(shape, lo=-3, hi=3), d.tensor(shape[-1:], lo=-1, hi=1))


@sample(bias_softmax)
def _(d: Draw) -> Call:
    x = d.tensor(d.shape(min_dims=2), lo=-3, hi=3)
    first, inner = d.integer(1, x.ndim - 1), d.integer(0, 1)
    split = d.integer(0, first)
    front, middle = x.shape[:split], x.shape[split:first]
    kept = (*front, *[1] * len(middle)) if inner else (*[1] * len(front), *middle)
    bias = d.tensor((*kept, *x.shape[first:]), lo=-3, hi=3)
    axis = d.choice([first, first - x.ndim]) if first != 1 else d.maybe(first)
    return call(x, bias, axis=axis, is_inner_broadcast=inner)
