"""All files, each with a name of its own."""

from __future__ import annotations

from tests.deployed import conversions, dynamic, optimized, sessions, static, weights

FILES = (
    *static.FILES,
    *dynamic.FILES,
    *weights.FILES,
    *optimized.FILES,
    *sessions.FILES,
    *conversions.FILES,
)
