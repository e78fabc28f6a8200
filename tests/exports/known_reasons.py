"""Why torch's tools fail: a pattern of the message, what it means, and where torch says so."""

from __future__ import annotations

import re
from typing import NamedTuple


class Reason(NamedTuple):
    """A limit of a tool.

    Attributes:
        pattern: regular expression that is found in the message.
        words: what it means.
        link: where its makers write of it; "" where no such place is known.
    """

    pattern: str
    words: str
    link: str = ""


REASONS: tuple[Reason, ...] = ()


def reason_for(message: str) -> Reason | None:
    """The first reason whose pattern a message has."""
    return next((r for r in REASONS if re.search(r.pattern, message)), None)
