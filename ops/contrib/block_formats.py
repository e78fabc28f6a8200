"""Rows in the block formats of GGML: GatherPacked.

A block is a few bytes for 32 or 256 numbers: scales in float16, and the bits of the numbers in
parts that are strided for vectors. The names of the formats are those of GGML.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from onnxinterp.ops.contrib.registration import contrib_op
from onnxinterp.ops.packed_blocks import check_shape
from onnxinterp.registry import sample
from onnxinterp.testing.samples import Call, Draw, call

IQ4 = (-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113)


class Format(NamedTuple):
    """A block format.

    Attributes:
        size: of a block, in numbers.
        n_bytes: of a block.
        halves: where its float16 scales are.
        numbers: the numbers [..., size] of blocks [..., n_bytes].
    """

    size: int
    n_bytes: int
    halves: tuple[int, ...]
    numbers: Callable[[Tensor], Tensor]


def _half(block: Tensor, place: int) -> Tensor:
    """The float16 at a place of each block; [..., 1]."""
    return block[..., place : place + 2].contiguous().view(torch.float16).float()


def _halves(packed: Tensor) -> Tensor:
    """The low 4 bits of some bytes, then their high ones."""
    return torch.cat((packed & 15, packed >> 4), -1)


def _bits(packed: Tensor, width: int = 1) -> Tensor:
    """The bits of some bytes, `width` at a time, the low ones first: [..., 8 / width, bytes]."""
    parts = [(packed >> shift) & (2**width - 1) for shift in range(0, 8, width)]
    return torch.stack(parts, -2)


def _q4_0(block: Tensor) -> Tensor:
    return _half(block, 0) * (_halves(block[..., 2:]).float() - 8)


def _q5_0(block: Tensor) -> Tensor:
    fifth = _bits(block[..., 2:6]).mT.flatten(-2)
    return _half(block, 0) * ((_halves(block[..., 6:]) + 16 * fifth).float() - 16)


def _q8_0(block: Tensor) -> Tensor:
    return _half(block, 0) * block[..., 2:].contiguous().view(torch.int8).float()


def _q5_k(block: Tensor) -> Tensor:
    """8 parts of 32, each with a scale and an offset of 6 bits."""
    settings = block[..., 4:16]
    low, high = settings[..., :8] & 63, settings[..., :8] >> 6
    last = settings[..., 8:]
    scale = torch.cat((low[..., :4], (last & 15) | (high[..., :4] << 4)), -1)
    offset = torch.cat((low[..., 4:], (last >> 4) | (high[..., 4:] << 4)), -1)
    four = _bits(torch.unflatten(block[..., 48:], -1, (4, 32)), 4).flatten(-3, -2)
    numbers = four + 16 * _bits(block[..., 16:48])
    scales = (_half(block, 0) * scale.float()).unsqueeze(-1)
    offsets = (_half(block, 2) * offset.float()).unsqueeze(-1)
    return (scales * numbers.float() - offsets).flatten(-2)


def _q6_k(block: Tensor) -> Tensor:
    """16 parts of 16, each with a scale of 8 bits."""
    four = _bits(torch.unflatten(block[..., :128], -1, (2, 64)), 4).flatten(-2)
    two = _bits(torch.unflatten(block[..., 128:192], -1, (2, 32)), 2).flatten(-2)
    numbers = (four + 16 * two).flatten(-2).float() - 32
    scale = block[..., 192:208].contiguous().view(torch.int8).float() * _half(block, 208)
    return (torch.unflatten(numbers, -1, (16, 16)) * scale.unsqueeze(-1)).flatten(-2)


def _iq4(packed: Tensor) -> Tensor:
    """The numbers of a table, for 4 bits each."""
    return torch.tensor(IQ4, dtype=torch.float32, device=packed.device)[_halves(packed).int()]


def _iq4_nl(block: Tensor) -> Tensor:
    return _half(block, 0) * _iq4(block[..., 2:])


def _iq4_xs(block: Tensor) -> Tensor:
    """8 parts of 32, each with a scale of 6 bits."""
    high = _bits(block[..., 2:4], 2).mT.flatten(-2)
    low = _bits(block[..., 4:8], 4).mT.flatten(-2)
    scale = _half(block, 0) * ((low | (high << 4)).float() - 32)
    return (scale.unsqueeze(-1) * _iq4(torch.unflatten(block[..., 8:], -1, (8, 16)))).flatten(-2)


FORMATS = {
    2: Format(32, 18, (0,), _q4_0),
    6: Format(32, 22, (0,), _q5_0),
    8: Format(32, 34, (0,), _q8_0),
    13: Format(256, 176, (0, 2), _q5_k),
    14: Format(256, 210, (208,), _q6_k),
    20: Format(32, 18, (0,), _iq4_nl),
    23: Format(256, 136, (0,), _iq4_xs),
}


@contrib_op(
    "GatherPacked", infer_output_type=lambda attributes, _types: attributes.get("output_dtype", 16)
)
def gather_packed(
    data: Tensor,
    indices: Tensor,
    *,
    K: int,
    output_dtype: torch.dtype = torch.bfloat16,
    packed_type: Literal[2, 6, 8, 13, 14, 20, 23],
) -> Tensor:
    """Rows of bytes as floats. An index out of range, also a negative one, selects row 0."""
    form = FORMATS[packed_type]
    if K < 1 or K % form.size:
        raise ValueError(f"K must be a multiple of {form.size}, got {K}")
    check_shape("data", data, (data.shape[0], K // form.size * form.n_bytes))
    places = indices.long().flatten()
    places = torch.where((places >= 0) & (places < data.shape[0]), places, 0)
    blocks = torch.unflatten(data.index_select(0, places), 1, (-1, form.n_bytes))
    return form.numbers(blocks).to(output_dtype).reshape((*indices.shape, K))


@sample(gather_packed)
def _(d: Draw) -> Call:
    packed_type = d.choice(list(FORMATS))
    form = FORMATS[packed_type]
    rows, blocks = d.integer(1, 4), d.integer(1, 2)
    data = d.ints((rows, blocks, form.n_bytes), 0, 255, torch.uint8)
    for place in form.halves:
        scale = d.ints((rows, blocks, 1), 1, 64).to(torch.float16) / 64
        data[..., place : place + 2] = scale.view(torch.uint8)
    return call(
        data.flatten(1),
        d.ints(d.shape(max_dims=2), -1, rows, d.dtype("Tind")),
        K=blocks * form.size,
        packed_type=packed_type,
        output_dtype=d.elem_type("T2") if d.dtype("T2") is not torch.bfloat16 else d.maybe(16),
    )
