"""The passes of programs: each one fires, and what it leaves computes what the loop does.

A test of a pass names the functions that the rewritten program calls.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper
from torch import Tensor

from onnxinterp import OnnxModule
from onnxinterp.programs import layouts, linears, packing
from onnxinterp.programs.calls import Program
from onnxinterp.programs.functions import name_of
from onnxinterp.programs.inference import for_inference, for_snapshot
from onnxinterp.programs.memory import reuse_memory
from onnxinterp.programs.source import compiled
from onnxinterp.snapshots.engines import torch as engine
from onnxinterp.snapshots.subject import recorded_program
from onnxinterp.values import read_weight
from tests.programs import assert_same, looped

Node = tuple[str, str, str, dict[str, Any]]
CPU = torch.device("cpu")
TOLERANCE = 2e-5


@pytest.fixture(autouse=True)
def _small_sizes(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Convolutions of the tests are small: no pass is to leave them alone for that."""
    monkeypatch.setattr(layouts, "MIN_ELEMENTS", 1)
    monkeypatch.setattr(packing._Packing, "_faster", lambda self, product: self._calls(product))
    with torch.no_grad():
        yield


def weights(**shapes: tuple[int, ...]) -> dict[str, Any]:
    """Random tensors."""
    rng = np.random.default_rng(3)
    return {n: (rng.normal(size=s) / 3).astype(np.float32) for n, s in shapes.items()}


