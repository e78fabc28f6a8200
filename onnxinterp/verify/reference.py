"""Results of onnxruntime, for any element type and any value of the main graph.

onnxruntime's Python interface lacks some element types (bfloat16, 8-bit floats, 4-bit integers).
Cast nodes around the model convert inputs and outputs of these to a wider type, which is exact.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor

from onnxinterp.dtypes import CARRIER, onnx_name
from onnxinterp.errors import OnnxError
from onnxinterp.extras import require
from onnxinterp.format.tensor_reader import TensorReader
from onnxinterp.reading.source import Source, read

WIDER: dict[int, int] = {
    TensorProto.BFLOAT16: TensorProto.FLOAT,
    TensorProto.FLOAT8E4M3FN: TensorProto.FLOAT,
    TensorProto.FLOAT8E4M3FNUZ: TensorProto.FLOAT,
    TensorProto.FLOAT8E5M2: TensorProto.FLOAT,
    TensorProto.FLOAT8E5M2FNUZ: TensorProto.FLOAT,
    TensorProto.FLOAT4E2M1: TensorProto.FLOAT,
    TensorProto.INT4: TensorProto.INT8,
    TensorProto.UINT4: TensorProto.UINT8,
}
"""Element type -> one that has all its values, and that numpy has."""

NARROW = {f"tensor({onnx_name(t)})": t for t in WIDER}
LEVELS = {  # optimisation level -> its name in onnxruntime
    "disabled": "ORT_DISABLE_ALL",
    "basic": "ORT_ENABLE_BASIC",
    "extended": "ORT_ENABLE_EXTENDED",
    "all": "ORT_ENABLE_ALL",
}
EXTERNAL_FOLDER = "session.model_external_initializers_file_folder_path"


class ReferenceFailedError(OnnxError, RuntimeError):
    """onnxruntime cannot run the model or the inputs, so there is nothing to compare with."""


class Reference:
    """A model in onnxruntime.

    Attributes:
        output_names: of a call.
        narrow: output name -> its ONNX element type, where numpy lacks it.
    """

    def __init__(
        self, source: Source, outputs: Iterable[str] | None = None, *, level: str = "all"
    ) -> None:
        """Open a session.

        Args:
            source: the model; it is not changed.
            outputs: values of the main graph; by default the graph's outputs.
            level: a key of `LEVELS`: how far onnxruntime may rewrite the graph; "disabled" keeps
                every value of the graph as written.
        """
        self._runtime = require("onnxruntime", "verify")
        self._level = level
        given, reader, _ = read(source)
        self._folder = None if reader.folder is None else reader.folder.path
        model = onnx.ModelProto()
        model.CopyFrom(given)
        if outputs is not None:
            declared = {o.name: o for o in model.graph.output}
            wanted = [declared.get(n, onnx.ValueInfoProto(name=n)) for n in outputs]
            del model.graph.output[:]
            model.graph.output.extend(wanted)
        self.output_names = tuple(o.name for o in model.graph.output)
        self._session = self._open(model)
        inputs, results = self._session.get_inputs(), self._session.get_outputs()
        self._inputs = {i.name: NARROW[i.type] for i in inputs if i.type in NARROW}
        self.narrow = {o.name: NARROW[o.type] for o in results if o.type in NARROW}
        if self._inputs or self.narrow:
            self._session = self._open(_widened(model, self._inputs, self.narrow))

    def _options(self) -> Any:
        """The options of the session."""
        options = self._runtime.SessionOptions()
        options.log_severity_level = 4  # errors are exceptions
        levels = self._runtime.GraphOptimizationLevel
        options.graph_optimization_level = getattr(levels, LEVELS[self._level])
        if self._folder is not None:
            options.add_session_config_entry(EXTERNAL_FOLDER, str(self._folder.resolve()))
        return options

    def _open(self, model: onnx.ModelProto) -> Any:
        open_session, options = self._runtime.InferenceSession, self._options()
        try:
            providers = ["CPUExecutionProvider"]
            return open_session(model.SerializeToString(), options, providers=providers)
        except Exception as error:  # onnxruntime's exceptions have no base class
            raise ReferenceFailedError(f"onnxruntime cannot open the model: {error}") from error

    def __call__(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Run once.

        Args:
            inputs: graph input name -> tensor, numpy object array of strings, or a list of them.

        Returns:
            Output name -> value of the same kinds.

        Raises:
            ReferenceFailedError: onnxruntime fails, or the inputs do not fit.
        """
        feeds = {}
        for name, value in inputs.items():
            narrow = self._inputs.get(name)
            feeds[name if narrow is None else _alias(name)] = _to_numpy(value, narrow)
        try:
            results = self._session.run(None, feeds)
        except Exception as error:  # onnxruntime's exceptions have no base class
            raise ReferenceFailedError(f"onnxruntime cannot run the model: {error}") from error
        return {
            name: _from_numpy(value, self.narrow.get(name))
            for name, value in zip(self.output_names, results, strict=True)
        }


def to_value(array: Any) -> Any:
    """A numpy array as a value of an OnnxModule: a tensor, or the same array of strings."""
    array = np.asarray(array)
    if array.dtype.kind in "OUS":
        return array.astype(object)
    value: Tensor = TensorReader(None)(numpy_helper.from_array(array))  # type: ignore[assignment]
    return value  # not strings: those were returned above


def _to_numpy(value: Any, narrow: int | None) -> Any:
    if isinstance(value, (list, tuple)):
        return [_to_numpy(v, narrow) for v in value]
    if not isinstance(value, Tensor):
        return value
    if narrow is not None:
        value = value.to(CARRIER[WIDER[narrow]])
    return value.detach().cpu().numpy()


def _from_numpy(value: Any, narrow: int | None) -> Any:
    if isinstance(value, list):
        return [_from_numpy(v, narrow) for v in value]
    if not isinstance(value, (np.ndarray, np.generic)):
        return value
    result = to_value(value)
    return result if narrow is None else result.to(CARRIER[narrow])


def _alias(name: str) -> str:
    return f"{name}/wider"


def _widened(
    model: onnx.ModelProto, inputs: Mapping[str, int], outputs: Mapping[str, int]
) -> onnx.ModelProto:
    """The model with Cast nodes around it; these inputs and outputs have an alias."""
    graph = model.graph
    if not any(o.domain in ("", "ai.onnx") for o in model.opset_import):
        model.opset_import.append(helper.make_opsetid("", 21))
    casts = [
        helper.make_node("Cast", [_alias(name)], [name], to=narrow)
        for name, narrow in inputs.items()
    ]
    nodes = [*casts, *graph.node]
    for name, narrow in outputs.items():
        nodes.append(helper.make_node("Cast", [name], [_alias(name)], to=WIDER[narrow]))
    for info in graph.input:
        if info.name in inputs:
            info.type.tensor_type.elem_type = WIDER[inputs[info.name]]
            info.name = _alias(info.name)
    for info in graph.output:
        if info.name in outputs:
            info.CopyFrom(onnx.ValueInfoProto(name=_alias(info.name)))
    del graph.node[:]
    graph.node.extend(nodes)
    return model
