"""Normalisation put back behind convolutions that an exporter folded it into.

torch's exporters multiply BatchNormalization into the convolution before it, in eval mode, by
default. The answers are the same, but what is left to train is another network: without batch
statistics, and with the scale of each channel merged into its kernel.

What was folded is not in the file any more. But any channel can be normalised and then scaled and
shifted back, which changes nothing in eval mode: with the mean m and the variance v of a
calibration batch as statistics, sqrt(v + epsilon) as scale and m as bias.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Any

import onnx
import torch
from onnx import NodeProto, helper, numpy_helper
from torch import Tensor

from onnxinterp.limits import Limits
from onnxinterp.module import OnnxModule
from onnxinterp.reading.source import Source, complete
from onnxinterp.runtime.interpreter import Frame, Interpreter
from onnxinterp.runtime.plan import Step

CONVOLUTIONS = ("Conv", "ConvTranspose")
NORMALIZATION = "BatchNormalization"


def reinsert_normalization(
    source: Source,
    *inputs: Any,
    where: str | Iterable[str] | Callable[[str], bool] = "*",
    epsilon: float = 1e-5,
    limits: Limits = Limits(),
    data_root: str | os.PathLike[str] | None = None,
) -> onnx.ModelProto:
    """A model with BatchNormalization behind its convolutions, and the same answers in eval mode.

    Give it to `OnnxModule`, fine-tune, save, verify: it is a plain ONNX model. A convolution whose
    weight is called `conv.weight` gets `conv.normalization.weight`, `.bias`, `.running_mean` and
    `.running_var`.

    Example:
        >>> model = reinsert_normalization("resnet.onnx", batch)  # doctest: +SKIP
        >>> m = OnnxModule(model).train()  # doctest: +SKIP

    Args:
        source: the model; not changed.
        inputs: a calibration batch, as for a call of the module: the larger and the more like the
            data, the closer is `train()` to `eval()` at the start.
        where: names of convolution weights, as patterns (`fnmatch`) or a predicate. Convolutions of
            the main graph with a weight of that name are chosen, but for those that a
            BatchNormalization follows.
        epsilon: of the new nodes.
        limits: what the model is held to, while it is read and called.
        data_root: a folder within which external data may lie behind links.

    Returns:
        A new model with all its tensors inside.

    Raises:
        ValueError: no convolution is chosen.
    """
    model = complete(source, limits, data_root)
    chosen = _convolutions(model.graph, where)
    if not chosen:
        raise ValueError(f"no convolution without normalisation has a weight like {where!r}")
    moments = _moments(OnnxModule(model, limits=limits), set(chosen), inputs)
    opset = next(o.version for o in model.opset_import if o.domain in ("", "ai.onnx"))
    nodes = []
    for node in model.graph.node:
        nodes.append(node)
        output = node.output[0] if node.output else ""
        if output in chosen and output in moments:
            node.output[0] = f"{output}.unnormalized"
            nodes.append(_normalization(model.graph, node, output, moments[output], epsilon, opset))
    kept = [n.SerializeToString() for n in nodes]
    del model.graph.node[:]
    model.graph.node.extend(NodeProto.FromString(data) for data in kept)
    return model


def _convolutions(
    graph: onnx.GraphProto, where: str | Iterable[str] | Callable[[str], bool]
) -> list[str]:
    """Outputs of the convolutions that are chosen."""
    patterns = [where] if isinstance(where, str) else [] if callable(where) else list(where)
    weights = {t.name for t in graph.initializer}
    normalized = {n.input[0] for n in graph.node if n.op_type == NORMALIZATION}
    return [
        node.output[0]
        for node in graph.node
        if node.op_type in CONVOLUTIONS
        and node.input[1] in weights
        and node.output[0] not in normalized
        and (
            where(node.input[1])
            if callable(where)
            else any(fnmatchcase(node.input[1], pattern) for pattern in patterns)
        )
    ]


class _Observer(Interpreter):
    """Notes mean and variance, one per channel, of some values on their way."""

    def __init__(self, names: set[str]) -> None:
        self.names = names
        self.moments: dict[str, tuple[Tensor, Tensor]] = {}

    def run_step(self, step: Step, frame: Frame) -> Any:
        """Run one step."""
        result = super().run_step(step, frame)
        if step.outputs[0] in self.names:
            var, mean = torch.var_mean(result.float(), [0, *range(2, result.ndim)], correction=0)
            self.moments[step.outputs[0]] = mean, var
        return result


def _moments(
    module: OnnxModule, names: set[str], inputs: tuple[Any, ...]
) -> Mapping[str, tuple[Tensor, Tensor]]:
    module.interpreter = observer = _Observer(names)
    with torch.no_grad():
        module(*inputs)
    return observer.moments


def _normalization(
    graph: onnx.GraphProto,
    convolution: NodeProto,
    output: str,
    moments: tuple[Tensor, Tensor],
    epsilon: float,
    opset: int,
) -> NodeProto:
    """The node behind one convolution; its four weights go into the graph."""
    weight = next(t for t in graph.initializer if t.name == convolution.input[1])
    dtype = helper.tensor_dtype_to_np_dtype(weight.data_type)
    mean, var = moments
    values = {
        "weight": (var + epsilon).sqrt(),
        "bias": mean,
        "running_mean": mean,
        "running_var": var,
    }
    prefix = f"{convolution.input[1].removesuffix('.weight')}.normalization"
    taken = {t.name for t in graph.initializer}
    while f"{prefix}.weight" in taken:  # a convolution whose weight another one uses too
        prefix += "_"
    for name, value in values.items():
        array = value.numpy(force=True).astype(dtype)
        graph.initializer.append(numpy_helper.from_array(array, f"{prefix}.{name}"))
    attributes: dict[str, Any] = {"is_test": 1} if opset < 7 else {}
    return helper.make_node(
        NORMALIZATION,
        [f"{output}.unnormalized", *(f"{prefix}.{name}" for name in values)],
        [output],
        name=f"{convolution.name or output}.normalization",
        epsilon=epsilon,
        **attributes,
    )
