"""A weight is written in the type and the form that it has in the file, whatever the module has."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from onnxinterp import OnnxModule, SaveError
from tests.saving.models import (
    HEADER,
    LARGE,
    changed,
    mean_square_error,
    parse,
    raw,
    run,
    saved,
    sum_of,
    tune,
)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("count", [3, LARGE])
def test_a_module_of_another_type_writes_the_types_of_the_file(
    count: int, dtype: torch.dtype, tmp_path: Path
) -> None:
    model = sum_of(raw("w", count))
    module = OnnxModule(model).to(dtype)
    tune(module)
    saved(module, tmp_path / "m.onnx")
    got = onnx.load(tmp_path / "m.onnx").graph.initializer[0]
    assert got.data_type == TensorProto.FLOAT
    want = module.weights["w"].detach().float()
    assert torch.equal(torch.tensor(numpy_helper.to_array(got)), want)


@pytest.mark.parametrize("count", [3, LARGE])
@pytest.mark.parametrize("elem_type", [TensorProto.FLOAT16, TensorProto.BFLOAT16])
def test_half_weights_are_encoded_again(elem_type: int, count: int, tmp_path: Path) -> None:
    tensor = helper.make_tensor("w", elem_type, [count], [0.5] * count)
    model = sum_of(tensor)
    module = OnnxModule(model).float()
    assert saved(module, tmp_path / "m.onnx") == model.SerializeToString()
    with torch.no_grad():
        module.weights["w"].copy_(torch.arange(count) / 3 - 1)
    saved(module, tmp_path / "m.onnx")
    got = numpy_helper.to_array(onnx.load(tmp_path / "m.onnx").graph.initializer[0])
    own = torch.float16 if elem_type == TensorProto.FLOAT16 else torch.bfloat16
    want = module.weights["w"].detach().to(own).double()
    assert got.astype(np.float64).tolist() == want.tolist()
    module.double()
    with torch.no_grad():
        module.weights["w"][1] = 1e39
    with pytest.raises(SaveError, match=r"'w' has 1e\+39, too large for"):
        module.save_onnx(tmp_path / "m.onnx")


def test_a_scalar_constant_of_an_operators_meaning_may_be_rounded(tmp_path: Path) -> None:
    """Such a constant, part of the schema's function body, is in no file; .half() rounds it."""
    model = parse(f"{HEADER} g (float[2,3] x) => (float[2,3] y) {{ y = Softplus(x) }}")
    model.graph.node[0].CopyFrom(helper.make_node("Celu", ["x"], ["y"], alpha=0.3))
    for module in (OnnxModule(model), OnnxModule(model).bfloat16()):
        assert saved(module, tmp_path / "m.onnx") == model.SerializeToString()


def sparse(indices: TensorProto, raw_data: bool = True) -> onnx.ModelProto:
    model = parse(f"{HEADER} g (float[2,3] x) => (float[2,3] y) {{ y = Add(x, w) }}")
    values = numpy_helper.from_array(np.array([5, 7], np.float32), "w")
    if not raw_data:
        values = helper.make_tensor("w", TensorProto.FLOAT, [2], [5.0, 7.0])
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [2, 3]))
    return model


LINEAR = helper.make_tensor("i", TensorProto.INT64, [2], [1, 5])
ROWS = numpy_helper.from_array(np.array([[0, 1], [1, 2]], np.int64), "i")


@pytest.mark.parametrize("raw_data", [True, False])
@pytest.mark.parametrize("indices", [LINEAR, ROWS], ids=["linear", "rows"])
def test_sparse_weights(indices: TensorProto, raw_data: bool, tmp_path: Path) -> None:
    model, path = sparse(indices, raw_data), tmp_path / "m.onnx"
    module = OnnxModule(model)
    assert saved(module, path) == model.SerializeToString()
    with torch.no_grad():
        module.weights["w"].mul_(2)
    saved(module, path)
    values = "/graph/sparse_initializer/values:w"
    assert changed(model, path) == [values], "the pattern is the same: only values change"
    with torch.no_grad():
        module.weights["w"][1, 0] = 9
        module.weights["w"][0, 1] = 0
    got = saved(module, path)
    assert set(changed(model, path)) == {values, "/graph/sparse_initializer/indices:i"}
    assert list(onnx.load(path).graph.sparse_initializer[0].values.dims) == [2]
    with torch.no_grad():
        module.weights["w"].copy_(torch.arange(6).reshape(2, 3) + 1)
    saved(module, path)
    onnx.checker.check_model(path)
    again = OnnxModule(path)
    assert torch.equal(again.weights["w"], module.weights["w"])
    assert saved(again, path) == path.read_bytes() != got
    x = torch.randn(2, 3)
    assert mean_square_error(module(x), run(path, x)) < 1e-10


def test_integers_beyond_a_narrow_type_are_refused(tmp_path: Path) -> None:
    tensor = helper.make_tensor("w", TensorProto.INT4, [3], [1, 2, 3])
    graph = helper.make_graph(
        [helper.make_node("Identity", ["w"], ["y"])],
        "g",
        [],
        [helper.make_tensor_value_info("y", TensorProto.INT4, [3])],
        [tensor],
    )
    module = OnnxModule(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 25)]))
    module.weights["w"][1] = 100
    with pytest.raises(SaveError, match="'w' has numbers beyond the range of int4"):
        module.save_onnx(tmp_path / "m.onnx")
