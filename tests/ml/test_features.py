"""Numeric feature pipelines: captured whole, moved, differentiated; and values written out."""

from __future__ import annotations

import copy
import math

import onnx
import pytest
import torch

from onnxinterp import NodeError, OnnxModule
from onnxinterp.verify import verify
from tests.ml.one_operator import FLOAT, INT64, answer, tensor_type

PIPELINE = """<ir_version: 8, opset_import: ["": 17, "ai.onnx.ml": 3]>
g (float[n,3] x) => (float[n,2] y, float[n,3] steps, float[n,2] codes, float[n,2,3] hot)
<float[5,2] w = {1, -1, 0.5, 2, -3, 0.25, 1, 1, 2, 2}, int64[2] taken = {2, 0}> {
  whole = ai.onnx.ml.Imputer<imputed_value_floats = [1.0, 2.0, 3.0], replaced_value_float = -1.0>(x)
  scaled = ai.onnx.ml.Scaler<offset = [1.0, 2.0, 3.0], scale = [0.5, 1.0, 2.0]>(whole)
  unit = ai.onnx.ml.Normalizer<norm = "L2">(scaled)
  some = ai.onnx.ml.ArrayFeatureExtractor(whole, taken)
  steps = ai.onnx.ml.Binarizer<threshold = 0.5>(x)
  both = ai.onnx.ml.FeatureVectorizer<inputdimensions = [3, 2]>(unit, some)
  y = MatMul(both, w)
  codes = ai.onnx.ml.LabelEncoder<keys_floats = [3.0, 1.0], values_floats = [0.5, 0.25]>(some)
  hot = ai.onnx.ml.OneHotEncoder<cats_int64s = [1, 3, 2]>(some)
}"""


def pipeline() -> OnnxModule:
    return OnnxModule(onnx.parser.parse_model(PIPELINE))


def rows() -> torch.Tensor:
    return torch.tensor([[1.0, -1.0, 3.0], [0.25, 0.75, -1.0], [-1.0, 2.0, 9.0]])


def test_the_pipeline_agrees_with_onnxruntime() -> None:
    assert verify(onnx.parser.parse_model(PIPELINE), [rows()]).ok


def test_it_is_compiled_as_one_graph() -> None:
    module = pipeline()
    compiled = torch.compile(module, fullgraph=True, dynamic=True, backend="eager")
    torch.testing.assert_close(compiled(rows()), module(rows()))
    torch.testing.assert_close(compiled(rows()[:2]), module(rows()[:2]))


def test_it_is_exported_with_a_dynamic_batch() -> None:
    module = pipeline()
    exported = torch.export.export(
        module, (rows(),), dynamic_shapes={"x": {0: torch.export.Dim("n")}}
    )
    torch.testing.assert_close(exported.module()(rows()[:2]), module(rows()[:2]))
    torch.testing.assert_close(module(rows()), pipeline()(rows()))  # nothing of the trace stays


def test_gradients_reach_the_input_around_what_is_imputed() -> None:
    x = rows().requires_grad_()
    pipeline()(x)[0].sum().backward()
    assert x.grad is not None
    assert (x.grad[x == -1] == 0).all()
    assert x.grad.isfinite().all()


def test_it_moves_to_other_types() -> None:
    want = pipeline()(rows())
    for dtype in (torch.float64, torch.bfloat16):
        y, steps, codes, hot = pipeline().to(dtype)(rows().to(dtype))
        assert y.dtype is dtype
        torch.testing.assert_close(y.float(), want[0], rtol=0.05, atol=0.1)
        assert torch.equal(steps.float(), want[1])
        assert torch.equal(codes.float(), want[2])
        assert torch.equal(hot.float(), want[3])


def test_it_is_copied_and_pickled_without_its_plan() -> None:
    module = copy.deepcopy(pipeline())
    torch.testing.assert_close(module(rows()), pipeline()(rows()))


def test_a_row_of_zeros_stays_and_has_a_gradient() -> None:
    for norm in ("MAX", "L1", "L2"):
        given = tensor_type(FLOAT, (2, 2))
        assert answer("Normalizer", 1, given, torch.zeros(2, 2), norm=norm) == [[0, 0], [0, 0]]


def test_one_number_for_each_feature_or_one_for_all() -> None:
    given = tensor_type(FLOAT, ("n", 3))
    with pytest.raises(NodeError, match="Scaler"):
        answer("Scaler", 1, given, torch.ones(2, 3), offset=[1.0, 2.0], scale=[1.0, 1.0])
    column = tensor_type(FLOAT, ("n", 1))
    with pytest.raises(NodeError, match="Scaler"):  # no silent broadcast of the input
        answer("Scaler", 1, column, torch.ones(2, 1), offset=[1.0, 2.0], scale=[1.0, 1.0])


def test_floats_are_imputed_by_features() -> None:
    x = torch.tensor([[math.nan, 1.0], [2.0, math.nan]])
    given = tensor_type(FLOAT, (2, 2))
    told = {"imputed_value_floats": [7.0, 8.0], "replaced_value_float": math.nan}
    assert answer("Imputer", 1, given, x, **told) == [[7, 1], [2, 8]]
    told = {"imputed_value_floats": [7.0], "replaced_value_float": 2.0}
    assert answer("Imputer", 1, given, x.nan_to_num(2.0), **told) == [[7, 1], [7, 7]]


def test_integers_want_integers_to_impute() -> None:
    with pytest.raises(NodeError, match="Imputer"):
        answer(
            "Imputer", 1, tensor_type(INT64, (1,)), torch.ones(1).long(), imputed_value_floats=[1.0]
        )


def test_an_index_beyond_the_last_axis_fails() -> None:
    proto = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["ai.onnx.ml": 1]>'
        "g (float[2,3] x, int64[1] i) => (float[2,1] y)"
        "{ y = ai.onnx.ml.ArrayFeatureExtractor(x, i) }"
    )
    with pytest.raises(NodeError, match="ArrayFeatureExtractor"):
        OnnxModule(proto)(torch.ones(2, 3), torch.tensor([3]))
