"""BatchNormalization.

History: 1, 6 (is_test, spatial), 7 (without is_test: more than one output means training),
9 (without spatial), 14 (training_mode; three outputs), 15 (parameters may have other types).

The running statistics follow the specification: the variance is that of the population, and the
momentum is the weight of the past. The momentum of nn.BatchNorm is the weight of the batch (its 0.1
is 0.9 in ONNX), and its running variance is that of the sample, n / (n - 1) times as large.

If `training` is None (see `registry`), the given statistics are used even if the file trains.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from onnxinterp.registry import op, sample
from onnxinterp.testing.samples import Call, Draw, call
from onnxinterp.torch_weights import TorchWeight, leaf, torch_weights
from onnxinterp.values import Flag, decimal
from onnxinterp.versions import forwards

# -> dtype of the statistics
WIDE = {torch.float16: torch.float32, torch.bfloat16: torch.float32}

LAYERS: dict[int, type[nn.Module]] = {
    2: nn.BatchNorm1d,
    3: nn.BatchNorm1d,
    4: nn.BatchNorm2d,
    5: nn.BatchNorm3d,
}
"""Rank of the input -> the layer of torch."""


def _check_parameters(x: Tensor, *parameters: Tensor) -> None:
    """Check the shapes of the parameters: torch flattens or broadcasts some wrong ones."""
    channels = x.shape[1] if x.ndim > 1 else 1
    if any(p.shape != (channels,) for p in parameters):
        shapes = [list(p.shape) for p in parameters]
        raise ValueError(f"scale, B, mean and var must be [{channels}], got {shapes}")


def _normalize(
    x: Tensor, scale: Tensor, b: Tensor, mean: Tensor, var: Tensor, epsilon: float
) -> Tensor:
    """Normalize with given statistics; torch has no gradient for these."""
    plain = x.ndim > 1 and x.dtype == scale.dtype == mean.dtype
    if plain and not (mean.requires_grad or var.requires_grad):
        return torch.batch_norm(x, scale, b, mean, var, False, 0.0, epsilon, True)
    along = (-1, *[1] * (x.ndim - 2)) if x.ndim > 1 else ()
    factor = scale / torch.sqrt(var + epsilon)
    y = (x - mean.reshape(along)) * factor.reshape(along) + b.reshape(along)
    return y.to(x.dtype)


def _train(
    x: Tensor,
    scale: Tensor,
    b: Tensor,
    running: tuple[Tensor, Tensor],
    epsilon: float,
    momentum: float,
    n_outputs: int,
) -> tuple[Tensor, ...]:
    """Y, the next running mean and variance, and, if they are outputs, those of the batch.

    If they are not outputs, they need no gradient and torch's kernel updates the running ones: it
    is three times as fast on a CPU. It uses the variance of the sample: the running variance is
    scaled before and after to get that of the population.
    """
    wide, (old_mean, old_var) = _as_dtype(x, WIDE.get(x.dtype, x.dtype)), running
    count = x.numel() // x.shape[1] if x.ndim > 1 and x.shape[1] else 1
    if n_outputs > 1 or count < 2 or old_mean.requires_grad or old_var.requires_grad:
        axes = [0, *range(2, x.ndim)]
        mean = wide.mean(axes, keepdim=True)  # var_mean warns of an empty batch
        var = (wide - mean).square().mean(axes)
        mean = mean.reshape(var.shape)
        y = _normalize(wide, scale, b, mean, var, epsilon)
        return y.to(x.dtype), *_update(running, mean, var, momentum)
    scale, b = _as_dtype(scale, wide.dtype), _as_dtype(b, wide.dtype)
    mean = _as_dtype(old_mean, wide.dtype).clone()
    var = _as_dtype(old_var, wide.dtype) * (count / (count - 1))
    y = torch.batch_norm(wide, scale, b, mean, var, True, 1 - momentum, epsilon, True)
    var = var * ((count - 1) / count)  # not in place: the backward pass reads it
    return _as_dtype(y, x.dtype), _as_dtype(mean, old_mean.dtype), _as_dtype(var, old_var.dtype)


def _as_dtype(x: Tensor, dtype: torch.dtype) -> Tensor:
    """`x.to(dtype)`, which takes as long as a small kernel even if there is nothing to do."""
    return x if x.dtype is dtype else x.to(dtype)


def _update(
    running: tuple[Tensor, Tensor], mean: Tensor, var: Tensor, momentum: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The next running mean and variance, and those of the batch, in the running dtypes."""
    old_mean, old_var = running
    mean, var = mean.to(old_mean.dtype), var.to(old_var.dtype)
    return mean.lerp(old_mean, momentum), var.lerp(old_var, momentum), mean, var


