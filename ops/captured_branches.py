"""If by the value of a tensor: `torch.cond` in a graph, and both branches under `torch.vmap`."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext

import torch
from torch import Tensor
from torch._C._functorch import (
    get_unwrapped,
    is_batchedtensor,
    is_functorch_wrapped_tensor,
    peek_interpreter_stack,
)
from torch.fx.experimental.proxy_tensor import disable_proxy_modes_tracing as pause_recording

from onnxinterp.errors import NodeError
from onnxinterp.ops.higher_order import (
    Tensors,
    as_tensors,
    lifted,
    owned,
    run_cond,
    sources_of_gradients,
)
from onnxinterp.values import OutputType, Subgraph, constant_when_compiled

BRANCH = "a branch of If"
SIZE_ERRORS = (ValueError, RuntimeError, IndexError)  # not their subclasses, which are of capture


def is_open(cond: Tensor) -> bool:
    """Whether a condition cannot be read now: a graph has it later, or each sample its own."""
    return torch.compiler.is_compiling() or (peek_interpreter_stack() is not None and _varies(cond))


def _varies(value: Tensor) -> bool:
    """Whether `torch.vmap` computes a value for many samples at once."""
    while is_functorch_wrapped_tensor(value):
        if is_batchedtensor(value):
            return True
        value = get_unwrapped(value)
    return False


def chosen(pred: Tensor, then_branch: Subgraph, else_branch: Subgraph) -> Tensors:
    """The results of one of two branches, by the value of a tensor.

    Raises:
        TypeError: the branches do not return tensors of the same dtypes and ranks.
    """
    branches = then_branch, else_branch
    pred = pred.reshape(())
    if not torch.compiler.is_compiling():
        return _selected(pred, *[as_tensors(b(), pred.device, BRANCH) for b in branches])
    fails = [_fails(branch) for branch in branches]
    if fails[0] != fails[1]:
        return _only_branch(pred, then_branch if fails[1] else else_branch, fails[1])
    _check_alike(then_branch.output_types, else_branch.output_types)
    operands, (then, other) = lifted(branches)
    return run_cond(
        pred,
        lambda *operands: owned(then((), operands), pred.device, BRANCH),
        lambda *operands: owned(other((), operands), pred.device, BRANCH),
        operands,
        [dtype for dtype, _ in then_branch.output_types],
        bool(sources_of_gradients([v for b in branches for v in b.outer.values()])),
    )


def _fails(branch: Subgraph) -> bool:
    """Whether a branch cannot run at the sizes of this call, whatever the condition is."""
    recording = nullcontext if torch.compiler.is_dynamo_compiling() else pause_recording
    try:
        with recording():
            branch()
    except Exception as error:
        cause: BaseException = error
        while isinstance(cause, NodeError) and cause.__cause__ is not None:
            cause = cause.__cause__
        return type(cause) in SIZE_ERRORS
    return False


def _only_branch(pred: Tensor, branch: Subgraph, condition: bool) -> Tensors:
    """The results of the one branch that can run; the graph checks that it is the one to run.

    Raises:
        ValueError: the graph becomes an ONNX file, which cannot check.
    """
    can = f"at these sizes, If can run only where its condition is {condition}"
    if _is_in_onnx_export():
        raise ValueError(f"{can}, and an ONNX file cannot check that")
    torch._assert_async(pred if condition else ~pred, can)
    return owned(branch(), pred.device, BRANCH)


@constant_when_compiled  # the compiler, by which the exporter tries it again, would say no
def _is_in_onnx_export() -> bool:
    return bool(torch.onnx.is_in_onnx_export())


def _selected(pred: Tensor, then: Tensors, other: Tensors) -> Tensors:
    """For each sample the results of one branch: `torch.vmap` runs both for all samples.

    Raises:
        TypeError: the results differ in dtype or shape.
    """
    for a, b in zip(then, other, strict=True):
        if a.dtype != b.dtype or a.shape != b.shape:
            what = "under torch.vmap, branches that depend on data must return the same dtypes and"
            got = f"{a.dtype}{list(a.shape)} and {b.dtype}{list(b.shape)}"
            raise TypeError(f"{what} shapes, got {got}")
    return tuple([torch.where(pred, a, b) for a, b in zip(then, other, strict=True)])


def _check_alike(one: Sequence[OutputType], other: Sequence[OutputType]) -> None:
    """Refuse branches whose outputs are known to differ in dtype or rank."""
    for i, ((dtype, shape), (dtype_2, shape_2)) in enumerate(zip(one, other, strict=True)):
        ranks = [None if s is None else len(s) for s in (shape, shape_2)]
        if None not in (dtype, dtype_2) and dtype != dtype_2:
            got = f"{dtype} and {dtype_2}"
        elif None not in ranks and ranks[0] != ranks[1]:
            got = f"ranks {ranks[0]} and {ranks[1]}"
        else:
            continue
        what = "to be captured, branches that depend on data must return the same dtypes and ranks"
        raise TypeError(f"{what}, got {got} of output {i}")
