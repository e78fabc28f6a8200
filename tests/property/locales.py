"""The locale that onnxruntime's StringNormalizer asks for, made where the machine lacks it."""

from __future__ import annotations

import locale
import os
import shutil
import subprocess
from pathlib import Path

NAME = "en_US.UTF-8"
REMEDY = f"onnxruntime needs the locale {NAME}: apt-get install locales"


def provide(folder: Path) -> bool:
    """Whether the locale is there, after compiling it into `folder` if need be.

    The C library reads LOCPATH whenever a locale is asked for, so that nothing is installed and no
    special rights are needed; what is needed are the sources, Debian's package `locales`.
    """
    if is_there():
        return True
    if not (folder / NAME).exists() and (compiler := shutil.which("localedef")) is not None:
        made = folder / f"{os.getpid()}"
        subprocess.run([compiler, "-i", "en_US", "-f", "UTF-8", made], capture_output=True)
        if made.exists() and not (folder / NAME).exists():
            made.rename(folder / NAME)
    os.environ["LOCPATH"] = str(folder)
    return is_there()


def is_there() -> bool:
    """Whether the C library knows the locale."""
    before = locale.setlocale(locale.LC_CTYPE)
    try:
        locale.setlocale(locale.LC_CTYPE, NAME)
    except locale.Error:
        return False
    locale.setlocale(locale.LC_CTYPE, before)
    return True
