"""Attention over blocks of a cache: SparseAttention, which Phi-3-small has.

The blocks that a block of queries sees are the columns of a sparse matrix in CSR form, one matrix
for each layout; heads have the layouts in turns.
"""

from __future__ import annotations

import torch
from torch import Tensor

from onnxinterp.ops.contrib.grouped_attention import attend, rotate_heads, split_heads, visible
from onnxinterp.ops.contrib.key_value_cache import check_cache
from onnxinterp.ops.contrib.registration import contrib_op
from onnxinterp.registry import sample
from onnxinterp.testing.samples import Call, Draw, call
from onnxinterp.values import Flag, is_known


@contrib_op("SparseAttention", frozen=("cos_cache", "sin_cache"))
def sparse_attention(
    query: Tensor,
    key: Tensor | None = None,
    value: Tensor | None = None,
    past_key: Tensor | None = None,
    past_value: Tensor | None = None,
    block_row_indices: Tensor | None = None,
    block_col_indices: Tensor | None = None,
    total_sequence_length: int | None = None,
    key_total_sequence_lengths: Tensor | None = None,
    cos_cache: Tensor | None = None,
    sin_cache: Tensor | None = None,
    *,
    do_rotary: Flag | None = None,
    kv_num_heads: int,
    num_heads: int,
    rotary_interleaved: Flag | None = None,
    scale: float | None = None,
    sparse_block_size: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Causal, with the past in buffers of the size of the present.

    onnxruntime writes into the past; here it stays as it is.
    """
    assert past_key is not None, "past_key must be given"
    assert past_value is not None, "past_value must be given"
    assert block_row_indices is not None, "block_row_indices must be given"
    assert block_col_indices is not None, "block_col_indices must be given"
    assert total_sequence_length is not None, "total_sequence_length must be given"
    assert key_total_sequence_lengths is not None, "key_total_sequence_lengths must be given"
    heads, values = split_heads(query, key, value, num_heads, kv_num_heads)
    batch, length = heads.shape[:2]
    if key_total_sequence_lengths.numel() != batch:
        got = list(key_total_sequence_lengths.shape)
        raise ValueError(f"key_total_sequence_lengths must be [{batch}], got {got}")
    ends = key_total_sequence_lengths.reshape(-1, 1) - 1
    starts = (ends + 1 - length).clamp_min(0)
    rows = starts + torch.arange(length, device=query.device)
    if do_rotary:
        heads = rotate_heads(heads, rows, rows, (cos_cache, sin_cache), bool(rotary_interleaved))
    q, k = heads.transpose(1, 2).tensor_split((num_heads,), 1)
    check_cache(past_key, past_value, k)
    _check_total(total_sequence_length, past_key.shape[2])
    slots = torch.arange(total_sequence_length, device=query.device)
    index, used = rows[:, None, :, None].expand_as(k), (slots <= ends)[:, None, :, None]
    presents = [
        past.scatter(2, index, new)
        for past, new in ((past_key, k), (past_value, values.transpose(1, 2)))
    ]
    keys, values = (x[:, :, : slots.shape[0]].where(used, 0) for x in presents)
    blocks = _block_mask(block_row_indices, block_col_indices, sparse_block_size, past_key.shape[2])
    row, column = rows // sparse_block_size, slots // sparse_block_size
    seen = blocks[:, row.unsqueeze(-1), column].transpose(0, 1)  # [batch, layout, length, column]
    if num_heads % seen.shape[1]:
        raise ValueError(f"layouts must divide {num_heads} heads, got {seen.shape[1]}")
    seen = seen.repeat(1, num_heads // seen.shape[1], 1, 1)
    allowed = visible(slots, rows, ends, True, -1) & seen
    inputs = q, keys, values, allowed, None
    y, _ = attend(*inputs, scale=scale, softcap=None, sink=None, qk_output=0)
    return y.transpose(1, 2).flatten(2), presents[0], presents[1]


def _check_total(total: int, slots: int) -> None:
    if is_known(total) and is_known(slots) and not 0 < total <= slots:
        raise ValueError(f"total_sequence_length must be 1 to {slots}, got {total}")


def _block_mask(rows: Tensor, columns: Tensor, size: int, slots: int) -> Tensor:
    """Which blocks a block of queries sees, [layouts, blocks, blocks]; its own sizes are shapes."""
    if rows.ndim != 2 or columns.ndim != 2 or rows.shape[0] != columns.shape[0] or size < 1:
        got = f"{list(rows.shape)}, {list(columns.shape)} and blocks of {size}"
        raise ValueError(f"there must be rows and columns of each layout, got {got}")
    blocks = rows.shape[1] - 1
    if blocks * size < slots:
        raise ValueError(f"the blocks must cover {slots} slots, got {blocks} of {size}")
    entry = torch.arange(columns.shape[1], device=rows.device).expand(columns.shape)
    row = torch.searchsorted(rows.long(), entry.contiguous(), right=True) - 1
    inside = (row >= 0) & (row < blocks) & (columns >= 0) & (columns < blocks)
    place = (row * blocks + columns).where(inside, blocks * blocks)
    mask = torch.zeros(rows.shape[0], blocks * blocks + 1, dtype=torch.bool, device=rows.device)
    mask = mask.scatter(1, place.long(), True)
    return torch.unflatten(mask[:, :-1], 1, (blocks, blocks))


@sample(sparse_attention)
def _(d: Draw) -> Call:
    layouts, kv_heads, groups = d.integer(1, 2), d.integer(1, 2), d.integer(1, 2)
    heads, size, head, blocks = layouts * kv_heads * groups, 16, 16, 2
    kv_heads *= layouts
    is_first = d.boolean()
    batch, total = d.integer(1, 2), d.integer(17, 32)
    length = total if is_first else 1
    rotary = d.boolean()
    layouts_drawn = [d.choice([[0, 0, 1], [0, 1, -1]]) for _ in range(layouts)]
    ends = [[0, 1, 3 if columns[1] == 0 else 2] for columns in layouts_drawn]
    parts = [(batch, length, n * head) for n in (heads, kv_heads, kv_heads)]
    inputs: list[Tensor | None] = [d.tensor(shape, lo=-1, hi=1) for shape in parts]
    if d.boolean():
        inputs = [torch.cat([x for x in inputs if x is not None], -1), None, None]
    cache = (batch, kv_heads, blocks * size, head)
    tables = [d.tensor((40, head // 2), lo=-1, hi=1) for _ in range(2)]
    return call(
        *inputs,
        d.tensor(cache, lo=-1, hi=1),
        d.tensor(cache, lo=-1, hi=1),
        torch.tensor(ends).int(),
        torch.tensor(layouts_drawn).int(),
        torch.tensor(total).int(),
        d.ints((batch,), 1 if is_first else 17, total, torch.int32),
        *(tables if rotary else (None, None)),
        do_rotary=1 if rotary else d.maybe(0),
        kv_num_heads=kv_heads,
        num_heads=heads,
        rotary_interleaved=d.maybe(d.integer(0, 1)),
        scale=d.maybe(d.real(0.25, 1)),
        sparse_block_size=size,
        outputs=3,
    )
