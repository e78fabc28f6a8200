"""Versions no oracle runs: cases worked out by hand from the text of the specification."""

from __future__ import annotations

from typing import Any

import onnx
import pytest
import torch
from onnx import helper
from torch import Tensor

from onnxinterp import OnnxModule


def run(op: str, opset: int, inputs: list[Any], n_outputs: int = 1, **attributes: Any) -> Any:
    """One node at an old opset; inputs as nested lists of floats, or of ints for indices."""
    tensors = [None if x is None else torch.tensor(x) for x in inputs]
    names = ["" if t is None else f"x{i}" for i, t in enumerate(tensors)]
    outputs = [f"y{i}" for i in range(n_outputs)]
    node = helper.make_node(op, names, outputs, **attributes)
    infos = [
        helper.make_tensor_value_info(n, 1 if t.is_floating_point() else 7, t.shape)
        for n, t in zip(names, tensors, strict=True)
        if t is not None
    ]
    results = [helper.make_empty_tensor_value_info(name) for name in outputs]
    graph = helper.make_graph([node], "old", infos, results)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=3)
    return OnnxModule(onnx.ModelProto.FromString(model.SerializeToString()))(
        *[t for t in tensors if t is not None]
    )


def close(got: Tensor, want: Any) -> None:
    torch.testing.assert_close(got, torch.tensor(want))


def test_clip_1_has_bounds_as_attributes() -> None:
    close(run("Clip", 1, [[-3.0, 0.5, 9.0]], min=-1.0, max=2.0), [-1.0, 0.5, 2.0])
    close(run("Clip", 1, [[-3.0, 9.0]], min=-1.0), [-1.0, 9.0])
    close(run("Clip", 1, [[-3.0, 9.0]]), [-3.0, 9.0])


def test_dropout_1_and_6_in_test_mode_pass_everything() -> None:
    for opset in (1, 6):
        close(run("Dropout", opset, [[1.0, 2.0]], is_test=1, ratio=0.9), [1.0, 2.0])
        close(run("Dropout", opset, [[1.0, 2.0]], is_test=1, n_outputs=2)[0], [1.0, 2.0])


def test_gemm_1_broadcasts_c_where_it_says_so() -> None:
    A, B = [[1.0, 2.0], [3.0, 4.0]], [[1.0, 0.0], [0.0, 2.0]]
    close(run("Gemm", 1, [A, B, [[1.0, 1.0], [1.0, 1.0]]]), [[2.0, 5.0], [4.0, 9.0]])
    got = run("Gemm", 1, [A, B, [10.0, 20.0]], broadcast=1, alpha=2.0, beta=0.5, transA=1)
    close(got, [[7.0, 22.0], [9.0, 26.0]])


def test_batch_normalization_1_normalizes_with_the_given_statistics() -> None:
    x = [[[[1.0, 3.0]], [[2.0, 6.0]]]]
    parameters = [[1.0, 2.0], [0.0, 1.0], [1.0, 2.0], [4.0, 16.0]]
    attributes = {"is_test": 1, "epsilon": 0.0, "consumed_inputs": [0]}
    got = run("BatchNormalization", 1, [x, *parameters], **attributes)
    close(got, [[[[0.0, 1.0]], [[1.0, 3.0]]]])


def test_split_1_takes_its_parts_as_attribute_or_input() -> None:
    first, second = run("Split", 1, [[1.0, 2.0, 3.0]], n_outputs=2, split=[1, 2])
    close(first, [1.0])
    close(second, [2.0, 3.0])
    rows = run("Split", 1, [[[1.0, 2.0], [3.0, 4.0]]], n_outputs=2, axis=1)
    close(rows[1], [[2.0], [4.0]])


def test_global_lp_pool_1_has_a_float_p() -> None:
    close(run("GlobalLpPool", 1, [[[[3.0, 4.0]]]]), [[[5.0]]])
    close(run("GlobalLpPool", 1, [[[[3.0, -4.0]]]], p=1.0), [[[7.0]]])


def test_scatter_11_writes_updates_along_the_axis() -> None:
    got = run("Scatter", 11, [[[1.0, 2.0, 3.0]], [[2, 0]], [[8.0, 9.0]]], axis=1)
    close(got, [[9.0, 2.0, 8.0]])
    close(run("Scatter", 11, [[1.0, 2.0], [-1], [7.0]]), [1.0, 7.0])


def test_upsample_10_takes_scales_as_input() -> None:
    got = run("Upsample", 10, [[[[[1.0, 2.0]]]], [1.0, 1.0, 2.0, 2.0]])
    close(got, [[[[1.0, 1.0, 2.0, 2.0], [1.0, 1.0, 2.0, 2.0]]]])
    linear = run("Upsample", 10, [[[[[0.0, 4.0]]]], [1.0, 1.0, 1.0, 2.0]], mode="linear")
    close(linear, [[[[0.0, 2.0, 4.0, 4.0]]]])


def test_rnn_1_is_a_tanh_of_both_products() -> None:
    X, W, R = [[[1.0]], [[0.0]]], [[[0.5]]], [[[2.0]]]
    first = torch.tanh(torch.tensor(0.5))
    Y, Y_h = run("RNN", 1, [X, W, R], n_outputs=2, hidden_size=1, output_sequence=1)
    torch.testing.assert_close(Y.flatten(), torch.stack([first, torch.tanh(2 * first)]))
    torch.testing.assert_close(Y_h.flatten(), torch.tanh(2 * first)[None])


@pytest.mark.parametrize(("op", "want"), [("Add", 12.0), ("Sub", 8.0), ("Mul", 20.0), ("Div", 5.0)])
def test_arithmetic_1_aligns_its_second_input_with_an_axis(op: str, want: float) -> None:
    A = torch.full((2, 3, 4), 10.0).tolist()
    got = run(op, 1, [A, [2.0, 2.0, 2.0]], axis=1, broadcast=1)
    close(got, torch.full((2, 3, 4), want).tolist())


def test_cast_1_names_its_type() -> None:
    assert run("Cast", 1, [[1.7, -1.7]], to="INT64").tolist() == [1, -1]
    assert run("Cast", 1, [[0.0, 2.0]], to="BOOL").tolist() == [False, True]


def test_tile_1_repeats_one_axis() -> None:
    close(run("Tile", 1, [[[1.0, 2.0]], 2.0, 1.0]), [[1.0, 2.0, 1.0, 2.0]])
