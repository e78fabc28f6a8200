"""Untrusted input: the promise of SECURITY.md.

files/      written by hand: each file is answered as expected or raises an OnnxError
calls/      calls into torch and nodes whose arguments torch does not survive
fuzz/       random graphs and broken files in large numbers (docs/fuzzing.md)
"""
