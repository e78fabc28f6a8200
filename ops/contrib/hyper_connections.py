"""Several residual streams and the block between them.

HyperConnectionPreMix, HyperConnectionPostMix, and HyperConnectionLowRankMix, which computes the
mixtures too. The streams are [..., branches, size], or flat with `num_branches`. Numbers of 16 bits
are computed in float32.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from onnxinterp.ops.contrib.gating import branches, scaled_silu, widened
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


@contrib_op("HyperConnectionLowRankMix")
def hyper_connection_low_rank_mix(
    streams: Tensor,
    norm_scale: Tensor,
    down_weight: Tensor,
    up_weight: Tensor,
    inject_weight: Tensor,
    prev_block_output: Tensor | None = None,
    prev_post_gate: Tensor | None = None,
    *,
    epsilon: float = 9.999999747378752e-06,
    gate_div: float = 1.0,
    gate_mul: float = 1.0,
    num_branches: int,
    reduction_scale: float = 1.0,
    silu_alpha: float = 1.0,
) -> tuple[Tensor, Tensor, Tensor]:
    """The post-mix of the block before, the pre-mix of the next one, and the gate after that.

    Each step is rounded to the type of the streams once.
    """
    if num_branches < 1 or not gate_div:
        got = f"{num_branches} and {gate_div}"
        raise ValueError(f"num_branches must be positive and gate_div not 0, got {got}")
    x, own = branches(streams, num_branches), streams.dtype
    size = x.shape[-1]
    _check_projections(norm_scale, down_weight, up_weight, inject_weight, (num_branches, size))
    if prev_block_output is not None and prev_post_gate is not None:
        post_mix = hyper_connection_post_mix
        x = post_mix(streams, prev_block_output, prev_post_gate, num_branches=num_branches)
        x = branches(x, num_branches)
    elif prev_block_output is not None or prev_post_gate is not None:
        raise ValueError("prev_block_output and prev_post_gate must be given together")
    scale = widened(norm_scale).reshape(num_branches, size)
    normed = (functional.rms_norm(widened(x), (size,), None, epsilon) * scale).to(own)
    flat = normed.flatten(-2)
    hidden = scaled_silu(flat @ down_weight, alpha=silu_alpha)
    gates = branches((hidden @ up_weight).sigmoid(), num_branches)
    total = (widened(normed) * widened(gates)).sum(-2)
    post_gate = (flat @ inject_weight / gate_div).sigmoid() * gate_mul
    return (reduction_scale * total).to(own), post_gate, x.flatten(-2)


def _check_projections(
    norm_scale: Tensor, down: Tensor, up: Tensor, inject: Tensor, size: tuple[int, int]
) -> None:
    width = size[0] * size[1]
    rank = down.shape[-1] if down.ndim else 0
    expected = [(width,), (width, rank), (rank, width), (width, size[0])]
    if [tuple(t.shape) for t in (norm_scale, down, up, inject)] != expected:
        got = [list(t.shape) for t in (norm_scale, down, up, inject)]
        raise ValueError(f"scale and projections must be {expected}, got {got}")


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


@sample(hyper_connection_low_rank_mix)
def _(d: Draw) -> Call:
    count, size, rank, leading = d.integer(1, 3), d.integer(1, 4), d.integer(1, 3), d.shape(0, 2)
    width, before = count * size, d.boolean()
    shapes = [(width,), (width, rank), (rank, width), (width, count)]
    return call(
        d.tensor((*leading, width), lo=-2, hi=2),
        *[d.tensor(shape, lo=-1, hi=1) for shape in shapes],
        d.tensor((*leading, size), lo=-1, hi=1) if before else None,
        d.tensor((*leading, count), lo=-1, hi=1) if before else None,
        epsilon=d.maybe(d.real(0.25, 1)),
        gate_div=d.maybe(d.real(0.5, 2)),
        gate_mul=d.maybe(d.real(0.5, 2)),
        num_branches=count,
        reduction_scale=d.maybe(d.real(0.5, 2)),
        silu_alpha=d.maybe(d.real(0.5, 2)),
        outputs=d.integer(2, 3),
    )
