"""What a file is that could not be read, by its first bytes: for error messages.

Source of the signatures: https://en.wikipedia.org/wiki/List_of_file_signatures and the
specifications of the formats.
"""

from __future__ import annotations

import codecs

HEAD_BYTES = 512  # that are looked at
EXPORT = "export the network with torch.onnx.export"
COMPRESSED = "unpack it first"
SIGNATURES: tuple[tuple[int, bytes, str, str], ...] = (
    (0, b"version https://git-lfs.github.com/spec/", "a Git LFS pointer", "run `git lfs pull`"),
    (
        0,
        b"PK\x03\x04",
        "a zip archive, as torch.save writes",
        f"{EXPORT}; onnxinterp.checkpoints.load reads a checkpoint of onnxinterp",
    ),
    *((0, bytes([128, n]), "a Python pickle, as old torch.save writes", EXPORT) for n in (2, 3, 4)),
    (0, b"\x1f\x8b", "a gzip file", COMPRESSED),
    (0, b"BZh", "a bzip2 file", COMPRESSED),
    (0, b"\xfd7zXZ\0", "an xz file", COMPRESSED),
    (0, b"\x28\xb5\x2f\xfd", "a zstd file", COMPRESSED),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7-zip archive", COMPRESSED),
    (257, b"ustar", "a tar archive", COMPRESSED),
    (0, b"\x89HDF\r\n\x1a\n", "an HDF5 file, as Keras writes", "convert it with tf2onnx"),
    (4, b"TFL3", "a TensorFlow Lite model", "convert it with tf2onnx"),
    (4, b"ORTM", "a model in the .ort format", "load the .onnx file that it was made from"),
    (8, b'{"', "a safetensors file: weights without a graph", "use module.load_safetensors"),
    (0, b"GGUF", "a GGUF file: weights without a graph", "load an .onnx file"),
    (0, b"\x93NUMPY", "a numpy array", "load an .onnx file"),
)
"""Offset, bytes at this offset, what the file is, and what to do."""


def describe(data: bytes) -> str:
    """What a file is and what to do, such as "a gzip file, not ...: unpack it first".

    Args:
        data: its bytes, or at least the first 512.

    Returns:
        The description, to follow "<file> is"; "" where the bytes show nothing.
    """
    head = data[:HEAD_BYTES]
    if not head:
        return "empty: download or export it again"
    for offset, signature, what, advice in SIGNATURES:
        if head.startswith(signature, offset):
            return f"{what}, not a model: {advice}"
    if head.lstrip().lower().startswith((b"<!doctype html", b"<html")):
        return "an HTML page, not a model: download the file itself, not the page about it"
    try:
        text, _ = codecs.utf_8_decode(head, "strict", False)  # the last character may be cut
    except UnicodeDecodeError:
        return ""
    is_text = all(c.isprintable() or c.isspace() for c in text)
    return "a text file, not a model: look at what it says" if is_text else ""
