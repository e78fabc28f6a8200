"""The options of `generate` and `stream`, checked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypedDict

import torch
from torch import Tensor

from onnxinterp.errors import InputError
from onnxinterp.generation.defaults import end_tokens
from onnxinterp.generation.logits import Sampling
from onnxinterp.generation.model import Model
from onnxinterp.generation.stopping import Stopping, StopStrings
from onnxinterp.generation.text import Tokenizer

DEFAULT_NEW_TOKENS = 128


class OptionValues(TypedDict, total=False):
    """The options as keyword arguments: the fields of `Options`."""

    attention_mask: Tensor | None
    max_new_tokens: int | None
    max_length: int | None
    min_new_tokens: int
    do_sample: bool | None
    temperature: float | None
    top_k: int | None
    top_p: float | None
    repetition_penalty: float
    eos_token_id: int | Sequence[int] | None
    pad_token_id: int | None
    stop_strings: str | Sequence[str]
    tokenizer: Tokenizer | None
    num_return_sequences: int
    seed: int | None
    generator: torch.Generator | None


@dataclass(frozen=True)
class Options:
    """What `generate` describes."""

    attention_mask: Tensor | None = None
    max_new_tokens: int | None = None
    max_length: int | None = None
    min_new_tokens: int = 0
    do_sample: bool | None = None
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    repetition_penalty: float = 1.0
    eos_token_id: int | Sequence[int] | None = None
    pad_token_id: int | None = None
    stop_strings: str | Sequence[str] = ()
    tokenizer: Tokenizer | None = None
    num_return_sequences: int = 1
    seed: int | None = None
    generator: torch.Generator | None = None

    def prompts(self, input_ids: Tensor, device: torch.device) -> list[Tensor]:
        """The tokens of each row without its padding, int64 [length].

        Raises:
            InputError: they are not integers [batch, length], or a row has no token.
        """
        ids, mask = input_ids, self.attention_mask
        if not isinstance(ids, Tensor) or ids.ndim != 2 or ids.is_floating_point():
            got = f"{ids.dtype} {list(ids.shape)}" if isinstance(ids, Tensor) else type(ids)
            raise InputError(f"input_ids must be integers [batch, length], got {got}")
        if mask is not None and mask.shape != ids.shape:
            raise InputError(f"attention_mask must be {list(ids.shape)}, got {list(mask.shape)}")
        ids = ids.to(device, torch.int64)
        chosen = torch.ones_like(ids) if mask is None else mask.to(device)
        rows = [row[kept != 0] for row, kept in zip(ids, chosen, strict=True)]
        if not rows or not all(map(len, rows)):
            raise InputError(f"each prompt must have a token, got input_ids {list(ids.shape)}")
        if torch.cat(rows).min() < 0:
            raise InputError("the tokens of input_ids must be 0 or more")
        if self.num_return_sequences < 1:
            raise InputError(f"num_return_sequences must be 1 or more: {self.num_return_sequences}")
        return [row for row in rows for _ in range(self.num_return_sequences)]

    def new_tokens(self, length: int) -> int:
        """How many tokens may follow a prompt of this length.

        Raises:
            InputError: none.
        """
        most = DEFAULT_NEW_TOKENS if self.max_length is None else self.max_length - length
        if self.max_new_tokens is not None:
            given = self.max_new_tokens
            most = given if self.max_length is None else min(given, most)
        if most < 1:
            limits = f"max_new_tokens={self.max_new_tokens}, max_length={self.max_length}"
            raise InputError(f"no token may follow a prompt of {length} tokens: {limits}")
        return most

    def sampling(self, device: torch.device) -> Sampling:
        """How tokens are chosen.

        Raises:
            InputError: the options contradict each other, or a number is out of its range.
        """
        drawn = ("temperature", "top_k", "top_p", "seed", "generator")
        given = [name for name in drawn if getattr(self, name) is not None]
        if self.do_sample is False and given:
            raise InputError(f"{given[0]} has no effect with do_sample=False")
        if self.seed is not None and self.generator is not None:
            raise InputError("seed and generator cannot be combined")
        if self.seed is not None and not -(2**63) <= self.seed < 2**64:
            raise InputError(f"seed must be a number of 64 bits, got {self.seed}")
        do_sample = bool(given) if self.do_sample is None else self.do_sample
        if self.num_return_sequences > 1 and not do_sample:
            raise InputError("num_return_sequences needs do_sample=True: all would be equal")
        generator = self.generator
        if self.seed is not None:
            generator = torch.Generator(device).manual_seed(self.seed)
        temperature = 1.0 if self.temperature is None else self.temperature
        ranges = temperature, self.top_k, self.top_p, self.repetition_penalty, self.min_new_tokens
        return Sampling(do_sample, *ranges, generator)

    def stopping(self, model: Model, rows: int) -> Stopping:
        """What ends a row.

        Raises:
            InputError: there is no tokenizer for strings, or no token to pad with.
            InvalidModelError: the configuration beside the model cannot be read.
        """
        found = end_tokens(model.folder)
        eos = found.ends if self.eos_token_id is None else self.eos_token_id
        ends = [eos] if isinstance(eos, int) else list(eos)
        pad = found.pad if self.pad_token_id is None else self.pad_token_id
        pad = next(iter(ends), None) if pad is None else pad
        if any(not -(2**63) <= token < 2**63 for token in (*ends, pad or 0)):
            raise InputError(f"tokens must be numbers of 64 bits, got {ends} and {pad}")
        strings = None
        if self.stop_strings:
            if self.tokenizer is None:
                raise InputError("stop_strings need a tokenizer=, which turns tokens into text")
            wanted = self.stop_strings
            wanted = [wanted] if isinstance(wanted, str) else list(wanted)
            strings = StopStrings(wanted, self.tokenizer, rows)
        if strings is not None and pad is None and rows > 1:
            raise InputError("pad_token_id is needed: rows end at different lengths")
        tokens = torch.tensor(ends, dtype=torch.int64, device=model.device)
        return Stopping(rows, tokens, pad, strings)
