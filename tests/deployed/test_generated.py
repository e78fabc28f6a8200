"""Decoders of the builder of onnxruntime-genai answer as in onnxruntime: a prompt, then tokens."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import pytest
import torch

from onnxinterp import OnnxModule
from tests.deployed import judging
from tests.deployed.files import Feeds
from tests.deployed.generated import FILES, Generated, calls
from tests.zoo.comparison import Difference, compare

pytestmark = pytest.mark.skipif(
    find_spec("onnxruntime_genai") is None, reason="onnxruntime-genai is not installed"
)


@pytest.mark.parametrize("file", FILES, ids=lambda f: f.name)
def test_outputs(file: Generated) -> None:
    path = file.path()
    session = judging.session(path)
    wanted = list(calls(path, lambda feeds: session.run(None, feeds)))
    found = difference(OnnxModule(path), wanted)
    assert judging.matches(found, file.tolerance), str(found)
    name, noisy = judging.with_noise(path)
    found = difference(OnnxModule(noisy), wanted)
    assert not judging.matches(found, file.tolerance), (
        f"10 % of noise on {name} goes unnoticed: {found}"
    )


def difference(module: OnnxModule, wanted: list[tuple[Feeds, list[Any]]]) -> Difference:
    """Return the worst difference over all calls, each with onnxruntime's own state."""
    found = []
    with torch.no_grad():
        for feeds, _ in wanted:
            outputs = module(*(torch.from_numpy(feeds[name]) for name in module.input_names))
            found.append([output.numpy() for output in outputs])
    return compare(found, [outputs for _, outputs in wanted])
