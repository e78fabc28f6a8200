"""Networks exported to ONNX by torch, cached on disk, with the exporters' warnings accounted for.

The cache is the folder `exports` of pytest's cache (`pytest --cache-clear` empties it); all xdist
workers share it. An export is reused when nothing that it depends on has changed: see `_key`.
"""

from __future__ import annotations

import ast
import fcntl
import hashlib
import re
import tempfile
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import cache
from importlib import metadata
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import Tensor, nn
from torch.jit._trace import TracerWarning

ROOT = Path(__file__).parents[1]
FOLDER = Path(tempfile.gettempdir())  # of the cache; tests/conftest.py sets it
PACKAGES = ("torch", "onnx", "onnxscript", "onnx-ir", "numpy")  # that write an export
KNOWN_ROOTS = {"tests", "torch", "builtins", "typing", "collections"}  # of classes of modules
OF_EVERY_MODULE = frozenset(vars(nn.Module()))  # attributes

EXPECTED_WARNINGS: dict[str, type[Warning]] = {
    # torch.export is the default since 2.9; the models of the last years came from the older one.
    "You are using the legacy TorchScript-based ONNX export": DeprecationWarning,
    "The feature will be removed": DeprecationWarning,
    # group_norm and LSTM check the sizes of their inputs; the checks are not to be in the graph.
    "Converting a tensor to a Python boolean": TracerWarning,
    # Our initial states follow the batch: the runs at several batch sizes hold this to account.
    "Exporting a model to ONNX with a batch_size other than 1": UserWarning,
    # torch.export on LSTM: its own list of weights, and a check that torch itself still writes.
    r"The tensor attributes? self\.lstm\._flat_weights": UserWarning,
    "_check_is_size will be removed": FutureWarning,
}
"""A warning that is not listed fails the test that caused it: a new one is a change to look at."""


@contextmanager
def expected_warnings() -> Iterator[None]:
    with warnings.catch_warnings():
        for message, category in EXPECTED_WARNINGS.items():
            warnings.filterwarnings("ignore", message=message, category=category)
        yield


def export(
    network: nn.Module, inputs: tuple[Tensor, ...], *, fresh: bool = False, **options: Any
) -> onnx.ModelProto:
    """Return the network as ONNX.

    Args:
        network: in the mode in which it is exported.
        inputs: of its call.
        fresh: export in a new process.
        options: of torch.onnx.export, `dynamo` among them; and `gradients`: whether gradients are
            enabled meanwhile. Without, torch runs a transformer layer as one operator.
    """
    if _key(network, inputs, options) is not None:
        return onnx.load(export_file(network, inputs, fresh=fresh, **options))
    with tempfile.TemporaryDirectory() as folder:
        return onnx.load(_export(network, inputs, Path(folder), fresh, options))


def export_file(
    network: nn.Module, inputs: tuple[Tensor, ...], *, fresh: bool = False, **options: Any
) -> Path:
    """Return the file in the cache, which must not be changed; arguments as for `export`.

    The newer exporter's model is there a second time, in the folder `external`, with its weights
    in a file of their own.
    """
    key = _key(network, inputs, options)
    if key is None:
        raise ValueError(f"the export of {type(network).__qualname__} cannot be cached")
    return cached(key, lambda folder: _export(network, inputs, folder, fresh, options)) / "m.onnx"


