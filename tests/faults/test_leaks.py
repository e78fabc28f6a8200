"""Nothing is left behind: objects, tensors, memory, descriptors, maps.

Counted after a first round, so that what is made once (plans, caches of torch) does not count.
Linux alone tells all of it, in /proc.
"""

from __future__ import annotations

import gc
import os
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from onnxinterp import InputError, NodeError, OnnxModule
from tests.faults.models import HEADER, MODELS, call_of
from tests.saving.models import AFFINE, parse, raw, sum_of, write_external

PAGES = os.sysconf("SC_PAGE_SIZE")

SMALL = f"""{HEADER} g (float[n,3] x) => (float[n,3] y)
  <float[3] s = {{1, 2, 3}}, float[3] b = {{1, 2, 3}}, float[3] m = {{1, 2, 3}},
   float[3] v = {{1, 2, 3}}> {{
    z = BatchNormalization(x, s, b, m, v)
    y = Tanh(z)
}}"""


@pytest.fixture(autouse=True)
def new_objects_alone() -> Iterator[None]:
    """The collector looks at what a test makes, not at all that the tests before have left."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


def resident() -> int:
    """Bytes of memory in use."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGES


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def maps_of(path: Path) -> int:
    return Path("/proc/self/maps").read_text().count(str(path))


def objects() -> tuple[int, int]:
    """How many the collector knows, and how many of them are tensors."""
    gc.collect()
    known = gc.get_objects()
    return len(known), sum(issubclass(type(o), torch.Tensor) for o in known)


def grows(work: Callable[[], object], times: int) -> tuple[int, int, int, int]:
    """How much more there is after `times` of some work: objects, tensors, descriptors, bytes."""
    for _ in range(max(times // 10, 30)):
        work()
    before, files = objects(), descriptors()
    memory = resident()
    for _ in range(times):
        work()
    grown = resident() - memory
    after = objects()
    return after[0] - before[0], after[1] - before[1], descriptors() - files, grown


def assert_nothing_grows(work: Callable[[], object], times: int) -> None:
    found, tensors, files, memory = grows(work, times)
    assert tensors == 0
    assert files == 0
    assert found < 100, "far less than one each time"
    assert memory < 200 * times + 4 * 2**20, "a small tensor each time would be more"


@pytest.mark.parametrize("mode", ["plain", "inference", "sizes that change"])
def test_forwards(mode: str) -> None:
    module, x = OnnxModule(parse(AFFINE)), torch.randn(2, 3)
    sizes: Iterator[int] = iter(range(10**9))

    def forward() -> None:
        module(x)

    def inference() -> None:
        with torch.inference_mode():
            module(x)

    changing = OnnxModule(MODELS["sizes"])

    def other_sizes() -> None:
        n = next(sizes)
        changing(torch.empty(1 + n % 20, 1 + n % 21, 6))

    work = {"plain": forward, "inference": inference, "sizes that change": other_sizes}[mode]
    assert_nothing_grows(work, 10_000 if mode != "sizes that change" else 1_000)


def test_steps_of_training() -> None:
    module = OnnxModule(parse(SMALL)).train()
    optimizer = torch.optim.Adam(module.parameters())
    x = torch.randn(4, 3)

    def step() -> None:
        optimizer.zero_grad()
        module(x).square().mean().backward()
        optimizer.step()

    assert_nothing_grows(step, 3_000)


@pytest.mark.parametrize("name", MODELS)
def test_modules_that_come_and_go(name: str) -> None:
    args, keywords = call_of(name, 6)
    data = MODELS[name].SerializeToString()
    assert_nothing_grows(lambda: OnnxModule(data)(*args, **keywords), 300 // len(MODELS))


def test_modules_with_external_data(tmp_path: Path) -> None:
    path = write_external(sum_of(*(raw(n, 1000) for n in "wv")), tmp_path / "m.onnx", "w", "v")
    x = torch.randn(1000)
    assert_nothing_grows(lambda: OnnxModule(path)(x), 200)
    assert maps_of(tmp_path) == 0


def test_maps_end_with_what_lies_in_them(tmp_path: Path) -> None:
    path = write_external(sum_of(*(raw(n, 1000) for n in "wv")), tmp_path / "m.onnx", "w", "v")
    before = descriptors()
    module = OnnxModule(path)
    assert maps_of(path) == 0, "the model itself is not needed any more"
    assert maps_of(tmp_path / "w.bin") == 1
    weight = module.weights["w"].detach()
    del module
    gc.collect()
    assert maps_of(tmp_path / "w.bin") == 1
    del weight
    assert maps_of(tmp_path / "w.bin") == 0
    module = OnnxModule(path).double()
    gc.collect()
    assert maps_of(tmp_path / "w.bin") == 0
    module(torch.ones(1000).double())
    assert not module._mapped, "nothing to look after"
    assert descriptors() == before


@pytest.mark.parametrize("kind", [NodeError, InputError])
def test_failures_keep_nothing_alive(kind: type[Exception]) -> None:
    """Neither inputs nor values in between, once the error is dropped; without the collector."""
    text = AFFINE if kind is InputError else AFFINE.replace("[2,3]", "[n,m]")
    module = OnnxModule(parse(text.replace("y = Add(x, w)", "z = Neg(x) y = Add(z, w)")))
    seen: list[weakref.ref[torch.Tensor]] = []
    run_step = module.interpreter.run_step

    def watched(*args: object) -> object:
        result = run_step(*args)  # type: ignore[arg-type]
        seen.append(weakref.ref(result))
        return result

    module.interpreter.run_step = watched  # type: ignore[method-assign, assignment]
    gc.collect()
    gc.disable()
    try:
        x, failed = torch.randn(2, 4), False
        given = weakref.ref(x)
        try:
            module(x)
        except kind:
            failed = True
        assert failed
        assert len(seen) == 1
        del x
        assert given() is None
        assert seen[0]() is None
    finally:
        gc.enable()


def test_failing_calls() -> None:
    module = OnnxModule(parse(AFFINE.replace("[2,3]", "[n,m]")))
    bad = torch.randn(2, 4)

    def fail() -> None:
        try:
            module(bad)
        except NodeError:
            return
        raise AssertionError("it does not fail")

    assert_nothing_grows(fail, 2_000)
