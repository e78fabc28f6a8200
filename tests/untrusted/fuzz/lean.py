"""One broken file, opened twice: with the data of its tensors cut out first, and parsed as it is.

Even data of one byte are cut out, since the tensors of broken files are small.
"""

from __future__ import annotations

from contextlib import ExitStack
from unittest.mock import patch

import torch

from onnxinterp import OnnxError, OnnxModule
from onnxinterp.format.payloads import outline
from tests.untrusted.fuzz.mutation import mutant, stored
from tests.untrusted.fuzz.victim import LIMITS, Outcome, where


def of_seed(path: str, seed: int) -> Outcome:
    """Open the broken file of a seed, whose bases stand at `path`: "answered" if data were cut."""
    data, _ = mutant(stored(path), seed)
    with ExitStack() as stack:
        for module in ("format.payloads", "writing.template"):
            stack.enter_context(patch(f"onnxinterp.{module}.MIN_PAYLOAD_BYTES", 1))
        found, lean = outline(data), opened(data)
        with patch("onnxinterp.reading.source.outline", lambda _: None):
            whole = opened(data)
    if lean != whole:
        return Outcome("raw", f"cut {lean!r:.300}, as it is {whole!r:.300}")
    return Outcome("answered" if found is not None and found.cuts else "refused")


def opened(data: bytes) -> object:
    """The weights, the plan and the template of a model, or the error."""
    try:
        module = OnnxModule(data, limits=LIMITS)
    except OnnxError as error:
        return type(error).__name__, str(error)
    except Exception as error:
        return where(error)
    weights = {
        name: (value.dtype, value.shape, value.detach().flatten().view(torch.uint8).tolist())
        for name, value in module.weights.items()
    }
    wire = module.template.wire
    assert wire is not None, "a model of bytes has a template"
    return weights, str(module.plan), wire.holes, [bytes(data) for _, data in wire.pieces]
