"""Write docs/citizenship.md and expected.txt: run every check on every column.

python -m tests.citizen.report

It takes minutes. Rows of packages that are not installed are left out, and listed.
"""

from __future__ import annotations

import argparse
import platform
from collections import Counter
from collections.abc import Iterable, Mapping
from concurrent.futures import ProcessPoolExecutor
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path
from string import ascii_lowercase

import torch

from tests import exporting
from tests.citizen import expected
from tests.citizen.checks import GROUPS, ROWS, Row
from tests.citizen.columns import COLUMNS, Column
from tests.citizen.judging import Outcome, applies, of_import, of_original
from tests.citizen.networks import NETWORKS, Network

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "citizenship.md"
PROCESSES = 2
PASS, RESTORED, NONE = "✓", "✓ʳ", "·"

INTRODUCTION = """\
# A citizen of PyTorch

Generated; do not edit:

```
python -m tests.citizen.report
```

Does a tool of PyTorch do with the import what it does with the network that was exported? Each
check runs a tool on the original torch module and on its import, and compares: names, shapes and
results. Values are equal if the norm of the difference is below 1e-5 of the norm of the original's,
gradients below 1e-4; under autocast 2e-2, with dynamically quantized layers 2e-3 (constants in
`tests/citizen/checks`). What a check cannot compare is red. `tests/citizen/test_checks.py` tests
the checks: a copy of the original passes each of them, and a copy with noise on a weight, another
name, other classes, hooks that do not run or a missing gradient fails.

The networks are a small ResNet with BatchNorm, a vision transformer, an encoder in the manner of
BERT with a padding mask, a decoder in the manner of GPT with cache inputs and outputs and a head
tied to its embedding, and a bidirectional LSTM tagger. A cell has four marks:

| mark | exporter | call |
|---|---|---|
| 1st | `dynamo=False` | `torch.onnx.export(network.eval(), inputs, path, dynamo=False)` |
| 2nd | `dynamo=False` | as [fine-tuning](fine-tuning.md) recommends |
| 3rd | `dynamo=True` | `torch.onnx.export(network.eval(), inputs, path, dynamo=True)` |
| 4th | `dynamo=True` | as recommended |

`✓`: the import does as the original. `✓ʳ`: it does once the folded normalization is
inserted again (`reinsert_batchnorm`) and the original's weights are loaded. A letter: it does
not, for a [reason](#reasons). `·`: the check does not concern the network, or the tool
[fails with the original](#not-for-the-original) itself; not counted.

Run with {versions}.{missing}

**{green} of {total} cells are green.**
"""


def cells(network: Network, exporter: str) -> dict[expected.Cell, Outcome | None]:
    """The outcomes of all rows in the columns of a network and an exporter; None: not counted."""
    _use_cache()
    found: dict[expected.Cell, Outcome | None] = {}
    columns = [c for c in COLUMNS if (c.network.name, c.exporter) == (network.name, exporter)]
    for row in installed():
        counted = applies(row, network) and not of_original(row.name, network.name).reason
        for column in columns:
            found[row.name, column.name] = of_import(row, column) if counted else None
    return found


def _use_cache() -> None:
    """The exports of the tests, in pytest's cache."""
    exporting.FOLDER = ROOT / ".pytest_cache" / "d" / "exports"
    exporting.FOLDER.mkdir(parents=True, exist_ok=True)


def _work(task: tuple[str, str]) -> dict[expected.Cell, Outcome | None]:
    torch.set_num_threads(1)
    return cells(next(n for n in NETWORKS if n.name == task[0]), task[1])


def installed() -> list[Row]:
    """The rows that can run here, in the order of the groups."""
    return [r for group in GROUPS for r in ROWS.values() if r.group == group and r.is_installed]


def run() -> dict[expected.Cell, Outcome | None]:
    """All outcomes."""
    tasks = dict.fromkeys((c.network.name, c.exporter) for c in COLUMNS)
    found: dict[expected.Cell, Outcome | None] = {}
    with ProcessPoolExecutor(PROCESSES, get_context("spawn")) as pool:
        for part in pool.map(_work, tasks):
            found |= part
    return found


def page(found: Mapping[expected.Cell, Outcome | None]) -> str:
    """The report."""
    letters = _letters(found)
    packages = {row.package for row in ROWS.values() if row.package and row.is_installed}
    missing = sorted({row.package for row in ROWS.values() if not row.is_installed})
    names = ", ".join(f"{name} {version(name)}" for name in ("torch", "onnx", *sorted(packages)))
    counted = [outcome for outcome in found.values() if outcome is not None]
    parts = [
        INTRODUCTION.format(
            versions=f"Python {platform.python_version()}, {names}",
            missing=f" Left out for want of packages: {', '.join(missing)}." if missing else "",
            green=sum(not outcome.reason for outcome in counted),
            total=len(counted),
        ),
        _summary(found),
        *(_group(group, found, letters) for group in GROUPS),
        _reasons(found, letters),
        _originals(),
    ]
    return "\n".join(parts)


