"""The networks that files are made of: an export depends on all of these modules."""

from __future__ import annotations

from tests.deployed import networks, older, pretrained
from tests.exports.case import Case

ORIGINALS = tuple(
    found
    for module in (networks, older, pretrained)
    for found in vars(module).values()
    if isinstance(found, Case)
)
