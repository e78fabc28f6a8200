"""Scan outputs of loops without a trip: onnxruntime returns the shape that inference finds.

The shape is 0 and then the shape of the body's output. Declared sizes count first, then inferred
ones; an unknown size is 0, and of an unknown rank nothing is left: (0,).

Expected before the first run of onnxruntime: (0, 2, 3) for what has a static shape; 0 for sizes
that only a call has. Not expected: inference drops the shape of a loop's state unless the body
declares it, even where it never changes.

Not matched, see `test_where_onnxruntime_infers_otherwise`:

    body's output                          onnxruntime   here
    Reshape(state of unknown rank, 3, 2)   (0, 3, 2)     (0,)         fits no other size
    NonZero(x)                             (0, 2, 0)     (0,)         has no meta kernel in torch
    Expand(i, Shape(x of [n, 3]))          (0, 0, 0)     (0, 0, 3)    one size is known
    an inner loop's state                  (0,)          (0, 2, 3)    nothing changes it
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from onnxinterp import Limits, OnnxModule
from tests import models

FEEDS = {
    "trips": np.array(0),
    "x": np.ones((2, 3), np.float32),
    "d": np.ones((4, 3), np.float32),
    "empty": np.ones((0, 2, 3), np.float32),
}
CONSTANTS = """
  yes = Constant<value = bool {1}>()
  w = Constant<value = float[3,2] {1.0, 2.0, 3.0, 4.0, 5.0, 6.0}>()
  axis = Constant<value = int64[1] {0}>()
"""
LOOP = """g (int64 trips, float[2,3] x, float[n,3] d) => (rows) {{ {constants} {before}
  y, rows = Loop (trips, yes, x) <body = body (int64 i, bool go, {state})
    => (bool more, next, {row}) {{ more = Identity (go)  next = Identity (v)  {rule} }}>
}}"""
SCAN = """g (float[2,3] x, float[n,3] d, float[m,2,3] empty) => (rows) {{ {constants}
  y, rows = Scan (x, empty) <num_scan_inputs = 1, scan_output_axes = [{axis}],
    body = body (float[2,3] v, float[2,3] u) => (next, row) {{ next = Identity (v)  {rule} }}>
}}"""


def loop(
    rule: str, state: str = "v", row: str = "row", before: str = "", constants: str = CONSTANTS
) -> onnx.ModelProto:
    text = LOOP.format(rule=rule, state=state, row=row, before=before, constants=constants)
    return models.parse(text)


def feeds_of(model: onnx.ModelProto) -> list[np.ndarray[Any, Any]]:
    return [FEEDS[i.name] for i in model.graph.input]


def expected(model: onnx.ModelProto) -> tuple[tuple[int, ...], Any]:
    """Shape and dtype that onnxruntime returns without optimisation."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    names = [i.name for i in model.graph.input]
    rows = session.run(None, dict(zip(names, feeds_of(model), strict=True)))[0]
    return rows.shape, rows.dtype


def result(model: onnx.ModelProto, **options: Any) -> tuple[tuple[int, ...], Any]:
    module = OnnxModule(model, **options)
    inputs = [torch.from_numpy(x) for x in feeds_of(model)]
    rows = module(*inputs)
    for _ in range(3):  # also in the plan for these sizes
        assert module(*inputs).shape == rows.shape
    return tuple(rows.shape), rows.dtype if isinstance(rows, np.ndarray) else rows.numpy().dtype


LOOPS: dict[str, tuple[tuple[int, ...], onnx.ModelProto]] = {
    "a constant": ((0, 2), loop("row = Constant<value = float[2] {1.0, 2.0}>()")),
    "strings": ((0, 2), loop('row = Constant<value_strings = ["a", "b"]>()')),
    "an outer constant": ((0, 3, 2), loop("row = Relu (w)")),
    "an outer input": ((0, 2, 3), loop("row = Relu (x)")),
    "an outer input of unknown size": ((0, 0, 3), loop("row = Relu (d)")),
    "a product": ((0, 2, 2), loop("row = MatMul (x, w)")),
    "a product of unknown size": ((0, 0, 2), loop("row = MatMul (d, w)")),
    "an outer value": ((0, 2, 2), loop("row = Relu (q)", before="q = MatMul (x, w)")),
    "an outer value of unknown size": ((0, 0, 3), loop("row = Neg (q)", before="q = Relu (d)")),
    "sizes that broadcast": ((0, 2, 3), loop("row = Add (x, d)")),
    "sizes that add up": ((0, 0, 3), loop("row = Concat<axis = 0>(d, x)")),
    "a slice": ((0, 3), loop("row = Gather (x, i)")),
    "a weight of the body": (
        (0, 2),
        models.parse(
            LOOP.format(
                constants=CONSTANTS, before="", state="v", rule="row = Relu (k)", row="row"
            ).replace("row) {", "row) <float[2] k = {1.0, 2.0}> {")
        ),
    ),
    "the index": ((0,), loop("row = Identity (i)")),
    "the index as a list": ((0, 1), loop("row = Unsqueeze (i, axis)")),
    "the condition": ((0,), loop("row = Identity (go)")),
    "sizes of a shape": ((0, 2, 3), loop("s = Shape (x)  row = Expand (i, s)")),
    "a shape": ((0, 2), loop("row = Shape (d)")),
    "the state": ((0,), loop("row = Identity (v)")),
    "the state with a type": ((0,), loop("row = Relu (v)", state="float v")),
    "the state with a shape": ((0, 2, 3), loop("row = Relu (v)", state="float[2,3] v")),
    "the state with a rank": ((0, 0, 3), loop("row = Relu (v)", state="float[a,3] v")),
    "the state and more": ((0,), loop("row = Add (v, x)")),
    "a product with the state": ((0,), loop("row = MatMul (v, w)")),
    "a slice of the state": ((0,), loop("row = Gather (v, i)")),
    "the shape of the state": ((0, 0), loop("row = Shape (v)")),
    "sizes of the state": ((0,), loop("s = Shape (v)  row = Expand (i, s)")),
    "the state reshaped": (
        (0, 0, 2),
        loop("s = Constant<value = int64[2] {-1, 2}>()  row = Reshape (v, s)"),
    ),
    "a declared size": ((0, 7, 3), loop("row = Relu (d)", row="float[7,b] row")),
    "declared symbols": ((0, 2, 3), loop("row = Relu (x)", row="float[a,b] row")),
    "two branches": (
        (0, 2, 0),
        loop(
            """row = If (go) <then_branch = a () => (r) { r = Relu (x) },
            else_branch = b () => (s) { s = MatMul (x, w) }>"""
        ),
    ),
    "a loop": (
        (0, 0, 2, 3),
        loop(
            """q, row = Loop (trips, go, v) <body = inner (int64 j, bool on, u)
            => (bool still, t, r) { still = Identity (on)  t = Identity (u)  r = Relu (x) }>"""
        ),
    ),
}


