"""What the processes do that open hostile files, one after the other."""

from __future__ import annotations

import contextlib
import gc
import os
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import onnxruntime
import torch

import onnxinterp
from onnxinterp.backend import to_numpy, to_torch
from tests.untrusted.files.case import CANARY, Case, Report
from tests.untrusted.files.judging import controls
from tests.untrusted.files.watching import Watch

LARGEST_TOLD = 2**24  # bytes of an answer that go back to the judge
MOST_DIMENSIONS = 64  # of numpy
RACING_SECONDS = 1.0
FEWEST_SWAPS = 20  # or it was no race


def status(key: str) -> int:
    """A number of bytes of /proc/self/status."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(key):
            return int(line.split()[1]) * 1024
    raise KeyError(key)


def texts(error: BaseException) -> str:
    """The messages of an error and of its causes."""
    found, chain = [], error
    while chain is not None and len(found) < 20:
        found.append(f"{type(chain).__name__}: {chain}")
        chain = chain.__cause__ or (None if chain.__suppress_context__ else chain.__context__)
    return "\n".join(found)


def size(value: Any) -> int:
    if isinstance(value, (list, tuple)):
        return sum(map(size, value))
    return int(getattr(value, "nbytes", 0))


class Module:
    """Loads a case with OnnxModule and calls it."""

    def __init__(self) -> None:
        import torch._dynamo  # custom operators do at their first call, for seconds

        torch.set_num_threads(1)
        self.stage, self.swaps = "load", 0
        warnings.simplefilter("error")
        warm = torch.ones(2, 2) @ torch.ones(2, 2)  # what torch loads at the first use
        warm.clone().to(torch.float16)
        gc.collect()
        gc.freeze()
        self.watch = Watch()

    def __call__(self, case: Case, path: Path) -> Report:
        source: Any = case.content if case.as_bytes else path
        Path("/proc/self/clear_refs").write_text("5")
        before, start = status("VmRSS"), time.perf_counter()
        kind, text, known, answers = "", "", False, None
        with self.racing(case, path.parent):
            self.watch.begin(path.parent)
            try:
                answers = self.outcome(case, source)
            except BaseException as error:
                kind, known = type(error).__name__, isinstance(error, onnxinterp.OnnxError)
                text = texts(error)
            touched = self.watch.end()
        seconds, grown = time.perf_counter() - start, status("VmHWM") - before
        stage = self.stage if kind else "answered"
        if CANARY in text.encode("utf-8", "surrogateescape") or holds_canary(answers):
            touched = (*touched, "the canary is in what came out")
        if answers is not None and size(answers) > LARGEST_TOLD:
            answers = None
        gc.collect()
        return Report(stage, kind, text[:100_000], known, answers, touched, grown, seconds)

    def outcome(self, case: Case, source: Any) -> tuple[Any, ...] | None:
        self.stage = "load"
        if case.fake:
            return FAKES[case.fake](case)
        module = self.raced(case, source) if case.race else None
        if module is None:
            module = onnxinterp.OnnxModule(source, limits=case.held_to)
        shown = repr(module)
        if controls(shown):
            raise AssertionError(f"repr() of the module has control characters: {shown!r:.300}")
        dict(module.named_parameters())
        module.state_dict()
        self.stage = "call"
        feeds = {name: to_torch(value) for name, value in case.feeds.items()}
        with torch.no_grad():
            for _ in range(case.calls):
                answer = module(**feeds)
        given = answer if isinstance(answer, tuple) else (answer,)
        pairs = zip(given, module.onnx_graph.outputs, strict=True)
        self.stage = "answered"
        if any(map(self.vast, given)):
            return None
        return tuple([to_numpy(a, info) for a, info in pairs])

    def raced(self, case: Case, source: Any) -> Any:
        """The module that was loaded last while the file was a link now and then, if any was."""
        module, refused = None, 0
        while time.perf_counter() < self.race_ends:
            try:
                module = onnxinterp.OnnxModule(source, limits=case.held_to)
            except onnxinterp.OnnxError:  # noqa: PERF203 - each load for itself
                refused += 1
        if self.swaps < FEWEST_SWAPS or not refused:
            raise AssertionError(f"no race: {self.swaps} swaps, {refused} loads met the link")
        return module

    def vast(self, value: Any) -> bool:
        """Whether a tensor can be no array, or would take much more memory as one."""
        if isinstance(value, (list, tuple)):
            return any(map(self.vast, value))
        if not isinstance(value, torch.Tensor):
            return False
        return value.nbytes > LARGEST_TOLD or value.ndim > MOST_DIMENSIONS

    @contextlib.contextmanager
    def racing(self, case: Case, folder: Path) -> Iterator[None]:
        """Swap a file for a link to the outside, as fast as can be, while a case is loaded."""
        if case.race is None:
            yield
            return
        self.swaps = 0
        self.race_ends = time.perf_counter() + RACING_SECONDS
        link, plain, outside = (folder / name for name in case.race)
        stop = threading.Event()

        def swap() -> None:
            step = folder / "swap"
            while not stop.is_set():
                os.symlink(outside, step)
                os.replace(step, link)
                step.write_bytes(plain.read_bytes())
                os.replace(step, link)
                self.swaps += 1

        thread = threading.Thread(target=swap)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()


def holds_canary(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return any(map(holds_canary, value))
    if isinstance(value, dict):
        return holds_canary(list(value.items()))
    if getattr(getattr(value, "dtype", None), "kind", "") == "O":
        return holds_canary(value.ravel().tolist())
    if isinstance(value, str):
        return CANARY.decode() in value
    return hasattr(value, "tobytes") and CANARY[8:24] in value.tobytes()


def _abort(case: Case) -> tuple[Any, ...]:
    os.abort()


def _hang(case: Case) -> tuple[Any, ...]:
    while True:
        time.sleep(1)


def _read(case: Case) -> tuple[Any, ...]:
    Path("/etc/hostname").open().close()
    return case.expected or ()


def _evaluate(case: Case) -> tuple[Any, ...]:
    return (eval(case.content.decode()),)


def _grow(case: Case) -> tuple[Any, ...]:
    return (len(b"x" * 2**29),)


def _raise(case: Case) -> tuple[Any, ...]:
    raise KeyError("raw")


def _warn(case: Case) -> tuple[Any, ...]:
    warnings.warn("deprecated", DeprecationWarning, stacklevel=1)
    return case.expected or ()


def _tell(case: Case) -> tuple[Any, ...]:
    from onnxinterp import InvalidModelError

    class ToldError(InvalidModelError):
        def __str__(self) -> str:  # as it is: the library's own errors mend their text
            return case.content.decode()

    raise ToldError


def _answer(case: Case) -> tuple[Any, ...]:
    return (42,)


FAKES: dict[str, Callable[[Case], tuple[Any, ...]]] = {
    f.__name__.strip("_"): f
    for f in (_abort, _hang, _read, _evaluate, _grow, _raise, _warn, _tell, _answer)
}


class Oracle:
    """What onnxruntime answers."""

    def __init__(self) -> None:
        onnxruntime.set_default_logger_severity(4)

    def __call__(self, case: Case, path: Path) -> Report:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        try:
            session = onnxruntime.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"]
            )
            return Report("answered", outputs=tuple(session.run(None, dict(case.feeds))))
        except Exception as error:
            return Report("load", type(error).__name__, str(error)[:1000])


@cache
def _module() -> Module:
    return Module()


@cache
def _oracle() -> Oracle:
    return Oracle()


def module(request: tuple[Case, Path]) -> Report:
    """Load and call a case with OnnxModule."""
    return _module()(*request)


def oracle(request: tuple[Case, Path]) -> Report:
    """Ask onnxruntime."""
    return _oracle()(*request)
