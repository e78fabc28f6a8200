"""A random valid graph, node by node: what a node computes is known before the next one is drawn.

A node is a call that a sample draws. Its inputs are the values of earlier nodes where these have
the type, the shape and the range of what was drawn, or can be brought to it by a few nodes; they
are inputs or initializers of the graph otherwise. Whoever is asked for the values may refuse the
node: then it is left out.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Protocol

import numpy as np
import onnx
from hypothesis.errors import InvalidArgument
from onnx import FunctionProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper
from onnx.defs import OpSchema

from tests.property import mistakes
from tests.property.one_node import NUMBERS, OneNode, drawn
from tests.property.served import SERVED, kernel_of
from tests.property.terms import ML, in_terms
from tests.untrusted.fuzz.choices import PLAIN, Choices, chance, one_of
from tests.untrusted.fuzz.naming import reads, relabelled

OPSETS = (23, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22)
ML_OPSETS = {opset: 1 if opset < 9 else 2 if opset < 15 else 3 for opset in OPSETS}
DOMAINS = ("", ML)
TAME = 1e4  # larger numbers, and nan, are no input of another node
LOCAL = "fuzz"  # the domain of functions
UNSTABLE = {
    "MeanVarianceNormalization": "onnxruntime takes the root of a variance below 0: nan",
}
"""Operators of which onnxruntime loses the digits where numbers are nearly equal."""


class Asked(Protocol):
    """Who knows what nodes compute."""

    def values(self, draft: Draft, nodes: Sequence[NodeProto]) -> dict[str, Any] | None:
        """Output name -> array, of nodes that read the draft's values; None: they do not run."""
        ...


@dataclass
class Draft:
    """A graph in the making.

    Attributes:
        opset: of ai.onnx.
        nodes: in order.
        inputs: what a call gives, as numpy arrays.
        constants: the initializers.
        values: every value of the main graph that the nodes' values depend on by themselves.
        functions: what nodes of the domain "fuzz" mean.
    """

    opset: int
    nodes: list[NodeProto] = field(default_factory=list)
    inputs: dict[str, Any] = field(default_factory=dict)
    constants: dict[str, Any] = field(default_factory=dict)
    values: dict[str, Any] = field(default_factory=dict)
    functions: list[FunctionProto] = field(default_factory=list)
    count: int = 0

    def fresh(self, prefix: str) -> str:
        """A name that no value has."""
        self.count += 1
        return f"{prefix}{self.count}"

    @property
    def imports(self) -> dict[str, int]:
        return {"": self.opset, ML: ML_OPSETS[self.opset], LOCAL: 1}

    def model(
        self, nodes: Sequence[NodeProto], outputs: Sequence[str], optional: Iterable[str] = ()
    ) -> tuple[ModelProto, dict[str, Any]]:
        """Some of the nodes as a model, and what to feed: the values they read.

        Args:
            nodes: they may read any value.
            outputs: what the model gives.
            optional: initializers that are inputs, too.
        """
        needed = reads(nodes)
        constants = {n: a for n, a in self.constants.items() if n in needed}
        feeds = {n: self.values[n] for n in needed if n not in constants}
        optional = [n for n in optional if n in constants]
        graph = helper.make_graph(
            nodes,
            "fuzz",
            [info(n, feeds[n] if n in feeds else constants[n]) for n in (*feeds, *optional)],
            [helper.make_empty_tensor_value_info(n) for n in outputs],
            [numpy_helper.from_array(np.asarray(a), n) for n, a in constants.items()],
        )
        model = helper.make_model(
            graph,
            functions=self.functions,
            opset_imports=[helper.make_opsetid(d, v) for d, v in self.imports.items()],
            ir_version=8 if self.opset < 19 else 10,
        )
        return model, feeds


def element_type(array: Any) -> int:
    """The ONNX number of an array's type."""
    strings = array.dtype == object
    return int(TensorProto.STRING if strings else helper.np_dtype_to_tensor_dtype(array.dtype))


def info(name: str, value: Any, shaped: bool = True) -> onnx.ValueInfoProto:
    """The declaration of a tensor or a sequence of tensors."""
    if isinstance(value, list):
        element = element_type(value[0]) if value else TensorProto.FLOAT
        return helper.make_tensor_sequence_value_info(name, element, None)
    shape = value.shape if shaped else None
    return helper.make_tensor_value_info(name, element_type(value), shape)


