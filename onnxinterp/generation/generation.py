"""Generating tokens: `generate` returns all of them, `stream` each as soon as it is known."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from onnxinterp.errors import InputError
from onnxinterp.generation.decoder import Decoder
from onnxinterp.generation.logits import Sampling
from onnxinterp.generation.model import Model
from onnxinterp.generation.options import Options, OptionValues
from onnxinterp.generation.stopping import Stopping

if TYPE_CHECKING:
    from typing_extensions import Unpack  # typing has it from Python 3.11 on


def generate(
    m: Any,
    input_ids: Tensor,
    *,
    streamer: Callable[[Tensor], object] | None = None,
    **options: Unpack[OptionValues],
) -> Tensor:
    """Continue sequences of tokens with a decoder-only language model.

    The model runs in `eval()` mode and without gradients; its mode is restored. Tokens are chosen
    as by `generate` of Hugging Face transformers (see `generation.logits`).

    Example:
        >>> m = OnnxModule("model.onnx")  # doctest: +SKIP
        >>> ids = onnxinterp.generate(m, prompt, max_new_tokens=50)  # doctest: +SKIP

    Args:
        m: an OnnxModule of a decoder, or a snapshot or a compiled module of one.
        input_ids: the prompts, integers [batch, length].
        streamer: called with each new token of all sequences, int64 [batch].
        **options: all have a default.

            attention_mask: 0 where a prompt has padding, on either side, [batch, length].
            max_new_tokens: at most so many follow; 128, if there is no `max_length` either.
            max_length: prompt and new tokens together are at most so many.
            min_new_tokens: before that many, no end token is chosen.
            do_sample: whether tokens are drawn; if not, each is the most probable one. By default,
            they are if `temperature`, `top_k`, `top_p`, `seed` or `generator` is given.
            temperature: divides the logits; by default 1.
            top_k: only the so many most probable tokens are drawn; by default any.
            top_p: only the most probable tokens that together have this probability are drawn.
            repetition_penalty: above 1, tokens that a sequence has already are less likely.
            eos_token_id: the end token, or several; by default those of `generation_config.json`
            or `genai_config.json` beside the model. An empty list: none.
            pad_token_id: follows after the end of a sequence, as long as others go on; by default
            that of these files, or the first end token.
            stop_strings: a sequence also ends with a token that completes one in its new text.
            tokenizer: for `stop_strings`: one of `tokenizers` or `transformers`.
            num_return_sequences: how many continuations are drawn of each prompt.
            seed: of the random numbers; without, torch's own generator draws.
            generator: draws.

    Returns:
        The prompts as they were given, and the new tokens; int64
        [batch * num_return_sequences, length].

    Raises:
        InputError: the model is not a decoder, or an argument is wrong.
        InvalidModelError: the configuration beside the model cannot be read.
        NodeError: as of a call of the module.
    """
    new = []
    with closing(stream(m, input_ids, **options)) as steps:
        for tokens in steps:
            new.append(tokens)
            if streamer is not None:
                streamer(tokens)
    prompts = input_ids.long().repeat_interleave(len(new[0]) // len(input_ids), 0)
    return torch.cat([prompts, torch.stack(new, 1)], 1)


def stream(
    m: Any, input_ids: Tensor, **options: Unpack[OptionValues]
) -> Generator[Tensor, None, None]:
    """The new tokens of `generate` one by one, each int64 [batch * num_return_sequences].

    Arguments and errors are those of `generate`. The model is in `eval()` mode until the last token
    was taken, or the iterator is closed.
    """
    chosen = Options(**options)
    model = Model(m)
    prompts = chosen.prompts(input_ids, model.device)
    count = chosen.new_tokens(input_ids.shape[1])
    sampling, stopping = chosen.sampling(model.device), chosen.stopping(model, len(prompts))
    run = _Run(model, prompts, count, sampling, stopping)
    return run.tokens(input_ids.device)


class _Run:
    """One generation.

    Args:
        model: the decoder.
        prompts: the tokens of each row.
        count: how many may follow.
        sampling: how they are chosen.
        stopping: what ends a row.
    """

    def __init__(
        self,
        model: Model,
        prompts: Sequence[Tensor],
        count: int,
        sampling: Sampling,
        stopping: Stopping,
    ) -> None:
        self._model = model
        self._prompts = prompts
        self._count = count
        self._sampling = sampling
        self._stopping = stopping
        self._decoder: Decoder | None = None
        self._seen: Tensor | None = None
        self._last = prompts[0]

    def tokens(self, device: torch.device) -> Generator[Tensor, None, None]:
        """The tokens of all rows, step by step."""
        with self._model.evaluating():
            for step in range(self._count):
                yield self._next(step).to(device, copy=True)  # of a caller who may want gradients
                if self._stopping.all_ended():
                    return

    @torch.inference_mode()
    def _next(self, step: int) -> Tensor:
        logits = self._start() if self._decoder is None else self._decoder.step(self._last)
        if logits.isnan().any():
            raise InputError(f"the model returns logits that are not numbers, at token {step + 1}")
        if self._sampling.repetition_penalty != 1:
            self._note(logits)
        ends = self._stopping.ends if step < self._sampling.min_new_tokens else None
        scores = self._sampling.process(logits, self._seen, ends)
        self._last = self._stopping.add(self._sampling.choose(scores))
        return self._last

    def _start(self) -> Tensor:
        """Run the prompts: without padding, where the file returns NaN for it."""
        self._decoder = Decoder(self._model, self._prompts, self._count)
        logits = self._decoder.start()
        if len(set(map(len, self._prompts))) > 1 and logits.isnan().any():
            self._decoder = Decoder(self._model, self._prompts, self._count, padding="none")
            logits = self._decoder.start()
        return logits

    def _note(self, logits: Tensor) -> None:
        """Note the tokens that each row has."""
        if self._seen is None:
            self._seen = torch.zeros_like(logits, dtype=torch.bool)
            for seen, prompt in zip(self._seen, self._prompts, strict=True):
                seen[prompt[prompt < len(seen)]] = True
        else:
            self._seen.scatter_(1, self._last[:, None], True)
