"""Optionals: a value, which is the optional itself, or nothing, which is None.

History: 15, 18 (OptionalGetElement and OptionalHasElement also take other values than optionals;
the input of OptionalHasElement may be absent), 28 (types).
"""

from __future__ import annotations

from typing import Any

import onnx
import torch

from onnxinterp.registry import op, sample
from onnxinterp.testing.samples import Call, Draw, call, one_tensor
from onnxinterp.values import Host
from onnxinterp.versions import older


@op("Optional", since=15, any_type=True)
def optional(input: Any = None, *, type: onnx.TypeProto | None = None, device: torch.device) -> Any:
    del type  # an empty optional has no type here
    return input.tensor(device) if isinstance(input, Host) else input


@op("OptionalGetElement", since=15, any_type=True)
def optional_get_element(input: Any, *, device: torch.device) -> Any:
    if input is None:
        raise ValueError("the optional must have a value, got an empty one")
    return input.tensor(device) if isinstance(input, Host) else input


@op("OptionalHasElement", since=18, any_type=True)
def optional_has_element(input: Any = None) -> Host:
    return Host(input is not None, torch.bool)


optional_has_element_15 = older(optional_has_element, since=15, required=["input"])


sample(optional)(one_tensor(type="V"))
sample(optional_get_element, optional_has_element_15)(one_tensor(type="O"))


@sample(optional_has_element)
def _(d: Draw) -> Call:
    return call(d.maybe(d.tensor(d.shape(), "O")))
