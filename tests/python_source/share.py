"""Which models become Python source, and how long it is: the tables of docs/python-source.md.

python -m tests.python_source.share                    all models, takes some minutes
python -m tests.python_source.share --only operators   those whose "group/name" contains this
python -m tests.python_source.share --page             all, and the tables are put into the page
"""

from __future__ import annotations

import argparse
import tempfile
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from onnxinterp.errors import SourceError
from tests.python_source.subjects import Subject, subjects
from tests.python_source.writing import difference, load

PAGE = Path(__file__).parents[2] / "docs" / "python-source.md"
BEGIN, END = "<!-- share -->\n", "<!-- end of share -->\n"
HEAD_LINES = 32
"""Lines that every file has: docstring, imports, `class Net`, both `def`, and `load`."""
MAX_LISTED = 4  # names of models beside a reason
WRITTEN, REFUSED, DIFFERENT, NOT_LOADED = "written", "refused", "different", "does not load"


class Outcome(NamedTuple):
    """What became of a model.

    Attributes:
        name: of the model.
        group: of models of its kind.
        what: one of the words above.
        why: of an error, or how results differ.
        n_nodes: of the graph, functions inlined.
        n_lines: of the source.
    """

    name: str
    group: str
    what: str
    why: str = ""
    n_nodes: int = 0
    n_lines: int = 0


def outcome(subject: Subject, folder: Path) -> Outcome:
    """Write a model, load the source, and compare it with the module."""
    try:
        module, inputs = subject.module()
        module(**inputs)
    except Exception as error:  # a model that does not run is no matter of the writer's
        return Outcome(subject.name, subject.group, NOT_LOADED, _line(error))
    n_nodes = len(module.onnx_graph.nodes)
    try:
        path = module.to_python(folder / "net.py", **inputs)
    except SourceError as error:
        return Outcome(subject.name, subject.group, REFUSED, _line(error), n_nodes)
    except Exception as error:
        why = f"{type(error).__name__}: {_line(error)}"
        return Outcome(subject.name, subject.group, DIFFERENT, why, n_nodes)
    try:
        why = difference(load(path), module, *[inputs[name] for name in module.input_names])
    except Exception as error:
        why = f"{type(error).__name__}: {_line(error)}"
    what = DIFFERENT if why else WRITTEN
    n_lines = len(path.read_text().splitlines())
    return Outcome(subject.name, subject.group, what, why, n_nodes, n_lines)


def _line(error: Exception) -> str:
    return " ".join(str(error).split())


def outcomes(chosen: Iterable[Subject]) -> Iterator[Outcome]:
    """What becomes of each, printed on the way."""
    with tempfile.TemporaryDirectory() as folder:
        for subject in chosen:
            torch.manual_seed(1)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                found = outcome(subject, Path(folder))
            lines = f" {found.n_lines} lines, {found.n_nodes} nodes" if found.n_lines else ""
            print(f"{found.group}/{found.name}: {found.what}{lines} {found.why}", flush=True)
            yield found


def page(found: Sequence[Outcome]) -> str:
    """The tables."""
    return f"{_shares(found)}\n{_reasons(found)}\n{_lengths(found)}"


def _table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(map(str, line))} |\n" for line in lines)


def _groups(found: Sequence[Outcome]) -> dict[str, list[Outcome]]:
    groups: dict[str, list[Outcome]] = {}
    for one in found:
        if one.what != NOT_LOADED:
            groups.setdefault(one.group, []).append(one)
    return groups


def _shares(found: Sequence[Outcome]) -> str:
    rows = []
    for group, members in _groups(found).items():
        counts = Counter(one.what for one in members)
        share = f"{100 * counts[WRITTEN] / len(members):.1f} %"
        rows.append(
            [group, len(members), *(counts[w] for w in (WRITTEN, REFUSED, DIFFERENT)), share]
        )
    return _table(["models", "load", WRITTEN, REFUSED, DIFFERENT, "share"], rows)


def reason(why: str) -> str:
    """An error without names of values and nodes."""
    kinds = {
        "inputs must be tensors": "an input is a string, a sequence, a map or absent",
        "decision by data": "a kernel decides by data",
        "data-dependent": "a kernel decides by data",
    }
    return next((words for part, words in kinds.items() if part in why), why[:100])


def _reasons(found: Sequence[Outcome]) -> str:
    reasons: dict[str, list[str]] = {}
    for one in found:
        if one.what in (REFUSED, DIFFERENT):
            reasons.setdefault(f"{one.what}: {reason(one.why)}", []).append(one.name)
    rows = []
    for why, names in sorted(reasons.items(), key=lambda pair: -len(pair[1])):
        rest = f" and {len(names) - MAX_LISTED} more" if len(names) > MAX_LISTED else ""
        rows.append([why.replace("|", "/"), len(names), ", ".join(names[:MAX_LISTED]) + rest])
    return _table(["reason", "models", "which"], rows)


def _lengths(found: Sequence[Outcome]) -> str:
    """Lines a node of whole networks."""
    rows = []
    for one in found:
        if one.what == WRITTEN and one.group in ("exports", "zoo"):
            ratios = (one.n_lines / one.n_nodes, (one.n_lines - HEAD_LINES) / one.n_nodes)
            rows.append([one.name, one.n_nodes, one.n_lines, *(f"{r:.2f}" for r in ratios)])
    return _table(["model", "nodes", "lines", "lines a node", "without the fixed head"], rows)


def main() -> None:
    """Write all models, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help='models whose "group/name" contains this')
    parser.add_argument("--page", action="store_true", help="put the tables into the page")
    options = parser.parse_args()
    chosen = (s for s in subjects() if options.only in f"{s.group}/{s.name}")
    with torch.no_grad():
        tables = page([*outcomes(chosen)])
    print(tables)
    if options.page:
        before, rest = PAGE.read_text().split(BEGIN)
        PAGE.write_text(f"{before}{BEGIN}\n{tables}\n{END}{rest.split(END)[1]}")


if __name__ == "__main__":
    main()
