"""What nodes compute, by our own kernels: enough to draw graphs where nobody judges."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from onnx import NodeProto

from onnxinterp import OnnxModule, backend
from tests.untrusted.fuzz.drafting import Draft
from tests.untrusted.fuzz.naming import made


class OwnValues:
    """Answers as `judging.Judge` does, without an oracle."""

    def values(self, draft: Draft, nodes: Sequence[NodeProto]) -> dict[str, Any] | None:
        """The values as numpy arrays; None where the nodes do not run."""
        model, feeds = draft.model(nodes, made(nodes))
        try:
            module = OnnxModule(model)
            with torch.no_grad():
                answer = module(**{n: backend.to_torch(v) for n, v in feeds.items()})
        except Exception:  # it is drawn anew; that ours run is judged elsewhere
            return None
        answers = answer if isinstance(answer, tuple) else (answer,)
        arrays = (to_array(a) for a in answers)
        return dict(zip(made(nodes), arrays, strict=True))


def to_array(value: Any) -> Any:
    """A tensor as numpy; sequences element by element."""
    if isinstance(value, list):
        return [to_array(v) for v in value]
    return value.numpy(force=True) if isinstance(value, torch.Tensor) else value
