"""Every version answers what the oracle answers in every element type that its schema admits.

`unjudged.txt` names the types of which no oracle says anything, and those that we refuse.
"""

from __future__ import annotations

import pytest
from onnx.defs import OpSchema

from onnxinterp import NodeError, OnnxModule
from onnxinterp.dtypes import onnx_name
from tests.property import record
from tests.property.drawing import SeededDraw, tensor_types
from tests.property.one_node import OneNode, drawn
from tests.property.oracles import NoOracleError
from tests.property.served import SERVED, label
from tests.property.test_values import check
from tests.property.unjudged import UNJUDGED

CONSTANTS = ("none", "all")  # which inputs of the calls of each type are initializers


def check_cell(schema: OpSchema, case: OneNode, how: str) -> None:
    """What an oracle answers, where there is one; an error where we refuse."""
    if how == "refused":
        with pytest.raises(NodeError):
            OnnxModule(case.model)(**case.torch_feeds())
        return
    try:
        check(schema, case)
    except NoOracleError:
        if how == "judged":
            raise
        OnnxModule(case.model)(**case.torch_feeds())


@pytest.mark.parametrize("schema", SERVED, ids=label)
def test_types(schema: OpSchema) -> None:
    wrong = []
    for constraint in schema.type_constraints:
        for elem_type in tensor_types(constraint.allowed_type_strs):
            types = {constraint.type_param_str: elem_type}
            cell = f"{constraint.type_param_str}={onnx_name(elem_type)}"
            how = UNJUDGED.get((label(schema), cell), "judged")
            try:
                for seed, constants in enumerate(CONSTANTS):
                    draw = SeededDraw(f"{cell} {seed}", schema, types=types)
                    check_cell(schema, drawn(schema, draw, constants), how)
            except Exception as error:
                wrong.append(f"{cell}: {type(error).__name__}: {error}")
            record.TYPES[label(schema)][how].add(cell)
    assert not wrong, "\n".join(wrong)


def test_every_line_names_a_type_of_a_schema() -> None:
    cells = {
        (label(schema), f"{c.type_param_str}={onnx_name(t)}")
        for schema in SERVED
        for c in schema.type_constraints
        for t in tensor_types(c.allowed_type_strs)
    }
    assert UNJUDGED.keys() <= cells
