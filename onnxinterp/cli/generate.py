"""`onnxinterp generate`: continue a text, or tokens, with a language model."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import torch

from onnxinterp.cli import arguments
from onnxinterp.errors import InputError, escaped
from onnxinterp.extras import require
from onnxinterp.generation import Detokenizer, stream
from onnxinterp.generation.options import DEFAULT_NEW_TOKENS
from onnxinterp.module import OnnxModule

EXAMPLES = """\
  onnxinterp generate model.onnx --prompt "Once upon a time"
  onnxinterp generate model.onnx --prompt "Once upon" --temperature 0.8 --top-p 0.9 --seed 1
  onnxinterp generate model.onnx --ids 1,15043,29892 --max-new-tokens 20"""
TOKENIZER = "tokenizer.json"


def add_to(commands: arguments.Commands) -> None:
    """Declare the command."""
    parser = arguments.add_command(
        commands, "generate", run, "continue a text with a language model", EXAMPLES
    )
    add = parser.add_argument
    add("model", type=Path, help="ONNX file of a decoder-only language model")
    prompt = parser.add_mutually_exclusive_group(required=True)
    text = f"the text to continue, by the {TOKENIZER} beside the model"
    prompt.add_argument("--prompt", metavar="TEXT", help=text)
    ids = "the tokens to continue, for example 1,15043; the new ones are printed as numbers"
    prompt.add_argument("--ids", metavar="IDS", type=tokens, help=ids)
    positive, most = arguments.positive_int, "at most so many tokens follow, default %(default)s"
    add("--max-new-tokens", type=positive, default=DEFAULT_NEW_TOKENS, metavar="N", help=most)
    add("--temperature", type=float, metavar="T", help="draw tokens; divides the logits")
    add("--top-k", type=positive, metavar="K", help="draw from the K most probable tokens")
    nucleus = "draw from the most probable tokens that together have this probability"
    add("--top-p", type=float, metavar="P", help=nucleus)
    add("--seed", type=int, help="draw tokens; the seed of the random numbers")
    arguments.add_untrusted(parser)


def run(options: argparse.Namespace) -> int:
    """Print the new tokens as they come; return 0."""
    tokenizer = _tokenizer(options.model) if options.ids is None else None
    prompt = options.ids if tokenizer is None else tokenizer.encode(options.prompt).ids
    if not prompt:
        raise InputError("the prompt must have a token")
    module = OnnxModule(options.model, limits=options.limits)
    names = ("max_new_tokens", "temperature", "top_k", "top_p", "seed")
    chosen: Any = {name: getattr(options, name) for name in names}
    new = (int(token) for token in stream(module, torch.tensor([prompt]), **chosen))
    if tokenizer is None:
        for place, token in enumerate(new):
            _show(f"{',' * bool(place)}{token}")
    else:
        text = Detokenizer(tokenizer)
        for token in new:
            _show(text.add(token))
        _show(text.finish())
    print()
    return 0


def tokens(string: str) -> list[int]:
    """Parse `1,15043,29892`."""
    try:
        found: list[int] = torch.tensor([int(part) for part in string.split(",")]).tolist()
    except ValueError:  # one of more than 64 bits is no token, either
        raise argparse.ArgumentTypeError(f"must be numbers like 1,2,3, got {string!r}") from None
    return found


def _tokenizer(model: Path) -> Any:
    """The tokenizer beside a model.

    Raises:
        InputError: there is none, or it cannot be read.
        MissingExtraError: the package that reads it is not installed.
    """
    path = model.parent / TOKENIZER
    if not path.is_file():
        model.stat()  # the model itself may be missing
        raise InputError(f"there is no {TOKENIZER} in {model.parent}: give tokens by --ids")
    library = require("tokenizers", "tokenizers")
    try:
        return library.Tokenizer.from_file(str(path))
    except Exception as error:  # it has no class of its own
        raise InputError(f"{path} cannot be read: {error}") from error


def _show(text: str) -> None:
    """Print text at once; what cannot be printed is escaped, except the breaks of a text."""
    safe = "".join([c if c in "\n\t" else escaped(c) for c in text])
    print(safe, end="", file=sys.stdout, flush=True)
