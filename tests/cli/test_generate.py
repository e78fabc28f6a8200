"""`onnxinterp generate`: text and tokens, printed as they come."""

from __future__ import annotations

import sys
from pathlib import Path

import onnx
import pytest

from onnxinterp.cli import main
from tests.models import parse

Captured = pytest.CaptureFixture[str]
WORDS = ["<s>", "</s>", "once", "upon", "a", "time", "\x1b[2J"]
FOLLOWS = {"<s>": "once", "once": "upon", "upon": "a", "a": "time", "time": "</s>"}


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A model that knows one sentence."""
    size = len(WORDS)
    rows = [[0.0] * size for _ in WORDS]
    for word, follower in FOLLOWS.items():
        rows[WORDS.index(word)][WORDS.index(follower)] = 4.0
    rows[-1][-1] = 4.0
    weights = ", ".join(str(x) for row in rows for x in row)
    text = f"""g (int64[b, s] input_ids) => (float[b, s, {size}] logits)
        <float[{size}, {size}] w = {{{weights}}}> {{ logits = Gather(w, input_ids) }}"""
    path = tmp_path / "model.onnx"
    onnx.save(parse(text), path)
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": 1}')
    return path


@pytest.fixture
def tokenizer(model: Path) -> Path:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    words = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, "<s>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    words.post_processor = processors.TemplateProcessing("<s> $A", special_tokens=[("<s>", 0)])
    words.add_special_tokens(["<s>", "</s>"])
    path = model.parent / "tokenizer.json"
    words.save(str(path))
    return path


def test_text_is_continued_to_its_end(model: Path, tokenizer: Path, capsys: Captured) -> None:
    assert main(["generate", str(model), "--prompt", "once upon"]) == 0
    assert capsys.readouterr().out == "a time\n"
    assert main(["generate", str(model), "--prompt", "", "--max-new-tokens", "2"]) == 0
    assert capsys.readouterr().out == "once upon\n"


def test_tokens_are_continued_without_a_tokenizer(model: Path, capsys: Captured) -> None:
    assert main(["generate", str(model), "--ids", "2,3"]) == 0
    assert capsys.readouterr().out == "4,5,1\n"


def test_tokens_of_more_than_64_bits_are_refused(model: Path) -> None:
    with pytest.raises(SystemExit):
        main(["generate", str(model), "--ids", str(2**70)])


def test_tokens_are_drawn(model: Path, capsys: Captured) -> None:
    arguments = ["generate", str(model), "--ids", "2,3", "--temperature", "9", "--max-new-tokens"]
    outputs = set()
    for seed in ("1", "1", "2", "3"):
        assert main([*arguments, "12", "--seed", seed]) == 0
        outputs.add(capsys.readouterr().out)
    assert len(outputs) == 3
    assert main([*arguments, "3", "--top-k", "1"]) == 0
    assert capsys.readouterr().out == "4,5,1\n"
    assert main([*arguments, "3", "--top-p", "0.01"]) == 0
    assert capsys.readouterr().out == "4,5,1\n"
    assert main([*arguments, "3", "--top-p", "2"]) == 2
    assert "top_p must be from 0 to 1, got 2.0" in capsys.readouterr().err


def test_text_sends_no_commands_to_the_terminal(
    model: Path, tokenizer: Path, capsys: Captured
) -> None:
    assert main(["generate", str(model), "--prompt", "\x1b[2J", "--max-new-tokens", "1"]) == 0
    assert capsys.readouterr().out == "\\x1b[2J\n"


def test_a_missing_tokenizer_is_named(
    model: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["generate", str(model), "--prompt", "once"]) == 2
    assert "there is no tokenizer.json in" in capsys.readouterr().err
    (model.parent / "tokenizer.json").write_text("{}")
    assert main(["generate", str(model), "--prompt", "once"]) == 2
    assert "tokenizer.json cannot be read" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    assert main(["generate", str(model), "--prompt", "once"]) == 2
    assert "pip install onnxinterp[tokenizers]" in capsys.readouterr().err
