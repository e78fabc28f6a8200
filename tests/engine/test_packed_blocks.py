"""Packed weights stay packed: memory, gradients, capture and transforms of products with them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import forward_ad

from onnxinterp.ops import packed_blocks, packed_rows
from onnxinterp.ops.contrib.packed_products import mat_mul_bnb4, mat_mul_n_bits
from onnxinterp.ops.packed_blocks import MIN_ELEMENTS, unpack
from tests.exporting import expected_warnings

K, N, BLOCK = 512, 384, 32
assert K * N > MIN_ELEMENTS


def arguments(bits: int = 4, columns: int = K) -> tuple[Tensor, dict[str, Any]]:
    generator = torch.Generator().manual_seed(0)
    size = (N, -(-columns // BLOCK), BLOCK * bits // 8)
    packed = torch.randint(0, 256, size, dtype=torch.uint8, generator=generator)
    return packed, {"K": columns, "N": N, "block_size": BLOCK, "bits": bits}


def plain(packed: Tensor, scales: Tensor, zero: Tensor | None, bits: int = 4) -> Tensor:
    numbers = unpack(packed, bits).to(scales.dtype)
    shift = torch.full_like(scales, 2 ** (bits - 1)) if zero is None else zero
    return ((numbers - shift.unsqueeze(-1)) * scales.unsqueeze(-1)).flatten(1)


def test_gradients_are_those_of_the_plain_expression() -> None:
    packed, attributes = arguments()
    x, scales = torch.randn(3, K), torch.rand(N, K // BLOCK)
    zero, bias = torch.rand(N, K // BLOCK) * 15, torch.randn(N)
    leaves = [t.double().requires_grad_() for t in (x, scales, zero, bias)]
    x, scales, zero, bias = leaves
    got = mat_mul_n_bits(x, packed, scales, zero, None, bias, **attributes)
    want = x @ plain(packed, scales, zero).T + bias
    torch.testing.assert_close(got, want)
    loss = [(y**2).sum() for y in (got, want)]
    first = [torch.autograd.grad(each, leaves, create_graph=True) for each in loss]
    for g, w in zip(*first, strict=True):
        torch.testing.assert_close(g, w)
    second = [torch.autograd.grad(sum((g**2).sum() for g in some), leaves) for some in first]
    for g, w in zip(*second, strict=True):
        torch.testing.assert_close(g, w)


def test_backward_of_bnb4_both_ways() -> None:
    packed = torch.randint(0, 256, (K * N // 2,), dtype=torch.uint8)
    absmax = torch.rand(K * N // BLOCK, dtype=torch.float64, requires_grad=True)
    attributes = {"K": K, "N": N, "block_size": BLOCK, "quant_type": 1}
    eye = torch.eye(K, dtype=torch.float64)
    for transposed, size in ((1, K), (0, N)):
        x = torch.randn(3, size, dtype=torch.float64, requires_grad=True)
        matrix = mat_mul_bnb4(eye, packed, absmax, **attributes).mT
        want = x @ (matrix.mT if transposed else matrix)
        got = mat_mul_bnb4(x, packed, absmax, transB=transposed, **attributes)
        grads = [torch.autograd.grad((y**2).sum(), (x, absmax)) for y in (got, want)]
        for g, w in zip(*grads, strict=True):
            torch.testing.assert_close(g, w)


def test_nothing_of_the_size_of_the_float_matrix_is_kept_for_backward() -> None:
    packed, attributes = arguments()
    saved: list[int] = []

    def pack(t: Tensor) -> Tensor:
        saved.append(t.numel() * t.itemsize)
        return t

    x = torch.randn(2, K, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        mat_mul_n_bits(x, packed, torch.rand(N, K // BLOCK), **attributes)
    assert saved
    assert max(saved) < K * N  # bytes; the matrix has 4 * K * N


@pytest.mark.parametrize("needs_grad", [False, True])
def test_a_call_dequantizes_a_part_at_a_time(
    monkeypatch: pytest.MonkeyPatch, needs_grad: bool
) -> None:
    rows, sizes = 4096, list[int]()
    times = packed_blocks._times

    def noted(x: Tensor, matrix: Tensor, transposed: bool) -> Tensor:
        sizes.append(matrix.numel())
        return times(x, matrix, transposed)

    monkeypatch.setattr(packed_blocks, "_times", noted)
    packed = torch.zeros(rows, K // BLOCK, BLOCK // 2, dtype=torch.uint8)
    x = torch.randn(16, K, requires_grad=needs_grad)
    y = mat_mul_n_bits(x, packed, torch.rand(rows, K // BLOCK), K=K, N=rows, block_size=BLOCK)
    if needs_grad:
        y.sum().backward()
    assert sum(sizes) == rows * K * (1 + needs_grad)
    assert max(sizes) <= rows * K / 8


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("columns", [K, K - 10])
@pytest.mark.parametrize("with_zero", [False, True])
def test_a_few_rows_by_sums_of_rows(bits: int, columns: int, with_zero: bool) -> None:
    packed, attributes = arguments(bits, columns)
    scales, zero = torch.rand(N, K // BLOCK), None
    if with_zero:
        zero = torch.randint(0, 256, (N, K // BLOCK * bits // 8), dtype=torch.uint8)
    numbers = None if zero is None else unpack(zero, bits).float()
    matrix = plain(packed, scales, numbers, bits)[:, :columns]
    with torch.no_grad():
        for shape in ((columns,), (1, columns), (2, 3, columns)):
            x = torch.randn(shape)
            for _ in range(3):
                got = mat_mul_n_bits(x, packed, scales, zero, **attributes)
                torch.testing.assert_close(got, x @ matrix.T, rtol=1e-4, atol=1e-2)
        assert packed in packed_rows.ENTRIES
        packed.bitwise_xor_(255)  # what was made of other numbers is not used
        scales.mul_(2)
        matrix = plain(packed, scales, numbers, bits)[:, :columns]
        for _ in range(3):
            got = mat_mul_n_bits(x, packed, scales, zero, **attributes)
            torch.testing.assert_close(got, x @ matrix.T, rtol=1e-4, atol=1e-2)


def test_rows_are_those_of_the_data_at_each_call() -> None:
    """Versions do not tell of `.data`, nor of an array that shares the memory."""
    packed, attributes = arguments()
    x, scales = torch.randn(1, K), torch.rand(N, K // BLOCK)
    array, other = scales.numpy(), arguments()[0]

    def replace_scales() -> None:
        scales.data = torch.rand(N, K // BLOCK)

    def replace_matrix() -> None:
        packed.data = other ^ 255

    changes = (
        lambda: scales.data.mul_(3),
        lambda: array.__imul__(2),
        replace_scales,
        lambda: packed.data.bitwise_xor_(90),
        lambda: packed.numpy().__setitem__((3, 2, 1), 0 if packed[3, 2, 1] else 1),
        replace_matrix,
    )
    with torch.no_grad():
        for change in changes:
            for _ in range(3):
                mat_mul_n_bits(x, packed, scales, **attributes)
            assert packed_rows.ENTRIES[packed].matrix is not None
            change()
            want = x @ plain(packed, scales, None, attributes["bits"]).T
            got = mat_mul_n_bits(x, packed, scales, **attributes)
            torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-2)


def test_rows_are_forgotten_with_their_matrix_and_have_a_limit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    packed, attributes = arguments()
    x, scales, count = torch.randn(1, K), torch.rand(N, K // BLOCK), len(packed_rows.ENTRIES)
    monkeypatch.setattr(packed_rows, "MAX_BYTES", 0)
    with torch.no_grad():
        for _ in range(3):
            mat_mul_n_bits(x, packed, scales, **attributes)
    assert packed_rows.ENTRIES[packed].matrix is None
    del packed
    assert len(packed_rows.ENTRIES) <= count


@pytest.mark.filterwarnings("ignore:`torch.jit.script:FutureWarning")  # torch's own, for jvp
def test_transforms_and_capture() -> None:
    packed, attributes = arguments()
    x, scales = torch.randn(3, K), torch.rand(N, K // BLOCK)
    matrix = plain(packed, scales, None)

    def run(x: Tensor) -> Tensor:
        return mat_mul_n_bits(x, packed, scales, **attributes)

    close = {"rtol": 1e-4, "atol": 1e-2}
    torch.testing.assert_close(torch.func.vmap(run)(x), x @ matrix.T, **close)
    jacobian = torch.func.jacrev(lambda x: run(x).sum())(x)
    torch.testing.assert_close(jacobian, matrix.sum(0).expand(3, K), **close)
    with forward_ad.dual_level():
        tangent = forward_ad.unpack_dual(run(forward_ad.make_dual(x, x))).tangent
    torch.testing.assert_close(tangent, x @ matrix.T, **close)
    with expected_warnings():
        compiled = torch.compile(run, fullgraph=True, backend="eager")
        torch.testing.assert_close(compiled(x), x @ matrix.T, **close)
