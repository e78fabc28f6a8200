"""The judges; the first one that can run a model decides.

onnxruntime                    the model as it is
onnxruntime after conversion   old forms of broadcasting and attributes, by ONNX's converter
onnxruntime at a version before   of operators of which it lacks a version that means the same
reference                      ONNX's reference evaluator
Cast in its place              of CastLike, and of Cast by the name of a type
formula                        of what onnxruntime runs on GPUs only, as documented, in numpy
dequantized                    QLinearMatMul, as a product of the numbers that are meant
... in a wider type            for a type that none of them computes with: the same numbers in
                               one that holds them all, and the answer rounded or wrapped once
... by number                  strings that are moved: their places in a table
... by parts                   complex numbers that are moved: their real and imaginary parts
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any, TypeAlias

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import TensorProto, version_converter
from onnx.defs import OpSchema
from onnx.reference import ReferenceEvaluator
from torch import Tensor

from onnxinterp import backend
from onnxinterp.dtypes import CARRIER, FLOAT8
from onnxinterp.graph.types import TYPE_ATTRIBUTES
from onnxinterp.schemas import MICROSOFT
from onnxinterp.verify.reference import NARROW, Reference
from tests.property import mistakes, record
from tests.property.drawing import STRING, tensor_types
from tests.property.formulas import run_formula
from tests.property.one_node import OneNode, one_node
from tests.property.served import label
from tests.property.terms import in_terms
from tests.property.undefined import defined

onnxruntime.set_default_logger_severity(4)

TINY_FLOATS = [t for t, c in CARRIER.items() if c in FLOAT8 or (c is torch.float32 and t != 1)]
SMALL_INTEGERS = [
    t
    for t, c in CARRIER.items()
    if not (c.is_floating_point or c.is_complex) and (c.itemsize < 4 or c is torch.uint32)
]
CONVERTED_TO = 13  # for the old broadcast and attribute forms

SAME_BEFORE = {  # operator and version -> a version that means the same for fewer types
    "Compress-28": 11,
    "GlobalLpPool-22": 2,
    "MaxRoiPool-22": 1,
    "Multinomial-22": 7,
    "OneHot-28": 11,
    "QLinearMatMul-21": 10,
    "Scatter-11": 9,
    "Unique-28": 11,
    "Upsample-10": 9,
}

FLOAT, DOUBLE, INT32, INT64, COMPLEX64 = 1, 11, 6, 7, 14
WIDER = {
    TensorProto.BFLOAT16: (FLOAT, DOUBLE),
    TensorProto.FLOAT16: (FLOAT, DOUBLE),
    TensorProto.FLOAT: (DOUBLE,),
    TensorProto.INT32: (INT64, FLOAT),
    TensorProto.INT64: (INT32, FLOAT),
    TensorProto.UINT64: (INT64, INT32, FLOAT),
    **dict.fromkeys(TINY_FLOATS, (FLOAT,)),
    **dict.fromkeys(SMALL_INTEGERS, (INT32, INT64, FLOAT)),
}
"""Element type -> types whose arithmetic is the same for the small numbers that are drawn."""

NOT_WIDENED = {
    "BeamSearch": ("F",),
    "BitCast": ("T1",),
    "CastLike": ("T2",),
    "QuantizeLinear": ("T2", "T3"),
    "QLinearMatMul": ("T1", "T2", "T3"),
    "QLinearConv": ("T1", "T2", "T3"),
    "com.microsoft::GridSample-1": ("T1",),
}
"""Type parameters whose range or bits the answer depends on, or its type, untold by the schema."""

PACKED = ("MatMulNBits", "GatherBlockQuantized", "QMoE")
"""Operators of which bytes hold several numbers."""

FLOAT4 = onnx.helper.tensor_dtype_to_np_dtype(TensorProto.FLOAT4E2M1)
MOVED_WHOLE = ("Unique", "NonZero")
"""Operators for which a complex number is one thing, not two parts."""


class NoOracleError(Exception):
    """No judge can run this model."""


def _refuse_mistaken(known: Mapping[str, mistakes.Mistake], case: OneNode) -> None:
    opset = case.model.opset_import[0].version
    for why, is_mistaken in known.items():
        if is_mistaken(case.model.graph.node[0], opset, case.types):
            raise NoOracleError(f"it is known to be wrong: {why}")


def run_onnxruntime(case: OneNode) -> list[Any]:
    _refuse_mistaken(mistakes.ONNXRUNTIME, case)
    case, dtype = in_terms(_with_constants(case))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(
        case.model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    if any(v.type in NARROW for v in (*session.get_inputs(), *session.get_outputs())):
        return list(Reference(case.model)(case.torch_feeds()).values())
    answer = defined(case, session.run(None, case.feeds))
    return [to_lane(r if dtype is None else r.astype(dtype)) for r in answer]


def _with_constants(case: OneNode) -> OneNode:
    """Float4 inputs of com.microsoft as initializers: onnxruntime casts nothing to float4."""
    names = [n for n, v in case.feeds.items() if getattr(v, "dtype", None) == FLOAT4]
    if case.model.graph.node[0].domain != MICROSOFT or not names:
        return case
    model = onnx.ModelProto()
    model.CopyFrom(case.model)
    for info in [i for i in model.graph.input if i.name in names]:
        model.graph.input.remove(info)
    model.graph.initializer.extend(onnx.numpy_helper.from_array(case.feeds[n], n) for n in names)
    feeds = {n: v for n, v in case.feeds.items() if n not in names}
    return replace(case, model=model, feeds=feeds)


def run_converted(case: OneNode) -> list[Any]:
    opset = case.model.opset_import[0]
    if opset.domain or opset.version >= 7:
        raise NoOracleError("only old forms are converted")
    _refuse_mistaken(mistakes.CONVERTER, case)
    return run_onnxruntime(
        replace(case, model=version_converter.convert_version(case.model, CONVERTED_TO))
    )


def run_before(case: OneNode) -> list[Any]:
    node, opset = case.model.graph.node[0], case.model.opset_import[0].version
    version = SAME_BEFORE.get(f"{node.op_type}-{opset}")
    if version is None:
        raise NoOracleError("every version has its own meaning")
    model = onnx.ModelProto()
    model.CopyFrom(case.model)
    model.opset_import[0].version = version
    return run_onnxruntime(replace(case, model=model))


def run_reference(case: OneNode) -> list[Any]:
    _refuse_mistaken(mistakes.REFERENCE, case)
    # a map is one row of the sequence that it takes
    feeds = {n: [x] if isinstance(x, dict) else x for n, x in case.feeds.items()}
    with np.errstate(all="ignore"):
        answer = ReferenceEvaluator(case.model).run(None, feeds)
    if case.model.graph.node[0].op_type == "Optional":
        (answer,) = answer  # it stands for a value that is there by a list of one
    return [to_lane(r) for r in answer]


def run_as_cast(case: OneNode) -> list[Any]:
    """CastLike as its schema defines it, and Cast-1: Cast to the number of a type."""
    old = case.model.graph.node[0]
    if old.op_type not in ("Cast", "CastLike") or (old.op_type == "Cast" and old.attribute[0].i):
        raise NoOracleError("it is not defined by Cast")
    model = onnx.ModelProto()
    model.CopyFrom(case.model)
    graph, node = model.graph, model.graph.node[0]
    kept = [a for a in old.attribute if a.name != "to"]
    node.CopyFrom(onnx.helper.make_node("Cast", old.input[:1], old.output, to=case.types["T2"]))
    node.attribute.extend(kept)
    model.opset_import[0].version = max(model.opset_import[0].version, 6)
    dropped = set(old.input[1:])
    for listed in (graph.input, graph.initializer):
        for entry in [e for e in listed if e.name in dropped]:
            listed.remove(entry)
    feeds = {k: v for k, v in case.feeds.items() if k not in dropped}
    plain = replace(case, model=model, feeds=feeds)
    try:
        return run_onnxruntime(plain)
    except Exception:  # its exceptions have no base of their own
        return run_reference(plain)


def run_dequantized(case: OneNode) -> list[Any]:
    node = case.model.graph.node[0]
    if node.op_type != "QLinearMatMul" or case.types.get("TS") != FLOAT:
        raise NoOracleError("it is no product quantized by scales of float32")
    model = onnx.ModelProto()
    model.CopyFrom(case.model)
    del model.graph.node[:]
    model.graph.node.extend(
        [
            onnx.helper.make_node("DequantizeLinear", node.input[:3], ["a"]),
            onnx.helper.make_node("DequantizeLinear", node.input[3:6], ["b"], axis=-1),
            onnx.helper.make_node("MatMul", ["a", "b"], ["product"]),
            onnx.helper.make_node("QuantizeLinear", ["product", *node.input[6:]], node.output),
        ]
    )
    return run_onnxruntime(replace(case, model=model))


def to_lane(value: Any) -> Any:
    """An oracle's answer in the form in which a module gives its own."""
    if isinstance(value, (list, tuple)):
        return [to_lane(v) for v in value]
    if value is None or isinstance(value, dict):
        return value
    array = np.asarray(value)
    if array.dtype.kind not in "OUS":
        return backend.to_torch(array)
    strings = np.array([x if isinstance(x, str) else "" for x in array.flat], dtype=object)
    return strings.reshape(array.shape)  # numpy fills with 0 where "" is meant


