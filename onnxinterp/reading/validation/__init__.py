"""What a parsed file must be before anything is made of it.

    validate            the one entry: everything below, before `building`
        walking         all graphs, wherever they sit
        structure       the versions a file names, its functions, the types it declares
        names           who makes a value and who reads it, scope by scope
        operators       how often, and with what, an operator may be called
        opening         how much a model is once its functions are opened

    check_types         in `types`, after `building`: what goes into a node

Nothing here recurses: files nest as deep as they like, and stacks are lists. What comes after may
recurse, because nothing passes that nests deeper than `Limits` says.
"""

from __future__ import annotations

from onnxinterp.reading.validation.structure import validate

__all__ = ["validate"]
