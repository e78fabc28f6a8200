"""ONNX's standard backend interface, so that whatever drives a backend can drive us.

    import onnxinterp.backend as backend

    outputs = backend.prepare(model).run([x])
    outputs = backend.run_node(node, [x])

Inputs and outputs are numpy arrays; bfloat16, 8-bit floats and narrower types those of `ml_dtypes`,
as `onnx.numpy_helper` makes them. Strings are arrays of objects, sequences lists, an empty optional
is None.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import torch
from onnx import helper
from onnx.backend.base import Backend, BackendRep
from torch import Tensor

from onnxinterp.dtypes import CARRIER, NATIVE
from onnxinterp.format.tensor_reader import from_array
from onnxinterp.graph.ir import ValueInfo
from onnxinterp.module import OnnxModule

DEVICES = {"CPU": "cpu", "CUDA": "cuda"}  # as ONNX names them -> as torch does


class TorchBackendRep(BackendRep):
    """A model ready to run.

    Attributes:
        module: the module that answers, in evaluation mode.
    """

    def __init__(self, model: onnx.ModelProto, device: str) -> None:
        self.module = OnnxModule(model).eval().to(device)
        self._device = device
        self._names = [info.name for info in model.graph.input]

    def run(self, inputs: Any, **kwargs: Any) -> tuple[Any, ...]:
        """Answer all outputs, in graph order.

        Args:
            inputs: arrays by name, or in the order of the graph's inputs, those with an
                initializer left out or all given.
            kwargs: none is known.
        """
        if kwargs:
            raise TypeError(f"unknown arguments: {', '.join(kwargs)}")
        required = self.module.input_names
        names = required if len(inputs) == len(required) else self._names
        named = inputs if isinstance(inputs, dict) else dict(zip(names, inputs, strict=False))
        feeds = {name: to_torch(value, self._device) for name, value in named.items()}
        with torch.no_grad():
            answer = self.module(**feeds)
        answers = answer if isinstance(answer, tuple) else (answer,)
        infos = self.module.onnx_graph.outputs
        return tuple(to_numpy(a, info) for a, info in zip(answers, infos, strict=True))


class TorchBackend(Backend):
    """Runs models as `OnnxModule` does."""

    @classmethod
    def is_compatible(cls, model: onnx.ModelProto, device: str = "CPU", **kwargs: Any) -> bool:
        """Every model may be tried: what it lacks is said by `prepare`."""
        return True

    @classmethod
    def prepare(cls, model: onnx.ModelProto, device: str = "CPU", **kwargs: Any) -> TorchBackendRep:
        """Load a model.

        Raises:
            OnnxError: the model is invalid, or an operator is missing.
            ValueError: there is no such device.
        """
        return TorchBackendRep(model, _torch_device(device))

    @classmethod
    def run_model(
        cls, model: onnx.ModelProto, inputs: Any, device: str = "CPU", **kwargs: Any
    ) -> tuple[Any, ...]:
        """Load and run a model once."""
        return cls.prepare(model, device, **kwargs).run(inputs)

    @classmethod
    def run_node(
        cls,
        node: onnx.NodeProto,
        inputs: Any,
        device: str = "CPU",
        outputs_info: Sequence[tuple[np.dtype[Any], tuple[int, ...]]] | None = None,
        **kwargs: Any,
    ) -> tuple[Any, ...]:
        """Run one node.

        Args:
            node: the node.
            inputs: an array for each input that the node names, in order, or by name.
            device: "CPU" or "CUDA".
            outputs_info: not needed.
            kwargs: `opset_version`, the opset of the node's domain; by default the newest.
        """
        names = list(dict.fromkeys(filter(None, node.input)))
        named = inputs if isinstance(inputs, dict) else dict(zip(names, inputs, strict=True))
        graph = helper.make_graph(
            [node],
            node.name or node.op_type,
            [helper.make_value_info(name, onnx.TypeProto()) for name in names],
            [helper.make_empty_tensor_value_info(name) for name in filter(None, node.output)],
        )
        newest = onnx.defs.onnx_opset_version()
        opset = kwargs.get("opset_version", 1 if node.domain else newest)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid(node.domain, opset)])
        return cls.run_model(model, named, device)

    @classmethod
    def supports_device(cls, device: str) -> bool:
        """Whether `device` ("CPU", "CUDA" or "CUDA:1") is there."""
        try:
            return torch.device(_torch_device(device)).type == "cpu" or torch.cuda.is_available()
        except ValueError:
            return False


def _torch_device(device: str) -> str:
    kind, _, index = device.partition(":")
    if kind not in DEVICES:
        raise ValueError(f"no device {device!r}; there are {', '.join(DEVICES)}")
    return DEVICES[kind] + (f":{index}" if index else "")


def to_torch(value: Any, device: str = "cpu") -> Any:
    """An array as the module takes it; sequences element by element; strings as they are."""
    if isinstance(value, (list, tuple)):
        return [to_torch(v, device) for v in value]
    if not isinstance(value, (np.ndarray, np.generic)) or value.dtype.kind in "OUS":
        return value
    array = np.array(value)
    if array.dtype.isbuiltin == 1:  # numpy has two types called uint64, of which torch knows one
        array = array.view(np.dtype(array.dtype.str))
    return from_array(array, helper.np_dtype_to_tensor_dtype(array.dtype)).to(device)


def to_numpy(value: Any, info: ValueInfo) -> Any:
    """What the module gives as an array of the type that the graph declares."""
    if isinstance(value, (list, tuple)):
        return [to_numpy(v, info) for v in value]
    if not isinstance(value, Tensor):
        return value
    tensor, kind = value.detach().cpu().contiguous(), info.elem_type
    if kind in CARRIER and kind not in NATIVE:
        return tensor.numpy().astype(helper.tensor_dtype_to_np_dtype(kind))
    native = {CARRIER[k]: k for k in NATIVE}[tensor.dtype]
    dtype = helper.tensor_dtype_to_np_dtype(native)
    if dtype.isbuiltin == 1:
        return tensor.numpy()
    bits = {1: torch.uint8, 2: torch.int16}[dtype.itemsize]
    return tensor.view(bits).numpy().view(dtype)


is_compatible = TorchBackend.is_compatible
prepare = TorchBackend.prepare
run_model = TorchBackend.run_model
run_node = TorchBackend.run_node
supports_device = TorchBackend.supports_device
