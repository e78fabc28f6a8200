"""DistributedDataParallel: each rank has all parameters and its part of the data."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from onnxinterp import OnnxModule
from tests.distributed.network import EXPORTERS, batch, exported, original, train
from tests.distributed.ranks import Together, part_of

OPTIONS: list[dict[str, Any]] = [{}, {"static_graph": True}, {"gradient_as_bucket_view": True}]


def losses(rank: int, exporter: str, options: dict[str, Any]) -> list[float]:
    return train(DistributedDataParallel(OnnxModule(exported(exporter)), **options), part_of(rank))


@pytest.mark.parametrize("exporter", EXPORTERS)
@pytest.mark.parametrize("options", OPTIONS)
def test_losses_are_those_of_one_process(
    exporter: str, options: dict[str, Any], together: Together
) -> None:
    got = torch.tensor(together(losses, exporter, options))
    torch.testing.assert_close(got.mean(0), torch.tensor(train(original())), rtol=1e-6, atol=1e-6)
    assert not torch.allclose(got[0], got[1]), "each has its own data"


class Hidden(nn.Module):
    """The loss comes from what the last block returns; norm and head are not used."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, ids: Tensor) -> Tensor:
        hidden = []
        last = self.module.get_submodule("blocks.3")
        with last.register_forward_hook(lambda _module, _inputs, result: hidden.append(result)):
            self.module(ids)
        return hidden[0]


def unused(rank: int, kind: str, find: bool) -> dict[str, Tensor] | str:
    module = Hidden(OnnxModule(exported()) if kind == "onnx" else original())
    parallel = DistributedDataParallel(module, find_unused_parameters=find)
    try:
        for step in range(2):
            parallel(batch(step)[0][part_of(rank)]).square().mean().backward()
    except RuntimeError as error:
        return str(error)
    gradients = {name: p.grad for name, p in module.named_parameters()}
    return {name: g for name, g in gradients.items() if g is not None and g.any()}


def test_parameters_without_a_gradient(together: Together) -> None:
    """DDP waits for their gradients, unless it is asked to look for them."""
    messages = together(unused, "onnx", False)
    assert all("find_unused_parameters=True" in message for message in messages)
    got, want = together(unused, "onnx", True)[0], together(unused, "original", True)[0]
    assert len(got) == len(list(original().parameters())) - 4
    torch.testing.assert_close(got, want)
