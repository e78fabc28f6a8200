"""Files that a session of onnxruntime saves: its graph after optimization."""

from __future__ import annotations

from pathlib import Path

import onnxruntime
from onnxruntime import GraphOptimizationLevel

from tests.deployed import dynamic, static
from tests.deployed.files import Deployed, original
from tests.deployed.networks import CLASSIFIER, DETECTOR, TAGGER
from tests.deployed.pretrained import BERT, GPT2, VIT
from tests.exports.case import Case

LEVELS = {
    "basic": GraphOptimizationLevel.ORT_ENABLE_BASIC,
    "extended": GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    "layout": GraphOptimizationLevel.ORT_ENABLE_LAYOUT,
    "all": GraphOptimizationLevel.ORT_ENABLE_ALL,
}


def save(source: Path, path: Path, level: str) -> None:
    """Open a session on a file, which saves what it would run."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = LEVELS[level]
    options.optimized_model_filepath = str(path)
    options.log_severity_level = 3  # it warns that the file is for machines like this one
    onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])


def saved(case: Case, level: str) -> Deployed:
    def write(path: Path) -> None:
        save(original(case), path, level)

    return Deployed(
        f"saved_{case.name}_{level}",
        "optimized_model_filepath",
        level.upper(),
        case,
        write,
        __name__,
    )


def saved_quantized(file: Deployed, level: str) -> Deployed:
    def write(path: Path) -> None:
        save(file.path(), path, level)

    return Deployed(
        f"saved_{file.name}_{level}",
        "optimized_model_filepath",
        f"{level.upper()}, of {file.name}",
        file.original,
        write,
        __name__,
        seed=file.seed,
    )


def _of(files: tuple[Deployed, ...], *names: str) -> list[Deployed]:
    return [file for name in names for file in files if file.name == name]


QUANTIZED = [
    *_of(
        static.FILES,
        "static_qdq_u8u8",
        "static_qdq_per_channel",
        "static_qdq_decoder",
        "static_qdq_detector",
        "static_qoperator_u8u8",
        "static_qoperator_u8s8",
        "static_qdq_s16s8",
    ),
    *_of(dynamic.FILES, "dynamic_matmul_u8", "dynamic_matmul_s8", "dynamic_bert_attention"),
]
FILES = (
    *(saved(case, level) for case in (CLASSIFIER, DETECTOR, BERT) for level in LEVELS),
    *(saved(case, level) for case in (TAGGER, GPT2) for level in ("extended", "all")),
    saved(VIT, "extended"),
    *(saved_quantized(file, level) for file in QUANTIZED for level in ("extended", "all")),
)
