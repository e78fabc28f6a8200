"""Images out of files: ImageDecoder.

History: 20.

Pillow reads the files (extra `images`). Images of more than 89 million pixels, which a file of a
few bytes can claim to hold, are refused; `PIL.Image.MAX_IMAGE_PIXELS` moves that limit.
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
PIXEL = 16  # bytes, while it is turned from one form into another
MODES = {"RGB": "RGB", "BGR": "RGB", "Grayscale": "L"}  # pixel_format -> what Pillow calls it


@op("ImageDecoder", since=20, data_shaped=True)
def image_decoder(encoded_stream: Tensor, *, pixel_format: str = "RGB") -> Tensor:
    """Bytes of a file, [n], as uint8 [height, width, channels]; as [0, 0, channels] if broken.

    Transparency is dropped, of several frames the first is read, and 16 bits are rounded to 8.
    """
    decode = _decode_captured if torch.compiler.is_compiling() else _decode
    pixels = cast(Tensor, decode(encoded_stream, MODES[pixel_format]))
    return pixels.flip(-1) if pixel_format == "BGR" else pixels


def _decode(stream: Tensor, mode: str) -> Tensor:
    pil = require("PIL.Image", "images")
    try:
        with pil.open(io.BytesIO(bytes_of(stream)), formats=FORMATS) as image:
            _refuse_bombs(image, pil)
            pixels = _pixels(image, mode, pil)
    except (pil.DecompressionBombError, LimitExceeded):
        raise
    except Exception:  # the specification has an answer to whatever is wrong with a file
        return stream.new_empty((0, 0, len(mode)))
    return torch.from_numpy(pixels).to(stream.device)


# One operator for a captured graph, because the size of the image is in the data. Its first call
# imports torch's compiler, for seconds.
_decode_captured = torch.library.custom_op("onnxinterp::decode_image", _decode, mutates_args=())


@_decode_captured.register_fake
def _(stream: Tensor, mode: str) -> Tensor:
    height, width = (torch.library.get_ctx().new_dynamic_size() for _ in range(2))
    return stream.new_empty((height, width, len(mode)))


def _refuse_bombs(image: Any, pil: Any) -> None:
    """Before the pixels are there: Pillow itself only warns up to twice its limit."""
    count = math.prod(image.size)
    if pil.MAX_IMAGE_PIXELS is not None and count > pil.MAX_IMAGE_PIXELS:
        raise pil.DecompressionBombError(f"{count:,} pixels of {pil.MAX_IMAGE_PIXELS:,}")
    reserve(PIXEL * count)


def _pixels(image: Any, mode: str, pil: Any) -> np.ndarray[Any, Any]:
    """The pixels as [height, width, channels]. Pillow itself would cut 16 bits at 255."""
    if image.mode.startswith("I;16") or (image.mode, image.format) == ("I", "PPM"):
        image = pil.fromarray(((np.asarray(image, np.uint32) + 128) // 257).astype(np.uint8))
    if image.mode in ("I", "F"):
        raise ValueError("nothing tells which number is white")
    if "transparency" in image.info:
        image = image.convert("RGBA")  # Pillow warns where it is lost on the way
    pixels = np.array(image.convert(mode))
    return pixels.reshape(*pixels.shape[:2], len(mode))


@sample(image_decoder)
def _(d: Draw) -> Call:
    """A portable pixmap: it is written without Pillow."""
    width, height = d.integer(1, 4), d.integer(1, 4)
    header = torch.tensor(list(b"P6 %d %d 255\n" % (width, height)), dtype=torch.uint8)
    stream = torch.cat([header, d.ints((3 * width * height,), 0, 255, torch.uint8)])
    return call(stream, pixel_format=d.maybe(d.choice(list(MODES))))
