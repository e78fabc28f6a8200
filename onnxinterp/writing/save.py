"""Weights back into the ONNX file they came from: what `OnnxModule.save_onnx` does.

    save              a template (`templates.py`) with the weights in place, and its external data
        Changes       what the weights change: edits of the model, regions of external data

External data keep file, offset and length: the file is a copy of the source's but for the regions
of the weights. Where another model's file has that name in the new folder, the name is the new
model's own: `tuned.onnx.data`.

Model and data are two names, which no system replaces at one instant. Where both exist and both
change, the new data are first put under a second name and the model changes over to it; then the
first name gets the data, and the model changes back. At every moment the model under its name is
the old one with the old data or the new one with the new.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, field
from itertools import chain, count
from pathlib import Path
from typing import BinaryIO

import torch
from google.protobuf.message import DecodeError
from onnx import AttributeProto, TensorProto
from torch import Tensor

from onnxinterp.errors import InvalidModelError, SaveError
from onnxinterp.format.atomic import BLOCK, StagedFiles, differs, folder_lock, rights_of
from onnxinterp.format.files import external_path
from onnxinterp.format.tensor_bytes import check_weight
from onnxinterp.format.tensor_reader import TensorReader
from onnxinterp.format.wire import Chain, Edit, Place, Wire, walk, write
from onnxinterp.reading.source import content_of
from onnxinterp.weights import Weights
from onnxinterp.writing.split_ties import tie_edits
from onnxinterp.writing.template import AGAIN, Template
from onnxinterp.writing.tensor_edits import EXTERNAL, Stored, attribute_edits, sparse_edits


@dataclass
class Changes:
    """What the weights change.

    Attributes:
        edits: in the model.
        external: location -> the tensors in that file, and what they become; None for one that is
            no weight of the module.
    """

    edits: list[Edit] = field(default_factory=list)
    external: dict[str, list[tuple[Stored, Tensor | None]]] = field(default_factory=dict)


@torch.no_grad()
def save(weights: Weights, kept: Template, path: str | os.PathLike[str]) -> None:
    """Write a model and its external data, whole or not at all.

    Args:
        weights: the weights, by ONNX name.
        kept: the bytes they belong in.
        path: the file to write; external data come beside it.

    Raises:
        SaveError: a weight has no place, or does not fit into it.
        UnsafeModelError: external data would lie outside the folder of `path`, or behind a link.
        OSError: the disk is full, the folder is missing, ...; what was there before is as it was.
    """
    if (wire := kept.wire) is None:
        raise SaveError(f"a ModelProto of more than 2 GB has no bytes to write; {AGAIN}")
    target = Path(os.path.abspath(path))
    rights_of(target)  # a device must not even be read
    changes = _changes(weights, kept, wire)
    with folder_lock(target.parent) if changes.external else nullcontext():
        _write_files(changes, kept, wire, target)


def _write_files(changes: Changes, kept: Template, wire: Wire, target: Path) -> None:
    """Write the model and its external data, and give them their names."""
    names = _data_names(changes.external, target, kept.names_files)
    external = [stored for stored, _ in chain(*changes.external.values())]

    def model(names: Mapping[str, str]) -> Callable[[BinaryIO], None]:
        moves = [edit for stored in external for edit in stored.moved(names)]
        return lambda out: write(wire, [*changes.edits, *moves], out)

    with StagedFiles(target.parent) as parts:
        new = parts.write(target, model(names))
        data = {}
        for location, name in names.items():
            file = external_path(target.parent, name)
            data[file] = parts.write(file, _data(changes.external[location], kept, location))
        data = {file: part for file, part in data.items() if differs(part, file)}
        changed = {**data, target: new} if differs(new, target) else data
        if len(changed) > 1 and any(file.exists() for file in data):
            second = f".{secrets.token_hex(4)}"
            moved = {k: n + second for k, n in names.items() if target.parent / n in data}
            over = parts.write(target, model({**names, **moved}))
            _change_over(parts, data, second, over, new, target)
        else:
            for file, part in changed.items():
                parts.put(part, file)


def _change_over(
    parts: StagedFiles, data: Mapping[Path, Path], second: str, over: Path, new: Path, target: Path
) -> None:
    """Replace data files that the model in place uses; `over` uses them under a second name."""
    copies = [file.with_name(file.name + second) for file in data]
    for part, copy in zip(data.values(), copies, strict=True):
        parts.copy(part, copy)
    parts.hold(copies)
    try:
        parts.put(over, target)
    except BaseException:
        if over.exists():  # it has not taken its name: nothing uses the copies yet
            parts.cleanup += copies
        raise
    for file, part in data.items():
        parts.put(part, file)
    parts.put(new, target)
    parts.cleanup += copies


def _changes(weights: Weights, kept: Template, wire: Wire) -> Changes:
    """Go through the bytes, from tensor to tensor."""
    _refuse_homeless(weights, kept)
    changes, seen = Changes(), set()
    concerned = {p for tie in kept.ties.values() for p in tie.places}
    chains: dict[Place, Chain] = {}
    for place, kind, around in walk(wire):
        if place in concerned:
            chains[place] = around
        names = kept.places.get(place, ())
        stored = Stored(wire, around, *names[:1]) if kind is TensorProto else None
        if not names:
            if stored is not None and stored.form == EXTERNAL:
                changes.external.setdefault(stored.location, []).append((stored, None))
            continue
        if place in seen:
            raise InvalidModelError(f"the file has the tensor of {names[0]!r} in several pieces")
        seen.add(place)
        value = _agreed(weights, names)
        if stored is not None:
            _put(stored, value, changes)
        elif kind is AttributeProto:
            changes.edits += attribute_edits(wire, around, value, names[0])
        else:
            reader = TensorReader(kept.opened())
            changes.edits += sparse_edits(wire, around, value, names[0], reader)
    changes.edits += tie_edits(weights, kept, wire, chains)
    return changes


def _put(stored: Stored, value: Tensor, changes: Changes) -> None:
    check_weight(value, stored.header.data_type, tuple(stored.header.dims), stored.name)
    if stored.form == EXTERNAL:
        changes.external.setdefault(stored.location, []).append((stored, value))
    else:
        changes.edits += stored.edits(value)


def _refuse_homeless(weights: Weights, kept: Template) -> None:
    homes = {name for names in kept.places.values() for name in names}
    homes |= {name for name, tie in kept.ties.items() if tie.held} | kept.fixed.keys()
    if lost := [name for name in weights if name not in homes]:
        raise SaveError(f"the file has no place for the weights {', '.join(map(repr, lost))}")
    if gone := sorted(homes - weights.keys()):
        raise SaveError(f"the module has lost the weights {', '.join(map(repr, gone))}")
    for name, before in kept.fixed.items():
        if not _alike(weights[name], before.to(weights[name])):
            raise SaveError(
                f"the weight {name!r} was changed, but no file holds it: it is part of what an "
                "operator means, or a number handed to a function"
            )


def _agreed(weights: Weights, names: Sequence[str]) -> Tensor:
    """The value of the weights that stand at one place."""
    value = weights[names[0]]
    for name in names[1:]:
        if not _alike(value, weights[name]):
            raise SaveError(
                f"the weights {names[0]!r} and {name!r} differ, but are one tensor of a function "
                "that is called several times"
            )
    return value


def _alike(a: Tensor, b: Tensor) -> bool:
    flat = [x.detach().reshape(-1).contiguous().view(torch.uint8).to(a.device) for x in (a, b)]
    return a.dtype == b.dtype and a.shape == b.shape and torch.equal(*flat)


def _data_names(locations: Collection[str], target: Path, keep: bool) -> dict[str, str]:
    """Location in the source -> location beside the target.

    A file that is there already is overwritten only where the model that is replaced uses it.

    Args:
        locations: those in the source.
        target: the model.
        keep: whether files that are not there get these names.

    Raises:
        UnsafeModelError: a location is outside the folder of the target, or behind a link.
    """
    owned = _locations_in(target) if locations else frozenset()
    taken: set[str] = set()
    chosen: dict[str, str] = {}
    others = chain((f"{target.name}.data",), (f"{target.name}.{n}.data" for n in count(1)))
    for location in locations:
        for name in chain((location,), others):  # none of the others is tried twice
            file = external_path(target.parent, name)
            new = keep or name != location
            free = name in owned or (new and not os.path.lexists(file))
            if free and file != target and name not in taken:
                chosen[location] = name
                taken.add(name)
                break
    return chosen


def _locations_in(path: Path) -> frozenset[str]:
    """The external data that a file names; none where it is no model."""
    try:
        data = content_of(path)
        wire = Wire([(0, data)], len(data))
        stored = (Stored(wire, at) for _, kind, at in walk(wire) if kind is TensorProto)
        return frozenset(s.location for s in stored if s.form == EXTERNAL)
    except (FileNotFoundError, InvalidModelError, DecodeError):
        return frozenset()


def _data(
    tensors: Iterable[tuple[Stored, Tensor | None]], kept: Template, location: str
) -> Callable[[BinaryIO], None]:
    """What writes a file of external data."""
    stranger = next((stored.name for stored, value in tensors if value is None), None)
    regions = [(stored, value) for stored, value in tensors if value is not None]
    regions.sort(key=lambda region: region[0].offset)
    known = {str(Path(name)): size for name, size in kept.sizes.items()}

    def fill(out: BinaryIO) -> None:
        with ExitStack() as stack:
            folder = kept.external(location, stranger)
            base, size = None, known.get(location, 0)
            if folder is not None:
                base = stack.enter_context(folder.open(location))
                found = os.fstat(base.fileno()).st_size
                if size not in (0, found):
                    raise SaveError(
                        f"the external data {location!r} of {folder.path} have changed since they "
                        f"were read; {AGAIN}"
                    )
                size = found
            _write_data(out, base, size, regions)

    return fill


def _write_data(
    out: BinaryIO, base: BinaryIO | None, size: int, regions: list[tuple[Stored, Tensor]]
) -> None:
    """Write the weights and, between them, what is in the base; zeros where there is none."""
    at, overlap = 0, False
    for stored, value in regions:
        overlap |= stored.offset < at
        _copy(base, out, at, stored.offset)
        out.seek(stored.offset)
        out.writelines(stored.parts(value)())
        at = max(at, out.tell())
    _copy(base, out, at, size)
    out.truncate(max(at, size))
    for stored, value in regions if overlap else ():
        out.seek(stored.offset)
        if any(out.read(len(part)) != part for part in stored.parts(value)()):
            raise SaveError(f"the weight {stored.name!r} shares its bytes with one that differs")


def _copy(base: BinaryIO | None, out: BinaryIO, start: int, stop: int) -> None:
    if base is None:
        return
    base.seek(start)
    out.seek(start)
    while start < stop and (block := base.read(min(BLOCK, stop - start))):
        out.write(block)
        start += len(block)
