"""The layout of a decoder: which inputs and outputs of its graph are which.

Three kinds of files are decoders. They are told apart by the names and types of inputs and outputs:

    shared buffers   GroupQueryAttention reads the past: onnxruntime-genai's model builder
    concatenated     other operators append to the past: optimum, torch's exporter
    no cache         tokens in, logits out: each step runs the whole sequence

Names differ between exporters: `past_key_values.0.key` and `present.0.key`, `past_key_0` and
`present_key_0`, `past_0` and `present_values_0`. What remains of a name without "past" or "present"
says which two belong together. A past without a dimension of its own for the length is the state of
a recurrent layer.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from onnxinterp.errors import InputError
from onnxinterp.graph.ir import Graph, Node, ValueInfo

Sizes = tuple[int | None, ...]
Padding = Literal["left", "right", "none"]
SHARED = ("com.microsoft", "GroupQueryAttention")
PASTS = {3: "past_key", 4: "past_value"}  # inputs of that operator
NAMES = {
    "input_ids": "the tokens",
    "attention_mask": "the mask",
    "position_ids": "the positions",
    "use_cache_branch": "whether there is a past",
    "num_logits_to_keep": "of how many positions logits are wanted",
    "logits_to_keep": "likewise",
}
CACHE_NAME = re.compile(r"^(past|present)(_key_values|_values|s)?(?![a-z])", re.IGNORECASE)


@dataclass(frozen=True)
class Past:
    """One tensor of the cache.

    Attributes:
        info: the input.
        present: the number of the output that becomes this input in the next step.
        batch_axis: the dimension of the batch.
        length_axis: the dimension that grows with the sequence; None for a recurrent state.
        sizes: the sizes of the other dimensions; None where the file does not say.
        reader: the GroupQueryAttention that reads it; None for other operators.
    """

    info: ValueInfo
    present: int
    batch_axis: int
    length_axis: int | None
    sizes: Sizes
    reader: Node | None

    @property
    def window(self) -> int | None:
        """The length of a buffer that holds the last positions alone; None: it holds all."""
        attributes = self.reader.attributes if self.reader is not None else {}
        return attributes["local_window_size"] if attributes.get("sliding_window_cache") else None


@dataclass(frozen=True)
class Layout:
    """What a decoder takes and returns.

    Attributes:
        inputs: the inputs among `NAMES` that it has, by these names.
        logits: the number of the output.
        last_only: whether logits are those of the last position alone.
        cache: the tensors of the cache; none for a file without.
        branches: whether the graph has an If.
    """

    inputs: Mapping[str, ValueInfo]
    logits: int
    last_only: bool
    cache: tuple[Past, ...]
    branches: bool

    @property
    def shares_buffers(self) -> bool:
        """Whether the past may be in a buffer that is longer than it."""
        return bool(self.cache) and all(past.reader is not None for past in self.cache)

    @property
    def padding(self) -> Padding:
        """On which side prompts of different lengths are padded.

        "none" where a file has no way to say what is padding: prompts of each length are run by
        themselves. Without a cache, padding on the right is behind all that a token sees.
        GroupQueryAttention takes lengths, and expects the tokens of a row first. It takes no
        padding where its cache is a window.
        """
        if not self.cache or self.shares_buffers:
            masked = not self.cache or "attention_mask" in self.inputs
            windows = any(past.window for past in self.cache)
            return "right" if masked and not windows and not self.last_only else "none"
        has_states = any(past.length_axis is None for past in self.cache)
        known = "attention_mask" in self.inputs and "position_ids" in self.inputs
        return "left" if known and not has_states else "none"


def layout_of(inputs: Sequence[ValueInfo], graph: Graph) -> Layout:
    """The layout of a decoder.

    Args:
        inputs: the required inputs.
        graph: the main graph.

    Raises:
        InputError: it is not a decoder: the message says what is missing, or which input is not
            known.
    """
    pasts = {i.name: _part(i.name) for i in inputs if _is_cache(i, "past")}
    named = {i.name: i for i in inputs if i.name in NAMES}
    rest = [i for i in inputs if i.name not in pasts and i.name not in named]
    if "input_ids" not in named and len(rest) == 1 and _is_tokens(rest[0]):
        named["input_ids"] = rest.pop()
    _check_inputs(named, rest, [i.name for i in inputs])
    logits = _logits(graph.outputs)
    tokens = named["input_ids"]
    cache = _cache([i for i in inputs if i.name in pasts], graph, tokens)
    shape = graph.outputs[logits].shape
    width = None if tokens.shape is None else tokens.shape[1]
    last_only = shape is not None and (len(shape) == 2 or (shape[1] == 1 and width != 1))
    branches = any(node.op_type == "If" for node in graph.nodes)
    return Layout(named, logits, last_only, cache, branches)


def _check_inputs(
    named: Mapping[str, ValueInfo], rest: Sequence[ValueInfo], names: Sequence[str]
) -> None:
    """Check that there are tokens, and nothing that generation does not know."""
    if "input_ids" not in named:
        hint = " (it takes embeddings)" if "inputs_embeds" in names else ""
        raise _no_decoder(f"no input is 'input_ids'{hint}; its inputs are {', '.join(names)}")
    for name in ("input_ids", "attention_mask", "position_ids"):
        info = named.get(name)
        if info is not None and info.shape is not None and len(info.shape) != 2:
            raise _no_decoder(f"input {name!r} must be [batch, length], got {info}")
    if rest:
        listed = ", ".join(str(i) for i in rest)
        encoder = any("encoder" in i.name for i in rest)
        why = " (an encoder-decoder)" * encoder
        raise _no_decoder(f"generation does not know its inputs {listed}{why}")


def _no_decoder(why: str) -> InputError:
    return InputError(f"the model is not a decoder-only language model that can be run: {why}")


def _is_tokens(info: ValueInfo) -> bool:
    is_integer = info.dtype is not None and not info.dtype.is_floating_point
    return is_integer and info.shape is not None and len(info.shape) == 2


def _is_cache(info: ValueInfo, prefix: str) -> bool:
    """Whether a value is part of the cache: its name says so, and it is no single number."""
    named = CACHE_NAME.match(info.name)
    is_large = info.shape is None or len(info.shape) > 1
    return named is not None and named[1].lower() == prefix and is_large


def _part(name: str) -> tuple[tuple[int, ...], frozenset[str]]:
    """Which part of the cache a name means: numbers (of the layer), and words."""
    rest = CACHE_NAME.sub("", name)
    words = re.findall(r"[a-z]+", rest.lower())
    return tuple(map(int, re.findall(r"\d+", rest))), frozenset(words)


def _logits(outputs: Sequence[ValueInfo]) -> int:
    """The number of the output `logits`, or of the only one that is not part of the cache."""
    names = [o.name for o in outputs]
    if "logits" in names:
        return names.index("logits")
    others = [i for i, o in enumerate(outputs) if not _is_cache(o, "present")]
    if len(others) != 1 or not _is_floating(outputs[others[0]]):
        raise _no_decoder(f"no output is 'logits'; its outputs are {', '.join(names)}")
    return others[0]


def _is_floating(info: ValueInfo) -> bool:
    floats = info.dtype is not None and info.dtype.is_floating_point
    return floats and (info.shape is None or len(info.shape) in (2, 3))


def _cache(pasts: Sequence[ValueInfo], graph: Graph, tokens: ValueInfo) -> tuple[Past, ...]:
    """Each past with the output that follows it."""
    outputs = list(enumerate(graph.outputs))
    presents = {_part(o.name): i for i, o in outputs if _is_cache(o, "present")}
    readers = {
        node.inputs[place]: node
        for node in graph.nodes
        if (node.domain, node.op_type) == SHARED
        for place in PASTS
        if place < len(node.inputs)
    }
    cache = []
    for info in pasts:
        present = presents.get(_part(info.name))
        if present is None:
            listed = ", ".join(o.name for _, o in outputs)
            raise _no_decoder(
                f"no output follows the input {info.name!r}, such as "
                f"{CACHE_NAME.sub('present', info.name)!r}; its outputs are {listed}"
            )
        cache.append(_past(info, present, tokens, readers.get(info.name)))
    if len({past.present for past in cache}) < len(cache):
        raise _no_decoder("an output follows several inputs of the cache")
    return tuple(cache)


def _past(info: ValueInfo, present: int, tokens: ValueInfo, reader: Node | None) -> Past:
    """One tensor of the cache; GroupQueryAttention says what its dimensions are."""
    if info.kind != "tensor" or info.shape is None or info.dtype is None:
        raise _no_decoder(f"the input {info.name!r} must declare its type and rank, got {info}")
    shape: tuple[Any, ...] = info.shape
    if reader is not None:
        heads = reader.attributes["kv_num_heads"]
        width = shape[3] if len(shape) == 4 and isinstance(shape[3], int) else None
        return Past(info, present, 0, 2, (None, heads, None, width), reader)
    free = [axis for axis, size in enumerate(shape) if not isinstance(size, int)]
    batch = tokens.shape[0] if tokens.shape is not None else None
    if batch is not None and batch in shape:
        batch_axis = shape.index(batch)
    else:
        batch_axis = 0 if isinstance(batch, int) else next(iter(free), 0)
    lengths = [axis for axis in free if axis != batch_axis]
    if len(lengths) > 1:
        raise _no_decoder(f"it must declare the number of heads and their size, got {info}")
    sizes = tuple(size if isinstance(size, int) else None for size in shape)
    return Past(info, present, batch_axis, lengths[0] if lengths else None, sizes, None)
