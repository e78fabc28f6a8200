"""QEmbedLayerNormalization: the embeddings of BERT from tables of 8-bit integers."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from onnxinterp.ops.contrib.quantized_numbers import dequantize, draw_settings, settings
from onnxinterp.ops.contrib.registration import REQUIRED, contrib_op
from onnxinterp.registry import sample
from onnxinterp.testing.samples import Call, Draw, call

TABLES = ("word_embedding", "position_embedding", "segment_embedding", "gamma", "beta")


@contrib_op("QEmbedLayerNormalization", frozen=settings(*TABLES))
def q_embed_layer_normalization(
    input_ids: Tensor,
    segment_ids: Tensor | None = None,
    word_embedding_quant: Tensor = REQUIRED,
    position_embedding_quant: Tensor = REQUIRED,
    segment_embedding: Tensor | None = None,
    gamma_quant: Tensor = REQUIRED,
    beta_quant: Tensor = REQUIRED,
    mask: Tensor | None = None,
    word_embedding_scale: Tensor = REQUIRED,
    position_embedding_scale: Tensor = REQUIRED,
    segment_embedding_scale: Tensor | None = None,
    gamma_scale: Tensor = REQUIRED,
    beta_scale: Tensor = REQUIRED,
    word_embedding_zero_point: Tensor = REQUIRED,
    position_embedding_zero_point: Tensor = REQUIRED,
    segment_embedding_zero_point: Tensor | None = None,
    gamma_zero_point: Tensor = REQUIRED,
    beta_zero_point: Tensor = REQUIRED,
    *,
    epsilon: float = 9.999999960041972e-13,
) -> tuple[Tensor, Tensor]:
    """The second output is the number of ones of each row of the mask, 0 without a mask."""
    if input_ids.ndim != 2:
        raise ValueError(f"input_ids must be [batch, steps], got {list(input_ids.shape)}")
    batch, steps = input_ids.shape
    hidden = word_embedding_quant.shape[-1]
    _check_tables(word_embedding_quant, position_embedding_quant, segment_embedding, hidden)
    words = functional.embedding(input_ids, word_embedding_quant)
    total = dequantize(words, word_embedding_scale, word_embedding_zero_point)
    places = position_embedding_quant.narrow(0, 0, steps)
    total = total + dequantize(places, position_embedding_scale, position_embedding_zero_point)
    if segment_ids is not None:
        if segment_embedding is None or segment_embedding_scale is None:
            raise ValueError("segment_ids need segment_embedding and its scale")
        _check_ids(segment_ids, input_ids)
        segments = functional.embedding(segment_ids, segment_embedding)
        total = total + dequantize(segments, segment_embedding_scale, segment_embedding_zero_point)
    gamma = dequantize(gamma_quant, gamma_scale, gamma_zero_point)
    beta = dequantize(beta_quant, beta_scale, beta_zero_point)
    y = functional.layer_norm(total, [hidden], gamma, beta, epsilon).to(gamma_scale.dtype)
    if mask is None:
        return y, input_ids.new_zeros(batch)
    _check_ids(mask, input_ids)
    return y, (mask == 1).sum(1, dtype=torch.int32)


def _check_ids(x: Tensor, input_ids: Tensor) -> None:
    if x.shape != input_ids.shape:
        raise ValueError(f"ids and mask must be {list(input_ids.shape)}, got {list(x.shape)}")


def _check_tables(words: Tensor, places: Tensor, segments: Tensor | None, hidden: int) -> None:
    for table in (words, places, segments):
        if table is not None and (table.ndim != 2 or table.shape[1] != hidden):
            raise ValueError(f"an embedding must be [.., {hidden}], got {list(table.shape)}")


@sample(q_embed_layer_normalization)
def _(d: Draw) -> Call:
    batch, steps, hidden = d.integer(1, 3), d.integer(1, 4), d.integer(2, 6)
    has_segments = d.boolean()
    rows = {"word_embedding": 7, "position_embedding": steps + d.integer(0, 2)}
    rows["segment_embedding"] = 2
    tables: dict[str, Tensor | None] = {
        n: d.tensor((count, hidden), "T2", -128, 255) for n, count in rows.items()
    }
    tables |= {n: d.tensor((hidden,), "T2", -128, 255) for n in ("gamma", "beta")}
    pairs: dict[str, tuple[Tensor | None, Tensor | None]] = {
        n: draw_settings(d, "T2") for n in TABLES
    }
    if not has_segments:
        tables["segment_embedding"] = None
        pairs["segment_embedding"] = None, None
    return call(
        d.ints((batch, steps), 0, 6, torch.int32),
        d.ints((batch, steps), 0, 1, torch.int32) if has_segments else None,
        *tables.values(),
        d.maybe(d.ints((batch, steps), 0, 1, torch.int32)),
        *(scale for scale, _ in pairs.values()),
        *(zero for _, zero in pairs.values()),
        epsilon=d.maybe(d.real(1e-6, 1e-3)),
        outputs=2,
    )
