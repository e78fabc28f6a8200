"""The reader of known_failures.txt: `model | when | why | link`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

FILE = Path(__file__).with_name("known_failures.txt")
ALWAYS = "always"
BY_CHANCE = "by chance: "  # before the reason of what depends on the processor, too


@dataclass(frozen=True)
class KnownFailure:
    """A test of a model that is expected to fail, with the reason and where to read about it."""

    model: str
    when: str
    why: str
    link: str

    def covers(self, model: str, when: str) -> bool:
        return self.model == model and self.when in (ALWAYS, when)


def known_failures(text: str | None = None) -> tuple[KnownFailure, ...]:
    """Parse the file, or a text of its form."""
    lines = (FILE.read_text() if text is None else text).splitlines()
    entries = []
    for number, line in enumerate(lines, start=1):
        if not line.strip() or line.startswith("#"):
            continue
        fields = [field.strip() for field in line.split("|")]
        if len(fields) != 4 or not all(fields):
            raise ValueError(f"line {number} is not `model | when | why | link`: {line}")
        entries.append(KnownFailure(*fields))
    return tuple(entries)
