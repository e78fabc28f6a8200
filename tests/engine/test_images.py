"""ImageDecoder: every format, modes of colour, broken files, claims of size, capture."""

from __future__ import annotations

import io
import struct
import sys
import zlib
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from PIL import Image
from torch import Tensor

from onnxinterp import NodeError, OnnxModule
from onnxinterp.extras import MissingExtraError

FORMATS = ["BMP", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP"]
LOSSLESS: dict[str, dict[str, Any]] = {"JPEG": {"quality": 100}, "WEBP": {"lossless": True}}
RED = np.full((3, 5, 3), (255, 0, 0), np.uint8)


def decoder(pixel_format: str = "RGB") -> OnnxModule:
    text = f"""
    <ir_version: 9, opset_import: ["": 20]>
    g (uint8[n] file) => (uint8[h, w, c] image) {{
        image = ImageDecoder <pixel_format = "{pixel_format}"> (file)
    }}
    """
    return OnnxModule(onnx.parser.parse_model(text))


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def decoded(file: bytes, pixel_format: str = "RGB") -> Tensor:
    answer = decoder(pixel_format)(torch.tensor(list(file), dtype=torch.uint8))
    assert isinstance(answer, Tensor)
    return answer


@pytest.mark.parametrize("kind", FORMATS)
def test_every_format(kind: str) -> None:
    file = saved(Image.fromarray(RED), kind, **LOSSLESS.get(kind, {}))
    got = decoded(file)
    assert got.dtype is torch.uint8
    torch.testing.assert_close(got, torch.from_numpy(RED), rtol=0, atol=2)


def test_other_formats_are_not_tried() -> None:
    assert decoded(saved(Image.fromarray(RED), "GIF")).shape == (0, 0, 3)


def test_channels() -> None:
    file = saved(Image.fromarray(RED), "PNG")
    assert decoded(file)[0, 0].tolist() == [255, 0, 0]
    assert decoded(file, "BGR")[0, 0].tolist() == [0, 0, 255]
    assert decoded(file, "Grayscale")[0, 0].tolist() == [76]  # ITU-R 601: 0.299 of red


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "PA", "RGBA", "CMYK", "YCbCr"])
def test_modes_of_colour_become_the_one_asked_for(mode: str) -> None:
    white = Image.new("RGBA", (4, 2), (255, 255, 255, 128)).convert(mode)
    kind = "JPEG" if mode in ("CMYK", "YCbCr") else "TIFF" if mode == "PA" else "PNG"
    file = saved(white, kind)
    assert decoded(file).shape == (2, 4, 3)
    assert decoded(file).min() >= 254
    assert decoded(file, "Grayscale").shape == (2, 4, 1)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
def test_sixteen_bits_are_scaled(kind: str) -> None:
    ramp = np.array([[0, 128, 129, 257, 32768, 65535]], np.uint16)
    file = saved(Image.fromarray(ramp), kind)
    assert decoded(file, "Grayscale").flatten().tolist() == [0, 0, 1, 1, 128, 255]
    assert decoded(file)[0, -1].tolist() == [255, 255, 255]


def test_numbers_without_a_white_are_no_image() -> None:
    floats = Image.fromarray(np.ones((2, 2), np.float32))
    assert decoded(saved(floats, "TIFF")).shape == (0, 0, 3)


@pytest.mark.parametrize("kind", FORMATS)
def test_broken_files_give_an_empty_image(kind: str) -> None:
    """As the specification has it."""
    noise = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    file = saved(Image.fromarray(noise), kind)
    for broken in (b"", file[:3], file[: len(file) // 2], b"\0" * 100):
        assert decoded(broken).shape == (0, 0, 3)
        assert decoded(broken, "Grayscale").shape == (0, 0, 1)


def test_a_small_file_cannot_claim_a_huge_image() -> None:
    def chunk(name: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        )

    header = struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
    file = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")
    with pytest.raises(NodeError) as error:
        decoded(file)
    assert isinstance(error.value.__cause__, Image.DecompressionBombError)


def test_without_pillow_the_message_names_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "PIL", None)
    monkeypatch.delitem(sys.modules, "PIL.Image")
    with pytest.raises(MissingExtraError, match=r"pip install onnxinterp\[images\]"):
        decoded(b"")


def test_it_is_captured_as_one_operator() -> None:
    module = decoder()
    file = torch.tensor(list(saved(Image.fromarray(RED), "PNG")), dtype=torch.uint8)
    exported = torch.export.export(module, (file,)).module()
    torch.testing.assert_close(exported(file), module(file))
