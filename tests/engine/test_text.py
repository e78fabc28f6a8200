"""Strings where there is no oracle: upper case by language, missing packages, time."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import onnx
import pytest

from onnxinterp import Limits, OnnxModule
from onnxinterp.errors import NodeError, UnsafeModelError
from onnxinterp.extras import MissingExtraError
from onnxinterp.runtime.guard import Guard, LimitExceeded
from onnxinterp.runtime.strings import SMALL_ARRAY, map_strings, unique_values


def run(node: str, opset: int, words: list[str], **options: Any) -> Any:
    text = f"""
    <ir_version: 9, opset_import: ["": {opset}]>
    g (string[n] x) => (y) {{ y = {node} (x) }}
    """
    model = onnx.parser.parse_model(text)
    return OnnxModule(model, **options)(np.array(words, dtype=object)).tolist()


@pytest.mark.parametrize(
    ("locale", "lower", "upper"),
    [("en_US", "iéß", "IÉSS"), ("C", "ié", "Ié"), ("tr_TR.UTF-8", "i\u0131é", "İIÉ")],
)
def test_upper_and_lower_case_follow_the_locale(locale: str, lower: str, upper: str) -> None:
    node = f'StringNormalizer <locale = "{locale}", case_change_action = "%s">'
    assert run(node % "UPPER", 10, [lower]) == [upper]
    assert run(node % "LOWER", 10, [upper]) == [lower.replace("ß", "ss")]


def test_no_pattern_takes_exponential_time() -> None:
    assert run('RegexFullMatch <pattern = "(a*)*b">', 20, ["a" * 1000]) == [False]


def test_a_pattern_that_re2_lacks_raises() -> None:
    with pytest.raises(Exception, match="RegexFullMatch") as error:
        run(r'RegexFullMatch <pattern = "(a)\\1">', 20, ["aa"])
    assert "invalid escape sequence" in str(error.value.__cause__)


def test_without_re2_the_message_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "re2", None)
    with pytest.raises(MissingExtraError, match=r"pip install onnxinterp\[regex\]"):
        run('RegexFullMatch <pattern = "a">', 20, ["a"])


STATES = "((a?){30}){30}b"  # 1,800 instructions, of which each byte can reach each


def test_the_function_is_called_once_for_a_string_at_many_places() -> None:
    seen: list[str] = []

    def upper(text: str) -> str:
        seen.append(text)
        return text.upper()

    words = np.array(["a", "b"] * SMALL_ARRAY, object).reshape(SMALL_ARRAY, 2)
    assert map_strings(words, upper).tolist() == [["A", "B"]] * SMALL_ARRAY
    assert seen == ["a", "b"]


@pytest.mark.parametrize("count", [0, 1, SMALL_ARRAY, SMALL_ARRAY + 1, 2**15 + 1])
@pytest.mark.parametrize("different", [1, 7, 2**20])
def test_each_string_has_its_own_result(count: int, different: int) -> None:
    numbers = [i % different for i in range(count)]
    words = np.array([str(n) for n in numbers], object)
    assert map_strings(words, int, np.int64).tolist() == numbers
    texts, places = unique_values(words)
    assert [texts[place] for place in places] == words.tolist()
    assert len(texts) == min(count, different)


@pytest.mark.parametrize(
    "words", [["a"] * 2**15, [str(i) for i in range(2**15)]], ids=["one", "many"]
)
def test_the_time_is_checked_between_strings(words: list[str]) -> None:
    done: list[str] = []
    guard = Guard(Limits(seconds=3600.0))

    def late(text: str) -> bool:
        guard._deadline = 0
        done.append(text)
        return True

    with guard, pytest.raises(LimitExceeded, match=r"limits\.seconds"):
        map_strings(np.array(["first", *words], object), late, np.bool_)
    assert len(done) == 1


def test_results_of_strings_are_counted_one_by_one() -> None:
    done: list[str] = []
    words = np.array([f"{i:01000}" for i in range(2000)], object)
    with Guard(Limits(live_bytes=2**20)), pytest.raises(LimitExceeded, match=r"limits\.live_bytes"):
        map_strings(words, lambda text: done.append(text) or text.upper())  # type: ignore[func-returns-value]
    assert 0 < len(done) < 1100


def test_a_match_that_can_take_minutes_does_not_begin() -> None:
    node = f'RegexFullMatch <pattern = "{STATES}">'
    assert run(node, 20, ["a" * 900 + "b"], limits=Limits(seconds=30.0)) == [True]
    with pytest.raises(UnsafeModelError, match=r"limits\.seconds"):
        run(node, 20, ["a" * 10_000_000], limits=Limits(seconds=30.0))


@pytest.mark.parametrize("pattern", ["(\\pL{100}){10}", "(" * 500, "a{1000}{1000}", "[[:no:]]"])
def test_an_invalid_pattern_writes_nothing(pattern: str, capfd: Any) -> None:
    escaped = pattern.replace("\\", "\\\\")
    with pytest.raises(NodeError, match="RegexFullMatch"):
        run(f'RegexFullMatch <pattern = "{escaped}">', 20, ["a"])
    assert capfd.readouterr().err == ""


def test_a_pattern_of_many_states_writes_nothing(capfd: Any) -> None:
    assert run(f'RegexFullMatch <pattern = "{STATES}">', 20, ["a" * 1000] * 3) == [False] * 3
    assert capfd.readouterr().err == ""
