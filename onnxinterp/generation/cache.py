"""The cache before the prompt: empty, or zeros where it is a buffer or a state.

GroupQueryAttention takes a past in a buffer that is longer than it; other operators append to what
they get.
"""

from __future__ import annotations

import torch
from torch import Tensor

from onnxinterp.generation.layout import Past
from onnxinterp.generation.model import Model
from onnxinterp.graph.ir import Node
from onnxinterp.inspection.capture import Capture


class EmptyCache:
    """Makes the cache of a model.

    Args:
        model: the decoder. Where its file does not declare the size of the heads, a part of it runs
            once.
    """

    def __init__(self, model: Model) -> None:
        self._model = model
        self._widths: dict[object, int] = {}  # symbol of a dimension -> size
        for past in model.layout.cache:
            if past.reader is None or past.sizes[3] is not None or _symbol(past) in self._widths:
                continue
            self._widths[_symbol(past)] = self._width(past.reader)

    def __call__(self, rows: int, slots: int) -> list[Tensor]:
        """The tensors, in the order of the layout.

        Args:
            rows: the number of sequences.
            slots: the length of the cache.
        """
        return [self._tensor(past, rows, slots) for past in self._model.layout.cache]

    def _tensor(self, past: Past, rows: int, slots: int) -> Tensor:
        sizes = list(past.sizes)
        sizes[past.batch_axis] = rows
        if past.length_axis is not None:
            sizes[past.length_axis] = past.window or slots
        if past.reader is not None and sizes[3] is None:
            sizes[3] = self._widths.get(_symbol(past), 0)  # of a part that does not read it
        shape = [size for size in sizes if size is not None]
        assert len(shape) == len(sizes), "the layout admits no other unknown dimension"
        return torch.zeros(shape, dtype=self._model.dtype(past.info), device=self._model.device)

    def _width(self, reader: Node) -> int:
        """The size of a head in the cache, from the key that an operator gets for one token."""
        packed = not reader.inputs[1]
        key = reader.inputs[0] if packed else reader.inputs[1]
        heads: int = reader.attributes["kv_num_heads"]
        if packed:
            heads = reader.attributes["num_heads"] + 2 * heads
        model = self._model
        token = torch.zeros(1, 1, dtype=torch.int64, device=model.device)
        inputs = model.inputs(token, torch.ones_like(token), token, logits=1, first=True)
        for past in model.layout.cache:
            inputs[past.info.name] = self._tensor(past, 1, 0)
        value: Tensor = Capture(model.module, {key: (key,)})(**inputs)[key]
        size = value.shape[-1] // heads
        is_packed = reader.attributes.get("kv_cache_bit_width") == 4  # two numbers in a byte
        return size // 2 if is_packed else size


def _symbol(past: Past) -> object:
    """What the file calls the size of the heads."""
    return None if past.info.shape is None else past.info.shape[3]
