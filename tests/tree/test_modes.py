"""Modules in eval mode inside of a model in training mode: how everyone freezes normalization."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from onnxinterp import OnnxModule
from tests.exports.case import Export
from tests.training.exporting import write
from tests.training.networks import RESNET

EXPORTS = [Export("torchscript", 17), Export("dynamo", 18)]


def still(network: nn.Module, names: list[str]) -> None:
    network.train()
    for name in names:
        network.get_submodule(name).eval()


@pytest.mark.parametrize("how", EXPORTS, ids=lambda how: how.exporter)
@pytest.mark.parametrize("names", [["bn1"], ["layer1", "layer2.0.bn1"], []])
def test_statistics_of_modules_in_eval_mode_are_used_and_kept(
    names: list[str], how: Export
) -> None:
    original, ((x,), _) = RESNET.original().eval(), RESNET.batch(0)
    module = OnnxModule(write(original, (x,), how))
    before = {n: b.clone() for n, b in module.named_buffers()}
    still(original, names)
    still(module, names)
    torch.testing.assert_close(module(x), original(x), rtol=1e-4, atol=1e-4)
    changed = {n for n, b in module.named_buffers() if not torch.equal(b, before[n])}
    after = {n: b for n, b in original.named_buffers() if n in before}
    assert changed == {n for n, b in after.items() if not torch.equal(b, before[n])}


@pytest.mark.parametrize("how", EXPORTS, ids=lambda how: how.exporter)
def test_a_module_in_training_mode_inside_of_eval(how: Export) -> None:
    original, ((x,), _) = RESNET.original().eval(), RESNET.batch(0)
    module = OnnxModule(write(original, (x,), how))
    for network in (original, module):
        network.get_submodule("layer1").train()
    torch.testing.assert_close(module(x), original(x), rtol=1e-4, atol=1e-4)
    moved = dict(module.named_buffers())["layer1.0.bn1.running_mean"]
    torch.testing.assert_close(moved, original.get_buffer("layer1.0.bn1.running_mean"))
    module.eval()
    torch.testing.assert_close(module(x), original.eval()(x), rtol=1e-3, atol=1e-3)


def test_the_mode_of_a_module_changes_the_output() -> None:
    original, ((x,), _) = RESNET.original().eval(), RESNET.batch(0)
    module = OnnxModule(write(original, (x,), EXPORTS[0]))
    outputs = []
    for names in ([], ["bn1"], ["layer1"]):
        still(module, names)
        outputs.append(module(x))
    assert not any(torch.allclose(outputs[0], other, atol=1e-3) for other in outputs[1:])
