"""A program makes each call once, where nobody can see the difference."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from onnxinterp import OnnxModule
from onnxinterp.programs.inference import for_inference
from onnxinterp.snapshots.subject import recorded_program
from tests.engine.test_program_passes import CPU, Case, Node, called, model

SHAPE = (2, 3)


@pytest.fixture(autouse=True)
def _without_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


def count(name: str, nodes: list[Node], outputs: str = "y", **tensors: Any) -> list[int]:
    """How often the programs of a call and of a snapshot call a function."""
    case = Case(nodes, SHAPE, outputs=outputs, **tensors)
    made = case.inference(), case.snapshot()
    return [sum(function.strip("_") == name for function in functions) for functions in made]


def test_equal_calls_of_equal_values_are_made_once() -> None:
    """The second sine is that of a value that is the first one's in another name."""
    nodes: list[Node] = [
        ("Exp", "x", "a", {}),
        ("Exp", "x", "b", {}),
        ("Sin", "a", "c", {}),
        ("Sin", "b", "d", {}),
        ("Add", "c d", "e", {}),
        ("Mul", "e c", "y", {}),
    ]
    assert count("sin", nodes) == [1, 1]


def test_equal_constants_are_one() -> None:
    """The tensors of a snapshot are constants; a call reads them, and they may change."""
    nodes: list[Node] = [
        ("Where", "k x z", "a", {}),
        ("Where", "l x z", "b", {}),
        ("Add", "a b", "y", {}),
    ]
    mask = np.array([True, False, True])
    tensors = {"k": mask, "l": mask.copy(), "z": np.float32(7)}
    assert count("where", nodes, **tensors)[1] == 1
    assert count("where", nodes, **{**tensors, "l": ~mask})[1] == 2


def test_results_that_are_returned_are_tensors_of_their_own() -> None:
    nodes: list[Node] = [("Sin", "x", "y", {}), ("Sin", "x", "z", {})]
    assert count("sin", nodes, outputs="y z") == [2, 2]


def test_numbers_that_compare_equal_are_different_arguments() -> None:
    """0.0 and -0.0: the slopes of two functions whose results differ in their signs."""
    nodes: list[Node] = [
        ("LeakyRelu", "x", "a", {"alpha": 0.0}),
        ("LeakyRelu", "x", "b", {"alpha": -0.0}),
        ("Reciprocal", "a", "c", {}),
        ("Reciprocal", "b", "d", {}),
        ("Max", "c d", "y", {}),
    ]
    assert count("leaky_relu", nodes) == [2, 2]


def test_random_numbers_are_drawn_twice() -> None:
    nodes: list[Node] = [
        ("Bernoulli", "x", "a", {}),
        ("Bernoulli", "x", "b", {}),
        ("Sub", "a b", "y", {}),
    ]
    recorded = recorded_program(OnnxModule(model(nodes, SHAPE)), (torch.rand(SHAPE),))
    assert [name for name in called(for_inference(recorded, CPU)) if "bernoulli" in name] == [
        "bernoulli"
    ] * 2
