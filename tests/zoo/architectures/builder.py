"""`GraphBuilder`: real ONNX graphs with seeded weights, calibrated layer by layer.

Each node is evaluated in onnxruntime as it is added, on example images. So a layer knows what
reaches it: weights start He-normal and are rescaled to give unit variance, biases centre their
channel, BatchNormalization's running statistics are the true ones with noise. Without this a deep
net of seeded weights dies out or explodes, and its outputs would agree with anything.

Measured factors are rounded to an eighth of a power of two, so that the last bits of somebody
else's onnxruntime do not change the file.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from tests.zoo.inputs import make_inputs

Pads = int | tuple[int, int, int, int]
Naming = dict[str, str]

CAFFE2: Naming = {
    "weight": "{}_w_0",
    "bias": "{}_b_0",
    "scale": "{}/bn_scale_0",
    "shift": "{}/bn_bias_0",
    "mean": "{}/bn_mean_0",
    "variance": "{}/bn_var_0",
}
GLUON: Naming = {
    "weight": "{}_weight",
    "bias": "{}_bias",
    "scale": "{}_gamma",
    "shift": "{}_beta",
    "mean": "{}_running_mean",
    "variance": "{}_running_var",
}
TORCH: Naming = {
    "weight": "{}.weight",
    "bias": "{}.bias",
    "scale": "{}.weight",
    "shift": "{}.bias",
    "mean": "{}.running_mean",
    "variance": "{}.running_var",
}

SMALLEST_VARIANCE = 1e-4  # a channel that hardly moves is not blown up to unit variance
CALIBRATION_IMAGES = 4
CALIBRATION_SEED = 20_000  # far from the seeds of the manifest's cases


class GraphBuilder:
    """Adds nodes, evaluates them, and ends as a ModelProto.

    Args:
        name: The model's name; together with a weight's name it seeds that weight.
        opset: Version of ai.onnx, which also tells the `ir_version` and whether initializers
            are listed among the graph's inputs, as they were before IR 4.
        naming: How the exporter names weights.
    """

    def __init__(self, name: str, opset: int, naming: Naming) -> None:
        self.name, self.opset, self.naming = name, opset, naming
        self.nodes: list[onnx.NodeProto] = []
        self.inputs: list[onnx.ValueInfoProto] = []
        self.weights: dict[str, np.ndarray] = {}
        self.values: dict[str, np.ndarray] = {}

    @property
    def ir_version(self) -> int:
        return 3 if self.opset <= 9 else 5 if self.opset == 10 else 7

    def image(self, name: str, height: int, width: int, symbols: Sequence[str | int]) -> str:
        """Declare the input with `symbols` for its shape; the example is seeded images.

        A free batch takes several: statistics of one image fit the next one worse, layer by layer.
        """
        batch = 1 if symbols[0] == 1 else CALIBRATION_IMAGES
        spec = {"dtype": "float32", "shape": [batch, 3, height, width], "kind": "image"}
        self.values[name] = make_inputs({name: spec}, CALIBRATION_SEED)[name]
        self.inputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, symbols))
        return name

    def initializer(self, name: str, array: np.ndarray) -> str:
        if name in self.weights:
            raise ValueError(f"{self.name} has two weights called {name}")
        self.weights[name] = self.values[name] = array
        return name

    def constant(self, value: int | float | Sequence[int], dtype: str = "int64") -> str:
        """Add a Constant node, as the PyTorch exporter writes every literal."""
        array = np.asarray(value, dtype)
        return self.node("Constant", [], value=numpy_helper.from_array(array))

    def node(self, op_type: str, inputs: Sequence[str], name: str = "", **attributes: Any) -> str:
        """Add a node with one output and return that output's name."""
        return self.node_with_outputs(
            op_type, inputs, [name or f"r{len(self.nodes)}"], **attributes
        )[0]

    def node_with_outputs(
        self, op_type: str, inputs: Sequence[str], outputs: list[str], **attributes: Any
    ) -> list[str]:
        node = helper.make_node(op_type, inputs, outputs, name=outputs[0], **attributes)
        self.nodes.append(node)
        self.values.update(zip(outputs, self._evaluate(node), strict=True))
        return outputs

    def conv(
        self,
        x: str,
        name: str,
        channels: int,
        kernel: int,
        *,
        stride: int = 1,
        pads: Pads = 0,
        group: int = 1,
        bias: bool = True,
        gain: float = 1.0,
    ) -> str:
        """Add a Conv whose output has standard deviation `gain` in every channel."""
        shape = (channels, self.values[x].shape[1] // group, kernel, kernel)
        weight, window = self._he_normal(name, shape), window_of(kernel, stride, pads)
        grouped: dict[str, Any] = {"group": group} if group > 1 else {}
        probe = helper.make_node("Conv", [x, "W"], ["probe"], **window, **grouped)
        (y,) = self._evaluate(probe, {"W": weight})
        mean, variance = _channel_statistics(y)
        factor = gain / np.sqrt(variance)
        weight *= factor.astype(np.float32)[:, None, None, None]
        inputs = [x, self.initializer(self._named(name, "weight"), weight)]
        if bias:
            centre = np.round(mean * factor * 16) / 16
            noise = 0.2 * gain * self.rng(name, "bias").standard_normal(channels)
            array = (noise - centre).astype(np.float32)
            inputs.append(self.initializer(self._named(name, "bias"), array))
        return self.node("Conv", inputs, **window, **grouped)

    def batch_norm(self, x: str, name: str, *, gain: float = 1.0, **attributes: Any) -> str:
        """Add BatchNormalization with statistics near the true ones, off by a fifth or so."""
        rng = self.rng(name, "batch_norm")
        channels = self.values[x].shape[1]
        mean, variance = _channel_statistics(self.values[x])
        deviation = np.sqrt(variance)
        centre = np.round(mean / deviation * 16) / 16
        arrays = {
            "scale": gain * rng.uniform(0.7, 1.3, channels),
            "shift": gain * 0.2 * rng.standard_normal(channels),
            "mean": (centre + 0.2 * rng.standard_normal(channels)) * deviation,
            "variance": variance * np.exp(0.3 * rng.standard_normal(channels)),
        }
        names = [
            self.initializer(self._named(name, role), array.astype(np.float32))
            for role, array in arrays.items()
        ]
        return self.node("BatchNormalization", [x, *names], **attributes)

    def dense(self, x: str, name: str, units: int, *, gain: float = 1.0) -> str:
        """Add a Gemm whose outputs have standard deviation `gain`."""
        weight, bias = self.dense_weights(x, name, units, gain)
        return self.node("Gemm", [x, weight, bias], transB=1)

    def dense_weights(self, x: str, name: str, units: int, gain: float) -> tuple[str, str]:
        weight = self._he_normal(name, (units, self.values[x].shape[1]))
        spread = (self.values[x] @ weight.T).std()
        weight *= np.float32(gain / _rounded(spread))
        bias = 0.2 * gain * self.rng(name, "bias").standard_normal(units)
        return (
            self.initializer(self._named(name, "weight"), weight),
            self.initializer(self._named(name, "bias"), bias.astype(np.float32)),
        )

    def relu(self, x: str) -> str:
        return self.node("Relu", [x])

    def max_pool(self, x: str, kernel: int, stride: int, pads: Pads = 0) -> str:
        return self.node("MaxPool", [x], **window_of(kernel, stride, pads))

    def average_pool(self, x: str, kernel: int, stride: int, pads: Pads = 0) -> str:
        return self.node("AveragePool", [x], **window_of(kernel, stride, pads))

    def concat(self, inputs: Sequence[str], axis: int = 1) -> str:
        return self.node("Concat", inputs, axis=axis)

    def dropout(self, x: str, ratio: float) -> str:
        outputs = [f"r{len(self.nodes)}", f"r{len(self.nodes)}_mask"]
        return self.node_with_outputs("Dropout", [x], outputs, ratio=ratio)[0]

    def finish(self, output: str, shape: Sequence[str | int]) -> onnx.ModelProto:
        """Return the checked model, its one output declared with `shape`."""
        initializers = [numpy_helper.from_array(array, n) for n, array in self.weights.items()]
        inputs = list(self.inputs)
        if self.ir_version < 4:
            inputs += [
                helper.make_tensor_value_info(i.name, i.data_type, i.dims) for i in initializers
            ]
        declared = helper.make_tensor_value_info(output, TensorProto.FLOAT, shape)
        graph = helper.make_graph(self.nodes, self.name, inputs, [declared], initializers)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)])
        model.ir_version = self.ir_version
        model.producer_name = "onnxinterp.tests.zoo"
        onnx.checker.check_model(model)
        return model

    def _named(self, layer: str, role: str) -> str:
        return self.naming[role].format(layer)

    def rng(self, *key: str) -> np.random.Generator:
        return np.random.default_rng([zlib.crc32(k.encode()) for k in (self.name, *key)])

    def _he_normal(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        weight = self.rng(name, "weight").standard_normal(shape, dtype=np.float32)
        weight *= np.float32(np.sqrt(2 / np.prod(shape[1:])))
        return weight

    def _evaluate(
        self, node: onnx.NodeProto, extra: dict[str, np.ndarray] | None = None
    ) -> list[np.ndarray]:
        """Run one node on the values known so far, in onnxruntime without optimisations."""
        known = self.values | (extra or {})
        feeds = {name: known[name] for name in node.input if name}
        inputs = [
            helper.make_tensor_value_info(
                name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape
            )
            for name, array in feeds.items()
        ]
        outputs = [onnx.ValueInfoProto(name=name) for name in node.output]
        graph = helper.make_graph([node], "node", inputs, outputs)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)])
        model.ir_version = max(4, self.ir_version)
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.intra_op_num_threads = 2
        options.log_severity_level = 3
        session = onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        return [np.asarray(value) for value in session.run(None, feeds)]


def window_of(kernel: int, stride: int, pads: Pads) -> dict[str, Any]:
    """The attributes shared by Conv and the pools."""
    padding = [pads] * 4 if isinstance(pads, int) else list(pads)
    return {"kernel_shape": [kernel] * 2, "pads": padding, "strides": [stride] * 2}


def _channel_statistics(y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and rounded variance of each channel; a 1x1 grid has only those of the whole."""
    if y.shape[2:] == (1, 1):
        return np.zeros(y.shape[1]), np.full(y.shape[1], _rounded(y.var()))
    return y.mean(axis=(0, 2, 3)), _rounded(y.var(axis=(0, 2, 3)) + SMALLEST_VARIANCE)


def _rounded(values: np.ndarray) -> np.ndarray:
    """Round to an eighth of a power of two."""
    return np.asarray(np.exp2(np.round(np.log2(values) * 8) / 8))
