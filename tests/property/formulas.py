"""Operators that no runtime runs on a CPU, as their documentation defines them, in numpy.

onnxruntime has kernels for some operators of com.microsoft on GPUs only. A function here is written
from ContribOperators.md alone, not from our kernel: it gets the inputs as arrays (None where
absent) and the attributes that the node has, and returns the outputs in order.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

from onnx.helper import get_attribute_value
from onnxruntime.capi import onnxruntime_pybind11_state

from onnxinterp.schemas import NCHWC
from tests.property.one_node import OneNode

Formula: TypeAlias = Callable[..., Any]
F = TypeVar("F", bound=Formula)

FORMULAS: dict[tuple[str, str], Formula] = {}
"""Domain and operator -> its formula."""


def formula(op_type: str, domain: str = "com.microsoft") -> Callable[[F], F]:
    """Register the formula of an operator."""

    def register(function: F) -> F:
        FORMULAS[domain, op_type] = function
        return function

    return register


def is_judged_by_formula(op_type: str, domain: str) -> bool:
    """Whether an operator has a formula, and onnxruntime no kernel for its tensors on CPUs.

    Formulas of other operators judge what the kernels refuse. Tensors of the domain of blocked
    convolutions are in blocks there.
    """
    _import_families()
    has_kernel = (domain, op_type) in _cpu_kernels() and domain != NCHWC
    return (domain, op_type) in FORMULAS and not has_kernel


@cache
def _cpu_kernels() -> frozenset[tuple[str, str]]:
    kernels = onnxruntime_pybind11_state.get_all_opkernel_def()
    return frozenset((k.domain, k.op_name) for k in kernels if k.provider == "CPUExecutionProvider")


def run_formula(case: OneNode) -> list[Any]:
    """The outputs of the node of a case, by its formula.

    Raises:
        KeyError: it has none.
    """
    _import_families()
    node = case.model.graph.node[0]
    function = FORMULAS[node.domain, node.op_type]
    attributes = {a.name: get_attribute_value(a) for a in node.attribute}
    values = {**case.initializers(), **case.feeds}
    results = function(*(values[name] if name else None for name in node.input), **attributes)
    results = results if isinstance(results, tuple) else (results,)
    return list(results[: len(node.output)])


@cache
def _import_families() -> None:
    """The files beside this one that are named after it register their formulas."""
    for path in sorted(Path(__file__).parent.glob("formulas_*.py")):
        importlib.import_module(f"tests.property.{path.stem}")
