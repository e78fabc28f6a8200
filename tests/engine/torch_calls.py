"""Calls of torch with arguments that no valid model has, and what this torch makes of them.

Each is named by its own source. The answer tells the exception, or what came out.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable

import torch
from torch.nn import functional as F  # noqa: N812  # torch's own name for it

LOW = {t: torch.iinfo(t).min for t in (torch.int8, torch.int16, torch.int32, torch.int64)}
INTEGERS = "int8 int16 int32 int64".split()
BINARY = {
    "div trunc": lambda a, b: torch.div(a, b, rounding_mode="trunc"),
    "div floor": lambda a, b: torch.div(a, b, rounding_mode="floor"),
    "remainder": torch.remainder,
    "fmod": torch.fmod,
    "pow": torch.pow,
    "gcd": torch.gcd,
}
CALLS = """
torch.tensor([1.0, 2]).index_select(0, torch.tensor([5]))
torch.tensor([1.0, 2]).index_select(0, torch.tensor([-1]))
torch.tensor([1.0, 2]).gather(0, torch.tensor([5]))
torch.tensor([1.0, 2]).gather(0, torch.tensor([-1]))
torch.zeros(2, 3).gather(1, torch.zeros(3, 1, dtype=torch.int64))
torch.tensor([1.0, 2])[torch.tensor([5])]
torch.tensor([1.0, 2])[torch.tensor([-5])]
torch.take_along_dim(torch.tensor([1.0, 2]), torch.tensor([5]), 0)
torch.take_along_dim(torch.tensor([1.0, 2]), torch.tensor([-1]), 0)
torch.take(torch.tensor([1.0, 2]), torch.tensor([5]))
F.embedding(torch.tensor([5]), torch.zeros(2, 3))
F.embedding(torch.tensor([-1]), torch.zeros(2, 3))
F.embedding_bag(torch.tensor([[5]]), torch.zeros(2, 3), mode="sum")
F.embedding_bag(torch.tensor([[-1]]), torch.zeros(2, 3), mode="sum")
torch.zeros(2).scatter(0, torch.tensor([5]), torch.ones(1))
torch.zeros(2).scatter(0, torch.tensor([-1]), torch.ones(1))
torch.zeros(2).scatter_reduce(0, torch.tensor([5]), torch.ones(1), "sum")
torch.zeros(2).scatter_reduce(0, torch.tensor([-1]), torch.ones(1), "amax")
torch.zeros(2).index_add(0, torch.tensor([5]), torch.ones(1))
torch.zeros(2).index_add(0, torch.tensor([-1]), torch.ones(1))
torch.zeros(2, 2).index_add(1, torch.tensor([5]), torch.ones(2, 1))
torch.zeros(2, 2).index_add(-1, torch.tensor([-1]), torch.ones(2, 1))
torch.zeros(2).index_put([torch.tensor([5])], torch.ones(1))
torch.zeros(2).index_put([torch.tensor([5])], torch.ones(1), accumulate=True)
torch.zeros(2).index_put([torch.tensor([-5])], torch.ones(1), accumulate=True)
F.one_hot(torch.tensor([5]), 2)
F.one_hot(torch.tensor([-1]), 2)
F.nll_loss(torch.zeros(1, 2), torch.tensor([5]))
F.nll_loss(torch.zeros(1, 2), torch.tensor([-1]))
F.nll_loss(torch.zeros(1, 2, 1), torch.tensor([[5]]))
F.nll_loss(torch.zeros(1, 2, 1, 1), torch.tensor([[[5]]]))
F.nll_loss(torch.zeros(1, 2, 1, 1), torch.tensor([[[-1]]]))
F.nll_loss(torch.zeros(1, 2), torch.tensor([1]), weight=torch.ones(1))
F.nll_loss(torch.zeros(1, 2, 1, 1), torch.tensor([[[1]]]), weight=torch.ones(1))
F.max_unpool2d(torch.ones(1, 1, 1, 1), torch.tensor([[[[9]]]]), 2)
F.max_unpool2d(torch.ones(1, 1, 1, 1), torch.tensor([[[[-1]]]]), 2)
F.ctc_loss(torch.zeros(2, 1, 3), torch.tensor([[9]]), torch.tensor([2]), torch.tensor([1]))
F.grid_sample(torch.ones(1, 1, 2, 2), torch.full((1, 1, 1, 2), float("nan")), align_corners=False)
F.grid_sample(torch.ones(1, 1, 2, 2), torch.full((1, 1, 1, 2), 1e30), align_corners=False)
F.grid_sample(torch.ones(1, 1, 2, 2), torch.full((1, 1, 1, 2), 1e30), padding_mode="reflection", align_corners=False)
F.grid_sample(torch.ones(1, 1, 2, 2), torch.full((1, 1, 1, 2), float("nan")), "nearest", "border", align_corners=False)
F.grid_sample(torch.ones(1, 1, 0, 2), torch.zeros(1, 1, 1, 2), align_corners=False)
F.conv2d(torch.ones(1, 1, 3, 3), torch.ones(1, 1, 1, 1), stride=0)
F.conv2d(torch.ones(1, 1, 3, 3), torch.ones(1, 1, 1, 1), stride=-1)
F.conv2d(torch.ones(1, 1, 3, 3), torch.ones(1, 1, 1, 1), dilation=0)
F.conv2d(torch.ones(1, 1, 3, 3), torch.ones(1, 1, 2, 2), dilation=-1)
F.conv2d(torch.ones(1, 1, 3, 3), torch.ones(1, 1, 1, 1), padding=-1)
F.conv2d(torch.ones(1, 1, 3, 3), torch.ones(1, 1, 1, 1), groups=0)
F.conv2d(torch.ones(1, 1, 3, 3), torch.ones(1, 1, 1, 1), groups=-1)
F.conv2d(torch.ones(1, 1, 3, 3), torch.ones(1, 1, 0, 1))
F.conv2d(torch.ones(1, 2, 3, 3), torch.ones(3, 1, 1, 1), groups=2)
F.conv_transpose2d(torch.ones(1, 1, 3, 3), torch.ones(1, 1, 1, 1), stride=0)
F.conv_transpose2d(torch.ones(1, 1, 3, 3), torch.ones(1, 1, 1, 1), output_padding=5)
F.conv_transpose2d(torch.ones(1, 1, 3, 3), torch.ones(1, 1, 1, 1), groups=0)
F.max_pool2d(torch.ones(1, 1, 3, 3), 0)
F.max_pool2d(torch.ones(1, 1, 3, 3), 2, 0)
F.max_pool2d(torch.ones(1, 1, 3, 3), -1, 1)
F.max_pool2d(torch.ones(1, 1, 3, 3), 2, 1, dilation=0)
F.max_pool2d(torch.ones(1, 1, 3, 3), 2, 1, padding=5)
F.max_pool2d(torch.ones(1, 1, 3, 3), 2, 1, padding=-1)
F.avg_pool2d(torch.ones(1, 1, 3, 3), 0)
F.avg_pool2d(torch.ones(1, 1, 3, 3), -1, 1)
F.avg_pool2d(torch.ones(1, 1, 3, 3), 2, -1)
F.max_pool1d(torch.ones(1, 1, 3), 0)
F.avg_pool1d(torch.ones(1, 1, 3), 0)
F.max_pool3d(torch.ones(1, 1, 3, 3, 3), 0)
F.pad(torch.ones(1, 1, 3), [-5, 0])
F.pad(torch.ones(1, 1, 3), [5, 0], mode="reflect")
torch.ones(3).narrow(0, -9, 1)
torch.ones(3).narrow(0, 0, -1)
torch.ones(3).unfold(0, 2, 0)
torch.ones(3).unfold(0, 2, -1)
torch.ones(3).unfold(0, -1, 1)
torch.ones(3).unfold(0, 9, 1)
torch.ones(3).as_strided([9], [1])
torch.ones(3).repeat(-1)
torch.ones(1).expand(-2)
torch.ones(3).repeat_interleave(-1)
torch.ones(3).split(0)
torch.ones(3).split([4, -1])
torch.ones(3).split(-1)
torch.fft.fft(torch.ones(3), 0)
torch.fft.fft(torch.ones(3), -1)
torch.fft.fft(torch.ones(0))
torch.fft.irfft(torch.ones(1, dtype=torch.complex64), 0)
torch.arange(0, 3, 0)
torch.arange(0, float("inf"))
torch.arange(0, float("nan"))
torch.topk(torch.ones(3), -1)
torch.topk(torch.ones(3), 5)
torch.multinomial(torch.tensor([[float("nan"), 1.0]]), 1, replacement=True)
torch.multinomial(torch.tensor([[-1.0, 1.0]]), 1, replacement=True)
torch.multinomial(torch.zeros(1, 2), 1, replacement=True)
torch.multinomial(torch.ones(1, 2), -1, replacement=True)
torch.multinomial(torch.ones(1, 0), 1, replacement=True)
torch.bernoulli(torch.tensor([2.0]))
torch.bernoulli(torch.tensor([float("nan")]))
torch.searchsorted(torch.tensor([3.0, 1.0]), torch.tensor([2.0]))
torch.bincount(torch.tensor([-1]))
torch.sparse_coo_tensor(torch.tensor([[5]]), torch.ones(1), (2,)).to_dense()
torch.sparse_coo_tensor(torch.tensor([[-1]]), torch.ones(1), (2,)).to_dense()
torch.group_norm(torch.ones(1, 4, 2), 0)
torch.group_norm(torch.ones(1, 4, 2), 3)
torch.group_norm(torch.ones(1, 4, 2), 2, torch.ones(3))
F.layer_norm(torch.ones(2, 3), (3,), torch.ones(2))
F.batch_norm(torch.ones(1, 4, 2), torch.zeros(2), torch.ones(4))
F.batch_norm(torch.ones(1, 4, 2), torch.zeros(4), torch.ones(4), torch.ones(3))
torch.nn.utils.rnn.pack_padded_sequence(torch.ones(2, 1, 1), torch.tensor([9]))
torch.lstm(torch.ones(2, 1, 3), (torch.zeros(1, 1, 2), torch.zeros(1, 1, 2)), [torch.ones(8, 4), torch.ones(8, 2)], False, 1, 0.0, False, False, False)
torch.lstm(torch.ones(2, 1, 3), (torch.zeros(1, 1, 2), torch.zeros(1, 1, 2)), [torch.ones(8, 3), torch.ones(4, 2)], False, 1, 0.0, False, False, False)
torch.gru(torch.ones(2, 1, 3), torch.zeros(1, 1, 2), [torch.ones(6, 4), torch.ones(6, 2)], False, 1, 0.0, False, False, False)
torch.lstm(torch.ones(0, 1, 3), (torch.zeros(1, 1, 2), torch.zeros(1, 1, 2)), [torch.ones(8, 3), torch.ones(8, 2)], False, 1, 0.0, False, False, False)
torch.tensor([1], dtype=torch.int32) << torch.tensor([32], dtype=torch.int32)
torch.tensor([1], dtype=torch.int32) << torch.tensor([-1], dtype=torch.int32)
torch.tensor([-8], dtype=torch.int32) >> torch.tensor([99], dtype=torch.int32)
torch.tensor([-8], dtype=torch.int32) >> torch.tensor([-1], dtype=torch.int32)
torch.tensor([float("nan"), float("inf"), -float("inf"), 1e30, -1e30]).to(torch.int32)
torch.tensor([float("nan"), float("inf"), -float("inf"), 1e30, -1e30]).to(torch.int64)
torch.tensor([float("nan"), float("inf"), -float("inf"), 300.0, -1.0]).to(torch.uint8)
torch.tensor([float("nan"), float("inf"), -float("inf"), 300.0, -1.0] * 9).to(torch.uint8)
torch.tensor([float("nan"), float("inf"), -float("inf"), 300.0, -1.0]).to(torch.int8)
torch.tensor([float("nan"), float("inf"), -1.0]).to(torch.uint16)
torch.tensor([float("nan"), float("inf"), -1.0]).to(torch.uint32)
torch.tensor([float("nan"), float("inf"), -1.0]).to(torch.uint64)
torch.tensor([float("nan"), float("inf"), -1.0]).to(torch.bool)
torch.ops.aten.upsample_nearest1d(torch.ones(1, 1, 3), [0])
torch.ops.aten._upsample_nearest_exact1d(torch.ones(1, 1, 3), [2], float("nan"))
torch.ops.aten._upsample_nearest_exact1d(torch.ones(1, 1, 3), [2], 1e-30)
torch.ops.aten._upsample_nearest_exact1d(torch.ones(1, 1, 3), [2], -1.0)
torch.ops.aten.upsample_linear1d(torch.ones(1, 1, 3), [2], False, float("nan"))
torch.ops.aten.upsample_linear1d(torch.ones(1, 1, 3), [2], False, 1e-30)
torch.ops.aten.upsample_bicubic2d(torch.ones(1, 1, 3, 3), [2, 2], False, 1e-30, 1e-30)
torch.linalg.det(torch.full((2, 2), float("nan")))
torch.linalg.det(torch.ones(2, 3))
torch.cdist(torch.ones(2, 3), torch.ones(2, 4))
torch.ones(2, 3).view(-1, 0)
torch.ones(3).sort(5)
torch.zeros(0).argmax(0)
torch.zeros(0).max()
torch.zeros(3).movedim(5, 0)
torch.bilinear(torch.ones(1, 2), torch.ones(1, 2), torch.ones(1, 2, 3), None)
F.scaled_dot_product_attention(torch.ones(1, 1, 2, 0), torch.ones(1, 1, 2, 0), torch.ones(1, 1, 2, 0))
F.scaled_dot_product_attention(torch.ones(1, 1, 0, 2), torch.ones(1, 1, 0, 2), torch.ones(1, 1, 0, 2))
torch.cat([torch.ones(2), torch.ones(2, 2)])
torch.empty(2**40, 2**40)
torch.empty(-1)
torch.ones(3).view(torch.int64)
torch.quantize_per_tensor(torch.ones(3), 0.0, 0, torch.quint8)
""".strip().splitlines()


def cases() -> dict[str, Callable[[], str]]:
    """Every call by its source."""
    warnings.simplefilter("ignore")
    found = {call: lambda call=call: outcome(lambda: eval(call)) for call in CALLS}  # noqa: S307
    for name, rule in BINARY.items():
        for kind in INTEGERS:
            low = torch.iinfo(dtype := getattr(torch, kind)).min
            for divisor in (-1, 0):
                a, b = torch.tensor([low] * 70, dtype=dtype), torch.tensor([divisor], dtype=dtype)
                found[f"{name} {kind}: lowest, {divisor}"] = lambda r=rule, a=a, b=b: outcome(
                    lambda: r(a, b)[:1]
                )
                found[f"{name} {kind}: lowest, {divisor} (number)"] = lambda r=rule, a=a, d=divisor: outcome(
                    lambda: r(a, d)[:1]
                )
    return found


def outcome(call: Callable[[], object]) -> str:
    """What a call gives, or the error it raises."""
    try:
        return f"gives {call()!r}"[:150].replace("\n", " ")
    except Exception as error:
        return f"raises {type(error).__name__}: {error}"[:110].split("\n")[0]