def signature(value: Any) -> Any:
    """What two values must have in common to change places: type and shape, of all elements."""
    if isinstance(value, list):
        return tuple(signature(v) for v in value)
    return element_type(value), value.shape


def is_plain(value: Any) -> bool:
    """Whether a value is a tensor or a sequence of tensors, of types that numpy has."""
    if isinstance(value, list):
        return bool(value) and all(isinstance(v, np.ndarray) and is_plain(v) for v in value)
    return isinstance(value, np.ndarray) and element_type(value) in PLAIN


def is_tame(value: Any) -> bool:
    """Whether numbers are finite and of moderate size."""
    if isinstance(value, list):
        return all(map(is_tame, value))
    numbers = value.dtype.kind in "iuf"
    return not numbers or bool((np.abs(value.astype(np.float64)) <= TAME).all())


def bounds(wanted: Any) -> tuple[float, float]:
    """Between which numbers an input may lie, judged by one that was drawn.

    What is drawn on both sides of 0 may be any number; all else may be indices, or a domain.
    """
    lo, hi = float(wanted.min()), float(wanted.max())
    free = wanted.dtype.kind == "f" and lo < -1 and hi > 1
    return (-10.0, 10.0) if free else (lo, hi)


def fits(value: Any, wanted: Any) -> bool:
    """Whether a value may stand for one that was drawn."""
    if signature(value) != signature(wanted):
        return False
    if isinstance(wanted, list) or wanted.dtype.kind not in "iuf" or not wanted.size:
        return True
    lo, hi = bounds(wanted)
    return bool(((lo <= value) & (value <= hi)).all())


@cache
def schemas(opset: int) -> list[OpSchema]:
    """The operators of an opset that always give the same answer."""
    limits = {"": opset, ML: ML_OPSETS[opset]}
    newest = {(s.domain, s.name): s for s in SERVED if s.since_version <= limits.get(s.domain, 0)}
    return [
        s
        for s in newest.values()
        if not (s.deprecated or kernel_of(s).random or s.name in UNSTABLE)
    ]


def _is_mistaken(case: OneNode) -> bool:
    """Whether onnxruntime is known to be wrong, or knows the operator by other numbers."""
    node, opset = case.model.graph.node[0], case.model.opset_import[0].version
    if any(wrong(node, opset, case.types) for wrong in mistakes.ONNXRUNTIME.values()):
        return True
    translated, dtype = in_terms(case)
    return dtype is not None or translated.model != case.model


