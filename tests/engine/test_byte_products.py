"""Products of 8-bit integers are exact, whoever computes them."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper
from torch import Tensor

from onnxinterp import Limits, OnnxModule
from onnxinterp.ops import byte_convolutions, byte_products
from onnxinterp.ops.byte_products import product
from onnxinterp.ops.convolution import conv_integer
from onnxinterp.ops.integer_products import mat_mul_integer

TYPES = (torch.uint8, torch.int8)
ONNX_TYPES = {torch.uint8: TensorProto.UINT8, torch.int8: TensorProto.INT8}
each_pair = pytest.mark.parametrize(("left", "right"), [(a, b) for a in TYPES for b in TYPES])
has_kernels = byte_products._is_processor_exact()


@pytest.fixture(autouse=True, scope="module")
def at_all_sizes() -> Iterator[None]:
    """Small products, too, which are faster in floats."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (byte_products, byte_convolutions):
            patch.setattr(module, "MIN_PRODUCTS", 0)
        yield


@pytest.fixture
def in_float64(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a processor without these instructions."""
    monkeypatch.setattr(byte_products, "_is_processor_exact", lambda: False)


def numbers(dtype: torch.dtype, *shape: int, seed: int = 0, ends: bool = False) -> Tensor:
    """Of the whole range, or its ends alone."""
    info, generator = torch.iinfo(dtype), torch.Generator().manual_seed(seed)
    if ends:
        return torch.where(torch.rand(shape, generator=generator) < 0.5, info.min, info.max).to(
            dtype
        )
    return torch.randint(info.min, info.max + 1, shape, generator=generator).to(dtype)


def exact(a: Tensor, b: Tensor, p: Tensor | None, q: Tensor | None) -> Tensor:
    """By 64-bit integers of numpy."""
    x, y = a.numpy().astype(np.int64), b.numpy().astype(np.int64)
    x = x if p is None else x - p.numpy().astype(np.int64)
    y = y if q is None else y - q.numpy().astype(np.int64)
    return torch.from_numpy((x @ y).astype(np.int32))


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_products_are_those_of_64_bit_integers(data: st.DataObject) -> None:
    m, k, n = (data.draw(st.integers(1, 70)) for _ in range(3))
    left, right = (data.draw(st.sampled_from(TYPES)) for _ in range(2))
    batch = data.draw(st.sampled_from([(), (2,), (3, 2)]))
    ends = data.draw(st.booleans())
    a = numbers(left, *batch, m, k, seed=1, ends=ends)
    b = numbers(right, *data.draw(st.sampled_from([(), batch])), k, n, seed=2, ends=ends)
    if data.draw(st.booleans()):
        a = a.mT.contiguous().mT
    if data.draw(st.booleans()):
        b = torch.cat([b, b], -1)[..., ::2]
    p = data.draw(st.sampled_from([None, (), (1,), (m, 1)]))
    q = data.draw(st.sampled_from([None, (), (1,), (n,), (1, n)]))
    zeros = [
        shape if shape is None else numbers(dtype, *shape, seed=seed)
        for shape, dtype, seed in ((p, left, 3), (q, right, 4))
    ]
    got = mat_mul_integer(a, b, zeros[0], zeros[1])
    assert got.dtype is torch.int32
    assert torch.equal(got, exact(a, b, *zeros))


@each_pair
@pytest.mark.parametrize("shape", [(1, 768, 3072), (128, 3072, 80), (16, 64, 64), (5, 32768, 3)])
def test_the_largest_sums_are_exact(
    left: torch.dtype, right: torch.dtype, shape: tuple[int, int, int]
) -> None:
    m, k, n = shape
    for a_end, b_end in ((0, 0), (0, 1), (1, 0), (1, 1)):
        a, b = (
            torch.full(s, (torch.iinfo(t).min, torch.iinfo(t).max)[end], dtype=t)
            for s, t, end in (((m, k), left, a_end), ((k, n), right, b_end))
        )
        zeros = [
            torch.tensor((torch.iinfo(t).max, torch.iinfo(t).min)[i], dtype=t)
            for t, i in ((left, a_end), (right, b_end))
        ]
        for p, q in ((None, None), (zeros[0], None), (None, zeros[1]), (zeros[0], zeros[1])):
            assert torch.equal(mat_mul_integer(a, b, p, q), exact(a, b, p, q))


def test_the_processor_computes_them_where_it_can() -> None:
    a, b = numbers(torch.uint8, 3, 8), numbers(torch.int8, 8, 2)
    assert (product(a, b) is not None) == has_kernels
    assert product(a.double(), b) is None
    assert product(a, b.to(torch.int32)) is None


@pytest.mark.usefixtures("in_float64")
def test_without_the_instructions_float64_does() -> None:
    a, b = numbers(torch.uint8, 30, 80, ends=True), numbers(torch.int8, 80, 20, ends=True)
    assert product(a, b) is None
    assert torch.equal(mat_mul_integer(a, b), exact(a, b, None, None))


def test_a_processor_that_saturates_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The control: sums of two products at 16 bits, as AVX2 has them, are not used."""

    def saturating(a: Tensor, b: Tensor) -> Tensor:
        terms = a.long().unsqueeze(-1) * b.long().unsqueeze(0)
        terms = torch.nn.functional.pad(terms, (0, 0, 0, terms.shape[1] % 2))
        pairs = terms.unflatten(1, (-1, 2)).sum(2).clamp(-(2**15), 2**15 - 1)
        return pairs.sum(1).to(torch.int32)

    a, b = torch.tensor([[255, 255]]).byte(), torch.tensor([[127], [127]]).to(torch.int8)
    assert int(saturating(a, b)) == 2**15 - 1 != int(exact(a, b, None, None))
    fresh = byte_products._is_processor_exact.__wrapped__
    monkeypatch.setattr(torch.cpu, "_is_vnni_supported", lambda: True)
    monkeypatch.setattr(torch, "_int_mm", lambda a, b: (a.long() @ b.long()).to(torch.int32))
    assert fresh() == torch.backends.mkldnn.is_available()
    monkeypatch.setattr(torch, "_int_mm", saturating)
    assert not fresh()
    monkeypatch.delattr(torch, "_int_mm")
    assert not fresh()


CONVOLUTIONS: list[dict[str, Any]] = [
    {},
    {"pads": [1, 0, 2, 1]},
    {"strides": [2, 1], "dilations": [1, 2], "pads": [1, 1, 1, 1]},
    {"auto_pad": "SAME_UPPER", "strides": [2, 2]},
    {"auto_pad": "SAME_LOWER"},
    {"group": 2},
    {"group": 6, "pads": [1, 1, 1, 1]},
]


@each_pair
@pytest.mark.parametrize("attributes", CONVOLUTIONS, ids=str)
@pytest.mark.parametrize("columns", [2**24, 200])
def test_convolutions_are_exact(
    left: torch.dtype,
    right: torch.dtype,
    attributes: dict[str, Any],
    columns: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    group = attributes.get("group", 1)
    x = numbers(left, 2, 6, 9, 8, ends=True)
    w = numbers(right, 24, 6 // group, 3, 3, seed=1, ends=True)
    x_zeros = (None, numbers(left, seed=5), torch.tensor(torch.iinfo(left).max, dtype=left))
    w_zeros = (None, numbers(right, 1, seed=6), numbers(right, 24, seed=7))
    monkeypatch.setattr(byte_convolutions, "MAX_COLUMN_BYTES", columns)
    for p in x_zeros:
        for q in w_zeros:
            got = conv_integer(x, w, p, q, **attributes)
            with monkeypatch.context() as without:
                without.setattr(byte_products, "_is_processor_exact", lambda: False)
                want = conv_integer(x, w, p, q, **attributes)
            assert (got.dtype, got.shape) == (want.dtype, want.shape)
            assert torch.equal(got, want)


@pytest.mark.parametrize("rank", [1, 3])
@pytest.mark.parametrize("group", [1, 4])
def test_convolutions_of_other_ranks_are_exact(
    rank: int, group: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = numbers(torch.uint8, 2, 4, *[7] * rank)[..., 1:]
    w = numbers(torch.int8, 8, 4 // group, *[2] * rank)
    zero = torch.tensor(200, dtype=torch.uint8)
    options: dict[str, Any] = {"pads": [1] * 2 * rank, "strides": [2] * rank, "group": group}
    got = conv_integer(x, w, zero, **options)
    monkeypatch.setattr(byte_products, "_is_processor_exact", lambda: False)
    assert torch.equal(got, conv_integer(x, w, zero, **options))


def node(op_type: str, types: list[int], **attributes: Any) -> onnx.ModelProto:
    """One node; its inputs have the names of their places."""
    names = [str(i) for i in range(len(types))]
    infos = [helper.make_tensor_value_info(n, t, None) for n, t in zip(names, types, strict=True)]
    y = helper.make_tensor_value_info("y", TensorProto.INT32, None)
    graph = helper.make_graph(
        [helper.make_node(op_type, names, ["y"], **attributes)], "g", infos, [y]
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def answer(model: onnx.ModelProto, inputs: list[Tensor]) -> Tensor:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, ["CPUExecutionProvider"]
    )
    return torch.from_numpy(session.run(None, {str(i): x.numpy() for i, x in enumerate(inputs)})[0])


SCALE, ZERO = torch.tensor(0.03), torch.tensor(7, dtype=torch.uint8)


def test_onnxruntime_answers_the_same() -> None:
    """Numbers up to 63 in the right factor: it saturates, too, where there is no VNNI."""
    a, b = numbers(torch.uint8, 24, 96), numbers(torch.int8, 96, 40, seed=1) // 2
    x, w = numbers(torch.uint8, 1, 8, 12, 12), numbers(torch.int8, 16, 8, 3, 3, seed=1) // 2
    none, step = torch.tensor(0, dtype=torch.int8), torch.tensor(0.5)
    bias = torch.arange(16, dtype=torch.int32) * 999
    cases: list[tuple[str, list[Tensor], dict[str, Any]]] = [
        ("MatMulInteger", [a, b, ZERO, none], {}),
        ("QLinearMatMul", [a, SCALE, ZERO, b, SCALE, none, step, ZERO], {}),
        ("ConvInteger", [x, w, ZERO, none], {"pads": [1, 1, 1, 1]}),
        ("QLinearConv", [x, SCALE, ZERO, w, SCALE, none, step, ZERO, bias], {"strides": [2, 2]}),
    ]
    for op_type, inputs, attributes in cases:
        types = [
            ONNX_TYPES.get(t.dtype, TensorProto.INT32 if t.dtype is torch.int32 else 1)
            for t in inputs
        ]
        model = node(op_type, types, **attributes)
        if op_type.startswith("QLinear"):
            model.graph.output[0].type.tensor_type.elem_type = TensorProto.UINT8
        got, want = OnnxModule(model)(*inputs), answer(model, inputs)
        assert got.dtype is want.dtype
        assert torch.equal(got, want), op_type
        assert len(want.unique()) > 50


def test_a_captured_graph_has_portable_functions() -> None:
    """It may run on another processor."""
    model = node("MatMulInteger", [TensorProto.UINT8, TensorProto.INT8])
    a, b = numbers(torch.uint8, 4, 300, ends=True), numbers(torch.int8, 300, 5, ends=True)
    module = OnnxModule(model)
    program = torch.export.export(module, (a, b))
    assert "int_mm" not in str(program.graph)
    assert torch.equal(program.module()(a, b), module(a, b))


def test_zero_points_may_be_others_in_each_call() -> None:
    """Also in later calls of the same sizes, which are a program."""
    text = """<ir_version: 8, opset_import: ["": 17]>
    g (float[1, 8, n, 40] x, int8[16, 8, 3, 3] w, int8[40, 64] v)
      => (uint8[1, 8, n, 40] q, uint8 z, int32[a, b, c, d] y, int32[1, 8, n, 64] u) {
        q, s, z = DynamicQuantizeLinear(x)
        y = ConvInteger<pads = [1, 0, 2, 1]>(q, w, z)
        u = MatMulInteger(q, v, z)
    }"""
    module = OnnxModule(onnx.parser.parse_model(text))
    w, v = numbers(torch.int8, 16, 8, 3, 3), numbers(torch.int8, 40, 64)
    zeros = set()
    for shift in range(8):
        x = torch.randn(1, 8, 24, 40) + shift / 2
        with torch.set_grad_enabled(shift % 2 == 1):
            q, z, y, u = module(x, w, v)
        zeros.add(int(z))
        assert torch.equal(u, exact(q, v, z, None))
        padded = torch.nn.functional.pad(q.double() - z.double(), (0, 1, 1, 2))
        assert torch.equal(y, torch.conv2d(padded, w.double()).int())
    assert len(zeros) > 4


def test_limits_hold() -> None:
    a, b = numbers(torch.uint8, 4, 300, ends=True), numbers(torch.int8, 300, 5, ends=True)
    model = node("MatMulInteger", [TensorProto.UINT8, TensorProto.INT8])
    assert torch.equal(OnnxModule(model, limits=Limits.untrusted())(a, b), exact(a, b, None, None))


def test_bad_sizes_are_errors_as_before() -> None:
    a, b = numbers(torch.uint8, 4, 3), numbers(torch.int8, 4, 5)
    with pytest.raises(RuntimeError):
        mat_mul_integer(a, b)
    with pytest.raises(RuntimeError):
        mat_mul_integer(a, b[:3], torch.zeros(3, dtype=torch.uint8))
    with pytest.raises(RuntimeError):
        conv_integer(numbers(torch.uint8, 1, 3, 4, 4), numbers(torch.int8, 8, 2, 3, 3))
    with pytest.raises(RuntimeError):
        conv_integer(numbers(torch.uint8, 1, 2, 2, 2), numbers(torch.int8, 8, 2, 3, 3))
    assert math.prod(mat_mul_integer(a[:, :0], b[:0]).shape) == 20


@pytest.mark.parametrize("sizes", [(64, 64, 64), (3, 64, 64, 64)])
def test_large_products_are_those_that_the_processor_computes(
    sizes: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(byte_products, "MIN_PRODUCTS", 2**18)
    a, b = numbers(torch.uint8, *sizes), numbers(torch.int8, *sizes)
    assert (product(a, b) is not None) == has_kernels
    assert product(a[..., :63, :], b) is None


def test_convolutions_with_many_products_are_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    used = []
    real = byte_convolutions.centred_product
    monkeypatch.setattr(
        byte_convolutions, "centred_product", lambda *args: used.append(1) or real(*args)
    )
    x, w = numbers(torch.uint8, 1, 32, 40, 40), numbers(torch.int8, 32, 32, 1, 1)
    conv_integer(x, w)
    assert bool(used) == has_kernels
    del used[:]
    monkeypatch.setattr(byte_convolutions, "MIN_PRODUCTS", 2**21)
    conv_integer(x, w)
    conv_integer(x, numbers(torch.int8, 32, 1, 3, 3), group=32)
    assert not used


def test_autocast_does_not_round_sums() -> None:
    """It casts float32, not float64."""
    a, b = numbers(torch.uint8, 9, 40), numbers(torch.int8, 40, 9)
    x, w = numbers(torch.uint8, 1, 8, 9, 9), numbers(torch.int8, 8, 8, 3, 3)
    by_depth = numbers(torch.int8, 8, 1, 3, 3)
    want = mat_mul_integer(a, b), conv_integer(x, w), conv_integer(x, by_depth, group=8)
    with torch.autocast("cpu", torch.bfloat16):
        got = mat_mul_integer(a, b), conv_integer(x, w), conv_integer(x, by_depth, group=8)
    assert all(map(torch.equal, got, want))
    assert int(want[2].abs().max()) > 2**12


CHILD = """
import torch
from onnxinterp.ops import byte_products
from onnxinterp.ops.integer_products import mat_mul_integer
byte_products.MIN_PRODUCTS = 0
a = torch.full((64, 1024), 255, dtype=torch.uint8)
b = torch.full((1024, 64), 127, dtype=torch.int8)
saturates = bool((torch._int_mm(a, b) != 255 * 127 * 1024).any())
found = not byte_products._is_processor_exact()
print(saturates, found, bool((mat_mul_integer(a, b) == 255 * 127 * 1024).all()))
"""


@pytest.mark.parametrize("instructions", ["SSE41", "AVX2", "AVX512_CORE", "ALL"])
def test_older_instructions_are_found_where_they_saturate(instructions: str) -> None:
    """The library that torch calls can be held to the instructions of older processors."""
    done = subprocess.run(
        [sys.executable, "-c", CHILD],
        env={**os.environ, "ONEDNN_MAX_CPU_ISA": instructions},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    saturates, found, right = done.stdout.split()
    assert right == "True"
    assert saturates == "False" or found == "True"
    assert instructions != "ALL" or (found == "False") == has_kernels
