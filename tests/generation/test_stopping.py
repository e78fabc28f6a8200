"""The end of a sequence: tokens of a configuration, and strings in its text."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch

import onnxinterp
from onnxinterp import InputError, InvalidModelError, OnnxModule
from onnxinterp.generation import Detokenizer
from tests.models import parse

COUNTER = """g (int64[b, s] input_ids) => (float[b, s, 8] logits) {
        one = Constant <value_int = 1> ()
        eight = Constant <value_int = 8> ()
        sum = Add(input_ids, one)
        next_ids = Mod(sum, eight)
        values = Constant <value_floats = [0.0, 1.0]> ()
        depth = Constant <value_ints = [8]> ()
        logits = OneHot(next_ids, depth, values)
    }"""


class Bytes:
    """Each token is a byte of this text."""

    TEXT = "héé €".encode()

    def decode(self, ids: Sequence[int], *, skip_special_tokens: bool = True) -> str:
        known = bytes(self.TEXT[i] for i in ids if not skip_special_tokens or i)
        return known.decode(errors="replace")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A model that counts: after token 3 comes 4, after 7 comes 0."""
    path = tmp_path / "model.onnx"
    onnx.save(parse(COUNTER), path)
    return path


@pytest.mark.parametrize(
    ("name", "config", "ids"),
    [
        ("generation_config.json", {"eos_token_id": 5}, [[3, 4, 5, 5], [1, 2, 3, 4]]),
        (
            "generation_config.json",
            {"eos_token_id": [4, 6], "pad_token_id": 0},
            [[3, 4, 0, 0], [1, 2, 3, 4]],
        ),
        (
            "genai_config.json",
            {"model": {"eos_token_id": 4, "pad_token_id": 7}, "search": {"max_length": 3}},
            [[3, 4, 7, 7], [1, 2, 3, 4]],
        ),
        ("generation_config.json", {"eos_token_id": None}, [[3, 4, 5, 6], [1, 2, 3, 4]]),
    ],
)
def test_the_end_is_that_of_the_configuration(
    name: str, config: Any, ids: list[list[int]], model: Path
) -> None:
    (model.parent / name).write_text(json.dumps(config))
    prompt = torch.tensor([[3], [1]])
    found = onnxinterp.generate(OnnxModule(model), prompt, max_length=4)
    assert found.tolist() == ids
    found = onnxinterp.generate(OnnxModule(model), prompt, max_length=4, eos_token_id=[])
    assert found.tolist() == [[3, 4, 5, 6], [1, 2, 3, 4]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not valid JSON"),
        ("[]", "must contain an object"),
        ('{"eos_token_id": "</s>"}', "eos_token_id must be a token or a list of tokens"),
        ('{"eos_token_id": [1, -1]}', "eos_token_id must be"),
        ("[" * 100_000, "not valid JSON"),
        (" " * (2**20 + 1), "must have at most"),
    ],
)
def test_a_wrong_configuration_is_named(text: str, message: str, model: Path) -> None:
    (model.parent / "generation_config.json").write_text(text)
    with pytest.raises(InvalidModelError, match=message):
        onnxinterp.generate(OnnxModule(model), torch.tensor([[1]]))


def test_strings_end_a_row(model: Path) -> None:
    module, options = OnnxModule(model), {"tokenizer": Bytes(), "max_new_tokens": 9}
    prompts = torch.tensor([[7], [4]])
    found = onnxinterp.generate(module, prompts[:1], stop_strings="é", **options)
    assert found[0, 1:].tolist() == [0, 1, 2]
    found = onnxinterp.generate(module, prompts[:1], stop_strings=["zz", "éé"], **options)
    assert found[0, 1:].tolist() == [0, 1, 2, 3, 4]
    found = onnxinterp.generate(module, prompts, stop_strings="éé", pad_token_id=6, **options)
    assert found[0, 1:].tolist() == [0, 1, 2, 3, 4, 6, 6, 6]
    assert found[1, 1:].tolist() == [5, 6, 7, 0, 1, 2, 3, 4]
    with pytest.raises(InputError, match="pad_token_id is needed"):
        onnxinterp.generate(module, prompts, stop_strings="é", **options)
    with pytest.raises(InputError, match="must not be empty"):
        onnxinterp.generate(module, prompts, stop_strings=[""], pad_token_id=6, **options)


def test_text_comes_with_its_last_byte() -> None:
    text = Detokenizer(Bytes(), special=True)
    assert [text.add(token) for token in range(5)] == ["h", "", "é", "", "é"]
    assert (text.add(5), text.finish()) == (" ", "")
    assert (text.add(6), text.finish()) == ("", "\N{REPLACEMENT CHARACTER}")
    text = Detokenizer(Bytes())
    assert [text.add(token) for token in range(3)] == ["", "", "é"]
