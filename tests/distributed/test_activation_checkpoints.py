"""Activation checkpointing by block: gradients are the same, and less is kept for them."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import (
    CheckpointImpl,
    CheckpointWrapper,
    apply_activation_checkpointing,
    checkpoint_wrapper,
)

from onnxinterp import OnnxModule
from tests.distributed.network import DEPTH, EXPORTERS, batch, exported, loss_of, original


def gradients(module: nn.Module) -> tuple[dict[str, Tensor | None], int]:
    """The gradients by the names of the state dict, and the bytes kept for them."""
    ids, wanted = batch()
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = loss_of(module(ids), wanted)
    loss.backward()
    prefix = "_checkpoint_wrapped_module."
    return {n.replace(prefix, ""): p.grad for n, p in module.named_parameters()}, sum(kept.values())


@pytest.mark.parametrize("implementation", CheckpointImpl)
@pytest.mark.parametrize("exporter", EXPORTERS)
def test_gradients_are_those_of_the_original(exporter: str, implementation: CheckpointImpl) -> None:
    module = OnnxModule(exported(exporter))
    _, plain = gradients(OnnxModule(exported(exporter)))
    blocks = set(module.get_submodule("blocks").children())
    apply_activation_checkpointing(
        module,
        checkpoint_wrapper_fn=partial(checkpoint_wrapper, checkpoint_impl=implementation),
        check_fn=lambda level: level in blocks,
    )
    assert sum(isinstance(level, CheckpointWrapper) for level in module.modules()) == DEPTH
    (got, kept), (want, _) = gradients(module), gradients(original())
    torch.testing.assert_close(got, want)
    assert kept < 0.5 * plain
    assert set(module.state_dict()) == set(original().state_dict())