def model(
    nodes: list[Node], shape: tuple[int, ...], outputs: str = "y", **tensors: Any
) -> onnx.ModelProto:
    """A model of nodes: operator, inputs, outputs, attributes; "_" is an input that is left out."""
    graph = helper.make_graph(
        [
            helper.make_node(op, [i.strip("_") for i in inputs.split()], results.split(), **more)
            for op, inputs, results, more in nodes
        ],
        "g",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, shape)],
        [
            helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)
            for name in outputs.split()
        ],
        [numpy_helper.from_array(np.asarray(a), n) for n, a in tensors.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def inputs_like(shape: tuple[int, ...]) -> list[Tensor]:
    """Numbers in several layouts: the program knows only that of the first."""
    x = torch.randn(shape)
    found = [x, x.clone(), torch.randn(1, *shape[1:]).expand(shape)]
    found.append(torch.randn(shape[::-1]).permute(*range(len(shape) - 1, -1, -1)))
    return [*found, x.contiguous(memory_format=torch.channels_last)] if x.ndim == 4 else found


class Case:
    """A model, its program as recorded and what the loop computes."""

    def __init__(self, nodes: list[Node], shape: tuple[int, ...], **tensors: Any) -> None:
        source = model(nodes, shape, **tensors)
        self.inputs = inputs_like(shape)
        loop, module = looped(source), OnnxModule(source)
        self.wanted = [loop(x.clone()) for x in self.inputs]
        self.recorded = recorded_program(module, (self.inputs[0],))
        self.weights = {
            value: read_weight(holder or module, name).detach()
            for value, (_, holder, name) in self.recorded.weights
        }

    def inference(self) -> list[str]:
        """The functions of the program of a call, which computes the same."""
        program = for_inference(self.recorded, CPU)
        given = [self.weights[value] for value, _ in program.weights]
        self._check(program, given)
        return called(program)

    def snapshot(self) -> list[str]:
        """The functions of that of a snapshot."""
        program = for_snapshot(self.recorded, self.weights)
        self._check(program, ())
        self._check(reuse_memory(program), ())
        return called(program)

    def packed(self) -> list[str]:
        """Those of one over packed weights."""
        program = packing.pack(for_snapshot(self.recorded, self.weights))
        self._check(reuse_memory(program), ())
        return called(program)

    def _check(self, program: Program, given: Any) -> None:
        function, _ = compiled(program)
        for x, wanted in zip(self.inputs, self.wanted, strict=True):
            copied = x.clone(memory_format=torch.preserve_format)
            assert_same(function(copied, given), wanted, tolerance=TOLERANCE)
            assert torch.equal(copied, x)


def called(program: Program) -> list[str]:
    """The names of the functions that a program calls."""
    return [name_of(call.function) for call in program.calls]


# ---- recurrent layers


def recurrent(op: str, n_gates: int, steps: int, direction: str, **more: Any) -> Case:
    """A layer of 3 units over 4 features, with a bias and an initial state of zeros."""
    n = 2 if direction == "bidirectional" else 1
    results = "y y_h y_c" if op == "LSTM" else "y y_h"
    node = (op, "x w r b", results, {"hidden_size": 3, "direction": direction, **more})
    shapes = weights(w=(n, n_gates * 3, 4), r=(n, n_gates * 3, 3), b=(n, 2 * n_gates * 3))
    return Case([node], (steps, 2, 4), outputs=results, **shapes)


LAYERS = {
    "LSTM": (4, "lstm", "lstm_cell", {}),
    "GRU": (3, "gru", "gru_cell", {"linear_before_reset": 1}),
    "RNN": (1, "rnn_tanh", "rnn_tanh_cell", {}),
}


@pytest.mark.parametrize("op", LAYERS)
@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
def test_a_recurrent_layer_of_one_step_is_a_cell(op: str, direction: str) -> None:
    n_gates, layer, cell, more = LAYERS[op]
    case = recurrent(op, n_gates, 1, direction, **more)
    n_cells = 2 if direction == "bidirectional" else 1
    for functions in (case.inference(), case.snapshot()):
        assert (functions.count(cell), functions.count(layer)) == (n_cells, 0)


@pytest.mark.parametrize("op", LAYERS)
def test_one_of_several_steps_stays_a_layer(op: str) -> None:
    n_gates, layer, cell, more = LAYERS[op]
    case = recurrent(op, n_gates, 3, "forward", **more)
    for functions in (case.inference(), case.snapshot()):
        assert (functions.count(cell), functions.count(layer)) == (0, 1)


def test_a_traced_graph_does_not_write_to_a_constant_state() -> None:
    """TorchScript adds to products of the state in place: each call would go on from the last."""
    case = recurrent("GRU", 3, 1, "forward", linear_before_reset=1)
    program = for_snapshot(case.recorded, case.weights)
    x = case.inputs[0]
    forms = dict(engine._forms(program, (x,)))
    assert "plain" in forms
    for _ in range(6):
        for form in forms.values():
            assert_same(tuple(form(x.clone())), case.wanted[0], tolerance=TOLERANCE)


# ---- pieces

GATES: list[Node] = [
    ("Split", "r", "g0 g1 g2", {"axis": 0}),
    ("Concat", "g1 g0 g2", "moved", {"axis": 0}),
    ("Split", "moved", "h1 h0 h2", {"axis": 0}),
    ("Concat", "h0 h1 h2", "back", {"axis": 0}),
]


def test_rows_that_are_put_back_in_order_are_not_copied() -> None:
    nodes: list[Node] = [("Relu", "x", "r", {}), *GATES, ("Neg", "back", "y", {})]
    functions = Case(nodes, (6, 4)).inference()
    assert functions == ["relu", "neg_"]


def test_rows_in_another_order_are_copied() -> None:
    nodes: list[Node] = [("Relu", "x", "r", {}), *GATES[:2], ("Neg", "moved", "y", {})]
    functions = Case(nodes, (6, 4)).inference()
    assert functions.count("cat") == 1


def test_pieces_that_are_results_belong_to_the_caller() -> None:
    nodes: list[Node] = [("Relu", "x", "r", {}), *GATES, ("Neg", "r", "y", {})]
    case = Case(nodes, (6, 4), outputs="y back r")
    case.inference()
    case.snapshot()


# ---- convolutions

CONV = {"pads": [1, 1, 1, 1]}
NORMALIZED: list[Node] = [
    ("Conv", "x w", "c", CONV),
    ("BatchNormalization", "c s b mean var", "n", {"epsilon": 1e-3}),
]


def statistics(channels: int) -> dict[str, Any]:
    found = weights(s=(channels,), b=(channels,), mean=(channels,))
    return {**found, "var": np.linspace(0.5, 2, channels, dtype=np.float32)}


def test_normalization_is_folded_into_the_convolution_of_a_snapshot() -> None:
    nodes: list[Node] = [*NORMALIZED, ("Relu", "n", "y", {})]
    case = Case(nodes, (2, 3, 8, 8), **weights(w=(4, 3, 3, 3)), **statistics(4))
    assert "batch_norm" not in case.snapshot()
    assert "batch_norm" in case.inference()  # which reads the weights in each call


def test_normalization_of_a_convolution_with_other_readers_stays() -> None:
    nodes: list[Node] = [*NORMALIZED, ("Add", "n c", "y", {})]
    case = Case(nodes, (2, 3, 8, 8), **weights(w=(4, 3, 3, 3)), **statistics(4))
    assert "batch_norm" in case.snapshot()


@pytest.mark.parametrize("order", ["x g", "g x"])
def test_a_gate_of_its_own_argument_is_one_function(order: str) -> None:
    nodes: list[Node] = [("Sigmoid", "x", "g", {}), ("Mul", order, "y", {})]
    case = Case(nodes, (2, 5))
    assert case.inference() == case.snapshot() == ["silu"]
    kept = Case(nodes, (2, 5), outputs="y g")
    assert "silu" not in [*kept.inference(), *kept.snapshot()]


def test_a_gate_of_another_value_stays() -> None:
    nodes: list[Node] = [
        ("Neg", "x", "n", {}),
        ("Sigmoid", "n", "g", {}),
        ("Mul", "x g", "y", {}),
    ]
    assert "silu" not in Case(nodes, (2, 5)).inference()


def test_hardswish_is_one_function() -> None:
    case = Case([("HardSwish", "x", "y", {})], (2, 5))
    assert case.inference() == case.snapshot() == ["hardswish"]


def test_large_pointwise_convolutions_are_linear(monkeypatch: pytest.MonkeyPatch) -> None:
    if not packing.is_available():
        pytest.skip("torch has no oneDNN here")
    monkeypatch.setattr(linears, "MIN_PRODUCTS", 1)
    monkeypatch.setattr(linears, "_is_faster", lambda: True)
    nodes: list[Node] = [("Conv", "x w b", "c", {"strides": [2, 1]}), ("Relu", "c", "y", {})]
    functions = Case(nodes, (2, 3, 9, 8), **weights(w=(4, 3, 1, 1), b=(4,))).inference()
    assert "_linear_pointwise" in functions
    assert "conv2d" not in functions
    nodes[0] = ("Conv", "x w b", "c", {"group": 3})
    functions = Case(nodes, (2, 3, 9, 8), **weights(w=(6, 1, 1, 1), b=(6,))).inference()
    assert "conv2d" in functions


def test_a_chain_of_convolutions_changes_the_layout_at_its_ends() -> None:
    nodes: list[Node] = [
        ("Conv", "x w", "c", CONV),
        ("Relu", "c", "r", {}),
        ("MaxPool", "r", "p", {"kernel_shape": [2, 2]}),
        ("Conv", "p v", "y", CONV),
    ]
    functions = Case(nodes, (1, 3, 8, 8), **weights(w=(4, 3, 3, 3), v=(4, 4, 3, 3))).inference()
    assert functions[0] == functions[-1] == "contiguous"
    assert functions.count("contiguous") == 2


def test_permutations_that_follow_each_other_are_one() -> None:
    nodes: list[Node] = [
        ("Transpose", "x", "a", {"perm": [1, 2, 0]}),
        ("Transpose", "a", "b", {"perm": [1, 0, 2]}),
        ("Relu", "b", "y", {}),
    ]
    functions = Case(nodes, (2, 3, 4)).inference()
    assert len(functions) == 2


# ---- packed weights

ADDED: dict[str, tuple[list[Node], bool]] = {
    "what it reads itself": (
        [("Relu", "x", "r", {}), ("Conv", "r w", "c", CONV), ("Add", "c r", "y", {})],
        False,
    ),
    "what a convolution before it reads, which now runs after it": (
        [
            ("Relu", "x", "r", {}),
            ("Neg", "x", "t", {}),
            ("Conv", "r w", "a", CONV),
            ("Conv", "t v", "b", CONV),
            ("Add", "b r", "c", {}),
            ("Add", "a c", "d", {}),
            ("Mul", "d d", "y", {}),
        ],
        True,
    ),
    "an expanded tensor": (
        [
            ("GlobalAveragePool", "x", "p", {}),
            ("Expand", "p sizes", "e", {}),
            ("Conv", "x w", "c", CONV),
            ("Add", "c e", "d", {}),
            ("Relu", "d", "y", {}),
        ],
        False,
    ),
    "an input": ([("Conv", "x w", "c", CONV), ("Add", "x c", "y", {})], False),
    "what nothing else reads": (
        [
            ("Neg", "x", "t", {}),
            ("Sigmoid", "x", "s", {}),
            ("Conv", "s w", "c", CONV),
            ("Add", "c t", "d", {}),
            ("Relu", "d", "y", {}),
        ],
        True,
    ),
}


@pytest.mark.parametrize("other", ADDED)
def test_a_packed_convolution_adds_in_place_where_nothing_else_reads(other: str) -> None:
    if not packing.is_available():
        pytest.skip("torch has no oneDNN here")
    nodes, in_place = ADDED[other]
    used = {name for _, inputs, _, _ in nodes for name in inputs.split()}
    tensors = {**weights(w=(4, 4, 3, 3), v=(4, 4, 3, 3)), "sizes": np.array([2, 4, 6, 6])}
    case = Case(nodes, (2, 4, 6, 6), **{n: t for n, t in tensors.items() if n in used})
    functions = case.packed()
    assert "conv2d" not in functions
    assert ("_convolution_pointwise_" in functions) is in_place


ACTIVATIONS: dict[str, dict[str, Any]] = {
    "Relu": {},
    "Sigmoid": {},
    "Tanh": {},
    "HardSwish": {},
    "LeakyRelu": {"alpha": 0.2},
}


@pytest.mark.parametrize("op", ACTIVATIONS)
@pytest.mark.parametrize("product", ["Conv", "Gemm"])
def test_an_activation_is_part_of_the_product_before_it(op: str, product: str) -> None:
    if not packing.is_available():
        pytest.skip("torch has no oneDNN here")
    shape, shapes = ((2, 3, 6, 6), (4, 3, 1, 1)) if product == "Conv" else ((5, 3), (3, 4))
    nodes: list[Node] = [(product, "x w", "c", {}), (op, "c", "y", ACTIVATIONS[op])]
    functions = Case(nodes, shape, **weights(w=shapes)).packed()
    wanted = "_convolution_pointwise" if product == "Conv" else "_linear_pointwise"
    assert [f for f in functions if f not in ("contiguous", "t", "transpose")] == [wanted]


# ---- forms

CHAIN: list[Node] = [
    ("Split", "x rows", "u l", {"axis": 2}),
    ("Conv", "l w", "a", {"group": 2, "strides": [2, 1]}),
    ("Conv", "a v b", "c", {"group": 4, "pads": [2, 2, 2, 2]}),
    ("Add", "c a", "y", {}),
]


@pytest.mark.parametrize("example", range(5))
def test_every_form_takes_inputs_of_any_strides(example: int) -> None:
    """A graph that oneDNN compiled reads memory as that of the tensors it was compiled with."""
    tensors = weights(w=(4, 2, 1, 1), v=(4, 1, 5, 5), b=(4,))
    case = Case(CHAIN, (1, 4, 16, 32), rows=np.array([4, 12]), **tensors)
    program = for_snapshot(case.recorded, case.weights)
    forms = dict(engine._forms(program, (case.inputs[example],)))
    assert "plain" in forms
    for form in forms.values():
        for x, wanted in zip(case.inputs, case.wanted, strict=True):
            assert_same(tuple(form(x)), wanted, tolerance=TOLERANCE)
            negative = torch._neg_view(-x)
            assert_same(tuple(form(negative)), wanted, tolerance=TOLERANCE)
            batch_of_one = x.contiguous().as_strided(x.shape, (7, *x.contiguous().stride()[1:]))
            assert_same(tuple(form(batch_of_one)), wanted, tolerance=TOLERANCE)


def test_a_convolution_over_an_axis_of_one_is_not_packed() -> None:
    """Such an axis may have any stride in the next call, for which oneDNN crashes."""
    nodes: list[Node] = [
        ("Transpose", "x", "t", {"perm": [2, 1, 3, 0]}),
        ("Conv", "t w", "y", CONV),
    ]
    case = Case(nodes, (1, 4, 16, 32), **weights(w=(4, 4, 3, 3)))
    assert "_convolution_pointwise" not in case.packed()


def test_measuring_draws_no_numbers_of_the_caller() -> None:
    """`torch.manual_seed` gives the same numbers on each machine, whatever was measured."""
    packing.is_available.cache_clear()
    linears._is_faster.cache_clear()
    before = torch.get_rng_state()
    linears._is_faster()
    assert torch.equal(torch.get_rng_state(), before)
