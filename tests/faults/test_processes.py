"""Modules in other processes: forked while threads have run, spawned, pickled, shared."""

from __future__ import annotations

import copy
import io
import pickle
from pathlib import Path

import pytest
import torch

from onnxinterp import OnnxModule
from tests.faults.models import MODELS, Answers, call_of
from tests.faults.test_threads import at_once, equal
from tests.processes import Fork
from tests.saving.models import raw, sum_of, write_external

FORKING = """
import os, signal, threading, time
import torch
from onnxinterp import OnnxModule
from tests.faults.models import MODELS, call_of

path, threads = arguments[0], int(arguments[1])
torch.set_num_threads(1)
modules = {name: OnnxModule(model) for name, model in MODELS.items()}
modules["external"] = OnnxModule(path)

def answers():
    found = []
    for name, module in modules.items():
        for i in (1, 2, 2, 3, 15):
            args, keywords = (((torch.ones(3),), {}) if name == "external" else call_of(name, i))
            answer = module(*args, **keywords)
            found += [str(o) for o in (answer if isinstance(answer, tuple) else [answer])]
    return found

def gradients():
    module, x = modules["network"], call_of("network", 3)[0][0]
    return [str(g) for g in torch.autograd.grad(module(x).sum(), list(module.parameters()))]

want = answers(), gradients()
torch.set_num_threads(threads)
answers(), gradients(), torch.randn(500, 500) @ torch.randn(500, 500)  # the pools are there
stop = threading.Event()
def work():
    while not stop.is_set():
        answers()
running = [threading.Thread(target=work) for _ in range(3)]
for thread in running:
    thread.start()
time.sleep(0.2)
children = []
for _ in range(8):
    child = os.fork()
    if not child:
        signal.alarm(60)
        torch.set_num_threads(1)
        os._exit(0 if (answers(), gradients()) == want else 1)
    children.append(child)
    time.sleep(0.02)
statuses = [os.waitpid(child, 0)[1] for child in children]
stop.set()
for thread in running:
    thread.join()
assert statuses == [0] * 8, statuses
torch.set_num_threads(1)
assert (answers(), gradients()) == want
"""


@pytest.mark.parametrize("threads", [1, 4])
def test_children_forked_while_threads_run(threads: int, fork: Fork, tmp_path: Path) -> None:
    """Torch's own pools of threads do not come along: a child sets the number of them to 1."""
    path = write_external(sum_of(raw("w", 3), raw("v", 3)), tmp_path / "m.onnx", "w")
    assert fork(FORKING, path, threads) == 0


@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_workers_of_a_data_loader(context: str) -> None:
    module = OnnxModule(MODELS["network"])
    want = torch.stack([Answers(module)[i] for i in range(8)])
    loader = torch.utils.data.DataLoader(
        Answers(module), batch_size=4, num_workers=1, multiprocessing_context=context, timeout=100
    )
    assert torch.equal(torch.cat([*loader]), want)


SHARED = """
import os, torch
from onnxinterp import OnnxModule
from tests.faults.models import MODELS
module = OnnxModule(MODELS["network"])
before = module(torch.ones(1, 3, 5, 5))
module.share_memory()
assert torch.equal(module(torch.ones(1, 3, 5, 5)), before)
child = os.fork()
if not child:
    torch.set_num_threads(1)
    module(torch.ones(1, 3, 5, 5)).sum().backward()
    torch.optim.SGD(module.parameters(), 0.1).step()
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
after = module(torch.ones(1, 3, 5, 5))
assert not torch.equal(after, before), "the step of the child is seen here"
"""


def test_weights_in_shared_memory(fork: Fork) -> None:
    assert fork(SHARED) == 0


def _saved_and_loaded(module: OnnxModule) -> OnnxModule:
    file = io.BytesIO()
    torch.save(module.state_dict(), file)
    other = OnnxModule(MODELS["network"])
    with torch.no_grad():
        for weight in other.parameters():
            weight.zero_()
    other.load_state_dict(torch.load(io.BytesIO(file.getvalue()), weights_only=True))
    return other


@pytest.mark.parametrize("training", [False, True])
def test_copies_in_threads(training: bool) -> None:
    """Made at once of a module that has plans for sizes; each answers alike, and alone."""
    module = OnnxModule(MODELS["network"]).train(training)
    x = call_of("network", 3)[0][0]
    for _ in range(3):
        copy.deepcopy(module)(x)
    want = copy.deepcopy(module)(x)
    ways = (copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m)), _saved_and_loaded)

    def work(thread: int) -> None:
        other = ways[thread % 3](module).train(training)
        with torch.no_grad():
            assert equal(other(x), want)
            other.weights["fc_w"].zero_()

    at_once(work)
    assert equal(module(x), want)
