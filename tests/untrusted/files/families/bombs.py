"""Small files that ask for much: memory, by one node or by many, and time."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from onnx import ModelProto, helper

from tests.untrusted.files.case import TIGHT, Case, Must
from tests.untrusted.files.models import branch, conditional, identity, model, one, tensor

F = np.float32
X = np.ones((1, 1, 4, 4), F)
V = np.ones(8, F)
TEXT = np.array(["abcdefgh"], object)
SQUARE = np.ones((64, 64), F)
BIG = 2**33
node = helper.make_node

ASKED: list[tuple[str, str, list[Any], dict[str, Any]]] = [
    ("ConstantOfShape", "ConstantOfShape", [[BIG]], {}),
    ("ConstantOfShape-square", "ConstantOfShape", [[2**20, 2**20]], {}),
    ("ConstantOfShape-overflow", "ConstantOfShape", [[2**40, 2**40]], {}),
    ("Expand", "Expand", [V, [2**30, 8]], {}),
    ("Expand-overflow", "Expand", [V, [2**62, 8]], {}),
    ("Tile", "Tile", [V, [2**30]], {}),
    ("Tile-far", "Tile", [V, [2**62]], {}),
    ("Tile-1", "Tile", [np.ones(1, F), F(4e8), F(0)], {"opset": 1}),
    ("Tile-strings", "Tile", [TEXT, [2**28]], {}),
    ("Range", "Range", [0, 2**36, 1], {}),
    ("Range-floats", "Range", [0.0, 1e10, 1.0], {}),
    ("Range-float-steps", "Range", [0.0, 1.0, 1e-10], {}),
    ("Range-far", "Range", [0, 2**62, 1], {}),
    ("Pad", "Pad", [V, [0, BIG]], {}),
    ("Pad-before", "Pad", [V, [2**62, 0]], {}),
    ("Pad-both-overflow", "Pad", [V, [2**62, 2**62]], {}),
    ("Pad-reflect", "Pad", [V, [0, BIG]], {"mode": "reflect"}),
    ("Pad-wrap", "Pad", [V, [0, BIG]], {"mode": "wrap"}),
    ("Pad-edge", "Pad", [V, [0, BIG]], {"mode": "edge"}),
    ("Resize-scales", "Resize", [X, None, [1.0, 1.0, 3e4, 3e4]], {}),
    ("Resize-sizes", "Resize", [X, None, None, [1, 1, 2**17, 2**17]], {}),
    ("Resize-linear", "Resize", [X, None, None, [1, 1, 2**17, 2**17]], {"mode": "linear"}),
    ("Resize-cubic", "Resize", [X, None, None, [1, 1, 2**17, 2**17]], {"mode": "cubic"}),
    ("Resize-far", "Resize", [X, None, None, [1, 1, 2**62, 1]], {}),
    ("Resize-scales-far", "Resize", [X, None, [1.0, 1.0, 1e30, 1e30]], {}),
    ("Upsample", "Upsample", [X, [1.0, 1.0, 3e4, 3e4]], {"opset": 9}),
    ("OneHot", "OneHot", [np.arange(8), BIG, [0.0, 1.0]], {}),
    ("OneHot-far", "OneHot", [np.arange(8), 2**62, [0.0, 1.0]], {}),
    ("Einsum-outer", "Einsum", [np.ones(2**16, F), np.ones(2**16, F)], {"equation": "i,j->ij"}),
    ("Einsum-outer-sum", "Einsum", [np.ones(2**12, F)] * 3, {"equation": "i,j,k->"}),
    ("Einsum-many", "Einsum", [np.ones(8, F)] * 20, {"equation": ",".join("abcdefghijklmnopqrst")}),
    ("Einsum-cube", "Einsum", [np.ones((64, 64), F)] * 3, {"equation": "ij,kl,mn->ijklmn"}),
    ("broadcast", "Add", [np.ones((2**17, 1), F), np.ones((1, 2**17), F)], {}),
    ("broadcast-compare", "Equal", [np.ones((2**18, 1), F), np.ones((1, 2**18), F)], {}),
    ("broadcast-where", "Where",
     [np.ones((2**12, 1, 1), bool), np.ones((1, 2**12, 1), F), np.ones((1, 1, 2**12), F)], {}),
    ("MatMul-outer", "MatMul", [np.ones((2**17, 1), F), np.ones((1, 2**17), F)], {}),
    ("Gather", "Gather", [np.ones((1, 2**16), F), np.zeros(2**18, np.int64)], {}),
    ("GatherND", "GatherND", [np.ones((1, 2**16), F), np.zeros((2**18, 1), np.int64)], {}),
    ("RandomNormal", "RandomNormal", [], {"shape": [2**17, 2**17]}),
    ("RandomNormal-far", "RandomNormal", [], {"shape": [2**62]}),
    ("RandomNormal-overflow", "RandomNormal", [], {"shape": [2**62, 4]}),
    ("RandomUniform", "RandomUniform", [], {"shape": [BIG]}),
    ("Multinomial", "Multinomial", [np.ones((1, 2), F)], {"sample_size": 2**32}),
    ("EyeLike", "EyeLike", [np.ones((2**16, 2), F)], {"k": 2**62}),
    ("Trilu-far", "Trilu", [SQUARE, 2**62], {}),
    ("MelWeightMatrix", "MelWeightMatrix", [2**17, 2**18, 2**20, 1.0, 1e5], {}),
    ("HannWindow", "HannWindow", [BIG], {}),
    ("HammingWindow", "HammingWindow", [2**62], {}),
    ("DFT", "DFT", [np.ones((1, 8, 1), F), BIG, 1], {}),
    ("DFT-inverse", "DFT", [np.ones((1, 8, 2), F), 2**62, 1], {"inverse": 1}),
    ("STFT", "STFT", [np.ones((1, 2**18, 1), F), 1, None, 2**14], {}),
    ("MaxPool-pads", "MaxPool", [X], {"kernel_shape": [2**31, 2**31], "pads": [2**30] * 4}),
    ("AveragePool-pads", "AveragePool", [X], {"kernel_shape": [2, 2], "pads": [2**20] * 4,
                                              "count_include_pad": 1}),
    ("LpPool-pads", "LpPool", [X], {"kernel_shape": [2**17, 2], "pads": [2**17 - 1, 0] * 2}),
    ("Conv-pads", "Conv", [X, np.ones((1, 1, 2, 2), F)], {"pads": [2**17] * 4}),
    ("Conv-pads-far", "Conv", [X, np.ones((1, 1, 2, 2), F)], {"pads": [2**62] * 4}),
    ("Conv-dilations", "Conv", [X, np.ones((1, 1, 2, 2), F)],
     {"dilations": [2**20, 2**20], "pads": [2**20] * 4}),
    ("ConvTranspose-strides", "ConvTranspose", [X, np.ones((1, 1, 2, 2), F)],
     {"strides": [2**16, 2**16]}),
    ("ConvTranspose-output_padding", "ConvTranspose", [X, np.ones((1, 1, 2, 2), F)],
     {"strides": [2**20, 2**20], "output_padding": [2**20 - 1] * 2}),
    ("ConvTranspose-output_shape", "ConvTranspose", [X, np.ones((1, 1, 2, 2), F)],
     {"output_shape": [2**17, 2**17], "strides": [2**15, 2**15]}),
    ("Col2Im", "Col2Im", [np.ones((1, 1, 1), F), [2**17, 2**17], [1, 1]],
     {"strides": [2**17, 2**17]}),
    ("MaxUnpool", "MaxUnpool", [X, np.zeros((1, 1, 4, 4), np.int64), [1, 1, 2**17, 2**17]],
     {"kernel_shape": [2, 2]}),
    ("CenterCropPad", "CenterCropPad", [SQUARE, [2**17, 2**17]], {}),
    ("RoiAlign", "RoiAlign", [X, F([[0, 0, 1, 1]]), [0]],
     {"output_height": 2**17, "output_width": 2**17, "sampling_ratio": 1}),
    ("RoiAlign-sampling", "RoiAlign", [X, F([[0, 0, 1, 1]]), [0]], {"sampling_ratio": 2**30}),
    ("MaxRoiPool", "MaxRoiPool", [X, F([[0, 0, 0, 1, 1]])], {"pooled_shape": [2**17, 2**17]}),
    ("GridSample", "GridSample",
     [np.ones((1, 2**16, 1, 1), F), np.zeros((1, 2**9, 2**9, 2), F)], {}),
    ("AffineGrid", "AffineGrid", [np.ones((1, 2, 3), F), [1, 1, 2**17, 2**17]], {}),
    ("BlackmanWindow", "BlackmanWindow", [BIG], {}),
    ("CumSum-of-Expand", "CumSum", [np.ones(2**20, F), 0], {}),
    ("LSTM-hidden", "LSTM", [np.ones((2, 1, 1), F), np.ones((1, 4, 1), F), np.ones((1, 4, 1), F)],
     {"hidden_size": 2**31}),
    ("Reshape-far", "Reshape", [V, [1] * 100_000 + [8]], {}),
    ("Unsqueeze-many", "Unsqueeze", [V, np.arange(10_000)], {}),
    ("ImageDecoder-png", "ImageDecoder", [np.zeros(0, np.uint8)], {}),
    ("SplitToSequence", "SplitToSequence", [np.ones(2**22, F)], {"keepdims": 1}),
    ("StringSplit", "StringSplit", [np.array(["a " * 2**20], object)], {}),
    ("RegexFullMatch", "RegexFullMatch", [np.array(["a" * 40 + "b"], object)],
     {"pattern": "(a+)+" * 10}),
    ("RegexFullMatch-repeat", "RegexFullMatch", [TEXT], {"pattern": "((a{1,999}){1,999}){1,999}"}),
    ("Det", "Det", [np.ones((1500, 1500), F)], {}),
    ("Split-many", "Split", [np.ones(2**10, F)], {"num_outputs": 2**40}),
    ("TfIdf", "TfIdfVectorizer", [np.array([1, 2])],
     {"mode": "TF", "min_gram_length": 1, "max_gram_length": 1, "max_skip_count": 0,
      "ngram_counts": [0], "ngram_indexes": [2**33], "pool_int64s": [1]}),
    ("OneHotEncoder", "OneHotEncoder", [np.arange(2**12)],
     {"domain": "ai.onnx.ml", "opset": 1, "cats_int64s": list(range(2**13))}),
    ("TreeEnsemble-targets", "TreeEnsemble", [np.ones((1, 1), F)],
     {"domain": "ai.onnx.ml", "opset": 5, "n_targets": 2**40, "tree_roots": [0],
      "nodes_featureids": [0], "nodes_splits": helper.make_tensor("s", 1, [1], [0.5]),
      "nodes_modes": helper.make_tensor("m", 2, [1], [0]), "nodes_truenodeids": [0],
      "nodes_falsenodeids": [0], "nodes_trueleafs": [1], "nodes_falseleafs": [1],
      "leaf_targetids": [0], "leaf_weights": helper.make_tensor("w", 1, [1], [1.0])}),
]  # fmt: skip

VIEWS = ("ConstantOfShape", "ConstantOfShape-square", "Expand")
"""One element seen everywhere: they take no memory, until something copies them."""

SMALL = (*VIEWS, "CumSum-of-Expand", "Det", "RegexFullMatch", "Trilu-far", "EyeLike",
         "SplitToSequence", "StringSplit", "Reshape-far", "Unsqueeze-many", "Einsum-outer-sum",
         "RegexFullMatch-repeat", "GridSample", "OneHotEncoder", "MaxPool-pads")  # fmt: skip
"""What may be answered, where it fits into the limits."""


def cases() -> Iterator[Case]:
    for name, op, values, attributes in ASKED:
        must: Must = "either" if name in SMALL else "refused"
        given = [(png(2**16, 2**16),)] if name == "ImageDecoder-png" else []
        inputs = [np.frombuffer(given[0][0], np.uint8)] if given else values
        for stored in (False, True):
            if stored and sum(np.size(v) for v in inputs if v is not None) > 2**19:
                continue
            content, feeds = one(op, inputs, stored=stored, **attributes)
            where = "stored" if stored else "fed"
            yield Case(f"bombs/{name}/{where}", content, must, feeds, limits=TIGHT, asked=False)
    for name, built, must in (*_grown(), *_images(), *_shared()):
        content = built.SerializeToString()
        yield Case(f"bombs/{name}", content, must, limits=TIGHT, asked=False)
    limited = replace(TIGHT, nodes=100_000)
    for name, built in (*_laughs(), *_fans()):
        content = built.SerializeToString()
        yield Case(f"bombs/{name}", content, "refused", limits=limited, asked=False)


def _chain(first: Any, steps: Sequence[tuple[str, dict[str, Any], int]], times: int) -> ModelProto:
    """Nodes that read the value before them, once or twice."""
    nodes, at = [], "v0"
    for i in range(times):
        op, attributes, reads = steps[i % len(steps)]
        nodes.append(node(op, [at] * reads, [f"v{i + 1}"], **attributes))
        at = f"v{i + 1}"
    return model([*nodes, identity(at, "y")], initializers=[tensor(first, "v0")])


def _grown() -> Iterator[tuple[str, ModelProto, Must]]:
    """Values that double with each node."""
    doubled: dict[str, tuple[Any, list[tuple[str, dict[str, Any], int]]]] = {
        "Concat": (V, [("Concat", {"axis": 0}, 2)]),
        "Concat-ints": (np.arange(2), [("Concat", {"axis": 0}, 2)]),
        "Concat-strings": (TEXT, [("Concat", {"axis": 0}, 2)]),
        "StringConcat": (TEXT, [("StringConcat", {}, 2)]),
        "Einsum-rank": (np.ones(2, F), [("Einsum", {"equation": "...,...->..."}, 2)]),
        "Mul-ints": (np.array([3]), [("Mul", {}, 2)]),
        "Pow-ints": (np.array([3]), [("Pow", {}, 2)]),
    }
    small = ("Einsum-rank", "Mul-ints", "Pow-ints")
    for name, (first, steps) in doubled.items():
        must: Must = "either" if name in small else "refused"
        yield f"doubling-{name}", _chain(first, steps, 40), must
    sequences = [node("SequenceConstruct", ["v0", "v0"], ["s0"])]
    for i in range(40):
        sequences.append(node("ConcatFromSequence", [f"s{i}"], [f"c{i}"], axis=0))
        sequences.append(node("SequenceConstruct", [f"c{i}"] * 2, [f"s{i + 1}"]))
    held = [tensor(V, "v0")]
    yield (
        "doubling-sequences",
        model([*sequences, identity("c39", "y")], initializers=held),
        "refused",
    )
    kept = [node("Expand", ["v0", "shape"], [f"k{i}"]) for i in range(40)]
    kept += [node("Neg", [f"k{i}"], [f"n{i}"]) for i in range(40)]
    total = node("Sum", [f"n{i}" for i in range(40)], ["y"])
    held.append(tensor(np.array([2**20, 8]), "shape"))
    yield "forty-alive", model([*kept, total], initializers=held), "refused"
    inserted = [node("SequenceEmpty", [], ["s0"]), node("Expand", ["v0", "shape"], ["e"])]
    inserted += [node("Neg", ["e"], [f"n{i}"]) for i in range(40)]
    inserted += [node("SequenceInsert", [f"s{i}", f"n{i}"], [f"s{i + 1}"]) for i in range(40)]
    inserted.append(node("SequenceLength", ["s40"], ["y"]))
    yield "forty-in-a-sequence", model(inserted, initializers=held), "refused"
    yield from _texts()
    wide = [node("ConstantOfShape", ["shape"], [f"w{i}"]) for i in range(200)]
    wide += [node("Neg", [f"w{i}"], [f"m{i}"]) for i in range(200)]
    outputs = [f"m{i}" for i in range(200)]
    yield "two-hundred-outputs", model(wide, outputs=outputs, initializers=held), "refused"


def _texts() -> Iterator[tuple[str, ModelProto, Must]]:
    """Texts that no tensor holds: many that are different, and one that falls into many."""

    def doubled(times: int) -> list[Any]:
        return [node("StringConcat", [f"t{i}"] * 2, [f"t{i + 1}"]) for i in range(times)]

    held = [tensor(np.array(["a" * 2**13], object), "t0")]
    texts = [node("StringConcat", ["t10", f"t{i % 9}"], [f"u{i}"]) for i in range(30)]
    listed = node("SequenceConstruct", [f"u{i}" for i in range(30)], ["s"])
    nodes = [*doubled(10), *texts, listed, node("SequenceLength", ["s"], ["y"])]
    yield "thirty-texts", model(nodes, initializers=held), "refused"
    held = [tensor(np.array(["ab "], object), "t0")]
    split = node("StringSplit", ["t22"], ["parts", "y"])
    yield "text-of-many-words", model([*doubled(22), split], initializers=held), "refused"
    held = [tensor(np.array(["aaaa"], object), "t0")]
    match = node("RegexFullMatch", ["t20"], ["y"], pattern="((a?){30}){30}b")
    yield (
        "text-that-is-matched-for-minutes",
        model([*doubled(20), match], initializers=held),
        ("refused"),
    )
    held = [tensor(np.array(["1.5"], object), "t"), tensor(np.array([2**22]), "n")]
    for name, made in {
        "StringSplit": node("StringSplit", ["e"], ["parts", "y"]),
        "StringNormalizer": node("StringNormalizer", ["e"], ["y"], case_change_action="UPPER"),
        "Cast": node("Cast", ["e"], ["y"], to=1),
    }.items():
        nodes = [node("Expand", ["t", "n"], ["e"]), made]
        yield f"one-text-at-2**22-places-{name}", model(nodes, initializers=held), "either"


def png(width: int, height: int) -> bytes:
    """A picture of one colour that says how large it is."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    rows = zlib.compressobj(9)
    packed = b"".join(rows.compress(bytes(2**20)) for _ in range(16)) + rows.flush()
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", packed) + chunk(b"IEND", b"")
    )


