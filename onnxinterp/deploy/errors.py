"""What can go wrong between a module and a file for another tool."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from onnxinterp.errors import OnnxError


class ConversionError(OnnxError, RuntimeError):
    """Raised when a model loads, but cannot be written in the requested format."""


class ChangedAnswersError(ConversionError):
    """Raised when a simplified model computes something else than the original."""


@contextmanager
def reported(what: str) -> Iterator[None]:
    """Turn any error of another tool into a ConversionError: `what: its own message`.

    Each tool raises errors of its own; those of this library say enough already.
    """
    try:
        yield
    except OnnxError:
        raise
    except Exception as error:
        raise ConversionError(f"{what}: {error}") from error
