"""Write the weights back into the ONNX file that they came from, for `OnnxModule.save_onnx`.

    save       writes a template (`template.py`) with the weights, and its external data
    in_memory  the same as bytes, for a runtime that reads them at once
    Changes    the edits of the model, and the regions of external data that change

External data keep their file, offset and length: the new file is a copy of the source's except for
the regions of the weights. If the new folder has a file of that name from another model, the name
is derived from the new model: `tuned.onnx.data`.

No system replaces two files at one instant. If model and data both exist and both change, the new
data are first written under a second name, and the model is replaced by one that uses it. Then the
data are replaced, and the model again. At every moment the model is the old one with the old data,
or the new one with the new data.
"""

from __future__ import annotations

import io
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
from onnxinterp.format import atomic
from onnxinterp.format.atomic import StagedFiles
from onnxinterp.format.files import external_path
from onnxinterp.format.tensor_bytes import check_weight
from onnxinterp.format.tensor_reader import TensorReader
from onnxinterp.format.wire import Chain, Edit, Place, Wire, walk, write
from onnxinterp.reading.source import content_of
from onnxinterp.weights.layouts import StoredWeights
from onnxinterp.writing.split_ties import tie_edits
from onnxinterp.writing.template import LIKE_HINT, Template
from onnxinterp.writing.tensor_edits import EXTERNAL, StoredTensor, attribute_edits, sparse_edits


@dataclass
class Changes:
    """What changes in the files.

    Attributes:
        edits: those of the model.
        external: location -> the tensors in this file, with their new values; None for a tensor
            that is not a weight of the module.
    """

    edits: list[Edit] = field(default_factory=list)
    external: dict[str, list[tuple[StoredTensor, Tensor | None]]] = field(default_factory=dict)


@torch.no_grad()
def save(weights: StoredWeights, template: Template, path: str | os.PathLike[str]) -> None:
    """Write a model and its external data, whole or not at all.

    Args:
        weights: the weights, by ONNX name.
        template: the bytes of their model.
        path: the file to write; external data are written beside it.

    Raises:
        SaveError: a weight has no place in the model, or does not fit.
        UnsafeModelError: external data would be outside the folder of `path`, or behind a link.
        OSError: the disk is full, the folder is missing, ...; existing files are unchanged.
    """
    wire = _wire_of(template)
    target = Path(os.path.abspath(path))
    atomic.permissions_of(target)  # raises for a device, which must not be read
    changes = _changes(weights, template, wire)
    with atomic.folder_lock(target.parent) if changes.external else nullcontext():
        _write_files(changes, template, wire, target)


@torch.no_grad()
def in_memory(weights: StoredWeights, template: Template) -> tuple[bytes, dict[str, memoryview]]:
    """The bytes of a model, and location -> the bytes of its external data.

    Args:
        weights: the weights, by ONNX name.
        template: the bytes of their model.

    Raises:
        SaveError: a weight has no place in the model, or does not fit.
        UnsafeModelError: external data are behind a link.
    """
    wire = _wire_of(template)
    changes, files = _changes(weights, template, wire), {}
    for location, tensors in changes.external.items():
        data = io.BytesIO()
        _data(tensors, template, location)(data)
        files[location] = data.getbuffer()
    model = io.BytesIO()
    write(wire, changes.edits, model)
    return model.getvalue(), files


def _wire_of(template: Template) -> Wire:
    if template.wire is None:
        raise SaveError(f"a ModelProto of more than 2 GB cannot be written; {LIKE_HINT}")
    return template.wire


def _write_files(changes: Changes, template: Template, wire: Wire, target: Path) -> None:
    """Write the model and its external data, and replace the old files."""
    names = _data_names(changes.external, target, template.names_files)
    external = [stored for stored, _ in chain(*changes.external.values())]

    def model(names: Mapping[str, str]) -> Callable[[BinaryIO], None]:
        moves = [edit for stored in external for edit in stored.relocate(names)]
        return lambda out: write(wire, [*changes.edits, *moves], out)

    with StagedFiles(target.parent) as parts:
        new = parts.write(target, model(names))
        data = {}
        for location, name in names.items():
            file = external_path(target.parent, name)
            data[file] = parts.write(file, _data(changes.external[location], template, location))
        data = {file: part for file, part in data.items() if atomic.differs(part, file)}
        changed = {**data, target: new} if atomic.differs(new, target) else data
        if len(changed) > 1 and any(file.exists() for file in data):
            second = f".{secrets.token_hex(4)}"
            moved = {k: n + second for k, n in names.items() if target.parent / n in data}
            over = parts.write(target, model({**names, **moved}))
            _change_over(parts, data, second, over, new, target)
        else:
            for file, part in changed.items():
                parts.replace(part, file)


def _change_over(
    parts: StagedFiles,
    data: Mapping[Path, Path],
    second: str,
    over: Path,
    new: Path,
    target: Path,
) -> None:
    """Replace data files that the existing model uses; `over` uses them under a second name."""
    copies = [file.with_name(file.name + second) for file in data]
    for part, copy in zip(data.values(), copies, strict=True):
        parts.copy(part, copy)
    parts.keep(copies)
    try:
        parts.replace(over, target)
    except BaseException:
        if over.exists():  # not renamed: nothing uses the copies yet
            parts.cleanup += copies
        raise
    for file, part in data.items():
        parts.replace(part, file)
    parts.replace(new, target)
    parts.cleanup += copies