def bmp(width: int, height: int) -> bytes:
    """The head of a picture, and nothing behind it."""
    head = struct.pack("<2sIHHI", b"BM", 54, 0, 0, 54)
    return head + struct.pack("<IiiHHIIiiII", 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0)


def gif(width: int, height: int) -> bytes:
    head = b"GIF89a" + struct.pack("<HHBBB", width, height, 0x80, 0, 0) + bytes(6)
    return head + b"," + struct.pack("<HHHHB", 0, 0, width, height, 0) + b"\x02\x02D\x01\x00;"


def _images() -> Iterator[tuple[str, ModelProto, Must]]:
    pictures = {
        "png-2**31": png(2**31 - 1, 1),
        "png-8000": png(8000, 8000),
        "bmp-2**31": bmp(2**31 - 1, 2**31 - 1),
        "bmp-minus": bmp(-5, -5),
        "bmp-30000": bmp(30_000, 30_000),
        "gif-65535": gif(65_535, 65_535),
        "ppm": b"P6 60000 60000 255\n",
        "tiff": b"II*\0\x08\0\0\0\xff\xff" + b"\xff" * 64,
        "webp": b"RIFF\xff\xff\xff\xffWEBPVP8L\xff\xff\xff\xff/" + b"\xff" * 64,
        "jpeg": b"\xff\xd8\xff\xc0\x00\x11\x08\xff\xff\xff\xff\x03"
        + b"\x01\x11\0" * 3
        + b"\xff\xd9",
        "jp2": b"\0\0\0\x0cjP  \r\n\x87\n" + b"\xff" * 64,
    }
    for name, data in pictures.items():
        decode = node("ImageDecoder", ["d"], ["y"])
        held = [tensor(np.frombuffer(data, np.uint8), "d")]
        yield f"picture-{name}", model([decode], initializers=held), "either"


