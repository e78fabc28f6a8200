"""Attention with subgraphs that change scores and probabilities: FlexAttention (ai.onnx.preview).

History: 1.

Shapes in this file: queries [batch, q_heads, q_length, head], keys [batch, kv_heads, length, head],
values [batch, kv_heads, length, v_head], scores [batch, q_heads, q_length, length]. Query heads
of one key head are neighbours.
"""

from __future__ import annotations

import onnx.parser
import torch
from torch import Tensor

from onnxinterp.ops.attention import check_heads, fused, is_fused
from onnxinterp.registry import op, sample
from onnxinterp.testing.samples import Call, Draw, call
from onnxinterp.values import Subgraph


@op("FlexAttention", since=1, domain="ai.onnx.preview", data_shaped=False)
def flex_attention(
    Q: Tensor,
    K: Tensor,
    V: Tensor,
    *,
    prob_mod: Subgraph | None = None,
    scale: float | None = None,
    score_mod: Subgraph | None = None,
    softmax_precision: torch.dtype | None = None,
) -> Tensor:
    """One fused call if there are no subgraphs.

    A row that is all -inf after `score_mod` becomes nan, as in softmax.
    """
    check_heads(Q, K, V)
    wide = torch.float64 if Q.dtype is torch.float64 else torch.float32
    precision = softmax_precision or wide
    if score_mod is prob_mod is None and is_fused(Q.dtype, precision):
        return fused(Q, K, V, None, scale, False)
    factor = Q.shape[-1] ** -0.5 if scale is None else scale
    product = _by_key_head(Q * factor, K) @ K.transpose(-1, -2)
    scores = _by_query_head(product, Q).to(precision)
    if score_mod is not None:
        (scores,) = score_mod(scores)
    probabilities = scores.softmax(-1)
    if prob_mod is not None:
        (probabilities,) = prob_mod(probabilities)
    Y = _by_key_head(probabilities, V) @ V.to(precision)
    return _by_query_head(Y, Q).to(V.dtype)


def _by_key_head(x: Tensor, keys: Tensor) -> Tensor:
    """Merge the query heads of one key head into one head."""
    return torch.unflatten(x, 1, (keys.shape[1], -1)).flatten(2, 3)


def _by_query_head(x: Tensor, queries: Tensor) -> Tensor:
    """The inverse of `_by_key_head`."""
    return torch.unflatten(x, 2, (-1, queries.shape[2])).flatten(1, 2)


BODIES = {  # T is a tensor of the dtype of the softmax
    "score_mod": [
        "m (T s) => (T y) { t = Tanh (s) y = Add (s, t) }",
        """m (T s) => (T y) {
            n = Shape <start = -1> (s) last = Squeeze (n)
            zero = Constant <value = int64 {0}> () one = Constant <value = int64 {1}> ()
            at = Range (zero, last, one) bias = CastLike (at, s) y = Sub (s, bias)
        }""",
    ],
    "prob_mod": ["m (T p) => (T y) { y = Mul (p, p) }"],
}
TYPES = {torch.float32: "float", torch.float64: "double"}


@sample(flex_attention)
def _(d: Draw) -> Call:
    batch, kv_heads, groups, queries, keys, head, v_head = [d.integer(1, 3) for _ in range(7)]
    wide = torch.promote_types(d.dtype("T1"), torch.float32)
    precision = d.choice([None, wide, torch.float64])  # the oracles differ in narrower types
    kind = TYPES[precision or wide]
    mods = {
        name: onnx.parser.parse_graph(text.replace("T ", f"{kind}[b, h, l, s] "))
        for name, texts in BODIES.items()
        if (text := d.choice([None, *texts])) is not None
    }
    return call(
        d.tensor((batch, kv_heads * groups, queries, head), "T1", lo=-2, hi=2),
        d.tensor((batch, kv_heads, keys, head), "T1", lo=-2, hi=2),
        d.tensor((batch, kv_heads, keys, v_head), "T1", lo=-2, hi=2),
        scale=d.maybe(d.real(0.25, 1)),
        softmax_precision=precision,
        **mods,
    )
