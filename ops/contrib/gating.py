"""Gates, gated norms and routers of language models.

ScaledSiLU, SwiGLU, GatedAdd, GatedRMSNorm, BranchwiseRMSNorm, EngramGate, LinearAttentionGate and
MoEGroupRouter. Numbers of 16 bits are computed in float32 and rounded where the documentation says
so.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from onnxinterp.ops.contrib.registration import contrib_op
from onnxinterp.registry import sample
from onnxinterp.testing.samples import Call, Draw, call
from onnxinterp.values import Flag


def widened(x: Tensor) -> Tensor:
    """Numbers of 16 bits as float32, others as they are."""
    return x.float() if x.dtype.itemsize < 4 else x


@contrib_op("ScaledSiLU")
def scaled_silu(X: Tensor, scale: Tensor | None = None, *, alpha: float = 1.0) -> Tensor:
    """SiLU of a multiple; a scalar may replace alpha."""
    if scale is not None and scale.ndim:
        raise ValueError(f"scale must be a scalar, got {list(scale.shape)}")
    wide = widened(X)
    factor = alpha if scale is None else scale.to(wide.dtype)
    scaled = (wide * factor).to(X.dtype)
    return scaled * scaled.sigmoid()


@contrib_op("SwiGLU")
def swiglu(
    gate: Tensor,
    up: Tensor | None = None,
    *,
    activation_alpha: float = 1.0,
    activation_beta: float = 0.0,
    limit: float = 0.0,
    round_activation: Flag = 0,
) -> Tensor:
    """Clamped halves: gate * sigmoid(alpha * gate) * (up + beta); gate may have both."""
    if up is None:
        if gate.shape[-1] % 2:
            raise ValueError(f"gate must have an even last dimension, got {list(gate.shape)}")
        gate, up = gate.chunk(2, -1)
    if up.shape != gate.shape:
        raise ValueError(f"up must be {list(gate.shape)}, got {list(up.shape)}")
    g, linear = widened(gate), widened(up)
    if limit > 0:
        g, linear = g.clamp_max(limit), linear.clamp(-limit, limit)
    activated = g * (activation_alpha * g).sigmoid()
    if round_activation:
        activated = activated.to(gate.dtype).to(g.dtype)
    return (activated * (linear + activation_beta)).to(gate.dtype)


@contrib_op("GatedAdd")
def gated_add(X: Tensor, Y: Tensor, gate: Tensor, gate_weight: Tensor | None = None) -> Tensor:
    """One factor for each row. `gate_weight`, which GPUs have, is an error as in onnxruntime."""
    if gate_weight is not None:
        raise ValueError("gate_weight must be absent on a CPU")
    if X.shape != Y.shape or gate.shape != (*X.shape[:-1], 1):
        got = [list(x.shape) for x in (X, Y, gate)]
        raise ValueError(f"X and Y must have one shape, with a gate for each row, got {got}")
    return X + Y * gate


@contrib_op("GatedRMSNorm")
def gated_rms_norm(
    X: Tensor,
    scale: Tensor,
    gate: Tensor,
    *,
    activation: Literal["silu", "swish", "sigmoid"] = "silu",
    epsilon: float = 9.999999747378752e-06,
) -> Tensor:
    """The last axis has any number of groups of the size of `scale`."""
    if scale.ndim != 1 or not scale.shape[0] or X.shape[-1] % scale.shape[0]:
        raise ValueError(f"scale must divide the last axis of {list(X.shape)}, got {scale.shape}")
    if gate.shape != X.shape:
        raise ValueError(f"gate must be {list(X.shape)}, got {list(gate.shape)}")
    groups = torch.unflatten(widened(X), -1, (-1, scale.shape[0]))
    normed = functional.rms_norm(groups, scale.shape, widened(scale), epsilon).flatten(-2)
    z = widened(gate)
    return (normed * (z.sigmoid() if activation == "sigmoid" else functional.silu(z))).to(X.dtype)


@contrib_op("BranchwiseRMSNorm")
def branchwise_rms_norm(
    X: Tensor,
    scale: Tensor | None = None,
    *,
    epsilon: float = 9.999999747378752e-06,
    num_branches: int = 0,
) -> Tensor:
    """X is [..., branches, size], or flat with `num_branches`."""
    x = branches(X, num_branches)
    shape = x.shape[-2:]
    normed = functional.rms_norm(widened(x), shape[1:], None, epsilon)
    if scale is not None:
        if scale.shape not in (shape, shape[1:], (shape[0] * shape[1],)):
            raise ValueError(f"scale must be {list(shape)} or a part, got {list(scale.shape)}")
        whole = scale.numel() == shape[0] * shape[1]
        normed = normed * widened(scale.reshape(shape) if whole else scale)
    return normed.reshape(X.shape).to(X.dtype)


def branches(x: Tensor, count: int) -> Tensor:
    """[..., branches, size], from [..., branches * size] where there is a number of branches."""
    if count < 0 or (count and x.shape[-1] % count) or (not count and x.ndim < 2):
        raise ValueError(f"the branches must divide {list(x.shape)}, got {count}")
    return torch.unflatten(x, -1, (count, -1)) if count else x


@contrib_op("EngramGate")
def engram_gate(
    key: Tensor,
    query: Tensor,
    value: Tensor,
    key_norm_scale: Tensor,
    query_norm_scale: Tensor,
    conv_norm_scale: Tensor | None = None,
    *,
    epsilon: float = 9.999999747378752e-06,
    n_outputs: int,
) -> Tensor | tuple[Tensor, Tensor]:
    """Values times a gate of the signed root of the products of normed keys and queries."""
    width, scales = key.shape[-1:], [key_norm_scale, query_norm_scale]
    scales += [] if conv_norm_scale is None else [conv_norm_scale]
    fits = key.ndim == 4 and value.shape == (*key.shape[:2], *width)
    if not fits or query.shape != key.shape or any(s.shape != key.shape[2:] for s in scales):
        got = [list(x.shape) for x in (key, query, value, *scales)]
        raise ValueError(f"sizes of keys, queries, values and scales must fit, got {got}")
    normed = [
        functional.rms_norm(widened(x), width, None, epsilon) * widened(s)
        for x, s in ((key, key_norm_scale), (query, query_norm_scale))
    ]
    dot = (normed[0] * normed[1]).sum(-1, keepdim=True) / math.sqrt(width[0])
    gate = (dot.sign() * dot.abs().clamp_min(1e-6).sqrt()).sigmoid()
    gated = gate * widened(value).unsqueeze(2)
    if n_outputs == 1:
        return gated.to(key.dtype)
    if conv_norm_scale is None:
        raise ValueError("gated_value_normed needs conv_norm_scale")
    after = functional.rms_norm(gated, width, None, epsilon) * widened(conv_norm_scale)
    return gated.to(key.dtype), after.to(key.dtype)


@contrib_op("LinearAttentionGate")
def linear_attention_gate(
    a: Tensor, dt_bias: Tensor, decay_scale: Tensor, b: Tensor | None = None, *, n_outputs: int
) -> Tensor | tuple[Tensor, Tensor]:
    """The decay and the update rate of LinearAttention."""
    heads = a.shape[-1:]
    if a.ndim != 3 or dt_bias.shape != heads or decay_scale.shape != heads:
        got = [list(x.shape) for x in (a, dt_bias, decay_scale)]
        raise ValueError(f"a must be [batch, time, heads], its scales [heads], got {got}")
    decay = (decay_scale * functional.softplus(widened(a) + dt_bias)).to(a.dtype)
    if n_outputs == 1:
        return decay
    if b is None or b.shape != a.shape:
        raise ValueError(f"beta needs b {list(a.shape)}, got {None if b is None else b.shape}")
    return decay, widened(b).sigmoid().to(b.dtype)


@contrib_op("MoEGroupRouter")
def moe_group_router(
    logits: Tensor,
    expert_bias: Tensor,
    projection_weight: Tensor | None = None,
    *,
    group_topk: int = 2,
    n_group: int = 1,
    router_sentinel: float = -10000.0,
    top_k: int,
    topk_group: int = 1,
    n_outputs: int,
) -> Tensor | tuple[Tensor, ...]:
    """The logarithms of the chosen experts' probabilities, for each token.

    With all three outputs, the scores and the probabilities of all experts; the first one is then
    unused.
    """
    x = widened(logits)
    if projection_weight is not None:
        x = functional.linear(x, widened(projection_weight))
    x, experts = x.reshape(-1, x.shape[-1]), x.shape[-1]
    fits = n_group > 0 and experts % n_group == 0 and 0 < topk_group <= n_group
    if expert_bias.shape != (experts,) or not fits or group_topk < 1:
        got = f"{n_group} groups, {topk_group} of them, for {list(expert_bias.shape)} biases"
        raise ValueError(f"groups and biases must fit {experts} experts, got {got}")
    if logits.ndim < 2:
        raise ValueError(f"logits must have two dimensions at least, got {list(logits.shape)}")
    if not 0 < top_k <= topk_group * (experts // n_group):
        raise ValueError(f"top_k must be one of the experts in the chosen groups, got {top_k}")
    weights = x.sigmoid()
    scores = weights + expert_bias
    groups = torch.unflatten(scores, -1, (n_group, -1))
    best = groups.topk(min(group_topk, experts // n_group), -1).values.sum(-1)
    closed = torch.ones_like(best, dtype=torch.bool)
    closed = closed.scatter(1, best.topk(topk_group, -1).indices, False)
    chosen = (
        groups.masked_fill(closed.unsqueeze(-1), -torch.inf).flatten(-2).topk(top_k, -1).indices
    )
    logs = weights.gather(1, chosen).clamp_min(1e-20).log()
    probs = torch.full_like(weights, router_sentinel).scatter(1, chosen, logs).to(logits.dtype)
    return probs if n_outputs == 1 else (probs, scores, weights)


@sample(scaled_silu)
def _(d: Draw) -> Call:
    scale = d.maybe(d.tensor((), "M", lo=-2, hi=2))
    return call(d.tensor(d.shape(), lo=-4, hi=4), scale, alpha=d.maybe(d.real(0.5, 2)))


@sample(swiglu)
def _(d: Draw) -> Call:
    shape = d.shape(min_dims=1)
    packed = d.boolean()
    gate = d.tensor((*shape[:-1], 2 * shape[-1]) if packed else shape, lo=-4, hi=4)
    return call(
        gate,
        None if packed else d.tensor(shape, lo=-4, hi=4),
        activation_alpha=d.maybe(d.real(0.5, 2)),
        activation_beta=d.maybe(d.real(-1, 1)),
        limit=d.choice([None, 0.0, 2.0, -1.0]),
        round_activation=d.maybe(d.integer(0, 1)),
    )


@sample(gated_add)
def _(d: Draw) -> Call:
    shape = d.shape(min_dims=1)
    return call(d.tensor(shape), d.tensor(shape), d.tensor((*shape[:-1], 1), lo=-1, hi=1))


@sample(gated_rms_norm)
def _(d: Draw) -> Call:
    size = d.integer(1, 4)
    shape = (*d.shape(max_dims=2), size * d.integer(1, 3))
    return call(
        d.tensor(shape),
        d.tensor((size,), lo=-2, hi=2),
        d.tensor(shape, lo=-4, hi=4),
        activation=d.choice([None, "silu", "swish", "sigmoid"]),
        epsilon=d.maybe(d.real(0.125, 1)),
    )


@sample(branchwise_rms_norm)
def _(d: Draw) -> Call:
    count, size = d.integer(1, 3), d.integer(1, 4)
    leading, flat = d.shape(max_dims=2), d.boolean()
    scale = d.maybe(d.tensor(d.choice([(count, size), (size,), (count * size,)]), "M", lo=-2, hi=2))
    return call(
        d.tensor((*leading, count * size) if flat else (*leading, count, size)),
        scale,
        epsilon=d.maybe(d.real(0.125, 1)),
        num_branches=count if flat else d.maybe(0),
    )


@sample(engram_gate)
def _(d: Draw) -> Call:
    batch, length, count, size = [d.integer(1, 3) for _ in range(4)]
    heads = (batch, length, count, size)
    outputs = d.integer(1, 2)
    scales = [d.tensor((count, size), lo=0.5, hi=2) for _ in range(3)]
    return call(
        d.tensor(heads, lo=-2, hi=2),
        d.tensor(heads, lo=-2, hi=2),
        d.tensor((batch, length, size)),
        *(scales if outputs == 2 or d.boolean() else scales[:2]),
        epsilon=d.maybe(d.real(0.125, 1)),
        outputs=outputs,
    )


@sample(linear_attention_gate)
def _(d: Draw) -> Call:
    shape = d.shape(3, 3)
    outputs = d.integer(1, 2)
    heads = [d.tensor(shape[-1:], "TF", lo=-2, hi=2) for _ in range(2)]
    b = d.tensor(shape, lo=-4, hi=4) if outputs == 2 else None
    return call(d.tensor(shape, lo=-4, hi=4), *heads, b, outputs=outputs)


@sample(moe_group_router)
def _(d: Draw) -> Call:
    groups, size = d.integer(1, 3), d.integer(1, 4)
    experts, open_groups = groups * size, d.integer(1, groups)
    shape = (*d.shape(1, 2), experts)
    bias = torch.tensor(d.permutation(experts)) * 2.0  # so far apart that no two scores are equal
    return call(
        d.tensor(shape, lo=-4, hi=4),
        bias.to(d.dtype("TF")) + d.tensor((experts,), "TF", lo=0, hi=0.5),
        group_topk=d.maybe(d.integer(1, 3)),
        n_group=groups if groups > 1 else d.maybe(groups),
        router_sentinel=d.maybe(d.real(-50, -10)),
        top_k=d.integer(1, open_groups * size),
        topk_group=open_groups if open_groups > 1 else d.maybe(open_groups),
    )
