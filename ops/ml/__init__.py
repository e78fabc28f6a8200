"""The domain ai.onnx.ml: models of classical machine learning, one file per family."""

import importlib
import pkgutil

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")
