"""The exported models, each exported when the first test needs it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from onnxinterp import OnnxModule
from tests.exports.case import Case, Export
from tests.exports.exporting import export
from tests.exports.modules import CASES


@dataclass(frozen=True)
class Subject:
    """One network as one exporter wrote it at one opset."""

    case: Case
    how: Export
    path: Path

    def module(self) -> OnnxModule:
        return OnnxModule(self.path)


def _named(case: Case, how: Export) -> Any:
    return pytest.param((case, how), id=f"{case.name}-{how.exporter}-{how.opset}")


EVERY_EXPORT = [_named(case, how) for case in CASES for how in case.exports()]
OLDEST_AND_NEWEST = [_named(case, case.exports()[end]) for case in CASES for end in (0, -1)]


@pytest.fixture(params=EVERY_EXPORT)
def subject(request: pytest.FixtureRequest) -> Subject:
    case, how = request.param
    return Subject(case, how, export(case, how))
