"""Keras, ONNX, a module, ONNX again, ncnn: every link computes what the first one does."""

from __future__ import annotations

import os
import warnings

import numpy as np
import onnx
import pytest
import torch

from onnxinterp import OnnxModule

os.environ.setdefault("KERAS_BACKEND", "torch")
keras = pytest.importorskip("keras", reason="needs keras, of the extra test")
ort = pytest.importorskip("onnxruntime", reason="needs the extra verify")
pytest.importorskip("pnnx", reason="needs the extra ncnn")
pytest.importorskip("ncnn", reason="needs the extra ncnn")

from onnxinterp.deploy import ncnn  # noqa: E402  # after the check that its packages are here
from onnxinterp.deploy.fixed_sizes import freeze  # noqa: E402

MAX_MSE = 1e-7
layers = keras.layers


def convolutions():
    """SAME padding with strides, normalization, depthwise, upsampling, transposed, dense."""
    x = image = keras.Input((16, 15, 3), batch_size=1, name="image")
    x = layers.Conv2D(8, 3, strides=2, padding="same", use_bias=False)(x)
    x = layers.BatchNormalization()(x)
    x = layers.ReLU()(x)
    x = layers.DepthwiseConv2D(3, padding="same")(x)
    x = layers.UpSampling2D(2, interpolation="bilinear")(x)
    x = layers.SeparableConv2D(8, 3, padding="same", activation="silu")(x)
    x = layers.MaxPooling2D(3, 2, padding="same")(x)
    x = layers.Conv2DTranspose(4, 3, strides=2, padding="same", activation="elu")(x)
    x = layers.AveragePooling2D(2)(x)
    x = layers.Flatten()(x)
    return keras.Model(image, layers.Dense(5)(x))


def residual():
    """Two branches, nearest upsampling, cropping, padding, and two outputs."""
    x = image = keras.Input((8, 8, 4), batch_size=1, name="image")
    x = layers.ZeroPadding2D(1)(x)
    x = layers.Conv2D(4, 3, dilation_rate=1)(x)
    y = layers.Conv2D(4, 1, activation="tanh")(image)
    x = layers.Add()([x, y])
    x = layers.UpSampling2D(2)(layers.LeakyReLU()(x))
    x = layers.Cropping2D(2)(x)
    x = layers.Concatenate()([x, layers.GlobalAveragePooling2D(keepdims=True)(x) + x])
    pooled = layers.GlobalMaxPooling2D()(x)
    return keras.Model(image, [layers.Dense(3)(pooled), layers.Softmax()(x)])


def sequence():
    """Convolutions over time, LSTM."""
    x = steps = keras.Input((6, 5), batch_size=1, name="steps")
    x = layers.Conv1D(8, 3, padding="same", activation="relu")(x)
    x = layers.LSTM(7, return_sequences=True)(x)
    return keras.Model(steps, layers.Dense(4)(x))


MODELS = {"convolutions": convolutions, "residual": residual, "sequence": sequence}


def randomize(model):
    """Weights with which activations have a variance near 1."""
    random = np.random.default_rng(0)
    for weight in model.weights:
        values = random.standard_normal(weight.shape) / np.sqrt(max(1, np.prod(weight.shape[:-1])))
        if weight.path.endswith(("gamma", "variance")):
            values = random.uniform(0.5, 1.5, weight.shape)
        weight.assign(values)


@pytest.fixture(scope="module", params=MODELS.values(), ids=MODELS)
def chain(request, tmp_path_factory):
    """A Keras model's ONNX file, an input, and what Keras answers."""
    keras.utils.clear_session()
    model = request.param()
    randomize(model)
    path = tmp_path_factory.mktemp("keras") / "keras.onnx"
    x = np.random.default_rng(1).standard_normal(model.inputs[0].shape).astype(np.float32)
    with torch.no_grad():
        want = numpy_list(model(x))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of tracing, and of modules that Keras imports
        model.export(str(path), format="onnx", verbose=False)
    return path, x, want


def numpy_list(results):
    results = results if isinstance(results, (list, tuple)) else [results]
    return [np.asarray(r.detach()) for r in results]


def onnxruntime(path, x):
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: x})


def mse(got, want):
    for g, w in zip(got, want, strict=True):
        assert g.shape == w.shape
    return max(np.square(g - w).mean() for g, w in zip(got, want, strict=True))


def test_each_link_computes_what_keras_does(chain, tmp_path):
    path, x, want = chain
    assert 0.05 < np.var(want[0]) < 20  # or a tolerance of 1e-7 would say nothing
    assert mse(onnxruntime(path, x), want) < MAX_MSE
    module = OnnxModule(path)
    assert mse(numpy_list(module(torch.from_numpy(x))), want) < MAX_MSE
    module.save_onnx(tmp_path / "again.onnx")
    assert mse(onnxruntime(tmp_path / "again.onnx", x), want) < MAX_MSE
    ncnn.write(OnnxModule(tmp_path / "again.onnx"), [torch.from_numpy(x)], tmp_path / "x.param")
    assert {p.name for p in tmp_path.iterdir()} == {"again.onnx", "x.param", "x.bin"}
    assert mse(numpy_list(ncnn.load(tmp_path / "x.param")(x)), want) < MAX_MSE


@pytest.mark.capture
def test_torch_exports_the_module_of_fixed_sizes(chain, tmp_path):
    path, x, want = chain
    inputs = (torch.from_numpy(x),)
    (name,) = OnnxModule(path).input_names
    module = OnnxModule(freeze(onnx.load(path), {name: inputs[0]}).proto)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter
        torch.onnx.export(module, inputs, str(tmp_path / "torch.onnx"), dynamo=True, verbose=False)
    assert mse(onnxruntime(tmp_path / "torch.onnx", x), want) < MAX_MSE
    again = OnnxModule(tmp_path / "torch.onnx")
    assert mse(numpy_list(again(*inputs)), want) < MAX_MSE


def test_noise_on_one_weight_is_seen(chain, tmp_path):
    path, x, want = chain
    module = OnnxModule(path)
    weight = max(module.parameters(), key=torch.Tensor.numel)
    with torch.no_grad():
        weight += (
            0.1
            * weight.std()
            * torch.randn(weight.shape, generator=torch.Generator().manual_seed(0))
        )
    ncnn.write(module, [torch.from_numpy(x)], tmp_path / "x.param")
    assert mse(numpy_list(ncnn.load(tmp_path / "x.param")(x)), want) > 10 * MAX_MSE