def _changes(weights: StoredWeights, template: Template, wire: Wire) -> Changes:
    """Collect the edits, tensor by tensor."""
    _check_places(weights, template)
    changes, seen = Changes(), set()
    tied = {p for tie in template.ties.values() for p in tie.places}
    chains: dict[Place, Chain] = {}
    for place, kind, around in walk(wire):
        if place in tied:
            chains[place] = around
        names = template.places.get(place, ())
        stored = (
            StoredTensor(wire, around, names[0] if names else "") if kind is TensorProto else None
        )
        if not names:
            if stored is not None and stored.form == EXTERNAL:
                changes.external.setdefault(stored.location, []).append((stored, None))
            continue
        if place in seen:
            raise InvalidModelError(f"the tensor of {names[0]!r} is in several pieces of the file")
        seen.add(place)
        value = _common_value(weights, names)
        if stored is not None:
            _put(stored, value, changes)
        elif kind is AttributeProto:
            changes.edits += attribute_edits(wire, around, value, names[0])
        else:
            reader = TensorReader(template.opened())
            changes.edits += sparse_edits(wire, around, value, names[0], reader)
    changes.edits += tie_edits(weights, template, wire, chains)
    return changes


def _put(stored: StoredTensor, value: Tensor, changes: Changes) -> None:
    check_weight(value, stored.header.data_type, tuple(stored.header.dims), stored.name)
    if stored.form == EXTERNAL:
        changes.external.setdefault(stored.location, []).append((stored, value))
    else:
        changes.edits += stored.edits(value)


def _check_places(weights: StoredWeights, template: Template) -> None:
    homes = {name for names in template.places.values() for name in names}
    homes |= {name for name, tie in template.ties.items() if tie.held} | template.fixed.keys()
    if lost := [name for name in weights if name not in homes]:
        raise SaveError(f"the file has no place for the weights {', '.join(map(repr, lost))}")
    if gone := sorted(homes - weights.keys()):
        raise SaveError(f"the module has lost the weights {', '.join(map(repr, gone))}")
    for name, before in template.fixed.items():
        if not _same_bits(weights[name], before.to(weights[name])):
            raise SaveError(
                f"the weight {name!r} was changed, but is not in the file: it is part of an "
                "operator's definition, or a number passed to a function"
            )


def _common_value(weights: StoredWeights, names: Sequence[str]) -> Tensor:
    """The value of the weights that share one place."""
    value = weights[names[0]]
    for name in names[1:]:
        if not _same_bits(value, weights[name]):
            raise SaveError(
                f"the weights {names[0]!r} and {name!r} must be equal: they are one tensor of a "
                "function that is called several times"
            )
    return value


def _same_bits(a: Tensor, b: Tensor) -> bool:
    flat = [x.detach().reshape(-1).contiguous().view(torch.uint8).to(a.device) for x in (a, b)]
    return a.dtype == b.dtype and a.shape == b.shape and torch.equal(*flat)


def _data_names(locations: Collection[str], target: Path, keep: bool) -> dict[str, str]:
    """Location in the source -> location beside the target.

    An existing file is overwritten only if the model that is replaced uses it.

    Args:
        locations: those in the source.
        target: the model.
        keep: whether new files keep these names.

    Raises:
        UnsafeModelError: a location is outside the folder of the target, or behind a link.
    """
    owned = _locations_in(target) if locations else frozenset()
    taken: set[str] = set()
    chosen: dict[str, str] = {}
    others = chain((f"{target.name}.data",), (f"{target.name}.{n}.data" for n in count(1)))
    for location in locations:
        for name in chain((location,), others):  # each of the others is tried once
            file = external_path(target.parent, name)
            new = keep or name != location
            free = name in owned or (new and not os.path.lexists(file))
            if free and file != target and name not in taken:
                chosen[location] = name
                taken.add(name)
                break
    return chosen


def _locations_in(path: Path) -> frozenset[str]:
    """The locations of external data in a file; none if it is not a model."""
    try:
        wire = Wire.whole(content_of(path))
        stored = (StoredTensor(wire, at) for _, kind, at in walk(wire) if kind is TensorProto)
        return frozenset(s.location for s in stored if s.form == EXTERNAL)
    except (FileNotFoundError, InvalidModelError, DecodeError):
        return frozenset()


def _data(
    tensors: Iterable[tuple[StoredTensor, Tensor | None]], template: Template, location: str
) -> Callable[[BinaryIO], None]:
    """A function that writes a file of external data."""
    unknown = next((stored.name for stored, value in tensors if value is None), None)
    regions = [(stored, value) for stored, value in tensors if value is not None]
    regions.sort(key=lambda region: region[0].offset)
    known = {str(Path(name)): size for name, size in template.sizes.items()}

    def fill(out: BinaryIO) -> None:
        with ExitStack() as stack:
            folder = template.external(location, unknown)
            base, size = None, known.get(location, 0)
            if folder is not None:
                base = stack.enter_context(folder.open(location))
                found = os.fstat(base.fileno()).st_size
                if size not in (0, found):
                    raise SaveError(
                        f"the external data {location!r} of {folder.path} have changed since they "
                        f"were read; {LIKE_HINT}"
                    )
                size = found
            _write_data(out, base, size, regions)

    return fill


def _write_data(
    out: BinaryIO, base: BinaryIO | None, size: int, regions: list[tuple[StoredTensor, Tensor]]
) -> None:
    """Write the weights and, between them, the bytes of the base, or zeros if there is none."""
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
            raise SaveError(f"the weight {stored.name!r} must equal one that shares its bytes")


def _copy(base: BinaryIO | None, out: BinaryIO, start: int, stop: int) -> None:
    if base is None:
        return
    base.seek(start)
    out.seek(start)
    while start < stop and (block := base.read(min(atomic.BLOCK, stop - start))):
        out.write(block)
        start += len(block)
