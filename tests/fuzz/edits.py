"""What may happen to a parsed model: one edit each, drawn from a random generator.

An edit need not succeed: protobuf refuses some values, and not every model has what an edit wants.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from functools import cache
from random import Random
from typing import Any, TypeAlias

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, helper

from onnxinterp.registry import KERNELS

Edit: TypeAlias = Callable[[ModelProto, ModelProto, Random], None]  # of a model, with a donor

INTEGERS = (
    *(0, 1, -1, 2, 3, 4, 7, 8, 11, 16, 17, 64, 255, 256, 1000, 65536, 10**6, 10**9),
    *(2**31 - 1, -(2**31), 2**31, 2**32, 2**33 + 1, 2**40, 2**62, 2**63 - 1, -(2**63)),
)
FLOATS = (0.0, -0.0, 1.0, -1.0, 0.5, 1e-45, 1e38, 1e300, math.inf, -math.inf, math.nan, 2.0**63)
TEXTS = (
    *("", "x", "x0", "y0", "x1", "ai.onnx", "ai.onnx.ml", "com.microsoft", "fuzz", "NOTSET", "mean"),
    *("../x", "/etc/passwd", "a/../../b", "C:\\x", "\0", "\n\x1b[31m", "%s%n{0.__class__}", "é"),
    *("__class__", "self", "forward", "weights", "a" * 70_000, "." * 50, "a.b.c", "axis", "axes"),
)
INVALID = (b"\xff\xfe", b"\xc3", b"a\x80b", b"\xed\xa0\x80")  # no UTF-8
OPERATORS = tuple(sorted(KERNELS))
WHOLE = frozenset(
    getattr(FieldDescriptor, f"CPPTYPE_{kind}") for kind in ("INT32", "INT64", "UINT32", "UINT64")
)


def within(message: Message, random: Random) -> Message:
    """Some message inside another, or the message itself."""
    while random.random() > 0.12:
        inner = [
            part
            for field, value in message.ListFields()
            if field.message_type is not None
            for part in (value if field.is_repeated else (value,))
        ]
        if not inner:
            break
        message = random.choice(inner)
    return message


def every(message: Message, kind: type[Any]) -> list[Any]:
    """The messages of one kind in another, wherever they stand."""
    found = [message] if isinstance(message, kind) else []
    for name, repeated in _towards(message.DESCRIPTOR, kind.DESCRIPTOR):
        if repeated:
            for part in getattr(message, name):
                found += every(part, kind)
        elif message.HasField(name):
            found += every(getattr(message, name), kind)
    return found


@cache
def _towards(start: Descriptor, end: Descriptor) -> list[tuple[str, bool]]:
    """The fields of one kind of message that may lead to another: names, and whether repeated."""
    return [
        (field.name, field.is_repeated)
        for field in start.fields
        if field.message_type is not None and end in _reached(field.message_type)
    ]


@cache
def _reached(start: Descriptor) -> set[Descriptor]:
    """The kinds of messages in one kind, itself included."""
    found, left = set(), [start]
    while left:
        kind = left.pop()
        if kind not in found:
            found.add(kind)
            left += [f.message_type for f in kind.fields if f.message_type is not None]
    return found


def names(model: ModelProto) -> list[str]:
    """Names of values, the empty one among them."""
    nodes = every(model, NodeProto)
    found = {n for node in nodes for n in (*node.input, *node.output)}
    found |= {i.name for i in model.graph.input} | {t.name for t in model.graph.initializer}
    return sorted((n for n in found if isinstance(n, str)), key=str)


def scalar(field: FieldDescriptor, old: Any, random: Random) -> Any:
    """Another value for a field that is no message."""
    if field.cpp_type in WHOLE:
        near = isinstance(old, int) and random.random() < 0.4
        return old + random.choice((-2, -1, 1, 2)) if near else random.choice(INTEGERS)
    if field.cpp_type == FieldDescriptor.CPPTYPE_ENUM:
        return random.choice(field.enum_type.values).number
    if field.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
        return not old
    if field.cpp_type != FieldDescriptor.CPPTYPE_STRING:
        return random.choice(FLOATS)
    if field.type == FieldDescriptor.TYPE_BYTES:
        return cut(old, random) if old else random.randbytes(random.randrange(40))
    return random.choice(TEXTS)


def cut(data: bytes, random: Random) -> bytes:
    """Data with something gone, added or changed."""
    at = random.randrange(len(data) + 1)
    kind = random.randrange(4)
    if kind == 0:
        return data[:at]
    if kind == 1:
        return data[:at] + data[at + random.randrange(1, 9) :]
    if kind == 2:
        return data[:at] + random.randbytes(random.randrange(1, 9)) + data[at:]
    return data[:at] + random.randbytes(min(len(data) - at, random.randrange(1, 9))) + data[at + 8 :]


def change_scalar(model: ModelProto, _donor: ModelProto, random: Random) -> None:
    message = within(model, random)
    held = [f for f, _ in message.ListFields() if f.message_type is None]
    if held:
        field = random.choice(held)
        value = getattr(message, field.name)
        if field.is_repeated:
            at = random.randrange(len(value))
            value[at] = scalar(field, value[at], random)
        else:
            setattr(message, field.name, scalar(field, value, random))


def set_unset(model: ModelProto, _donor: ModelProto, random: Random) -> None:
    message = within(model, random)
    field = random.choice(message.DESCRIPTOR.fields)
    if field.message_type is not None:
        part = getattr(message, field.name)
        part.add() if field.is_repeated else part.SetInParent()
    elif field.is_repeated:
        getattr(message, field.name).append(scalar(field, None, random))
    else:
        setattr(message, field.name, scalar(field, None, random))


def drop_field(model: ModelProto, _donor: ModelProto, random: Random) -> None:
    message = within(model, random)
    if held := message.ListFields():
        message.ClearField(random.choice(held)[0].name)


def rearrange(model: ModelProto, _donor: ModelProto, random: Random) -> None:
    """Drop, double, swap or move what a repeated field holds."""
    for _ in range(4):
        message = within(model, random)
        held = [(f, v) for f, v in message.ListFields() if f.is_repeated]
        if held:
            break
    else:
        return
    field, value = random.choice(held)
    at, to = random.randrange(len(value)), random.randrange(len(value))
    kept = [_copied(v) for v in value]
    kind = random.randrange(4)
    if kind == 0:
        del kept[at]
    elif kind == 1:
        kept.insert(to, _copied(kept[at]))
    elif kind == 2:
        kept[at], kept[to] = kept[to], kept[at]
    else:
        kept.insert(to, kept.pop(at))
    message.ClearField(field.name)
    getattr(message, field.name).extend(kept)


def _copied(value: Any) -> Any:
    if not isinstance(value, Message):
        return value
    copy = type(value)()
    copy.CopyFrom(value)
    return copy


def graft(model: ModelProto, donor: ModelProto, random: Random) -> None:
    """A part of another model in place of one of the same kind."""
    part = within(model, random)
    if part is not model and (donors := every(donor, type(part))):
        part.CopyFrom(random.choice(donors))


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
        node = helper.make_node(
            "If", ["condition"], outputs, then_branch=graph, else_branch=graph
        )
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