def cached(key: str, write: Callable[[Path], object]) -> Path:
    """Return the folder of a key in the cache, which `write` fills if it is not there yet."""
    place = FOLDER / key
    with open(FOLDER / f"{key}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another worker may write it
        if not place.exists():
            with tempfile.TemporaryDirectory(dir=FOLDER, ignore_cleanup_errors=True) as part:
                write(Path(part))
                Path(part).rename(place)
    return place


def _export(
    network: nn.Module,
    inputs: tuple[Tensor, ...],
    folder: Path,
    fresh: bool,
    options: dict[str, Any],
) -> Path:
    if fresh:
        with ProcessPoolExecutor(1, get_context("spawn")) as process:
            return process.submit(_export, network, inputs, folder, False, options).result()
    # Without no_grad the newer exporter trips over the strides of scaled_dot_product_attention.
    rest = {k: v for k, v in options.items() if k != "gradients"}
    with expected_warnings(), torch.set_grad_enabled(options.get("gradients", False)):
        if not options["dynamo"]:
            torch.onnx.export(network, inputs, folder / "m.onnx", **rest)
            return folder / "m.onnx"
        program = torch.onnx.export(network, inputs, verbose=False, **rest)
    assert program is not None
    program.save(folder / "m.onnx")
    (folder / "external").mkdir()
    program.save(folder / "external" / "m.onnx", external_data=True)
    return folder / "m.onnx"


def _key(network: nn.Module, inputs: tuple[Tensor, ...], options: dict[str, Any]) -> str | None:
    """Return a digest of all that an export depends on, or None where that cannot be known.

    That is: the network's structure, attributes, weights and ties; its source and what that
    imports from the tests; the inputs, the options, and the versions of the packages.
    """
    digest = hashlib.sha256()
    for part in (_versions(), options, *_tensors(inputs), *_structure(network), *_weights(network)):
        data = part if isinstance(part, bytes) else _text(part).encode()
        digest.update(b"%d:%b" % (len(data), data))
        if isinstance(part, (str, dict)) and re.search(rb" at 0x|<lambda>|<locals>", data):
            return None  # its text does not say what it is
    files = {Path(__file__)}
    for module in network.modules():
        roots = {base.__module__.partition(".")[0] for base in type(module).__mro__}
        if module._forward_hooks or module._forward_pre_hooks or roots - KNOWN_ROOTS:
            return None
        for base in type(module).__mro__:
            files |= sources(base.__module__)
    for file in sorted(files):
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()[:32]


@cache
def _versions() -> tuple[str, ...]:
    return tuple(metadata.version(package) for package in PACKAGES)


def _text(value: Any) -> str:
    name = getattr(value, "__qualname__", None)
    return repr(value) if name is None else f"{value.__module__}.{name}"


def _structure(network: nn.Module) -> Iterator[str]:
    """Each module, its class, its mode and its attributes."""
    for name, module in network.named_modules(remove_duplicate=False):
        torchs_own = type(module).__module__.startswith("torch.")
        attributes = {
            key: _text(value)
            for key, value in vars(module).items()
            if key not in OF_EVERY_MODULE and not (torchs_own and key.startswith("_"))
        }
        yield f"{name}: {_text(type(module))} {module.training} {attributes}"


def _weights(network: nn.Module) -> Iterator[str | bytes]:
    """Parameters and buffers; one that is another under a second name says so."""
    names: dict[int, str] = {}
    for named in (network.named_parameters, network.named_buffers):
        for name, weight in named(remove_duplicate=False):
            yield f"{name} is {names.setdefault(id(weight), name)}"
            yield from _tensors((weight,))


def _tensors(tensors: tuple[Tensor, ...]) -> Iterator[str | bytes]:
    for tensor in tensors:
        yield f"{tensor.dtype} {tuple(tensor.shape)} {tensor.stride()} {tensor.requires_grad}"
        yield tensor.detach().contiguous().flatten().view(torch.uint8).numpy().tobytes()


@cache
def sources(module: str) -> frozenset[Path]:
    """Return the file of a module of the tests, and those of what it imports from the tests."""
    found: set[Path] = set()
    pending = [module]
    while pending:
        name = pending.pop()
        place = ROOT / name.replace(".", "/")
        files = (place.with_suffix(".py"), place / "__init__.py")
        file = next((f for f in files if f.exists()), None)
        if file is None or file in found or not name.startswith("tests."):
            continue
        found.add(file)
        for node in ast.walk(ast.parse(file.read_bytes())):
            if isinstance(node, ast.Import):
                pending += [a.name for a in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                pending += [node.module, *(f"{node.module}.{a.name}" for a in node.names)]
    return frozenset(found)
