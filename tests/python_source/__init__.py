"""Modules as Python source: what is written, and that it computes the same."""
