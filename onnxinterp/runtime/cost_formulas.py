"""Formulas for what a torch function makes, and for how long it takes at least.

Each reads shapes, dtypes and numbers of the arguments, by the names of torch's schema, and returns
the number of elements and the bytes of an element of each result. An invalid call may raise
anything here: torch itself reports it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from types import SimpleNamespace
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

Sizes: TypeAlias = list[tuple[int, int]]  # results: number of elements, bytes of each
Arguments: TypeAlias = SimpleNamespace  # by name; `first` is the first one


def _names(words: str) -> frozenset[str]:
    return frozenset(words.split())


REDUCTIONS = _names(
    """all any amax amin aminmax argmax argmin count_nonzero kthvalue linalg_vector_norm logsumexp
    max mean median min mode nansum norm prod std std_mean sum var var_mean"""
)
SAME_SIZE = _names(
    """_log_softmax _safe_softmax _softmax _to_copy bernoulli cummax cummin cumprod cumsum
    empty_like flip full_like index_add index_copy index_fill index_put logcumsumexp
    masked_scatter ones_like rand_like randn_like roll scatter scatter_add scatter_reduce sort
    tril triu zeros_like"""
)
SUMS = frozenset({"cumprod", "cumsum", "nansum", "prod", "sum"})  # integers become int64
INTEGER_RESULTS = frozenset({"argmax", "argmin", "count_nonzero"})
POOLS = "avg_pool2d avg_pool3d max_pool2d_with_indices max_pool3d_with_indices"
RESIZES = _names(  # by interpolation: these read a part of their input at most
    """_upsample_nearest_exact1d _upsample_nearest_exact2d _upsample_nearest_exact3d
    upsample_bicubic2d upsample_bilinear2d upsample_linear1d upsample_nearest1d
    upsample_nearest2d upsample_nearest3d upsample_trilinear3d"""
)
BOOLEAN_RESULTS = frozenset({"all", "any"})
REAL_RESULTS = frozenset({"linalg_vector_norm", "norm", "std", "var"})


def per_result(name: str, results: Iterable[Any], a: Arguments) -> Sizes:
    """The results of a reduction, or of a function that keeps the size of its first argument.

    Args:
        name: of the function.
        results: what its schema declares.
        a: its arguments.
    """
    x: Tensor = a.first
    elements = _kept(x, a) if name in REDUCTIONS else x.numel()
    dtype = getattr(a, "dtype", None)
    size: int = (dtype or x.dtype).itemsize
    if name in INTEGER_RESULTS or (name in SUMS and not dtype and _is_integer(x)):
        size = 8
    elif name in BOOLEAN_RESULTS:
        size = 1
    elif x.is_complex() and name in REAL_RESULTS:
        size //= 2
    return [(elements, 8 if result.name == "indices" else size) for result in results]


def _is_integer(x: Tensor) -> bool:
    return not x.is_floating_point() and not x.is_complex()


def _kept(x: Tensor, a: Arguments) -> int:
    """The number of elements that a reduction returns."""
    dim = getattr(a, "dim", None)
    return _other_sizes(x, [dim] if isinstance(dim, int) else dim or range(x.ndim))


def _other_sizes(x: Tensor, dims: Sequence[int]) -> int:
    """The product of all sizes but those of some dimensions."""
    left_out = {d % max(x.ndim, 1) for d in dims}
    return math.prod(n for axis, n in enumerate(x.shape) if axis not in left_out)


def _filled(a: Arguments) -> Sizes:
    """A new tensor of the size `a.size`."""
    dtype = a.dtype or (a.first.dtype if isinstance(a.first, Tensor) else None)
    size = dtype.itemsize if dtype else _size_of(getattr(a, "fill_value", 1.0))
    return [(math.prod(a.size), size)]


def _size_of(value: Any) -> int:
    """The bytes of an element made of a Python number."""
    return {bool: 1, int: 8}.get(type(value), torch.get_default_dtype().itemsize)


def _arange(a: Arguments) -> Sizes:
    start, step = getattr(a, "start", 0), getattr(a, "step", 1)
    whole = all(isinstance(n, int) for n in (start, a.end, step))
    span = a.end - start
    count = -(-span // step) if whole else math.ceil(span / step)
    return [(count, a.dtype.itemsize if a.dtype else _size_of(start if whole else 1.0))]


def _joined(a: Arguments) -> Sizes:
    """Of cat and stack: all elements, in the common dtype."""
    with torch._C._DisableTorchDispatch():
        size = torch.cat([torch.ones(1, dtype=t.dtype) for t in a.tensors]).itemsize
    return [(sum(t.numel() for t in a.tensors), size)]


def _padded(a: Arguments) -> Sizes:
    sizes = list(a.self.shape)
    pads = a.pad if hasattr(a, "pad") else a.padding
    for i in range(len(pads) // 2):
        sizes[-1 - i] += pads[2 * i] + pads[2 * i + 1]
    return [(math.prod(sizes), a.self.itemsize)]


def _indexed(a: Arguments) -> Sizes:
    masks = [i for i in a.indices if i is not None and i.dtype in (torch.bool, torch.uint8)]
    indexed = [axis for axis, i in enumerate(a.indices) if i is not None]
    rest = a.self.numel() if masks else _other_sizes(a.self, indexed)  # a mask selects at most all
    shapes = [i.shape for i in a.indices if i is not None and i.dtype in (torch.int64, torch.int32)]
    return [(rest * math.prod(np.broadcast_shapes(*shapes)), a.self.itemsize)]


def _top(a: Arguments) -> Sizes:
    elements = _other_sizes(a.self, [a.dim]) * a.k
    return [(elements, a.self.itemsize), (elements, 8)]


def _product(x: str, y: str) -> Callable[[Arguments], Sizes]:
    """Of two matrices, two batches of them, or a matrix and a vector."""

    def sizes(a: Arguments) -> Sizes:
        left, right = getattr(a, x), getattr(a, y)
        columns = right.shape[-1] if right.ndim > 1 else 1
        return [(math.prod(left.shape[:-1]) * columns, left.itemsize)]

    return sizes


def _of_product(x: str) -> Callable[[Arguments, Sizes], float]:
    return lambda a, sizes: float(2 * sizes[0][0] * getattr(a, x).shape[-1])


def _spread(values: Any, count: int) -> list[int]:
    """A setting for each spatial axis: torch takes a list of one for all of them."""
    several = [values] if isinstance(values, int) else list(values)
    return several * count if len(several) == 1 else several


def _convolved(a: Arguments) -> Sizes:
    x, w, n = a.input, a.weight, a.input.ndim - 2
    stride, pads, dilation, extra = (
        _spread(v, n) for v in (a.stride, a.padding, a.dilation, a.output_padding)
    )
    spatial = [
        (i - 1) * s - 2 * p + d * (k - 1) + 1 + e
        if a.transposed
        else (i + 2 * p - d * (k - 1) - 1) // s + 1
        for i, k, s, p, d, e in zip(
            x.shape[2:], w.shape[2:], stride, pads, dilation, extra or [0] * n, strict=True
        )
    ]
    channels = w.shape[1] * a.groups if a.transposed else w.shape[0]
    return [(x.shape[0] * channels * math.prod(spatial), x.itemsize)]


def _of_convolution(a: Arguments, sizes: Sizes) -> float:
    """Each place of the input, or of the result, meets the whole kernel."""
    elements, channels = sizes[0][0], a.weight.shape[0]
    if a.transposed:
        elements, channels = a.input.numel(), a.input.shape[1]
    return float(2 * (elements // max(channels, 1)) * a.weight.numel())


def _pooled(a: Arguments) -> Sizes:
    x, n = a.self, len(a.kernel_size)
    stride, pads = _spread(a.stride or a.kernel_size, n), _spread(a.padding, n)
    dilation = _spread(getattr(a, "dilation", 1), n)
    spatial = []
    for i, k, s, p, d in zip(x.shape[-n:], a.kernel_size, stride, pads, dilation, strict=True):
        span = i + 2 * p - d * (k - 1) - 1
        last = -(-span // s) if a.ceil_mode else span // s
        spatial.append(last if a.ceil_mode and last * s >= i + p else last + 1)
    elements = math.prod(x.shape[:-n]) * math.prod(spatial)
    return [(elements, x.itemsize), *([(elements, 8)] if hasattr(a, "dilation") else [])]


def _of_windows(a: Arguments, sizes: Sizes) -> float:
    return float(sizes[0][0] * math.prod(a.kernel_size))


def _resized(a: Arguments) -> Sizes:
    planes = math.prod(a.self.shape[: a.self.ndim - len(a.output_size)])
    return [(planes * math.prod(a.output_size), a.self.itemsize)]


def _affine_grid(a: Arguments) -> Sizes:
    points = a.size[0] * math.prod(a.size[2:])
    return [(points * (len(a.size) - 2), a.theta.itemsize)]


def _normalized(statistics: Callable[[Arguments], int]) -> Callable[[Arguments], Sizes]:
    """A normalized tensor, and two statistics."""
    return lambda a: [_like(a.input), *[(statistics(a), a.input.itemsize)] * 2]


def _attention(a: Arguments) -> Sizes:
    rows = math.prod(a.query.shape[:-1])
    return [(rows * a.value.shape[-1], a.query.itemsize), (rows, max(a.query.itemsize, 4))]


def _of_attention(a: Arguments, _: Sizes) -> float:
    products = a.query.shape[-1] + a.value.shape[-1]
    return float(2 * math.prod(a.query.shape[:-1]) * a.key.shape[-2] * products)


def _loss(a: Arguments) -> Sizes:
    size = a.self.itemsize
    return [(1 if a.reduction else a.target.numel(), size), (1, size)]


def _distances(a: Arguments) -> Sizes:
    batch = np.broadcast_shapes(a.x1.shape[:-2], a.x2.shape[:-2])
    return [(math.prod(batch) * a.x1.shape[-2] * a.x2.shape[-2], a.x1.itemsize)]


def _determinant(a: Arguments) -> Sizes:
    """The determinant, and a decomposition with its pivots."""
    batch = math.prod(a.A.shape[:-2])
    return [(batch, a.A.itemsize), _like(a.A), (batch * a.A.shape[-1], 4)]


def _recurrent(a: Arguments) -> Sizes:
    """Of an LSTM: all hidden states, and the last ones."""
    steps, batch, _ = a.input.shape
    return [(steps * batch * a.hidden_size, a.input.itemsize), _like(a.hx_), _like(a.cx_)]


def _of_recurrent(a: Arguments, _: Sizes) -> float:
    steps, batch, _ = a.input.shape
    return float(2 * steps * batch * (a.weight0.numel() + a.weight1.numel()))


def _transformed(a: Arguments) -> Sizes:
    """Of Fourier transforms: the last of the axes is halved, or extended."""
    x, others = a.self, _other_sizes(a.self, a.dim[-1:])
    if hasattr(a, "last_dim_size"):
        return [(others * a.last_dim_size, x.itemsize // 2)]
    length = x.shape[a.dim[-1]]
    kept = length // 2 + 1 if getattr(a, "onesided", False) else length
    return [(others * kept, x.itemsize if x.is_complex() else 2 * x.itemsize)]


def _like(x: Tensor) -> tuple[int, int]:
    return x.numel(), x.itemsize


_WORDS: dict[str, Callable[[Arguments], Sizes]] = {
    "empty full ones zeros rand randn randint new_empty new_full new_ones new_zeros": _filled,
    "arange": _arange,
    "scalar_tensor": lambda a: [(1, (a.dtype or torch.get_default_dtype()).itemsize)],
    "cat stack": _joined,
    "repeat": lambda a: [(a.self.numel() * math.prod(a.repeats), a.self.itemsize)],
    "constant_pad_nd reflection_pad1d reflection_pad2d reflection_pad3d": _padded,
    "replication_pad1d replication_pad2d replication_pad3d": _padded,
    "index": _indexed,
    "index_select": lambda a: [(_other_sizes(a.self, [a.dim]) * a.index.numel(), a.self.itemsize)],
    "gather take": lambda a: [(a.index.numel(), a.self.itemsize)],
    "embedding": lambda a: [(a.indices.numel() * a.weight.shape[1], a.weight.itemsize)],
    "topk": _top,
    "mm bmm": _product("self", "mat2"),
    "addmm": _product("mat1", "mat2"),
    "baddbmm": _product("batch1", "batch2"),
    "mv": _product("self", "vec"),
    "dot": lambda a: [(1, a.self.itemsize)],
    "convolution": _convolved,
    POOLS: _pooled,
    " ".join(RESIZES): _resized,
    "_upsample_bilinear2d_aa _upsample_bicubic2d_aa": _resized,
    "_adaptive_avg_pool2d _adaptive_avg_pool3d": _resized,
    "grid_sampler_2d grid_sampler_3d": lambda a: [
        (a.input.shape[1] * math.prod(a.grid.shape[:-1]), a.input.itemsize)
    ],
    "affine_grid_generator": _affine_grid,
    "native_batch_norm": _normalized(lambda a: a.input.shape[1]),
    "native_group_norm": _normalized(lambda a: a.N * a.group),
    "native_layer_norm": _normalized(
        lambda a: math.prod(a.input.shape[: a.input.ndim - len(a.normalized_shape)])
    ),
    "native_dropout": lambda a: [_like(a.input), (a.input.numel(), 1)],
    "_scaled_dot_product_flash_attention_for_cpu": _attention,
    "nll_loss_forward nll_loss2d_forward": _loss,
    "_cdist_forward": _distances,
    "_linalg_det": _determinant,
    "_fft_r2c _fft_c2r _fft_c2c": _transformed,
    "mkldnn_rnn_layer": _recurrent,
    # the values decide: the largest results that are possible
    "nonzero": lambda a: [(a.self.numel() * max(a.self.ndim, 1), 8)],
    "masked_select": lambda a: [(max(a.self.numel(), a.mask.numel()), a.self.itemsize)],
    "_unique2 unique_consecutive": lambda a: [(a.self.numel(), a.self.itemsize + 16)],
    "unique_dim": lambda a: [_like(a.self), (2 * a.self.shape[a.dim], 8)],
}
FORMULAS = {name: formula for names, formula in _WORDS.items() for name in names.split()}
FLOPS: dict[str, Callable[[Arguments, Sizes], float]] = {
    **dict.fromkeys(_names(POOLS), _of_windows),
    "mm": _of_product("self"),
    "bmm": _of_product("self"),
    "addmm": _of_product("mat1"),
    "baddbmm": _of_product("batch1"),
    "convolution": _of_convolution,
    "_scaled_dot_product_flash_attention_for_cpu": _of_attention,
    "_cdist_forward": lambda a, sizes: float(sizes[0][0]) * a.x1.shape[-1],
    "mkldnn_rnn_layer": _of_recurrent,
    "_linalg_det": lambda a, _: a.A.numel() * a.A.shape[-1] * 2 / 3,
}
PIECES: dict[str, Callable[[Arguments], int]] = {  # views of one tensor, and how many
    "unbind": lambda a: a.self.shape[a.dim],
    "split": lambda a: a.self.shape[a.dim] // max(a.split_size, 1),
    "split_with_sizes": lambda a: len(a.split_sizes),
}
SLOW = _names(  # elements depend on each other, or are compared
    """_unique2 argmax argmin cummax cummin cumprod cumsum kthvalue logcumsumexp median mode sort
    topk unique_consecutive unique_dim"""
)
READS_A_PART = RESIZES | _names(  # of its inputs, or only their shapes
    f"""{POOLS} convolution embedding empty_like full_like gather grid_sampler_2d grid_sampler_3d
    index index_select new_empty new_full new_ones new_zeros nll_loss2d_forward nll_loss_forward
    ones_like rand_like randn_like take zeros_like"""
)
