"""Copies, pickles, threads and processes: each gets what one call gets."""

from __future__ import annotations

import copy
import gc
import io
import pickle
import threading
import weakref
from typing import Any

import pytest
import torch

from onnxinterp.snapshots import ChangedWeightsError, Snapshot
from tests.processes import Fork
from tests.snapshots.models import mlp, right, rows

THREADS, CALLS = 4, 50


def _pickled(fast: Snapshot) -> Snapshot:
    copied: Snapshot = pickle.loads(pickle.dumps(fast))
    return copied


def _saved(fast: Snapshot) -> Snapshot:
    file = io.BytesIO()
    torch.save(fast, file)
    file.seek(0)
    copied: Snapshot = torch.load(file, weights_only=False)
    return copied


ways = pytest.mark.parametrize("way", [copy.deepcopy, _pickled, _saved])


@ways
def test_copies_compute_the_same(way: Any, engine: str) -> None:
    fast = mlp().optimize(rows(2), engine=engine)
    again = way(fast)
    assert "not prepared yet" in repr(again)
    for count in (2, 3):
        torch.testing.assert_close(again(rows(count)), fast(rows(count)))
    assert again.engine == engine
    assert again.module is not fast.module


@ways
def test_copies_are_of_the_weights_as_they_are(way: Any, engine: str) -> None:
    module = mlp()
    again = way(module.optimize(rows(2), engine=engine))
    with torch.no_grad():
        module.weights["w1"].add_(1)
    torch.testing.assert_close(again(rows(2)), right(mlp(), rows(2)))
    with torch.no_grad():
        again.module.weights["w1"].add_(1)
    with pytest.raises(ChangedWeightsError):
        again(rows(2))


def test_a_copy_of_an_ignoring_snapshot_has_the_weights_it_ran_with(engine: str) -> None:
    module = mlp()
    fast = module.optimize(rows(2), engine=engine, on_change="ignore")
    with torch.no_grad():
        module.weights["w1"].add_(1)
    torch.testing.assert_close(_pickled(fast)(rows(2)), right(mlp(), rows(2)))


def test_a_copy_keeps_the_choice_without_a_cache() -> None:
    fast = mlp().optimize(rows(2), cache=False)
    again = copy.deepcopy(fast)
    again(rows(2))
    assert again.engine == fast.engine
    assert repr(again).splitlines()[2:] == [
        line for line in repr(fast).splitlines()[2:] if "refused" not in line
    ]


def test_threads_get_right_results(engine: str) -> None:
    """Of several sizes, which are prepared while others run."""
    module = mlp()
    fast = module.optimize(rows(2), engine=engine)
    wants = {(n, seed): right(module, rows(n, seed)) for n in (1, 2, 5) for seed in range(5)}
    failures: list[BaseException] = []
    gate = threading.Barrier(THREADS)

    def work(thread: int) -> None:
        try:
            gate.wait()
            for call in range(CALLS):
                key = ((1, 2, 5)[(thread + call) % 3], call % 5)
                torch.testing.assert_close(fast(rows(*key)), wants[key])
        except BaseException as error:
            failures.append(error)

    running = [threading.Thread(target=work, args=(i,)) for i in range(THREADS)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    assert failures == []


def test_threads_renew_once(engine: str) -> None:
    module = mlp()
    fast = module.optimize(rows(2), engine=engine, on_change="renew")
    with torch.no_grad():
        module.weights["w1"].add_(1)
    want, got = right(module, rows(2)), []
    running = [threading.Thread(target=lambda: got.append(fast(rows(2)))) for _ in range(THREADS)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    assert len(got) == THREADS
    for y in got:
        torch.testing.assert_close(y, want)


def test_snapshots_are_freed_and_free_their_module(engine: str) -> None:
    module = mlp()
    fast = module.optimize(rows(2), engine=engine)
    fast(rows(2))
    refs = weakref.ref(fast), weakref.ref(module)
    del fast, module
    gc.collect()
    assert [ref() for ref in refs] == [None, None]


FORKING = """
import os, sys, torch
from tests.snapshots.models import mlp, right, rows
torch.set_num_threads(2)
module = mlp()
fast = module.optimize(rows(2), engine=arguments[0], cache=False)
want = right(module, rows(2))
assert torch.allclose(fast(rows(2)), want)
child = os.fork()
if not child:
    torch.set_num_threads(1)
    os._exit(0 if torch.allclose(fast(rows(2)), want) else 3)
_, status = os.waitpid(child, 0)
assert os.waitstatus_to_exitcode(status) == 0, status
"""


def test_a_forked_process_prepares_anew(fork: Fork, engine: str) -> None:
    """The threads of an engine do not exist there: calls would wait for them for ever."""
    assert fork(FORKING, engine) == 0
