"""Embeddings: EmbedLayerNormalization, the first node of a BERT that onnxruntime optimized.

TorchEmbedding is nn.Embedding in graphs that onnxruntime exports for training.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from onnxinterp.ops.contrib.registration import contrib_op
from onnxinterp.ops.normalization import NARROW
from onnxinterp.registry import sample
from onnxinterp.testing.samples import Call, Draw, call


@contrib_op("EmbedLayerNormalization", strings=False)
def embed_layer_normalization(
    input_ids: Tensor,
    segment_ids: Tensor | None,
    word_embedding: Tensor,
    position_embedding: Tensor,
    segment_embedding: Tensor | None,
    gamma: Tensor,
    beta: Tensor,
    mask: Tensor | None = None,
    position_ids: Tensor | None = None,
    *,
    epsilon: float = 1e-12,
    mask_index_type: int | None = None,  # noqa: ARG001  # for shape inference
) -> tuple[Tensor, Tensor, Tensor]:
    """`mask_index` is the number of ones in each row of the mask, 0 without a mask.

    The sum of halves is not rounded before it is normalized. Without segment ids, each word is of
    segment 0.
    """
    _check_ids(input_ids, segment_ids, position_ids, mask)
    if segment_ids is not None and segment_embedding is None:
        raise ValueError("segment_ids need a segment_embedding")
    _check_tables(gamma, beta, word_embedding, position_embedding, segment_embedding)
    if position_ids is None:
        position_ids = torch.arange(input_ids.shape[1], device=input_ids.device)[None]
    total = _wide(word_embedding, input_ids) + _wide(position_embedding, position_ids)
    if segment_embedding is not None:
        ids = torch.zeros_like(input_ids) if segment_ids is None else segment_ids
        total = total + _wide(segment_embedding, ids)
    gamma, beta = gamma.to(total.dtype), beta.to(total.dtype)
    y = functional.layer_norm(total, total.shape[-1:], gamma, beta, epsilon)
    ones = torch.zeros_like(input_ids) if mask is None else mask == 1
    dtype = word_embedding.dtype
    return y.to(dtype), ones.sum(1, dtype=torch.int32), total.to(dtype)


def _wide(table: Tensor, ids: Tensor) -> Tensor:
    """The rows of an embedding, halves as float32."""
    rows: Tensor = functional.embedding(ids, table)
    return rows.float() if rows.dtype in NARROW else rows


def _check_ids(
    ids: Tensor, segments: Tensor | None, positions: Tensor | None, mask: Tensor | None
) -> None:
    """Check sizes that torch would broadcast; only positions may be those of one entry."""
    if ids.ndim != 2:
        raise ValueError(f"input_ids must be 2-D, got {list(ids.shape)}")
    shape = ids.shape
    for name, other in (("segment_ids", segments), ("mask", mask), ("position_ids", positions)):
        one_row = name == "position_ids" and other is not None and other.shape == (1, shape[1])
        if other is not None and other.shape != shape and not one_row:
            raise ValueError(f"{name} must be {list(shape)}, got {list(other.shape)}")


def _check_tables(gamma: Tensor, beta: Tensor, *tables: Tensor | None) -> None:
    """Check widths that torch would broadcast."""
    if gamma.ndim != 1 or beta.shape != gamma.shape:
        raise ValueError(f"gamma and beta must be [H], got {list(gamma.shape)}, {list(beta.shape)}")
    for table in tables:
        if table is not None and (table.ndim != 2 or table.shape[1] != gamma.shape[0]):
            wanted = f"[rows, {gamma.shape[0]}]"
            raise ValueError(f"an embedding must be {wanted}, got {list(table.shape)}")


@contrib_op("TorchEmbedding", strings=False)
def torch_embedding(
    weight: Tensor,
    indices: Tensor,
    padding_idx: int | None = None,
    scale_grad_by_freq: bool | None = None,
) -> Tensor:
    """The last two inputs change gradients only."""
    if weight.ndim != 2:
        raise ValueError(f"weight must be 2-D, got {list(weight.shape)}")
    scales = bool(scale_grad_by_freq)
    rows: Tensor = functional.embedding(indices, weight, padding_idx, scale_grad_by_freq=scales)
    return rows


@sample(embed_layer_normalization)
def _(d: Draw) -> Call:
    """The first column stands apart, so that no variance is near 0. onnxruntime wants 2 outputs."""
    shape, hidden = d.shape(min_dims=2, max_dims=2), d.integer(2, 5)
    words, places, segments = d.integer(1, 5), shape[1] + d.integer(0, 2), d.integer(1, 3)

    def ids(count: int, shape: tuple[int, ...] = shape) -> Tensor:
        return d.ints(shape, 0, count - 1, torch.int32)

    def table(rows: int) -> Any:
        return d.tensor((rows, hidden), lo=-1, hi=1)

    word_embedding, typed = table(words), d.maybe(table(segments))
    word_embedding[:, :1] += 8
    parameters = [d.tensor((hidden,), lo=-1, hi=1) for _ in range(2)]
    return call(
        ids(words),
        None if typed is None else d.maybe(ids(segments)),
        word_embedding,
        table(places),
        typed,
        *parameters,
        d.maybe(d.ints(shape, 0, 2, torch.int32)),
        d.maybe(ids(places, d.choice([shape, (1, shape[1])]))),
        epsilon=d.maybe(d.real(0.25, 1)),
        mask_index_type=d.maybe(d.integer(0, 1)),
        outputs=d.integer(2, 3),
    )


@sample(torch_embedding)
def _(d: Draw) -> Call:
    """Different indices but that of the padding, so that gradients are the slopes."""
    rows = d.integer(2, 6)
    order = d.permutation(rows)
    indices = torch.tensor(order[1:]).reshape(d.choice([(-1,), (1, -1)]))
    weight = d.tensor((rows, d.integer(1, 4)))
    scaled = d.maybe(torch.tensor(d.boolean()))
    return call(weight, indices, d.maybe(order[0]), scaled)
