"""A step of a language model with a cache: one token, or a prompt, against onnxruntime.

    python -m benchmarks.decoding [--past 64] [--tokens 1] [--rounds 200] MODEL.onnx ...

The models are files of the onnxruntime-genai builder or of the same layout: input_ids,
attention_mask, position_ids, past_key_values.N.key. Times are process time at one thread, minima
of interleaved rounds. Outputs are compared with onnxruntime without optimisation. The memory is the
peak of a fresh process that opens the model and runs some steps, less that of its imports, divided
by the size of the files.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmarks.speed.engines import session
from benchmarks.timing import MEMORY_STATUS, run_in_fresh_process, time_candidates, use_one_thread
from onnxinterp import OnnxModule
from onnxinterp.generation.cache import EmptyCache
from onnxinterp.generation.model import Model

PEAK = (
    MEMORY_STATUS
    + """
import sys
import torch
from benchmarks.decoding import feeds
from onnxinterp import OnnxModule
torch.set_num_threads(1)
torch.randn(64, 64) @ torch.randn(64, 64)
before = status("VmHWM")
path, past, tokens = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
module = OnnxModule(path).eval()
with torch.inference_mode():
    inputs = feeds(module, past, tokens)
    for _ in range(6):
        module(**inputs)
print(status("VmHWM") - before)
"""
)


def feeds(module: OnnxModule, past: int, tokens: int) -> dict[str, Tensor]:
    """The inputs of a step of `tokens` tokens after `past` others, batch 1."""
    torch.manual_seed(0)
    model = Model(module)
    ids, mask = torch.randint(3, 200, (1, tokens)), torch.ones(1, past + tokens)
    positions = torch.arange(past, past + tokens)[None]
    inputs = model.inputs(ids, mask, positions, logits=1, first=False)
    for part, empty in zip(model.layout.cache, EmptyCache(model)(1, past), strict=True):
        inputs[part.info.name] = torch.randn(empty.shape).to(empty.dtype)
    return inputs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="+", type=Path)
    parser.add_argument("--past", type=int, default=64)
    parser.add_argument("--tokens", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=200)
    given = parser.parse_args()
    use_one_thread()
    print("| model | onnxruntime us | program | snapshot (engine) | largest error | peak / file |")
    print("|---|---|---|---|---|---|")
    for path in given.models:
        print(row(path, given.past, given.tokens, given.rounds))


def row(path: Path, past: int, tokens: int, rounds: int) -> str:
    """One row of the table; times of program and snapshot are ratios."""
    module, runtime = OnnxModule(path).eval(), session(path, 1)
    inputs = feeds(module, past, tokens)
    arrays = {name: x.numpy() for name, x in inputs.items()}
    with torch.inference_mode():
        snapshot = module.optimize(**inputs, cache=False)
        calls: dict[str, Callable[[], object]] = {
            "onnxruntime": lambda: runtime.run(None, arrays),
            "program": lambda: module(**inputs),
            "snapshot": lambda: snapshot(**inputs),
        }
        times = time_candidates(calls, rounds=rounds)
        logits = module(**inputs)[0].numpy()
    expected = session(path, 1, optimize=False).run(None, arrays)[0]
    error = float(np.abs(logits - expected).max())
    ratios = [times[n].minimum / times["onnxruntime"].minimum for n in ("program", "snapshot")]
    size = sum(p.stat().st_size for p in path.parent.glob(f"{path.name}*")) / 2**20
    (peak,) = run_in_fresh_process(PEAK, str(path), str(past), str(tokens))
    columns = (
        f"{times['onnxruntime'].minimum * 1e6:.0f}",
        f"{ratios[0]:.2f}",
        f"{ratios[1]:.2f} ({snapshot.engine})",
        f"{error:.2g}",
        f"{peak / size:.2f}",
    )
    return f"| {path.parent.name}/{path.name} | {' | '.join(columns)} |"


if __name__ == "__main__":
    main()
