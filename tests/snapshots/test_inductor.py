"""The engine that compiles: what it stores, and that others do not import the compiler."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from shutil import which

import pytest
import torch

from onnxinterp import OnnxModule
from onnxinterp.snapshots import ENGINES, EngineError
from onnxinterp.snapshots.engines import Options, inductor
from tests.models import parse
from tests.snapshots.models import mlp, rows

SHARED = """
g (float[n, 4] x)
=> (float[n, 4] a, float[n, 4] b, float[m] c, float[2, 2] d, float[1] e, float[n, 4] f)
<float[2, 2] w = {1, 2, 3, 4}, float[1] v = {5}, int64[1] flat = {-1}>
{
    a = Identity(x)
    b = Identity(x)
    c = Reshape(x, flat)
    d = Transpose(w)
    e = Identity(v)
    f = Add(x, v)
}
"""

if which("g++") or which("clang++"):

    def test_compiles_once_and_returns_memory_of_its_own(
        cache_home: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        module, x = OnnxModule(parse(SHARED)), rows(2)
        fast = module.optimize(x, engine="inductor")
        assert fast.engine == "inductor"
        for seed in range(3):
            given = rows(3, seed)[1:]  # at any address
            before = given.clone()
            got = fast(given)
            torch.testing.assert_close(got, module(given))
            for i, y in enumerate(got):
                assert not y.requires_grad
                y.fill_(i + 100)
            assert torch.equal(given, before)
            assert [float(y.min()) for y in got] == [100, 101, 102, 103, 104, 105]
        files = sorted(file.suffix for file in (cache_home / "onnxinterp" / "inductor").iterdir())
        assert files == [".json", ".pt2"]

        monkeypatch.setattr(inductor, "_compile", _never)
        again = OnnxModule(parse(SHARED)).optimize(x, engine="inductor")
        torch.testing.assert_close(again(x), module(x))
        with torch.no_grad():
            module.weights["v"].add_(1)
        with pytest.raises(EngineError, match="compiled again"):  # for other weights
            module.optimize(x, engine="inductor")
        (library,) = (cache_home / "onnxinterp" / "inductor").glob("*.pt2")
        library.write_bytes(library.read_bytes()[:-1])
        with pytest.raises(EngineError, match="compiled again"):  # in place of a damaged one
            OnnxModule(parse(SHARED)).optimize(x, engine="inductor")


def _never(*arguments: object) -> None:
    raise RuntimeError(f"compiled again: {arguments}")


def test_without_a_compiler_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch._inductor.config

    monkeypatch.setattr(torch._inductor.config.cpp, "cxx", ("no-such-compiler",))
    with pytest.raises(EngineError, match=r"inductor: it needs a C\+\+ compiler"):
        mlp().optimize(rows(2), engine="inductor")


def test_it_must_be_asked_for() -> None:
    assert not ENGINES["inductor"].by_default


def test_a_library_belongs_to_weights_sizes_threads_and_module() -> None:
    module = mlp()
    x = (rows(2),)
    keys = [inductor._key(module, x, Options(1)), inductor._key(module, x, Options(2))]
    keys.append(inductor._key(module, (rows(3),), Options(1)))
    with torch.no_grad():
        module.weights["w1"].add_(1)
    keys.append(inductor._key(module, x, Options(1)))
    keys.append(inductor._key(module.double(), x, Options(1)))
    assert all(a != b for i, a in enumerate(keys) for b in keys[:i])
    assert inductor._key(mlp(), x, Options(1)) == keys[0]


PROGRAM = """
import sys, torch
from tests.snapshots.models import mlp, right, rows
module = mlp()
fast = module.optimize(rows(2), cache=False)
for count in (2, 3, 3):
    torch.testing.assert_close(fast(rows(count)), right(module, rows(count)))
assert not {"torch._dynamo", "torch._inductor"} & set(sys.modules)
"""


def test_other_engines_import_no_compiler() -> None:
    subprocess.run([sys.executable, "-W", "ignore", "-c", PROGRAM], check=True)
