"""Registration of the operators that onnxruntime adds in the domain com.microsoft."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from onnxinterp.registry import F, KernelOptions, op
from onnxinterp.schemas import MICROSOFT

if TYPE_CHECKING:
    from typing_extensions import Unpack  # typing has it from Python 3.11 on

REQUIRED: Any = None
"""The default of a required input after an optional one, which Python cannot declare."""


def contrib_op(
    name: str,
    *,
    data_shaped: bool = False,
    commutative: bool = False,
    **options: Unpack[KernelOptions],
) -> Callable[[F], F]:
    """Register a kernel of com.microsoft, whose operators have one version: 1."""
    return op(
        name,
        since=1,
        domain=MICROSOFT,
        data_shaped=data_shaped,
        commutative=commutative,
        **options,
    )
