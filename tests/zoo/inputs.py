"""Seeded model inputs: the kinds of array the manifest names, and `make_inputs` for a case.

One generator serves a whole case, in the order of its inputs, so the draws of a kind are part of
its definition: adding one would change every array that follows.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

Rng = np.random.Generator
Spec = dict[str, Any]
Shape = tuple[int, ...]

SAMPLE_RATE = 16000
PAGE, INK = 0.93, 0.1  # grey levels of paper and stroke


def make_inputs(case: dict[str, Spec], seed: int) -> dict[str, np.ndarray]:
    """Make the arrays of one manifest case, by input name."""
    rng = np.random.default_rng(seed)
    arrays = {}
    for name, spec in case.items():
        array = KINDS[spec["kind"]](rng, tuple(spec["shape"]), spec)
        arrays[name] = np.asarray(array).astype(spec["dtype"])
    return arrays


def normal(rng: Rng, shape: Shape, spec: Spec) -> np.ndarray:
    return np.asarray(rng.standard_normal(shape) * spec.get("scale", 1))


def normal_small(rng: Rng, shape: Shape, spec: Spec) -> np.ndarray:
    return np.clip(rng.standard_normal(shape) * 0.05, spec["lo"], spec["hi"])


def uniform(rng: Rng, shape: Shape, spec: Spec) -> np.ndarray:
    return rng.uniform(spec["lo"], spec["hi"], shape)


def randint(rng: Rng, shape: Shape, spec: Spec) -> np.ndarray:
    return np.asarray(rng.integers(spec["lo"], spec["hi"], shape))


def const(rng: Rng, shape: Shape, spec: Spec) -> np.ndarray:
    return np.full(shape, spec["value"])


def binary(rng: Rng, shape: Shape, spec: Spec) -> np.ndarray:
    return np.asarray(rng.integers(0, 2, shape))


def halves(rng: Rng, shape: Shape, spec: Spec) -> np.ndarray:
    """The low value in the first half of the last axis, the high one in the second."""
    array = np.full(shape, spec["lo"])
    array[..., shape[-1] // 2 :] = spec["hi"]
    return array


def prefix_mask(rng: Rng, shape: Shape, spec: Spec) -> np.ndarray:
    """Ones, but the further down the batch, the shorter the sequence: a quarter less each row."""
    array = np.ones(shape)
    for row in range(1, shape[0]):
        array[row, shape[1] - row * shape[1] // 4 :] = 0
    return array


def edges(rng: Rng, shape: Shape, spec: Spec) -> np.ndarray:
    """Graph edges [2, E] without self-loops: a loop of length 0 gives NaN in a model itself."""
    count = spec["hi"]
    array = np.asarray(rng.integers(0, count, shape))
    array[1] = (array[0] + rng.integers(1, count, shape[1])) % count
    return array


def ramp(rng: Rng, shape: Shape, spec: Spec) -> np.ndarray:
    """0 up to 1 in even steps: what the onnx package feeds its light models."""
    size = int(np.prod(shape))
    return np.arange(size).reshape(shape) / size


def image(rng: Rng, shape: Shape, spec: Spec) -> np.ndarray:
    """Coarse patches under fine noise, unit variance: low frequencies as a photograph has."""
    *batch, height, width = shape
    coarse = rng.standard_normal((*batch, -(-height // 16), -(-width // 16)))
    patches = coarse.repeat(16, axis=-2).repeat(16, axis=-1)[..., :height, :width]
    return np.asarray(0.8 * patches + 0.6 * rng.standard_normal(shape))


def audio(rng: Rng, shape: Shape, spec: Spec) -> np.ndarray:
    """A rising chirp with a 3 Hz tremolo, a high tone and noise along the longest axis."""
    samples = max(shape)
    time = np.arange(samples) / SAMPLE_RATE
    tremolo = 0.6 + 0.4 * np.sin(2 * np.pi * 3 * time)
    chirp = 0.4 * np.sin(2 * np.pi * (180 * time + 60 * time * time)) * tremolo
    signal = chirp + 0.1 * np.sin(2 * np.pi * 2300 * time)
    along = [1] * len(shape)
    along[shape.index(samples)] = samples
    noisy = signal.reshape(along) + 0.02 * rng.standard_normal(shape)
    return np.asarray(noisy * spec.get("amp", 1))


def textimg(rng: Rng, shape: Shape, spec: Spec) -> np.ndarray:
    """NCHW pages of dark seven-segment glyphs on light paper, every channel alike."""
    batch, channels, height, width = shape
    pages = np.ones((batch, height, width)) * PAGE
    one_line = height <= 64
    glyph = int(height * 0.7) if one_line else 28
    for page in pages:
        top = (height - glyph) // 2 if one_line else glyph // 2
        while top + glyph <= height:
            _write_line(rng, page, top, glyph)
            top += glyph * 2
    pages = np.clip(pages + 0.02 * rng.standard_normal(pages.shape), 0, 1)
    grey = np.repeat(pages[:, None], channels, 1)
    return np.asarray(grey * (spec["hi"] - spec["lo"]) + spec["lo"])


def _write_line(rng: Rng, page: np.ndarray, top: int, glyph: int) -> None:
    """Draw glyphs from left to right; about one place in seven stays blank."""
    left = 6
    while left + glyph * 6 // 10 < page.shape[1] - 4:
        if rng.random() < 0.85:
            _draw_glyph(rng, page, top, left, glyph)
        left += glyph * 8 // 10


def _draw_glyph(rng: Rng, page: np.ndarray, top: int, left: int, glyph: int) -> None:
    """Three bars across, two uprights, and an upper stem in the middle, each drawn or not."""
    width, stroke = glyph * 6 // 10, max(1, glyph // 8)
    bottom, right = top + glyph, left + width
    middle, centre = top + glyph // 2, left + width // 2
    strokes = [
        (slice(top, top + stroke), slice(left, right)),
        (slice(middle, middle + stroke), slice(left, right)),
        (slice(bottom - stroke, bottom), slice(left, right)),
        (slice(top, bottom), slice(left, left + stroke)),
        (slice(top, bottom), slice(right - stroke, right)),
        (slice(top, middle), slice(centre, centre + stroke)),
    ]
    drawn = rng.random(7) < 0.55  # the seventh draw belongs to no stroke, only to the sequence
    for area, wanted in zip(strokes, drawn, strict=False):
        if wanted:
            page[area] = INK


KINDS: dict[str, Callable[[Rng, Shape, Spec], np.ndarray]] = {
    kind.__name__: kind
    for kind in (
        normal,
        normal_small,
        uniform,
        randint,
        const,
        binary,
        halves,
        prefix_mask,
        edges,
        ramp,
        image,
        audio,
        textimg,
    )
}
