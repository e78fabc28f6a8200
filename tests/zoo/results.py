"""What a run measured and how it ended, per model, kept as JSON for the report."""

from __future__ import annotations

import fcntl
import json
from pathlib import Path
from typing import Any

from tests.zoo import fetch

Results = dict[str, dict[str, Any]]  # model -> measure or test -> value


def results_file() -> Path:
    return fetch.cache_folder() / "zoo-results.json"


def load() -> Results:
    """The results of earlier runs; empty where there were none."""
    path = results_file()
    return json.loads(path.read_text()) if path.exists() else {}


def update(new: Results) -> None:
    """Add a run's results to those of earlier runs, measure by measure."""
    with results_file().with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # the processes of a run end at the same time
        merged = load()
        for model, measures in new.items():
            merged.setdefault(model, {}).update(measures)
        results_file().write_text(json.dumps(merged, indent=1, sort_keys=True))
