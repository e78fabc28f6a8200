"""The exported models: each is written once a run, when the first test asks for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
import pytest

from onnxinterp import OnnxModule
from tests.exports.case import Case, Export
from tests.exports.exporting import export
from tests.exports.modules import CASES

Write = Callable[[Case, Export], Path]


@dataclass(frozen=True)
class Subject:
    """One network as one exporter wrote it at one opset."""

    case: Case
    how: Export
    path: Path

    def module(self) -> OnnxModule:
        return OnnxModule(self.path)


@pytest.fixture(scope="session")
def write(tmp_path_factory: pytest.TempPathFactory) -> Write:
    folder = tmp_path_factory.mktemp("exports")

    def write_once(case: Case, how: Export) -> Path:
        path = folder / f"{case.name}-{how.exporter}-{how.opset}.onnx"
        if not path.exists():
            onnx.save(export(case, how), path)
        return path

    return write_once


def _named(case: Case, how: Export) -> Any:
    return pytest.param((case, how), id=f"{case.name}-{how.exporter}-{how.opset}")


EVERY_EXPORT = [_named(case, how) for case in CASES for how in case.exports()]
OLDEST_AND_NEWEST = [_named(case, case.exports()[end]) for case in CASES for end in (0, -1)]


@pytest.fixture(params=EVERY_EXPORT)
def subject(request: pytest.FixtureRequest, write: Write) -> Subject:
    case, how = request.param
    return Subject(case, how, write(case, how))
