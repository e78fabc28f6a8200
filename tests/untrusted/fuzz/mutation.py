"""A broken file of a seed: the same bases and the same seed make the same file."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import onnx
from google.protobuf.message import DecodeError, EncodeError, Message
from onnx import ModelProto

from tests.property.drawing import SeededDraw
from tests.property.one_node import drawn
from tests.property.served import SERVED, label
from tests.untrusted.fuzz.choices import PLAIN, Seeded
from tests.untrusted.fuzz.drafting import Drafter
from tests.untrusted.fuzz.edits import EDITS, OFTEN, varint
from tests.untrusted.fuzz.fields import INTEGERS, cut
from tests.untrusted.fuzz.judging import finished
from tests.untrusted.fuzz.keeping import CORPUS
from tests.untrusted.fuzz.ours import OwnValues
from tests.untrusted.fuzz.regions import wrap

GRAPHS = 60
BYTES_ONLY = 0.2  # of the files: what happens to them happens to their bytes
REFUSED = (ValueError, TypeError, IndexError, DecodeError, EncodeError, UnicodeError)


@dataclass(frozen=True)
class Base:
    """A valid model, and inputs that it takes."""

    name: str
    model: bytes
    feeds: dict[str, Any]


@cache
def bases() -> list[Base]:
    """A call of each operator at each version, whole graphs, and the corpus."""
    found = []
    for schema in SERVED:
        for constants in ("none", "all"):
            draw = SeededDraw(f"{label(schema)} {constants}", schema, only=PLAIN)
            case = drawn(schema, draw, constants)
            found.append(Base(label(schema), case.model.SerializeToString(), case.feeds))
    for seed in range(GRAPHS):
        choices = Seeded(f"base {seed}")
        draft = Drafter(choices, OwnValues()).grow(choices.integer(2, 6))
        for _ in range(2):
            if draft.nodes:
                wrap(draft, choices)
        model, names = finished(draft, choices)
        feeds = {i.name: draft.values[names[i.name]] for i in model.graph.input}
        found.append(Base(f"graph {seed}", model.SerializeToString(), feeds))
    files = sorted(CORPUS.glob("*.onnx"))
    return [*found, *(Base(path.name, path.read_bytes(), {}) for path in files)]


@cache
def stored(path: str) -> list[Base]:
    """The bases that were written to a file, so that each process need not make them."""
    made: list[Base] = pickle.loads(Path(path).read_bytes())
    return made


def parsed(data: bytes) -> ModelProto | None:
    """A model; None where it is none."""
    try:
        return onnx.load_from_string(data)
    except (DecodeError, ValueError):
        return None


def mutant(found: Sequence[Base], seed: int) -> tuple[bytes, Base]:
    """The broken file of a seed, and what it was before."""
    random = Random(seed)
    base, donor = random.choice(found), random.choice(found)
    data = base.model
    model = None if random.random() < BYTES_ONLY else parsed(data)
    if model is not None:
        other = parsed(donor.model) or ModelProto()
        for _ in range(random.choice((1, 1, 1, 2, 2, 3, 5))):
            (edit,) = random.choices(EDITS, OFTEN)
            try:
                edit(model, other, random)
            except REFUSED:
                continue
        data = _serialized(model) or data
    if model is None or random.random() < 0.03:
        for _ in range(random.choice((1, 1, 2, 4))):
            data = broken(data, donor.model, random)
    return data, base


def _serialized(model: Message) -> bytes | None:
    try:
        data: bytes = model.SerializeToString()
    except REFUSED:
        return None
    return data


def broken(data: bytes, other: bytes, random: Random) -> bytes:
    """Bytes that are flipped, cut, put together of two files, or overwritten by a huge number."""
    kind, at = random.randrange(6), random.randrange(len(data) + 1)
    if kind == 0:
        out = bytearray(data)
        for _ in range(random.choice((1, 1, 2, 8))):
            if out:
                out[random.randrange(len(out))] ^= 1 << random.randrange(8)
        return bytes(out)
    if kind == 1:
        return data[:at]
    if kind == 2:
        return data[:at] + other[random.randrange(len(other) + 1) :]
    if kind == 3:
        number = varint(random.choice(INTEGERS) & 2**64 - 1)
        return data[:at] + number + data[at + random.choice((0, 1, len(number))) :]
    if kind == 4:
        start = random.randrange(len(data) + 1)
        return data[:at] + data[start : start + random.randrange(64)] + data[at:]
    return cut(data, random)
