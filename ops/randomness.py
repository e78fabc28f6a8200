"""Random numbers: RandomNormal, RandomUniform, their Like forms, Bernoulli, Multinomial.

History: 1, Multinomial 7, Bernoulli 15, all 22 (bfloat16).

A node with a seed has the same numbers in each run. Without a seed they come from torch's global
generator, so that `torch.manual_seed` repeats them. Under `torch.compile` they always do, because
it cannot create a generator.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from onnxinterp.registry import op, sample
from onnxinterp.testing.samples import Call, Draw, call, draw_reals
from onnxinterp.versions import forwards


def generator_of(seed: float | None, device: torch.device) -> torch.Generator | None:
    if seed is None or device.type == "meta" or torch.compiler.is_dynamo_compiling():
        return None
    return torch.Generator(device).manual_seed(int(seed))


@op("RandomNormal", since=1, random=True)
def random_normal(
    *,
    dtype: torch.dtype = torch.float32,
    mean: float = 0.0,
    scale: float = 1.0,
    seed: float | None = None,
    shape: list[int],
    device: torch.device,
) -> Tensor:
    generator = generator_of(seed, device)
    return mean + scale * torch.randn(shape, generator=generator, dtype=dtype, device=device)


@op("RandomUniform", since=1, random=True)
def random_uniform(
    *,
    dtype: torch.dtype = torch.float32,
    high: float = 1.0,
    low: float = 0.0,
    seed: float | None = None,
    shape: list[int],
    device: torch.device,
) -> Tensor:
    generator, span = generator_of(seed, device), high - low
    return low + span * torch.rand(shape, generator=generator, dtype=dtype, device=device)


@op("RandomNormalLike", since=1, random=True)
@forwards(random_normal, without=["shape", "device"])
def random_normal_like(
    input: Tensor, *, dtype: torch.dtype | None = None, **attributes: Any
) -> Tensor:
    shape, device = list(input.shape), input.device
    return random_normal(dtype=dtype or input.dtype, shape=shape, device=device, **attributes)


@op("RandomUniformLike", since=1, random=True)
@forwards(random_uniform, without=["shape", "device"])
def random_uniform_like(
    input: Tensor, *, dtype: torch.dtype | None = None, **attributes: Any
) -> Tensor:
    shape, device = list(input.shape), input.device
    return random_uniform(dtype=dtype or input.dtype, shape=shape, device=device, **attributes)


@op("Bernoulli", since=15, random=True)
def bernoulli(
    input: Tensor, *, dtype: torch.dtype | None = None, seed: float | None = None
) -> Tensor:
    drawn = torch.bernoulli(input, generator=generator_of(seed, input.device))
    return drawn.to(dtype or input.dtype)


@op("Multinomial", since=7, random=True)
def multinomial(
    input: Tensor,
    *,
    dtype: torch.dtype = torch.int32,
    sample_size: int = 1,
    seed: float | None = None,
) -> Tensor:
    """The input has logarithms of unnormalized probabilities."""
    generator = generator_of(seed, input.device)
    drawn = torch.multinomial(input.softmax(1), sample_size, replacement=True, generator=generator)
    return drawn.to(dtype)


def _draw_call(d: Draw, **reals: tuple[float, float]) -> Call:
    attributes = draw_reals(d, **reals)
    shape, dtype = list(d.shape(min_dims=1)), d.maybe(d.elem_type())
    return call(shape=shape, dtype=dtype, seed=_seed(d), **attributes)


def _draw_like(d: Draw, **reals: tuple[float, float]) -> Call:
    attributes = draw_reals(d, **reals)
    x, dtype = d.tensor(d.shape(min_dims=1), "T1"), d.elem_type("T2")
    floating = isinstance(x, Tensor) and x.is_floating_point()
    return call(x, dtype=d.maybe(dtype) if floating else dtype, seed=_seed(d), **attributes)


def _seed(d: Draw) -> float | None:
    return d.maybe(float(d.integer(0, 1000)))


@sample(random_normal)
def _(d: Draw) -> Call:
    return _draw_call(d, mean=(-2, 2), scale=(0.5, 2))


@sample(random_uniform)
def _(d: Draw) -> Call:
    return _draw_call(d, low=(-2, 0), high=(0.5, 2))


@sample(random_normal_like)
def _(d: Draw) -> Call:
    return _draw_like(d, mean=(-2, 2), scale=(0.5, 2))


@sample(random_uniform_like)
def _(d: Draw) -> Call:
    return _draw_like(d, low=(-2, 0), high=(0.5, 2))


@sample(bernoulli)
def _(d: Draw) -> Call:
    x = d.tensor(d.shape(min_dims=1), "T1", lo=0, hi=1)
    return call(x, dtype=d.maybe(d.elem_type("T2")), seed=_seed(d))


@sample(multinomial)
def _(d: Draw) -> Call:
    x = d.tensor(d.shape(2, 2), "T1", lo=-4, hi=0)
    dtype = d.maybe(d.elem_type("T2"))
    return call(x, dtype=dtype, sample_size=d.maybe(d.integer(1, 5)), seed=_seed(d))
