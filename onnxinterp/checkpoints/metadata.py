"""What a checkpoint knows of its graph, which `checkpoints.save` puts into a state dict's metadata.

Known       the graph without its tensors, where these are, and the choices of the module
decoded     from what a file has there, of which nothing is believed
"""

from __future__ import annotations

import glob
import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from onnxinterp.errors import InvalidModelError
from onnxinterp.format.wire import MAX_PROTOBUF_BYTES, Wire

ESCAPED = re.compile(r"\[([*?[])\]")


@dataclass(frozen=True)
class CheckpointMetadata:
    """What stands beside the tensors.

    Attributes:
        graph: the bytes of the model, without the tensors that the state dict has.
        keys: weight -> its key in the state dict.
        trainable: the weights that train.
        outputs: the values that the module gives.
        untied: whether ties are undone; or the names of the tensors whose ties are.
        wire: the bytes of the source without its weights; None where there are none.
        sizes: location -> bytes of external data of the source.
    """

    graph: bytes
    keys: dict[str, str]
    trainable: frozenset[str]
    outputs: list[str]
    untied: bool | frozenset[str]
    wire: Wire | None
    sizes: dict[str, int]


def parse_metadata(found: object) -> CheckpointMetadata:
    """What a file has in its metadata, each entry of the type that `checkpoints.save` gives it.

    Raises:
        InvalidModelError: an entry is missing, or of another type.
    """
    entries = _table(found, "the entry of the graph")
    graph = _bytes(entries.get("graph"), "graph")
    keys = _table(entries.get("keys"), "keys")
    if any(type(key) is not str for key in keys.values()) or len({*keys.values()}) < len(keys):
        raise _damaged("keys names no tensor, or one twice")
    outputs = _texts(entries.get("outputs"), "outputs")
    if not outputs:
        raise _damaged("outputs is empty")
    wire, sizes = _template(entries.get("template"))
    return CheckpointMetadata(
        graph=graph,
        keys=keys,
        trainable=frozenset(_texts(entries.get("trainable"), "trainable")),
        outputs=outputs,
        untied=_untied(entries.get("untied", True)),
        wire=wire,
        sizes=sizes,
    )


def _untied(found: object) -> bool | frozenset[str]:
    """Names come as the patterns that match them alone."""
    if type(found) is bool:
        return found
    patterns = _texts(found, "untied")
    names = [ESCAPED.sub(r"\1", pattern) for pattern in patterns]
    if [glob.escape(name) for name in names] != patterns:
        raise _damaged("untied has patterns")
    return frozenset(names)


def _template(found: object) -> tuple[Wire | None, dict[str, int]]:
    """The bytes of the source and the sizes of its external data."""
    if found is None:
        return None, {}
    entries = _table(found, "template")
    starts, pieces, size = (entries.get(key) for key in ("starts", "pieces", "size"))
    if type(size) is not int:
        raise _damaged("the template has no size")
    sizes = _table(entries.get("sizes"), "sizes")
    if type(starts) is not list or type(pieces) is not list or len(starts) != len(pieces):
        raise _damaged("the template has no pieces")
    if any(type(n) is not int or n < 0 for n in (*starts, size, *sizes.values())):
        raise _damaged("the template has sizes that are none")
    data = [_bytes(piece, "template") for piece in pieces]
    stops = [start + len(piece) for start, piece in zip(starts, data, strict=True)]
    ends = [0, *(edge for span in zip(starts, stops, strict=True) for edge in span), size]
    if not data or starts[0] or size > MAX_PROTOBUF_BYTES or any(a > b for a, b in pairwise(ends)):
        raise _damaged("the pieces of the template do not follow one another")
    return Wire(list(zip(starts, data, strict=True)), size), sizes


def _bytes(found: object, name: str) -> bytes:
    if not isinstance(found, Tensor) or found.dtype != torch.uint8 or found.ndim != 1:
        raise _damaged(f"{name} is no tensor of bytes")
    return bytes(found.contiguous().numpy())


def _texts(found: object, name: str) -> list[str]:
    if type(found) is not list or any(type(text) is not str for text in found):
        raise _damaged(f"{name} is no list of names")
    return found


def _table(found: object, name: str) -> dict[str, Any]:
    if not isinstance(found, Mapping) or any(type(key) is not str for key in found):
        raise _damaged(f"{name} is no table")
    return dict(found)


def _damaged(what: str) -> InvalidModelError:
    return InvalidModelError(what)
