"""Files that are odd, and right: refusing one, or another answer, is as bad as a crash."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
from onnx import ModelProto, TensorProto, helper

from tests.untrusted.files.case import Case
from tests.untrusted.files.families.external import entry, holding, write
from tests.untrusted.files.models import (
    INT64,
    branch,
    conditional,
    identity,
    model,
    one,
    tensor,
    text,
)

F = np.float32
X = F([1, -2])
X_INFO = helper.make_tensor_value_info("x", 1, [2])
EMPTY = np.zeros((0, 3), F)
IMAGE = np.arange(16, dtype=F).reshape(1, 1, 4, 4)
node = helper.make_node


def cases() -> Iterator[Case]:
    for name, built, expected in (*_models(), *_branches(), *_headers(), *_texts(), *_optimized()):
        content = built if isinstance(built, bytes) else built.SerializeToString()
        for calls in (1, 3):
            again = "" if calls == 1 else "-thrice"
            yield Case(f"legal/{name}{again}", content, "right", {"x": X}, expected, calls=calls)
    for name, op, values, attributes in CALLS:
        for stored in (False, True):
            where = "stored" if stored else "fed"
            content, feeds = one(op, values, stored=stored, **attributes)
            yield Case(f"legal/{name}/{where}", content, "right", feeds)
    offset = 4096
    content = holding(entry("w.bin", offset=str(offset), length="16"))
    padded = partial(_padded, offset=offset)
    data = (np.arange(4, dtype=F),)
    yield Case("legal/external-padded", content, "right", {}, data, beside=padded)
    nothing = holding(entry("w.bin", dims=(0, 4)))
    yield Case(
        "legal/external-of-nothing", nothing, "right", {}, (np.zeros((0, 4), F),), beside=write
    )


def _padded(folder: Any, offset: int) -> None:
    (folder / "w.bin").write_bytes(bytes(offset) + np.arange(4, dtype=F).tobytes())


CALLS: list[tuple[str, str, list[Any], dict[str, Any]]] = [
    ("empty-Neg", "Neg", [EMPTY], {}),
    ("empty-Add", "Add", [EMPTY, F([1, 2, 3])], {}),
    ("empty-Concat", "Concat", [EMPTY, np.ones((2, 3), F)], {"axis": 0}),
    ("empty-MatMul", "MatMul", [np.ones((2, 0), F), EMPTY], {}),
    ("empty-Gemm", "Gemm", [np.ones((2, 0), F), EMPTY], {}),
    ("empty-ReduceSum", "ReduceSum", [EMPTY, [0]], {}),
    ("empty-ReduceProd", "ReduceProd", [EMPTY, [0]], {}),
    ("empty-Reshape", "Reshape", [EMPTY, [3, 0]], {"allowzero": 1}),
    ("empty-Transpose", "Transpose", [EMPTY], {}),
    ("empty-Gather", "Gather", [np.ones((2, 3), F), np.zeros(0, np.int64)], {}),
    ("empty-Slice", "Slice", [np.ones((4,), F), [2], [2]], {}),
    ("empty-Expand", "Expand", [np.ones((1, 3), F), [0, 3]], {}),
    ("empty-Tile", "Tile", [np.ones((2, 3), F), [0, 1]], {}),
    ("empty-Range", "Range", [5, 5, 1], {}),
    ("empty-Range-back", "Range", [0, 5, -1], {}),
    ("empty-NonZero", "NonZero", [np.zeros((2, 2), F)], {}),
    ("empty-Where", "Where", [np.zeros((0, 1), bool), EMPTY, EMPTY], {}),
    ("empty-Cast", "Cast", [EMPTY], {"to": INT64}),
    ("empty-Shape", "Shape", [EMPTY], {}),
    ("empty-Size", "Size", [EMPTY], {}),
    ("empty-ConstantOfShape", "ConstantOfShape", [[0, 2]], {}),
    ("empty-Pad", "Pad", [EMPTY, [1, 0, 0, 0]], {}),
    ("empty-ScatterND", "ScatterND", [np.ones((2, 3), F), np.zeros((0, 1), np.int64), EMPTY], {}),
    ("empty-CumSum", "CumSum", [EMPTY, 0], {}),
    ("empty-Squeeze", "Squeeze", [np.ones((1, 0), F), [0]], {}),
    ("empty-Unsqueeze", "Unsqueeze", [EMPTY, [0]], {}),
    ("empty-Flatten", "Flatten", [EMPTY], {"axis": 1}),
    ("empty-Softmax", "Softmax", [EMPTY], {}),
    ("empty-Where-scalar", "Where", [np.array(True), F(1), F(2)], {}),
    ("scalar-Neg", "Neg", [F(3)], {}),
    ("scalar-Expand", "Expand", [F(3), np.zeros(0, np.int64)], {}),
    ("scalar-Reshape", "Reshape", [F([3]), np.zeros(0, np.int64)], {}),
    ("scalar-Gather", "Gather", [F([3, 4]), np.int64(-1)], {}),
    ("scalar-ReduceSum", "ReduceSum", [F(3)], {}),
    ("scalar-Softmax-of-1", "Softmax", [F([3])], {}),
    ("scalar-ConstantOfShape", "ConstantOfShape", [np.zeros(0, np.int64)], {}),
    ("Pad-crop", "Pad", [np.arange(6, dtype=F), [-1, -2]], {}),
    ("Slice-back", "Slice", [np.arange(6, dtype=F), [-1], [-(2**63)], [0], [-1]], {}),
    ("Slice-huge", "Slice", [np.arange(6, dtype=F), [-(2**63)], [2**63 - 1]], {}),
    ("Gather-minus", "Gather", [np.arange(6, dtype=F), [-6, 5]], {}),
    ("TopK-0", "TopK", [np.arange(6, dtype=F), [0]], {"outputs": 2}),
    ("Split-0", "Split", [np.arange(6, dtype=F), [0, 6, 0]], {"outputs": 3}),
    ("Concat-one", "Concat", [X], {"axis": 0}),
    ("Sum-one", "Sum", [X], {}),
    ("Max-one", "Max", [X], {}),
    ("Einsum-one", "Einsum", [X], {"equation": "i->"}),
    ("Einsum-spaces", "Einsum", [X, X], {"equation": " i , i -> i "}),
    ("Einsum-implicit", "Einsum", [X, X], {"equation": "i,j"}),
    ("Conv-asymmetric", "Conv", [IMAGE, np.ones((1, 1, 3, 2), F)], {"pads": [2, 0, 0, 1]}),
    ("MaxPool-ceil", "MaxPool", [IMAGE],
     {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1}),
    ("Clip-open", "Clip", [X, None, F(0)], {}),
    ("Cast-to-infinity", "Cast", [F([1e9, -1e9])], {"to": TensorProto.FLOAT16}),
    ("Cast-bool-of-nan", "Cast", [F([np.nan, 0, -0.0])], {"to": TensorProto.BOOL}),
    ("strings-empty", "StringConcat", [["", "a"], ["", ""]], {}),
    ("strings-odd", "Identity", [np.array(["\0", "\x1b[0m", "\U0001f4a3"], object)], {}),
]  # fmt: skip


def _models() -> Iterator[tuple[str, ModelProto | bytes, tuple[Any, ...]]]:
    neg = node("Neg", ["x"], ["y"])
    yield "one-node", model([neg], [X_INFO]), (-X,)
    yield "input-is-output", model([], [X_INFO], ["x"]), (X,)
    yield "input-is-output-twice", model([neg], [X_INFO], ["x", "y"]), (X, -X)
    weight = tensor(F([7]), "w")
    yield "weight-is-output", model([neg], [X_INFO], ["y", "w"], [weight]), (-X, F([7]))
    yield "weight-unused", model([neg], [X_INFO], ["y"], [weight]), (-X,)
    vast = helper.make_tensor("w", 1, [0, 2**40], [])
    yield "weight-of-no-elements", model([neg], [X_INFO], ["y"], [vast]), (-X,)
    unused = node("Exp", ["x"], ["unused"])
    yield "node-unused", model([neg, unused], [X_INFO]), (-X,)
    ignored = node("Split", ["x"], ["y", ""], num_outputs=2)
    yield "output-ignored", model([ignored], [X_INFO]), (X[:1],)
    dropped = node("Dropout", ["x"], ["y", "mask"])
    yield "output-optional", model([dropped], [X_INFO]), (X,)
    trailing = node("Clip", ["x", "", ""], ["y"])
    yield "inputs-absent-at-the-end", model([trailing], [X_INFO]), (X,)
    named = model(
        [node("Neg", ["x"], ["t"], name="n"), node("Neg", ["t"], ["y"], name="n")], [X_INFO]
    )
    yield "node-names-twice", named, (X,)
    value = model([node("Neg", ["x"], ["y"], name="x")], [X_INFO])
    yield "node-named-as-a-value", value, (-X,)
    both = model([node("Neg", ["x"], ["t"]), node("Abs", ["t"], ["y"], domain="ai.onnx")], [X_INFO])
    yield "domain-in-two-spellings", both, (abs(X),)
    default = model([neg], [X_INFO], ["y"], [tensor(F([9, 9]), "x")])
    yield "input-with-default-given", default, (-X,)


def _branches() -> Iterator[tuple[str, ModelProto, tuple[Any, ...]]]:
    outer = [node("Neg", ["x"], ["t"])]
    arm = branch([node("Abs", ["t"], ["o"])], "o")
    yield "branch-reads-outside", model([*outer, *conditional(arm)], [X_INFO]), (abs(X),)
    same = conditional(branch([identity("x", "o")], "o"), branch([node("Neg", ["x"], ["o"])], "o"))
    yield "branches-of-one-name", model(same, [X_INFO]), (X,)
    lonely = helper.make_graph([], "b", [], [helper.make_empty_tensor_value_info("x")])
    yield "branch-of-no-nodes", model(conditional(lonely), [X_INFO]), (X,)
    wide = [node("Neg", ["x"], [f"v{i}"]) for i in range(500)]
    total = node("Sum", [f"v{i}" for i in range(500)], ["y"])
    yield "sum-of-500", model([*wide, total], [X_INFO]), (-500 * X,)
    shapes = [node("Shape", ["x"], ["s"]), node("ConstantOfShape", ["s"], ["y"])]
    yield "shape-to-value", model(shapes, [X_INFO]), (F([0, 0]),)


def _headers() -> Iterator[tuple[str, ModelProto, tuple[Any, ...]]]:
    """What stands around the nodes."""
    neg = node("Neg", ["x"], ["y"])
    lying = model([neg], [X_INFO])
    lying.graph.value_info.append(helper.make_tensor_value_info("nothing", 1, [5]))
    yield "value-info-of-nothing", lying, (-X,)
    symbols = model([neg], [helper.make_tensor_value_info("x", 1, ["not an identifier! {0}"])])
    yield "dimension-of-any-name", symbols, (-X,)
    free = model([neg], [helper.make_tensor_value_info("x", 1, None)])
    yield "input-of-any-shape", free, (-X,)
    for ir_version in (3, 4, 7, 8, 9, 10):
        older = model([neg], [X_INFO], opset=13)
        older.ir_version = ir_version
        yield f"ir-{ir_version}", older, (-X,)
    for opset in (7, 9, 11, 13, 17, 21):
        yield f"opset-{opset}", model([neg], [X_INFO], opset=opset), (-X,)
    sparse = helper.make_sparse_tensor(tensor(F([5]), "w"), tensor(np.array([1]), "i"), [2])
    added = model([node("Add", ["x", "w"], ["y"])], [X_INFO])
    added.graph.sparse_initializer.append(sparse)
    yield "sparse-weight", added, (X + F([0, 5]),)
    metadata = model([neg], [X_INFO])
    helper.set_model_props(metadata, {"": "", "k": "v" * 10_000})
    yield "metadata", metadata, (-X,)
    imported = model([neg], [X_INFO], imports=[("never.used", 99), ("ai.onnx.ml", 3)])
    yield "opsets-unused", imported, (-X,)
    uncalled = helper.make_function("f", "F", ["a"], ["b"], [node("Nothing", ["a"], ["b"])], [])
    yield "function-never-called", model([neg], [X_INFO], functions=[uncalled]), (-X,)


def _texts() -> Iterator[tuple[str, ModelProto, tuple[Any, ...]]]:
    twice = '<domain: "f", opset_import: ["" : 21]>\nTwice (a) => (b) { b = Add(a, a) }'
    main = "g (float[2] x) => (float[2] y) {{ {} }}\n"
    yield "function", text(main.format("y = f.Twice(x)") + twice), (2 * X,)
    thrice = "t = f.Twice(x) u = f.Twice(t) y = f.Twice(u)"
    yield "function-three-calls", text(main.format(thrice) + twice), (8 * X,)
    shadow = '<domain: "f", opset_import: ["" : 21]>\nF (x) => (y) { t = Neg(x) y = Abs(t) }'
    yield (
        "function-of-the-same-names",
        text(main.format("t = Exp(x) y = f.F(x)") + shadow),
        (abs(X),),
    )
    absent = (
        '<domain: "f", opset_import: ["" : 21]>\nF (a, low, high) => (b) { b = Clip(a, low, high) }'
    )
    zero = "zero = Constant <value = float {0.0}> () "
    yield (
        "function-input-left-out",
        text(main.format(zero + "y = f.F(x, zero)") + absent),
        (F([1, 0]),),
    )
    other = '<domain: "f", opset_import: ["" : 11]>\nF (a) => (b) { b = Softmax <axis = 0> (a) }'
    soft = np.exp(X) / np.exp(X).sum()
    yield "function-of-an-older-opset", text(main.format("y = f.F(x)") + other), (soft,)


def _optimized() -> Iterator[tuple[str, bytes, tuple[Any, ...]]]:
    """What onnxruntime's optimizer writes of standard operators."""
    import onnxruntime

    nodes = [
        node("Constant", [], ["c"], value=tensor(F([2, 3]))),
        node("Add", ["c", "c"], ["d"]),
        node("Mul", ["x", "d"], ["t"]),
        identity("t", "u"),
        node("Add", ["u", "w"], ["y"]),
    ]
    built = model(nodes, [X_INFO], initializers=[tensor(F([1, 1]), "w")])
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    import tempfile
    from pathlib import Path

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "optimized.onnx"
        options.optimized_model_filepath = str(path)
        onnxruntime.InferenceSession(
            built.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        yield "optimized", path.read_bytes(), (X * F([4, 6]) + 1,)
