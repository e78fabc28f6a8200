"""Parameters come in the order of the original's: states of optimizers go by it."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

from onnxinterp import OnnxModule
from tests.exporting import export
from tests.exports.case import Export
from tests.training.exporting import write
from tests.training.networks import TASKS, Task


@pytest.mark.parametrize("dynamo", [False, True])
@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_parameters_are_in_the_order_of_the_original(task: Task, dynamo: bool) -> None:
    original, inputs = task.original().eval(), task.batch(0)[0]
    module = OnnxModule(export(original, inputs, dynamo=dynamo, opset_version=18 if dynamo else 17))
    names = [name for name, _ in module.named_parameters()]
    of_original = [name for name, _ in original.named_parameters() if name in names]
    assert len(of_original) > 3
    assert [name for name in names if name in of_original] == of_original


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_an_optimizer_goes_on_where_it_was(task: Task) -> None:
    original, inputs = task.original().eval(), task.batch(0)[0]
    module = OnnxModule(write(original, inputs, Export("torchscript", 17)))
    nets = (original, module)
    optimizers = [torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9) for net in nets]
    step(original, optimizers[0], inputs)
    module.load_state_dict(original.state_dict())
    optimizers[1].load_state_dict(copy.deepcopy(optimizers[0].state_dict()))
    for net, optimizer in zip(nets, optimizers, strict=True):
        step(net, optimizer, inputs)
    for name, parameter in original.named_parameters():
        got = module.get_parameter(name)
        torch.testing.assert_close(got, parameter, rtol=1e-4, atol=1e-5)


def step(net: nn.Module, optimizer: torch.optim.Optimizer, inputs: Any) -> None:
    optimizer.zero_grad()
    net(*inputs).square().mean().backward()
    optimizer.step()
