"""LoRA: a weight plus a trainable product of two small matrices (Hu et al., 2021).

Source: https://arxiv.org/abs/2106.09685. The names, the scale and the initial values are those of
PEFT, which adds the product to the outputs of a layer instead; in real numbers this is the same.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class LoRA(nn.Module):
    """The parametrization weight + alpha / rank * B @ A.

    A weight of rank 2 is one matrix. So is one of higher rank, with a row for each first index, as
    in a convolution: its B is [out, rank], its A [rank, in * kernel]. One of rank 3 may also be a
    stack of matrices (recurrent layers have one for each direction), with a B and an A for each:
    the form with fewer elements is used.

    Attributes:
        rank: the number of columns of B and rows of A.
        alpha: the scale of the product, multiplied by `rank`.
        lora_A: [rank, columns] or [stack, rank, columns], uniform in +-1 / sqrt(columns).
        lora_B: [rows, rank] or [stack, rows, rank], zero at the start.

    Args:
        weight: gives shape, dtype and device. Both matrices of a weight of 16 bits are float32.
        rank: as the attribute.
        alpha: as the attribute.

    Raises:
        ValueError: the weight has rank 0 or 1, or is not floating with 16 bits or more.
    """

    def __init__(self, weight: Tensor, rank: int, alpha: float) -> None:
        super().__init__()
        if weight.ndim < 2 or not weight.is_floating_point() or weight.itemsize < 2:
            what = f"{weight.dtype}{list(weight.shape)}"
            raise ValueError(f"weight must be floating, of 16 bits and rank 2 or more, got {what}")
        self.rank = rank
        self.alpha = alpha
        *stack, rows, columns = _matrices(weight.shape)
        dtype = torch.promote_types(weight.dtype, torch.float32)
        self.lora_A = nn.Parameter(weight.new_empty([*stack, rank, columns], dtype=dtype))
        self.lora_B = nn.Parameter(weight.new_zeros([*stack, rows, rank], dtype=dtype))
        bound = 1 / math.sqrt(max(columns, 1))  # Kaiming's for a slope of sqrt(5), as in nn.Linear
        nn.init.uniform_(self.lora_A, -bound, bound)

    def forward(self, weight: Tensor) -> Tensor:
        """Return the sum, in the dtype of the weight."""
        product = (self.alpha / self.rank * self.lora_B) @ self.lora_A
        return (weight + product.reshape(weight.shape)).to(weight.dtype)

    def extra_repr(self) -> str:
        """Rank and alpha."""
        return f"rank={self.rank}, alpha={self.alpha}"


def _matrices(shape: torch.Size) -> tuple[int, ...]:
    """The sizes of a weight as one matrix, or as a stack of them."""
    rows, columns = shape[0], math.prod(shape[1:])
    if len(shape) == 3 and shape[0] * (shape[1] + shape[2]) < rows + columns:
        return tuple(shape)
    return rows, columns
