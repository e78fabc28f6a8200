"""torch.export: a program of torch's own operators, in a `.pt2` file.

Dimensions that the ONNX file names get a `torch.export.Dim` of that name. One that the model
constrains (`height` must be 7 at least) becomes `Dim.AUTO`, as do those without a name: torch finds
out by itself whether, and in which range, such a dimension can vary.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch.export import Dim, ExportedProgram

from onnxinterp.deploy.errors import reported
from onnxinterp.deploy.subject import Dims, Subject
from onnxinterp.format.atomic import atomic_write

TOOL = "torch.export"
Spec = dict[str, dict[int, Any]]
"""Input -> axis -> a `Dim`, or `Dim.AUTO`."""

VIOLATED = re.compile(r"Constraints violated \((.*?)\)")


def write(subject: Subject, path: Path) -> Dims:
    """Write a `.pt2`.

    Returns:
        The dimensions that can vary.
    """
    program, dims = export(subject)
    with reported(f"{TOOL} cannot write the model"):
        file = io.BytesIO()
        torch.export.save(program, file)
    atomic_write(path, lambda out: out.write(file.getbuffer()))
    return dims


def load(path: Path) -> Callable[..., Any]:
    """The module of a `.pt2`."""
    return torch.export.load(path).module()


def export(
    subject: Subject, largest: Mapping[str, tuple[int, ...]] | None = None
) -> tuple[ExportedProgram, Dims]:
    """Capture a module.

    Args:
        subject: the module.
        largest: input -> the largest sizes, for a tool that must know them; a dimension without a
            name is fixed then.

    Returns:
        The program, and the dimensions that can vary in it.

    Raises:
        ConversionError: torch.export cannot capture it.
    """
    from torch._dynamo.exc import UserError  # seconds; torch.export needs it anyway

    inputs = subject.tensors(TOOL)
    spec = specification(subject.dims, largest)
    with reported(f"{TOOL} cannot capture the model"):
        for looser in (_constrained, _all):
            try:
                program = _captured(subject, inputs, spec)
                break
            except UserError as error:
                if largest is not None:
                    raise
                spec = looser(spec, str(error))
        else:
            program = _captured(subject, inputs, spec)
    return program, varying(program, subject.values, subject.dims)


def specification(dims: Dims, largest: Mapping[str, tuple[int, ...]] | None = None) -> Spec:
    """A `Dim` for each dimension that varies; those of one name are one."""
    made: dict[str, Any] = {}

    def dim(name: str, most: int | None) -> Any:
        if not name.isidentifier():
            return Dim.AUTO
        return made.setdefault(name, Dim(name) if most is None else Dim(name, max=most))

    if largest is None:
        return {
            name: {axis: dim(called, None) for axis, called in axes.items()}
            for name, axes in dims.items()
        }
    return {
        name: {a: dim(d, largest[name][a]) for a, d in axes.items() if d.isidentifier()}
        for name, axes in dims.items()
    }


def _constrained(spec: Spec, message: str) -> Spec:
    """Leave those dimensions to torch that it names in its message; all if it names none."""
    found = VIOLATED.search(message)
    names = set(re.split(r",\s*", found[1])) if found else set()
    known = {d.__name__ for axes in spec.values() for d in axes.values() if d is not Dim.AUTO}
    if not names & known:
        return _all(spec, message)
    return {
        name: {
            a: Dim.AUTO if d is not Dim.AUTO and d.__name__ in names else d for a, d in x.items()
        }
        for name, x in spec.items()
    }


def _all(spec: Spec, message: str) -> Spec:  # noqa: ARG001  # as `_constrained`
    """Leave all dimensions to torch."""
    return {name: dict.fromkeys(axes, Dim.AUTO) for name, axes in spec.items()}


def _captured(subject: Subject, inputs: tuple[Any, ...], spec: Spec) -> ExportedProgram:
    shapes = tuple(spec.get(name, {}) for name in subject.values)
    return torch.export.export(subject.module, inputs, dynamic_shapes=shapes)


def varying(program: ExportedProgram, names: Iterable[str], dims: Dims) -> Dims:
    """The dimensions of the inputs that are no numbers in a program, by the names of `dims`."""
    nodes = {n.name: n for n in program.graph.nodes if n.op == "placeholder"}
    users = [nodes[str(name)] for name in program.graph_signature.user_inputs]
    found: Dims = {}
    for name, node in zip(names, users, strict=True):
        sizes = node.meta["val"].shape
        axes = [a for a, size in enumerate(sizes) if not isinstance(size, int)]
        if axes:
            found[name] = {axis: dims.get(name, {}).get(axis, "") for axis in axes}
    return found
