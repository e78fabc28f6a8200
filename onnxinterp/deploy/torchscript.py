"""TorchScript: a trace in a `.ts` file, which libtorch runs without Python.

torch has deprecated it, and warns so. Its other warnings are about sizes that Python compares while
it traces; the comparison at other sizes judges what became of them.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch.jit._trace import TracerWarning

from onnxinterp.deploy.errors import reported
from onnxinterp.deploy.subject import Dims, Subject
from onnxinterp.format.atomic import atomic_write

TOOL = "torch.jit.trace"


@contextmanager
def quiet() -> Iterator[None]:
    """Silence what torch says of TorchScript: it is asked for by name."""
    with warnings.catch_warnings():
        for message in ("You are using the legacy TorchScript", "The feature will be removed"):
            warnings.filterwarnings("ignore", message, DeprecationWarning)  # of torch.onnx
        warnings.filterwarnings("ignore", r"`torch\.jit\.\w+` is (deprecated|not supported)")
        warnings.filterwarnings("ignore", category=TracerWarning)
        yield


def write(subject: Subject, path: Path) -> Dims:
    """Write a `.ts`.

    Returns:
        All dimensions that may vary: a trace follows the sizes of its inputs.
    """
    inputs = subject.tensors(TOOL)
    file = io.BytesIO()
    with quiet(), torch.no_grad(), reported(f"{TOOL} cannot capture the model"):
        traced = torch.jit.trace(  # type: ignore[no-untyped-call]  # untyped in torch
            subject.module, inputs, check_trace=True
        )
        torch.jit.save(traced, file)
    atomic_write(path, lambda out: out.write(file.getbuffer()))
    return subject.dims


def load(path: Path) -> Callable[..., Any]:
    """The module of a `.ts`."""
    with quiet():
        module: Callable[..., Any] = torch.jit.load(path)  # type: ignore[no-untyped-call]
    return module
