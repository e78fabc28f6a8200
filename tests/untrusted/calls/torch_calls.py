"""Calls of torch with arguments that no valid model has, and what this torch makes of them.

Run with every release of torch: what kernels rely on is asserted, everything else is shown by

    python -m tests.untrusted.calls.torch_calls

Each call is named by its own source. The answer tells the exception, or what came out.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from math import inf, nan
from typing import Any

import torch
from torch.nn import functional
from torch.nn.utils.rnn import pack_padded_sequence

NAMES: dict[str, Any] = {
    "torch": torch,
    "F": functional,
    "aten": torch.ops.aten,
    "attention": functional.scaled_dot_product_attention,
    "ones": torch.ones,
    "zeros": torch.zeros,
    "full": torch.full,
    "tensor": torch.tensor,
    "pack_padded_sequence": pack_padded_sequence,
    "inf": inf,
    "nan": nan,
    "PLAIN": (False, 1, 0.0, False, False, False),
}
BINARY: dict[str, Callable[..., Any]] = {
    "div trunc": lambda a, b: torch.div(a, b, rounding_mode="trunc"),
    "div floor": lambda a, b: torch.div(a, b, rounding_mode="floor"),
    "remainder": torch.remainder,
    "fmod": torch.fmod,
    "pow": torch.pow,
}

# kernels leave it to torch to refuse these
REFUSED = """
tensor([1.0, 2]).index_select(0, tensor([5]))
tensor([1.0, 2]).index_select(0, tensor([-1]))
tensor([1.0, 2]).gather(0, tensor([5]))
tensor([1.0, 2]).gather(0, tensor([-1]))
zeros(2, 3).gather(1, zeros(3, 1, dtype=torch.int64))
tensor([1.0, 2])[tensor([5])]
tensor([1.0, 2])[tensor([-5])]
torch.take(tensor([1.0, 2]), tensor([5]))
F.embedding(tensor([5]), zeros(2, 3))
F.embedding(tensor([-1]), zeros(2, 3))
F.embedding_bag(tensor([[5]]), zeros(2, 3), mode="sum")
F.embedding_bag(tensor([[-1]]), zeros(2, 3), mode="sum")
zeros(2).scatter(0, tensor([5]), ones(1))
zeros(2).scatter(0, tensor([-1]), ones(1))
zeros(2).scatter_reduce(0, tensor([5]), ones(1), "sum")
zeros(2).scatter_reduce(0, tensor([-1]), ones(1), "amax")
zeros(2).index_add(0, tensor([5]), ones(1))
zeros(2).index_add(0, tensor([-1]), ones(1))
zeros(2, 2).index_add(1, tensor([5]), ones(2, 1))
zeros(2, 2).index_add(-1, tensor([-1]), ones(2, 1))
zeros(2).index_put([tensor([5])], ones(1))
zeros(2).index_put([tensor([5])], ones(1), accumulate=True)
zeros(2).index_put([tensor([-5])], ones(1), accumulate=True)
F.one_hot(tensor([5]), 2)
F.one_hot(tensor([-1]), 2)
F.nll_loss(zeros(1, 2), tensor([5]))
F.nll_loss(zeros(1, 2), tensor([-1]))
F.nll_loss(zeros(1, 2, 1), tensor([[5]]))
F.nll_loss(zeros(1, 2, 1, 1), tensor([[[5]]]))
F.nll_loss(zeros(1, 2, 1, 1), tensor([[[-1]]]))
F.nll_loss(zeros(1, 2), tensor([1]), weight=ones(1))
F.nll_loss(zeros(1, 2, 1, 1), tensor([[[1]]]), weight=ones(1))
F.max_unpool2d(ones(1, 1, 1, 1), tensor([[[[9]]]]), 2)
F.max_unpool2d(ones(1, 1, 1, 1), tensor([[[[-1]]]]), 2)
F.grid_sample(ones(1, 1, 0, 2), zeros(1, 1, 1, 2), align_corners=False)
F.conv2d(ones(1, 1, 3, 3), ones(1, 1, 1, 1), stride=0)
F.conv2d(ones(1, 1, 3, 3), ones(1, 1, 1, 1), stride=-1)
F.conv2d(ones(1, 1, 3, 3), ones(1, 1, 1, 1), dilation=0)
F.conv2d(ones(1, 1, 3, 3), ones(1, 1, 2, 2), dilation=-1)
F.conv2d(ones(1, 1, 3, 3), ones(1, 1, 1, 1), padding=-1)
F.conv2d(ones(1, 1, 3, 3), ones(1, 1, 1, 1), groups=0)
F.conv2d(ones(1, 1, 3, 3), ones(1, 1, 1, 1), groups=-1)
F.conv2d(ones(1, 1, 3, 3), ones(1, 1, 0, 1))
F.conv2d(ones(1, 2, 3, 3), ones(3, 1, 1, 1), groups=2)
F.conv_transpose2d(ones(1, 1, 3, 3), ones(1, 1, 1, 1), stride=0)
F.conv_transpose2d(ones(1, 1, 3, 3), ones(1, 1, 1, 1), output_padding=5)
F.conv_transpose2d(ones(1, 1, 3, 3), ones(1, 1, 1, 1), groups=0)
F.max_pool2d(ones(1, 1, 3, 3), 0)
F.max_pool2d(ones(1, 1, 3, 3), 2, 0)
F.max_pool2d(ones(1, 1, 3, 3), -1, 1)
F.max_pool2d(ones(1, 1, 3, 3), 2, 1, dilation=0)
F.max_pool2d(ones(1, 1, 3, 3), 2, 1, padding=5)
F.max_pool2d(ones(1, 1, 3, 3), 2, 1, padding=-1)
F.avg_pool2d(ones(1, 1, 3, 3), 0)
F.avg_pool2d(ones(1, 1, 3, 3), -1, 1)
F.avg_pool2d(ones(1, 1, 3, 3), 2, -1)
F.max_pool1d(ones(1, 1, 3), 0)
F.avg_pool1d(ones(1, 1, 3), 0)
F.max_pool3d(ones(1, 1, 3, 3, 3), 0)
F.pad(ones(1, 1, 3), [-5, 0])
F.pad(ones(1, 1, 3), [5, 0], mode="reflect")
ones(3).narrow(0, -9, 1)
ones(3).narrow(0, 0, -1)
ones(3).unfold(0, 2, 0)
ones(3).unfold(0, 2, -1)
ones(3).unfold(0, -1, 1)
ones(3).unfold(0, 9, 1)
ones(3).as_strided([9], [1])
ones(3).repeat(-1)
ones(1).expand(-2)
ones(3).repeat_interleave(-1)
ones(3).split(0)
ones(3).split([4, -1])
ones(3).split(-1)
torch.fft.fft(ones(3), 0)
torch.fft.fft(ones(3), -1)
torch.fft.fft(ones(0))
torch.fft.irfft(ones(1, dtype=torch.complex64), 0)
torch.arange(0, 3, 0)
torch.arange(0, inf)
torch.arange(0, nan)
torch.topk(ones(3), -1)
torch.topk(ones(3), 5)
torch.multinomial(tensor([[nan, 1.0]]), 1, replacement=True)
torch.multinomial(tensor([[-1.0, 1.0]]), 1, replacement=True)
torch.multinomial(zeros(1, 2), 1, replacement=True)
torch.multinomial(ones(1, 2), -1, replacement=True)
torch.multinomial(ones(1, 0), 1, replacement=True)
torch.bernoulli(tensor([2.0]))
torch.bernoulli(tensor([nan]))
torch.bincount(tensor([-1]))
torch.group_norm(ones(1, 4, 2), 0)
torch.group_norm(ones(1, 4, 2), 3)
torch.group_norm(ones(1, 4, 2), 2, ones(3))
F.layer_norm(ones(2, 3), (3,), ones(2))
F.batch_norm(ones(1, 4, 2), zeros(2), ones(4))
F.batch_norm(ones(1, 4, 2), zeros(4), ones(4), ones(3))
torch.gru(ones(2, 1, 3), zeros(1, 1, 2), [ones(6, 4), ones(6, 2)], *PLAIN)
torch.lstm(ones(0, 1, 3), (zeros(1, 1, 2), zeros(1, 1, 2)), [ones(8, 3), ones(8, 2)], *PLAIN)
aten.upsample_nearest1d(ones(1, 1, 3), [0])
torch.linalg.det(ones(2, 3))
torch.cdist(ones(2, 3), ones(2, 4))
ones(2, 3).view(-1, 0)
ones(3).sort(5)
zeros(0).argmax(0)
zeros(0).max()
zeros(3).movedim(5, 0)
torch.bilinear(ones(1, 2), ones(1, 2), ones(1, 2, 3), None)
torch.cat([ones(2), ones(2, 2)])
torch.empty(2**40, 2**40)
torch.empty(-1)
ones(3).view(torch.int64)
""".strip().splitlines()

# these give something, or kill the process: kernels do not call torch so, or any answer will do
OBSERVED = """
torch.take_along_dim(tensor([1.0, 2]), tensor([5]), 0)
torch.take_along_dim(tensor([1.0, 2]), tensor([-1]), 0)
F.ctc_loss(zeros(2, 1, 3), tensor([[9]]), tensor([2]), tensor([1]))
F.grid_sample(ones(1, 1, 2, 2), full((1, 1, 1, 2), nan), align_corners=False)
F.grid_sample(ones(1, 1, 2, 2), full((1, 1, 1, 2), 1e30), align_corners=False)
F.grid_sample(ones(1, 1, 2, 2), full((1, 1, 1, 2), 1e30), "bilinear", "reflection", False)
F.grid_sample(ones(1, 1, 2, 2), full((1, 1, 1, 2), nan), "nearest", "border", align_corners=False)
torch.searchsorted(tensor([3.0, 1.0]), tensor([2.0]))
torch.sparse_coo_tensor(tensor([[5]]), ones(1), (2,)).to_dense()
torch.sparse_coo_tensor(tensor([[-1]]), ones(1), (2,)).to_dense()
pack_padded_sequence(ones(2, 1, 1), tensor([9]))
torch.lstm(ones(2, 1, 3), (zeros(1, 1, 2), zeros(1, 1, 2)), [ones(8, 4), ones(8, 2)], *PLAIN)
torch.lstm(ones(2, 1, 3), (zeros(1, 1, 2), zeros(1, 1, 2)), [ones(8, 3), ones(4, 2)], *PLAIN)
tensor([1], dtype=torch.int32) << tensor([32], dtype=torch.int32)
tensor([1], dtype=torch.int32) << tensor([-1], dtype=torch.int32)
tensor([-8], dtype=torch.int32) >> tensor([99], dtype=torch.int32)
tensor([-8], dtype=torch.int32) >> tensor([-1], dtype=torch.int32)
tensor([nan, inf, -inf, 1e30, -1e30]).to(torch.int32)
tensor([nan, inf, -inf, 1e30, -1e30]).to(torch.int64)
tensor([nan, inf, -inf, 300.0, -1.0]).to(torch.uint8)
tensor([nan, inf, -inf, 300.0, -1.0] * 9).to(torch.uint8)
tensor([nan, inf, -inf, 300.0, -1.0]).to(torch.int8)
tensor([nan, inf, -1.0]).to(torch.uint16)
tensor([nan, inf, -1.0]).to(torch.uint32)
tensor([nan, inf, -1.0]).to(torch.uint64)
tensor([nan, inf, -1.0]).to(torch.bool)
aten._upsample_nearest_exact1d(ones(1, 1, 3), [2], nan)
aten._upsample_nearest_exact1d(ones(1, 1, 3), [2], 1e-30)
aten._upsample_nearest_exact1d(ones(1, 1, 3), [2], -1.0)
aten.upsample_linear1d(ones(1, 1, 3), [2], False, nan)
aten.upsample_linear1d(ones(1, 1, 3), [2], False, 1e-30)
aten.upsample_bicubic2d(ones(1, 1, 3, 3), [2, 2], False, 1e-30, 1e-30)
torch.linalg.det(full((2, 2), nan))
attention(ones(1, 1, 2, 0), ones(1, 1, 2, 0), ones(1, 1, 2, 0))
attention(ones(1, 1, 0, 2), ones(1, 1, 0, 2), ones(1, 1, 0, 2))
torch.quantize_per_tensor(ones(3), 0.0, 0, torch.quint8)
""".strip().splitlines()


def cases() -> dict[str, Callable[[], str]]:
    """Every call by its source."""
    warnings.simplefilter("ignore")
    found = {c: lambda c=c: outcome(lambda: eval(c, NAMES)) for c in (*REFUSED, *OBSERVED)}
    for name, rule in BINARY.items():
        for dtype in (torch.int8, torch.int16, torch.int32, torch.int64):
            low = torch.full((70,), torch.iinfo(dtype).min, dtype=dtype)
            for divisor in (-1, 0):
                for b in (torch.tensor([divisor], dtype=dtype), divisor):
                    kind = "number" if b is divisor else "tensor"
                    source = f"{name} of {dtype}: the lowest and the {kind} {divisor}"
                    found[source] = lambda r=rule, a=low, b=b: outcome(lambda: r(a, b)[:1])
    return found


def outcome(call: Callable[[], object]) -> str:
    """What a call gives, or the error it raises."""
    try:
        return f"gives {call()!r}"[:150].replace("\n", " ")
    except Exception as error:
        return f"raises {type(error).__name__}: {error}"[:110].split("\n")[0]


if __name__ == "__main__":
    from tests.untrusted.calls.running import Cases

    for source, answer in Cases(f"{__package__}.torch_calls").results(cases()).items():
        print(f"{source:100} | {answer}")
