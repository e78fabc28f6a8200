"""Training the imported module is training the original: parameters, gradients, loss curves."""

from __future__ import annotations

from functools import cache

import onnx
import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - the name by which torch's users know it
from torch import Tensor, nn

from onnxinterp import OnnxModule
from tests.exporting import export
from tests.exports.case import Export
from tests.training.exporting import write
from tests.training.networks import RESNET, TASKS, VIT, Task
from tests.training.parameters import check_parameters, trained

EXPORTS = (Export("torchscript", 11), Export("torchscript", 17), Export("dynamo", 18))
STEPS = 50


@cache
def written(task: Task, how: Export) -> onnx.ModelProto:
    return write(task.original(), task.batch(0)[0], how)


def imported(task: Task, how: Export) -> OnnxModule:
    return OnnxModule(written(task, how))


def loss_of(network: nn.Module, inputs: tuple[Tensor, ...], target: Tensor) -> Tensor:
    return F.cross_entropy(network(*inputs), target)


# the newer exporter takes half a minute for the 18 layers; test_ties has its BatchNormalization
WRITTEN = [
    pytest.param(task, how, id=f"{task.name}-{how.exporter}-{how.opset}")
    for task in TASKS
    for how in (EXPORTS[:2] if task is RESNET else EXPORTS)
]

each_task = pytest.mark.parametrize("task", TASKS, ids=lambda t: t.name)


@pytest.mark.parametrize(("task", "how"), WRITTEN)
def test_every_parameter_trains_with_the_gradient_of_the_original(task: Task, how: Export) -> None:
    original, module = task.original().train(), OnnxModule(written(task, how)).train()
    inputs, target = task.batch(1)
    for network in (original, module):
        loss_of(network, inputs, target).backward()
    for name, parameter in original.named_parameters():
        got, want = module.weights[name].grad, parameter.grad
        assert got is not None, name
        assert want is not None, name
        smallest = 1e-5 * float(want.abs().max()) + 1e-7
        torch.testing.assert_close(
            got, want, rtol=1e-4, atol=smallest, msg=lambda m, n=name: f"{n}: {m}"
        )


@pytest.mark.parametrize(("task", "how"), WRITTEN)
def test_no_parameter_is_one_that_the_original_lacks(task: Task, how: Export) -> None:
    original, module = task.original(), OnnxModule(written(task, how))
    assert set(trained(module)) == {n for n, _ in original.named_parameters()}
    check_parameters(original, module, task.batch(0)[0])


@pytest.mark.parametrize(("task", "how"), [p for p in WRITTEN if p.values[1].opset > 11])
def test_the_loss_curve_is_that_of_the_original(task: Task, how: Export) -> None:
    original, module = task.original().train(), imported(task, how).train()
    optimizers = [
        torch.optim.SGD(
            [p for p in network.parameters() if p.requires_grad], lr=task.lr, momentum=0.9
        )
        for network in (original, module)
    ]
    curves: list[list[float]] = [[], []]
    for step in range(STEPS):
        inputs, target = task.batch(step % 4)
        for network, optimizer, curve in zip((original, module), optimizers, curves, strict=True):
            loss = loss_of(network, inputs, target)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            curve.append(float(loss.detach()))
    want, got = (torch.tensor(curve) for curve in curves)
    torch.testing.assert_close(got, want, rtol=1e-3, atol=1e-3)
    assert want[-4:].mean() < 0.9 * want[:4].mean(), "the task is learned"


@each_task
def test_what_survives_a_default_export_trains(task: Task) -> None:
    """Constant folding on, eval mode: what keeps its name is a parameter that gets a gradient."""
    original = task.original().eval()
    inputs, target = task.batch(0)
    module = OnnxModule(export(original, inputs, dynamo=False, opset_version=17))
    loss_of(module, inputs, target).backward()
    survived = [n for n, _ in original.named_parameters() if n in module.weights]
    assert survived
    assert [n for n in survived if module.weights[n].grad is None] == []
    assert all(p.grad is not None for p in module.parameters())


@pytest.mark.parametrize("task", [RESNET, VIT], ids=lambda t: t.name)
def test_saliency_is_that_of_the_original(task: Task) -> None:
    original, module = task.original().eval(), imported(task, EXPORTS[1])
    ((image,), target) = task.batch(2)
    maps = []
    for network in (original, module):
        x = image.clone().requires_grad_()
        (saliency,) = torch.autograd.grad(loss_of(network, (x,), target), x)
        maps.append(saliency)
    torch.testing.assert_close(maps[1], maps[0], rtol=1e-4, atol=1e-4 * float(maps[0].abs().max()))
