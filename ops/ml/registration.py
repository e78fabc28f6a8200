"""Registration of the operators of ai.onnx.ml."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from onnxinterp.registry import F, KernelOptions, op

if TYPE_CHECKING:
    from typing_extensions import Unpack  # typing has it from Python 3.11 on

ML = "ai.onnx.ml"


def ml_op(name: str, *, since: int, **options: Unpack[KernelOptions]) -> Callable[[F], F]:
    """Register a kernel of ai.onnx.ml whose output shapes depend on shapes only."""
    return op(name, since=since, domain=ML, data_shaped=False, **options)