Oracle: TypeAlias = Callable[[OneNode], list[Any]]

ORACLES: tuple[dict[str, Oracle], ...] = (
    {
        "onnxruntime": run_onnxruntime,
        "onnxruntime after conversion": run_converted,
        "onnxruntime at a version before": run_before,
    },
    {
        "reference": run_reference,
        "formula": lambda case: [to_lane(r) for r in run_formula(case)],
        "Cast in its place": run_as_cast,
        "dequantized": run_dequantized,
    },
)
"""Who is asked, in this order: each first in the types of the call, then in wider ones."""


def judge(schema: OpSchema, case: OneNode) -> tuple[list[Any], OneNode]:
    """What the first oracle that runs the model answers, and the call that it was asked about.

    Raises:
        NoOracleError: none of them does; the message has the reason of each.
    """
    asking = _Asking(label(schema))
    for oracles in ORACLES:
        if answer := asking(oracles, case):
            return typed(schema, answer, case), case
        for wide in widened(schema, case):
            if answer := asking(oracles, wide, " in a wider type"):
                return typed(schema, answer, case, wide), wide
    for narrower in widened(schema, case, {TensorProto.DOUBLE: (FLOAT,)}):
        if answer := asking(ORACLES[0], narrower, " in float"):
            return typed(schema, answer, case, narrower), narrower
    every = {name: oracle for oracles in ORACLES for name, oracle in oracles.items()}
    if numbered := by_number(schema, case):
        table, of_numbers = numbered
        if answer := asking(every, of_numbers, " by number"):
            return [named(schema, i, a, case, table) for i, a in enumerate(answer)], case
    if parts := by_parts(schema, case):
        halves = [asking(every, part, " by parts") for part in parts]
        if all(halves):
            single = COMPLEX64 in case.types.values()
            whole = _joined(*halves, torch.complex64 if single else torch.complex128)
            return typed(schema, whole, case), case
    raise NoOracleError("; ".join(asking.reasons))


