"""The model that generates: what is called, and the module that knows its graph.

They differ where a module is wrapped: by `m.optimize()`, `torch.compile`, DDP. The graph is read
from the module inside; only what the user passed is called.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from onnxinterp.errors import InputError
from onnxinterp.generation.layout import Layout, layout_of
from onnxinterp.graph.ir import ValueInfo
from onnxinterp.module import OnnxModule
from onnxinterp.planning.placement import device_of

WRAPPERS = ("_orig_mod", "module")  # of torch.compile; of snapshots and of data parallelism


class Model:
    """A decoder.

    Args:
        called: an OnnxModule, or what wraps one.

    Attributes:
        module: the OnnxModule.
        layout: what its graph takes and returns.
        device: where its weights are.

    Raises:
        InputError: there is no OnnxModule, or it is not a decoder.
    """

    def __init__(self, called: Any) -> None:
        self._called = called
        self.module = _module_of(called)
        self.layout: Layout = layout_of(self.module.inputs, self.module.onnx_graph)
        self.device = device_of(self.module.weights)

    def __call__(self, inputs: Mapping[str, Tensor]) -> tuple[Any, ...]:
        """Run the graph; its outputs, in their order."""
        results = self._called(**inputs)
        return results if isinstance(results, tuple) else (results,)

    def inputs(
        self, ids: Tensor, mask: Tensor, positions: Tensor, *, logits: int, first: bool
    ) -> dict[str, Tensor]:
        """The inputs besides the cache, of the types that the file declares.

        Args:
            ids: the tokens, [rows, length].
            mask: which tokens there are, of those in the cache too, [rows, total length].
            positions: of the tokens, [rows, length].
            logits: of how many positions they are needed.
            first: whether there is no past.
        """
        values = {
            "input_ids": ids,
            "attention_mask": mask,
            "position_ids": positions,
            "use_cache_branch": torch.tensor(not first, device=ids.device),
            "num_logits_to_keep": torch.tensor(logits, device=ids.device),
            "logits_to_keep": torch.tensor(logits, device=ids.device),
        }
        found = {}
        for name, info in self.layout.inputs.items():
            value = values[name].to(self.dtype(info))
            is_list = value.ndim == 0 and info.shape is not None and len(info.shape) == 1
            found[info.name] = value.reshape(1) if is_list else value
        return found

    @property
    def folder(self) -> Path | None:
        """The folder of the file; None where the model was not read from a path."""
        return self.module.template.folder

    def dtype(self, info: ValueInfo) -> torch.dtype:
        """The type of an input: as declared, or what `.to()` has made of it."""
        declared = info.dtype or torch.int64
        floating = self.module._floating
        return declared if floating is None else floating.dtypes.get(declared, declared)

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Run in `eval()` mode; afterwards each module is in the mode that it was in."""
        modes = [(module, module.training) for module in self.module.modules()]
        if not any(training for _, training in modes):
            yield
            return
        self.module.eval()
        try:
            yield
        finally:
            self.module.train(modes[0][1])
            for module, training in modes:
                module.training = training


def _module_of(called: Any) -> OnnxModule:
    """The OnnxModule in what wraps it."""
    inner = called
    while not isinstance(inner, OnnxModule):
        names = [name for name in WRAPPERS if isinstance(getattr(inner, name, None), nn.Module)]
        if not names:
            raise InputError(f"the model must be an OnnxModule or wrap one, got {type(called)}")
        inner = getattr(inner, names[0])
    return inner