@pytest.mark.parametrize(("shape", "model"), LOOPS.values(), ids=LOOPS)
def test_a_loop_without_a_trip_has_the_inferred_shape(
    shape: tuple[int, ...], model: onnx.ModelProto
) -> None:
    want = expected(model)
    assert want[0] == shape
    assert result(model) == want


SCANS = {
    "the state": "row = Tanh (v)",
    "an element": "row = Relu (u)",
    "a product": "row = MatMul (u, w)",
    "an outer input": "row = Relu (d)",
    "a constant": "row = Identity (w)",
}


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("rule", SCANS.values(), ids=SCANS)
def test_a_scan_of_nothing_has_the_inferred_shape(rule: str, axis: int) -> None:
    """Onnxruntime fails on an empty input: the judge is the inference of onnx."""
    model = models.parse(SCAN.format(constants=CONSTANTS, rule=rule, axis=axis))
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
    (rows,) = inferred.graph.output
    want = [d.dim_value for d in rows.type.tensor_type.shape.dim]  # 0 where it is unknown
    assert len(want) == 3
    assert list(result(model)[0]) == want


@pytest.mark.parametrize(
    ("rule", "theirs", "ours"),
    [
        (
            "s = Constant<value = int64[2] {3, 2}>()  row = Reshape (v, s)",
            (0, 3, 2),
            (0,),
        ),
        ("row = NonZero (x)", (0, 2, 0), (0,)),
        ("s = Shape (d)  row = Expand (i, s)", (0, 0, 0), (0, 0, 3)),
        (
            """row = Loop (trips, go, x) <body = inner (int64 j, bool on, u)
            => (bool still, t) { still = Identity (on)  t = Identity (u) }>""",
            (0,),
            (0, 2, 3),
        ),
    ],
)
def test_where_onnxruntime_infers_otherwise(
    rule: str, theirs: tuple[int, ...], ours: tuple[int, ...]
) -> None:
    model = loop(rule)
    assert expected(model)[0] == theirs
    assert result(model)[0] == ours


def test_an_untrusted_model_has_the_same_shape_within_its_limits() -> None:
    shape, model = LOOPS["a product of unknown size"]
    assert result(model, limits=Limits.untrusted())[0] == shape


ZERO = CONSTANTS + "trips = Constant<value = int64 {0}>()"


def test_an_empty_loop_is_captured() -> None:
    text = LOOP.format(
        constants=ZERO, before="", state="v", row="row", rule="row = MatMul (d, w)"
    ).replace("int64 trips, ", "")
    inputs = (torch.ones(2, 3), torch.ones(4, 3))
    for strict in (False, True):
        program = torch.export.export(OnnxModule(models.parse(text)), inputs, strict=strict)
        assert program.module()(*inputs).shape == (0, 0, 2)
    compiled = torch.compile(OnnxModule(models.parse(text)), fullgraph=True, backend="aot_eager")
    assert compiled(*inputs).shape == (0, 0, 2)


def test_inference_draws_no_random_numbers() -> None:
    model = loop(
        "row = Relu (q)",
        row="float[a,b] row",
        before="q = RandomNormalLike<dtype = 1>(d)",
    )
    module = OnnxModule(model)
    inputs = [torch.from_numpy(x) for x in feeds_of(model)]
    module(*inputs)  # infers
    torch.manual_seed(0)
    module(*inputs)
    want = torch.get_rng_state()
    fresh = OnnxModule(model)
    torch.manual_seed(0)
    fresh(*inputs)
    assert torch.equal(torch.get_rng_state(), want)


def test_nested_loops_take_no_time() -> None:
    """3**20 trips in a loop without a trip: inference stops after some of them."""
    rule = "row = Identity (x)"
    for i in range(20):
        names = f"int64 i{i}, bool go{i}, v{i}) => (bool more{i}, row{i}"
        inner = rule.replace("row =", f"row{i} =")
        rule = f"row = Loop (three, yes, x) <body = b{i} ({names}) {{"
        rule += f" more{i} = Identity (yes) {inner} }}>"
    model = loop(rule, constants=CONSTANTS + "three = Constant<value = int64 {3}>()")
    assert result(model) == expected(model)
