"""Strings and hashes of onnxruntime: Tokenizer and MurmurHash3.

They are the first nodes of classical text models: words, then a hash as the row of a table.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import numpy as np
import torch
from onnx import TensorProto
from torch import Tensor

from onnxinterp.dtypes import CARRIER
from onnxinterp.extras import require
from onnxinterp.ops.contrib.registration import contrib_op
from onnxinterp.registry import sample
from onnxinterp.runtime.guard import PLACE, reserve
from onnxinterp.runtime.strings import iter_watched, map_strings, unique_values
from onnxinterp.testing.samples import Call, Draw, call
from onnxinterp.values import Flag, Strings

START, END = "\x02", "\x03"
RE2_MEMORY = 2**23  # bytes for a pattern and its state while it matches; the default of RE2
RE2_STEPS = 1e8  # per second: pairs of a byte of the string and an instruction of the pattern
HASHED_BYTES = 2e6  # per second, in Python

Cut = Callable[[str], list[str]]
N = TypeVar("N", int, Tensor)


@contrib_op("Tokenizer", any_type=True)
def tokenizer(
    X: Strings,
    *,
    mark: int,
    mincharnum: int,
    pad_value: str,
    separators: Sequence[str] | None = None,
    tokenexp: str | None = None,
) -> Strings:
    """Tokens of fewer than mincharnum characters are dropped; `tokenexp` yields to `separators`.

    Of alternatives the longest matches, not the first. Padding stands after the end marker; where
    no string has a token, there are no markers either.
    """
    if X.ndim not in (1, 2):
        raise ValueError(f"X must be [C] or [N, C], got {list(X.shape)}")
    cut = _cut(separators, tokenexp, mincharnum)
    if not X.size:
        return np.empty((*X.shape[:-1], 0), dtype=object)
    strings, places = unique_values(X.reshape(-1))
    rows = [cut(string) for string in iter_watched(strings, lambda x: PLACE * len(x))]
    longest = max(map(len, rows))
    if mark and longest:
        rows = [[START, *row, END] for row in rows]
        longest += 2
    reserve(PLACE * (len(rows) + X.size) * longest)
    table = np.full((len(rows), longest), pad_value, dtype=object)
    for place, row in zip(table, rows, strict=True):
        place[: len(row)] = row if longest else []
    return table[places].reshape(*X.shape, longest)


def _cut(separators: Sequence[str] | None, tokenexp: str | None, shortest: int) -> Cut:
    """From a string to its tokens."""
    if shortest < 1:
        raise ValueError(f"mincharnum must be positive, got {shortest}")
    if not (tokenexp if separators is None else separators):
        raise ValueError("there must be separators or tokenexp")
    if tokenexp == "." if separators is None else list(separators) == [""]:
        if shortest > 1:
            raise ValueError(f"mincharnum must be 1 for single characters, got {shortest}")
        return list
    if separators is None:
        pattern = _compile(tokenexp or "")
        return lambda x: _matches(pattern, x, shortest)
    patterns = [_compile(separator) for separator in separators]
    return lambda x: _between(patterns, x, shortest)


def _compile(pattern: str) -> Any:
    re2 = require("re2", "regex")
    options = re2.Options()
    options.log_errors = False  # a line on stderr for each string
    options.max_mem = RE2_MEMORY
    options.never_capture = True
    options.longest_match = True
    return re2.compile(pattern, options)


def _search(pattern: Any, text: bytes, start: int) -> tuple[int, int] | None:
    """The bounds of the first match from byte `start` on."""
    if start > len(text):
        return None
    reserve(0, (len(text) - start) * pattern.programsize / RE2_STEPS)  # nothing interrupts RE2
    found = pattern.search(text, start)
    return None if found is None else found.span()


def _matches(pattern: Any, string: str, shortest: int) -> list[str]:
    """The matches that are long enough; after a shorter one, the next character is tried."""
    if len(string) < shortest:
        return []
    text, start, tokens = string.encode(), 0, []
    while found := _search(pattern, text, start):
        begin, end = found
        token = text[begin:end].decode()
        if len(token) >= shortest:
            tokens.append(token)
            start = end
        else:
            start = begin + _char_bytes(text, begin)
    return tokens


def _char_bytes(text: bytes, start: int) -> int:
    """The bytes of the character that begins at `start`; 1 at the end."""
    lead = text[start] if start < len(text) else 0
    return 1 if lead < 0xC0 else 2 if lead < 0xE0 else 3 if lead < 0xF0 else 4


def _between(separators: Sequence[Any], string: str, shortest: int) -> list[str]:
    """What is left between the matches of each separator in turn."""
    tokens = [string]
    for separator in separators:
        parts = (part for token in tokens for part in _split(separator, token.encode()))
        tokens = [part for part in parts if len(part) >= shortest]
    return tokens


def _split(separator: Any, text: bytes) -> Iterator[str]:
    start = 0
    while found := _search(separator, text, start):
        begin, end = found
        if begin == end:  # onnxruntime then reads behind the string
            raise ValueError("a separator must not match the empty string")
        yield text[start:begin].decode()
        start = end
    yield text[start:].decode()


def _hash_type(attributes: dict[str, Any], _inputs: Sequence[int]) -> int:
    signed, unsigned = int(TensorProto.INT32), int(TensorProto.UINT32)
    return unsigned if attributes.get("positive", 1) == 1 else signed


@contrib_op("MurmurHash3", any_type=True, infer_output_type=_hash_type)
def murmur_hash_3(
    X: Tensor | Strings,
    *,
    positive: Flag = 1,
    seed: int = 0,
    input_type: int = 0,
    device: torch.device,
) -> Tensor:
    """The hash of the bytes of each element in the type that the file declares."""
    dtype = torch.uint32 if positive else torch.int32
    if isinstance(X, np.ndarray):

        def of_string(string: str) -> int:
            data = string.encode()
            reserve(0, len(data) / HASHED_BYTES)
            return _hash_bytes(data, seed)

        return torch.from_numpy(map_strings(X, of_string, np.int64)).to(device).to(dtype)
    if X.is_floating_point():
        X = X.to(CARRIER.get(input_type, X.dtype))
    words = X.contiguous().unsqueeze(-1).view(torch.int32).long() & LOW
    h = torch.full_like(words[..., 0], seed & LOW)
    for word in words.unbind(-1):
        h = _add_block(h, word)
    return _finish(h, 4 * words.shape[-1]).to(dtype)


LOW = 0xFFFFFFFF  # the arithmetic is that of uint32


def _hash_bytes(data: bytes, seed: int) -> int:
    h, end = seed & LOW, len(data) & ~3
    for block in np.frombuffer(data[:end], "<u4").tolist():
        h = _add_block(h, block)
    if end < len(data):
        h ^= _scramble(int.from_bytes(data[end:], "little"))
    return _finish(h, len(data))


def _rotate(x: N, bits: int) -> N:
    return ((x << bits) | (x >> (32 - bits))) & LOW


def _scramble(block: N) -> N:
    return _rotate((block * 0xCC9E2D51) & LOW, 15) * 0x1B873593 & LOW


def _add_block(h: N, block: N) -> N:
    return (_rotate(h ^ _scramble(block), 13) * 5 + 0xE6546B64) & LOW


def _finish(h: N, length: int) -> N:
    h = h ^ length
    h = (h ^ (h >> 16)) * 0x85EBCA6B & LOW
    h = (h ^ (h >> 13)) * 0xC2B2AE35 & LOW
    return h ^ (h >> 16)


SENTENCES = ("", "Hello World", "I love  computer science !", "a,b;c", "日本 語", "été  a", "aab")
SEPARATORS = ([""], [" "], [",", ";"], [" +"], ["[, ]", "a|aa"], ["a", "b"], ["^a"], ["o\\b", " "])
TOKENS = (".", "[a-z]+", "a|aa", "\\w", "l*", "\\pL+", "..", "^.")


@sample(tokenizer)
def _(d: Draw) -> Call:
    shape = d.shape(1, 2, max_side=3)
    count = int(np.prod(shape))
    words = np.array([d.choice(SENTENCES) for _ in range(count)], object).reshape(shape)
    separators, tokenexp = d.choice(SEPARATORS), d.choice(TOKENS)
    both, expression = d.boolean(), d.boolean()
    by_character = tokenexp == "." if expression else separators == [""]
    return call(
        words,
        mark=d.integer(0, 1),
        mincharnum=1 if by_character else d.integer(1, 3),
        pad_value=d.choice(["", "<pad>"]),
        separators=None if expression else separators,
        tokenexp=tokenexp if expression or (both and not by_character) else None,
    )


@sample(murmur_hash_3)
def _(d: Draw) -> Call:
    shape = d.shape()
    x = d.tensor(shape, "T1", -(2**20), 2**20)
    positive = d.maybe(1) if d.elem_type("T2") == TensorProto.UINT32 else 0
    return call(x, positive=positive, seed=d.maybe(d.integer(0, 2**32 - 1)))
