"""onnxruntime's times belong to the nodes of the file, also where these have no or equal names."""

from __future__ import annotations

import sys

import onnx
import pytest
import torch

from onnxinterp import InputError, OnnxModule
from onnxinterp.extras import MissingExtraError
from onnxinterp.verify import time_nodes
from onnxinterp.verify.node_times import _own_times


def model(text: str) -> onnx.ModelProto:
    return onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["": 17]> g {text}')


SAME_NAMES = """(float[64, 64] x) => (float[64, 64] y) {
    [same] a = MatMul(x, x)
    [same] b = Relu(a)
    y = MatMul(b, a)
}"""
BRANCHES = """(float[8, 8] x, bool c) => (float[8, 8] y) {
    y = If(c) < then_branch = yes () => (float[8, 8] p) { p = MatMul(x, x) },
                else_branch = no () => (float[8, 8] q) { q = Relu(x) } >
}"""


def test_times_are_by_first_output() -> None:
    source = model(SAME_NAMES)
    before = source.SerializeToString(deterministic=True)
    found = time_nodes(source, {"x": torch.ones(64, 64)}, runs=3)
    assert found.nodes.keys() == {"a", "b", "y"}
    assert min(found.seconds, found.optimized) > 0
    assert source.SerializeToString(deterministic=True) == before


@pytest.mark.parametrize(("condition", "ran"), [(True, "p"), (False, "q")])
def test_nodes_of_the_branch_that_runs_have_times(condition: bool, ran: str) -> None:
    inputs = {"x": torch.ones(8, 8), "c": torch.tensor(condition)}
    assert time_nodes(model(BRANCHES), inputs, runs=2).nodes.keys() == {"y", ran}


def test_values_of_equal_names_in_two_bodies_are_left_out() -> None:
    source = model(BRANCHES.replace("q", "p"))
    inputs = {"x": torch.ones(8, 8), "c": torch.tensor(True)}
    assert time_nodes(source, inputs, runs=2).nodes.keys() == {"y"}


def test_types_that_numpy_lacks_are_timed() -> None:
    source = model("(bfloat16[4] x) => (bfloat16[4] y) { y = Identity(x) }")
    found = time_nodes(source, {"x": torch.ones(4).bfloat16()}, runs=1)
    assert "y" in found.nodes


def test_a_node_has_the_minimum_of_its_own_times() -> None:
    def run(start: int, outer: int, inner: int) -> list[dict[str, object]]:
        return [
            {"cat": "Session", "name": "model_run", "ts": start, "dur": 100},
            {"cat": "Node", "name": "0_kernel_time", "ts": start + 1, "dur": outer},
            {"cat": "Node", "name": "0/0.0_kernel_time", "ts": start + 2, "dur": inner},
            {"cat": "Node", "name": "0/0.0_kernel_time", "ts": start + 50, "dur": inner},
        ]

    events = [*run(0, 99, 1), *run(200, 50, 20), *run(400, 60, 10)]  # the first one warms up
    assert _own_times(events, 2) == pytest.approx({"0": 10e-6, "0/0.0": 20e-6})


def test_a_profile_shows_both() -> None:
    source, x = model(SAME_NAMES), torch.ones(64, 64)
    found = OnnxModule(source).profile(x).beside(time_nodes(source, {"x": x}))
    assert all(step.reference is not None for step in found.steps)
    assert "onnxruntime: " in str(found)


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="runs must be at least 1, got 0"):
        time_nodes(model(SAME_NAMES), {"x": torch.ones(64, 64)}, runs=0)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingExtraError, match=r"onnxruntime: pip install onnxinterp\[verify\]"):
        time_nodes(model(SAME_NAMES), {"x": torch.ones(64, 64)})
