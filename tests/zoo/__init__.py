"""Whole models, run here and in onnxruntime: a manifest, what gets the files, and the runner."""
