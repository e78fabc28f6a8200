"""`python -m benchmarks.zoo FOLDER [--cache CACHE] [--only a,b]`."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from benchmarks.zoo.make import make_models


def main() -> None:
    """Write the models into a folder."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.zoo")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--cache", help="folder for files of wheels (as ONNXINTERP_CACHE)")
    parser.add_argument("--only", default="", metavar="A,B", help="names of models")
    options = parser.parse_args()
    only = [name for name in options.only.split(",") if name]
    if options.cache:
        os.environ["ONNXINTERP_CACHE"] = options.cache
    make_models(options.folder, only)


if __name__ == "__main__":
    main()
