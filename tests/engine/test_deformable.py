"""DeformConv where no oracle runs it: in one and three dimensions, in halves, at nan."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from onnxinterp.registry import lookup

CONVOLUTIONS = {1: functional.conv1d, 2: functional.conv2d, 3: functional.conv3d}


def deform_conv(x: Tensor, w: Tensor, offset: Tensor) -> Tensor:
    kernel = lookup("DeformConv", 22)
    assert kernel is not None
    result = kernel.function(x, w, offset)
    assert isinstance(result, Tensor)
    return result


def drawn(rank: int, *, size: int = 5, kernel: int = 2) -> tuple[Tensor, Tensor, tuple[int, ...]]:
    """An image, filters, and the shape of the offsets."""
    x = torch.randn(2, 4, *[size] * rank)
    w = torch.randn(3, 4, *[kernel] * rank)
    return x, w, (2, rank * kernel**rank, *[size - kernel + 1] * rank)


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_without_offsets_it_is_a_convolution(rank: int) -> None:
    x, w, shape = drawn(rank)
    torch.testing.assert_close(deform_conv(x, w, torch.zeros(shape)), CONVOLUTIONS[rank](x, w))


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_equal_offsets_shift_the_image(rank: int) -> None:
    x, w, shape = drawn(rank)
    shifted = x.roll(-1, 2)
    shifted.select(2, -1).zero_()  # what comes in from outside
    offset = torch.zeros(shape)
    offset[:, ::rank] = 1  # of the first axis
    torch.testing.assert_close(deform_conv(x, w, offset), CONVOLUTIONS[rank](shifted, w))


@pytest.mark.parametrize("size", [1, 2])
def test_small_images(size: int) -> None:
    x, w, shape = drawn(2, size=size, kernel=1)
    torch.testing.assert_close(deform_conv(x, w, torch.zeros(shape)), functional.conv2d(x, w))


def test_halves_find_their_pixel_in_a_wide_image() -> None:
    x = torch.arange(3000.0).remainder(7).reshape(1, 1, 1, -1).half()
    w, offset = torch.ones(1, 1, 1, 1).half(), torch.zeros(1, 2, 1, 3000).half()
    torch.testing.assert_close(deform_conv(x, w, offset), x, rtol=0, atol=2e-3)


def test_an_offset_that_is_nan_harms_one_output_at_most() -> None:
    x, w, shape = drawn(2)
    offset = torch.zeros(shape)
    offset[0, 0, 0, 0] = torch.nan
    y, want = deform_conv(x, w, offset), functional.conv2d(x, w)
    torch.testing.assert_close(y[1], want[1])
    torch.testing.assert_close(y[0, :, 1:], want[0, :, 1:])
