"""Signal processing: DFT, STFT, windows, the mel filter bank.

History: 17 (all), 20 (DFT: the axis is an input and may be negative).

Transforms, windows and filters are computed in float64 and rounded once, as in the reference
evaluator. The last axis is a number: size 2 if it is complex, 1 if it is real.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from onnxinterp.ops.elementwise import Kernel, register
from onnxinterp.ops.shapes import from_front
from onnxinterp.registry import op, sample
from onnxinterp.testing.samples import Call, Draw, call
from onnxinterp.values import Flag, Scalar
from onnxinterp.versions import older


@op("DFT", since=20)
def dft(
    input: Tensor,
    dft_length: Scalar | None = None,
    axis: Scalar | None = None,
    *,
    inverse: Flag = 0,
    onesided: Flag = 0,
) -> Tensor:
    """Shorter signals are padded to dft_length with zeros, longer ones are cropped."""
    along = from_front(-2 if axis is None else int(axis), input.ndim)
    x = _numbers(input)
    if onesided and x.is_complex() is not bool(inverse):
        kind = "complex" if inverse else "real"
        raise ValueError(f"onesided needs {kind} numbers, got {list(input.shape)}")
    if inverse and onesided:
        real: Tensor = torch.fft.irfft(x, dft_length, along)
        return real.unsqueeze(-1).to(input.dtype)
    if inverse:
        y = torch.fft.ifft(x, dft_length, along)
    elif not onesided:
        y = torch.fft.fft(x, dft_length, along)
    else:
        y = _half(x, dft_length, along)
    return _as_pairs(y, input.dtype)


dft_17 = older(dft, since=17, attributes=["axis"], defaults={"axis": 1}, hints={"axis": int})


@op("STFT", since=17, frozen=("window",))
def stft(
    signal: Tensor,
    frame_step: Scalar,
    window: Tensor | None = None,
    frame_length: Scalar | None = None,
    *,
    onesided: Flag = 1,
) -> Tensor:
    """Frames that do not fit into the signal are omitted."""
    if frame_length is None:
        frame_length = signal.shape[1] if window is None else window.shape[0]
    if signal.ndim != 3:
        raise ValueError(f"signal must have rank 3, got {signal.ndim}")
    frames = _numbers(signal).unfold(1, int(frame_length), int(frame_step))
    if window is not None:
        if window.shape != frames.shape[-1:]:
            raise ValueError(f"window must be [{frame_length}], got {list(window.shape)}")
        frames = frames * window
    y = _half(frames, None, -1) if onesided else torch.fft.fft(frames)
    return _as_pairs(y, signal.dtype)


def _numbers(x: Tensor) -> Tensor:
    """The last axis as one real or complex number, in double precision."""
    if x.shape[-1] not in (1, 2):
        raise ValueError(f"the last axis must have size 1 or 2, got {x.shape[-1]}")
    wide = x.double()
    return wide[..., 0] if x.shape[-1] == 1 else torch.complex(wide[..., 0], wide[..., 1])


def _as_pairs(x: Tensor, dtype: torch.dtype) -> Tensor:
    """Complex numbers as a last axis of size 2."""
    return torch.stack((x.real, x.imag), -1).to(dtype)


def _half(x: Tensor, n: Scalar | None, axis: int) -> Tensor:
    """The first half of the transform; if x is real, the other half is its mirror."""
    y: Tensor = torch.fft.fft(x, n, axis) if x.is_complex() else torch.fft.rfft(x, n, axis)
    return y.narrow(axis, 0, y.shape[axis] // 2 + 1) if x.is_complex() else y


def _window(op_type: str, rule: Callable[[Tensor], Tensor], exact: bool = True) -> Kernel:
    """Register a window: `rule` of the angles from 0 to 2 pi, without the end if it is periodic.

    Where the rule is not `exact`, its highest element may be slightly less than 1, and integers
    are made of rounded numbers.
    """

    def kernel(
        size: Scalar,
        *,
        output_datatype: torch.dtype = torch.float32,
        periodic: Flag = 1,
        device: torch.device,
    ) -> Tensor:
        n = torch.arange(size, dtype=torch.float64, device=device)
        window = rule(2 * math.pi * n / torch.full_like(n, size if periodic else size - 1))
        if not exact and not output_datatype.is_floating_point:
            window = window.float()
        return window.to(output_datatype)

    return register(kernel, op_type, 17)


ALPHA = 25 / 46  # of the Hamming window; torch has 0.54
hann_window = _window("HannWindow", lambda angles: (angles / 2).sin().square())
hamming_window = _window("HammingWindow", lambda angles: ALPHA - (1 - ALPHA) * angles.cos())
blackman_window = _window(
    "BlackmanWindow",
    lambda angles: 0.42 - 0.5 * angles.cos() + 0.08 * (2 * angles).cos(),
    exact=False,
)


@op("MelWeightMatrix", since=17)
def mel_weight_matrix(
    num_mel_bins: Scalar,
    dft_length: Scalar,
    sample_rate: Scalar,
    lower_edge_hertz: Scalar,
    upper_edge_hertz: Scalar,
    *,
    output_datatype: torch.dtype = torch.float32,
    device: torch.device,
) -> Tensor:
    """Triangles between neighbouring edges, which are equally spaced in mel."""
    low, high = (2595 * math.log10(1 + hz / 700) for hz in (lower_edge_hertz, upper_edge_hertz))
    step = (high - low) / (num_mel_bins + 2)
    for end in (low, low + (num_mel_bins + 1) * step):
        place = (dft_length + 1) * 700 * (10 ** (end / 2595) - 1) / sample_rate
        if not 0 <= place < dft_length // 2 + 1:
            raise ValueError(f"a filter must end in bin 0 to {dft_length // 2}, got {place}")
    mel = low + torch.arange(num_mel_bins + 2, dtype=torch.float64, device=device) * step
    hertz = 700 * (torch.pow(10, mel / 2595) - 1)
    edges = torch.floor((dft_length + 1) * hertz / sample_rate)
    left, center, right = edges[:-2], edges[1:-1], edges[2:]
    bins = torch.arange(dft_length // 2 + 1, dtype=torch.float64, device=device)[:, None]
    rising = torch.where((bins >= left) & (bins < center), (bins - left) / (center - left), 0.0)
    falling = torch.where((bins > center) & (bins < right), (right - bins) / (right - center), 0.0)
    return torch.where(bins == center, 1.0, rising + falling).to(output_datatype)


def _draw_dft(d: Draw, x_rank: int, axis: int) -> tuple[Tensor, int | None, dict[str, int | None]]:
    """Input, dft_length and attributes of a transform along `axis`."""
    onesided, inverse = d.integer(0, 1), d.integer(0, 1)
    parts = 1 + inverse if onesided else d.integer(1, 2)
    x = d.tensor((*(d.integer(2, 5) for _ in range(x_rank - 1)), parts), "T1", lo=-1, hi=1)
    # for the one-sided inverse the oracles agree only on lengths that fit the input
    side = x.shape[axis]
    length = 2 * side - d.integer(1, 2) if onesided and inverse else d.integer(1, 6)
    attributes = {"onesided": onesided or d.maybe(0), "inverse": inverse or d.maybe(0)}
    return x, d.maybe(length), attributes


@sample(dft)
def _(d: Draw) -> Call:
    rank, default = d.integer(2, 4), -2 if d.opset >= 20 else 1
    axis = d.integer(0, rank - 2) - d.choice([0, rank])  # the last one has the parts of a number
    axis_or_none = d.maybe(axis) if default % rank < rank - 1 else axis
    x, length, attributes = _draw_dft(d, rank, default if axis_or_none is None else axis)
    if d.opset >= 20:
        return call(x, length, axis_or_none, **attributes)
    return call(x, length, axis=axis_or_none, **attributes)


@sample(stft)
def _(d: Draw) -> Call:
    """One frame is the whole signal if window and length are absent."""
    onesided, size = d.choice([None, 1, 0]), d.integer(6, 12)
    parts = d.integer(1, 2) if onesided == 0 else 1
    signal = d.tensor((d.integer(1, 3), size, parts), "T1", lo=-1, hi=1)
    length = d.integer(2, 6)
    window = d.maybe(d.tensor((length,), "T1", lo=0, hi=1))
    return call(signal, d.integer(1, 4), window, d.maybe(length), onesided=onesided)


@sample(hann_window, hamming_window, blackman_window)
def _(d: Draw) -> Call:
    dtype = d.maybe(d.elem_type("T2"))
    return call(d.integer(2, 20), output_datatype=dtype, periodic=d.maybe(d.integer(0, 1)))


@sample(mel_weight_matrix)
def _(d: Draw) -> Call:
    edges = d.real(0, 400), d.real(1000, 4000)
    length, rate = d.choice([32, 64, 400, 33]), d.choice([8000, 16000])
    dtype = d.maybe(d.choice([torch.float32, torch.float64, torch.float16]))
    return call(d.integer(1, 10), length, rate, *edges, output_datatype=dtype)