class _Asking:
    """Asks oracles about one call, and notes who answered and why the others did not."""

    def __init__(self, label: str) -> None:
        self.label = label
        self.reasons: list[str] = []

    def __call__(
        self, oracles: Mapping[str, Oracle], case: OneNode, how: str = ""
    ) -> list[Any] | None:
        for name, oracle in oracles.items():
            try:
                answer = oracle(case)
            except Exception as error:  # each oracle refuses in its own way
                self.reasons.append(f"{name}{how}: {str(error)[:200]}")
                continue
            record.JUDGED[self.label].add(name + how)
            return answer
        return None


def by_number(schema: OpSchema, case: OneNode) -> tuple[np.ndarray[Any, Any], OneNode] | None:
    """A call for one that moves strings: of their numbers in a table in which "" is 0."""
    types = {p: INT64 if t == STRING else t for p, t in case.types.items()}
    if types == case.types:
        return None
    arrays = [v for v in case.call.inputs if isinstance(v, np.ndarray)]
    table = np.unique(np.concatenate([np.array([""], object), *(a.reshape(-1) for a in arrays)]))
    inputs = tuple(
        torch.from_numpy(np.asarray(np.searchsorted(table, v))) if isinstance(v, np.ndarray) else v
        for v in case.call.inputs
    )
    return table, one_node(schema, replace(case.call, inputs=inputs), types)


def named(schema: OpSchema, index: int, answer: Any, case: OneNode, table: Any) -> Any:
    """The strings that the numbers of an answer stand for."""
    formal = schema.outputs[min(index, len(schema.outputs) - 1)]
    if case.types.get(formal.type_str) != STRING:
        return answer
    return np.array(table[answer.numpy()], dtype=object)


def by_parts(schema: OpSchema, case: OneNode) -> list[OneNode]:
    """Two calls for one that moves complex numbers: of the real and of the imaginary parts."""
    types = {
        p: FLOAT if CARRIER.get(t, torch.bool).is_complex else t for p, t in case.types.items()
    }
    if types == case.types or schema.name in MOVED_WHOLE:
        return []

    def part(value: Any, which: str) -> Any:
        if isinstance(value, list):
            return [part(v, which) for v in value]
        complex_ = isinstance(value, Tensor) and value.is_complex()
        return getattr(value, which).float() if complex_ else value

    return [
        one_node(
            schema, replace(case.call, inputs=tuple(part(v, p) for v in case.call.inputs)), types
        )
        for p in ("real", "imag")
    ]


