"""A module as an ONNX file in memory, with its current weights, for other runtimes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import onnx

from onnxinterp.errors import EngineError, OnnxError
from onnxinterp.registry import ACCURACY_ATTRIBUTES
from onnxinterp.snapshots.subject import Subject, check_file_suffices
from onnxinterp.writing.save import in_memory

FIRST_WITH_CONSTANTS = 4  # IR version from which on an initializer need not be an input


class Exported(NamedTuple):
    """An ONNX model.

    Attributes:
        content: its bytes.
        files: location -> bytes of external data.
    """

    content: bytes
    files: dict[str, memoryview]

    @contextmanager
    def on_disk(self) -> Iterator[Path]:
        """The model with its external data in a folder that is removed afterwards."""
        with TemporaryDirectory(prefix="onnxinterp-") as folder:
            path = Path(folder, "model.onnx")
            path.write_bytes(self.content)
            for location, data in self.files.items():
                file = path.with_name(location)
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(data)
            yield path


def export(module: Subject) -> Exported:
    """The file of a module with its current weights, and the outputs that it has now.

    Attributes that let a runtime be less exact than the module do not: a snapshot is to compute the
    same. Initializers that a call might give are constants: such calls run in the module.

    Raises:
        EngineError: a file cannot hold what the module computes with.
    """
    check_file_suffices(module)
    try:
        content, files = in_memory(module.weights.as_stored, module.template)
    except OnnxError as error:
        raise EngineError(str(error)) from error
    proto = onnx.ModelProto.FromString(content)
    kept = {info.name for info in module.inputs}
    if proto.ir_version < FIRST_WITH_CONSTANTS:
        kept.update(tensor.name for tensor in proto.graph.initializer)
    inputs = [i for i in proto.graph.input if i.name in kept]
    outputs = [o.name for o in proto.graph.output]
    is_exact = not _require_exact(proto.graph)
    is_whole = tuple(outputs) == module.output_names and len(inputs) == len(proto.graph.input)
    if is_exact and is_whole:
        return Exported(content, files)
    _cut(proto.graph, module.output_names)
    del proto.graph.input[:]
    proto.graph.input.extend(inputs)
    return Exported(proto.SerializeToString(), files)


def _require_exact(graph: onnx.GraphProto) -> bool:
    """Set the attributes of `ACCURACY_ATTRIBUTES` to exact; whether one was not."""
    changed = False
    for node in graph.node:
        for attribute in node.attribute:
            exact = ACCURACY_ATTRIBUTES.get(attribute.name, attribute.i)
            if attribute.i != exact:
                attribute.i, changed = exact, True
            for inner in (attribute.g, *attribute.graphs):
                changed |= _require_exact(inner)
    return changed


def _cut(graph: onnx.GraphProto, outputs: Sequence[str]) -> None:
    """Give a graph other outputs, and remove the nodes that they do not need."""
    declared = {o.name: o for o in graph.output}
    wanted = [declared.get(name, onnx.ValueInfoProto(name=name)) for name in outputs]
    makers = {name: index for index, node in enumerate(graph.node) for name in node.output if name}
    needed: set[int] = set()
    names = list(outputs)
    while names:  # nodes may be in any order
        index = makers.get(names.pop())
        if index is not None and index not in needed:
            needed.add(index)
            names += _reads(graph.node[index])
    nodes = [graph.node[index] for index in sorted(needed)]
    del graph.node[:], graph.output[:]
    graph.node.extend(nodes)
    graph.output.extend(wanted)


def _reads(node: onnx.NodeProto) -> Iterator[str]:
    """The names that a node reads, in its subgraphs, too."""
    yield from node.input
    for attribute in node.attribute:
        for graph in (attribute.g, *attribute.graphs):
            for inner in graph.node:
                yield from _reads(inner)
            yield from (output.name for output in graph.output)
