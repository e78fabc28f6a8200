"""onnxruntime as the judge: the graph as written first, then its optimisation levels.

onnxruntime's optimiser changes the results of some valid models, and fails on others; without it, a
cast to float16 and back can be left out. So outputs are compared with the run without optimisation.
Where onnxruntime's levels differ from each other, outputs that agree with one of them are right,
and the notes name the levels.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any, NamedTuple, TypeAlias

import torch
from onnx import ModelProto
from onnx.parser import parse_model

from onnxinterp.reading.source import Source, read
from onnxinterp.verify.comparison import Comparison, Tolerance, compare
from onnxinterp.verify.reference import LEVELS, Reference, ReferenceFailedError

EIGHT_BIT_OPERATORS = frozenset(
    {
        "ConvInteger",
        "DequantizeLinear",  # onnxruntime fuses it with the product that follows
        "DynamicQuantizeLSTM",
        "DynamicQuantizeMatMul",
        "MatMulInteger",
        "MatMulIntegerToFloat",
        "QAttention",
        "QGemm",
        "QLinearConv",
        "QLinearMatMul",
    }
)

QUANTIZED_ACTIVATIONS = 4  # accuracy_level: products of 8-bit integers

Run: TypeAlias = "dict[str, Any] | ReferenceFailedError"


class Verdict(NamedTuple):
    """Outputs beside onnxruntime's.

    Attributes:
        outputs: one comparison per output (per element, where an output is a sequence).
        level: the optimisation level of the run they are compared with.
        notes: sentences about onnxruntime's own results.
    """

    outputs: tuple[Comparison, ...]
    level: str
    notes: tuple[str, ...]


def judge(
    source: Source,
    inputs: Mapping[str, Any],
    ours: Mapping[str, Any],
    tolerance: Tolerance,
    *,
    optimize: bool,
) -> Verdict:
    """Compare outputs with onnxruntime's.

    Args:
        source: the model.
        inputs: values by name.
        ours: outputs by name.
        tolerance: what is close enough.
        optimize: also run the model optimised.

    Raises:
        ReferenceFailedError: onnxruntime cannot run the model at any level.
    """
    levels = ("disabled", "all") if optimize else ("disabled",)
    runs = {level: _run(source, inputs, level) for level in levels}
    if not _same(runs, tolerance):
        runs = {level: runs.get(level) or _run(source, inputs, level) for level in LEVELS}
    results = {level: run for level, run in runs.items() if isinstance(run, dict)}
    if not results:
        raise next(run for run in runs.values() if isinstance(run, ReferenceFailedError))
    verdicts = {level: _compare(ours, run, tolerance) for level, run in results.items()}
    written = next(iter(verdicts))
    level = next((n for n, v in verdicts.items() if all(c.ok for c in v)), written)
    notes = [*_level_notes(runs, results[written], tolerance)]
    if level != written:
        notes.append(f"the outputs agree with onnxruntime's at optimisation level {level!r}")
    if not all(c.ok for c in verdicts[written]):
        notes += _product_notes(read(source).proto)
    return Verdict(verdicts[level], level, tuple(notes))


def _run(source: Source, inputs: Mapping[str, Any], level: str) -> Run:
    try:
        return Reference(source, level=level)(inputs)
    except ReferenceFailedError as error:
        return error


def _same(runs: Mapping[str, Run], tolerance: Tolerance) -> bool:
    """Whether all runs have the same results, or failed."""
    results = [run for run in runs.values() if isinstance(run, dict)]
    if len(results) < len(runs):
        return not results
    return all(c.ok for run in results for c in _compare(run, results[0], tolerance))


def _compare(
    ours: Mapping[str, Any], reference: Mapping[str, Any], tolerance: Tolerance
) -> tuple[Comparison, ...]:
    return tuple(
        c for name, value in reference.items() for c in compare(name, ours[name], value, tolerance)
    )


def _level_notes(
    runs: Mapping[str, Run], written: Mapping[str, Any], tolerance: Tolerance
) -> Iterator[str]:
    """What onnxruntime's levels differ in; nothing where they agree."""
    different: dict[str, list[Comparison]] = {}
    for level, run in runs.items():
        if isinstance(run, ReferenceFailedError):
            yield f"at optimisation level {level!r}: {run}"
        else:
            different[level] = [c for c in _compare(run, written, tolerance) if not c.ok]
    levels = [level for level, comparisons in different.items() if comparisons]
    if levels:
        worst = max((c for level in levels for c in different[level]), key=lambda c: c.max_abs)
        yield (
            "onnxruntime's own results differ between optimisation levels: max |difference| "
            f"{worst.max_abs:.3g} in {worst.name!r} ({'/'.join(levels)})"
        )


def _product_notes(model: ModelProto) -> Iterator[str]:
    """How onnxruntime's products of quantized numbers differ from what their operators define."""
    nodes = [node for graph in (model.graph, *model.functions) for node in graph.node]
    if any(node.op_type in EIGHT_BIT_OPERATORS for node in nodes):
        yield from _saturation_notes()
    levels = {a.i for node in nodes for a in node.attribute if a.name == "accuracy_level"}
    if QUANTIZED_ACTIVATIONS in levels:
        yield (
            f"accuracy_level {QUANTIZED_ACTIVATIONS} of MatMulNBits lets onnxruntime quantize the "
            "activations to 8 bits, about 1 % off; they stay floats here"
        )


def _saturation_notes() -> Iterator[str]:
    right, found = eight_bit_product()
    if right != found:
        yield (
            "8-bit products saturate in onnxruntime on this processor: 4 products of 255 and 127 "
            f"are {right:,}, and it returns {found:,}; so may the results of "
            f"{', '.join(sorted(EIGHT_BIT_OPERATORS - {'DequantizeLinear'}))}"
        )


@cache
def eight_bit_product() -> tuple[int, int]:
    """The sum of 4 products of 255 and 127, and onnxruntime's, by MatMulInteger of uint8 and int8.

    Without instructions for such products, its kernels add pairs of them in 16 bits.
    """
    model = parse_model(
        '<ir_version: 8, opset_import: ["": 13]> '
        "g (uint8[1, 4] a, int8[4, 16] b) => (int32[1, 16] y) { y = MatMulInteger (a, b) }"
    )
    a, b = torch.full((1, 4), 255, dtype=torch.uint8), torch.full((4, 16), 127, dtype=torch.int8)
    return 4 * 255 * 127, int(Reference(model)({"a": a, "b": b})["y"].min())
