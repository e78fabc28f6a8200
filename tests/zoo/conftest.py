"""One model at a time: opened when its first test asks for it, freed after its last."""

from __future__ import annotations

import gc
import os
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from onnxinterp import OnnxModule
from tests.zoo import fetch, reference, results
from tests.zoo.known_failures import BY_CHANCE, known_failures
from tests.zoo.manifest import Model, manifest

RESULTS = pytest.StashKey[results.Results]()


@dataclass
class Subject:
    """A model of the manifest with its file, its inputs and what onnxruntime answers."""

    model: Model
    path: Path
    measures: dict[str, Any] = field(default_factory=dict)

    @cached_property
    def inputs(self) -> list[dict[str, np.ndarray]]:
        return list(self.model.inputs())

    @cached_property
    def session(self) -> Any:
        return reference.session(self.path)

    @cached_property
    def wanted(self) -> list[list[Any]]:
        return reference.answers(self.session, self.inputs)

    @cached_property
    def module(self) -> OnnxModule:
        return OnnxModule(self.path)

    def arguments(self, case: int) -> tuple[torch.Tensor, ...]:
        """The inputs of a case as tensors, in the order of the graph."""
        return tuple(torch.from_numpy(self.inputs[case][n]) for n in self.module.input_names)


@pytest.fixture(scope="module")
def subject(request: pytest.FixtureRequest) -> Iterator[Subject]:
    model: Model = request.param
    try:
        path = model.file()
    except fetch.NoNetworkError as error:
        if "CI" in os.environ:
            raise
        pytest.skip(f"not fetched: {error}")
    opened = Subject(model, path)
    opened.measures["bytes"] = path.stat().st_size
    yield opened
    request.config.stash.setdefault(RESULTS, {}).setdefault(model.name, {}).update(opened.measures)
    opened.__dict__.clear()  # the request keeps the subject until the next one is there
    gc.collect()


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    """As many threads for torch as for onnxruntime."""
    before = torch.get_num_threads()
    torch.set_num_threads(reference.THREADS)
    yield
    torch.set_num_threads(before)


def tested(item: pytest.Item) -> tuple[str, str] | None:
    """The model and the name of the test, without `test_`, of an item of test_zoo.py."""
    spec = getattr(item, "callspec", None)
    model = spec.params.get("subject") if spec else None
    name = getattr(item, "originalname", item.name)
    return (model.name, name.removeprefix("test_")) if isinstance(model, Model) else None


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the tests of a model next to each other, and expect known failures to fail.

    Strictly: a listed test that passes fails the run, unless it fails by chance.
    """
    places = {model.name: place for place, model in enumerate(manifest())}
    items.sort(key=lambda item: places[key[0]] if (key := tested(item)) else -1)
    failures = known_failures()
    for item in items:
        for failure in failures:
            if (key := tested(item)) and failure.covers(*key):
                reason = f"{failure.why} ({failure.link})"
                strict = not failure.why.startswith(BY_CHANCE)
                item.add_marker(pytest.mark.xfail(reason=reason, strict=strict))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Note how each test of each model ended, for the report."""
    report = yield
    key = tested(item)
    if key and (report.when == "call" or report.outcome != "passed"):
        collected = item.config.stash.setdefault(RESULTS, {})
        collected.setdefault(key[0], {})[key[1]] = _ended(report, call)
    return report


def _ended(report: pytest.TestReport, call: pytest.CallInfo[None]) -> str:
    """`passed`, `skipped: why` or `failed: error`; an expected failure is a failure here."""
    if call.excinfo is None or report.outcome == "passed":
        return report.outcome
    skipped = report.outcome == "skipped" and not hasattr(report, "wasxfail")
    first_line = (str(call.excinfo.value).strip().splitlines() or [""])[0]
    return f"{'skipped' if skipped else 'failed'}: {call.excinfo.typename}: {first_line[:200]}"


def pytest_sessionfinish(session: pytest.Session) -> None:
    if collected := session.config.stash.get(RESULTS, None):
        results.update(collected)
