"""Weights that share a tensor in the file: each gets a tensor of its own if they differ.

    tie_edits   the edits of the model

A weight that `graph.ties` has separated has no tensor in the file. If it equals its origin, bit for
bit in the file's type, nothing changes. Otherwise a tensor with its name is added after the
origin's, as raw data in the model (external files keep their size). The Identity of that name is
removed, or the nodes that read the weight read the new name. A type declared for the name also
holds for the tensor.
"""

from __future__ import annotations

from collections.abc import Mapping

from onnx import NodeProto, TensorProto
from torch import Tensor

from onnxinterp.errors import SaveError
from onnxinterp.format.tensor_bytes import check_weight, raw_parts, raw_size, same_bits
from onnxinterp.format.tensor_reader import TensorReader
from onnxinterp.format.wire import Chain, Edit, Place, Wire, edit, fields, number_of, tagged
from onnxinterp.weights.layouts import StoredWeights
from onnxinterp.writing.template import Template
from onnxinterp.writing.tensor_edits import EXTERNAL, FORMS, RAW, StoredTensor

INPUT = number_of(NodeProto, "input")


def tie_edits(
    weights: StoredWeights, template: Template, wire: Wire, chains: Mapping[Place, Chain]
) -> list[Edit]:
    """The edits that add a tensor for each weight that differs from its origin.

    Args:
        weights: the weights, by ONNX name.
        template: the template of their model.
        wire: its bytes.
        chains: where in them the messages of the ties are.

    Raises:
        SaveError: a weight that differs is read inside a function, or does not fit.
    """
    ties = template.ties
    stored = {name: StoredTensor(wire, chains[tie.place], name) for name, tie in ties.items()}

    def value(name: str, there: StoredTensor) -> Tensor:
        return weights[name] if name in weights else _read(there, template)

    differing = [
        name
        for name, tie in ties.items()
        if (name in weights or tie.origin in weights)
        and not _equal(value(name, stored[name]), value(tie.origin, stored[name]), stored[name])
    ]
    together = {ties[name].origin for name in differing if ties[name].together}
    edits = []
    for name, tie in ties.items():
        if name not in differing and not (tie.together and tie.origin in together):
            continue
        if tie.readers is None:
            raise SaveError(
                f"the weights {name!r} and {tie.origin!r} differ, but are one tensor that is read "
                "in a function; load the model with untie=False"
            )
        edits.append(_initializer(stored[name], value(name, stored[name])))
        edits += [_input_edit(wire, chains[place], index, name) for place, index in tie.readers]
    return edits


def _read(stored: StoredTensor, template: Template) -> Tensor:
    """The tensor in the file, of a weight that `outputs=` has cut off from the module."""
    if stored.form == EXTERNAL:
        template.external(stored.location, stored.name)
    return stored.value(TensorReader(template.opened()))


def _equal(value: Tensor, origin: Tensor, stored: StoredTensor) -> bool:
    check_weight(value, stored.header.data_type, tuple(stored.header.dims), stored.name)
    return same_bits(value, origin, stored.header.data_type, stored.name)


def _initializer(origin: StoredTensor, value: Tensor) -> Edit:
    """The edit that adds a tensor after the origin's."""
    header, name, field = origin.header, origin.name, origin.chain[-1]
    kind, size = header.data_type, raw_size(value, header.data_type, name)
    tensor = TensorProto(name=name, data_type=kind, dims=header.dims).SerializeToString()
    head = tensor + tagged(FORMS[RAW], size)
    head = tagged(field.number, len(head) + size) + head
    around = origin.chain[:-1]
    return Edit(
        field.stop,
        field.stop,
        len(head) + size,
        lambda: (head, *raw_parts(value, kind, name)),
        around,
    )


def _input_edit(wire: Wire, node: Chain, index: int | None, name: str) -> Edit:
    """The edit that makes a node read its own weight, or removes the Identity of the weight."""
    field = node[-1]
    if index is None:
        return edit(field.at, field.stop, b"", node[:-1])
    inputs = [f for f in fields(wire, field.start, field.stop) if f.number == INPUT]
    return edit(inputs[index].start, inputs[index].stop, name.encode(), (*node, inputs[index]))
