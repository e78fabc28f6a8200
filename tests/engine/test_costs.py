"""Each torch function's time is estimated before it runs, without imports of the compiler."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from onnxinterp import Limits
from onnxinterp.errors import UnsafeModelError
from onnxinterp.runtime.guard import Guard, LimitExceeded
from tests.engine.test_guard import module

ROWS, COLUMNS = 10**7, 10**8  # 1e15 elements: minutes, at 2e10 a second for each of 256 threads
PASSES: dict[str, Callable[[Tensor], Any]] = {
    "sum": lambda x: x.sum(),
    "sum of columns": lambda x: x.sum(0),
    "sum into a tensor": lambda x: torch.sum(x, 1, out=torch.empty(0)),
    "mean": lambda x: x.mean(),
    "max": lambda x: x.max(),
    "max of rows": lambda x: x.max(1),
    "amin": lambda x: x.amin((0, 1)),
    "argmax": lambda x: x.argmax(),
    "logsumexp": lambda x: x.logsumexp(1),
    "norm": lambda x: torch.linalg.vector_norm(x),
    "var": lambda x: x.var(),
    "std of rows": lambda x: x.std(1),
    "any": lambda x: (x[:1, :1] > 0).expand(ROWS, COLUMNS).any(),
    "all of rows": lambda x: x.all(1),
    "prod": lambda x: x.prod(),
    "median": lambda x: x.median(),
    "mode": lambda x: x.mode(1),
    "count_nonzero": lambda x: x.count_nonzero(),
    "cumsum": lambda x: x.cumsum(1),
    "cumprod": lambda x: x.cumprod(0),
    "cummax": lambda x: x.cummax(1),
    "logcumsumexp": lambda x: x.logcumsumexp(1),
    "sort": lambda x: x.sort(1),
    "argsort": lambda x: x.argsort(0),
    "topk": lambda x: x.topk(1, dim=1),
    "kthvalue": lambda x: x.kthvalue(1),
    "unique": lambda x: x.unique(),
    "nonzero": lambda x: x.nonzero(),
    "softmax": lambda x: x.softmax(1),
    "a pointwise function": lambda x: x.sin(),
    "a special function": lambda x: torch.special.entr(x),
    "a copy": lambda x: x.clone(),
    "a change of dtype": lambda x: x.double(),
    "equality": lambda x: torch.equal(x, x[:, :1].expand(ROWS, COLUMNS)),
    "a matrix product": lambda x: x @ x.T,
    "a matrix and a vector": lambda x: x @ x[0],
    "a batch of products": lambda x: torch.bmm(x[None], x.T[None]),
    "a histogram": lambda x: torch.histc(x),  # without a formula
    "Hermitian products": lambda x: torch.linalg.vecdot(x, x),
    "a linear solver": lambda x: torch.linalg.cholesky(x[:, :ROWS]),  # without a formula
    "indices": lambda x: torch.searchsorted(x[0, :5].contiguous(), x),
    "padding": lambda x: torch.nn.functional.pad(x, [1, 1]),
    "a convolution": lambda x: torch.conv1d(x[:1, None], x[:1, None, :100_000].expand(ROWS, 1, -1)),
    "rows of an index": lambda x: x[torch.zeros(1, dtype=torch.int64).expand(ROWS)],
}


@pytest.mark.parametrize("name", PASSES)
def test_a_pass_over_an_expanded_tensor_that_cannot_end_in_time_does_not_begin(name: str) -> None:
    x = torch.ones(1, 1).expand(ROWS, COLUMNS)
    before = time.monotonic()
    guard = Guard(Limits(seconds=30.0))
    started = guard._deadline - 30
    with guard, pytest.raises(LimitExceeded, match=r"takes at least .* of limits\.seconds = 30"):
        PASSES[name](x)
    imports = guard._deadline - 30 - started  # for runs on meta tensors, once
    assert time.monotonic() - before < 10 + imports


READ_IN_PART: dict[str, Callable[[Tensor], Any]] = {
    "a slice": lambda x: x[:2, :2].sin(),
    "rows": lambda x: x[:, :2].index_select(0, torch.tensor([3, 999_999])),
    "elements": lambda x: x[torch.tensor([0, 5]), torch.tensor([3, 4])],
    "gather": lambda x: x.gather(1, torch.tensor([[3], [4]])),
    "a number": lambda x: x[4, 2].item(),
    "zeros": lambda x: x.new_zeros((2, 2)),
    "an embedding": lambda x: torch.embedding(x[:, :4], torch.tensor([1, 2])),
}


@pytest.mark.parametrize("name", READ_IN_PART)
def test_a_part_of_an_expanded_tensor_takes_little_time(name: str) -> None:
    with Guard(Limits(seconds=1.0)):
        READ_IN_PART[name](torch.ones(1, 1).expand(ROWS, COLUMNS))


EXPANDED = "n = Constant <value = int64[2] {10000000, 100000000}> () z = Expand (c, n)"
NODES = [
    "ReduceSum <keepdims = 0> (z)",
    "ReduceMax <keepdims = 0> (z)",
    "ReduceLogSumExp <keepdims = 0> (z)",
    "ReduceL2 <keepdims = 0> (z)",
    "ReduceProd <keepdims = 0> (z)",
    "ArgMax <axis = 1> (z)",
    "CumSum (z, axis)",
    "TopK <axis = 1> (z, one)",
    "Softmax (z)",
    "MatMul (z, t)",
    "Unique (z)",
]


@pytest.mark.parametrize("node", NODES)
@pytest.mark.parametrize("limits", [Limits(), Limits(seconds=30.0)], ids=["no limits", "seconds"])
def test_such_a_pass_does_not_begin_while_constants_are_folded(node: str, limits: Limits) -> None:
    results = "y, i" if "TopK" in node else "y"
    text = f"""(float[1] x) => (y) <float[1, 1] c = {{1}}, int64 axis = {{1}}, int64[1] one = {{1}}>
        {{ {EXPANDED} t = Transpose (z) {results} = {node} }}"""
    before = time.monotonic()
    m = module(text, limits=limits, trainable="none")
    assert time.monotonic() - before < 10
    if limits.seconds is not None:
        with pytest.raises(UnsafeModelError, match=rf"{node.split()[0]}.*limits\.seconds"):
            m(torch.ones(1))
        assert time.monotonic() - before < 15


FIRST_CALL = """
import sys, onnx, torch
from onnxinterp import Limits, OnnxModule
from tests.engine.test_costs import IMAGE, ORDINARY
from tests.engine.test_guard import HEAD
model = onnx.parser.parse_model(HEAD + ORDINARY)
free = OnnxModule(model)
import PIL.Image
PIL.Image.init()
inputs = [torch.rand(i.shape) for i in free.inputs]
free(*inputs)
before = set(sys.modules)
assert "sympy" not in before, "a call without limits imports it"
OnnxModule(model, limits=Limits.untrusted())(*inputs)
image = onnx.parser.parse_model(HEAD + IMAGE)
broken = torch.zeros(4, dtype=torch.uint8)
assert OnnxModule(image, limits=Limits.untrusted())(broken).shape == (0, 0, 3)
print(*sorted(set(sys.modules) - before))
"""
IMAGE = "(uint8[n] x) => (uint8[h, w, c] y) { y = ImageDecoder (x) }"
ORDINARY = """(float[1, 3, 8, 8] x, float[4, 3, 3, 3] w, float[4] b, float[4, 4] m, float[16] g)
    => (y, u)
    <int64[2] shape = {4, 16}, int64[1] k = {2}, int64 zero = {0}, float[4] scales = {1, 1, 2, 2}>
    {
        c = Conv <pads = [1, 1, 1, 1]> (x, w, b)
        n = BatchNormalization (c, b, b, b, b)
        r = Relu (n)
        p = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (r)
        q = AveragePool <kernel_shape = [2, 2]> (p)
        u = Resize (q, , scales)
        f = Reshape (p, shape)
        l = LayerNormalization (f, g)
        h = MatMul (m, l)
        s = Softmax (h)
        e = Gemm <transB = 1> (s, s, m)
        t, i = TopK (s, k)
        v = CumSum (t, zero)
        z = ReduceMean <keepdims = 0> (v)
        d = Add (e, z)
        y = Concat <axis = 1> (d, t)
    }"""


def test_a_first_call_in_limits_imports_nothing_large() -> None:
    """Runs on meta tensors would import sympy and torch's compiler: 2.6 s and 165 MB."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    child = subprocess.run(
        [sys.executable, "-c", FIRST_CALL],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert child.returncode == 0, child.stderr
    new = {name for name in child.stdout.split() if not name.startswith("onnxinterp")}
    assert new == set()
