"""What `save_onnx` writes: the same bytes, but for the weights that changed."""
