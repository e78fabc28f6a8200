"""Several residual streams and the block between them: HyperConnectionPreMix and PostMix.

The streams are [..., branches, size], or flat with `num_branches`. Numbers of 16 bits are computed
in float32.
"""

from __future__ import annotations

from torch import Tensor

from onnxinterp.ops.contrib.gating import branches, widened
from onnxinterp.ops.contrib.registration import contrib_op
from onnxinterp.registry import sample
from onnxinterp.testing.samples import Call, Draw, call


@contrib_op("HyperConnectionPreMix")
def hyper_connection_pre_mix(
    streams: Tensor, pre_mix: Tensor, *, num_branches: int = 0, reduction_scale: float = 1.0
) -> Tensor:
    """The streams' weighted sum."""
    x = widened(branches(streams, num_branches))
    mix = widened(_factors(pre_mix, x, bool(num_branches)))
    return (reduction_scale * (x * mix).sum(-2)).to(streams.dtype)


@contrib_op("HyperConnectionPostMix")
def hyper_connection_post_mix(
    streams: Tensor,
    block_output: Tensor,
    post_mix: Tensor,
    stream_mix: Tensor | None = None,
    *,
    num_branches: int = 0,
) -> Tensor:
    """Each stream becomes a mixture of all of them and a part of the block's output."""
    x = widened(branches(streams, num_branches))
    if block_output.shape != (*x.shape[:-2], x.shape[-1]):
        expected = [*x.shape[:-2], x.shape[-1]]
        raise ValueError(f"block_output must be {expected}, got {list(block_output.shape)}")
    mixed = x
    if stream_mix is not None:
        if stream_mix.shape != (*x.shape[:-1], x.shape[-2]):
            expected = [*x.shape[:-1], x.shape[-2]]
            raise ValueError(f"stream_mix must be {expected}, got {list(stream_mix.shape)}")
        mixed = widened(stream_mix).transpose(-1, -2) @ x
    injected = widened(_factors(post_mix, x, False)) * widened(block_output).unsqueeze(-2)
    return (mixed + injected).reshape(streams.shape).to(streams.dtype)


def _factors(mix: Tensor, x: Tensor, may_be_flat: bool) -> Tensor:
    """Factors for the elements of x: one for each branch, or for each element of a branch."""
    leading, (count, size) = x.shape[:-2], x.shape[-2:]
    if mix.shape == (*leading, count):
        return mix.unsqueeze(-1)
    if may_be_flat and mix.shape == (*leading, count * size):
        return mix.reshape(x.shape)
    if mix.shape not in (x.shape, (*leading, count, 1)):
        raise ValueError(f"the factors must fit streams {list(x.shape)}, got {list(mix.shape)}")
    return mix


@sample(hyper_connection_pre_mix)
def _(d: Draw) -> Call:
    count, size, leading, flat = d.integer(1, 3), d.integer(1, 4), d.shape(max_dims=2), d.boolean()
    shapes = [(count,), (count, 1), (count, size), *([(count * size,)] if flat else [])]
    return call(
        d.tensor((*leading, count * size) if flat else (*leading, count, size), lo=-2, hi=2),
        d.tensor((*leading, *d.choice(shapes)), "M", lo=-2, hi=2),
        num_branches=count if flat else d.maybe(0),
        reduction_scale=d.maybe(d.real(0.5, 2)),
    )


@sample(hyper_connection_post_mix)
def _(d: Draw) -> Call:
    count, size, leading, flat = d.integer(1, 3), d.integer(1, 4), d.shape(max_dims=2), d.boolean()
    shapes = [(count,), (count, 1), (count, size)]
    return call(
        d.tensor((*leading, count * size) if flat else (*leading, count, size), lo=-2, hi=2),
        d.tensor((*leading, size), lo=-2, hi=2),
        d.tensor((*leading, *d.choice(shapes)), "M", lo=-2, hi=2),
        d.maybe(d.tensor((*leading, count, count), "M", lo=-1, hi=1)),
        num_branches=count if flat else d.maybe(0),
    )
