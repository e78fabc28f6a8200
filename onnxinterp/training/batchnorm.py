"""BatchNormalization inserted again behind convolutions into which an exporter folded it.

By default, torch's exporters fold BatchNormalization in eval mode into the convolution before it.
The outputs are equal, but another network is left to train: it has no batch statistics, and its
kernels contain the scale of each channel.

The file does not contain the folded layer any more. But normalizing a channel and then scaling and
shifting it back changes nothing in eval mode: with the mean m and the variance v of a calibration
batch as statistics, sqrt(v + epsilon) as scale and m as bias.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping
from itertools import chain
from typing import Any

import onnx
import torch
from onnx import NodeProto, helper, numpy_helper
from torch import Tensor

from onnxinterp.graph.adoption import Stored
from onnxinterp.graph.scopes import NAMES, are_separate, is_torch_name, path_of, scopes_of
from onnxinterp.limits import Limits
from onnxinterp.module import OnnxModule
from onnxinterp.patterns import Names, select
from onnxinterp.reading.source import REWRITES, Source, complete
from onnxinterp.runtime.interpreter import Frame, Interpreter
from onnxinterp.runtime.plan import Step

CONVOLUTIONS = ("Conv", "ConvTranspose")
NORMALIZATION = "BatchNormalization"
UNNORMALIZED = ".unnormalized"  # behind the name of a value
WHERE = "where must match the weight of a convolution that no BatchNormalization follows"


def reinsert_batchnorm(
    source: Source,
    *inputs: Any,
    where: Names = "*",
    epsilon: float = 1e-5,
    limits: Limits = Limits(),
    data_root: str | os.PathLike[str] | None = None,
    kernels: Mapping[str, Callable[..., Any]] | None = None,
    allowed_ops: Collection[str] | None = None,
) -> onnx.ModelProto:
    """A model with BatchNormalization behind its convolutions, and equal outputs in eval mode.

    The result is an ordinary ONNX model: load it with `OnnxModule`, fine-tune it, save it. A
    convolution with the weight `conv.weight` gets `conv.normalization.weight`, `.bias`,
    `.running_mean` and `.running_var`; files of torch's newer exporter tell the name of the folded
    layer, `bn1.weight` and so on. The new layer takes over the bias of the convolution.

    Example:
        >>> model = reinsert_batchnorm("resnet.onnx", batch)  # doctest: +SKIP
        >>> m = OnnxModule(model).train()  # doctest: +SKIP

    Args:
        source: the model; not changed.
        inputs: a calibration batch, as for a call of the module. The larger it is and the more it
            resembles the data, the closer `train()` is to `eval()` at the start.
        where: names of convolution weights, in torch or in the file: patterns (`fnmatch`) or a
            predicate. It chooses convolutions of the main graph that no BatchNormalization follows.
        epsilon: the attribute of the new nodes.
        limits: the limits for reading and calling the model.
        data_root: a folder within which external data may lie behind links.
        kernels: as for `OnnxModule`, for the call with the calibration batch.
        allowed_ops: as for `OnnxModule`.

    Returns:
        A new model that contains all its tensors.

    Raises:
        ValueError: no convolution is chosen, or a pattern matches none.
    """
    model = complete(source, limits, data_root)
    module = OnnxModule(model, limits=limits, kernels=kernels, allowed_ops=allowed_ops)
    chosen = _convolutions(model.graph, where, module.weights.stored)
    if not chosen:
        raise ValueError(f"{WHERE}, got {where!r}")
    module.interpreter = observer = _Observer(set(chosen))
    with torch.no_grad():
        module(*inputs)
    opset = next(o.version for o in model.opset_import if o.domain in ("", "ai.onnx"))
    nodes = []
    for node in model.graph.node:
        nodes.append(node)
        output = node.output[0] if node.output else ""
        if moments := observer.moments.get(output):
            node.output[0] = f"{output}{UNNORMALIZED}"
            noted = _noted_layer(node, chosen[output])
            prefix = noted or f"{chosen[output].removesuffix('.weight')}.normalization"
            nodes.append(_normalization(model.graph, node, prefix, moments, epsilon, opset))
            if noted:
                _own_notes(node, chosen[output])
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    _place_beside_weights(model.graph)
    return model


def _place_beside_weights(graph: onnx.GraphProto) -> None:
    """Store the weights of each new layer behind that of its convolution, as torch orders them."""
    made = {node.output[0]: node for node in graph.node}
    new = {
        made[node.input[0]].input[1]: node.input[1:]
        for node in graph.node
        if node.op_type == NORMALIZATION and node.input[0].endswith(UNNORMALIZED)
    }
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    moved = set(chain(*new.values()))
    names = [n for name in tensors if name not in moved for n in (name, *new.get(name, ()))]
    ordered = [tensors[name] for name in names]
    del graph.initializer[:]
    graph.initializer.extend(ordered)


def _of_batch(source: Source, batch: Any, **options: Any) -> onnx.ModelProto:
    return reinsert_batchnorm(source, *(batch if isinstance(batch, tuple) else (batch,)), **options)


REWRITES["reinsert_normalization"] = _of_batch


def _convolutions(
    graph: onnx.GraphProto, where: Names, stored: Mapping[str, Stored]
) -> dict[str, str]:
    """Output of each chosen convolution -> the name of its weight in the module."""
    weights = {t.name for t in graph.initializer}
    normalized = {n.input[0] for n in graph.node if n.op_type == NORMALIZATION}
    weight_of = {
        node.output[0]: (node.input[1], stored[node.input[1]].names[0])
        for node in graph.node
        if node.op_type in CONVOLUTIONS
        and node.input[1] in weights.intersection(stored)
        and node.output[0] not in normalized
    }
    chosen = set(select(where, dict.fromkeys(chain(*weight_of.values())), WHERE))
    return {o: names[1] for o, names in weight_of.items() if not chosen.isdisjoint(names)}


class _Observer(Interpreter):
    """Records mean and variance per channel of some values."""

    def __init__(self, names: set[str]) -> None:
        self.names = names
        self.moments: dict[str, tuple[Tensor, Tensor]] = {}

    def run_step(self, step: Step, frame: Frame) -> Any:
        """Run one step, and record its output."""
        result = super().run_step(step, frame)
        if step.outputs[0] in self.names:
            var, mean = torch.var_mean(result.float(), [0, *range(2, result.ndim)], correction=0)
            self.moments[step.outputs[0]] = mean, var
        return result


def _noted_layer(convolution: NodeProto, weight_name: str) -> str:
    """The path of the layer that was folded into a convolution; "" where the file does not tell.

    torch's newer exporter notes the convolution at this layer, not at the module of its weight.
    """
    home, scopes = weight_name.rpartition(".")[0], scopes_of(convolution)
    noted = path_of(scopes[-1]) if scopes else ""
    return noted if is_torch_name(weight_name) and are_separate(noted, home) else ""


def _own_notes(convolution: NodeProto, weight_name: str) -> None:
    """Note a convolution at the module of its weight, where it was noted at that of a layer."""
    home = weight_name.rpartition(".")[0]
    around = [scope for scope in scopes_of(convolution)[:-1] if scope]
    del convolution.metadata_props[:]
    convolution.metadata_props.add(key=NAMES, value=str(["", *around, home, "convolution"]))


def _without_bias(graph: onnx.GraphProto, convolution: NodeProto) -> Tensor:
    """Remove the bias of a convolution, and return it; zero where it has none."""
    names = convolution.input[2:]
    bias = next((t for t in graph.initializer if t.name in names), None)
    if bias is None:
        return torch.zeros(())
    del convolution.input[2:]
    if not any(bias.name in node.input for node in graph.node):
        graph.initializer.remove(bias)
    return torch.from_numpy(numpy_helper.to_array(bias).copy()).float()


def _normalization(
    graph: onnx.GraphProto,
    convolution: NodeProto,
    prefix: str,
    moments: tuple[Tensor, Tensor],
    epsilon: float,
    opset: int,
) -> NodeProto:
    """The node behind one convolution; its four weights become initializers."""
    output = convolution.output[0].removesuffix(UNNORMALIZED)
    weight = next(t for t in graph.initializer if t.name == convolution.input[1])
    dtype = helper.tensor_dtype_to_np_dtype(weight.data_type)
    mean, var = moments
    values = {
        "weight": (var + epsilon).sqrt(),
        "bias": mean,
        "running_mean": mean - _without_bias(graph, convolution).to(mean),
        "running_var": var,
    }
    taken = {t.name for t in graph.initializer}
    while f"{prefix}.weight" in taken:  # two convolutions with one weight
        prefix += "_"
    for name, value in values.items():
        array = value.numpy(force=True).astype(dtype)
        graph.initializer.append(numpy_helper.from_array(array, f"{prefix}.{name}"))
    attributes: dict[str, Any] = {"is_test": 1} if opset < 7 else {}
    node = helper.make_node(
        NORMALIZATION,
        [f"{output}{UNNORMALIZED}", *(f"{prefix}.{name}" for name in values)],
        [output],
        name=f"{convolution.name or output}.normalization",
        epsilon=epsilon,
        **attributes,
    )
    node.metadata_props.extend(convolution.metadata_props)
    return node
