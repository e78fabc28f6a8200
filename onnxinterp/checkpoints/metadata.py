"""What `checkpoints.save` adds to the metadata of a state dict.

CheckpointMetadata   the template of the model, where its weights belong, the module's choices
parse_metadata       reads it from a file, which may contain anything
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from onnxinterp.errors import InvalidModelError
from onnxinterp.format.wire import MAX_PROTOBUF_BYTES, Place, Wire
from onnxinterp.torch_weights import LAYOUTS


@dataclass(frozen=True)
class CheckpointMetadata:
    """What is stored beside the tensors.

    Attributes:
        wire: the bytes of the source without its weights.
        sizes: location -> bytes of external data of the source.
        places: key of the state dict, or name in the model -> where the tensor is in the model.
        layouts: name in the model -> the layout of a tensor there, and the keys of the state dict
            that it is made of.
        trainable: the names of the trainable weights.
        outputs: the names of the module's outputs.
        untied: whether ties are undone; or the names of the tensors whose ties are.
        tied: whether equal tensors are one parameter.
    """

    wire: Wire
    sizes: dict[str, int]
    places: dict[str, Place]
    layouts: dict[str, list[str]]
    trainable: frozenset[str]
    outputs: list[str]
    untied: bool | frozenset[str]
    tied: bool


def parse_metadata(found: object) -> CheckpointMetadata:
    """Read the metadata of a file, each entry of the type that `checkpoints.save` writes.

    Raises:
        InvalidModelError: an entry is missing, or of another type.
    """
    entries = _dict(found, "the metadata")
    if "graph" in entries or ("places" in entries and "layouts" not in entries):
        raise InvalidModelError(
            "an older version of onnxinterp wrote it: convert the .onnx file again"
        )
    places = _dict(entries.get("places"), "places")
    sizes = _dict(entries.get("sizes"), "sizes")
    outputs = _strings(entries.get("outputs"), "outputs")
    if not outputs:
        raise InvalidModelError("outputs is empty")
    untied, tied = entries.get("untied"), entries.get("tied")
    if type(tied) is not bool:
        raise InvalidModelError("tied must be True or False")
    return CheckpointMetadata(
        wire=_wire(entries.get("template"), _numbers(entries.get("holes"), "holes")),
        sizes=dict(zip(sizes, _numbers([*sizes.values()], "sizes"), strict=True)),
        places={key: tuple(_numbers(place, "places")) for key, place in places.items()},
        layouts=_layouts(_dict(entries.get("layouts"), "layouts")),
        trainable=frozenset(_strings(entries.get("trainable"), "trainable")),
        outputs=outputs,
        untied=untied if type(untied) is bool else frozenset(_strings(untied, "untied")),
        tied=tied,
    )


def _layouts(found: dict[str, Any]) -> dict[str, list[str]]:
    """Name in the model -> a layout and the keys of its weights."""
    for entry in found.values():
        name, *keys = _strings(entry, "layouts") or [""]
        if not keys or (name not in LAYOUTS and (name or len(keys) > 1)):
            raise InvalidModelError(
                f"layouts must name a layout and its tensors, got {entry!r:.80}"
            )
    return found


def _wire(template: object, edges: list[int]) -> Wire:
    """The bytes of the source; `edges` are where each hole starts and stops, in turns."""
    if not isinstance(template, Tensor) or template.dtype != torch.uint8 or template.ndim != 1:
        raise InvalidModelError("template must be a tensor of bytes")
    data = bytes(template.contiguous().numpy())
    holes = list(zip(edges[::2], edges[1::2], strict=False))
    size = len(data) + sum(stop - start for start, stop in holes)
    ascending = all(a <= b for a, b in pairwise([0, *edges, size]))
    if len(edges) % 2 or not ascending or size > MAX_PROTOBUF_BYTES:
        raise InvalidModelError("the holes of the template do not follow one another")
    return Wire.with_holes(data, holes)


def _numbers(found: object, name: str) -> list[int]:
    if type(found) is not list or any(type(n) is not int or n < 0 for n in found):
        raise InvalidModelError(f"{name} must be a list of numbers, none negative")
    return found


def _strings(found: object, name: str) -> list[str]:
    if type(found) is not list or any(type(string) is not str for string in found):
        raise InvalidModelError(f"{name} must be a list of names")
    return found


def _dict(found: object, name: str) -> dict[str, Any]:
    if not isinstance(found, Mapping) or any(type(key) is not str for key in found):
        raise InvalidModelError(f"{name} must be a dict of names")
    return dict(found)
