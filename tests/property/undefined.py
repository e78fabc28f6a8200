"""What onnxruntime leaves undefined in its answers, set to what we return.

GreedySearch    the tokens behind the step in which the last sequence ended: padding
"""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx.helper import get_node_attr_value

from tests.property.one_node import OneNode


def defined(case: OneNode, answer: list[Any]) -> list[Any]:
    """The answer to a call, complete."""
    node = case.model.graph.node[0]
    if node.op_type != "GreedySearch":
        return answer
    (sequences,) = answer
    vocab = get_node_attr_value(node, "decoder").output[0].type.tensor_type.shape.dim[2].dim_value
    if get_node_attr_value(node, "eos_token_id") >= vocab:
        return answer  # no sequence ends
    pad, prompt = get_node_attr_value(node, "pad_token_id"), case.call.inputs[0].shape[1]
    ended = (sequences[:, prompt:] == pad).all(0)  # samples: nothing else is padding there
    behind = np.cumsum(ended) > 0
    tail = np.where(behind, pad, sequences[:, prompt:])
    return [np.concatenate([sequences[:, :prompt], tail], 1).astype(sequences.dtype)]