@op("BatchNormalization", since=14, state={"input_mean": 1, "input_var": 2})
def batch_normalization(
    X: Tensor,
    scale: Tensor,
    B: Tensor,
    input_mean: Tensor,
    input_var: Tensor,
    *,
    epsilon: float = 1e-5,
    momentum: float = 0.9,
    training_mode: Flag = 0,
    training: bool | None,
    n_outputs: int,
) -> tuple[Tensor, ...]:
    _check_parameters(X, scale, B, input_mean, input_var)
    if training or (training_mode and training is not None):
        running = (input_mean, input_var)
        return _train(X, scale, B, running, epsilon, momentum, n_outputs)[:3]
    return _normalize(X, scale, B, input_mean, input_var, epsilon), input_mean, input_var


@op("BatchNormalization", since=9, state={"mean": 1, "var": 2})
def batch_normalization_9(
    X: Tensor,
    scale: Tensor,
    B: Tensor,
    mean: Tensor,
    var: Tensor,
    *,
    epsilon: float = 1e-5,
    momentum: float = 0.9,
    training: bool | None,
    n_outputs: int,
) -> tuple[Tensor, ...]:
    """A file trains if the statistics are outputs of the node."""
    _check_parameters(X, scale, B, mean, var)
    if training or (n_outputs > 1 and training is not None):
        return _train(X, scale, B, (mean, var), epsilon, momentum, n_outputs)
    return _normalize(X, scale, B, mean, var, epsilon), mean, var, mean, var


@leaf(batch_normalization_9, weight="scale", bias="B", running_mean="mean", running_var="var")
@leaf(
    batch_normalization,
    weight="scale",
    bias="B",
    running_mean="input_mean",
    running_var="input_var",
)
def _(
    scale: Tensor, *, epsilon: float, momentum: float, training_mode: Flag = 0, rank: int | None
) -> nn.Module | None:
    kind = LAYERS.get(rank or 0)
    if kind is None or training_mode:
        return None
    past = decimal(momentum)
    return kind(len(scale), decimal(epsilon), decimal(1 - past), device="meta")


@op("BatchNormalization", since=7, state={"mean": 1, "var": 2})
@forwards(batch_normalization_9)
def batch_normalization_7(
    X: Tensor, *inputs: Tensor, spatial: Flag = 1, **attributes: Any
) -> tuple[Tensor, ...]:
    """With spatial=0 each element of a sample has its own statistics."""
    if spatial:
        return batch_normalization_9(X, *inputs, **attributes)
    flat = [x.reshape(-1) for x in inputs]
    y, *statistics = batch_normalization_9(X.flatten(1), *flat, **attributes)
    return y.reshape(X.shape), *(s.reshape(X.shape[1:]) for s in statistics)


@op("BatchNormalization", since=1, state={"mean": 1, "var": 2})
@forwards(batch_normalization_7)
def batch_normalization_1(
    *inputs: Tensor, is_test: Flag = 0, n_outputs: int, **attributes: Any
) -> tuple[Tensor, ...]:
    """As version 7; a file with five outputs does not train if is_test is 1."""
    return batch_normalization_7(*inputs, n_outputs=1 if is_test else n_outputs, **attributes)


MEAN, VAR = [TorchWeight(("running_mean",), rank=1)], [TorchWeight(("running_var",), rank=1)]
torch_weights(
    "BatchNormalization",
    scale=[TorchWeight(("weight",), rank=1)],
    B=[TorchWeight(("bias",), rank=1)],
    mean=MEAN,
    var=VAR,
    input_mean=MEAN,
    input_var=VAR,
)


@sample(batch_normalization, batch_normalization_9, batch_normalization_7, batch_normalization_1)
def _(d: Draw) -> Call:
    x = d.tensor(d.shape(min_dims=2, min_side=2), lo=-3, hi=3)
    affine, statistics = ("T1", "T2") if d.opset >= 15 else ("T", "U" if d.opset >= 14 else "T")
    spatial = d.maybe(d.integer(0, 1)) if d.opset == 7 else None  # no oracle runs it before 7
    shape = x.shape[1:] if spatial == 0 else (x.shape[1],)
    three = [d.tensor(shape, t, lo=-3, hi=3) for t in (affine, affine, statistics)]
    trains = d.opset >= 14 and d.boolean()
    return call(
        x,
        *three,
        d.tensor(shape, statistics, lo=0.5, hi=3),
        epsilon=d.maybe(d.real(0.25, 1)),
        is_test=1 if d.opset < 7 else None,
        momentum=d.maybe(d.real(0.25, 1)),
        spatial=spatial,
        training_mode=1 if trains else d.maybe(0) if d.opset >= 14 else None,
        outputs=3 if trains else 1,
    )
