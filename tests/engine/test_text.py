"""Strings where no oracle tells: languages with cases of their own, missing packages, time."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import onnx
import pytest

from onnxinterp import OnnxModule
from onnxinterp.extras import MissingExtraError


def run(node: str, opset: int, words: list[str]) -> Any:
    text = f"""
    <ir_version: 9, opset_import: ["": {opset}]>
    g (string[n] x) => (y) {{ y = {node} (x) }}
    """
    model = onnx.parser.parse_model(text)
    return OnnxModule(model)(np.array(words, dtype=object)).tolist()


@pytest.mark.parametrize(
    ("locale", "lower", "upper"),
    [("en_US", "iéß", "IÉSS"), ("C", "ié", "Ié"), ("tr_TR.UTF-8", "i\u0131é", "İIÉ")],
)
def test_cases_are_those_of_the_locale(locale: str, lower: str, upper: str) -> None:
    node = f'StringNormalizer <locale = "{locale}", case_change_action = "%s">'
    assert run(node % "UPPER", 10, [lower]) == [upper]
    assert run(node % "LOWER", 10, [upper]) == [lower.replace("ß", "ss")]


def test_no_pattern_takes_exponential_time() -> None:
    assert run('RegexFullMatch <pattern = "(a*)*b">', 20, ["a" * 1000]) == [False]


def test_what_is_not_of_re2_is_refused() -> None:
    with pytest.raises(Exception, match="RegexFullMatch") as error:
        run(r'RegexFullMatch <pattern = "(a)\\1">', 20, ["aa"])
    assert "invalid escape sequence" in str(error.value.__cause__)


def test_without_re2_the_message_names_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "re2", None)
    with pytest.raises(MissingExtraError, match=r"pip install onnxinterp\[regex\]"):
        run('RegexFullMatch <pattern = "a">', 20, ["a"])
