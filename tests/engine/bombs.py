"""Small files that need more memory than there is, run in a child process that measures its memory.

Each is a graph with an input n, the size of what it computes. The answer of the child is whether it
raised the error, and by how much the memory of the process has grown.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch

from onnxinterp import Limits, OnnxModule
from onnxinterp.errors import UnsafeModelError

HUGE = 2 * 10**9
SMALL = 6
TIGHT = Limits(live_bytes=2**27, tensor_bytes=2**26, seconds=10.0)
TINY = Limits(tensor_bytes=16, live_bytes=2000)
BOMBS = {
    "ConstantOfShape": "z = ConstantOfShape (n) y = Add (z, x)",
    "Expand": "z = Expand (x, n) y = Relu (z)",
    "Tile": "y = Tile (x, n)",
    "Range": "s = Squeeze (n) f = Cast <to = 1> (s) zero = Constant <value = float {0}> ()"
    " one = Constant <value = float {1}> () y = Range (zero, f, one)",
    "Range of integers": "s = Squeeze (n) zero = Constant <value = int64 {0}> ()"
    " one = Constant <value = int64 {1}> () r = Range (zero, s, one) y = Cast <to = 1> (r)",
    "Pad": "zero = Constant <value = int64[1] {0}> () p = Concat <axis = 0> (zero, n)"
    " y = Pad (x, p)",
    "Pad by edges": "zero = Constant <value = int64[1] {0}> () p = Concat <axis = 0> (zero, n)"
    ' y = Pad <mode = "edge"> (x, p)',
    "Resize": 'y = Resize <mode = "linear"> (x, , , n)',
    "OneHot": "zero = Constant <value = int64[1] {0}> () v = Constant <value = float[2] {0, 1}> ()"
    " y = OneHot (zero, n, v)",
    "Concat in a Loop": "t = Constant <value = bool {1}> () s = Squeeze (n)"
    " y = Loop (s, t, x) <body = b (int64 i, bool c, float[k] v) => (bool d, float[m] w)"
    " { d = Identity (c) w = Concat <axis = 0> (v, v) }>",
    "rows of a Loop": "t = Constant <value = bool {1}> () s = Squeeze (n) big = Constant <value ="
    " int64[1] {100000}> () e = Expand (x, big)"
    " y = Loop (s, t) <body = b (int64 i, bool c) => (bool d, float[m] w)"
    " { d = Identity (c) w = Neg (e) }>",
    "Scan": "m = Expand (x, n) y = Scan <num_scan_inputs = 1, body = b (float v) => (float w)"
    " { w = Neg (v) }> (m)",
    "broadcasting": "two = Constant <value = int64[1] {-1}> ()"
    " one = Constant <value = int64[1] {1}> () r = Expand (x, n)"
    " q = Concat <axis = 0> (two, one) c = Reshape (r, q) y = Mul (r, c)",
    "Einsum": 'r = Expand (x, n) y = Einsum <equation = "i,j->ij"> (r, r)',
    "MatMul": "r = Expand (x, n) q = Constant <value = int64[1] {1}> () c = Unsqueeze (r, q)"
    " p = Constant <value = int64[1] {0}> () d = Unsqueeze (r, p) y = MatMul (c, d)",
    "Gather": "r = Expand (x, n) i = Cast <to = 7> (r) z = Sub (i, i) y = Gather (x, z)",
    "Cast": "r = Expand (x, n) y = Cast <to = 11> (r)",
    "Where": "r = Expand (x, n) b = Cast <to = 9> (x) y = Where (b, r, x)",
    "Softmax": "r = Expand (x, n) y = Softmax (r)",
    "TopK": "r = Expand (x, n) k = Constant <value = int64[1] {1}> () y, z = TopK (r, k)",
    "CumSum": "r = Expand (x, n) a = Constant <value = int64 {0}> () y = CumSum (r, a)",
    "NonZero": "r = Expand (x, n) y = NonZero (r)",
    "Unique": "r = Expand (x, n) y = Unique (r)",
    "RandomNormalLike": "r = Expand (x, n) y = RandomNormalLike (r)",
    "HannWindow": "s = Squeeze (n) y = HannWindow (s)",
    "DFT": "s = Squeeze (n) a = Constant <value = int64[3] {1, 1, 1}> () r = Reshape (x, a)"
    " y = DFT (r, s)",
    "numbers to text": "r = Expand (x, n) t = Cast <to = 8> (r) y = Shape (t)",
    "texts with texts": "r = Expand (x, n) t = Cast <to = 8> (x) e = Expand (t, n)"
    " y = StringConcat (e, e)",
    "a sequence": "r = Expand (x, n) s = SplitToSequence <keepdims = 0> (r) y = SequenceLength (s)",
    "numbers for Python": "one = Constant <value = int64[1] {1}> () r = Expand (one, n)"
    " y = Reshape (x, r)",
    "AffineGrid": "a = Constant <value = int64[3] {1, 1, 9}> () b = Concat <axis = 0> (a, n)"
    " h = Constant <value = float[1, 2, 3] {1, 0, 0, 0, 1, 0}> () y = AffineGrid (h, b)",
    "Conv": "a = Constant <value = int64[2] {1, 1}> () b = Concat <axis = 0> (a, n)"
    " r = Expand (x, b) w = Constant <value = float[1, 1, 1] {1}> ()"
    " y = Conv <pads = [9, 9]> (r, w)",
    "MaxPool": "a = Constant <value = int64[2] {1, 1}> () b = Concat <axis = 0> (a, n)"
    " r = Expand (x, b) y = MaxPool <kernel_shape = [1]> (r)",
}


def model(body: str) -> onnx.ModelProto:
    """A graph of x and n."""
    head = '<ir_version: 10, opset_import: ["" : 20]> g (float[1] x, int64[1] n) => '
    kind = {"y = SequenceLength": "int64", "y = Shape": "int64", "y = NonZero": "int64"}
    found = next((k for part, k in kind.items() if part in body), "float")
    found = "string" if "y = StringConcat" in body else found
    found = "double" if "to = 11> (r)" in body else found
    text = re.sub(r"\s+", " ", f"{head} ({found} y) {{ {body} }}")
    proto = onnx.parser.parse_model(text)
    proto.graph.output[0].type.tensor_type.ClearField("shape")
    return proto


def call(body: str, n: int, limits: Limits) -> Any:
    """The result of the graph."""
    bomb = OnnxModule(model(body), limits=limits, trainable="none")
    return bomb(torch.ones(1), torch.tensor([n]))


def peak() -> int:
    """The most memory of the process since the last call, in bytes."""
    status = Path("/proc/self/status").read_text()
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    Path("/proc/self/clear_refs").write_text("5")
    assert found is not None
    return 1024 * int(found[1])


def measured(run: Callable[[], Any]) -> str:
    """`refused` where a limit was exceeded; and by how much memory has grown, in MB."""
    peak()
    before = peak()
    try:
        answer = f"gives {np.shape(run())}"
    except UnsafeModelError as error:
        answer = "refused" if "limits." in str(error) else f"wrongly refused: {error}"
    grown = peak() - before
    return f"{answer} {grown / 1e6:.0f}"


def cases() -> dict[str, Callable[[], str]]:
    """Every bomb, large."""
    call(BOMBS["Expand"], SMALL, TIGHT)  # imports at the first call are not counted
    call(BOMBS["Resize"], SMALL, TIGHT)
    return dict(_cases())


def _cases() -> Iterator[tuple[str, Callable[[], str]]]:
    for name, body in BOMBS.items():
        yield name, lambda body=body: measured(lambda: call(body, HUGE, TIGHT))
