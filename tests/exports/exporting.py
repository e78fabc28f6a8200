"""One network as one ONNX model, by either of torch's exporters, with their warnings accounted for.

A warning that is not listed here fails the test that caused it: a new one is a change to look at.
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path

import onnx
import torch
from torch.jit._trace import TracerWarning

from tests.exports.case import Case, Export

EXPECTED_WARNINGS: dict[str, type[Warning]] = {
    # torch.export is the default since 2.9; the models of the last years came from the older one.
    "You are using the legacy TorchScript-based ONNX export": DeprecationWarning,
    "The feature will be removed": DeprecationWarning,
    # group_norm and LSTM check the sizes of their inputs; the checks are not to be in the graph.
    "Converting a tensor to a Python boolean": TracerWarning,
    # Our initial states follow the batch: the runs at several batch sizes hold this to account.
    "Exporting a model to ONNX with a batch_size other than 1": UserWarning,
    # torch.export on LSTM: its own list of weights, and a check that torch itself still writes.
    r"The tensor attributes? self\.lstm\._flat_weights": UserWarning,
    "_check_is_size will be removed": FutureWarning,
}


@contextmanager
def expected_warnings() -> Iterator[None]:
    with warnings.catch_warnings():
        for message, category in EXPECTED_WARNINGS.items():
            warnings.filterwarnings("ignore", message=message, category=category)
        yield


def _with_torchscript(case: Case, opset: int) -> onnx.ModelProto:
    names = [spec.name for spec in case.inputs]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.onnx"
        torch.onnx.export(
            case.module(),
            case.arguments(case.sizes[0]),
            file,
            dynamo=False,
            opset_version=opset,
            input_names=names,
            output_names=list(case.outputs),
            dynamic_axes=dict(zip(names, case.dynamic_dims(), strict=True)),
        )
        return onnx.load(file)


def _with_dynamo(case: Case, opset: int) -> onnx.ModelProto:
    program = torch.onnx.export(
        case.module(),
        case.arguments(case.sizes[0]),
        dynamo=True,
        verbose=False,
        opset_version=opset,
        input_names=[spec.name for spec in case.inputs],
        output_names=list(case.outputs),
        dynamic_shapes=dynamic_shapes(case),
    )
    assert program is not None
    return program.model_proto


def dynamic_shapes(case: Case) -> tuple[dict[int, object], ...]:
    """Return what torch.export wants to hear: these axes stay symbols, or it is an error."""
    return tuple(dict.fromkeys(dims, torch.export.Dim.DYNAMIC) for dims in case.dynamic_dims())


def export(case: Case, how: Export) -> onnx.ModelProto:
    """Return the network of `case` as ONNX, at the very opset asked for."""
    if how.exporter == "dynamo" and case.name in SERVED_ONCE:
        with ProcessPoolExecutor(1, get_context("spawn")) as process:
            return onnx.load_from_string(process.submit(_written, case.name, how).result())
    return _export(case, how)


SERVED_ONCE = frozenset({"tagger"})
"""Networks with an LSTM: torch 2.14 takes its sizes for static the second time in a process."""


def _written(name: str, how: Export) -> bytes:
    from tests.exports.modules import CASES  # the networks import this file

    return _export(next(case for case in CASES if case.name == name), how).SerializeToString()


def _export(case: Case, how: Export) -> onnx.ModelProto:
    write = _with_torchscript if how.exporter == "torchscript" else _with_dynamo
    # Without no_grad the newer exporter trips over the strides of scaled_dot_product_attention.
    with expected_warnings(), torch.no_grad():
        model = write(case, how.opset)
    opsets = {entry.domain: entry.version for entry in model.opset_import}
    assert opsets[""] == how.opset
    return model