def _laughs() -> Iterator[tuple[str, ModelProto]]:
    """Functions that call the one below them twice, or ten times: a billion laughs."""
    for times, depth in ((2, 30), (10, 9), (2, 31), (1000, 3)):
        functions = [
            helper.make_function(
                "f", "F0", ["x"], ["y"], [node("Neg", ["x"], ["y"])], [helper.make_opsetid("", 21)]
            )
        ]
        for level in range(1, depth):
            calls = [
                node(f"F{level - 1}", [f"a{i}"], [f"a{i + 1}"], domain="f") for i in range(times)
            ]
            calls[0].input[0], calls[-1].output[0] = "x", "y"
            imports = [helper.make_opsetid("", 21), helper.make_opsetid("f", 1)]
            functions.append(helper.make_function("f", f"F{level}", ["x"], ["y"], calls, imports))
        top = node(f"F{depth - 1}", ["x"], ["y"], domain="f")
        built = model([top], functions=functions, imports=[("f", 1)], initializers=[tensor(V, "x")])
        yield f"laughs-{times}-to-{depth}", built


def _fans() -> Iterator[tuple[str, ModelProto]]:
    """A function whose branches call the one below."""
    functions = [
        helper.make_function(
            "f", "F0", ["x"], ["y"], [node("Neg", ["x"], ["y"])], [helper.make_opsetid("", 21)]
        )
    ]
    imports = [helper.make_opsetid("", 21), helper.make_opsetid("f", 1)]
    for level in range(1, 30):
        below = f"F{level - 1}"
        arms = [branch([node(below, ["x"], [o], domain="f")], o) for o in ("t", "e")]
        nodes = conditional(*arms)
        functions.append(helper.make_function("f", f"F{level}", ["x"], ["y"], nodes, imports))
    top = node("F29", ["x"], ["y"], domain="f")
    yield (
        "laughs-in-branches",
        model([top], functions=functions, imports=[("f", 1)], initializers=[tensor(V, "x")]),
    )


