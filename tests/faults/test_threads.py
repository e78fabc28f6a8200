"""Threads that share modules get the answers that one thread gets, bit for bit.

Python changes threads as often as it can, so that plans are made, read and dropped at once.
"""

from __future__ import annotations

import copy
import io
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx

from onnxinterp import OnnxModule
from tests.faults.models import HEADER, MODELS, call_of
from tests.saving.models import parse, raw, saved, sum_of, write_external

THREADS, FORWARDS = 8, 100


@pytest.fixture(autouse=True)
def _restless() -> Iterator[None]:
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


def at_once(work: Callable[[int], None], threads: int = THREADS) -> None:
    """Run `work(0)`, `work(1)`, ... each in a thread, all started together."""
    failures: list[BaseException] = []
    gate = threading.Barrier(threads)

    def guarded(thread: int) -> None:
        try:
            gate.wait()
            work(thread)
        except BaseException as error:
            failures.append(error)

    running = [threading.Thread(target=guarded, args=(i,)) for i in range(threads)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    if failures:
        raise failures[0]


def values(answer: Any) -> list[Any]:
    outputs = answer if isinstance(answer, tuple) else (answer,)
    return [o.tolist() if isinstance(o, np.ndarray) else o for o in outputs]


def equal(got: Any, want: Any) -> bool:
    return all(
        torch.equal(g, w) if isinstance(g, torch.Tensor) else g == w
        for g, w in zip(values(got), values(want), strict=True)
    )


@pytest.mark.parametrize("name", MODELS)
def test_forwards_of_one_module(name: str) -> None:
    serial, shared = OnnxModule(MODELS[name]), OnnxModule(MODELS[name])
    calls = [call_of(name, i) for i in range(60)]
    want = [serial(*args, **keywords) for args, keywords in calls]

    def work(thread: int) -> None:
        for n in range(FORWARDS):
            i = (n * (thread + 1) + thread // 2) % len(calls)
            args, keywords = calls[i]
            assert equal(shared(*args, **keywords), want[i])

    at_once(work)


def gradients(module: OnnxModule, x: torch.Tensor) -> list[torch.Tensor]:
    return list(torch.autograd.grad(module(x).square().sum(), list(module.parameters())))


def test_gradients_of_one_module() -> None:
    module = OnnxModule(MODELS["network"])
    calls = [call_of("network", i)[0][0] for i in range(35)]
    want = [gradients(module, x) for x in calls]
    shared = OnnxModule(MODELS["network"])

    def work(thread: int) -> None:
        for n in range(FORWARDS):
            i = (n * (thread + 1)) % len(calls)
            assert all(map(torch.equal, gradients(shared, calls[i]), want[i]))

    at_once(work)


def trained(module: OnnxModule) -> list[torch.Tensor]:
    """The weights and statistics after some steps."""
    module.train()
    optimizer = torch.optim.SGD(module.parameters(), lr=0.01)
    for step in range(20):
        optimizer.zero_grad()
        module(*call_of("network", step)[0]).square().mean().backward()
        optimizer.step()
    return [w.detach() for w in module.weights.values()]


def test_each_thread_trains_a_copy_of_its_own() -> None:
    first = OnnxModule(MODELS["network"])
    want = trained(copy.deepcopy(first))

    def work(_: int) -> None:
        assert all(map(torch.equal, trained(copy.deepcopy(first)), want))

    at_once(work)


def test_a_change_of_mode_in_between_leaves_no_plan_of_the_other_mode() -> None:
    """Plans for sizes are made when a call ends: the mode may be another by then."""
    module = OnnxModule(MODELS["network"])
    x = torch.randn(2, 3, 5, 5)
    want = module(x)
    before = {n: w.detach().clone() for n, w in module.weights.items()}
    run = module.interpreter.run

    def switching(*args: Any) -> Any:
        result = run(*args)
        module.train()
        return result

    module.interpreter.run = switching  # type: ignore[method-assign]
    module(x)
    module.eval()
    del module.interpreter.run
    for _ in range(3):
        assert torch.equal(module(x), want)
    assert all(torch.equal(w, before[n]) for n, w in module.weights.items())


def test_constants_that_are_refreshed_while_others_call() -> None:
    """Answers are those of one of the two shapes, and after the last refresh of the last one."""
    module = OnnxModule(MODELS["overridden"])
    args, shapes = (torch.randn(2, 3),), ((2, 3), (3, 2))
    stop = threading.Event()

    def work(thread: int) -> None:
        n = 0
        while not stop.is_set():
            given = {"w": torch.ones(3)} if thread % 2 else {}
            if thread:
                assert module(*args, **given).shape in shapes
                continue
            with torch.no_grad():
                module.weights["s"].copy_(torch.tensor(shapes[n % 2]))
            module.refresh()
            n += 1
            if n == 24:
                stop.set()

    at_once(work)
    assert module(*args).shape == module(*args, w=torch.ones(3)).shape == shapes[1]


def test_a_plan_made_while_constants_are_refreshed_is_not_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of the constants as they were, for a call that had begun; the next call sees the new ones."""
    module = OnnxModule(MODELS["overridden"])
    make = module._plans._make

    def overtaken(*args: Any) -> Any:
        plan = make(*args)
        monkeypatch.undo()
        with torch.no_grad():
            module.weights["s"].copy_(torch.tensor((3, -1)))
        module.refresh()
        return plan

    x, w = torch.randn(2, 3), torch.ones(3)
    monkeypatch.setattr(module._plans, "_make", overtaken)
    assert module(x, w=w).shape == (2, 3)
    for _ in range(3):
        assert module(x, w=w).shape == module(x).shape == (3, 2)


def test_no_plan_is_made_of_what_is_no_plain_tensor() -> None:
    """Constants folded among torch's fakes are fakes, and would serve the next call."""
    module, x = OnnxModule(MODELS["sizes"]), torch.randn(2, 3, 6)
    want = OnnxModule(MODELS["sizes"])(x)
    for _ in range(3):
        make_fx(module, tracing_mode="fake")(x)
        torch.func.vmap(module)(x[None])
        torch.func.grad(lambda x: module(x).sum())(x)
    assert type(module(x)) is torch.Tensor
    assert torch.equal(module(x), want)


def test_a_plan_made_while_other_weights_stand_in_is_for_the_modules_own() -> None:
    """Plans are made of the constants that the module has, whoever calls it with others."""
    text = f"""{HEADER} g (float[n,2] x) => (float[n,k] y) <int64[1,1] first = {{5}}> {{
      size = Shape<start = 0, end = 1>(x)
      columns = Constant<value_ints = [3]>()
      twice = Concat<axis = 0>(size, columns)
      wide = Expand(first, twice)
      k = Cast<to = 1>(wide)
      y = Concat<axis = 1>(x, k)
    }}"""
    module, x = OnnxModule(parse(text)), torch.zeros(1, 2)
    want = module(x)
    for _ in range(3):
        torch.func.functional_call(module, {"first": torch.tensor([[7]])}, (torch.ones(2, 2),))
    assert torch.equal(module(x), want)
    assert torch.equal(module(torch.ones(2, 2))[:, 2:], torch.full((2, 3), 5.0))


def test_loading_and_saving_in_threads(tmp_path: Path) -> None:
    sources = [MODELS[name].SerializeToString() for name in MODELS]
    path = write_external(sum_of(raw("w", 1000), raw("v", 1000)), tmp_path / "m.onnx", "w")
    want = path.read_bytes()
    x = torch.randn(1000)
    answer = OnnxModule(path)(x)

    def work(thread: int) -> None:
        for n in range(5):
            for source in sources:
                OnnxModule(io.BytesIO(source))
            module = OnnxModule(path)
            assert torch.equal(module(x), answer)
            folder = tmp_path / f"{thread}-{n}"
            folder.mkdir()
            assert saved(module, folder / "m.onnx") == want

    at_once(work)


def test_a_copy_made_while_others_call() -> None:
    module = OnnxModule(MODELS["network"])
    calls = [call_of("network", i)[0] for i in range(20)]
    want = [module(*args) for args in calls]

    def work(thread: int) -> None:
        for i, args in enumerate(calls):
            one = copy.deepcopy(module) if thread < 2 else module
            assert torch.equal(one(*args), want[i])

    at_once(work)
