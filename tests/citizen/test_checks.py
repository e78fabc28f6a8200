"""The checks themselves: an exact copy of the original passes each, and a changed copy fails it."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.citizen.changes import CHANGES
from tests.citizen.checks import ROWS, Row
from tests.citizen.judging import applies, of_original, outcome
from tests.citizen.networks import NETWORKS, Network

INSTALLED = [row for row in ROWS.values() if row.is_installed]

NOT_FOR_THE_ORIGINAL = {
    ("safetensors save_file(original.state_dict())", "GPT"): "share memory",
    ("torch.compile (fullgraph, backend eager)", "LSTM"): "Dynamo does not support RNN",
    ("compile() of each block", "LSTM"): "Dynamo does not support RNN",
    ("torch.func.vmap over batches", "LSTM"): "Batching rule not implemented",
    ("torch.func.jvp along the parameters", "LSTM"): "does not support it",
}
"""Where the tool fails with the original itself, and in which words."""

if not torch.ops.mkldnn._is_mkldnn_bf16_supported():  # a processor with AVX2 alone
    NOT_FOR_THE_ORIGINAL["autocast to bfloat16", "LSTM"] = "could not create a primitive descriptor"


def _cases() -> list[Any]:
    return [
        pytest.param(row, network, id=f"{row.name}-{network.name}")
        for row in INSTALLED
        for network in NETWORKS
        if applies(row, network)
    ]


@pytest.mark.parametrize(("row", "network"), _cases())
def test_a_copy_passes(row: Row, network: Network) -> None:
    found = of_original(row.name, network.name)
    words = NOT_FOR_THE_ORIGINAL.get((row.name, network.name))
    if words is None:
        assert not found.reason, found.detail
    else:
        assert words in found.detail


def _changes() -> list[Any]:
    return [
        pytest.param(row, change, id=f"{row.name}-{change}")
        for row in INSTALLED
        for change in row.notices
    ]


@pytest.mark.parametrize(("row", "change"), _changes())
def test_a_changed_copy_fails(row: Row, change: str) -> None:
    """In the first network that the check is for and that has all kinds of layers."""
    preferred = sorted(NETWORKS, key=lambda network: network.name != "ViT")
    network = next(n for n in preferred if applies(row, n))
    assert not of_original(row.name, network.name).reason
    assert outcome(row, network, lambda: CHANGES[change](network.original())).reason


def test_each_check_notices_something() -> None:
    assert [row.name for row in ROWS.values() if not row.notices] == []