def _shared() -> Iterator[tuple[str, ModelProto, Must]]:
    """Graphs of many paths but few nodes: nothing may walk the paths."""
    nodes = [node("Add", [f"a{i}", f"a{i}"], [f"a{i + 1}"]) for i in range(2000)]
    yield (
        "paths-2**2000",
        model([*nodes, identity("a2000", "y")], initializers=[tensor(V, "a0")]),
        "either",
    )
    nodes = []
    for i in range(500):
        nodes += [identity(f"a{i}", f"b{i}"), identity(f"a{i}", f"c{i}")]
        nodes.append(node("Add", [f"b{i}", f"c{i}"], [f"a{i + 1}"]))
    yield (
        "diamonds-500",
        model([*nodes, identity("a500", "y")], initializers=[tensor(V, "a0")]),
        "either",
    )
    names = [f"o{i}" for i in range(3000)]
    fan = [identity("a", n) for n in names]
    yield (
        "fan-3000",
        model([*fan, node("Sum", names, ["y"])], initializers=[tensor(V, "a")]),
        "either",
    )
    shapes = [node("Concat", [f"s{i}", f"s{i}"], [f"s{i + 1}"], axis=0) for i in range(26)]
    ask = [node("Shape", ["a"], ["s0"]), *shapes, node("Size", ["s26"], ["y"])]
    yield "shape-arithmetic-2**26", model(ask, initializers=[tensor(V, "a")]), "either"
    numbers = [node("Mul", [f"n{i}", f"n{i}"], [f"n{i + 1}"]) for i in range(25)]
    ask = [node("Size", ["a"], ["n0"]), *numbers, identity("n25", "y")]
    yield "numbers-of-2**25-digits", model(ask, initializers=[tensor(V, "a")]), "either"
    backwards = [identity(f"a{i + 1}", f"a{i}") for i in range(3000)]
    yield (
        "backwards-3000",
        model([identity("a0", "y"), *backwards], initializers=[tensor(V, "a3000")]),
        "either",
    )
