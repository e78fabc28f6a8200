"""Greedy generation by a loop over onnxruntime, written for one prompt at a time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
import onnxruntime


class Loop:
    """A decoder in onnxruntime; prompts have no padding, and each runs by itself."""

    def __init__(self, model: onnx.ModelProto) -> None:
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.intra_op_num_threads = 1
        data = model.SerializeToString()
        self.session = onnxruntime.InferenceSession(data, options)
        self.outputs = [o.name for o in self.session.get_outputs()]
        self.inputs = self.session.get_inputs()

    def __call__(self, prompt: Sequence[int], count: int) -> tuple[list[int], np.ndarray]:
        """The new tokens, and the logits that they were chosen by [count, vocabulary]."""
        tokens, logits = list(prompt), []
        pasts = [i for i in self.inputs if i.name.startswith("past")]
        cache = {i.name: np.zeros((1, i.shape[1], 0, i.shape[3]), np.float32) for i in pasts}
        follows = [n for n in self.outputs if n.startswith("present")]
        new = list(prompt)
        for _ in range(count):
            start = len(tokens) - len(new)
            feeds = {
                "input_ids": np.array([new]),
                "attention_mask": np.ones((1, len(tokens)), np.int64),
                "position_ids": np.arange(start, len(tokens))[None],
            }
            wanted = {i.name for i in self.inputs}
            feeds = {name: value for name, value in feeds.items() if name in wanted} | cache
            found = dict(zip(self.outputs, self.session.run(None, feeds), strict=True))
            cache = dict(zip(cache, (found[name] for name in follows), strict=True))
            logits.append(found["logits"][0, -1])
            tokens.append(int(logits[-1].argmax()))
            new = tokens[-1:] if cache else tokens
        return tokens[len(prompt) :], np.stack(logits)
