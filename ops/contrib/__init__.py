"""The operators that onnxruntime adds to ONNX's, one file per family.

Its optimizers and quantizers write them into deployed files. Where the documentation
(ContribOperators.md of onnxruntime) and the kernels of its CPU provider disagree, we follow the
kernels, since files were made to run there; the docstring of our kernel says so.
"""

import importlib
import pkgutil

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")
