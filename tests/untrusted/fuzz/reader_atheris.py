"""The loader under atheris, which follows what code a file reaches: for a night, not for a test.

pip install atheris
python -m tests.untrusted.fuzz.reader_atheris FOLDER -max_total_time=3600

FOLDER collects the files that reach new code; the first run fills it with small models. The
arguments after it are libFuzzer's. The file that ends the run is written to FOLDER-found.
"""

from __future__ import annotations

import sys
from pathlib import Path

MISSING = (
    "atheris is not installed: `pip install atheris` (wheels for Linux and CPython 3.11 to 3.13)"
)


def main() -> None:
    """The command line."""
    try:
        import atheris
    except ImportError:
        sys.exit(MISSING)
    if len(sys.argv) < 2 or sys.argv[1].startswith("-"):
        sys.exit(f"name a folder for the files: {sys.argv[0]} FOLDER [libFuzzer's arguments]")
    with atheris.instrument_imports(include=["onnxinterp", "onnx"]):
        from tests.untrusted.fuzz import victim
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    if not any(folder.iterdir()):
        from tests.untrusted.fuzz.mutation import bases

        for index, base in enumerate(bases()):
            (folder / f"base-{index}").write_bytes(base.model)

    def one(data: bytes) -> None:
        outcome = victim.of_file(data)
        if outcome.kind == "raw":
            raise RuntimeError(outcome.what)

    found = folder.with_name(f"{folder.name}-found")
    found.mkdir(exist_ok=True)
    limits = [f"-artifact_prefix={found}/", "-timeout=10", "-rss_limit_mb=6000", "-max_len=65536"]
    atheris.Setup([sys.argv[0], *limits, *sys.argv[2:], str(folder)], one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
