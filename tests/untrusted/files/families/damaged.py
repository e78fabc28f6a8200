"""Bytes that are no model, no longer one, or one of a strange spelling."""

from __future__ import annotations

import gzip
import io
import json
import pickle
import random
import zipfile
from collections.abc import Iterator
from typing import Any

import numpy as np
from onnx import ModelProto, helper

from tests.untrusted.files.case import Case, Must
from tests.untrusted.files.models import branch, conditional, identity, model, tensor

X = np.float32([[1, -2, 3]])
FEEDS = {"x": X}
VARINT, FIXED64, BYTES, GROUP, END, FIXED32 = range(6)


def varint(n: int) -> bytes:
    out = bytearray()
    while n > 127:
        out.append(n & 127 | 128)
        n >>= 7
    return bytes([*out, n])


def field(number: int, payload: bytes | int, wire: int = BYTES) -> bytes:
    """One field of a message."""
    tag = varint(number << 3 | wire)
    if isinstance(payload, int):
        return tag + varint(payload)
    return tag + (varint(len(payload)) + payload if wire == BYTES else payload)


def sample() -> ModelProto:
    """A model that has something of everything."""
    inner = branch([helper.make_node("Add", ["r", "b"], ["t"])], "t")
    other = branch([identity("r", "e")], "e")
    yes, choice = conditional(inner, other)
    choice.output[0] = "c"
    twice = helper.make_function(
        "f", "Twice", ["v"], ["o"], [helper.make_node("Add", ["v", "v"], ["o"])],
        [helper.make_opsetid("", 21)],
    )  # fmt: skip
    nodes = [
        helper.make_node("Gemm", ["x", "w", "b"], ["g"], name="gemm", alpha=0.5, transB=1),
        helper.make_node("Relu", ["g"], ["r"], name="relu"),
        yes,
        choice,
        helper.make_node("Twice", ["c"], ["y"], domain="f"),
    ]
    held = [
        tensor(np.arange(9, dtype=np.float32).reshape(3, 3), "w"),
        helper.make_tensor("b", 1, [3], [0.5, 1.5, 2.5]),
    ]
    info = helper.make_tensor_value_info("x", 1, ["n", 3])
    built = model(nodes, [info], ["y"], held, functions=[twice], imports=[("f", 1)])
    built.producer_name = "hostile"
    built.graph.doc_string = "a sample"
    helper.set_model_props(built, {"key": "value"})
    return built


