"""What a conversion starts from: a module, and the ONNX file that onnxruntime judges it by.

.onnx and others   OnnxModule(path); the file itself is the judge
.pth, .pt          a file of `checkpoints.save`; or, with `like`, the state dict of the torch
                   module that was exported
.safetensors       with `like`, weights by the names of that torch module
an OnnxModule      as it is, trained or not
"""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from onnxinterp import checkpoints
from onnxinterp.errors import InputError, InvalidModelError
from onnxinterp.limits import Limits
from onnxinterp.module import OnnxModule
from onnxinterp.snapshots.engines.exported import export


@dataclass(frozen=True)
class Origin:
    """Where a module came from.

    Attributes:
        module: in eval mode.
        file: the ONNX file; None where its weights are others than those of a file.
        name: of the file, for titles.
        loading: the line of Python that loads it.
    """

    module: OnnxModule
    file: Path | None
    name: str
    loading: str

    @contextmanager
    def reference(self) -> Iterator[Path]:
        """The ONNX file with the weights of the module; a temporary one is removed at the end."""
        if self.file is not None:
            yield self.file
            return
        with export(self.module).on_disk() as path:
            yield path


def open_origin(
    source: str | os.PathLike[str] | OnnxModule,
    like: str | os.PathLike[str] | None,
    limits: Limits,
) -> Origin:
    """Load what is to be converted.

    Raises:
        InputError: `like` is missing, or fits no such source.
        InvalidModelError: the file is damaged, or does not fit `like`.
    """
    if isinstance(source, OnnxModule):
        module = copy.deepcopy(source).eval() if source.training else source
        return Origin(module, None, "the module", "module")
    path = Path(source)
    if like is None:
        return WITHOUT_LIKE.get(path.suffix, _onnx)(path, limits)
    if path.suffix not in WITH_LIKE:
        expected = ", ".join(WITH_LIKE)
        raise InputError(f"with like, the input must be one of {expected}, got {path}")
    module = OnnxModule(Path(like), limits=limits)
    line = WITH_LIKE[path.suffix](module, path)
    loading = f'module = OnnxModule("{like}"); {line}'
    return Origin(module, None, path.name, loading)


def _onnx(path: Path, limits: Limits) -> Origin:
    module = OnnxModule(path, limits=limits)
    return Origin(module, path, path.name, f'module = OnnxModule("{path}")')


def _checkpoint(path: Path, limits: Limits) -> Origin:
    loading = f'from onnxinterp import checkpoints; module = checkpoints.load("{path}")'
    return Origin(checkpoints.load(path, limits=limits), None, path.name, loading)


def _alone(path: Path, limits: Limits) -> Origin:  # noqa: ARG001  # as the others
    raise InputError(f"{path} has weights only: give the ONNX model with --like (like=)")


def _load_state_dict(module: OnnxModule, path: Path) -> str:
    state = checkpoints.read_state_dict(path)
    try:
        module.load_state_dict(state)
    except RuntimeError as error:  # torch lists the names and shapes that do not fit
        raise InvalidModelError(f"{path} does not fit the model: {error}") from error
    return f'module.load_state_dict(torch.load("{path}", weights_only=True))'


def _load_safetensors(module: OnnxModule, path: Path) -> str:
    module.load_safetensors(path)
    return f'module.load_safetensors("{path}")'


WITHOUT_LIKE: dict[str, Callable[[Path, Limits], Origin]] = {
    ".pth": _checkpoint,
    ".pt": _checkpoint,
    ".safetensors": _alone,
}
WITH_LIKE: dict[str, Callable[[OnnxModule, Path], str]] = {
    ".pth": _load_state_dict,
    ".pt": _load_state_dict,
    ".safetensors": _load_safetensors,
}
