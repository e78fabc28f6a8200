"""Torch's compiler ahead of time: the module as a shared library of C++, with constant weights.

It takes a minute or more, and a C++ compiler, so it runs only where `engine=` names it. The library
is kept in the cache folder, by the model, its weights, the sizes and the machine: the next process
loads it at once. A folder that others can write to is not used, since a library is code.
"""

from __future__ import annotations

import json
import threading
import warnings
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor

from onnxinterp.errors import EngineError
from onnxinterp.format.atomic import atomic_write
from onnxinterp.snapshots.choices import cache_folder, processor, versions
from onnxinterp.snapshots.engines import Options, Runner
from onnxinterp.snapshots.subject import Subject, check_file_suffices, graph_hash, weights_hash

CONFIG = {"freezing": True}  # weights are laid out as the kernels want them
MAX_NOTE_BYTES = 2**16
_compiling = threading.Lock()  # the compiler has settings of the whole process


class Library:
    """Runs a compiled library.

    Args:
        run: the library. It reads inputs as if they had the sizes and dtypes it was made for.
        inputs: an example.
    """

    takes_any_sizes = False

    def __init__(self, run: Any, inputs: tuple[Tensor, ...]) -> None:
        self._run = run
        first, second = self._results(inputs), self._results(inputs)
        pairs = enumerate(zip(first, second, strict=True))
        # what is at the same place in a second call is memory of the library
        self._constant = {i for i, (a, b) in pairs if _address(a) == _address(b)}

    def __call__(self, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Run once."""
        inputs = tuple([x.detach().resolve_neg().contiguous() for x in inputs])
        seen, results = {_address(x) for x in inputs}, []
        for i, result in enumerate(self._results(inputs)):
            shared = i in self._constant or _address(result) in seen
            results.append(result.clone() if shared else result)
            seen.add(_address(result))
        return tuple(results)

    def _results(self, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        with torch.no_grad():
            results = self._run(*inputs)
        return (results,) if isinstance(results, Tensor) else tuple(results)


def _address(value: Tensor) -> int:
    return value.untyped_storage().data_ptr()


def prepare(module: Subject, inputs: tuple[Tensor, ...], options: Options) -> Runner:
    """Compile the module for the sizes of the inputs, or load what was compiled before.

    Raises:
        EngineError: there is no compiler, or it cannot compile the model.
    """
    if any(x.device.type != "cpu" for x in inputs):
        raise EngineError("inputs must be on cpu")
    check_file_suffices(module)
    inputs = tuple([x.detach().resolve_neg().contiguous() for x in inputs])
    folder = cache_folder("inductor") if options.cache else None
    key = _key(module, inputs, options)
    path = folder and folder / f"{sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()}.pt2"
    try:
        if path is not None and _is_whole(path, key):
            return Library(_load(path), inputs)
        _check_compiler()
        with TemporaryDirectory(prefix="onnxinterp-") as made, _compiling:
            compiled = _compile(module, inputs, Path(made, "model.pt2"))
            if path is not None:
                _keep(compiled, path, key)
            return Library(_load(compiled), inputs)
    except EngineError:
        raise
    except Exception as error:  # the compiler's exceptions have no common class
        reason = str(error).strip().partition("\n")[0]
        raise EngineError(f"it cannot be compiled: {type(error).__name__}: {reason}") from error


def _key(module: Subject, inputs: tuple[Tensor, ...], options: Options) -> dict[str, Any]:
    """What a library depends on, as JSON."""
    return {
        "config": CONFIG,
        "inputs": [[str(x.dtype), list(x.shape)] for x in inputs],
        "model": graph_hash(module),
        "processor": processor(),
        "threads": options.threads,
        "types": [str(w.dtype) for w in module.weights.values()],
        "versions": versions(),
        "weights": weights_hash(module),
    }


def _check_compiler() -> None:
    from torch._inductor.cpp_builder import get_cpp_compiler  # late: it imports the compiler
    from torch._inductor.exc import InvalidCxxCompiler

    try:
        get_cpp_compiler()
    except InvalidCxxCompiler as error:
        raise EngineError("it needs a C++ compiler, such as g++: none was found") from error


def _compile(module: Subject, inputs: tuple[Tensor, ...], path: Path) -> Path:
    from torch._inductor import aoti_compile_and_package  # late: it imports the compiler

    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # those of torch about itself
        program = torch.export.export(module, inputs)
        made = aoti_compile_and_package(
            program, package_path=str(path), inductor_configs=dict(CONFIG)
        )
    return Path(made)


def _load(path: Path) -> Any:
    from torch._inductor import aoti_load_package

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return aoti_load_package(str(path))


def _keep(compiled: Path, path: Path, key: Mapping[str, Any]) -> None:
    """Keep a library, and beside it what it is and a hash of it."""
    data = compiled.read_bytes()
    note = json.dumps({"key": key, "sha256": sha256(data).hexdigest()}).encode()
    try:
        atomic_write(path, lambda file: file.write(data))
        atomic_write(_note(path), lambda file: file.write(note))
    except OSError as error:
        warnings.warn(f"the compiled library is not kept: {error}", stacklevel=2)


def _is_whole(path: Path, key: Mapping[str, Any]) -> bool:
    """Whether a file is a library of this key, with all of its bytes."""
    try:
        with _note(path).open("rb") as file:
            note = json.loads(file.read(MAX_NOTE_BYTES))
        with path.open("rb") as file:
            found = sha256(file.read()).hexdigest()
    except (OSError, ValueError, RecursionError):  # absent, damaged
        return False
    return isinstance(note, dict) and note.get("key") == key and note.get("sha256") == found


def _note(path: Path) -> Path:
    return path.with_suffix(".json")
