"""Layer normalization of a residual sum, as onnxruntime's optimizers write it for transformers.

The model builder of onnxruntime-genai writes SkipSimplifiedLayerNormalization (root mean square) in
each layer. The last output is the sum itself, which is the residual of the next layer.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from onnxinterp.ops.contrib.registration import contrib_op
from onnxinterp.ops.normalization import NARROW
from onnxinterp.registry import sample
from onnxinterp.testing.samples import Call, Draw, call

Outputs = tuple[Tensor, Tensor, Tensor, Tensor]


@contrib_op("SkipLayerNormalization")
def skip_layer_normalization(
    input: Tensor,
    skip: Tensor,
    gamma: Tensor,
    beta: Tensor | None = None,
    bias: Tensor | None = None,
    *,
    epsilon: float = 1e-12,
    n_outputs: int,
) -> Tensor | Outputs:
    """The sum of halves is not rounded before it is normalized."""
    total = _residual_sum(input, skip, bias, gamma, beta)
    shape = total.shape[-1:]
    wide_beta = None if beta is None else beta.to(total.dtype)
    y = functional.layer_norm(total, shape, gamma.to(total.dtype), wide_beta, epsilon)
    y = y.to(input.dtype)
    if n_outputs == 1:
        return y
    mean = total.mean(-1, keepdim=True)
    inverse = torch.rsqrt((total - mean).square().mean(-1, keepdim=True) + epsilon)
    return y, mean, inverse, total.to(input.dtype)


@contrib_op("SkipSimplifiedLayerNormalization")
def skip_simplified_layer_normalization(
    input: Tensor,
    skip: Tensor,
    gamma: Tensor,
    bias: Tensor | None = None,
    *,
    epsilon: float = 1e-12,
    n_outputs: int,
) -> Tensor | Outputs:
    """Divided by the root mean square; nothing is subtracted, and the output `mean` is 0."""
    total = _residual_sum(input, skip, bias, gamma)
    y = functional.rms_norm(total, total.shape[-1:], gamma.to(total.dtype), epsilon)
    y = y.to(input.dtype)
    if n_outputs == 1:
        return y
    inverse = torch.rsqrt(total.square().mean(-1, keepdim=True) + epsilon)
    return y, torch.zeros_like(inverse), inverse, total.to(input.dtype)


def _residual_sum(
    x: Tensor, skip: Tensor, bias: Tensor | None, *parameters: Tensor | None
) -> Tensor:
    """Return x + skip + bias, halves as float32; no input but the batch of `skip` is broadcast."""
    if x.ndim not in (2, 3):
        raise ValueError(f"input must be 2-D or 3-D, got {list(x.shape)}")
    repeated = x.ndim == 3 and (skip.ndim == 2 or (skip.ndim == 3 and skip.shape[0] == 1))
    if skip.shape != x.shape and not (repeated and skip.shape[-2:] == x.shape[-2:]):
        raise ValueError(f"skip must be {list(x.shape)} or one of a batch, got {list(skip.shape)}")
    for parameter in (bias, *parameters):
        if parameter is not None and parameter.shape != x.shape[-1:]:
            raise ValueError(f"gamma, beta and bias must be [{x.shape[-1]}]")
    total = x.float() + skip.float() if x.dtype in NARROW else x + skip
    return total if bias is None else total + bias


def _draw(d: Draw, parameters: int) -> Call:
    """The first column stands apart, so that no variance is near 0."""
    shape = (*d.shape(min_dims=1, max_dims=2), d.integer(2, 5))
    x = d.tensor(shape, lo=-1, hi=1)
    x[..., :1] += 8
    skips = [shape] if len(shape) == 2 else [shape, shape[1:], (1, *shape[1:])]
    gamma, *rest = [d.tensor(shape[-1:], lo=-1, hi=1) for _ in range(1 + parameters)]
    return call(
        x,
        d.tensor(d.choice(skips), lo=-1, hi=1),
        gamma,
        *[d.maybe(parameter) for parameter in rest],
        epsilon=d.maybe(d.real(0.25, 1)),
        outputs=d.integer(1, 4),
    )


@sample(skip_layer_normalization)
def _(d: Draw) -> Call:
    return _draw(d, parameters=2)


@sample(skip_simplified_layer_normalization)
def _(d: Draw) -> Call:
    return _draw(d, parameters=1)
