"""Decoders of the builder of onnxruntime-genai answer as in onnxruntime: a prompt, then tokens."""

from __future__ import annotations

from importlib.util import find_spec

import pytest

from onnxinterp import OnnxModule
from tests.deployed import judging
from tests.deployed.generated import FILES, Generated, answers, difference

pytestmark = pytest.mark.skipif(
    find_spec("onnxruntime_genai") is None, reason="onnxruntime-genai is not installed"
)


@pytest.mark.parametrize("file", FILES, ids=lambda f: f.name)
def test_outputs(file: Generated) -> None:
    path = file.path()
    wanted = answers(path)
    found = difference(OnnxModule(path), wanted)
    assert judging.matches(found, file.tolerance), str(found)
    name, noisy = judging.with_noise(path)
    found = difference(OnnxModule(noisy), wanted)
    assert not judging.matches(found, file.tolerance), f"noise on {name} goes unnoticed: {found}"
