"""Strings: StringConcat, StringSplit, StringNormalizer, RegexFullMatch, TfIdfVectorizer.

History: 9 (TfIdfVectorizer), 10 (StringNormalizer), 20 (the others). An array of strings is a numpy
array of objects; it never leaves the host.

Regular expressions have the syntax of RE2, and RE2 matches them (extra `regex`): Python's `re` has
another syntax, and may need exponential time for a pattern and a string of some dozen characters.
"""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor

from onnxinterp.extras import require
from onnxinterp.registry import op, sample
from onnxinterp.runtime.guard import PLACE, is_watched, reserve
from onnxinterp.runtime.strings import iter_watched, map_strings, map_to_int64, unique_values
from onnxinterp.testing.samples import Call, Draw, call
from onnxinterp.values import Flag, Floats, Host, Ints, Strings

PART = 64  # bytes of a short string and its place in a list
JOIN_SECONDS = 3e-8  # minimum for two strings
RE2_MEMORY = 2**23  # bytes for a pattern and its state while it matches; the default of RE2
RE2_STEPS = 1e8  # per second: pairs of a byte of the string and an instruction of the pattern


def _bytes(X: Strings) -> int:
    """The memory of the strings if they were all different objects."""
    return int(map_strings(X, sys.getsizeof, np.int64).sum())


def _strings(rows: Sequence[str], shape: Sequence[int]) -> Strings:
    return np.array(rows, dtype=object).reshape(shape)


