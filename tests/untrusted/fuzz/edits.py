"""What may happen to a parsed model: one edit each, drawn from a random generator.

An edit need not succeed: protobuf refuses some values, and not every model has what an edit wants.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from random import Random
from typing import Any, TypeAlias

from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, helper

from onnxinterp.registry import KERNELS
from tests.untrusted.fuzz.fields import (
    FLOATS,
    INTEGERS,
    INVALID,
    TEXTS,
    change_scalar,
    cut,
    drop_field,
    every,
    graft,
    rearrange,
    set_unset,
    within,
)

Edit: TypeAlias = Callable[[ModelProto, ModelProto, Random], None]  # of a model, with a donor

OPERATORS = tuple(sorted(KERNELS))


def names(model: ModelProto) -> list[str]:
    """Names of values, the empty one among them."""
    nodes = every(model, NodeProto)
    found = {n for node in nodes for n in (*node.input, *node.output)}
    found |= {i.name for i in model.graph.input} | {t.name for t in model.graph.initializer}
    return sorted((n for n in found if isinstance(n, str)), key=str)


def rewire(model: ModelProto, _donor: ModelProto, random: Random) -> None:
    """A node reads or defines another value: loops, absent inputs, definitions that clash."""
    if nodes := every(model, NodeProto):
        node = random.choice(nodes)
        listed = node.output if random.random() < 0.3 else node.input
        name = random.choice(["", "nowhere", *names(model)])
        if listed and random.random() < 0.8:
            listed[random.randrange(len(listed))] = name
        else:
            listed.append(name)


def rename(model: ModelProto, _donor: ModelProto, random: Random) -> None:
    """A value gets another name wherever it is used, perhaps one that there is."""
    known = names(model)
    if not known:
        return
    old, new = random.choice(known), random.choice([*known, *TEXTS])
    for node in every(model, NodeProto):
        node.input[:] = [new if n == old else n for n in node.input]
        node.output[:] = [new if n == old else n for n in node.output]
    for graph in every(model, GraphProto):
        for listed in (graph.input, graph.output, graph.initializer):
            for entry in listed:
                entry.name = new if entry.name == old else entry.name


def retarget(model: ModelProto, _donor: ModelProto, random: Random) -> None:
    """A node is one of another operator, with the same inputs and attributes."""
    if nodes := every(model, NodeProto):
        node = random.choice(nodes)
        node.domain, node.op_type = random.choice(OPERATORS)
        if not any(o.domain == node.domain for o in model.opset_import):
            model.opset_import.append(helper.make_opsetid(node.domain, random.randrange(1, 6)))


def reversion(model: ModelProto, _donor: ModelProto, random: Random) -> None:
    """Another opset, or another version of the format."""
    if model.opset_import and random.random() < 0.85:
        opset = random.choice(model.opset_import)
        opset.version = random.choice((*range(1, 29), *INTEGERS))
    else:
        model.ir_version = random.choice((*range(14), *INTEGERS))


def add_attribute(model: ModelProto, _donor: ModelProto, random: Random) -> None:
    """An attribute that some operator has, of any type and value."""
    nodes = every(model, NodeProto)
    if not nodes:
        return
    node = random.choice(nodes)
    kernels = KERNELS.get((node.domain, node.op_type), {})
    known = sorted({name for kernel in kernels.values() for name in kernel.attributes}) or ["axis"]
    held = [a for a in node.attribute if a.name in known]
    attribute = random.choice(held) if held and random.random() < 0.5 else node.attribute.add()
    numbers = [random.choice(INTEGERS) for _ in range(random.randrange(5))]
    value: Any = random.choice(
        (
            random.choice(INTEGERS),
            random.choice(FLOATS),
            random.choice(TEXTS),
            numbers,
            [float(n) for n in numbers] or [0.5],
            list(TEXTS[: random.randrange(1, 4)]),
            helper.make_tensor("t", TensorProto.INT64, [len(numbers)], numbers),
        )
    )
    name = attribute.name or random.choice(known)
    attribute.CopyFrom(helper.make_attribute(name, value, attr_type=_type_of(value)))


def _type_of(value: Any) -> int | None:
    """What an empty list is a list of."""
    return AttributeProto.INTS if value == [] else None


def mistype_attribute(model: ModelProto, _donor: ModelProto, random: Random) -> None:
    """An attribute says it is of another type than what it holds, or that it is a function's."""
    if attributes := every(model, AttributeProto):
        attribute = random.choice(attributes)
        if random.random() < 0.8:
            attribute.type = random.choice(AttributeProto.AttributeType.values())
        else:
            attribute.ref_attr_name = random.choice(("alpha", attribute.name, ""))


