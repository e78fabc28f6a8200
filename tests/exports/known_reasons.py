"""Why torch's tools fail: a pattern of the message, what it means, and where its makers say so.

For a model whose original torch module exists, these explain a cell and decide nothing: the
original decides. For files alone, a message that is listed here is the tool's limit.
"""

from __future__ import annotations

import re
from typing import NamedTuple

PYTORCH = "https://github.com/pytorch/pytorch/issues/"


class Reason(NamedTuple):
    """A limit of a tool.

    Attributes:
        pattern: regular expression that is found in the message.
        words: what it means.
        link: a thread in which its makers or users write of it.
    """

    pattern: str
    words: str
    link: str


REASONS = (
    Reason(
        r"Dynamo does not support RNN",
        "torch.compile breaks the graph at LSTM, GRU and RNN",
        f"{PYTORCH}167275",
    ),
    Reason(
        r"Batching rule not implemented for aten::(lstm|gru|rnn)",
        "vmap has no rule for LSTM, GRU and RNN",
        f"{PYTORCH}105982",
    ),
    Reason(
        r"using FX to torch\.jit\.trace a dynamo-optimized function",
        "torch.cond compiles its branches, which a trace cannot follow",
        f"{PYTORCH}145300",
    ),
    Reason(
        r"Expected FakeTensor, got .*_cond_op_wrapper",
        "torch.cond under vmap: the compiler of its branches meets batched tensors",
        f"{PYTORCH}114136",
    ),
    Reason(
        r"operators that can (output|support) dynamic shape",
        "vmap has no rule for operators whose output's shape depends on data",
        "https://github.com/pytorch/functorch/issues/256",
    ),
    Reason(
        r"stack expects each tensor to be equal size",
        "under vmap each sample would have results of its own shape",
        "https://github.com/pytorch/functorch/issues/256",
    ),
    Reason(
        r"openvino.*No conversion rule found for operations",
        "OpenVINO's reader of torch programs has no rule for an operator",
        "https://github.com/openvinotoolkit/openvino/issues/26116",
    ),
    Reason(
        r"vmap: It looks like you're (calling \.item|either \(1\))",
        "vmap has no control flow that depends on data",
        "https://github.com/pytorch/functorch/issues/257",
    ),
)


def reason_for(message: str) -> Reason | None:
    """The first reason whose pattern a message has."""
    return next((r for r in REASONS if re.search(r.pattern, message)), None)
