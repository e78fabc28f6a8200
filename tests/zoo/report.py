"""Write docs/models.md from the results of the zoo tests.

python -m pytest tests/zoo --zoo-times && python -m tests.zoo.report
"""

from __future__ import annotations

import os
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tests.zoo import results
from tests.zoo.comparison import ATOL, MSE_LIMIT, RELATIVE_LIMIT, RTOL
from tests.zoo.known_failures import known_failures
from tests.zoo.manifest import Model, manifest
from tests.zoo.reference import THREADS

PAGE = Path(__file__).parents[2] / "docs" / "models.md"

INTRODUCTION = """\
# Whole models

Generated; do not edit:

```
python -m pytest tests/zoo --zoo-times && python -m tests.zoo.report
```

Every model runs in onnxinterp and in onnxruntime {onnxruntime} on the same seeded inputs, with
torch {torch}, Python {python} and {threads} threads each.

- It **matches** if for every input and output the mean squared error (MSE) is below {mse:.0e},
  every element is within rtol {rtol:.0e} and atol {atol:.0e}, and the relative error (norm of the
  difference divided by the norm of the reference) is below {relative:.0e}. The table shows the
  maximum of each.
- **noise** is the relative error with 10 % noise on one early weight. This is a negative control:
  the comparison must fail.
- **ours** and **ort** are milliseconds: medians of alternating runs of the first input, in `eval()`
  and without gradients. {load}
- **compile** is `torch.compile(fullgraph=True, dynamic=True)` with the `aot_eager` backend,
  **export** is `torch.export.export` with the symbolic dimensions of the file as dynamic
  dimensions. Both must match on every input.

**{matching} of {total} models match.**
"""

TABLE_HEAD = """\
| model | opset | MB | MSE | max abs | relative | noise | ours | ort | compile | export |
|---|---:|---:|---:|---:|---:|---:|---:|---:|---|---|
"""

SECTIONS = {
    "trained": """\
## Trained models

Models with trained weights, from packages on PyPI. The sha256 of every file is verified.
""",
    "seeded": """\
## Architectures with seeded weights

These graphs have the layers, names, opsets and IR versions of files in the ONNX model zoo. **They
are not the original files, and their weights are not trained**: weights are random with a fixed
seed and calibrated layer by layer, so that activations keep unit variance and outputs differ
between inputs. They test the arithmetic of an architecture, not the accuracy of a classifier.
""",
    "light": """\
## Light models of the onnx package

Full-size graphs whose large weights are constants created by ConstantOfShape nodes. **They prove
little**: all classes get the same probability for every input, so noise has no effect. They show
that graphs of this size load and run. Their outputs are also compared with those in the onnx
package.
""",
}


def page(measured: results.Results) -> str:
    """Return the page; a model without results is shown as not run."""
    matching = sum(measured.get(m.name, {}).get("outputs") == "passed" for m in manifest())
    text = INTRODUCTION.format(
        onnxruntime=version("onnxruntime"),
        torch=version("torch"),
        python=platform.python_version(),
        threads=THREADS,
        mse=MSE_LIMIT,
        rtol=RTOL,
        atol=ATOL,
        relative=RELATIVE_LIMIT,
        load=load(measured),
        matching=matching,
        total=len(manifest()),
    )
    for origin, words in SECTIONS.items():
        models = [m for m in manifest() if m.origin == origin]
        rows = [row(m, measured.get(m.name, {})) for m in models]
        text += f"\n{words}\n{TABLE_HEAD}{''.join(rows)}"
    return text + sources() + notes(measured)


def load(measured: results.Results) -> str:
    """Return the load of the machine: times on a busy one are unreliable."""
    loads = [m["load"] for m in measured.values() if "load" in m]
    if not loads:
        return "Not measured in the last run."
    return f"The load average was {min(loads):.1f} to {max(loads):.1f} on {os.cpu_count()} cores."


def row(model: Model, measured: dict[str, Any]) -> str:
    opset = ", ".join(f"{d.removeprefix('ai.onnx.')} {v}" for d, v in model.opsets.items())
    cells = [
        model.name,
        opset.removeprefix("ai.onnx "),
        number(measured.get("bytes", 0) / 1e6, ".1f"),
        *(number(measured.get(key), ".1e") for key in ("mse", "max_abs", "relative")),
        number(measured.get("control_relative"), ".1e"),
        *(number(measured.get(key), ".1f") for key in ("ours_ms", "onnxruntime_ms")),
        *(captured(model, measured.get(key)) for key in ("compile", "export")),
    ]
    return f"| {' | '.join(cells)} |\n"


def number(value: float | None, form: str) -> str:
    return format(value, form) if value else "0" if value == 0 else "–"  # noqa: RUF001 - a dash


def captured(model: Model, ended: str | None) -> str:
    if model.data_dependent:
        return "data"
    return {"passed": "yes", None: "–"}.get(ended, "no")  # noqa: RUF001 - a dash


def sources() -> str:
    """Return the table of sources of the trained models."""
    lines = [
        f"| {m.name} | {m.kind} | {m.package} {m.version} | {m.licence} |"
        for m in manifest()
        if m.package
    ]
    head = "| model | kind | package | licence |\n|---|---|---|---|\n"
    return "\n## Sources of the trained models\n\n" + head + "\n".join(lines) + "\n"


def notes(measured: results.Results) -> str:
    """Return expected failures, models that depend on data, and unexpected failures."""
    expected = [f"- {f.model} ({f.when}): {f.why}, [see]({f.link})" for f in known_failures()]
    dependent = [f"- {m.name}: {m.data_dependent}" for m in manifest() if m.data_dependent]
    failed = [
        f"- {m.name} ({when}): {ended}"
        for m in manifest()
        for when, ended in sorted(measured.get(m.name, {}).items())
        if str(ended).startswith(("failed", "skipped"))
        and not any(f.covers(m.name, when) for f in known_failures())
    ]
    parts = {
        "Expected failures": expected,
        "Not captured: branches or shapes depend on data": dependent,
        "Failures of the last run": failed,
    }
    sections = [f"\n## {title}\n\n" + "\n".join(ls) + "\n" for title, ls in parts.items() if ls]
    return "".join(sections)


if __name__ == "__main__":
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(page(results.load()))
