"""Write docs/quantized-models.md: what each tool writes, and how our answers compare.

python -m tests.deployed.report      needs onnxruntime-genai too; takes two minutes
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path

import onnx

from onnxinterp import OnnxModule
from tests import exporting
from tests.deployed import generated, judging
from tests.deployed.catalogue import FILES
from tests.deployed.files import Deployed
from tests.deployed.generated import Generated
from tests.zoo.comparison import Difference

PAGE = Path(__file__).parents[2] / "docs" / "quantized-models.md"
HEAD = Path(__file__).parent / "introduction.md"
PACKAGES = ("onnxruntime", "onnxruntime-genai", "transformers", "torch")
DOMAINS = {"com.microsoft": "", "com.microsoft.nchwc": "nchwc."}
STANDARD = {
    "ConvInteger",
    "DequantizeLinear",
    "DynamicQuantizeLinear",
    "MatMulInteger",
    "QLinearConv",
    "QLinearMatMul",
    "QuantizeLinear",
    "SimplifiedLayerNormalization",
}
"""Operators of the default domain that the tables name; the last one is not ONNX's."""


def page() -> str:
    versions = {
        p: version(p) for p in ("onnxruntime", "onnxruntime-genai", "transformers", "torch")
    }
    text = HEAD.read_text().format(
        half=judging.HALF, **{p.replace("-", "_"): v for p, v in versions.items()}
    )
    for tool in dict.fromkeys(file.tool for file in FILES):
        chosen = [file for file in FILES if file.tool == tool]
        text += section(f"`{tool}`", [row(file) for file in chosen])
    rows = [generated_row(file) for file in generated.FILES]
    return text + section("`onnxruntime_genai.models.builder`", rows)


def section(title: str, rows: list[str]) -> str:
    head = "| file | options | operators | compared with | difference | with noise |"
    return "\n".join([f"\n## {title}\n", head, "|---|---|---|---|---:|---:|", *rows, ""])


def row(file: Deployed) -> str:
    wanted = judging.reference(file)
    found = judging.difference(file, file.path(), wanted)
    _, noisy = judging.with_noise(file.path())
    noise = judging.difference(file, noisy, wanted)
    judge = "itself" if file.judge == "the file" else "the original"
    return cells(file.name, file.options, file.path(), judge, file.tolerance, found, noise)


def generated_row(file: Generated) -> str:
    path = file.path()
    wanted = generated.answers(path)
    found = generated.difference(OnnxModule(path), wanted)
    noise = generated.difference(OnnxModule(judging.with_noise(path)[1]), wanted)
    options = ", ".join([file.precision, *file.options])
    return cells(file.name, options, path, "itself", file.tolerance, found, noise)


def cells(
    name: str,
    options: str,
    path: Path,
    judge: str,
    tolerance: float | None,
    found: Difference,
    noise: Difference,
) -> str:
    if not judging.matches(found, tolerance):
        raise AssertionError(f"{name}: {found}")
    words = [name, options, ", ".join(operators(path)), judge, number(found), number(noise)]
    return f"| {' | '.join(words)} |"


def number(found: Difference) -> str:
    """Return the relative difference, or "other integers"."""
    return found.mismatch or (f"{found.relative:.0e}" if found.relative else "0")


def operators(path: Path) -> list[str]:
    """Return the operators that the tables name, each once."""
    model = onnx.load(path, load_external_data=False)
    return sorted({name for node in model.graph.node if (name := _named(node))}, key=str.lower)


def _named(node: onnx.NodeProto) -> str:
    if node.domain in DOMAINS:
        own = "com.microsoft " if node.op_type in STANDARD else ""
        return f"{own}{DOMAINS[node.domain]}{node.op_type}"
    return f"*{node.op_type}*" if node.op_type in STANDARD else ""


def names(files: Iterable[Deployed | Generated]) -> list[str]:
    return [file.name for file in files]


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        exporting.FOLDER = Path(folder)
        PAGE.write_text(page())
