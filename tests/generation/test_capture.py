"""A decoder with GroupQueryAttention is one graph for prompts and for token steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import onnxruntime
import pytest
import torch
from torch import Tensor
from torch.export import Dim

from onnxinterp import OnnxModule
from tests.generation.decoders import CONTEXT, HEAD, KV_HEADS, LAYERS, VOCABULARY, decoder

SOURCE = decoder("shared", gqa=", do_rotary = 1").SerializeToString()
STEPS = [(2, 0, 5), (2, 5, 1), (1, 7, 1), (1, 0, 9), (3, 12, 1), (1, 4, 3)]
"""Batch, tokens of the past, new tokens; several new ones after a past are of batch 1 only."""


@pytest.fixture(scope="module")
def session() -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(SOURCE, options, providers=["CPUExecutionProvider"])


def step_inputs(module: OnnxModule, batch: int, past: int, new: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(past + new)
    inputs = {
        "input_ids": torch.randint(0, VOCABULARY, (batch, new), generator=generator),
        "attention_mask": torch.ones(batch, past + new, dtype=torch.int64),
        "position_ids": torch.arange(past, past + new).repeat(batch, 1),
    }
    for name in module.input_names[len(inputs) :]:
        inputs[name] = torch.randn(batch, KV_HEADS, past, HEAD, generator=generator)
    return inputs


def check_steps(
    module: OnnxModule, session: onnxruntime.InferenceSession, run: Callable[..., Any]
) -> None:
    for step in STEPS:
        inputs = step_inputs(module, *step)
        expected = session.run(None, {name: x.numpy() for name, x in inputs.items()})
        with torch.no_grad():
            found = run(*inputs.values())
        assert len(found) == 1 + 2 * LAYERS
        for got, want in zip(found, expected, strict=True):
            torch.testing.assert_close(got, torch.from_numpy(want), rtol=1e-3, atol=1e-4)


def test_one_exported_graph_runs_prompts_and_token_steps(
    session: onnxruntime.InferenceSession,
) -> None:
    module = OnnxModule(SOURCE)
    inputs = step_inputs(module, 2, 4, 3)
    batch, past = Dim("batch", max=8), Dim("past", max=CONTEXT)
    new, total = Dim("new", max=CONTEXT), Dim("total", max=CONTEXT)
    sizes: list[dict[int, Any]] = [{0: batch, 1: new}, {0: batch, 1: total}, {0: batch, 1: new}]
    sizes += [{0: batch, 2: past}] * (2 * LAYERS)
    exported = torch.export.export(
        module, tuple(inputs.values()), dynamic_shapes=tuple(sizes), strict=False
    )
    check_steps(module, session, exported.module())


@pytest.mark.capture
def test_compiled_without_breaks(session: onnxruntime.InferenceSession) -> None:
    module = OnnxModule(SOURCE)
    check_steps(module, session, torch.compile(module, fullgraph=True, backend="eager"))
