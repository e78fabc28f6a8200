"""The kernels, one file per operator family. Importing this package fills the dispatch table.

To add an operator: find its family, write the kernel below its relatives with `@op`, and its sample
with `@sample`. docs/adding-an-operator.md shows one from end to end.
"""

import importlib
import pkgutil

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")
