"""One broken file: loaded and run as a stranger's file would be, and what became of it.

The promise: it ends in an answer or in an `OnnxError`, and nothing is opened, run or connected to.
"""

from __future__ import annotations

import sys
import sysconfig
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch._dynamo  # some kernels do at their first call, and that takes seconds

from onnxinterp import Limits, OnnxError, OnnxModule, backend
from onnxinterp.dtypes import STRING
from onnxinterp.graph.ir import ValueInfo
from tests.untrusted.fuzz.mutation import mutant, stored
from tests.untrusted.fuzz.ours import to_array

torch.set_num_threads(1)

LIMITS = Limits(
    model_bytes=2**24,
    weight_bytes=2**27,
    nodes=10_000,
    subgraph_depth=32,
    function_depth=32,
    loop_trips=10_000,
    tensor_bytes=2**27,
    live_bytes=2**27,
    steps=100_000,
    seconds=2.0,
)
EVENTS = (
    "open",
    "subprocess.Popen",
    "os.system",
    "os.exec",
    "os.spawn",
    "socket.connect",
    "shutil",
)
OWN = tuple(
    str(Path(p).resolve())
    for p in (
        *sysconfig.get_paths().values(),
        sys.prefix,
        sys.base_prefix,
        Path(__file__).parents[3],
    )
)
SIDE, ELEMENTS = 4, 4096  # of inputs that are made up
LARGEST_TOLD = 2**24  # bytes of an answer that is given back
COMPARED = 8  # of so many answers one is given back to be compared


@dataclass(frozen=True)
class Outcome:
    """What became of a file.

    Attributes:
        kind: "refused", "failed" (a call ended in an error), "answered" or "raw": what must not be.
        what: the class of the error, and where a raw one came from.
        feeds: the inputs, where the answer is to be compared.
        answer: the outputs as numpy arrays.
    """

    kind: str
    what: str = ""
    feeds: dict[str, Any] = field(default_factory=dict)
    answer: list[Any] = field(default_factory=list)


@dataclass
class _Watch:
    """What the interpreter reports while a file is in hand."""

    on: bool = False
    seen: str = ""

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.on or not event.startswith(EVENTS):
            return
        path = str(arguments[0]) if arguments else ""
        if event == "open" and (path.startswith(OWN) or isinstance(arguments[0], int)):
            return  # a module imported late
        self.seen = self.seen or f"{event} {path[:80]!r}"


WATCH = _Watch()
sys.addaudithook(WATCH)


def of_seed(path: str, seed: int) -> Outcome:
    """Try the broken file of a seed; its bases stand at `path`."""
    data, base = mutant(stored(path), seed)
    return tried(data, base.feeds, compared=seed % COMPARED == 0)


def of_file(data: bytes) -> Outcome:
    """Try a file."""
    return tried(data, {})


def tried(data: bytes, feeds: Mapping[str, Any], compared: bool = False) -> Outcome:
    """Load the bytes and run them once."""
    WATCH.on, WATCH.seen = True, ""
    try:
        outcome = _tried(data, feeds, compared)
    finally:
        WATCH.on = False
    return Outcome("raw", f"it did: {WATCH.seen}") if WATCH.seen else outcome


def _tried(data: bytes, feeds: Mapping[str, Any], compared: bool) -> Outcome:
    try:
        module = OnnxModule(data, limits=LIMITS)
    except OnnxError as error:
        return Outcome("refused", type(error).__name__)
    except Exception as error:
        return Outcome("raw", f"load: {where(error)}")
    given = {i.name: feeds.get(i.name, made_up(i)) for i in module.inputs}
    try:
        tensors = [backend.to_torch(value) for value in given.values()]
    except Exception as error:  # a fault of this file
        return Outcome("raw", f"inputs: {where(error)}")
    try:
        with torch.no_grad():
            answer = module(*tensors)  # Python keeps the keyword `self` to itself
    except OnnxError as error:
        return Outcome("failed", type(error).__name__)
    except Exception as error:
        return Outcome("raw", f"run: {where(error)}")
    if not compared:
        return Outcome("answered")
    answers = answer if isinstance(answer, tuple) else (answer,)
    return Outcome("answered", "", given, [_array(a) for a in answers])


def _array(value: Any) -> Any:
    if isinstance(value, torch.Tensor) and value.nbytes > LARGEST_TOLD:  # a view of one element
        return None
    try:
        return to_array(value)
    except TypeError:  # a type that numpy lacks
        return None


def made_up(info: ValueInfo) -> Any:
    """An input for what the file declares, of moderate size."""
    sides = [min(s, SIDE) if isinstance(s, int) else 2 for s in info.shape or ()]
    sides = sides[:32] if np.prod(sides[:32], dtype=object) <= ELEMENTS else [1] * len(sides[:32])
    if info.elem_type == STRING:
        value: Any = np.full(sides, "a", object)
    else:  # numpy, for torch would give a tensor to another process as memory shared with it
        value = backend.to_numpy(torch.ones(sides).to(info.dtype or torch.float32), info)
    if info.kind == "map":
        return {"a" if info.key_type == STRING else 1: 1.0}
    if info.kind == "optional":
        return None
    return [value] if info.kind == "sequence" else value


def where(error: BaseException) -> str:
    """The class of an error and the last line of this library that it passed."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if "onnxinterp" in f.filename or "/ops/" in f.filename]
    last = own[-1] if own else frames[-1]
    return f"{type(error).__name__} in {Path(last.filename).name}:{last.name}"
