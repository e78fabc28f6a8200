"""Text generation in one node: onnxruntime's search operators run a decoder subgraph in a loop."""
