"""Whole little models of ai.onnx.ml, and what no oracle says of its operators."""
