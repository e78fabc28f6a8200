"""Weights that share a tensor in the file: they get one each where they differ.

What `ties.untied` made its own has no tensor in the file. As long as it equals its origin, bit for
bit in the file's type, nothing changes. Otherwise a tensor of its name comes behind the origin's,
as raw data in the model (also where the origin is external: external files keep their size), and
the Identity that gave the name goes, or the nodes that read the weight read it under the new name.
A type declared for the name holds for the tensor too.
"""

from __future__ import annotations

from collections.abc import Mapping

from onnx import NodeProto, TensorProto
from torch import Tensor

from onnxinterp.errors import SaveError
from onnxinterp.format.tensor_bytes import check_weight, raw, raw_size, same
from onnxinterp.format.tensor_reader import TensorReader
from onnxinterp.format.wire import Chain, Edit, Place, Wire, edit, fields, number_of, tagged
from onnxinterp.weights import Weights
from onnxinterp.writing.template import Template
from onnxinterp.writing.tensor_edits import EXTERNAL, FORMS, RAW, Stored

INPUT = number_of(NodeProto, "input")


def tie_edits(
    weights: Weights, kept: Template, wire: Wire, chains: Mapping[Place, Chain]
) -> list[Edit]:
    """What gives each weight that differs from its origin a tensor of its own.

    Args:
        weights: the weights, by ONNX name.
        kept: the bytes they belong in.
        wire: the same bytes.
        chains: where in them the messages stand that ties concern.

    Raises:
        SaveError: a weight differs that is read inside a function, or does not fit.
    """
    stored = {name: Stored(wire, chains[tie.place], name) for name, tie in kept.ties.items()}

    def value(name: str, there: Stored) -> Tensor:
        return weights[name] if name in weights else _in_file(there, kept)

    differing = [
        name
        for name, tie in kept.ties.items()
        if (name in weights or tie.origin in weights)
        and not _equal(value(name, stored[name]), value(tie.origin, stored[name]), stored[name])
    ]
    together = {kept.ties[name].origin for name in differing if kept.ties[name].together}
    edits = []
    for name, tie in kept.ties.items():
        if name not in differing and not (tie.together and tie.origin in together):
            continue
        if tie.readers is None:
            raise SaveError(
                f"the weights {name!r} and {tie.origin!r} differ, but are one tensor that is read "
                "in a function; load the model with untie=False"
            )
        edits.append(_initializer(stored[name], value(name, stored[name])))
        edits += [_reading(wire, chains[place], index, name) for place, index in tie.readers]
    return edits


def _in_file(stored: Stored, kept: Template) -> Tensor:
    """What the file has: the module keeps these bytes where a part of it was cut off."""
    if stored.form == EXTERNAL:
        kept.external(stored.location, stored.name)
    value = TensorReader(kept.opened())(stored.proto())
    assert isinstance(value, Tensor), "strings are no weights"
    return value


def _equal(value: Tensor, origin: Tensor, stored: Stored) -> bool:
    check_weight(value, stored.header.data_type, tuple(stored.header.dims), stored.name)
    return same(value, origin, stored.header.data_type, stored.name)


def _initializer(origin: Stored, value: Tensor) -> Edit:
    """What puts a tensor behind the origin's."""
    header, name, field = origin.header, origin.name, origin.chain[-1]
    kind, size = header.data_type, raw_size(value, header.data_type, name)
    tensor = TensorProto(name=name, data_type=kind, dims=header.dims).SerializeToString()
    head = tensor + tagged(FORMS[RAW], size)
    head = tagged(field.number, len(head) + size) + head
    around = origin.chain[:-1]
    return Edit(
        field.stop, field.stop, len(head) + size, lambda: (head, *raw(value, kind, name)), around
    )


def _reading(wire: Wire, node: Chain, index: int | None, name: str) -> Edit:
    """What makes a node read a weight of its own, or removes the Identity that gave it."""
    field = node[-1]
    if index is None:
        return edit(field.at, field.stop, b"", node[:-1])
    inputs = [f for f in fields(wire, field.start, field.stop) if f.number == INPUT]
    return edit(inputs[index].start, inputs[index].stop, name.encode(), (*node, inputs[index]))
