"""The domain ai.onnx.ml: what classical machine learning puts around and in place of networks."""

from onnxinterp.ops.ml import encoders, features, maps, scaling

__all__ = ["encoders", "features", "maps", "scaling"]
