"""Broken files by the thousand: what became of them, and each one that broke the promise.

python -m tests.untrusted.fuzz.campaign --seconds 60 --workers 2     what the test does
python -m tests.untrusted.fuzz.campaign --seed 1234 --write FILE     the file of one seed
"""

from __future__ import annotations

import argparse
import itertools
import pickle
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import onnx

from onnxinterp.registry import KERNELS
from tests.processes import Child, Lost, results
from tests.property.agreement import assert_agree
from tests.property.oracles import to_lane
from tests.untrusted.fuzz.fields import every
from tests.untrusted.fuzz.judging import dtypes
from tests.untrusted.fuzz.mutation import Base, bases, mutant, stored
from tests.untrusted.fuzz.oracle import Question, Refusal, answer
from tests.untrusted.fuzz.victim import Outcome, of_seed

KEPT = 5  # seeds that are told of each kind of defect


@dataclass
class Tally:
    """Counts, and the first seeds of what must not be.

    Attributes:
        outcomes: what became of the files.
        defects: what broke the promise -> seeds.
        compared: answers that onnxruntime was asked for: "same", "differs" or "refused".
        different: what differs -> seeds.
    """

    outcomes: Counter[str] = field(default_factory=Counter)
    defects: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    compared: Counter[str] = field(default_factory=Counter)
    different: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    seconds: float = 0.0
    first: int = 0

    @property
    def count(self) -> int:
        return sum(self.outcomes.values())

    def __str__(self) -> str:
        rate = self.count / max(self.seconds, 1e-9)
        lines = [
            f"{self.count:,} mutated files in {self.seconds:.0f} s, {rate:.0f} a second, "
            f"from seed {self.first}"
        ]
        lines += [f"  {count:>9,}  {what}" for what, count in self.outcomes.most_common()]
        asked = ", ".join(f"{count:,} {what}" for what, count in self.compared.most_common())
        lines.append(f"  against onnxruntime: {asked or 'none'}")
        for title, found in (("BROKEN", self.defects), ("different", self.different)):
            lines += [
                f"  {title}: {what}: {len(seeds):,} times, seeds {seeds[:KEPT]}"
                for what, seeds in sorted(found.items(), key=lambda kv: -len(kv[1]))
            ]
        return "\n".join(lines)


def run(
    *,
    seconds: float | None = None,
    count: int | None = None,
    first: int = 0,
    workers: int = 1,
    work: Callable[[str, int], Outcome] = of_seed,
    compare: bool = True,
    patience: float = 10.0,
    keep: Path | None = None,
) -> Tally:
    """Try broken files until the time or their number is used up.

    Args:
        seconds: for how long.
        count: how many files.
        first: the first seed.
        workers: how many processes.
        work: bases and seed -> outcome; a function that can be imported.
        compare: whether some of the answers are compared with onnxruntime's.
        patience: seconds after which a file counts as one that hangs.
        keep: a folder for files that break the promise, or differ.
    """
    with tempfile.NamedTemporaryFile(prefix="fuzz-bases-") as file:
        pickle.dump(bases(), file)
        file.flush()
        job = partial(work, file.name)
        *children, again = (Child(job, patience) for _ in range(workers + 1))
        oracle = Child(answer) if compare else None
        try:
            seeds, found = _seeds(first, count, seconds), stored(file.name)
            tally = _run(seeds, found, children, again, oracle)
            tally.first = first
        finally:
            for child in (*children, again, *filter(None, [oracle])):
                child.close()
        if keep is not None:
            for seed in (s for seeds in _told(tally) for s in seeds[:KEPT]):
                (keep / f"file-{seed}.onnx").write_bytes(mutant(found, seed)[0])
        return tally


def _told(tally: Tally) -> Iterator[list[int]]:
    yield from tally.defects.values()
    yield from tally.different.values()


