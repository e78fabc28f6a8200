"""Run mypy and pyright at the same time, on the packages that pyproject.toml names."""

from __future__ import annotations

import subprocess
import sys

COMMANDS = (["mypy"], ["pyright", "--pythonpath", sys.executable])


def main() -> int:
    """Print what each says, one after the other; return 1 where one of them fails."""
    running = [
        subprocess.Popen(
            [sys.executable, "-m", *command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        for command in COMMANDS
    ]
    for command, process in zip(COMMANDS, running, strict=True):
        said, _ = process.communicate()
        print(f"{command[0]}: {said.decode(errors='replace').strip()}", flush=True)
    return int(any(process.returncode for process in running))


if __name__ == "__main__":
    sys.exit(main())
