"""Quantization of a call without gradients, in place, gives the numbers of the one with them."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from onnxinterp.ops import quantization
from onnxinterp.ops.quantization import (
    dequantize_linear,
    dynamic_quantize_linear,
    quantize_linear,
    quantize_linear_19,
)

TYPES = (torch.uint8, torch.int8, torch.uint16, torch.int16)
FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
SPECIAL = [0.0, -0.0, math.inf, -math.inf, math.nan, 1e30, -1e30, 0.5, 1.5, -0.5, 2.5]


def values(dtype: torch.dtype) -> Tensor:
    """Multiples of a half, of which many are half way between integers, and special numbers."""
    halves = torch.arange(-400, 400) / 2
    noise = 40 * torch.randn(200, generator=torch.Generator().manual_seed(0))
    flat = torch.cat([halves, noise, torch.tensor(SPECIAL)]).to(dtype)
    return flat[: len(flat) // 4 * 4].reshape(2, 4, -1)[..., : len(flat) // 8]


def settings(kind: str, dtype: torch.dtype, zeros: torch.dtype) -> tuple[Tensor, Tensor]:
    if kind == "tensor":
        return torch.tensor(0.37, dtype=dtype), torch.tensor(3).to(zeros)
    scale = torch.tensor([0.37, 1.0, 2.0, 0.01], dtype=dtype)
    return scale, torch.tensor([3, 0, 100, 7]).to(zeros)


@pytest.fixture(autouse=True)
def at_all_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few numbers, too, for which the order of the functions does not matter."""
    monkeypatch.setattr(quantization, "MIN_ELEMENTS", 1)


def both(
    monkeypatch: pytest.MonkeyPatch, function: Any, *args: Any, **attributes: Any
) -> list[Any]:
    """The results of a function in place, and as with gradients or in a graph."""
    copies = [a.clone() if isinstance(a, Tensor) else a for a in args]
    got = function(*args, **attributes)
    for arg, copy in zip(args, copies, strict=True):
        torch.testing.assert_close(arg, copy, rtol=0, atol=0, equal_nan=True)
    with monkeypatch.context() as patch:
        patch.setattr(quantization, "is_eager", lambda *_, **__: False)
        return [got, function(*args, **attributes)]


def same(got: Any, want: Any) -> bool:
    if isinstance(got, tuple):
        return all(map(same, got, want))

    return got.dtype is want.dtype and torch.equal(got.nan_to_num(7), want.nan_to_num(7))


@pytest.mark.parametrize("kind", ["tensor", "axis"])
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("quantized", TYPES)
@pytest.mark.parametrize("straight", [False, True])
@pytest.mark.parametrize("kernel", [quantize_linear, quantize_linear_19])
def test_quantize(
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    dtype: torch.dtype,
    quantized: torch.dtype,
    straight: bool,
    kernel: Any,
) -> None:
    scale, zero = settings(kind, dtype, quantized)
    got, want = both(monkeypatch, kernel, values(dtype), scale, zero, straight_through=straight)
    assert same(got, want)
    assert got.dtype.is_floating_point == straight
    assert len(got.double().unique()) > 100


@pytest.mark.parametrize("kind", ["tensor", "axis"])
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("stored", [*TYPES, torch.float32, torch.int32])
def test_dequantize(
    monkeypatch: pytest.MonkeyPatch, kind: str, dtype: torch.dtype, stored: torch.dtype
) -> None:
    zeros = torch.uint8 if stored.is_floating_point else stored
    scale, zero = settings(kind, dtype, zeros)
    x = torch.arange(128).reshape(2, 4, 16).to(stored)
    for shift in (zero, None):
        assert same(*both(monkeypatch, dequantize_linear, x, scale, shift))


@pytest.mark.parametrize("straight", [False, True])
@pytest.mark.parametrize(
    "x",
    [torch.randn(50, 3), torch.rand(9) + 1, -torch.rand(9) - 1, torch.zeros(3), torch.ones(0),
     torch.tensor([math.nan, 1]), torch.tensor([math.inf, 1]), torch.tensor(2.0)],
    ids=["", "positive", "negative", "zeros", "empty", "nan", "inf", "scalar"],
)  # fmt: skip
def test_dynamic(monkeypatch: pytest.MonkeyPatch, x: Tensor, straight: bool) -> None:
    assert same(*both(monkeypatch, dynamic_quantize_linear, x, straight_through=straight))


def test_gradients_do_not_pass_in_place() -> None:
    """What needs gradients is computed by functions that have them."""
    x = torch.randn(9, requires_grad=True)
    y = quantize_linear(
        x, torch.tensor(0.1), torch.tensor(3, dtype=torch.uint8), straight_through=True
    )
    dequantize_linear(y, torch.tensor(0.1), torch.tensor(3, dtype=torch.uint8)).sum().backward()
    assert x.grad is not None
    assert bool((x.grad != 0).any())
