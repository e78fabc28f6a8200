"""Decode images from the bytes of files: ImageDecoder.

History: 20.

Pillow reads the files (extra `images`). An image of more than 89 million pixels raises an error,
since a file of a few bytes can declare such a size; `PIL.Image.MAX_IMAGE_PIXELS` sets the limit.
"""

from __future__ import annotations

import io
import math
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from onnxinterp.extras import require
from onnxinterp.registry import op, sample
from onnxinterp.runtime.guard import LimitExceeded, reserve
from onnxinterp.testing.samples import Call, Draw, call
from onnxinterp.values import bytes_of

FORMATS = ("BMP", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")  # PPM: all of the pnm family
PIXEL = 16  # bytes of a pixel while it is converted
MODES = {"RGB": "RGB", "BGR": "RGB", "Grayscale": "L"}  # pixel_format -> mode of Pillow


@op("ImageDecoder", since=20, data_shaped=True)
def image_decoder(encoded_stream: Tensor, *, pixel_format: str = "RGB") -> Tensor:
    """Decode bytes [n] to uint8 [height, width, channels]; to [0, 0, channels] if they are broken.

    Transparency is dropped, only the first frame is read, and 16 bits are rounded to 8.
    """
    decode = _decode_captured if torch.compiler.is_compiling() else _decode
    pixels = cast(Tensor, decode(encoded_stream, MODES[pixel_format]))
    return pixels.flip(-1) if pixel_format == "BGR" else pixels


def _decode(stream: Tensor, mode: str) -> Tensor:
    pil = require("PIL.Image", "images")
    file = io.BytesIO(bytes_of(stream))
    try:
        with pil.open(file, formats=FORMATS) as image:
            _check_size(image, pil)
            pixels = _pixels(image, mode, pil)
    except (pil.DecompressionBombError, LimitExceeded):
        raise
    except Exception:  # the specification defines the output for broken files
        return stream.new_empty((0, 0, len(mode)))
    return torch.from_numpy(pixels).to(stream.device)


# One operator for a captured graph, because the size of the image is in the data. Its first call
# imports torch's compiler, for seconds.
_decode_captured = torch.library.custom_op("onnxinterp::decode_image", _decode, mutates_args=())


@_decode_captured.register_fake
def _(stream: Tensor, mode: str) -> Tensor:
    height, width = (torch.library.get_ctx().new_dynamic_size() for _ in range(2))
    return stream.new_empty((height, width, len(mode)))


def _check_size(image: Any, pil: Any) -> None:
    """Check the size before pixels are decoded: Pillow only warns up to twice its limit."""
    count = math.prod(image.size)
    if pil.MAX_IMAGE_PIXELS is not None and count > pil.MAX_IMAGE_PIXELS:
        raise pil.DecompressionBombError(
            f"an image must have at most {pil.MAX_IMAGE_PIXELS:,} pixels, got {count:,}"
        )
    reserve(PIXEL * count)


def _pixels(image: Any, mode: str, pil: Any) -> np.ndarray[Any, Any]:
    """The pixels as [height, width, channels]. Pillow would clamp 16 bits at 255."""
    if image.mode.startswith("I;16") or (image.mode, image.format) == ("I", "PPM"):
        image = pil.fromarray(((np.asarray(image, np.uint32) + 128) // 257).astype(np.uint8))
    if image.mode in ("I", "F"):
        raise ValueError(f"the mode must define the number for white, got {image.mode}")
    if "transparency" in image.info:
        image = image.convert("RGBA")  # Pillow warns if it is lost
    pixels = np.array(image.convert(mode))
    return pixels.reshape(*pixels.shape[:2], len(mode))


@sample(image_decoder)
def _(d: Draw) -> Call:
    """A portable pixmap, which can be written without Pillow."""
    width, height = d.integer(1, 4), d.integer(1, 4)
    header = torch.tensor(list(b"P6 %d %d 255\n" % (width, height)), dtype=torch.uint8)
    stream = torch.cat([header, d.ints((3 * width * height,), 0, 255, torch.uint8)])
    return call(stream, pixel_format=d.maybe(d.choice(list(MODES))))