def _letters(found: Mapping[expected.Cell, Outcome | None]) -> dict[str, str]:
    """A letter for each reason, the commonest first; two letters after z."""
    counts = Counter(outcome.reason for outcome in found.values() if outcome and outcome.reason)
    names = [*ascii_lowercase, *(f"{a}{b}" for a in ascii_lowercase for b in ascii_lowercase)]
    return dict(zip((reason for reason, _ in counts.most_common()), names, strict=False))


def _table(head: Iterable[str], lines: Iterable[Iterable[str]]) -> str:
    head = list(head)
    rows = [head, ["---"] * len(head), *lines]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def _summary(found: Mapping[expected.Cell, Outcome | None]) -> str:
    def share(group: str, columns: Iterable[Column]) -> str:
        names = {column.name for column in columns}
        counted = [
            outcome
            for (row, column), outcome in found.items()
            if column in names and group in (ROWS[row].group, "all") and outcome is not None
        ]
        return f"{sum(not outcome.reason for outcome in counted)}/{len(counted)}"

    kinds = [("dynamo=False", "torchscript"), ("dynamo=True", "dynamo")]
    by_call = {
        f"`{title}` {call}": [c for c in COLUMNS if (c.exporter, c.call) == (exporter, call)]
        for title, exporter in kinds
        for call in ("default", "recommended")
    }
    by_network = {n.name: [c for c in COLUMNS if c.network is n] for n in NETWORKS}
    sets = {**by_network, **by_call, "all": COLUMNS}
    lines = [[group, *(share(group, s) for s in sets.values())] for group in (*GROUPS, "all")]
    return _table(["", *sets], lines)


def _mark(outcome: Outcome | None, letters: Mapping[str, str]) -> str:
    if outcome is None:
        return NONE
    if outcome.reason:
        return letters[outcome.reason]
    return RESTORED if outcome.way else PASS


def _group(
    group: str, found: Mapping[expected.Cell, Outcome | None], letters: Mapping[str, str]
) -> str:
    lines = []
    for row in installed():
        if row.group == group:
            marks = [
                " ".join(
                    _mark(found[row.name, c.name], letters) for c in COLUMNS if c.network is network
                )
                for network in NETWORKS
            ]
            lines.append([row.name, *marks])
    title = group[0].upper() + group[1:]
    return f"## {title}\n\n{_table(['check', *(n.name for n in NETWORKS)], lines)}"


def _reasons(found: Mapping[expected.Cell, Outcome | None], letters: Mapping[str, str]) -> str:
    lines = []
    for reason, letter in letters.items():
        alike = [(cell, o) for cell, o in found.items() if o and o.reason == reason]
        (row, column), outcome = alike[0]
        detail = " ".join(outcome.detail.split()).replace("|", "/")[:200]
        lines.append([letter, reason, str(len(alike)), f"{row}, {column}: `{detail}`"])
    return f"## Reasons\n\n{_table(['', 'reason', 'cells', 'for example'], lines)}"


def _originals() -> str:
    lines = []
    for row in installed():
        for network in NETWORKS:
            outcome = of_original(row.name, network.name)
            if applies(row, network) and outcome.reason:
                detail = " ".join(outcome.detail.split()).replace("|", "/")[:160]
                lines.append([row.name, network.name, f"`{detail}`"])
    return f"## Not for the original\n\n{_table(['check', 'network', 'what torch says'], lines)}"


def main() -> None:
    """Write both files, or print the outcomes of some rows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", help="rows whose name contains this: print them, write nothing")
    chosen = parser.parse_args().only
    if chosen is not None:
        _print(chosen)
        return
    found = run()
    expected.write(
        {
            (row.name, column.name): outcome.reason
            for row in installed()
            for column in COLUMNS
            if (outcome := found[row.name, column.name]) and outcome.reason
        }
    )
    PAGE.write_text(page(found))


def _print(chosen: str) -> None:
    _use_cache()
    for row in installed():
        for column in COLUMNS if chosen in f"{row.group}: {row.name}" else ():
            if (
                applies(row, column.network)
                and not of_original(row.name, column.network.name).reason
            ):
                print(f"{row.name} | {column.name} | {of_import(row, column)}", flush=True)


if __name__ == "__main__":
    main()
