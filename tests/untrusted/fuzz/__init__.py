"""Whole random graphs and broken files: docs/fuzzing.md.

children.py     work in a process that may die or hang
drafting.py     a random valid graph, node by node; regions.py puts parts of it into If, Loop, ...
judging.py      a graph against onnxruntime: the node that differs, or the engine
fields.py       what may happen to a message, edits.py to a model; mutation.py makes a broken file
victim.py       loads and runs one broken file; campaign.py does so a million times
"""
