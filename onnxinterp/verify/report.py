"""Run a model here and in onnxruntime on the same inputs, and compare the results."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import onnx
import torch
from torch import Tensor

from onnxinterp.dtypes import CARRIER
from onnxinterp.errors import InputError
from onnxinterp.graph.ir import ValueInfo, value_info
from onnxinterp.module import OnnxModule
from onnxinterp.reading.source import Source, read, reusable
from onnxinterp.reading.toposort import toposort
from onnxinterp.verify.comparison import DEFAULT, Comparison, Tolerance, compare
from onnxinterp.verify.inputs import choose_shapes, random_inputs
from onnxinterp.verify.levels import judge
from onnxinterp.verify.reference import WIDER, Reference, to_value

Inputs = Mapping[str, Any] | Sequence[Any]


@dataclass(frozen=True)
class Report:
    """A model against onnxruntime.

    Attributes:
        outputs: one comparison per output (per element, where an output is a sequence).
        tolerance: what counts as close.
        inputs: the values of the inputs of both.
        assumed: sizes chosen for dimensions that neither the model nor the caller declares.
        level: the optimisation level of the onnxruntime run that the outputs are compared with:
            "disabled", or another one where onnxruntime's levels differ and the outputs agree with
            that one.
        notes: sentences about onnxruntime's own results: where its levels differ or fail, and
            where its 8-bit products saturate.
    """

    outputs: tuple[Comparison, ...]
    tolerance: Tolerance
    inputs: dict[str, Any]
    assumed: dict[str, int]
    level: str = "disabled"
    notes: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether every output agrees."""
        return all(o.ok for o in self.outputs)

    @property
    def mse(self) -> float:
        """The largest mean squared difference of any output."""
        return max((o.mse for o in self.outputs), default=0.0)


@dataclass(frozen=True)
class NodeReport:
    """The results of one node of the main graph, against onnxruntime.

    Attributes:
        index: in the order of execution.
        name: its name, or that of its first output.
        op_type: operator name.
        outputs: one comparison per output tensor.
    """

    index: int
    name: str
    op_type: str
    outputs: tuple[Comparison, ...]

    @property
    def ok(self) -> bool:
        """Whether all its outputs agree."""
        return all(o.ok for o in self.outputs)


def verify(
    source: Source,
    inputs: Inputs | None = None,
    *,
    rtol: float = DEFAULT.rtol,
    atol: float = DEFAULT.atol,
    mse: float = DEFAULT.mse,
    shapes: Mapping[str, Sequence[int]] | None = None,
    seed: int = 0,
    module: Callable[..., Any] | None = None,
    optimize: bool = True,
) -> Report:
    """Compare every output of a model with onnxruntime's.

    Args:
        source: the model: a path, bytes, a binary file or a ModelProto.
        inputs: arrays or tensors by input name, or in the order of the inputs; by default seeded
            random values.
        rtol: allowed difference of an element relative to the reference.
        atol: allowed absolute difference of an element.
        mse: limit of the mean squared difference of an output.
        shapes: input name -> shape of the random values; others have default sizes.
        seed: of the random values.
        module: compared in place of a fresh import of `source`: called with the inputs in order,
            it returns the outputs in order.
        optimize: let onnxruntime also run the graph as it optimises it for its users. Outputs are
            compared with the run of the graph as written; where onnxruntime's levels differ from
            each other, outputs that agree with one of them are accepted, and the notes say so.

    Raises:
        OnnxError: the model, the inputs or onnxruntime's own run fail: there is no verdict.
    """
    source = reusable(source)
    tolerance = Tolerance(rtol, atol, mse)
    values, assumed = prepare(source, inputs, shapes or {}, seed)
    judged = OnnxModule(source) if module is None else module
    names = [o.name for o in read(source).proto.graph.output]
    ours = dict(zip(names, answers(judged, values, len(names)), strict=True))  # may have limits
    verdict = judge(source, values, ours, tolerance, optimize=optimize)
    return Report(verdict.outputs, tolerance, values, assumed, verdict.level, verdict.notes)


