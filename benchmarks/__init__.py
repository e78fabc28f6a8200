"""Benchmarks: time compared with torch and onnxruntime, import time, memory."""
