"""The judges: onnxruntime, the same after ONNX's version converter, ONNX's reference evaluator.

The first one that can run a model decides. The reference evaluator is no judge of the softmax
family below opset 13: it ignores that the axes from `axis` on count as one. Nor is it one of
TreeEnsemble: it ignores `post_transform`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import version_converter
from onnx.reference import ReferenceEvaluator

from tests.property import record
from tests.property.terms import in_terms, is_judged

onnxruntime.set_default_logger_severity(4)

SOFTMAX_FAMILY = ("Softmax", "LogSoftmax", "Hardmax")
CONVERTED_TO = 13  # for the old broadcast and attribute forms


class NoOracleError(Exception):
    """No judge can run this model."""


def run_onnxruntime(model: onnx.ModelProto, feeds: dict[str, Any]) -> list[Any]:
    if not is_judged(model):
        raise NoOracleError("onnxruntime does not do what is specified")
    model, feeds, dtype = in_terms(model, feeds)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    answer = list(session.run(None, feeds))
    return answer if dtype is None else [a.astype(dtype) for a in answer]


def run_converted(model: onnx.ModelProto, feeds: dict[str, Any]) -> list[Any]:
    opset = model.opset_import[0]
    if opset.domain or opset.version >= 7:
        raise NoOracleError("only old forms are converted")
    return run_onnxruntime(version_converter.convert_version(model, CONVERTED_TO), feeds)


def run_reference(model: onnx.ModelProto, feeds: dict[str, Any]) -> list[Any]:
    op_type = model.graph.node[0].op_type
    old_softmax = model.opset_import[0].version < 13 and op_type in SOFTMAX_FAMILY
    if old_softmax or op_type == "TreeEnsemble":
        raise NoOracleError("the reference evaluator is wrong here")
    with np.errstate(all="ignore"):
        results = ReferenceEvaluator(model).run(None, feeds)
    return [np.asarray(r) if not isinstance(r, list) else r for r in results]


ORACLES: dict[str, Callable[[onnx.ModelProto, dict[str, Any]], list[Any]]] = {
    "onnxruntime": run_onnxruntime,
    "onnxruntime after conversion": run_converted,
    "reference": run_reference,
}


def judge(label: str, model: onnx.ModelProto, feeds: dict[str, Any]) -> list[Any]:
    """What the first oracle that runs the model answers.

    Raises:
        NoOracleError: none of them does; the message has the reason of each.
    """
    reasons = []
    for name, oracle in ORACLES.items():
        try:
            answer = oracle(model, feeds)
        except Exception as error:  # each oracle refuses in its own way
            reasons.append(f"{name}: {str(error)[:200]}")
            continue
        record.JUDGED[label].add(name)
        return answer
    raise NoOracleError("; ".join(reasons))
