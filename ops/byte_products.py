"""Products of 8-bit integers by the instructions that processors have for them.

torch sums such products in 32-bit integers, some ten times as fast as float64 does. Processors
without VNNI sum pairs in 16 bits, where 255 * 127 + 255 * 127 saturates. So VNNI is required, and
the first call compares a few products with those of float64. Zero points are factored out:

    sum of (a - p) * (b - q) = sum of a * b - p * sum of b - q * sum of a + terms * p * q
"""

from __future__ import annotations

import itertools
from functools import cache

import torch
from torch import Tensor

from onnxinterp.ops.eager import is_captured, is_eager

BYTES = {torch.uint8, torch.int8}
MAX_TERMS = 2**15  # of a sum: terms * 255 * 255 < 2**31
MIN_PRODUCTS = 2**18  # of one matrix; fewer are faster in float64
SHIFT = 128  # from uint8 to int8
PROBES = ((1, 64, 64), (64, 256, 48), (7, 31, 5), (3, 515, 1), (33, 2, 17))  # rows, terms, columns


def product(
    a: Tensor, b: Tensor, a_zero: Tensor | None = None, b_zero: Tensor | None = None
) -> Tensor | None:
    """The product of a - a_zero and b - b_zero as int32; None where float64 must compute it.

    Args:
        a: matrices [..., m, k].
        b: matrices [..., k, n].
        a_zero: a number, or one per row [..., m, 1].
        b_zero: a number, or one per column [n] or [..., 1, n].
    """
    if is_captured() or not _is_product(a, b) or not _fits(a_zero, a, -1):
        return None
    if not _fits(b_zero, b, -2) or not is_eager(a, b, a_zero, b_zero) or not is_exact(a, b):
        return None
    return centred_product(a, signed(b), zero_of(a_zero), zero_of(b_zero, shift=b.dtype))


def centred_product(a: Tensor, b: Tensor, p: Tensor | None, q: Tensor | None) -> Tensor:
    """The product of a - p and b - q, where b is int8 and p and q are int32 (None is 0)."""
    total, terms = _multiply(a, b), a.shape[-1]
    if p is not None:
        total.sub_(p * _multiply(b.new_ones((1, terms)), b))
    if q is not None:
        total.sub_(q * _multiply(a, b.new_ones((terms, 1))))
    if p is not None and q is not None:
        total.add_(terms * p * q)
    return total


def signed(x: Tensor) -> Tensor:
    """X as int8: of uint8, x - 128."""
    return x if x.dtype is torch.int8 else (x ^ SHIFT).view(torch.int8)


def zero_of(zero: Tensor | None, shift: torch.dtype | None = None) -> Tensor | None:
    """A zero point as int32; None where it is 0. Its numbers, which may change, are not read.

    Args:
        zero: of values of its type; None is 0.
        shift: uint8 for that of their `signed` values.
    """
    if shift is torch.uint8:
        zero = torch.zeros((), dtype=torch.uint8) if zero is None else zero
        return zero.to(torch.int32) - SHIFT
    return None if zero is None or not zero.any() else zero.to(torch.int32)


def is_exact(*tensors: Tensor) -> bool:
    """Whether products of these tensors are exact on this processor."""
    enabled: bool = torch._C._get_mkldnn_enabled()
    return BYTES.issuperset([t.dtype for t in tensors]) and enabled and _is_processor_exact()


@cache
def _is_processor_exact() -> bool:
    """Whether this processor has the instructions, and torch's products of them are exact."""
    has_vnni = getattr(torch.cpu, "_is_vnni_supported", lambda: False)
    if not hasattr(torch, "_int_mm") or not torch._C._has_mkldnn or not has_vnni():
        return False
    try:
        return all(_is_right(*sizes, dtype) for sizes in PROBES for dtype in BYTES)
    except RuntimeError:
        return False  # this torch has no such product


def _is_right(rows: int, terms: int, columns: int, dtype: torch.dtype) -> bool:
    """Whether a product of the largest numbers, and one of different numbers, is right."""
    ends = torch.iinfo(dtype)
    a = torch.arange(rows * terms).reshape(rows, terms) % 256 + ends.min
    b = torch.arange(terms * columns).reshape(terms, columns) * 37 % 256 - 128
    lefts = a, torch.full_like(a, ends.max), torch.full_like(a, ends.min)
    rights = b, torch.full_like(b, 127), torch.full_like(b, -128)
    for x, y in itertools.product(lefts, rights):
        for last in (y, y.T.contiguous().T):
            got = torch._int_mm(x.to(dtype), last.to(torch.int8))
            if not torch.equal(got.double(), x.double() @ y.double()):
                return False
    return True


def _is_product(a: Tensor, b: Tensor) -> bool:
    """Whether types and sizes are those of a product that is faster in integers."""
    if a.dtype not in BYTES or b.dtype not in BYTES or a.ndim < 2 or b.ndim < 2:
        return False
    if a.shape[-1] != b.shape[-2] or a.shape[-1] > MAX_TERMS:
        return False
    if not a.numel() or not b.numel():
        return False
    rows = a.shape[-2] if b.ndim > 2 else a.numel() // a.shape[-1]
    return rows * b.shape[-2] * b.shape[-1] >= MIN_PRODUCTS


def _fits(zero: Tensor | None, x: Tensor, axis: int) -> bool:
    """Whether a zero point broadcasts to x and is the same along `axis`, that of the terms."""
    if zero is None:
        return True
    if zero.ndim > x.ndim or (zero.ndim >= -axis and zero.shape[axis] != 1):
        return False
    pairs = zip(reversed(zero.shape), reversed(x.shape), strict=False)
    return all(n in (1, size) for n, size in pairs)


def _multiply(a: Tensor, b: Tensor) -> Tensor:
    if b.ndim == 2:
        flat = torch._int_mm(_dense(a.reshape(-1, a.shape[-1])), _dense(b))
        return flat.reshape(*a.shape[:-1], b.shape[1])
    leading = a.shape[:-2], b.shape[:-2]
    batch = torch.broadcast_shapes(*leading)  # type: ignore[no-untyped-call]  # untyped in torch
    left = a.expand(*batch, *a.shape[-2:]).flatten(0, -3)
    right = b.expand(*batch, *b.shape[-2:]).flatten(0, -3)
    pairs = zip(map(_dense, left), map(_dense, right), strict=True)
    totals = torch.stack([torch._int_mm(x, y) for x, y in pairs])
    return totals.reshape(*batch, a.shape[-2], b.shape[-1])


def _dense(x: Tensor) -> Tensor:
    return x if x.is_contiguous() or x.mT.is_contiguous() else x.contiguous()
