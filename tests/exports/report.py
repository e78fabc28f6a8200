"""Write docs/capture.md: run every tool on every model, each in a process of its own.

python -m tests.exports.report                  runs what the store lacks, then writes the page
python -m tests.exports.report --only MODEL/COLUMN   runs these again, prints them
python -m tests.exports.report --red                 runs what the import alone fails at again
python -m tests.exports.report --page           writes the page from the store

It takes hours the first time. A run that was stopped goes on where it was.
"""

from __future__ import annotations

import argparse
import platform
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from importlib import metadata
from itertools import product
from pathlib import Path

from tests.exports import results
from tests.exports.columns import COLUMNS, Column
from tests.exports.judging import (
    FAIL,
    NONE,
    NOT_RUN,
    ORIGINAL,
    OURS,
    PASS,
    TORCH,
    Outcome,
    Run,
    isolated,
    use_cache,
    verdict,
)
from tests.exports.known_reasons import REASONS, Reason, reason_for
from tests.exports.rows import ROWS, Row
from tests.processes import CONTEXT, PRELOADED

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "capture.md"
INTRODUCTION = Path(__file__).with_name("introduction.md")
RESULTS = Path(__file__).with_name("results.jsonl")
SECONDS = 240.0
SLOW = ("compile dynamic", "re-export dynamo", "ExecuTorch", "AOTInductor")
TOOLS = ("torch", "onnx", "onnxscript", "onnxruntime", "openvino", "executorch", "ncnn", "pnnx")
MAX_DETAIL_CHARS = 200
Found = Mapping[Run, Outcome]


def runs(only: str = "") -> Iterator[Run]:
    """All that can run here whose "model/column" contains a string; what takes long comes last."""
    columns = sorted(COLUMNS.values(), key=lambda c: SLOW.index(c.name) if c.name in SLOW else -1)
    for column, row in sorted(product(columns, ROWS), key=lambda pair: pair[1].is_large):
        if not column.missing and applies(row, column) and only in f"{row.name}/{column.name}":
            yield Run(row.name, column.name, OURS)
            if row.original is not None and column.has_control:
                yield Run(row.name, column.name, ORIGINAL)


def applies(row: Row, column: Column) -> bool:
    """Whether a cell means something."""
    return (row.is_dynamic or not column.is_dynamic) and (row.trains or not column.trains)


def mark(row: Row, column: Column, found: Found) -> str:
    """Of one cell."""
    if not applies(row, column):
        return NONE
    ours = found.get(Run(row.name, column.name, OURS))
    original = found.get(Run(row.name, column.name, ORIGINAL))
    has_control = row.original is not None and column.has_control
    if ours is not None and ours.message and original is None and has_control:
        return NOT_RUN
    return verdict(ours, original)


def _imports(found: Found) -> list[Run]:
    """Runs of imports that are still to be done."""
    return [run for run in runs() if run not in found and run.subject == OURS]


def _controls(found: Found) -> list[Run]:
    """Runs of originals that are still to be done, those first that decide a cell."""
    pending = [run for run in runs() if run not in found and run.subject == ORIGINAL]
    return sorted(pending, key=lambda run: not found[run._replace(subject=OURS)].message)


def red(found: Found) -> list[Run]:
    """Runs of the import in cells where it alone fails."""
    rows = {row.name: row for row in ROWS}
    return [
        run
        for run in runs()
        if run.subject == OURS and mark(rows[run.row], COLUMNS[run.column], found) == FAIL
    ]


def page(found: Found) -> str:
    """The report."""
    columns = [c for c in COLUMNS.values() if not c.missing]
    marks = {(r.name, c.name): mark(r, c, found) for r in ROWS for c in columns}
    parts = [
        INTRODUCTION.read_text(),
        f"Run with Python {platform.python_version()}, {_versions()}.{_left_out()}\n",
        _main_table(columns, marks),
        _shares(columns, marks),
        _defects(found, marks),
        _torch_too(found, marks),
        _reasons(found, marks),
    ]
    return "\n".join(parts)


def _versions() -> str:
    installed = {d.metadata["Name"].lower() for d in metadata.distributions()}
    return ", ".join(f"{n} {metadata.version(n)}" for n in TOOLS if n in installed)


def _left_out() -> str:
    missing = [f"{c.name} ({', '.join(c.missing)})" for c in COLUMNS.values() if c.missing]
    return f" Left out for want of packages: {', '.join(missing)}." if missing else ""


def _table(head: Iterable[str], lines: Iterable[Iterable[str]]) -> str:
    head = list(head)
    rows = [head, ["---"] * len(head), *lines]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


