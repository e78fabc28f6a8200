"""`python -m benchmarks.speed --models FOLDER`: engines compared on whole models.

The folder is written by `python -m benchmarks.zoo FOLDER`. Files NAME.onnx with NAME.inputs.npz
that are not in the list of the zoo are measured too.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from functools import partial
from pathlib import Path
from types import MappingProxyType

import numpy as np
import onnx
import torch

from benchmarks.speed.checkout import Checkout
from benchmarks.speed.engines import (
    ENGINES,
    Arrays,
    mean_squared_error,
    outputs_of,
    prepare_engines,
    session,
)
from benchmarks.speed.page import write_page
from benchmarks.speed.results import BASELINE, CURRENT, Result, table_of
from benchmarks.timing import LONG_BLOCK_SECONDS, block_of, time_blocks
from benchmarks.zoo.entries import ENTRIES, KINDS

CHECKOUT = Path(__file__).resolve().parent.parent.parent


def measure(
    path: Path,
    threads: int,
    rounds: int,
    engines: Sequence[str],
    checkouts: Mapping[str, Checkout] = MappingProxyType({}),
) -> Result:
    """Measure one model with one number of threads."""
    torch.set_num_threads(threads)
    clock = "process_time" if threads == 1 else "perf_counter"
    inputs = path.with_suffix(".inputs.npz")
    with np.load(inputs) as stored:
        arrays: Arrays = {name: stored[name] for name in stored.files}
    entry = next((entry for entry in ENTRIES if entry.name == path.stem), None)
    expected = session(path, threads, optimize=False).run(None, dict(arrays))
    with torch.no_grad():
        prepared, failures = prepare_engines(path, arrays, entry, threads, engines)
        calls = {name: found.call for name, found in prepared.items()}
        errors = {n: mean_squared_error(outputs_of(call), expected) for n, call in calls.items()}
        blocks = {name: block_of(call, getattr(time, clock)) for name, call in calls.items()}
        for name, checkout in checkouts.items():
            checkout.load(path, inputs, threads)
            blocks[name] = partial(checkout.block, clock)
        times = time_blocks(blocks, rounds, LONG_BLOCK_SECONDS)
    nodes = count_nodes(onnx.load(path, load_external_data=False).graph)
    seconds = {name: found.minimum for name, found in times.items()}
    kind = KINDS.get(path.stem, "other")
    chosen = {name: found.chosen for name, found in prepared.items() if found.chosen}
    return Result(path.stem, kind, nodes, threads, seconds, errors, failures, chosen)


def count_nodes(graph: onnx.GraphProto) -> int:
    """Return the number of nodes, those of subgraphs included."""
    inner = [a.g for node in graph.node for a in node.attribute if a.HasField("g")]
    return len(graph.node) + sum(map(count_nodes, inner))


def models_in(folder: Path, only: Sequence[str]) -> list[Path]:
    """Return the models of a folder, in the order of the zoo; print those that are absent.

    Raises:
        ValueError: `only` contains a name that is not in the folder.
    """
    found = {p.name.removesuffix(".inputs.npz") for p in folder.glob("*.inputs.npz")}
    found = {name for name in found if (folder / f"{name}.onnx").exists()}
    if unknown := sorted(set(only) - found):
        raise ValueError(f"only must be names of models in {folder}, got {', '.join(unknown)}")
    for name in KINDS:
        if name not in found:
            print(f"{name}: absent")
    names = [*(name for name in KINDS if name in found), *sorted(found - KINDS.keys())]
    return [folder / f"{name}.onnx" for name in names if not only or name in only]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed")
    add = parser.add_argument
    add("--models", type=Path, required=True, metavar="FOLDER", help="models and their inputs")
    add("--only", default="", metavar="A,B", help="names of models")
    add("--engines", default=",".join(ENGINES), metavar="A,B", help="default: %(default)s")
    add("--rounds", type=int, default=20, help="default: %(default)s")
    add("--threads", type=int, nargs="+", default=[1], metavar="N", help="default: 1")
    add("--baseline", type=Path, metavar="CHECKOUT", help="another checkout to compare with")
    add("--json", type=Path, metavar="FILE", help="also write the results as JSON")
    add("--page", action="store_true", help="also write docs/performance.md and its pictures")
    return parser.parse_args()


def _names(string: str) -> list[str]:
    return [name for name in string.split(",") if name]


def main() -> None:
    """Measure the models, print tables and write the results."""
    options, results = _arguments(), list[Result]()
    paths, engines = models_in(options.models, _names(options.only)), _names(options.engines)
    with ExitStack() as stack:
        pair = {BASELINE: options.baseline, CURRENT: CHECKOUT} if options.baseline else {}
        checkouts = {name: stack.enter_context(Checkout(path)) for name, path in pair.items()}
        for path in paths:
            for threads in options.threads:
                result = measure(path, threads, options.rounds, engines, checkouts)
                results.append(result)
                shown = ", ".join(f"{n} {1e3 * s:.3f}" for n, s in result.seconds.items())
                failed = "".join(f"; {n} fails: {e[:100]!r}" for n, e in result.failures.items())
                print(f"{result.model}, {threads} threads, ms: {shown}{failed}", flush=True)
    print()
    for threads in options.threads:
        print(table_of(results, threads).markdown())
    if options.json:
        options.json.write_text(json.dumps([asdict(r) for r in results], indent=1) + "\n")
    if options.page:
        write_page(results, options.rounds)


if __name__ == "__main__":
    main()
