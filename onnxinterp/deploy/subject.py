"""What is written: a module, examples of its inputs, and the dimensions that may vary."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from onnxinterp.errors import InputError
from onnxinterp.graph.ir import ValueInfo
from onnxinterp.module import OnnxModule
from onnxinterp.verify.inputs import choose_shapes, evaluate, random_inputs

Dims = dict[str, dict[int, str]]
"""Input -> axis -> the name of a dimension that varies; "" where the file has no name for it."""

SEED = 0  # of the examples; comparisons use others


@dataclass(frozen=True)
class Subject:
    """A module that is to be written.

    Attributes:
        module: in eval mode.
        values: examples of its inputs, by name, in order.
        dims: the dimensions of the inputs that may vary.
        source: the file it came from; None where it was made in this process.
        opset: of the ONNX file to write; None: what the exporter takes by default.
        exporter: of torch, for an ONNX file: "dynamo" or "torchscript"; None: by the opset.
    """

    module: OnnxModule
    values: dict[str, Any]
    dims: Dims
    source: Path | None
    opset: int | None = None
    exporter: str | None = None

    def tensors(self, tool: str) -> tuple[Tensor, ...]:
        """The examples, for a tool that takes nothing but tensors.

        Raises:
            InputError: an input is something else.
        """
        if others := [i for i in self.module.inputs if i.dtype is None]:
            raise InputError(f"inputs must be tensors for {tool}, got {others[0]}")
        return tuple(self.values.values())

    @property
    def sizes(self) -> dict[str, tuple[int, ...]]:
        """Input -> shape of the example."""
        return {name: tuple(value.shape) for name, value in self.values.items()}

    def inputs(self, seed: int, sizes: Mapping[str, tuple[int, ...]] | None = None) -> Any:
        """Random inputs of these sizes, by default those of the examples."""
        return random_inputs(self.module.inputs, sizes or self.sizes, SEED + seed)


def examples(
    module: OnnxModule, shapes: Mapping[str, Sequence[int]], *, batch: int, keep: bool
) -> tuple[dict[str, Any], Dims, dict[str, int]]:
    """Example inputs, the dimensions that may vary, and the sizes chosen for some of them.

    Args:
        module: to be written.
        shapes: input name -> shape.
        batch: default of a dynamic first dimension.
        keep: whether dimensions of inputs in `shapes` may vary, too, if the model declares so.
    """
    inputs = module.inputs
    chosen = choose_shapes(inputs, shapes, batch=batch)
    dims = {
        info.name: {
            axis: dim if isinstance(dim, str) else ""
            for axis, dim in enumerate(info.shape or ())
            if not isinstance(dim, int) or dim < 1
        }
        for info in inputs
        if keep or info.name not in shapes
    }
    values = random_inputs(inputs, chosen.sizes, SEED)
    return values, {name: axes for name, axes in dims.items() if axes}, chosen.assumed


def resized(
    inputs: Sequence[ValueInfo], sizes: Mapping[str, tuple[int, ...]], dims: Dims, step: int
) -> dict[str, tuple[int, ...]]:
    """Shapes with `step` more in each dimension that varies; sums such as `past + 1` follow.

    A name that is somewhere fixed is fixed everywhere.
    """
    fixed, names = set(), {}
    for info in inputs:
        for axis, dim in enumerate(info.shape or ()):
            if isinstance(dim, str) and dim.isidentifier():
                names[dim] = sizes[info.name][axis]
                if axis not in dims.get(info.name, {}):
                    fixed.add(dim)
    symbols = {name: size if name in fixed else size + step for name, size in names.items()}
    found = {}
    for info in inputs:
        shape = list(sizes[info.name])
        for axis, name in dims.get(info.name, {}).items():
            value = evaluate(name, symbols) if name else None
            shape[axis] = shape[axis] + step if value is None else value
        found[info.name] = tuple(shape)
    return found


def described(dims: Dims) -> str:
    """Dimensions as a phrase: `image axis 0 (batch), mask axis 1`."""
    return ", ".join(
        f"{name} axis {axis}" + (f" ({dim})" if dim else "")
        for name, axes in dims.items()
        for axis, dim in axes.items()
    )