Marks = Mapping[tuple[str, str], str]


def _main_table(columns: list[Column], marks: Marks) -> str:
    lines = [
        [f"{row.name}{'' if row.original else ' ᶠ'}", *(marks[row.name, c.name] for c in columns)]
        for row in ROWS
    ]
    words = [[row.name, row.words, "inductor" if row.inductor else "aot_eager"] for row in ROWS]
    return (
        f"## Cells\n\n{_table(['model', *(c.name for c in columns)], lines)}\n"
        f"## Models\n\n{_table(['model', 'what it is', 'backend of compile'], words)}"
    )


def _shares(columns: list[Column], marks: Marks) -> str:
    """Green cells among those that the original can do, and among those of files alone."""
    with_original = {row.name for row in ROWS if row.original is not None}
    groups = {
        "with an original": lambda name: name in with_original,
        "files alone": lambda name: name not in with_original,
    }
    lines = []
    for title, chosen in groups.items():
        for column in (*(c.name for c in columns), "all"):
            counts = Counter(m for (r, c), m in marks.items() if chosen(r) and column in (c, "all"))
            able = counts[PASS] + counts[FAIL]
            share = f"{100 * counts[PASS] / able:.1f} %" if able else ""
            lines.append([title, column, f"{counts[PASS]}/{able}", share, str(counts[TORCH])])
    return f"## Share\n\n{_table(['models', 'column', PASS, 'share', TORCH], lines)}"


def _detail(message: str) -> str:
    words = message.replace("|", "/").replace("`", "'")
    return f"`{words[:MAX_DETAIL_CHARS]}`"


def _defects(found: Found, marks: Marks) -> str:
    lines = [
        [*cell, _detail(found[Run(*cell, OURS)].message)]
        for cell, value in marks.items()
        if value == FAIL
    ]
    table = _table(["model", "column", "what the tool says"], lines) if lines else "None.\n"
    return f"## Where the import alone fails\n\n{table}"


def _told(found: Found, cell: tuple[str, str]) -> str:
    """What torch says: of the original where there is one."""
    judge = found.get(Run(*cell, ORIGINAL), found[Run(*cell, OURS)])
    return judge.message


def _torch_too(found: Found, marks: Marks) -> str:
    lines = []
    for cell, value in marks.items():
        if value == TORCH:
            message = _told(found, cell)
            reason = reason_for(message)
            number = str(REASONS.index(reason) + 1) if reason else ""
            lines.append([*cell, number, _detail(message)])
    table = _table(["model", "column", "reason", "what torch says"], lines)
    return f"## Where torch fails as well\n\n{table}"


def _reasons(found: Found, marks: Marks) -> str:
    told = Counter(reason_for(_told(found, c)) for c, value in marks.items() if value == TORCH)

    def line(number: int, reason: Reason) -> list[str]:
        link = f"[thread]({reason.link})" if reason.link else ""
        return [str(number), reason.words, str(told[reason]), link]

    lines = [line(n, r) for n, r in enumerate(REASONS, 1) if told[r]]
    return f"## Reasons\n\n{_table(['', 'reason', 'cells', 'where its makers say so'], lines)}"


def run_all(file: Path, chosen: Iterable[Run], seconds: float) -> None:
    """Do runs one after the other, store and print each."""
    use_cache()
    chosen = list(chosen)
    for row in ROWS:
        if any(run.row == row.name for run in chosen):
            row.path()  # an exporter may need a process of its own, which a daemon cannot have
    CONTEXT.set_forkserver_preload([*PRELOADED, "tests.exports.judging", "torch.onnx"])
    for run in chosen:
        outcome = isolated(run, seconds)
        results.add(file, run, outcome)
        words = outcome.message or f"right, error {outcome.error:.1e}"
        print(f"{'/'.join(run)}: {outcome.seconds:.1f} s, {words}", flush=True)


def main() -> None:
    """Run and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", help='runs of "model/column" that contain this, done again')
    parser.add_argument("--red", action="store_true", help="run red cells of the import again")
    parser.add_argument("--page", action="store_true", help="write the page from what is stored")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="limit of one run")
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    if options.only is not None:
        run_all(options.results, runs(options.only), options.seconds)
    elif options.red:
        run_all(options.results, red(results.read(options.results)), options.seconds)
    elif not options.page:
        for pending in (_imports, _controls):
            run_all(options.results, pending(results.read(options.results)), options.seconds)
    if not options.page:
        results.tidy(options.results)
    if options.page or options.only is None:
        PAGE.write_text(page(results.read(options.results)))


if __name__ == "__main__":
    main()
