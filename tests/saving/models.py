"""Small models, and what the tests ask of a saved file."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from google.protobuf.message import Message
from onnx import TensorProto, helper, numpy_helper

from onnxinterp import OnnxModule
from tests.models import HEADER
from tests.models import parse as parse

AFFINE = (
    f"{HEADER} g (float[2,3] x) => (float[2,3] y) <float[3] w = {{1, 2, 3}}> {{ y = Add(x, w) }}"
)
LARGE = 1000  # elements of a weight whose data the module does not keep a second time
OLD, NEW = 1.0, 2.0  # versions of a file: the number that all its weights have


def sum_of(*tensors: TensorProto) -> onnx.ModelProto:
    """Make y = x + the tensors, which are floats of one shape."""
    values = ["x", *(f"sum{i}" for i in range(1, len(tensors))), "y"]
    nodes = [
        helper.make_node("Add", [before, tensor.name], [after], name=f"add {tensor.name}")
        for tensor, before, after in zip(tensors, values, values[1:], strict=False)
    ]
    x, y = (
        helper.make_tensor_value_info(n, tensors[0].data_type, list(tensors[0].dims)) for n in "xy"
    )
    graph = helper.make_graph(nodes, "sum", [x], [y], tensors, doc_string="of them all")
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    model.metadata_props.add(key="licence", value="none")
    return model


def raw(name: str, *shape: int, seed: int = 0) -> TensorProto:
    """A float tensor of random numbers as raw data."""
    array = np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
    return numpy_helper.from_array(array, name)


def write_external(
    model: onnx.ModelProto, path: Path, *names: str, location: str = "w.bin"
) -> Path:
    """Save with these initializers in one external file: 0x5A between and behind them."""
    data = bytearray(b"\x5a" * 64)
    for tensor in model.graph.initializer:
        if tensor.name in names:
            values = numpy_helper.to_array(tensor).tobytes()
            tensor.ClearField("raw_data")
            tensor.data_location = TensorProto.EXTERNAL
            for key, value in (
                ("location", location),
                ("offset", str(len(data))),
                ("length", str(len(values))),
            ):
                tensor.external_data.add(key=key, value=value)
            data += values + b"\x5a" * 100
            data += b"\x5a" * (-len(data) % 64)
    path.parent.mkdir(parents=True, exist_ok=True)
    (path.parent / location).parent.mkdir(parents=True, exist_ok=True)
    (path.parent / location).write_bytes(data)
    path.write_bytes(model.SerializeToString())
    return path


def three() -> onnx.ModelProto:
    """A model of the large weights w, v and u."""
    return sum_of(*(raw(n, LARGE) for n in "wvu"))


def write_three(
    folder: Path, external: str = "wv", *, number: float = OLD, location: str = "w.bin"
) -> Path:
    """A file of three weights, all of them `number`; those in `external` are beside it."""
    path = write_external(three(), folder / "m.onnx", *external, location=location)
    module = OnnxModule(path)
    fill(module, number)
    module.save_onnx(path)
    return path


def fill(module: OnnxModule, number: float) -> None:
    with torch.no_grad():
        for weight in module.weights.values():
            weight.fill_(number)


def version(path: Path) -> float:
    """The one number that all weights of a file of three have, whatever its form is."""
    if path.suffix == ".pth":
        tensors = list(torch.load(path, weights_only=True).values())
    elif path.suffix == ".pt2":
        tensors = list(torch.export.load(path).state_dict.values())
    elif path.suffix == ".safetensors":
        module = OnnxModule(three())
        module.load_safetensors(path)
        tensors = list(module.weights.values())
    else:
        tensors = list(OnnxModule(path).weights.values())
    numbers = {n for t in tensors for n in t.flatten().tolist()}
    assert len(numbers) == 1, f"weights of several versions: {numbers}"
    return float(numbers.pop())


@contextmanager
def steps_to_the_disk() -> Iterator[list[tuple[str, int]]]:
    """What is synced and what takes a name, in order, by inode; nothing waits for the disk."""
    steps: list[tuple[str, int]] = []
    replace = Path.replace

    def note(part: Path, target: Path) -> Path:
        steps.append(("replace", part.stat().st_ino))
        return replace(part, target)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda d: steps.append(("fsync", os.fstat(d).st_ino)))
        patch.setattr(Path, "replace", note)
        yield steps


def tune(module: torch.nn.Module) -> None:
    """Change every parameter that trains, as an optimizer does."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.requires_grad:
                noise = torch.randn(parameter.shape, generator=generator) * 0.1
                parameter.add_(noise.to(parameter))


def saved(module: OnnxModule, path: Path, **keywords: Any) -> bytes:
    module.save_onnx(path, **keywords)
    assert list(path.parent.rglob("*.part")) == [], "no litter"
    return path.read_bytes()


def run(
    path: Path, *inputs: torch.Tensor | np.ndarray[Any, Any], as_written: bool = False
) -> list[Any]:
    """What onnxruntime makes of a file; on demand, without the fusions that round elsewhere."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    if as_written:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = [i.name for i in session.get_inputs()]
    feeds = dict(zip(names, (np.asarray(i) for i in inputs), strict=True))
    return list(session.run(None, feeds))


def mean_square_error(got: Any, want: Any) -> float:
    """The largest over the outputs."""
    many = got if isinstance(got, tuple) else (got,)
    assert len(many) == len(want)
    return max(
        float(np.mean((g.detach().double().numpy() - w.astype(np.float64)) ** 2))
        for g, w in zip(many, want, strict=True)
    )


def differences(a: Message, b: Message, path: str = "") -> Iterator[str]:
    """The paths of the fields in which two messages differ, tensors taken as a whole."""
    if isinstance(a, TensorProto):
        if a != b:
            yield f"{path}:{a.name}"
        return
    for field in a.DESCRIPTOR.fields:
        x, y = getattr(a, field.name), getattr(b, field.name)
        here = f"{path}/{field.name}"
        if x == y:
            continue
        if hasattr(x, "add") and len(x) == len(y):
            for p, q in zip(x, y, strict=True):
                yield from differences(p, q, here)
        elif isinstance(x, Message):
            yield from differences(x, y, here)
        else:
            yield here


def changed(before: onnx.ModelProto, path: Path) -> list[str]:
    """Where the file at `path` differs from a model."""
    return list(differences(before, onnx.load(path)))
