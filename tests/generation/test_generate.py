"""Tokens of `generate` are those of a loop over onnxruntime, for each layout of files."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch

import onnxinterp
from onnxinterp import InputError, OnnxModule
from tests.generation.decoders import BUILDER, CONTEXT, decoder
from tests.generation.reference import Loop
from tests.models import parse

COUNT = 8
PROMPTS = ([3, 5, 7, 1], [9, 2], [11, 4, 6, 8], [13])
OPTIMUM = {k: v.replace("present.", "present_key_values.") for k, v in BUILDER.items()}
LAYOUTS: dict[str, dict[str, Any]] = {
    "concatenated": {},
    "concatenated, names of optimum": {"names": OPTIMUM},
    "concatenated, names of torch": {"names": {}},
    "concatenated, padding is NaN": {"hidden": "-inf"},
    "concatenated, no positions": {"positions": False},
    "concatenated, no mask": {"mask": False, "positions": False},
    "shared": {"cache": "shared"},
    "shared, no size of heads": {"cache": "shared", "head": "d"},
    "no cache": {"cache": "none"},
    "no cache, tokens alone": {"cache": "none", "mask": False, "positions": False},
    "no cache, fixed length": {"cache": "none", "width": 16},
}


def padded(side: str) -> dict[str, torch.Tensor]:
    """The prompts as one batch, with its mask."""
    width, ids, mask = max(map(len, PROMPTS)), [], []
    for prompt in PROMPTS:
        zeros = [0] * (width - len(prompt))
        ones = [1] * len(prompt)
        ids.append(zeros + prompt if side == "left" else prompt + zeros)
        mask.append(zeros + ones if side == "left" else ones + zeros)
    return {"input_ids": torch.tensor(ids), "attention_mask": torch.tensor(mask)}


@pytest.fixture(scope="module")
def expected() -> list[tuple[list[int], np.ndarray]]:
    """What onnxruntime says of each prompt; all layouts have the same weights."""
    loop = Loop(decoder())
    return [loop(prompt, COUNT) for prompt in PROMPTS]


@pytest.fixture(scope="module")
def module() -> OnnxModule:
    return OnnxModule(decoder())


@pytest.mark.parametrize("layout", LAYOUTS)
def test_tokens_are_those_of_onnxruntime(layout: str, expected: Any) -> None:
    model = decoder(**LAYOUTS[layout])
    if "fixed" not in layout:  # the weights being the same, so are the logits
        tokens, logits = Loop(model)(PROMPTS[0], COUNT)
        assert tokens == expected[0][0]
        np.testing.assert_allclose(logits, expected[0][1], atol=1e-4)
    module, wanted = OnnxModule(model), [tokens for tokens, _ in expected]
    for side in ("left", "right"):
        batch = padded(side)
        found = onnxinterp.generate(module, **batch, max_new_tokens=COUNT)
        assert found.dtype == torch.int64
        assert torch.equal(found[:, :-COUNT], batch["input_ids"])
        assert found[:, -COUNT:].tolist() == wanted


@pytest.mark.parametrize("gqa", ["", ", local_window_size = 3"])
def test_a_buffer_grows_in_steps(gqa: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With masks as long as the buffer, onnxruntime computes the same."""
    monkeypatch.setattr(onnxinterp.generation.decoder, "SLOTS", 4)
    model = decoder("shared", gqa=gqa)
    module, loop, batch = OnnxModule(model), Loop(model), padded("left")
    wanted = [loop(prompt, COUNT)[0] for prompt in PROMPTS]
    sizes: list[tuple[int, int]] = []

    def note(_: Any, __: Any, given: dict[str, torch.Tensor]) -> None:
        sizes.append((given["attention_mask"].shape[1], given["past_key_values.0.key"].shape[2]))

    handle = module.register_forward_pre_hook(note, with_kwargs=True)
    found = onnxinterp.generate(module, **batch, max_new_tokens=COUNT)
    assert found[:, -COUNT:].tolist() == wanted
    assert sizes == [(4, 8), *[(8, 8)] * 4, *[(12, 12)] * 3]
    handle.remove()
    example = (torch.ones(2, 1).long(), torch.ones(2, 4).long(), torch.ones(2, 1).long())
    cache = [torch.zeros(2, 2, 4, 16)] * 4
    snapshot = module.optimize(*example, *cache, engine="onnxruntime", cache=False)
    found = onnxinterp.generate(snapshot, **batch, max_new_tokens=COUNT)
    assert found[:, -COUNT:].tolist() == wanted


