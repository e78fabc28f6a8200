"""Files as tools of the onnxruntime family write them, and what onnxruntime answers to them."""
