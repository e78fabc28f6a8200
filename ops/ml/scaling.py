"""Rescale or replace numbers by feature: Scaler, Normalizer, Imputer, Binarizer.

History: 1 (all). A feature is an element of the last axis.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from torch import Tensor

from onnxinterp.ops.ml.registration import ml_op
from onnxinterp.registry import sample
from onnxinterp.testing.samples import Call, Draw, call


def _each(values: Tensor, X: Tensor) -> Tensor:
    """One number for all features, or one for each, expanded to X."""
    return values.to(X.device).expand_as(X)


@ml_op("Scaler", since=1, frozen=("offset", "scale"))
def scaler(
    X: Tensor,
    *,
    offset: Tensor | None = None,
    scale: Tensor | None = None,
    output_type: torch.dtype = torch.float32,
) -> Tensor:
    """(X - offset) * scale, computed in float64 if X is float64."""
    if offset is not None and scale is not None and offset.shape != scale.shape:
        raise ValueError(f"offset and scale must be of one length, got {[len(offset), len(scale)]}")
    shifted = X if offset is None else X - _each(offset, X)
    scaled = shifted if scale is None else shifted * _each(scale, X)
    return scaled.to(output_type)


@ml_op("Normalizer", since=1)
def normalizer(
    X: Tensor,
    *,
    norm: Literal["MAX", "L1", "L2"] = "MAX",
    output_type: torch.dtype = torch.float32,
) -> Tensor:
    """Divide each row by its norm; a row whose norm is 0 does not change.

    MAX is the largest element, not its magnitude, as in the specification and onnxruntime; the
    reference uses the magnitude. As in onnxruntime NaN is ignored.
    """
    x = X.to(torch.promote_types(output_type, torch.float32))
    if x.shape[-1] == 0:
        return x.to(output_type)  # it has no elements
    if norm == "MAX":
        size = x.nan_to_num(torch.finfo(x.dtype).min, posinf=math.inf).amax(-1, keepdim=True)
    else:
        size = torch.linalg.vector_norm(x, {"L1": 1, "L2": 2}[norm], dim=-1, keepdim=True)
    unit = x / torch.where(size == 0, 1, size)
    if norm == "L2":  # NaN if a square overflows, as in onnxruntime, not 0
        unit = unit.masked_fill(x.square().isinf(), math.nan)
    return unit.to(output_type)


@ml_op("Imputer", since=1, frozen=("imputed_value_floats",))
def imputer(
    X: Tensor,
    *,
    imputed_value_floats: Tensor | None = None,
    imputed_value_int64s: Tensor | None = None,
    replaced_value_float: float = 0.0,
    replaced_value_int64: int = 0,
) -> Tensor:
    """Replace one value, which may be NaN, by another."""
    if X.is_floating_point():
        imputed, replaced = imputed_value_floats, replaced_value_float
    else:
        imputed, replaced = imputed_value_int64s, replaced_value_int64
    if imputed is None:
        raise ValueError(f"imputed values must be given for {X.dtype}, got none")
    missing = X.isnan() if replaced != replaced else X.eq(replaced)
    return torch.where(missing, _each(imputed, X).to(X.dtype), X)


@ml_op("Binarizer", since=1)
def binarizer(X: Tensor, *, threshold: float = 0.0) -> Tensor:
    """1 above the threshold, 0 otherwise, also for NaN."""
    return X.gt(threshold).to(X.dtype)


def _draw_features(d: Draw) -> Any:
    return d.tensor(d.shape(min_dims=1, max_dims=2))


def _draw_each(d: Draw, x: Tensor, lo: float, hi: float) -> list[float]:
    """One number for all features, or one for each."""
    return [d.real(lo, hi) for _ in range(d.choice([1, x.shape[-1] or 1]))]


@sample(scaler)
def _(d: Draw) -> Call:
    x = _draw_features(d)
    offset = _draw_each(d, x, -4, 4)
    return call(x, offset=offset, scale=[d.real(-2, 2) for _ in offset])


@sample(normalizer)
def _(d: Draw) -> Call:
    return call(_draw_features(d), norm=d.maybe(d.choice(["MAX", "L1", "L2"])))


@sample(imputer)
def _(d: Draw) -> Call:
    """The replaced value is an end of the range of elements, NaN, or the default."""
    x = d.tensor(d.shape(min_dims=2, max_dims=2), lo=-2, hi=2)
    if not x.is_floating_point():
        imputed, lost = [int(v) for v in _draw_each(d, x, -9, 9)], d.maybe(d.integer(-2, 2))
        return call(x, imputed_value_int64s=imputed, replaced_value_int64=lost)
    replaced = d.maybe(d.choice([-2.0, 2.0, math.nan]))
    return call(x, imputed_value_floats=_draw_each(d, x, -9, 9), replaced_value_float=replaced)


@sample(binarizer)
def _(d: Draw) -> Call:
    return call(_draw_features(d), threshold=d.maybe(d.real(-8, 8)))