class Drafter:
    """Draws a graph.

    Args:
        choices: hypothesis or a seed.
        asked: who knows the values.
    """

    def __init__(self, choices: Choices, asked: Asked) -> None:
        self.choices, self.asked = choices, asked
        self.draft = Draft(one_of(choices, OPSETS))

    def grow(self, size: int) -> Draft:
        """Draw until the graph has so many nodes, or a few tries have failed."""
        for _ in range(2 * size):
            if len(self.draft.nodes) < size:
                self.add()
        return self.draft

    def add(self) -> None:
        """Draw one node, and those that bring values to it."""
        schema = one_of(self.choices, schemas(self.draft.opset))
        constants = one_of(self.choices, ("settings", "none", "all"))
        try:
            case = drawn(schema, self.choices.call_of(schema), constants)
        except InvalidArgument:
            return
        tensors = {t.name: numpy_helper.to_array(t) for t in case.model.graph.initializer}
        given = {**tensors, **case.feeds}
        if not all(map(is_plain, given.values())) or _is_mistaken(case):
            return
        if not self._place(case, schema, tensors, given, wire=True):
            self._place(case, schema, tensors, given, wire=False)

    def _place(
        self,
        case: OneNode,
        schema: OpSchema,
        constants: Mapping[str, Any],
        given: Mapping[str, Any],
        wire: bool,
    ) -> bool:
        """Put the node into the graph, if it runs there."""
        draft, before, known = self.draft, [], dict(self.draft.values)
        names = {y: draft.fresh("v") for y in case.model.graph.node[0].output}
        added: dict[str, Any] = {}
        for x, wanted in given.items():
            settled = self._is_setting(schema, case, x)
            names[x], bringing = self._wired(wanted, settled) if wire else ("", [])
            before += bringing
            if not names[x]:
                names[x] = draft.fresh("x")
                added[names[x]] = wanted
                (draft.constants if x in constants else draft.inputs)[names[x]] = wanted
        draft.values.update(added)
        nodes = [*before, *relabelled(case.model.graph.node, names, draft.fresh("b"))]
        values = self.asked.values(draft, nodes)
        if values is None or not all(map(is_plain, values.values())):
            draft.values = known
            for name in added:
                draft.inputs.pop(name, None)
                draft.constants.pop(name, None)
            return False
        draft.values.update(values)
        draft.nodes += nodes
        return True

    @staticmethod
    def _is_setting(schema: OpSchema, case: OneNode, name: str) -> bool:
        """Whether the kernel takes an input as plain numbers: shapes, axes, sizes."""
        kernel = kernel_of(schema)
        parameter = kernel.parameter(list(case.model.graph.node[0].input).index(name))
        return parameter is not None and kernel.kinds[parameter.name] in NUMBERS

    def _wired(self, wanted: Any, settled: bool) -> tuple[str, list[NodeProto]]:
        """An earlier value for what was drawn, and nodes that make it; "" where there is none."""
        values = self.draft.values
        if settled:
            equal = [
                n
                for n, v in values.items()
                if signature(v) == signature(wanted) and np.array_equal(v, wanted)
            ]
            return (one_of(self.choices, equal), []) if equal else ("", [])
        fitting = [n for n, v in values.items() if fits(v, wanted)]
        if fitting and chance(self.choices, 80):
            return one_of(self.choices, fitting), []
        if isinstance(wanted, list) or not chance(self.choices, 60):
            return "", []
        made = [n for n, v in values.items() if n not in self.draft.constants and _is_source(v)]
        if not made or not _is_source(wanted):
            return "", []
        name = one_of(self.choices, made)
        nodes = list(self._bring(name, values[name], wanted))
        return nodes[-1].output[0], nodes

    def _bring(self, name: str, value: Any, wanted: Any) -> Iterator[NodeProto]:
        """Nodes from a value to one of the type, shape and range of another."""
        draft = self.draft

        def node(op_type: str, *inputs: Any, **attributes: Any) -> NodeProto:
            names = [self._constant(i) if isinstance(i, np.ndarray) else i for i in inputs]
            return helper.make_node(op_type, names, [draft.fresh("v")], **attributes)

        flat = node("Reshape", name, np.array([-1]))
        yield flat
        if value.size < wanted.size:
            flat = node("Tile", flat.output[0], np.array([math.ceil(wanted.size / value.size)]))
            yield flat
        ends = (np.array([0]), np.array([wanted.size]))
        if draft.opset < 10:
            attributes = {"starts": [0], "ends": [wanted.size], "axes": [0]}
            part = node("Slice", flat.output[0], **attributes)
        else:
            part = node("Slice", flat.output[0], *ends)
        yield part
        made = node("Reshape", part.output[0], np.array(wanted.shape, dtype=np.int64))
        yield made
        yield from self._cast(made.output[0], value.dtype, wanted, node)

    def _cast(self, name: str, dtype: Any, wanted: Any, node: Any) -> Iterator[NodeProto]:
        """Bounds first, then the type: what a number beyond a type's range becomes is open."""
        lo, hi = bounds(wanted) if wanted.dtype.kind != "b" else (-10.0, 10.0)
        if dtype.kind != "b":
            limits = np.finfo(dtype) if dtype.kind == "f" else np.iinfo(dtype)
            lo, hi = (min(max(bound, limits.min), limits.max) for bound in (lo, hi))
            if self.draft.opset < 11:
                step = node("Clip", name, min=float(lo), max=float(hi))
            else:
                step = node("Clip", name, *(np.array(bound).astype(dtype) for bound in (lo, hi)))
            yield step
            name = step.output[0]
        if dtype != wanted.dtype:
            yield node("Cast", name, to=element_type(wanted))

    def _constant(self, array: Any) -> str:
        name = self.draft.fresh("c")
        self.draft.constants[name] = self.draft.values[name] = array
        return name


def _is_source(value: Any) -> bool:
    """Whether a value can be brought to another type and range."""
    return (
        isinstance(value, np.ndarray)
        and value.size > 0
        and value.dtype.kind in "biuf"
        and is_tame(value)
    )
