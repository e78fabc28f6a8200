"""Checks of a parsed model before anything is built from it.

    validate            the one entry: everything below, before `graph.build`
        traversal       all graphs of the file, wherever they are
        structure       versions, functions, declared types, nodes
        names           which values a scope defines, and which it reads
        operators       inputs, outputs and attributes of the operator that a node calls
        expansion       how large a model is once its functions are inlined

    check_types         in `graph.typecheck`, after `graph.build`: the types of a node's inputs

Nothing here recurses: files may be nested as deep as they like, so stacks are lists. What comes
later may recurse: a model that is nested deeper than `Limits` allows is refused here.
"""

from __future__ import annotations

from onnxinterp.reading.validation.structure import validate

__all__ = ["validate"]
