"""Which engine serves, and what is kept of it on disk."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from onnxinterp import Limits, NodeError, OnnxModule
from onnxinterp.snapshots import ENGINES, Engine, EngineError, Options, competition
from tests.models import parse
from tests.snapshots.models import FIXED, mlp, right, rows


class Own:
    """An engine of a test: the module, with something wrong or slow about it."""

    takes_any_sizes = False

    def __init__(self, module: OnnxModule) -> None:
        self.module = module
        self.prepared: list[tuple[int, ...]] = []
        self.calls = 0
        self.results = lambda y: y
        self.failure: Exception | None = None

    def prepare(self, module: Any, inputs: tuple[Tensor, ...], options: Options) -> Own:  # noqa: ARG002
        self.prepared.append(tuple(inputs[0].shape))
        return self

    def __call__(self, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        self.calls += 1
        if self.failure is not None:
            raise self.failure
        return (self.results(right(self.module, *inputs)),)


@pytest.fixture
def module() -> OnnxModule:
    return mlp()


@pytest.fixture
def own(module: OnnxModule, monkeypatch: pytest.MonkeyPatch) -> Iterator[Own]:
    engine = Own(module)
    monkeypatch.setitem(ENGINES, "own", Engine(lambda: engine.prepare))
    return engine


def reasons(fast: Any) -> dict[str, str]:
    return {entry.engine: entry.refused for entry in fast.report()}


@pytest.mark.parametrize(
    ("results", "reason"),
    [
        (lambda y: y * 1.01, "output 0 differs by .* of its scale, the tolerance is 3e-04"),
        (lambda y: y.double(), r"output 0 must be float32\[2, 2\], got float64\[2, 2\]"),
        (lambda y: y[:1], r"output 0 must be float32\[2, 2\], got float32\[1, 2\]"),
        (lambda y: y * torch.nan, "output 0 differs by inf"),
        (lambda y: y.bfloat16().float(), "output 0 differs by"),
        (lambda y: y.numpy(), "output 0 is a ndarray"),
    ],
)
def test_wrong_engines_are_refused(own: Own, module: OnnxModule, results: Any, reason: str) -> None:
    own.results = results
    with pytest.raises(EngineError, match=f"own: it computes something else: {reason}"):
        module.optimize(rows(2), engine="own")
    fast = module.optimize(rows(2), engine=["own", "faithful"])
    assert fast.engine == "faithful"
    assert "it computes something else" in reasons(fast)["own"]
    assert "own          refused: it computes something else" in repr(fast)


def test_engines_that_are_wrong_on_other_values_are_refused(own: Own, module: OnnxModule) -> None:
    example = rows(2)
    own.results = lambda y: torch.where(y == right(module, example), y, y + 1)
    with pytest.raises(EngineError, match="it computes something else"):
        module.optimize(example, engine="own")


def test_an_engine_may_differ_by_the_tolerance(own: Own, module: OnnxModule) -> None:
    own.results = lambda y: y * 1.01
    fast = module.optimize(rows(2), engine="own", tolerance=0.02)
    torch.testing.assert_close(fast(rows(2)), right(module, rows(2)) * 1.01)
    with pytest.raises(ValueError, match="tolerance must be a number from 0 on or None, got -1"):
        module.optimize(rows(2), tolerance=-1)


def test_the_fastest_serves(own: Own, module: OnnxModule, monkeypatch: pytest.MonkeyPatch) -> None:
    for fastest in ("own", "faithful"):
        monkeypatch.setattr(competition, "measure", _as_if(fastest))
        fast = module.optimize(rows(2), engine=["faithful", "own"], cache=False)
        assert fast.engine == fastest
        calls = own.calls
        fast(rows(2))
        assert (own.calls > calls) == (fastest == "own")


def _as_if(fastest: str) -> Any:
    def measure(lanes: Any, inputs: Any) -> None:
        for lane in lanes:
            lane.seconds = 1.0 if lane.engine == fastest else 2.0

    return measure


def test_a_choice_is_kept_without_measuring_again(
    own: Own, module: OnnxModule, monkeypatch: pytest.MonkeyPatch, cache_home: Path
) -> None:
    monkeypatch.setattr(competition, "measure", _as_if("own"))
    module.optimize(rows(2), engine=["faithful", "own"])
    (kept,) = (cache_home / "onnxinterp" / "choices").iterdir()
    assert json.loads(kept.read_text())["seconds"] == {"faithful": 2.0, "own": 1.0}
    monkeypatch.setattr(competition, "measure", _never)
    fast = module.optimize(rows(2), engine=["faithful", "own"])
    assert fast.engine == "own"
    assert "->  own" not in repr(fast)
    assert "faithful       2000.000 ms" in repr(fast)


def _never(lanes: Any, inputs: Any) -> None:
    raise AssertionError("measured again")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"\xff\xfe",
        b'{"key": {}, "seconds": {"own": 1.0}}',
        b'{"key": KEY, "seconds": {"own": -1.0}}',
        b'{"key": KEY, "seconds": {}}',
        b'{"key": KEY, "seconds": {"own": "1"}}',
        b'{"key": KEY, "seconds": {"unknown": 1.0}}',
        b"[" * 60_000,
    ],
    ids=lambda content: content[:40].decode(errors="replace"),
)
def test_damaged_and_foreign_choices_are_ignored_and_replaced(
    own: Own,
    module: OnnxModule,
    monkeypatch: pytest.MonkeyPatch,
    cache_home: Path,
    content: bytes,
) -> None:
    monkeypatch.setattr(competition, "measure", _as_if("faithful"))
    module.optimize(rows(2), engine=["faithful", "own"])
    (kept,) = (cache_home / "onnxinterp" / "choices").iterdir()
    good = kept.read_bytes()
    key = json.dumps(json.loads(good)["key"]).encode()
    kept.write_bytes(content.replace(b"KEY", key))
    assert module.optimize(rows(2), engine=["faithful", "own"]).engine == "faithful"
    assert kept.read_bytes() == good


def test_a_choice_belongs_to_sizes_threads_and_model(own: Own, cache_home: Path) -> None:
    folder = cache_home / "onnxinterp" / "choices"

    def count(module: OnnxModule, x: Tensor) -> int:
        module.optimize(x, engine="own")
        return len(list(folder.iterdir()))

    own.module = module = mlp()
    assert count(module, rows(2)) == 1
    with torch.no_grad():
        module.weights["w1"].add_(1)
    assert count(module, rows(2)) == 1, "weights do not matter"
    assert count(module, rows(3)) == 2
    own.module = OnnxModule(parse(FIXED))
    assert count(own.module, rows(2)) == 3
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(threads + 1)
        assert count(own.module, rows(2)) == 4
    finally:
        torch.set_num_threads(threads)


def test_without_a_cache_nothing_is_written(module: OnnxModule, cache_home: Path) -> None:
    module.optimize(rows(2), cache=False)
    assert not (cache_home / "onnxinterp").exists()


def test_a_folder_that_others_may_write_to_is_not_used(
    module: OnnxModule, cache_home: Path
) -> None:
    folder = cache_home / "onnxinterp" / "choices"
    folder.mkdir(parents=True)
    folder.chmod(0o777)
    module.optimize(rows(2))
    assert list(folder.iterdir()) == []


def test_a_file_in_the_place_of_the_folder_is_no_error(
    module: OnnxModule, cache_home: Path
) -> None:
    cache_home.write_text("not a folder")
    x = rows(2)
    torch.testing.assert_close(module.optimize(x)(x), right(module, x))


def test_a_choice_that_is_refused_now_competes_again(
    own: Own, module: OnnxModule, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(competition, "measure", _as_if("own"))
    module.optimize(rows(2), engine=["faithful", "own"])
    own.results = lambda y: y + 1
    fast = module.optimize(rows(2), engine=["faithful", "own"])
    assert fast.engine == "faithful"
    assert "it computes something else" in reasons(fast)["own"]


def test_other_sizes_are_prepared_when_they_come_again(own: Own, module: OnnxModule) -> None:
    fast = module.optimize(rows(2), engine="own")
    assert own.prepared == [(2, 4)]
    for _ in range(4):
        torch.testing.assert_close(fast(rows(3)), right(module, rows(3)))
    assert own.prepared == [(2, 4), (3, 4)]


def test_few_sizes_are_kept_the_last_used(own: Own, module: OnnxModule) -> None:
    fast = module.optimize(rows(2), engine="own")
    for count in range(3, 20):
        fast(rows(2))
        for _ in range(2):
            torch.testing.assert_close(fast(rows(count)), right(module, rows(count)))
    prepared = len(own.prepared)
    fast(rows(2))
    fast(rows(19))
    assert len(own.prepared) == prepared, "still there"
    fast(rows(3))
    assert len(own.prepared) == prepared + 1, "used long ago"
    assert len(fast.report()) < 20
    assert fast.engine == "own"


def test_engines_for_any_sizes_are_reused(own: Own, module: OnnxModule) -> None:
    own.takes_any_sizes = True
    fast = module.optimize(rows(2), engine="own")
    calls = own.calls
    for count in (3, 3, 3, 4):
        torch.testing.assert_close(fast(rows(count)), right(module, rows(count)))
    assert own.calls == calls + 4
    assert own.prepared == [(2, 4)]


def test_a_failing_call_runs_in_the_module_and_is_reported(own: Own, module: OnnxModule) -> None:
    fast = module.optimize(rows(2), engine="own")
    own.failure = RuntimeError("broken")
    calls = own.calls
    for _ in range(3):
        torch.testing.assert_close(fast(rows(2)), right(module, rows(2)))
    assert own.calls == calls + 1, "these sizes stay with the module"
    assert reasons(fast)["own"] == "it failed in a call: RuntimeError: broken"
    assert fast.engine == "faithful"


def test_an_engine_may_leave_values_to_the_module(own: Own, module: OnnxModule) -> None:
    fast = module.optimize(rows(2), engine="own")
    own.failure = EngineError("too large")
    torch.testing.assert_close(fast(rows(2)), right(module, rows(2)))
    own.failure = None
    calls = own.calls
    fast(rows(2))
    assert own.calls == calls + 1
    assert fast.engine == "own"


def test_a_broken_engine_is_a_reason(own: Own, module: OnnxModule, monkeypatch: Any) -> None:
    def broken() -> Any:
        raise ImportError("libbroken.so: cannot open shared object file")

    monkeypatch.setitem(ENGINES, "own", Engine(broken))
    fast = module.optimize(rows(2), engine=["own", "faithful"])
    assert reasons(fast)["own"] == (
        "it cannot be prepared: ImportError: libbroken.so: cannot open shared object file"
    )


def test_a_kept_choice_has_what_takes_other_sizes(
    own: Own, module: OnnxModule, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(competition, "measure", _as_if("own"))
    names = ["own", "onnxruntime", "faithful"]
    first = module.optimize(rows(2), engine=names)
    again = module.optimize(rows(2), engine=names)
    for fast in (first, again):
        assert fast.engine == "own"
        assert fast._state is not None
        assert fast._state.any_lane.engine == "onnxruntime"


def test_a_missing_package_is_a_reason(module: OnnxModule, monkeypatch: pytest.MonkeyPatch) -> None:
    from onnxinterp import extras

    def missing(name: str) -> Any:
        raise ModuleNotFoundError(name=name)

    monkeypatch.setattr(extras.importlib, "import_module", missing)
    with pytest.raises(EngineError, match=r"pip install onnxinterp\[verify\]"):
        module.optimize(rows(2), engine="onnxruntime")
    fast = module.optimize(rows(2), cache=False)
    assert fast.engine in ("faithful", "torch")
    assert "pip install" in reasons(fast)["onnxruntime"]


# what only the module itself can run

STRINGS = 'g (string[n] x) => (string[n] y) { y = StringNormalizer<case_change_action="UPPER">(x) }'
SEQUENCE = "g (float[n] x) => (seq(float[n]) y) { y = SequenceConstruct(x, x) }"
RANDOM = "g (float[n] x) => (float[n] y) { r = RandomNormalLike(x) y = Add(x, r) }"


@pytest.mark.parametrize(
    ("text", "x", "reason"),
    [
        (STRINGS, None, "inputs must be tensors, not strings"),
        (SEQUENCE, torch.ones(2), "outputs must be tensors, not strings, sequences or maps"),
        (RANDOM, torch.ones(2), "two calls of the module with the same inputs differ"),
    ],
    ids=["strings", "sequence", "random"],
)
def test_models_that_engines_refuse_run_in_the_module(text: str, x: Any, reason: str) -> None:
    import numpy as np

    module = OnnxModule(parse(text))
    x = np.array(["a", "b"], dtype=object) if x is None else x
    fast = module.optimize(x)
    assert fast.engine == "faithful"
    assert reason in reasons(fast)["onnxruntime"]
    first, second = fast(x), module(x)
    if text == STRINGS:
        assert first.tolist() == second.tolist() == ["A", "B"]
    elif text == SEQUENCE:
        assert [y.tolist() for y in first] == [[1, 1], [1, 1]]
        first[0].fill_(7)
        assert x.tolist() == [1, 1]
        assert first[1].tolist() == [1, 1]
    else:
        assert not torch.equal(first, fast(x))
    with pytest.raises(EngineError, match="no engine can run this model: onnxruntime: "):
        module.optimize(x, engine="onnxruntime")


def test_limits_are_kept_by_the_module_alone() -> None:
    module = OnnxModule(parse(FIXED), limits=Limits(tensor_bytes=40))
    fast = module.optimize(rows(2))
    assert fast.engine == "faithful"
    assert "limits=" in reasons(fast)["onnxruntime"]
    torch.testing.assert_close(fast(rows(2)), right(module, rows(2)))


def test_hooked_and_replaced_modules_run_in_the_module() -> None:
    """The file knows nothing of them."""
    module = mlp()
    module.register_forward_hook(lambda _module, _inputs, output: output * 2)
    fast = module.optimize(rows(2))
    assert fast.engine == "faithful"
    assert "hooks or were replaced" in reasons(fast)["onnxruntime"]
    torch.testing.assert_close(fast(rows(2)), right(mlp(), rows(2)) * 2)


def test_custom_kernels_are_judged_by_what_they_compute() -> None:
    module = OnnxModule(parse(FIXED), kernels={"Relu": lambda x: x})
    fast = module.optimize(rows(2))
    assert fast.engine == "faithful"
    assert "it computes something else" in reasons(fast)["onnxruntime"]
    torch.testing.assert_close(fast(rows(2)), right(module, rows(2)))


def test_a_module_in_another_type_than_the_file_runs_in_torch() -> None:
    module = mlp().double()
    x = rows(2).double()
    fast = module.optimize(x)
    assert fast.engine in ("faithful", "torch")
    assert reasons(fast)["onnxruntime"] == (
        "input 'x' must be tensor(float) in the file, got float64"
    )
    torch.testing.assert_close(fast(x), right(module, x))


def test_examples_that_fail_are_errors_of_the_module() -> None:
    with pytest.raises(NodeError):
        OnnxModule(parse("g (float[n] x, float[m] z) => (float[k] y) { y = Add(x, z) }")).optimize(
            torch.ones(2), torch.ones(3)
        )


def test_the_cache_folder_is_that_of_the_user(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from onnxinterp.snapshots.choices import cache_folder

    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder("choices") == tmp_path / ".cache" / "onnxinterp" / "choices"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")  # which the specification forbids
    assert cache_folder("choices") == tmp_path / ".cache" / "onnxinterp" / "choices"
    assert os.stat(tmp_path / ".cache" / "onnxinterp" / "choices").st_mode & 0o777 == 0o700
