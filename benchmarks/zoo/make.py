"""Write the models of the speed benchmark and their inputs into a folder.

Each model is two files: NAME.onnx and NAME.inputs.npz (arrays by input name). Files that exist
are kept.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch

from benchmarks.zoo.entries import ENTRIES, FILES, Arrays, Entry
from tests.zoo.fetch import FetchError, NoNetworkError
from tests.zoo.manifest import Model, manifest

OPSET = 17


@contextmanager
def _new_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path; rename it to `path` when the block ends without an error."""
    temporary = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _export(entry: Entry, path: Path) -> None:
    inputs = entry.inputs()
    with _new_file(path) as temporary, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter is deprecated; traces warn of Python values
        torch.onnx.export(
            entry.build(),
            tuple(inputs.values()),
            temporary,
            dynamo=False,
            opset_version=OPSET,
            input_names=list(inputs),
            dynamic_axes=entry.dynamic,
        )


def _write_inputs(arrays: Arrays, path: Path) -> None:
    with _new_file(path) as temporary, temporary.open("wb") as file:
        np.savez(file, **arrays)


def _write_model(entry: Entry | Model, folder: Path) -> bool:
    """Write the files of one model that are not there yet; return whether the model is new."""
    model, inputs = folder / f"{entry.name}.onnx", folder / f"{entry.name}.inputs.npz"
    is_new = not model.exists()
    if isinstance(entry, Entry):
        arrays = {name: x.numpy() for name, x in entry.inputs().items()}
        if is_new:
            _export(entry, model)
    else:
        arrays = next(entry.inputs())
        if is_new:
            content = entry.file().read_bytes()
            with _new_file(model) as temporary:
                temporary.write_bytes(content)
    if not inputs.exists():
        _write_inputs(arrays, inputs)
    return is_new


def entries() -> dict[str, Entry | Model]:
    """Return all models by name: networks, then files of wheels."""
    files = {model.name: model for model in manifest()}
    return {entry.name: entry for entry in ENTRIES} | {name: files[name] for name in FILES}


def make_models(folder: Path, only: Sequence[str] = ()) -> dict[str, str]:
    """Write all models, or those of `only`; return the reason for each one that is absent.

    Raises:
        ValueError: `only` contains an unknown name.
    """
    known = entries()
    if unknown := sorted(set(only) - set(known)):
        raise ValueError(f"only must be among {', '.join(known)}, got {', '.join(unknown)}")
    folder.mkdir(parents=True, exist_ok=True)
    absent: dict[str, str] = {}
    for name in only or known:
        outcome = _attempt(known[name], folder)
        print(f"{name}: {outcome}", flush=True)
        if outcome.startswith("absent"):
            absent[name] = outcome
    return absent


def _attempt(entry: Entry | Model, folder: Path) -> str:
    try:
        return "written" if _write_model(entry, folder) else "kept"
    except (FetchError, NoNetworkError) as error:
        return f"absent ({error})"