def _seeds(first: int, count: int | None, seconds: float | None) -> Iterator[int]:
    end = time.monotonic() + seconds if seconds is not None else None
    for seed in itertools.count(first) if count is None else range(first, first + count):
        if end is not None and time.monotonic() > end:
            return
        yield seed


def _run(
    seeds: Iterator[int],
    found: Sequence[Base],
    children: Sequence[Child],
    again: Child,
    oracle: Child | None,
) -> Tally:
    tally, start = Tally(), time.monotonic()
    for seed, first in results(children, seeds):
        result = again.ask(seed) if isinstance(first, Lost) else first
        if isinstance(result, Lost):
            base = mutant(found, seed)[1].name
            tally.outcomes[result.how] += 1
            tally.defects[f"{result.how}{_reason(result.said)} ({base})"].append(seed)
            continue
        if isinstance(first, Lost) and first.how != "hung":  # a busy machine is no defect
            tally.defects[f"{first.how} after other files, not alone"].append(seed)
        tally.outcomes[f"{result.kind} {result.what}".strip()] += 1
        if result.kind == "raw":
            tally.defects[result.what].append(seed)
        elif result.answer and oracle is not None:
            _compare(seed, result, mutant(found, seed)[0], oracle, tally)
    tally.seconds = time.monotonic() - start
    return tally


def _reason(said: str) -> str:
    lines = [line for line in said.splitlines() if "what()" in line or "error" in line.lower()]
    return f": {lines[-1].strip()[:100]}" if lines else ""


def _compare(seed: int, outcome: Outcome, data: bytes, oracle: Child, tally: Tally) -> None:
    """Count whether onnxruntime gives the same."""
    if _is_random(onnx.load_from_string(data)):
        return
    want = oracle.ask(Question(data, outcome.feeds))
    if isinstance(want, (Lost, Refusal)):
        tally.compared["refused" if isinstance(want, Refusal) else "lost"] += 1
        return
    types = dtypes([*outcome.feeds.values(), *(w for w in want if w is not None)])
    try:
        assert len(outcome.answer) == len(want), "number of outputs"
        for got, w in zip(outcome.answer, want, strict=True):
            if got is not None and w is not None:
                assert_agree(to_lane(got), to_lane(w), types=types)
    except AssertionError as error:
        tally.compared["different"] += 1
        what = f"{operators_of(data)}: {' '.join(str(error).split())[:100]}"
        tally.different[what].append(seed)
    else:
        tally.compared["same"] += 1


def _is_random(model: onnx.ModelProto) -> bool:
    """Whether some node answers differently from call to call."""
    operators = {(n.domain, n.op_type) for n in every(model, onnx.NodeProto)}
    return any(k.random for o in operators for k in KERNELS.get(o, {}).values())


def operators_of(data: bytes) -> str:
    """The first few operators of a model."""
    model = onnx.load_from_string(data)
    imports = {o.domain: o.version for o in model.opset_import}
    nodes = [f"{n.op_type}-{imports.get(n.domain)}" for n in model.graph.node]
    return " ".join(nodes[:4])


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--seconds", type=float)
    parser.add_argument("--count", type=int)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--no-compare", action="store_true", help="never ask onnxruntime")
    parser.add_argument("--seed", type=int, help="make the file of this seed")
    parser.add_argument("--write", type=Path, help="where to write it")
    parser.add_argument("--keep", type=Path, help="a folder for files that break the promise")
    options = parser.parse_args()
    if options.seed is not None:
        data, base = mutant(bases(), options.seed)
        if options.write:
            options.write.write_bytes(data)
        print(f"seed {options.seed}: {len(data)} bytes, made of {base.name}")
        return
    seconds = 60.0 if options.seconds is None and options.count is None else options.seconds
    tally = run(
        seconds=seconds,
        count=options.count,
        first=options.first,
        workers=options.workers,
        compare=not options.no_compare,
        keep=options.keep,
    )
    print(tally)
    sys.exit(bool(tally.defects))


if __name__ == "__main__":
    main()
