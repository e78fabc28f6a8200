"""What an engine computes against what the module computes.

    Reference     inputs, and the outputs of the module for them
    references    the example, random values of the same sizes, and of other sizes where these vary
    problem       how results differ from the reference

An engine is refused where |a - b| > tolerance * (|b| + rms(b)) for any element of an output, where
rms(b) is the root mean square of that output. Integers, shapes and dtypes must be equal; NaN equals
NaN, and an infinity itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from onnxinterp.errors import EngineError, InputError, NodeError
from onnxinterp.snapshots.subject import Subject, evaluate

TOLERANCES = {
    torch.float64: 1e-9,
    torch.float32: 3e-4,
    torch.float16: 1e-2,
    torch.bfloat16: 5e-2,
    torch.complex128: 1e-9,
    torch.complex64: 3e-4,
}
"""Element type of an output -> the tolerance, where none is given."""
LEAST_TOLERANCE = 2e-1  # of 8-bit floats
SEED = 20


@dataclass(frozen=True)
class Reference:
    """What is right.

    Attributes:
        inputs: of a call.
        outputs: of the module.
        is_example: whether the inputs have the sizes of the example.
    """

    inputs: tuple[Tensor, ...]
    outputs: tuple[Any, ...]
    is_example: bool


def references(module: Subject, inputs: tuple[Tensor, ...]) -> list[Reference]:
    """Inputs of the example's sizes, and where the file declares varying ones, of others.

    Raises:
        EngineError: two calls of the module differ, or its outputs are no tensors: nothing could
            be compared.
        InputError, NodeError: the module cannot run the example.
    """
    outputs = _run(module, inputs)
    if not all(type(output) is Tensor for output in outputs):
        raise EngineError("outputs must be tensors, not strings, sequences or maps")
    if any(output.is_meta for output in outputs):
        raise EngineError("the module is on the meta device, which has no values")
    if difference := problem(_run(module, inputs), outputs, None):
        raise EngineError(f"two calls of the module with the same inputs differ: {difference}")
    found = [Reference(inputs, outputs, is_example=True)]
    for candidates in (similar_inputs(inputs), _of_other_sizes(module, inputs)):
        for other in candidates:
            try:
                outputs = _run(module, other)
            except (InputError, NodeError):
                continue  # these values are not for this model: the next ones are tamer
            same = all(a.shape == b.shape for a, b in zip(other, inputs, strict=True))
            found.append(Reference(other, outputs, is_example=same))
            break
    return found


def _run(module: Subject, inputs: tuple[Tensor, ...]) -> tuple[Any, ...]:
    """Outputs that no later call changes, even where they are inputs."""
    copies = [x.clone() for x in inputs]
    results = evaluate(module, dict(zip(module.input_names, copies, strict=True)))
    return tuple([r.detach() if isinstance(r, nn.Parameter) else r for r in results])


def similar_inputs(inputs: tuple[Tensor, ...]) -> Iterator[tuple[Tensor, ...]]:
    """Random inputs: of a normal distribution, or elements of the example in random order."""
    generator = torch.Generator("cpu").manual_seed(SEED)
    shapes = [x.shape for x in inputs]
    for normal in (True, False):
        yield tuple(
            [_drawn(x, shape, generator, normal) for x, shape in zip(inputs, shapes, strict=True)]
        )


def _of_other_sizes(module: Subject, inputs: tuple[Tensor, ...]) -> Iterator[tuple[Tensor, ...]]:
    """Inputs in which each size that has no number in the file is one larger."""
    shapes = []
    for info, x in zip(module.inputs, inputs, strict=True):
        dims = x.shape if info.shape is None else info.shape
        sizes = zip(dims, x.shape, strict=True)
        shapes.append(tuple([n if isinstance(d, int) and d > 0 else n + 1 for d, n in sizes]))
    if all(shape == x.shape for shape, x in zip(shapes, inputs, strict=True)):
        return
    generator = torch.Generator("cpu").manual_seed(SEED)
    for normal in (True, False):
        yield tuple(
            [_drawn(x, shape, generator, normal) for x, shape in zip(inputs, shapes, strict=True)]
        )


def _drawn(like: Tensor, shape: Sequence[int], generator: torch.Generator, normal: bool) -> Tensor:
    """A tensor with the mean and spread of another, or with elements of it."""
    like = like.detach()
    if not like.numel():
        return torch.zeros(tuple(shape), dtype=like.dtype, device=like.device)
    if normal and like.dtype in (torch.float64, torch.float32, torch.float16, torch.bfloat16):
        wide = like.double()
        spread = float(wide.std(correction=0).nan_to_num(1.0)) or 1.0
        noise = torch.randn(tuple(shape), generator=generator, dtype=torch.float64, device="cpu")
        return (noise.to(like.device) * spread + wide.mean()).to(like.dtype)
    count = torch.Size(shape).numel()
    index = torch.randint(like.numel(), (count,), generator=generator, device="cpu")
    index = index.to(like.device)
    bits = like.contiguous().reshape(-1)
    if not like.is_complex() and like.element_size() in _INTEGERS:
        chosen = bits.view(_INTEGERS[like.element_size()])[index].view(like.dtype)
    else:
        chosen = bits[index]
    return chosen.reshape(tuple(shape))


_INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def problem(results: Sequence[Any], expected: Sequence[Any], tolerance: float | None) -> str:
    """How results differ from what is expected; "" where they do not.

    Args:
        results: of an engine.
        expected: of the module.
        tolerance: for floating outputs; None for that of their element type.
    """
    if len(results) != len(expected):
        return f"{len(results)} outputs, the module has {len(expected)}"
    for index, (result, right) in enumerate(zip(results, expected, strict=True)):
        if difference := _difference(result, right, tolerance):
            return f"output {index} {difference}"
    return ""


def _difference(result: Any, right: Tensor, tolerance: float | None) -> str:
    if type(result) is not Tensor:
        return f"is a {type(result).__name__}"
    got, wanted = _described(result), _described(right)
    if got != wanted:
        return f"must be {wanted}, got {got}"
    if not right.is_floating_point() and not right.is_complex():
        wrong = int((_bits(result) != _bits(right)).sum())
        return f"differs in {wrong} of {right.numel()} elements" if wrong else ""
    if tolerance is None:
        tolerance = TOLERANCES.get(right.dtype, LEAST_TOLERANCE)
    excess = _excess(_wide(result), _wide(right))
    if excess <= tolerance:
        return ""
    return f"differs by {excess:.1e} of its scale, the tolerance is {tolerance:.0e}"


def _described(value: Tensor) -> str:
    where = "" if value.device.type == "cpu" else f" on {value.device}"
    return f"{str(value.dtype).removeprefix('torch.')}{list(value.shape)}{where}"


def _bits(value: Tensor) -> Tensor:
    return value.contiguous().view(_INTEGERS[value.element_size()])


def _wide(value: Tensor) -> Tensor:
    """A tensor as doubles, complex numbers as pairs."""
    real = torch.view_as_real(value.resolve_conj()) if value.is_complex() else value
    return real.detach().double().flatten()


def _excess(a: Tensor, b: Tensor) -> float:
    """The largest |a - b| / (|b| + rms(b)), 0 where both are 0, NaN or the same infinity."""
    if not b.numel():
        return 0.0
    finite = b[b.isfinite()]
    scale = float(finite.square().mean().sqrt()) if finite.numel() else 0.0
    same = (a == b) | (a.isnan() & b.isnan())
    ratio = (a - b).abs() / (b.abs() + scale)
    return float(torch.where(same, 0.0, ratio.nan_to_num(torch.inf, torch.inf)).max())