def test_a_cache_that_is_a_window_keeps_its_length() -> None:
    window = ", local_window_size = 3"
    loop = Loop(decoder("shared", gqa=window))
    module = OnnxModule(decoder("shared", gqa=f"{window}, sliding_window_cache = 1"))
    lengths: set[int] = set()

    def note(_: Any, __: Any, given: dict[str, torch.Tensor]) -> None:
        lengths.add(given["past_key_values.1.value"].shape[2])

    module.register_forward_pre_hook(note, with_kwargs=True)
    found = onnxinterp.generate(module, **padded("right"), max_new_tokens=COUNT)
    assert found[:, -COUNT:].tolist() == [loop(prompt, COUNT)[0] for prompt in PROMPTS]
    assert lengths == {3}


def test_logits_are_those_of_onnxruntime(
    module: OnnxModule, expected: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[torch.Tensor] = []
    process = onnxinterp.generation.logits.Sampling.process

    def spy(self: Any, logits: torch.Tensor, *rest: Any) -> torch.Tensor:
        seen.append(logits)
        return process(self, logits, *rest)

    monkeypatch.setattr(onnxinterp.generation.logits.Sampling, "process", spy)
    onnxinterp.generate(module, **padded("left"), max_new_tokens=COUNT)
    wanted = np.stack([logits for _, logits in expected], 1)
    np.testing.assert_allclose(torch.stack(seen).numpy(), wanted, atol=1e-4)


def test_rows_end_by_themselves_and_are_padded(module: OnnxModule, expected: Any) -> None:
    tokens = [row for row, _ in expected]
    end = tokens[0][2]
    found = onnxinterp.generate(
        module, **padded("left"), max_new_tokens=COUNT, eos_token_id=[end, 39], pad_token_id=7
    )
    stops = [next((i for i, t in enumerate(row) if t in (end, 39)), COUNT - 1) for row in tokens]
    width = max(stops) + 1
    wanted = [row[: s + 1] + [7] * (width - s - 1) for row, s in zip(tokens, stops, strict=True)]
    assert found[:, 4:].tolist() == wanted
    one = onnxinterp.generate(module, torch.tensor(PROMPTS[:1]), eos_token_id=end)
    assert one[0, 4:].tolist() == tokens[0][:3]


def test_an_end_before_the_least_number_of_tokens_is_not_chosen(
    module: OnnxModule, expected: Any
) -> None:
    (tokens, logits), end = expected[0], expected[0][0][1]
    found = onnxinterp.generate(
        module, torch.tensor(PROMPTS[:1]), eos_token_id=end, min_new_tokens=4, max_new_tokens=COUNT
    )
    new = found[0, 4:].tolist()
    assert new[0] == tokens[0]
    assert new[1] == int(np.argsort(logits[1])[-2])
    assert end not in new[:4]


def test_lengths(module: OnnxModule) -> None:
    prompt = torch.tensor(PROMPTS[:1])
    sizes = [
        onnxinterp.generate(module, prompt, **limits).shape[1]
        for limits in (
            {"max_length": 6},
            {"max_length": 6, "max_new_tokens": 1},
            {"max_length": 60, "max_new_tokens": 3},
        )
    ]
    assert sizes == [6, 5, 7]
    with pytest.raises(InputError, match="no token may follow a prompt of 4 tokens"):
        onnxinterp.generate(module, prompt, max_length=4)
    with pytest.raises(onnxinterp.NodeError):  # the model has no more positions
        onnxinterp.generate(module, prompt, max_length=CONTEXT + 2)


def test_tokens_are_streamed(module: OnnxModule, expected: Any) -> None:
    calls: list[torch.Tensor] = []
    found = onnxinterp.generate(module, **padded("right"), max_new_tokens=3, streamer=calls.append)
    assert torch.equal(torch.stack(calls, 1), found[:, 4:])
    steps = onnxinterp.stream(module, torch.tensor(PROMPTS[:1]), max_new_tokens=3)
    first = next(steps)
    assert not torch.is_inference_mode_enabled()
    assert [int(first), *map(int, steps)] == expected[0][0][:3]


def test_the_mode_is_restored(module: OnnxModule, expected: Any) -> None:
    own = copy.deepcopy(module).train()
    modes: list[bool] = []
    own.register_forward_pre_hook(lambda m, _: modes.append(m.training))
    prompt = torch.tensor(PROMPTS[:1])
    found = onnxinterp.generate(own, prompt, max_new_tokens=COUNT)
    assert found[0, 4:].tolist() == expected[0][0]
    assert modes == [False] * COUNT
    assert own.training
    steps = onnxinterp.stream(own, prompt)
    next(steps)
    steps.close()
    assert own.training
    embedding = torch.nn.Embedding(40, 2)
    embedding(found).sum().backward()  # the result is no inference tensor


def test_snapshots_generate(module: OnnxModule, expected: Any) -> None:
    cache = [torch.zeros(1, 2, 2, 16)] * 4
    example = (torch.tensor([[1, 2]]), torch.ones(1, 4).long(), torch.tensor([[2, 3]]), *cache)
    snapshot = module.optimize(*example, engine="onnxruntime", cache=False)
    found = onnxinterp.generate(snapshot, torch.tensor(PROMPTS[:1]), max_new_tokens=COUNT)
    assert found[0, 4:].tolist() == expected[0][0]


@pytest.mark.capture
def test_compiled_modules_generate() -> None:
    text = """g (int64[b, s] input_ids) => (float[b, s, 3] logits)
        <float[3, 3] w = {0, 1, 0, 0, 0, 1, 1, 0, 0}> { logits = Gather(w, input_ids) }"""
    compiled = torch.compile(OnnxModule(parse(text)), backend="eager")
    found = onnxinterp.generate(compiled, torch.tensor([[1]]), max_new_tokens=2)
    assert found.tolist() == [[1, 2, 0]]


def test_a_module_in_half_precision_has_its_cache(module: OnnxModule) -> None:
    half = copy.deepcopy(module).to(torch.bfloat16)
    found = onnxinterp.generate(half, torch.tensor(PROMPTS[:1]), max_new_tokens=2)
    assert found.shape == (1, 6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"input_ids": torch.tensor([1, 2])}, r"integers \[batch, length\], got torch.int64 \[2\]"),
        ({"input_ids": torch.ones(1, 2)}, "got torch.float32"),
        ({"input_ids": torch.ones(1, 0).long()}, "must have a token"),
        ({"input_ids": torch.tensor([[1, -1]])}, "0 or more"),
        ({"attention_mask": torch.ones(1, 3)}, r"attention_mask must be \[1, 2\], got \[1, 3\]"),
        ({"attention_mask": torch.zeros(1, 2)}, "must have a token"),
        ({"max_new_tokens": 0}, "no token may follow"),
        ({"temperature": 0.0}, "temperature must be a positive number, got 0.0"),
        ({"repetition_penalty": -1.0}, "repetition_penalty must be"),
        ({"top_k": 0}, "top_k must be"),
        ({"top_p": 1.5}, "top_p must be"),
        ({"min_new_tokens": -1}, "min_new_tokens must be"),
        ({"do_sample": False, "top_k": 3}, "top_k has no effect"),
        ({"seed": 1, "generator": torch.Generator()}, "cannot be combined"),
        ({"num_return_sequences": 2}, "needs do_sample"),
        ({"num_return_sequences": 0}, "must be 1 or more"),
        ({"stop_strings": "a"}, "need a tokenizer"),
        ({"seed": 2**64}, "seed must be a number of 64 bits"),
        ({"eos_token_id": 2**70}, "tokens must be numbers of 64 bits"),
        ({"pad_token_id": 2**63, "eos_token_id": 1}, "tokens must be numbers of 64 bits"),
        ({"max_length": 0, "max_new_tokens": 2}, "no token may follow"),
    ],
)
def test_wrong_arguments_are_named(
    options: dict[str, Any], message: str, module: OnnxModule
) -> None:
    with pytest.raises(InputError, match=message):
        onnxinterp.generate(module, **{"input_ids": torch.tensor([[1, 2]]), **options})


def test_an_unknown_argument_is_an_error(module: OnnxModule) -> None:
    with pytest.raises(TypeError, match="num_beams"):
        onnxinterp.generate(module, torch.tensor([[1, 2]]), num_beams=4)


def test_the_typed_options_are_the_options() -> None:
    from onnxinterp.generation.options import Options, OptionValues

    assert set(OptionValues.__annotations__) == set(Options.__dataclass_fields__)
