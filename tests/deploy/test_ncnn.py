"""Operators in ncnn: right, or refused by name."""

from __future__ import annotations

import pytest
import torch

from onnxinterp import OnnxModule
from onnxinterp.deploy import ncnn_rewrites
from tests.deploy.models import small_model

pytest.importorskip("pnnx", reason="needs the extra ncnn")
pytest.importorskip("ncnn", reason="needs the extra ncnn")

from onnxinterp.deploy import ncnn  # after the check that its packages are here

X = "float[1,3,8,9] x"
REWRITTEN = {  # what is rewritten -> graph; with the node as it is, pnnx or ncnn is wrong
    "MaxPool, SAME": f"({X}) => (float y) {{ y = MaxPool"
    '<kernel_shape=[3,3], strides=[2,2], auto_pad="SAME_UPPER">(x) }',
    "AveragePool, SAME": f"({X}) => (float y) {{ y = AveragePool"
    '<kernel_shape=[3,3], strides=[2,2], auto_pad="SAME_UPPER">(x) }',
    "AveragePool, pads": f"({X}) => (float y) {{ y = AveragePool"
    "<kernel_shape=[3,3], pads=[0,1,1,0]>(x) }",
    "Conv, SAME": f"({X}, float[4,3,2,3] w) => (float y) {{ y = Conv"
    '<strides=[2,2], auto_pad="SAME_LOWER">(x, w) }',
    "Conv, SAME and dilations": f"({X}, float[4,3,3,3] w) => (float y) {{ y = Conv"
    '<dilations=[2,2], auto_pad="SAME_UPPER">(x, w) }',
    "ConvTranspose, SAME": f"({X}, float[3,4,3,3] w) => (float y) {{ y = ConvTranspose"
    '<strides=[2,2], auto_pad="SAME_UPPER">(x, w) }',
    "ConvTranspose, output_shape": f"({X}, float[3,4,3,3] w, float[4] b) => (float y) {{"
    "y = ConvTranspose<strides=[2,2], output_shape=[16,18]>(x, w, b) }",
    "ConvTranspose, pads": f"({X}, float[3,4,3,3] w) => (float y) {{ y = ConvTranspose"
    "<strides=[2,2], pads=[0,1,2,0]>(x, w) }",
    "Resize, asymmetric": f"({X}) => (float y) <float[4] s = {{1, 1, 2, 1.5}}> {{ y = Resize"
    '<mode="linear", coordinate_transformation_mode="asymmetric">(x,, s) }',
    "Resize, antialias": f"({X}) => (float y) <int64[4] s = {{1, 3, 4, 5}}> {{ y = Resize"
    '<mode="linear", antialias=1>(x,,, s) }',
    "Resize, coefficient": f"({X}) => (float y) <float[4] s = {{1, 1, 2, 2}}> {{ y = Resize"
    '<mode="cubic", cubic_coeff_a=-0.5>(x,, s) }',
    "Resize, nearest": f"({X}) => (float y) <int64[4] s = {{1, 3, 13, 15}}> {{ y = Resize"
    '<mode="nearest", nearest_mode="round_prefer_ceil">(x,,, s) }',
    "Slice, reversed": f"({X}) => (float y) <int64[2] a = {{-1, 1}}, int64[2] b = {{-100, 8}},"
    "int64[2] axes = {2, 3}, int64[2] by = {-1, 2}> { y = Slice(x, a, b, axes, by) }",
    "Gather": f"({X}) => (float y) <int64[3] i = {{2, 0, -1}}> {{ y = Gather<axis=1>(x, i) }}",
    "Pow": f"({X}) => (float y) <float p = {{3}}> {{ y = Pow(x, p) }}",
    "Pow, negative": f"({X}) => (float y) <float p = {{-2}}> {{ e = Exp(x) h = Neg(e)"
    " y = Pow(h, p) }",
    "Shrink": f"({X}) => (float y) {{ y = Shrink<lambd=0.5, bias=0.2>(x) }}",
    "SpaceToDepth": "(float[1,3,8,8] x) => (float y) { y = SpaceToDepth<blocksize=2>(x) }",
    "DepthToSpace": "(float[1,12,4,4] x) => (float y) { y = DepthToSpace<blocksize=2>(x) }",
    "ThresholdedRelu": f"({X}) => (float y) {{ y = ThresholdedRelu<alpha=0.3>(x) }}",
    "Softsign": f"({X}) => (float y) {{ y = Softsign(x) }}",
    "Selu": f"({X}) => (float y) {{ y = Selu<alpha=1.5, gamma=1.2>(x) }}",
    "ReduceMean": f"({X}) => (float y) <int64[1] a = {{1}}> {{ y = ReduceMean<keepdims=0>(x, a) }}",
    "ReduceSum": f"({X}) => (float y) <int64[1] a = {{-1}}> {{ y = ReduceSum(x, a) }}",
    "ReduceMax": f"({X}) => (float y) <int64[2] a = {{2, 3}}> {{ y = ReduceMax(x, a) }}",
    "LayerNormalization": "(float[1,4,6] x, float[4,6] w) => (float y)"
    "{ y = LayerNormalization<axis=1>(x, w) }",
    "GroupNormalization": "(float[1,4,6,6] x, float[2] w, float[2] b) => (float y)"
    "{ y = GroupNormalization<num_groups=2>(x, w, b) }",
}
KEPT = {  # what pnnx and ncnn get right
    "Conv of a batch": "(float[2,3,8,9] x, float[4,3,3,3] w) => (float y)"
    "{ y = Conv<pads=[1,1,1,1]>(x, w) }",
    "Gemm": "(float[2,5] x, float[4,5] w, float[4] b) => (float y) { y = Gemm<transB=1>(x, w, b) }",
    "two inputs": f"({X}, float[1,3,1,1] z) => (float y, float s){{ y = Mul(x, z) s = Sub(x, z) }}",
    "a scalar": f"({X}) => (float y) {{ y = ReduceMean<keepdims=0>(x) }}",
    "Embedding": "(int64[1,3] x, float[5,4] w) => (float y) { h = Gather(w, x) y = Relu(h) }",
    "shapes in the graph": f"({X}) => (float y) <int64[1] two = {{-1}}> {{ s = Shape<end=2>(x)"
    "t = Concat<axis=0>(s, two) y = Reshape(x, t) }",
}
REFUSED = {  # operator -> graph
    "LpPool": f"({X}) => (float y) {{ h = Relu(x) y = LpPool<kernel_shape=[2,2]>(h) }}",
    "Trilu": f"({X}) => (float y) {{ h = Relu(x) t = Trilu(h) y = Sigmoid(t) }}",
    "Pow": f"({X}, float[9] p) => (float y) {{ h = Exp(x) y = Pow(h, p) }}",
    "Cast": f"({X}) => (float y) {{ h = Cast<to=6>(x) y = Cast<to=1>(h) }}",
    "Resize": f"({X}) => (float y) <float[8] r = {{0, 0, 0, 0, 1, 1, 1, 1}},"
    "int64[4] s = {1, 3, 4, 4}> { y = Resize"
    '<coordinate_transformation_mode="tf_crop_and_resize">(x, r,, s) }',
}


