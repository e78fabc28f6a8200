"""Whole random graphs give what onnxruntime gives, node by node and as a whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.property.agreement import assert_agree
from tests.property.oracles import to_lane
from tests.untrusted.fuzz.choices import Drawn, Seeded
from tests.untrusted.fuzz.judging import DisagreementError, Judge, one_graph, ours
from tests.untrusted.fuzz.keeping import CORPUS, keep, kept


@given(data=st.data())
def test_a_drawn_graph_gives_what_onnxruntime_gives(judge: Judge, data: st.DataObject) -> None:
    one_graph(Drawn(data), judge, most=10)


def test_seeded_graphs_give_what_onnxruntime_gives(
    judge: Judge, request: pytest.FixtureRequest, found: Path
) -> None:
    first, count = (request.config.getoption(f"--fuzz-{o}") for o in ("first", "graphs"))
    errors = {seed: differs(seed, judge) for seed in range(first, first + count)}
    differing = {seed: error for seed, error in errors.items() if error is not None}
    for seed, error in differing.items():
        keep(error.model, error.feeds, found / f"graph-{seed}.onnx")
    request.node.user_properties.append(("fuzz", str(judge.tally)))
    assert not differing, f"kept in {found}: {differing}"


def differs(seed: int, judge: Judge) -> DisagreementError | None:
    try:
        one_graph(Seeded(seed), judge)
    except DisagreementError as error:
        return error
    return None


def _wrong(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return a + b + 1


@pytest.mark.parametrize("check", [True, False], ids=["as a node", "in the whole graph"])
def test_a_wrong_kernel_is_found(judge: Judge, check: bool) -> None:
    mistaken = Judge(judge.oracle, {"Add": _wrong, "Sub": _wrong, "Mul": _wrong}, check)
    assert any(differs(seed, mistaken) for seed in range(100))


@pytest.mark.parametrize("path", sorted(CORPUS.glob("graph-*.onnx")), ids=lambda p: p.stem)
def test_what_differed_once_agrees(judge: Judge, path: Path) -> None:
    model, feeds = kept(path)
    want = judge.asked(model, feeds)
    assert want is not None, "onnxruntime refuses it"
    for got, w in zip(ours(model, feeds, {}), want, strict=True):
        assert_agree(got, to_lane(w))


def test_a_kept_graph_comes_back_with_its_inputs(judge: Judge, tmp_path: Path) -> None:
    model = one_graph(Seeded(1), judge)
    assert model is not None
    feeds: dict[str, Any] = {i.name: np.float32(1) for i in model.graph.input}
    keep(model, {n: np.asarray(v) for n, v in feeds.items()}, tmp_path / "graph.onnx")
    again, given_again = kept(tmp_path / "graph.onnx")
    assert again.graph.node == model.graph.node
    assert given_again.keys() == feeds.keys()
