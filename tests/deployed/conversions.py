"""Files of onnxruntime's smaller tools: float16, inferred shapes, preparation, an exporter."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
from onnxruntime.transformers.float16 import convert_float_to_float16

from tests.deployed.files import Deployed, export, original
from tests.deployed.judging import HALF
from tests.deployed.networks import ALGEBRA, CLASSIFIER, DECODER, DETECTOR, TAGGER
from tests.deployed.pretrained import BERT
from tests.exports.case import Case


def half(case: Case, **options: Any) -> Deployed:
    def write(path: Path) -> None:
        onnx.save(convert_float_to_float16(onnx.load(original(case)), **options), path)

    words = ", ".join(f"{k}={v}" for k, v in options.items())
    name = "_".join([case.name, *options])
    return Deployed(
        f"half_{name}", "convert_float_to_float16", words, case, write, __name__, tolerance=HALF
    )


def symbolic(case: Case) -> Deployed:
    def write(path: Path) -> None:
        from onnxruntime.tools.symbolic_shape_infer import SymbolicShapeInference  # and sympy

        model = SymbolicShapeInference.infer_shapes(onnx.load(original(case)), auto_merge=True)
        onnx.save(model, path)

    return Deployed(
        f"symbolic_{case.name}", "symbolic_shape_infer", "auto_merge", case, write, __name__
    )


def prepared(case: Case) -> Deployed:
    def write(path: Path) -> None:
        from onnxruntime.quantization.shape_inference import quant_pre_process  # and sympy

        quant_pre_process(str(original(case)), str(path), auto_merge=True)

    return Deployed(
        f"prepared_{case.name}", "quant_pre_process", "auto_merge", case, write, __name__
    )


def asked_for_contrib(path: Path) -> None:
    """Export with onnxruntime's operators for what ONNX has no operator for at this opset."""
    from onnxruntime.tools import pytorch_export_contrib_ops as contrib  # and torch's exporters

    contrib.register()
    try:
        export(ALGEBRA, path)
    finally:
        contrib.unregister()


FILES = (
    Deployed(
        "exported_contrib",
        "pytorch_export_contrib_ops",
        "opset 13",
        ALGEBRA,
        asked_for_contrib,
        __name__,
    ),
    half(CLASSIFIER),
    half(CLASSIFIER, keep_io_types=True),
    half(DECODER, op_block_list=["LayerNormalization"]),
    half(BERT),
    half(TAGGER, keep_io_types=True),
    symbolic(BERT),
    symbolic(DETECTOR),
    prepared(CLASSIFIER),
    prepared(BERT),
)
