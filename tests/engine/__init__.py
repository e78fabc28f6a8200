"""The engine's own tests: models are written as ONNX text."""
