"""The table of SECURITY.md, from what a run found.

python -m pytest tests/untrusted/files --write-security
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.untrusted.files.collection import FAMILIES
from tests.untrusted.files.judging import COLUMNS, Verdict

PAGE = Path(__file__).parents[3] / "SECURITY.md"
BEGIN, END = "<!-- begin of the table -->\n", "<!-- end of the table -->\n"

TITLES = {
    "damaged": "damaged bytes",
    "tensors": "inconsistent tensors",
    "external": "external data",
    "graphs": "ill-formed graphs",
    "attributes": "attributes",
    "names": "names",
    "depth": "depth",
    "indices": "indices",
    "arithmetic": "numeric limits",
    "bombs": "bombs",
    "loops": "loops",
    "legal": "unusual but valid",
}


def table(tried: Mapping[str, Sequence[Verdict]]) -> str:
    """The table, a line for each class, and the sums."""
    rows = {group: Counter(v.column for v in tried.get(group, ())) for group in FAMILIES}
    head = ["class", "cases", *COLUMNS]
    lines = [head, ["---", *["---:"] * (len(head) - 1)]]
    for group, counts in rows.items():
        lines.append(_line(TITLES[group], counts))
    lines.append(_line("**all**", sum(rows.values(), Counter())))
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _line(title: str, counts: Counter[str]) -> list[str]:
    return [title, str(counts.total()), *(str(counts[column]) for column in COLUMNS)]


def written() -> str:
    """The table as the page has it."""
    return PAGE.read_text(encoding="utf-8").partition(BEGIN)[2].partition(END)[0]


def cells(text: str) -> dict[str, list[int]]:
    """Class -> the numbers of its line."""
    found = re.findall(r"^\| ([^|]+) \|((?: \d+ \|)+)$", text, re.MULTILINE)
    return {title: [int(n) for n in re.findall(r"\d+", numbers)] for title, numbers in found}


def write(tried: Mapping[str, Sequence[Verdict]]) -> None:
    """Put the table into the page.

    Raises:
        ValueError: not all classes were tried.
    """
    if missing := FAMILIES.keys() - tried.keys():
        raise ValueError(f"the table needs a whole run; not tried: {', '.join(sorted(missing))}")
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    after = rest.partition(END)[2]
    PAGE.write_text(before + BEGIN + table(tried) + END + after, encoding="utf-8")