def cases() -> Iterator[Case]:
    whole = sample().SerializeToString()
    yield Case("damaged/not-at-all", whole, "right", FEEDS)
    for name, content, must in (*_other_files(), *_wire(whole), *_parts(whole), *_nested(whole)):
        yield Case(f"damaged/{name}", content, must, FEEDS, as_bytes=len(name) % 2 == 0)
    for at in sorted({*range(0, len(whole), max(1, len(whole) // 70)), 1, 2, len(whole) - 1}):
        yield Case(f"damaged/cut-at-{at}", whole[:at], "either", FEEDS)
    for seed in range(90):
        chance = random.Random(seed)
        data = bytearray(whole)
        for _ in range(chance.choice([1, 1, 2, 8, 40])):
            data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        yield Case(f"damaged/bits-{seed}", bytes(data), "either", FEEDS)
    for seed in range(30):
        chance = random.Random(1000 + seed)
        a, b = sorted(chance.randrange(len(whole)) for _ in range(2))
        moved = [
            whole[:a] + whole[b:],
            whole[:b] + whole[a:],
            whole[:a] + bytes(b - a) + whole[b:],
            whole[:a] + b"\xff" * (b - a) + whole[b:],
            whole[:a] + chance.randbytes(b - a) + whole[b:],
        ][seed % 5]
        yield Case(f"damaged/piece-{seed}", moved, "either", FEEDS)
    for size in (1, 2, 7, 64, 1000, 100_000):
        for seed in range(3):
            content = random.Random(seed).randbytes(size)
            yield Case(f"damaged/noise-{size}-{seed}", content, "either", FEEDS)


class Bomb:
    """What pickle would run."""

    def __reduce__(self) -> tuple[Any, ...]:
        return exec, ("import os; os.abort()",)


def _other_files() -> Iterator[tuple[str, bytes, Must]]:
    """Files of other kinds."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as made:
        made.writestr("archive/data.pkl", pickle.dumps(Bomb()))
    array = io.BytesIO()
    np.save(array, X)
    header = json.dumps({"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    yield "empty", b"", "refused"
    yield "zeros", bytes(4096), "refused"
    yield "ones", b"\xff" * 4096, "refused"
    yield "text", b"import os\nos.abort()\n" * 20, "refused"
    yield "html", b"<!DOCTYPE html><html><body>404 Not Found</body></html>", "refused"
    yield "json", json.dumps({"graph": {"node": []}}).encode(), "refused"
    yield "lfs-pointer", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "refused"
    yield "gzip", gzip.compress(sample().SerializeToString()), "refused"
    yield "zip", archive.getvalue(), "refused"
    yield "pickle", pickle.dumps(Bomb()), "refused"
    yield "numpy", array.getvalue(), "refused"
    yield "safetensors", len(header).to_bytes(8, "little") + header + bytes(4), "refused"
    yield "elf", b"\x7fELF\x02\x01\x01" + bytes(57), "refused"
    yield (
        "onnx-text",
        b'<ir_version: 8, opset_import: ["" : 21]> g (x) => (y) { y = Neg(x) }',
        "refused",
    )
    yield "byte-order-mark", b"\xef\xbb\xbf" + sample().SerializeToString(), "refused"
    yield "utf-16", sample().SerializeToString().decode("latin-1").encode("utf-16"), "refused"
    yield "crlf", sample().SerializeToString().replace(b"\n", b"\r\n"), "refused"


def _wire(whole: bytes) -> Iterator[tuple[str, bytes, Must]]:
    """Fields of wrong kinds, lengths that lie, and spellings that protobuf allows."""
    for number in (1, 2, 7, 8, 14, 20, 25):
        for wire in range(8):
            tag = varint(number << 3 | wire)
            content = whole + tag + b"\x08\x07\x06\x05\x04\x03\x02\x01"
            yield f"field-{number}-as-{wire}", content, "either"
    for length in (2**31 - 1, 2**31, 2**32, 2**63, 2**64 - 1):
        for number in (2, 7, 8, 25):
            content = whole + varint(number << 3 | BYTES) + varint(length)
            yield f"length-{length}-of-{number}", content, "refused"
    yield "varint-endless", whole + b"\x08" + b"\x80" * 100, "refused"
    yield "varint-of-11", whole + b"\x08" + b"\x80" * 10 + b"\x01", "refused"
    yield "varint-long", whole + b"\x98\x06" + b"\x88\x80\x80\x80\x00", "either"
    yield "tag-0", whole + b"\x00", "refused"
    yield "tag-far", whole + b"\xff\xff\xff\xff\x7f\x00", "refused"
    yield "group-open", whole + b"\x9b\x06", "refused"
    yield "group-closed-first", whole + b"\x9c\x06", "refused"
    yield "group-unknown", whole + b"\x9b\x06\x9c\x06", "either"
    yield "unknown-field", whole + field(999, b"x" * 100_000), "right"
    yield "unknown-first", field(999, b"x") + whole, "right"
    yield "graph-twice", whole + field(7, b""), "right"
    empty = field(1, 8, VARINT) + field(7, b"") + field(8, field(2, 21, VARINT))
    yield "graph-empty", empty, "either"
    yield "model-twice", whole + whole, "refused"
    opset = field(8, field(1, b"") + field(2, 2**64 - 1, VARINT))
    yield "opset-minus-one", whole + opset, "refused"


def _parts(whole: bytes) -> Iterator[tuple[str, bytes, Must]]:
    """Parts of the model that hold no text, no numbers, or nothing, many times."""
    for name, number in (("name", 2), ("doc", 10)):
        yield f"not-utf8-graph-{name}", whole + field(7, field(number, b"\xff\xfe\x80")), "either"
    yield "not-utf8-producer", whole + field(2, b"\xff\xfe\x80"), "either"
    for number, name in ((1, "input"), (2, "output"), (3, "name"), (4, "op"), (7, "domain")):
        node = field(number, b"\xff\xfe\x80")
        yield f"not-utf8-node-{name}", whole + field(7, field(1, node)), "either"
    yield "not-utf8-metadata", whole + field(14, field(1, b"\xff") + field(2, b"\xfe")), "either"
    value = field(1, b"v\xff") + field(2, field(1, field(1, 1, VARINT)))
    yield "not-utf8-input-name", whole + field(7, field(11, value)), "either"
    tensor_ = field(1, 0, VARINT) + field(2, 1, VARINT) + field(8, b"w\xff") + field(9, b"")
    yield "not-utf8-initializer", whole + field(7, field(5, tensor_)), "either"
    packed = field(1, b"\x80" * 9, BYTES) + field(2, 1, VARINT) + field(8, b"odd")
    yield "packed-dims-broken", whole + field(7, field(5, packed)), "refused"
    floats = field(1, 4, VARINT) + field(2, 1, VARINT) + field(4, b"\0" * 15) + field(8, b"odd")
    yield "packed-floats-broken", whole + field(7, field(5, floats)), "refused"
    many = field(7, field(1, b"") * 20_000)
    yield "nodes-empty-20000", whole + many, "either"
    yield "metadata-100000", whole + field(14, field(1, b"k") + field(2, b"v")) * 100_000, "right"


def _nested(whole: bytes) -> Iterator[tuple[str, bytes, Must]]:
    """Messages within messages, deeper than any stack."""
    for depth in (50, 99, 101, 1000, 10_000, 100_000):
        must: Must = "either" if depth < 100 else "refused"
        groups = b"\x9b\x06" * depth + b"\x9c\x06" * depth
        yield f"groups-{depth}", whole + groups, must
        if depth > 10_000:
            continue
        graph = field(1, b"")
        for _ in range(depth):  # a node of an attribute of a graph
            graph = field(1, field(5, field(1, b"a") + field(6, graph) + field(20, 5, VARINT)))
        yield f"graphs-{depth}", whole + field(7, graph), must
        kind = field(1, field(1, 1, VARINT))
        for _ in range(depth):
            kind = field(4, field(1, kind))  # a sequence of
        info = field(11, field(1, b"deep") + field(2, kind))
        yield f"types-{depth}", whole + field(7, info), must
        attribute = field(1, b"a") + field(20, 5, VARINT)
        for _ in range(depth):
            attribute = (
                field(1, b"a") + field(20, 14, VARINT) + field(14, field(4, field(1, attribute)))
            )
        node = field(1, b"x") + field(2, b"deep") + field(4, b"Identity") + field(5, attribute)
        yield f"attributes-{depth}", whole + field(7, field(1, node)), "refused"
