"""Which inputs and outputs of a file are what; and what is no decoder."""

from __future__ import annotations

from types import SimpleNamespace

import onnx
import pytest
import torch

import onnxinterp
from onnxinterp import InputError, OnnxModule
from onnxinterp.generation import Layout, layout_of
from onnxinterp.graph.ir import value_info
from tests.generation.decoders import decoder
from tests.models import parse


def layout(model: onnx.ModelProto) -> Layout:
    module = OnnxModule(model)
    return layout_of(module.inputs, module.onnx_graph)


@pytest.mark.parametrize(
    "names",
    [
        {"past": "past_key_values.{i}.{kind}", "present": "present.{i}.{kind}"},
        {"past": "past_key_values.{i}.{kind}", "present": "present_key_values.{i}.{kind}"},
        {"past": "past_{kind}_{i}", "present": "present_{kind}_{i}"},
        {"past": "past_key_values_{kind}_cache_{i}", "present": "present.{kind}.cache.{i}"},
        {"past": "past_{i}_{kind}", "present": "present_{i}_{kind}"},
    ],
)
def test_the_cache_is_found_by_its_names(names: dict[str, str]) -> None:
    parts = [(kind, i) for i in range(2) for kind in ("key", "value")]
    renaming = {
        f"{side}_{kind}_{i}": names[side].format(kind=kind, i=i)
        for kind, i in parts
        for side in ("past", "present")
    }
    found = layout(decoder(names=renaming))
    pairs = [(past.info.name, past.present) for past in found.cache]
    assert pairs == [(renaming[f"past_{k}_{i}"], n + 1) for n, (k, i) in enumerate(parts)]
    assert {(past.batch_axis, past.length_axis) for past in found.cache} == {(0, 2)}
    assert found.padding == "left"
    assert not found.shares_buffers


def test_files_without_a_cache() -> None:
    found = layout(decoder("none"))
    assert (found.cache, found.padding, found.last_only) == ((), "right", False)
    tokens = parse(
        """g (int64[b, s] tokens) => (float[b, s, 4] y) <float[2, 4] w = {1, 2, 3, 4, 5, 6, 7, 8}> {
            y = Gather(w, tokens)
        }"""
    )
    assert layout(tokens).inputs["input_ids"].name == "tokens"


STATES = """<ir_version: 10, opset_import: ["": 21]>
g (int64[b, s] input_ids, float[b, 4] past_sum_0, bool[1] use_cache_branch,
   int64 num_logits_to_keep) => (float[b, 1, 4] logits, float[b, 4] present_sum_0)
<float[4, 4] w = {1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1}> {
    rows = Gather(w, input_ids)
    axis = Constant <value_ints = [1]> ()
    new = ReduceSum <keepdims = 0> (rows, axis)
    present_sum_0 = Add(past_sum_0, new)
    logits = Unsqueeze(present_sum_0, axis)
}"""


def test_a_recurrent_state_starts_at_zero_and_prompts_are_not_padded() -> None:
    """The logits count the tokens: each next token is the most frequent one so far."""
    model = parse(STATES)
    module = OnnxModule(model)
    found = layout_of(module.inputs, module.onnx_graph)
    assert (found.padding, found.last_only) == ("none", True)
    ids = torch.tensor([[1, 1, 2, 3], [0, 0, 3, 0]])
    mask = torch.tensor([[1, 1, 1, 1], [0, 0, 1, 0]])
    new = onnxinterp.generate(module, ids, attention_mask=mask, max_new_tokens=2)[:, 4:]
    assert new.tolist() == [[1, 1], [3, 3]]


def test_logits_of_the_last_position_need_prompts_of_one_length() -> None:
    text = """g (int64[b, s] input_ids) => (float[b, one, 4] logits) <float[4, 4] w = {
            1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1}> {
        rows = Gather(w, input_ids)
        last = Constant <value_ints = [-1]> ()
        logits = Gather <axis = 1> (rows, last)
    }"""
    module = OnnxModule(parse(text))
    ids = torch.tensor([[1, 2], [3, 0]])
    assert onnxinterp.generate(module, ids, max_new_tokens=1)[:, 2:].tolist() == [[2], [0]]
    mask = torch.tensor([[1, 1], [1, 0]])
    with pytest.raises(InputError, match="logits of the last position alone"):
        onnxinterp.generate(module, ids, attention_mask=mask, max_new_tokens=1)


@pytest.mark.parametrize(
    ("inputs", "outputs", "message"),
    [
        (
            "float[b, 3, 8, 8] image",
            "float[b, 9] y",
            "no input is 'input_ids'; its inputs are image",
        ),
        ("float[b, s, 8] inputs_embeds", "float[b, s, 9] logits", r"\(it takes embeddings\)"),
        ("int64[b, s] input_ids", "float[b, 9] scores, float[b] y", "no output is 'logits'"),
        (
            "int64[b, s] input_ids, float[b, 4] x",
            "float[b, s, 9] logits",
            "does not know its inputs x",
        ),
        (
            "int64[b, s] input_ids, float[b, s, 4] encoder_hidden_states",
            "float[b, s, 9] logits",
            "an encoder-decoder",
        ),
        (
            "int64[3, b, s] input_ids",
            "float[b, s, 9] logits",
            r"'input_ids' must be \[batch, length",
        ),
        (
            "int64[b, s] input_ids, float[b, 2, p, 4] past_key_values_0_key",
            "float[b, s, 9] logits",
            "no output follows the input 'past_key_values_0_key', such as 'present_0_key'",
        ),
        (
            "int64[b, s] input_ids, float[b, h, p, d] past_0_key",
            "float[b, s, 9] logits, float[b, h, p, d] present_0_key",
            "must declare the number of heads",
        ),
    ],
)
def test_what_is_missing_is_named(inputs: str, outputs: str, message: str) -> None:
    graph = onnx.parser.parse_graph(f"g ({inputs}) => ({outputs}) {{ }}")
    decoded = SimpleNamespace(outputs=[*map(value_info, graph.output)], nodes=[])
    with pytest.raises(InputError, match=message):
        layout_of([*map(value_info, graph.input)], decoded)


def test_the_model_must_be_a_module() -> None:
    with pytest.raises(InputError, match="must be an OnnxModule or wrap one, got <class 'int'>"):
        onnxinterp.generate(3, torch.tensor([[1]]))
    relu = OnnxModule(parse("g (float[n] x) => (float[n] y) { y = Relu(x) }"))
    with pytest.raises(InputError, match="no input is 'input_ids'; its inputs are x"):
        onnxinterp.generate(relu, torch.tensor([[1]]))
