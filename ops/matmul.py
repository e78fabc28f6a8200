"""Matrix products: MatMul, Gemm, Einsum.

History: MatMul 1, 9 (integers), 13 (bfloat16). Gemm 1, 6 (`broadcast` says whether C may be
smaller), 7 (C broadcasts), 9 (integers), 11 (C may be absent), 13 (bfloat16). Einsum 12, 28
(bfloat16).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from onnx import TensorProto
from torch import Tensor, nn
from torch.nn import functional

from onnxinterp.ops.arithmetic import add
from onnxinterp.ops.shapes import TRANSPOSED, transpose
from onnxinterp.registry import fuse, op, sample
from onnxinterp.testing.samples import Call, Draw, call
from onnxinterp.torch_weights import TorchWeight, leaf, torch_weights
from onnxinterp.versions import older


@op("MatMul", since=1, uint64="bits")
def mat_mul(A: Tensor, B: Tensor) -> Tensor:
    return torch.matmul(A, B)


torch_weights("MatMul", B=[TorchWeight(("weight",), TRANSPOSED)])


@fuse(
    (add, (mat_mul, "A", (transpose, "W", {"perm": [1, 0]})), "C"),
    (mat_mul, "A", (transpose, "W", {"perm": [1, 0]})),
)
def linear(A: Tensor, W: Tensor, C: Tensor | None = None) -> Any:
    """nn.Linear with the original weight, so that autocast caches its cast."""
    if A.ndim < 2 or not W.is_floating_point() or (C is not None and C.shape != W.shape[:1]):
        return NotImplemented
    return functional.linear(A, W, C)


@leaf(linear, weight="W", bias="C")
def linear_layer(W: Tensor, C: Tensor | None = None) -> nn.Module | None:
    if W.ndim != 2:
        return None
    return nn.Linear(W.shape[1], W.shape[0], C is not None, device="meta")


@fuse((add, (mat_mul, "A", "B"), "C"))
def linear_of_columns(A: Tensor, B: Tensor, C: Tensor) -> Any:
    """nn.Linear with the transposed weight in the file."""
    return linear(A, B.t(), C) if B.ndim == 2 else NotImplemented


@op("Gemm", since=11, uint64="bits")
def gemm(
    A: Tensor,
    B: Tensor,
    C: Tensor | None = None,
    *,
    alpha: float = 1.0,
    beta: float = 1.0,
    transA: int = 0,
    transB: int = 0,
    input_type: int = TensorProto.UNDEFINED,
) -> Tensor:
    """The product alpha * A' @ B' + beta * C, where C broadcasts."""
    if A.ndim != 2 or B.ndim != 2:
        raise ValueError(f"Gemm: A and B must be 2-D, got {list(A.shape)} and {list(B.shape)}")
    A = A.t() if transA else A
    if alpha == 1 and beta == 1 and (C is None or C.ndim == 1):
        # as nn.Linear, with the original weight, so that autocast caches its cast
        return functional.linear(A, B if transB else B.t(), C)
    B = B.t() if transB else B
    if not A.is_floating_point():
        unsigned = input_type == TensorProto.UINT64
        return _integer_gemm(A @ B, C, alpha, beta, unsigned)
    if C is None:
        return alpha * (A @ B)
    return torch.addmm(C, A, B, alpha=alpha, beta=beta)


def _is_linear(attributes: Mapping[str, Any]) -> bool:
    """Whether a Gemm is nn.Linear, its weight transposed or not."""
    factors = [attributes.get(name, 1.0) for name in ("alpha", "beta")]
    return factors == [1, 1] and not attributes.get("transA")


BIAS = [TorchWeight(("bias",), rank=1)]
torch_weights(
    "Gemm",
    when=lambda a: _is_linear(a) and not a.get("transB"),
    B=[TorchWeight(("weight",), TRANSPOSED)],
    C=BIAS,
)
torch_weights("Gemm", when=_is_linear, B=[TorchWeight(("weight",), rank=2)], C=BIAS)


def _integer_gemm(
    product: Tensor, C: Tensor | None, alpha: float, beta: float, unsigned: bool
) -> Tensor:
    """Alpha and beta are real numbers also for integers; the result is rounded towards zero.

    `unsigned` 64-bit integers have the bits of signed ones.
    """
    C = None if C is None else C.expand_as(product)
    if alpha.is_integer() and beta.is_integer():
        product = int(alpha) * product
        return product if C is None else product + int(beta) * C

    def real(x: Tensor) -> Tensor:
        return x.double() + (x < 0) * 2.0**64 if unsigned else x.double()

    y = alpha * real(product)
    y = y if C is None else y + beta * real(C)
    return (y - (y >= 2.0**63) * 2.0**64 if unsigned else y).to(product.dtype)


gemm_7 = older(gemm, since=7, required=["C"])


@leaf(gemm, weight="B", bias="C")
@leaf(gemm_7, weight="B", bias="C")
def _(
    B: Tensor, C: Tensor | None = None, *, alpha: float, beta: float, transA: int, transB: int
) -> nn.Module | None:
    plain = not transA and transB and alpha == 1 and (beta == 1 or C is None)
    return linear_layer(B, C) if plain else None


# a C of the shape of the product broadcasts to it with any `broadcast`
gemm_1 = older(gemm_7, since=1, unused={"broadcast": 0})


@op("Einsum", since=12, uint64="bits")
def einsum(*Inputs: Tensor, equation: str) -> Tensor:
    if "->" in equation and "..." in equation and "..." not in equation.split("->")[1]:
        # torch would sum over these axes
        raise ValueError(f"the output of an equation must keep the ellipsis, got {equation!r}")
    return torch.einsum(equation, *Inputs).to(Inputs[0].dtype)  # torch sums int32 in int64


@sample(mat_mul)
def _(d: Draw) -> Call:
    m, k, n = d.integer(1, 4), d.integer(1, 4), d.integer(1, 4)
    batch = d.shape(max_dims=2)
    left, right = d.choice(
        [
            ((m, k), (k, n)),
            ((k,), (k,)),
            ((k,), (*batch, k, n)),
            ((*batch, m, k), (k,)),
            ((*batch, m, k), (*d.broadcastable(batch), k, n)),
            ((*d.broadcastable(batch), m, k), (*batch, k, n)),
        ]
    )
    return call(d.tensor(left), d.tensor(right))


@sample(gemm)
def _(d: Draw) -> Call:
    m, k, n = d.shape(min_dims=3, max_dims=3)
    trans_a, trans_b = d.maybe(d.integer(0, 1)), d.maybe(d.integer(0, 1))
    A = d.tensor((k, m) if trans_a else (m, k))
    B = d.tensor((n, k) if trans_b else (k, n))
    factors = {"alpha": d.maybe(d.real(-2, 2)), "beta": d.maybe(d.real(-2, 2))}
    trans = {"transA": trans_a, "transB": trans_b}
    if d.opset < 7:
        broadcast = d.integer(0, 1)
        C = d.tensor(d.broadcastable((m, n)) if broadcast else (m, n))
        return call(A, B, C, broadcast=broadcast, **factors, **trans)
    C = d.tensor(d.broadcastable((m, n)))
    return call(A, B, d.maybe(C) if d.opset >= 11 else C, **factors, **trans)


@sample(einsum)
def _(d: Draw) -> Call:
    equation = d.choice(
        [
            "ij,jk->ik",
            "ij,jk",
            "ij->ji",
            "ii->i",
            "ii",
            "ijk->",
            "bij, bjk -> bik",
            "...ij,...jk->...ik",
            "...ij->...ji",
            "i,j->ij",
            "bhqd,bhkd->bhqk",
            "ij,ij,jk->ki",
            "aB,Bc",
        ]
    )
    sides = {letter: d.integer(1, 3) for letter in sorted(set(equation)) if letter.isalpha()}
    dots = d.shape(max_dims=2)
    terms = equation.replace(" ", "").split("->")[0].split(",")
    shapes = [
        (*(dots if "..." in t else ()), *(sides[letter] for letter in t if letter.isalpha()))
        for t in terms
    ]
    return call(*[d.tensor(shape) for shape in shapes], equation=equation)
