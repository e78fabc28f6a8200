"""Every model of the manifest answers as onnxruntime does, and is captured whole.

pytest tests/zoo -m "not capture"     answers, and the noise that must be noticed
pytest tests/zoo -m capture           torch.compile and torch.export
pytest tests/zoo -k backward          gradients; part of the first line too
pytest tests/zoo --zoo-times          all of it, and times for docs/models.md
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import pytest
import torch

from tests.zoo.backward import without_gradient
from tests.zoo.capture import dynamic_shapes, example_case
from tests.zoo.comparison import Difference, compare
from tests.zoo.conftest import Subject
from tests.zoo.known_failures import ALWAYS, known_failures
from tests.zoo.manifest import manifest
from tests.zoo.reference import time_in_turn

NOISE = 0.1  # of the weight's root mean square
NOISE_SEED = 1

TESTS = {"outputs", "control", "shipped", "backward", "compile", "export"}

everywhere = pytest.mark.parametrize("subject", manifest(), ids=lambda m: m.name, indirect=True)


def having(condition: Any) -> pytest.MarkDecorator:
    """Parametrise over the models that fulfil a condition."""
    chosen = [m for m in manifest() if condition(m)]
    return pytest.mark.parametrize("subject", chosen, ids=lambda m: m.name, indirect=True)


def answers(run: Any, subject: Subject) -> list[list[Any]]:
    """What `run` answers to each case: as arrays, its outputs always a list."""
    found = []
    with torch.no_grad():
        for case in range(len(subject.inputs)):
            outputs = run(*subject.arguments(case))
            outputs = outputs if isinstance(outputs, tuple) else (outputs,)
            found.append([o.numpy() if isinstance(o, torch.Tensor) else o for o in outputs])
    return found


def difference(run: Any, subject: Subject) -> Difference:
    """The worst difference from onnxruntime over all cases and outputs."""
    return compare(answers(run, subject), subject.wanted)


@everywhere
def test_outputs(subject: Subject, pytestconfig: pytest.Config) -> None:
    found = difference(subject.module, subject)
    measures = {"mse": found.mse, "max_abs": found.max_abs, "relative": found.relative}
    subject.measures.update(measures)
    assert found.matches, str(found)
    if pytestconfig.getoption("--zoo-times"):
        measure_times(subject)


def measure_times(subject: Subject) -> None:
    """Time both sides for docs/models.md."""
    arguments, arrays = subject.arguments(0), subject.inputs[0]
    with torch.no_grad():
        ours, theirs = time_in_turn(
            lambda: subject.module(*arguments), lambda: subject.session.run(None, arrays)
        )
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    subject.measures.update(ours_ms=ours, onnxruntime_ms=theirs, load=load)


@having(lambda m: not m.no_control)
def test_control(subject: Subject) -> None:
    """Noise on one weight, and the comparison fails: it would notice a wrong weight."""
    weight = subject.module.weights[subject.model.control].detach()
    kept, noise = weight.clone(), torch.Generator().manual_seed(NOISE_SEED)
    scale = NOISE * weight.square().mean().sqrt()
    weight.add_(scale * torch.randn(weight.shape, generator=noise))
    try:
        found = difference(subject.module, subject)
    finally:
        weight.copy_(kept)
    subject.measures["control_relative"] = found.relative
    assert not found.matches, f"10 % of noise on {subject.model.control} goes unnoticed: {found}"


@having(lambda m: m.origin == "light")
def test_shipped(subject: Subject) -> None:
    """The onnx package ships what its light models answer to their first case."""
    (output,) = answers(subject.module, subject)[0]
    np.testing.assert_allclose(output, subject.model.shipped_output(), rtol=1e-3, atol=1e-7)


@everywhere
def test_backward(subject: Subject) -> None:
    """Each weight that has an influence on the output gets a gradient from it."""
    assert any(p.requires_grad for p in subject.module.parameters())
    assert without_gradient(subject.module, subject.arguments(len(subject.inputs) - 1)) == []


@pytest.mark.capture
@having(lambda m: not m.data_dependent)
def test_compile(subject: Subject) -> None:
    torch.compiler.reset()
    try:
        compiled = torch.compile(subject.module, fullgraph=True, dynamic=True, backend="aot_eager")
        found = difference(compiled, subject)
    finally:
        torch.compiler.reset()
    assert found.matches, str(found)


@pytest.mark.capture
@having(lambda m: not m.data_dependent)
def test_export(subject: Subject) -> None:
    arguments = subject.arguments(example_case(subject))
    with torch.no_grad():
        program = torch.export.export(
            subject.module, arguments, dynamic_shapes=dynamic_shapes(subject)
        )
    found = difference(program.module(), subject)
    assert found.matches, str(found)


def test_every_known_failure_names_a_model_and_a_test() -> None:
    names = {m.name for m in manifest()}
    wrong = [f for f in known_failures() if f.model not in names or f.when not in {*TESTS, ALWAYS}]
    assert wrong == []


def test_manifest_names_each_model_once_and_says_how_it_is_controlled() -> None:
    names = [m.name for m in manifest()]
    assert len(names) == len(set(names))
    assert [m.name for m in manifest() if bool(m.control) == bool(m.no_control)] == []
