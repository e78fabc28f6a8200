"""From a model to a file of another format, loaded again and compared with onnxruntime."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onnxinterp.deploy.errors import reported
from onnxinterp.deploy.formats import FILLED, Format, format_of
from onnxinterp.deploy.origin import Origin, open_origin
from onnxinterp.deploy.subject import Dims, Subject, examples, resized
from onnxinterp.errors import InputError
from onnxinterp.extras import MissingExtraError
from onnxinterp.limits import Limits
from onnxinterp.module import OnnxModule
from onnxinterp.verify import Report, verify
from onnxinterp.verify.reference import Reference, ReferenceFailedError


@dataclass(frozen=True)
class Conversion:
    """A file that was written.

    Attributes:
        path: of the file.
        format: of the table.
        loading: the Python that loads it.
        dims: the dimensions of the inputs that vary in it: input -> axis -> name.
        sizes: input -> shape of the examples; a dimension that does not vary has this size.
        assumed: sizes chosen for dimensions that were not given.
        title: what was compared with what.
        reports: what was loaded again against onnxruntime: at the sizes of the examples, and where
            dimensions vary, at others. Empty if onnxruntime is not installed.
        notes: what could not be compared, and why.
    """

    path: Path
    format: Format
    loading: str
    dims: Dims
    sizes: dict[str, tuple[int, ...]]
    assumed: dict[str, int]
    title: str
    reports: tuple[Report, ...]
    notes: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether everything that was compared agrees."""
        return all(report.ok for report in self.reports)


def convert(
    source: str | os.PathLike[str] | OnnxModule,
    target: str | os.PathLike[str],
    *,
    shapes: Mapping[str, Sequence[int]] | None = None,
    dynamic: bool = False,
    like: str | os.PathLike[str] | None = None,
    opset: int | None = None,
    exporter: str | None = None,
    simplified: str | os.PathLike[str] | None = None,
    limits: Limits = Limits(),
) -> Conversion:
    """Write a model in the format that the suffix of `target` names, and compare the result.

    The file is loaded again, and called with random inputs: of the sizes of the examples, and where
    dimensions vary in it, of others. Its outputs are compared with those of onnxruntime on the
    source.

    Args:
        source: an ONNX file, a `.pth` file of `checkpoints.save`, with `like` a file of weights, or
            a module with its current weights.
        target: the file to write; `FORMATS` has the suffixes.
        shapes: input name -> shape, which is fixed in formats that can fix it; other dynamic
            dimensions have default sizes.
        dynamic: whether dimensions stay dynamic that the model declares so, although `shapes` has
            sizes for them, or the format fixes sizes by default.
        like: the ONNX model that the weights of a `.safetensors` or `.pth` file belong to.
        opset: make a new `.onnx` graph of this opset.
        exporter: of torch that makes it: "dynamo" (from opset 18) or "torchscript" (7 to 20).
        simplified: a simplified form of `source` (`simplify`) that is converted in its place; what
            is written is compared with `source`.
        limits: as for `OnnxModule`.

    Returns:
        The file, how to load it, which dimensions vary, and the comparisons.

    Raises:
        ConversionError: the model cannot be written in this format, or not be loaded again.
        InputError: arguments contradict each other, or a suffix is unknown.
        MissingExtraError: a tool is not installed; the message says which extra has it.
        OnnxError: the model is invalid, or weights do not fit.
        OSError: the disk is full, the folder is missing, ...
    """
    path = Path(target)
    form = format_of(path, reexport=not (opset is None and exporter is None))
    path.parent.stat()  # before minutes of work
    origin = open_origin(source, like, limits)
    if form is FILLED and origin.file is not None:
        expected = "a .pth or .pt file to write an .onnx"
        raise InputError(f"the input must be {expected}, got {source}; or give opset or exporter")
    part = origin if simplified is None else open_origin(simplified, None, limits)
    batch = 2 if form.varies else 1  # torch.export specializes a size of 1
    values, dims, assumed = examples(part.module, shapes or {}, batch=batch, keep=dynamic)
    dims = dims if form.varies or dynamic else {}
    subject = Subject(part.module, values, dims, part.file, opset, exporter)
    dims = form.write(subject, path)
    title, reports, notes = _compare(origin, subject, form, path, dims)
    loading = form.loading.format(path=path, source=part.loading)
    return Conversion(path, form, loading, dims, subject.sizes, assumed, title, reports, notes)


def _compare(
    origin: Origin, subject: Subject, form: Format, path: Path, dims: Dims
) -> tuple[str, tuple[Report, ...], tuple[str, ...]]:
    """The title, the reports and the notes of a comparison of a file that was written.

    A graph that was filled is itself the reference: for the module that it was filled from.
    """
    title = f"{path.name} against onnxruntime on {origin.name}"
    if form is FILLED:
        title = f"{origin.name} against onnxruntime on {path.name}"
    with origin.reference() as file:
        reference = path if form is FILLED else file
        with reported(f"{path} was written, but cannot be loaded"):
            judged = form.load(path, subject)
        try:
            reports = [_report(reference, subject.inputs(1), judged, path)]
        except MissingExtraError as error:
            return title, (), (f"not compared: {error}",)
        if not dims:
            return title, tuple(reports), ()
        sizes = resized(subject.module.inputs, subject.sizes, dims, 1 if form.varies else -1)
        try:
            reports.append(_report(reference, subject.inputs(2, sizes), judged, path))
        except ReferenceFailedError as error:
            return title, tuple(reports), (f"not compared at other sizes: {error}",)
    return title, tuple(reports), ()


def _report(
    reference: Path, values: Mapping[str, Any], judged: Callable[..., Any], path: Path
) -> Report:
    """A comparison at inputs that onnxruntime takes.

    Raises:
        ReferenceFailedError: it does not take them, which says nothing about the file.
        ConversionError: the file does not.
    """
    Reference(reference, level="disabled")(values)
    with reported(f"{path} was written, but cannot be called"):
        return verify(reference, values, module=judged)