def convert(text, path, **options):
    """The module of a text, its inputs, and the files in ncnn."""
    model, inputs = small_model(text, **options)
    module = OnnxModule(model)
    ncnn.write(module, inputs, path)
    return module, inputs, ncnn.load(path)


def worst_error(module, runtime, inputs):
    wants = module(**{n: torch.from_numpy(x) for n, x in inputs.items()})
    gots = runtime(**inputs)
    pairs = [(wants, gots)] if isinstance(wants, torch.Tensor) else zip(wants, gots, strict=True)
    errors = []
    for want, got in pairs:
        assert got.shape == want.shape
        errors.append((got - want).square().mean().item())
    return max(errors)


@pytest.mark.parametrize("text", [*REWRITTEN.values(), *KEPT.values()], ids=[*REWRITTEN, *KEPT])
def test_ncnn_computes_what_the_module_computes_on_other_inputs(text, tmp_path):
    module, inputs, runtime = convert(text, tmp_path / "model.param")
    other = small_model(text, seed=1)[1]
    assert worst_error(module, runtime, inputs) < 1e-7
    assert worst_error(module, runtime, other) < 1e-7


@pytest.mark.capture  # half of the time of this file
@pytest.mark.parametrize("text", REWRITTEN.values(), ids=REWRITTEN)
def test_without_its_rewrite_an_operator_is_refused_by_name(text, tmp_path, monkeypatch):
    monkeypatch.setattr(ncnn_rewrites, "REWRITES", {})
    operator = small_model(text)[0].graph.node[-1].op_type
    with pytest.raises(ncnn.NcnnError, match=rf"\({operator}\)"):
        convert(text, tmp_path / "model.param")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("text", REFUSED.values(), ids=REFUSED)
def test_an_operator_without_a_form_is_refused_by_name(text, tmp_path):
    operator = small_model(text)[0].graph.node
    named = next(n.op_type for n in operator if n.op_type in REFUSED)
    with pytest.raises(ncnn.NcnnError, match=rf"\({named}\)"):
        convert(text, tmp_path / "model.param")
    assert not list(tmp_path.iterdir())