def trace(
    source: Source, inputs: Inputs | None = None, *, tolerance: Tolerance = DEFAULT
) -> list[NodeReport]:
    """Compare every intermediate value of the main graph, in the order of execution.

    onnxruntime runs without optimisation, so that every value exists as the file has it.

    Args:
        source: the model.
        inputs: as for `verify`.
        tolerance: for every value.

    Raises:
        OnnxError: the model, the inputs or onnxruntime's own run fail.
    """
    source = reusable(source)
    values, _ = prepare(source, inputs, {}, 0)
    nodes = computing_nodes(read(source).proto)
    names = [o for node in nodes for o in node.output if o]
    results = answers(OnnxModule(source, outputs=names), values, len(names))
    ours = dict(zip(names, results, strict=True))
    reference = Reference(source, names, level="disabled")(values)
    reports = []
    for index, node in enumerate(nodes):
        made = [o for o in node.output if o]
        outputs = [c for o in made for c in compare(o, ours[o], reference[o], tolerance)]
        label = node.name or made[0]
        reports.append(NodeReport(index, label, node.op_type, tuple(outputs)))
    return reports


def computing_nodes(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    """The nodes of the main graph in their order, without those that only hold a weight."""
    return [n for n in toposort(model.graph.node) if n.op_type != "Constant" and any(n.output)]


def answers(module: Callable[..., Any], inputs: Mapping[str, Any], count: int) -> tuple[Any, ...]:
    """Call a module without gradients; the result is always a tuple of `count` outputs.

    Raises:
        InputError: the module returns another number of outputs.
    """
    by_name = isinstance(module, OnnxModule) and module.input_names != tuple(inputs)
    with torch.no_grad():  # by name where inputs with a default stand between the others
        result = module(**inputs) if by_name else module(*inputs.values())
    several = isinstance(result, tuple) or (isinstance(result, list) and count > 1)
    results = tuple(result) if several else (result,)  # one list is a sequence
    if len(results) != count:
        raise InputError(f"the module must return {count} outputs, got {len(results)}")
    return results


def declared_inputs(model: onnx.ModelProto) -> list[ValueInfo]:
    """The required inputs: those without an initializer as their default."""
    stored = {t.name for t in model.graph.initializer}
    stored.update(s.values.name for s in model.graph.sparse_initializer)
    return [value_info(i) for i in model.graph.input if i.name not in stored]


def prepare(
    source: Source, inputs: Inputs | None, shapes: Mapping[str, Sequence[int]], seed: int
) -> tuple[dict[str, Any], dict[str, int]]:
    """The values of the inputs in the order of the model, and the sizes assumed for them.

    Raises:
        InputError: names, number or shapes do not fit the model.
    """
    declared = declared_inputs(read(source).proto)
    if inputs is None:
        chosen = choose_shapes(declared, shapes)
        return random_inputs(declared, chosen.sizes, seed), chosen.assumed
    names = [i.name for i in declared]
    given = inputs if isinstance(inputs, Mapping) else dict(zip(names, inputs, strict=False))
    if set(given) != set(names) or len(given) != len(inputs):
        got = ", ".join(map(repr, given)) if isinstance(inputs, Mapping) else f"{len(inputs)}"
        raise InputError(f"inputs must be {', '.join(map(repr, names))}, got {got}")
    return {info.name: _given(info, given[info.name]) for info in declared}, {}


def _given(info: ValueInfo, value: Any) -> Any:
    """An input as a value of the module, cast to the element types that numpy lacks."""
    if isinstance(value, (list, tuple)):
        return [_given(info, v) for v in value]
    if isinstance(value, dict):
        return value
    value = value if isinstance(value, Tensor) else to_value(value)
    is_narrow = info.elem_type in WIDER and isinstance(value, Tensor)
    return value.to(CARRIER[info.elem_type]) if is_narrow else value
