"""A smaller model with the same answers: onnxoptimizer removes nodes that compute nothing.

The model before and after is run on random inputs, by onnxruntime without optimisation where it is
installed, otherwise by this library. A model that computes something else is not written.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import EncodeError
from onnx.checker import ValidationError

from onnxinterp.deploy.errors import ChangedAnswersError, ConversionError
from onnxinterp.extras import MissingExtraError, require
from onnxinterp.format.atomic import atomic_write
from onnxinterp.limits import Limits
from onnxinterp.module import OnnxModule
from onnxinterp.reading.source import read
from onnxinterp.verify.comparison import Comparison, Tolerance, compare
from onnxinterp.verify.reference import Reference, ReferenceFailedError
from onnxinterp.verify.report import answers, prepare

SIMPLIFICATIONS = (
    "extract_constant_to_initializer",
    "eliminate_nop_dropout",
    "eliminate_identity",
    "eliminate_nop_cast",
    "eliminate_nop_pad",
    "eliminate_nop_transpose",
    "eliminate_duplicate_initializer",
    "eliminate_unused_initializer",
    "eliminate_deadend",
)
CONSTANT_DTYPES = {
    "value_int": np.int64,
    "value_ints": np.int64,
    "value_float": np.float32,
    "value_floats": np.float32,
}
SIMPLIFY_ERRORS = (RuntimeError, ValueError, AttributeError, EncodeError, ValidationError)
"""Errors of onnxoptimizer and onnx for a model that is too new, too large or incomplete."""

Run = Callable[[Mapping[str, Any]], dict[str, Any]]

SEEDS = (1, 2)  # of the random inputs
TOLERANCE = Tolerance(rtol=1e-5, atol=1e-6, mse=1e-10)  # no arithmetic is to change


@dataclass(frozen=True)
class Simplified:
    """What has become of a model.

    Attributes:
        before: its number of nodes.
        after: that of the file that was written.
        changed: the outputs that differ; only where that was allowed.
        judge: what computed both: "onnxruntime", or "onnxinterp" where that is not installed,
            or cannot run the model.
    """

    before: int
    after: int
    changed: tuple[Comparison, ...]
    judge: str


def simplify(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    *,
    shapes: Mapping[str, Sequence[int]] | None = None,
    allow_changed_answers: bool = False,
    limits: Limits = Limits(),
) -> Simplified:
    """Write a simplified model, after a comparison with the original.

    Args:
        source: an ONNX file.
        target: the file to write.
        shapes: input name -> shape of the random inputs; others have default sizes.
        allow_changed_answers: whether to write a model that computes something else, too.
        limits: as for `OnnxModule`; checked before another library reads the model.

    Raises:
        MissingExtraError: onnxoptimizer is not installed.
        ConversionError: onnxoptimizer does not support the model.
        ChangedAnswersError: the simplified model computes something else; nothing is written.
    """
    optimizer = require("onnxoptimizer", "simplify")
    read(source, limits)
    try:
        original, model = onnx.load(source), onnx.load(source)
        _replace_dropout(model)
        _convert_constants(model)
        simple = optimizer.optimize(model, list(SIMPLIFICATIONS), fixed_point=True)
        data = simple.SerializeToString()
    except SIMPLIFY_ERRORS as error:
        raise ConversionError(f"onnxoptimizer cannot simplify {source}: {error}") from error
    judge, found = _compare(original, simple, shapes or {}, limits)
    changed = tuple(c for c in found if not c.ok)
    if changed and not allow_changed_answers:
        lines = [f"  {c.name}: {c.problem or f'differs by up to {c.max_abs:.3g}'}" for c in changed]
        what = f"{source} computes something else once it is simplified: nothing was written"
        raise ChangedAnswersError(what, *lines)
    atomic_write(target, lambda out: out.write(data))
    return Simplified(len(original.graph.node), len(simple.graph.node), changed, judge)


def _compare(
    before: onnx.ModelProto,
    after: onnx.ModelProto,
    shapes: Mapping[str, Sequence[int]],
    limits: Limits,
) -> tuple[str, list[Comparison]]:
    """The name of the judge, and each output of each set of inputs."""
    inputs = [prepare(before, None, shapes, seed)[0] for seed in SEEDS]
    models = before, after
    try:
        runtimes = [Reference(model, level="disabled") for model in models]
        return "onnxruntime", _differences(runtimes, inputs)
    except (MissingExtraError, ReferenceFailedError):
        return "onnxinterp", _differences([_Own(model, limits) for model in models], inputs)


def _differences(models: Sequence[Run], inputs: Sequence[dict[str, Any]]) -> list[Comparison]:
    """Each output of two models, for each set of inputs."""
    found: list[Comparison] = []
    for values in inputs:
        want, ours = (model(values) for model in models)
        for name, value in want.items():
            found += compare(name, ours.get(name), value, TOLERANCE)
    return found


class _Own:
    """A model in this library, called as a `Reference`."""

    def __init__(self, model: onnx.ModelProto, limits: Limits) -> None:
        self._module = OnnxModule(model, limits=limits)

    def __call__(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        names = self._module.output_names
        return dict(zip(names, answers(self._module, inputs, len(names)), strict=True))


def _replace_dropout(model: onnx.ModelProto) -> None:
    """Replace each Dropout that returns its input by an Identity, which onnxoptimizer removes.

    Since opset 7 it does, unless an input enables training mode or the mask output is used.
    """
    opset = max((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), default=0)
    for node in model.graph.node:
        is_dropout = node.op_type == "Dropout" and node.domain in ("", "ai.onnx")
        if is_dropout and opset >= 7 and not any((*node.input[2:], *node.output[1:])):
            node.op_type = "Identity"
            del node.input[1:], node.output[1:], node.attribute[:]


def _convert_constants(model: onnx.ModelProto) -> None:
    """Replace `value_ints` and the like by a tensor, which onnxoptimizer requires."""
    constants = (node for node in model.graph.node if node.op_type == "Constant")
    for attribute in (a for node in constants for a in node.attribute):
        if dtype := CONSTANT_DTYPES.get(attribute.name):
            numbers = np.array(onnx.helper.get_attribute_value(attribute), dtype)
            value = onnx.helper.make_attribute("value", onnx.numpy_helper.from_array(numbers))
            attribute.CopyFrom(value)