def break_tensor(model: ModelProto, _donor: ModelProto, random: Random) -> None:
    """Shape, type and data of a tensor fall apart."""
    tensors = every(model, TensorProto)
    if not tensors:
        return
    tensor = random.choice(tensors)
    kind = random.randrange(6)
    if kind == 0:
        tensor.dims[:] = [random.choice(INTEGERS) for _ in range(random.randrange(5))]
    elif kind == 1:
        tensor.data_type = random.choice((*range(-1, 30), *INTEGERS))
    elif kind == 2:
        tensor.raw_data = cut(tensor.raw_data, random)
    elif kind == 3:
        tensor.dims.append(random.choice((0, 1, 2, 10**6, 2**40)))
    elif kind == 4:
        tensor.data_location = TensorProto.EXTERNAL
        for key in ("location", "offset", "length", "checksum"):
            if random.random() < 0.6:
                value = random.choice((*TEXTS, *map(str, INTEGERS), "1e9", "0x10", " 4 ", "+1"))
                tensor.external_data.add(key=key, value=value)
    else:
        tensor.int32_data.append(1)
        tensor.float_data.append(random.choice(FLOATS))


def break_type(model: ModelProto, _donor: ModelProto, random: Random) -> None:
    """What an input or output is said to be."""
    infos = [*model.graph.input, *model.graph.output, *model.graph.value_info]
    if not infos:
        return
    kind = random.choice(infos).type
    if random.random() < 0.3:
        for _ in range(random.choice((1, 2, 30))):
            kind = kind.sequence_type.elem_type
        kind.tensor_type.elem_type = TensorProto.FLOAT
    elif random.random() < 0.5:
        kind.tensor_type.elem_type = random.choice((*range(27), *INTEGERS))
    else:
        kind.tensor_type.shape.dim.add(dim_value=random.choice(INTEGERS))


def nest(model: ModelProto, _donor: ModelProto, random: Random) -> None:
    """The graph becomes a branch of an If in itself, once or often."""
    for _ in range(random.choice((1, 1, 2, 10, 30, 60))):
        graph = GraphProto()
        graph.CopyFrom(model.graph)
        outputs = [o.name for o in graph.output]
        condition = helper.make_tensor("condition", TensorProto.BOOL, [], [random.random() < 0.5])
        del model.graph.node[:], graph.input[:]
        model.graph.initializer.append(condition)
        node = helper.make_node("If", ["condition"], outputs, then_branch=graph, else_branch=graph)
        model.graph.node.append(node)
        if model.ByteSize() > 5_000:
            break


def call_itself(model: ModelProto, _donor: ModelProto, random: Random) -> None:
    """A function of the graph's nodes, which calls itself, another one, or many."""
    nodes = list(model.graph.node)[:20]
    inputs = [i.name for i in model.graph.input][:3]
    outputs = [o.name for o in model.graph.output][:3]
    if not outputs or not nodes:
        return
    depth, width = random.choice(((1, 1), (3, 2), (12, 2), (40, 1), (5, 10)))
    opsets = list(model.opset_import)
    imports = [*opsets, helper.make_opsetid("own", 1)]
    for level in range(depth):
        last = level == depth - 1
        target = 0 if last and random.random() < 0.5 else level + 1
        calls = [
            helper.make_node(f"f{target}", inputs, [f"c{i}_{o}" for o in outputs], domain="own")
            for i in range(width)
        ]
        body = nodes if last and target else [*calls, *nodes]
        made = helper.make_function("own", f"f{level}", inputs, outputs, body, imports)
        model.functions.append(made)
    del model.graph.node[:]
    model.graph.node.append(helper.make_node("f0", inputs, outputs, domain="own"))
    model.opset_import.append(imports[-1])


def add_unknown(model: ModelProto, _donor: ModelProto, random: Random) -> None:
    """Fields that the format does not have, or has in another wire type; text that is no text."""
    message = within(model, random)
    number = random.choice((*(f.number for f in message.DESCRIPTOR.fields), 100, 2**20, 2**29 - 1))
    kind = random.randrange(6)
    payload = random.choice(INVALID) if random.random() < 0.5 else random.randbytes(6)
    content = {
        0: b"\xff" * random.choice((1, 9)) + b"\x01",
        1: struct.pack("<d", random.choice(FLOATS)),
        2: bytes([len(payload)]) + payload,
        5: struct.pack("<f", 0.5),
    }.get(kind, b"")
    message.MergeFromString(varint(number << 3 | kind) + content)


def varint(number: int) -> bytes:
    """A whole number as protobuf writes it."""
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes([*out, number])


EDITS: tuple[Edit, ...] = (
    *(change_scalar, set_unset, drop_field, rearrange, graft),
    *(rewire, rename, retarget, reversion),
    *(add_attribute, mistype_attribute, break_tensor, break_type),
    *(nest, call_itself, add_unknown),
)
OFTEN = (
    *(6, 3, 4, 5, 3),
    *(6, 2, 4, 3),
    *(6, 3, 5, 3),
    *(1, 1, 3),
)
"""How often each happens, in proportion."""
