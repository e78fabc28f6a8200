"""The domain ai.onnx.ml: what classical machine learning exports, one file per family."""

import importlib
import pkgutil

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")
