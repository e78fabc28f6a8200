"""Each file of a tool answers as onnxruntime does, and a change of a weight is noticed."""

from __future__ import annotations

import pytest

from tests.deployed import judging
from tests.deployed.catalogue import FILES
from tests.deployed.files import Deployed
from tests.deployed.ties import TIE_MARGIN, margin

everywhere = pytest.mark.parametrize("file", FILES, ids=lambda f: f.name)
quantized = [f for f in FILES if f.no_ties]


@everywhere
def test_outputs(file: Deployed) -> None:
    """A second comparison, with noise on a weight, has to fail: the first one is not blind."""
    wanted = judging.reference(file)
    found = judging.difference(file, file.path(), wanted)
    assert judging.matches(found, file.tolerance), str(found)
    name, noisy = judging.with_noise(file.path())
    found = judging.difference(file, noisy, wanted)
    assert not judging.matches(found, file.tolerance), (
        f"10 % of noise on {name} goes unnoticed: {found}"
    )


@pytest.mark.parametrize("file", quantized, ids=lambda f: f.name)
def test_no_quantized_value_is_near_a_tie(file: Deployed) -> None:
    """Otherwise the order of a sum decides on a whole step, and the files may differ by one."""
    assert margin(file) > TIE_MARGIN


def test_every_file_has_a_name_of_its_own() -> None:
    names = [file.name for file in FILES]
    assert len(names) == len(set(names)) >= 60