def _joined(real: Any, imaginary: Any, dtype: torch.dtype) -> Any:
    """The complex numbers of two answers."""
    if isinstance(real, list):
        return [_joined(r, i, dtype) for r, i in zip(real, imaginary, strict=True)]
    return torch.complex(real, imaginary).to(dtype)


def widened(
    schema: OpSchema, case: OneNode, wider_than: Mapping[int, tuple[int, ...]] = WIDER
) -> Iterator[OneNode]:
    """The same call in types that hold the same numbers: those that are drawn fit float32."""
    admitted = _admitted(schema)
    kept = (*NOT_WIDENED.get(schema.name, ()), *NOT_WIDENED.get(label(schema), ()))
    for choice in range(3):
        types = dict(case.types)
        for parameter, elem_type in case.types.items():
            wider = [t for t in wider_than.get(elem_type, ()) if t in admitted.get(parameter, ())]
            read = elem_type == STRING and schema.name in ("Cast", "CastLike") and parameter == "T1"
            wider = [FLOAT] if read else wider
            masks = elem_type == TensorProto.BOOL and schema.name == "Attention"
            packed = elem_type == TensorProto.UINT8 and schema.name in PACKED
            if wider and not (masks or packed) and parameter not in kept:
                types[parameter] = wider[min(choice, len(wider) - 1)]
        if types == case.types:
            return
        inputs = []
        for index, value in enumerate(case.call.inputs):
            parameter = schema.inputs[min(index, len(schema.inputs) - 1)].type_str
            changed = types.get(parameter) != case.types.get(parameter)
            told = _dtype(value) in (None, CARRIER.get(case.types.get(parameter, 0)))
            inputs.append(_cast(value, CARRIER[types[parameter]]) if changed and told else value)
        yield one_node(schema, replace(case.call, inputs=tuple(inputs)), types)


def typed(
    schema: OpSchema, answer: list[Any], case: OneNode, asked: OneNode | None = None
) -> list[Any]:
    """An answer in the types that the schema tells, whatever an oracle computed in.

    Where it tells none, as of what loops carry, the types in which `asked` was asked are undone.
    """
    given = zip(schema.inputs, case.call.inputs, strict=False)
    by_inputs = {i.type_str for i, value in given if i.is_homogeneous and value is not None}
    formals = [schema.outputs[min(i, len(schema.outputs) - 1)] for i in range(len(answer))]
    dtypes = [
        CARRIER.get(case.types.get(formal.type_str, 0))
        if formal.type_str in by_inputs
        else _undone(schema, formal, value, case, asked)
        for value, formal in zip(answer, formals, strict=True)
    ]
    return [_cast(value, dtype) for value, dtype in zip(answer, dtypes, strict=True)]


def _undone(
    schema: OpSchema, formal: OpSchema.FormalParameter, value: Any, case: OneNode, asked: Any
) -> torch.dtype | None:
    """The type that an output has, as an input that was asked about in a wider one has it."""
    if asked is None or any(name in case.call.attrs for name in TYPE_ATTRIBUTES):
        return None
    admitted = _admitted(schema)
    inputs = zip(schema.inputs, case.call.inputs, strict=False)
    alike = [
        p
        for p in {i.type_str for i, v in inputs if v is not None} & asked.types.keys()
        if asked.types[p] != case.types[p]
        and (not formal.is_homogeneous or admitted[p] == admitted.get(formal.type_str))
    ]
    wide = {CARRIER.get(asked.types[p]): CARRIER.get(case.types[p]) for p in alike}
    return wide.get(_dtype(value))


def _admitted(schema: OpSchema) -> dict[str, list[int]]:
    return {c.type_param_str: tensor_types(c.allowed_type_strs) for c in schema.type_constraints}


def _dtype(value: Any) -> torch.dtype | None:
    """Of a tensor, or of the first of a sequence."""
    first = value[0] if isinstance(value, list) and value else value
    return first.dtype if isinstance(first, Tensor) else None


def _cast(value: Any, dtype: Any) -> Any:
    if isinstance(value, list):
        return [_cast(v, dtype) for v in value]
    if isinstance(value, np.ndarray) and dtype is torch.float32:
        return torch.from_numpy(value.astype(np.float32))  # the numbers that texts stand for
    return value.to(dtype) if isinstance(value, Tensor) and dtype is not None else value
