"""Optional packages: imported when they are used, with a clear message if one is missing."""

from __future__ import annotations

import importlib
from typing import Any

from onnxinterp.errors import OnnxError


class MissingExtraError(OnnxError, ImportError):
    """Raised when a feature needs a package that is not installed; says how to install it."""


def require(package: str, extra: str) -> Any:
    """Import `package`, which the optional dependency group `extra` provides.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        return importlib.import_module(package)
    except ModuleNotFoundError as error:
        if error.name not in (package, package.partition(".")[0]):
            raise  # the package is installed, but broken: its own message says more
        message = f"this needs {package}: pip install onnxinterp[{extra}]"
        raise MissingExtraError(message) from error