@op("StringConcat", since=20, any_type=True)
def string_concat(X: Strings, Y: Strings) -> Strings:
    if is_watched():
        count = math.prod(np.broadcast_shapes(X.shape, Y.shape))
        size = sum(PLACE * count + count // max(a.size, 1) * _bytes(a) for a in (X, Y))
        reserve(size, count * JOIN_SECONDS)
    return np.asarray(X + Y, dtype=object)


@op("StringSplit", since=20, any_type=True)
def string_split(
    X: Strings,
    *,
    delimiter: str | None = None,
    maxsplit: int | None = None,
    device: torch.device,
) -> tuple[Strings, Tensor]:
    """Split at any whitespace if there is no delimiter; onnxruntime splits at spaces only.

    The specification does not define the parts of an empty string; onnxruntime returns none.
    """
    limit = -1 if maxsplit is None else maxsplit

    def size(x: str) -> int:
        return PART * (x.count(delimiter) if delimiter else len(x) // 2) + sys.getsizeof(x)

    strings, places = unique_values(X.reshape(-1))
    trimmed = (x if delimiter else x.strip() for x in iter_watched(strings, size))
    parts = [x.split(delimiter or None, limit) if x else [] for x in trimmed]
    lengths = np.fromiter(map(len, parts), np.int64, len(parts))
    longest = int(lengths.max(initial=0))
    reserve(PLACE * (len(parts) + X.size) * longest)  # most of its elements may be one empty string
    table = np.full((len(parts), longest), "", dtype=object)
    for row, found in zip(table, parts, strict=True):
        row[: len(found)] = found
    counts = torch.from_numpy(lengths[places].reshape(X.shape))
    return table[places].reshape(*X.shape, longest), counts.to(device)


@op("RegexFullMatch", since=20, any_type=True)
def regex_full_match(X: Strings, *, pattern: str | None = None, device: torch.device) -> Tensor:
    re2 = require("re2", "regex")
    options = re2.Options()
    options.log_errors = False  # a line on stderr for each string
    options.max_mem = RE2_MEMORY
    options.never_capture = True
    compiled = re2.compile(pattern or "", options)
    instructions = compiled.programsize

    def matches(x: str) -> bool:
        reserve(0, len(x) * instructions / RE2_STEPS)  # nothing interrupts RE2
        return compiled.fullmatch(x) is not None

    return torch.from_numpy(map_strings(X, matches, np.bool_)).to(device)


CaseChange: TypeAlias = Callable[[str], str]
UNICODE: dict[str, CaseChange] = {"NONE": str, "LOWER": str.lower, "UPPER": str.upper}
ASCII: dict[str, CaseChange] = {
    "NONE": str,
    "LOWER": lambda word: word.encode().lower().decode(),
    "UPPER": lambda word: word.encode().upper().decode(),
}
DOTLESS_I = "\u0131"
TURKIC: dict[str, CaseChange] = {
    "NONE": str,
    "LOWER": lambda word: word.replace("İ", "i").replace("I", DOTLESS_I).lower(),
    "UPPER": lambda word: word.replace("i", "İ").upper(),
}
# language of a locale -> its cases
CASES = {"C": ASCII, "POSIX": ASCII, "az": TURKIC, "tr": TURKIC}


@op("StringNormalizer", since=10, any_type=True)
def string_normalizer(
    X: Strings,
    *,
    case_change_action: str = "NONE",
    is_case_sensitive: Flag = 0,
    locale: str | None = None,
    stopwords: Sequence[str] | None = None,
) -> Strings:
    """One empty string if no word is left. The case of whole words is changed: ß becomes SS."""
    cases = CASES.get(re.split("[_.@-]", locale or "")[0], UNICODE)
    same = cases["NONE" if is_case_sensitive else "LOWER"]
    dropped = {same(word) for word in stopwords or ()}
    change = cases[case_change_action]
    kept = X[map_strings(X, lambda word: same(word) not in dropped, np.bool_)] if dropped else X
    words = map_strings(kept.reshape(-1), change) if kept.size else _strings([""], (1,))
    return words.reshape(*X.shape[:-1], words.size)


@op("TfIdfVectorizer", since=9, any_type=True)
def tfidf_vectorizer(
    X: Any,
    *,
    max_gram_length: int,
    max_skip_count: int,
    min_gram_length: int,
    mode: Literal["TF", "IDF", "TFIDF"],
    ngram_counts: Ints,
    ngram_indexes: Ints,
    pool_int64s: Ints | None = None,
    pool_strings: Sequence[str] | None = None,
    weights: Floats | None = None,
    device: torch.device,
) -> Tensor:
    """Count the n-grams of a pool; up to max_skip_count other tokens may be in between.

    The weights are in the order of the n-grams in the pool, not of the output columns.
    """
    tokens, pool = _tokens(X, pool_int64s, pool_strings, device)
    found = torch.zeros(
        (*tokens.shape[:-1], max(ngram_indexes) + 1), dtype=torch.float32, device=device
    )
    first = 0
    for n, (start, end) in enumerate(_bounds(ngram_counts, len(pool), len(ngram_indexes)), 1):
        grams = torch.tensor(pool[start:end], device=device).reshape(-1, n)
        columns = torch.tensor(ngram_indexes[first : first + len(grams)], device=device)
        first += len(grams)
        if min_gram_length <= n <= max_gram_length and len(grams):
            found = found.index_add(-1, columns, _counts(tokens, grams, max_skip_count))
    if mode == "IDF":
        found = (found > 0).float()
    if mode == "TF" or weights is None:
        return found
    columns = torch.tensor(ngram_indexes, device=device)
    scale = torch.zeros(found.shape[-1], device=device)
    return found * scale.scatter(0, columns, torch.tensor(weights, device=device))


def _bounds(starts: Ints, end: int, columns: int) -> list[tuple[int, int]]:
    """Start and end in the pool of the n-grams of each length; each has a column."""
    bounds = list(zip(starts, [*starts[1:], end], strict=True))
    counts = [(end - start) // n for n, (start, end) in enumerate(bounds, 1)]
    if min(starts) < 0 or min(counts) < 0 or sum(counts) != columns:
        raise ValueError(f"ngram_counts must fit {columns} columns, got {starts}")
    return bounds


def _tokens(
    X: Any, numbers: Ints | None, words: Sequence[str] | None, device: torch.device
) -> tuple[Tensor, list[int]]:
    """The input, at least of rank 1, and the pool, both as numbers."""
    if isinstance(X, np.ndarray):
        known = {word: i for i, word in enumerate(dict.fromkeys(words or ()))}
        tokens = torch.from_numpy(map_to_int64(X.reshape(-1), known.get, -1)).to(device)
        return tokens.reshape(X.shape or (1,)), [known[word] for word in words or ()]
    tokens = X.tensor(device) if isinstance(X, Host) else X
    return tokens.reshape(tokens.shape or (1,)), list(numbers or ())


def _counts(tokens: Tensor, grams: Tensor, skips: int) -> Tensor:
    """Counts of each n-gram in each row of tokens, [..., number of n-grams]."""
    n = grams.shape[1]
    counts = torch.zeros((*tokens.shape[:-1], len(grams)), device=tokens.device)
    widest = (tokens.shape[-1] - 1) // (n - 1) if n > 1 else 1  # the largest step that fits
    for step in range(1, min(skips + 1 if n > 1 else 1, widest) + 1):
        span = step * (n - 1) + 1
        if span <= tokens.shape[-1]:
            windows = tokens.unfold(-1, span, 1)[..., ::step].unsqueeze(-2)
            counts = counts + (windows == grams).all(-1).sum(-2)
    return counts


WORDS = (
    "",
    "a",
    "B",
    "ab",
    "b a",
    " a  b ",
    "été",
    "A1",
    "x,y,,z",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "a.b",
    "É",
)
PATTERNS = (
    "",
    "a",
    "[a-z]*",
    r"\w\d",
    r"[[:alpha:]]+[^\D]?",
    "(?i)ab?|é",
    ".*é",
    r"\pL+",
    r"\Qa.b\E",
    r"(?P<first>a|b)(?:\s|,)*?.?",
    r"(?s).*",
    r"^a$|\bB\z",
    "(a+)+b",  # exponential if matching backtracks
)


def _draw_words(d: Draw, shape: Sequence[int], words: Sequence[str] = WORDS) -> Strings:
    count = int(np.prod(shape))
    return _strings([d.choice(words) for _ in range(count)], shape)


@sample(string_concat)
def _(d: Draw) -> Call:
    shape = d.shape(max_dims=2)
    return call(_draw_words(d, shape), _draw_words(d, d.broadcastable(shape)))


@sample(string_split)
def _(d: Draw) -> Call:
    delimiter, limit = d.maybe(d.choice(["", ",", "a", " ", ",,"])), d.maybe(d.integer(0, 2))
    return call(_draw_words(d, d.shape(max_dims=2)), delimiter=delimiter, maxsplit=limit, outputs=2)


@sample(regex_full_match)
def _(d: Draw) -> Call:
    words = _draw_words(d, d.shape(max_dims=2), (*WORDS, "a\n"))
    return call(words, pattern=d.choice(PATTERNS))


@sample(string_normalizer)
def _(d: Draw) -> Call:
    n = d.integer(1, 4)
    words = [d.choice(["a", "A", "ab", "aB", "c d", "", "é", "éÀb", "ÀÉ"]) for _ in range(n)]
    return call(
        _strings(words, d.choice([(n,), (1, n)])),
        locale=d.choice([None, "C", "en_US.UTF-8"]),
        stopwords=d.maybe([d.choice(["a", "AB", "aB", "x", "À", "É"]), "C D"]),
        is_case_sensitive=d.maybe(d.integer(0, 1)),
        case_change_action=d.maybe(d.choice(["NONE", "LOWER", "UPPER"])),
    )


@sample(tfidf_vectorizer)
def _(d: Draw) -> Call:
    """A pool of different n-grams for each length, some lengths without any."""
    longest, words = d.integer(1, 3), d.boolean()
    pool: list[int] = []
    starts, grams = [], 0
    for n in range(1, longest + 1):
        starts.append(len(pool))
        numbers = d.permutation(3**n)[: d.integer(1 if n == longest else 0, 3)]
        pool += [number // 3**k % 3 for number in numbers for k in range(n)]
        grams += len(numbers)
    shape = d.choice([(4,), (2, 5), (1, 2), (3, 7)])
    tokens: Any = d.ints(shape, 0, 3, d.choice([torch.int64, torch.int32]))
    if words:
        tokens = _strings([str(i) for i in tokens.flatten().tolist()], shape)
    shortest = d.integer(1, longest)
    return call(
        tokens,
        mode=d.choice(["TF", "IDF", "TFIDF"]),
        min_gram_length=shortest,
        max_gram_length=d.integer(shortest, longest),
        max_skip_count=d.integer(0, 2),
        ngram_counts=starts,
        ngram_indexes=d.permutation(grams + d.integer(0, 2))[:grams],
        weights=d.maybe([d.real(0.25, 4) for _ in range(grams)]),
        pool_int64s=None if words else pool,
        pool_strings=[str(i) for i in pool] if words else None,
    )
