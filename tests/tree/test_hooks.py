"""Hooks on the modules of an import see what hooks on the original's see."""

from __future__ import annotations

from collections.abc import Callable
from fnmatch import fnmatch
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from onnxinterp import OnnxModule
from tests.exporting import export
from tests.exports.case import Export
from tests.exports.modules import CASES
from tests.training.exporting import write
from tests.training.networks import TASKS
from tests.tree.recording import differing, record

Network = tuple[Callable[[], nn.Module], tuple[Tensor, ...]]
NETWORKS: dict[str, Network] = {
    **{case.name: (case.module, case.arguments(case.sizes[0])) for case in CASES},
    **{task.name: (task.original, task.batch(0)[0]) for task in TASKS},
}
EXPORTERS = {"torchscript": Export("torchscript", 17), "dynamo": Export("dynamo", 18)}
NOT_CALLED = ["*.downsample"]  # a Sequential without modules: exporters see no call
FOLDED = {
    "resnet18": ["*conv?", "*bn?", "*.downsample*"],  # normalization into convolutions
    "speech": ["*.depthwise", "*.batch_norm"],
    "segmentation": ["down_?.[01]", "bottom.[01]", "up_?.[01]"],
    "encoder": ["positions"],  # embeddings of constant positions
    "decoder": ["positions"],
    "sequence_to_sequence": ["source_bias*", "target_bias*"],
}
"""Modules whose calls a default export has folded into others or into constants."""


@pytest.mark.parametrize("exporter", EXPORTERS)
@pytest.mark.parametrize("name", NETWORKS)
def test_every_call_of_every_module_is_seen(name: str, exporter: str) -> None:
    network, inputs = NETWORKS[name]
    original = network().eval()
    module = OnnxModule(write(original, inputs, EXPORTERS[exporter]))
    differences = _differences(original, module, inputs)
    assert not _others(differences, NOT_CALLED)


@pytest.mark.parametrize("exporter", EXPORTERS)
@pytest.mark.parametrize("name", NETWORKS)
def test_a_default_export_misses_only_what_it_has_folded(name: str, exporter: str) -> None:
    network, inputs = NETWORKS[name]
    original, how = network().eval(), EXPORTERS[exporter]
    options: dict[str, Any] = {"dynamo": exporter == "dynamo", "opset_version": how.opset}
    module = OnnxModule(export(original, inputs, **options))
    differences = _differences(original, module, inputs)
    assert not _others(differences, FOLDED.get(name, []))


def test_the_judge_sees_another_weight() -> None:
    network, inputs = NETWORKS["vit"]
    original = network().eval()
    module = OnnxModule(write(original, inputs, EXPORTERS["dynamo"]))
    with torch.no_grad():
        original.get_parameter("layers.1.ln_1.weight").mul_(1.1)
    differences = _differences(original, module, inputs)
    assert "layers.1.ln_1" in differences
    assert "layers.0" not in differences


def _others(differences: dict[str, str], patterns: list[str]) -> dict[str, str]:
    return {p: why for p, why in differences.items() if not any(fnmatch(p, q) for q in patterns)}


@torch.no_grad()
def _differences(
    original: nn.Module, module: OnnxModule, inputs: tuple[Tensor, ...]
) -> dict[str, str]:
    _, want = record(original, inputs)
    _, got = record(module, inputs)
    return differing(want, got)
