"""Files with weights in few bits: MatMulNBitsQuantizer and MatMulBnb4Quantizer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
from onnxruntime.quantization import QuantFormat
from onnxruntime.quantization.matmul_bnb4_quantizer import MatMulBnb4Quantizer
from onnxruntime.quantization.matmul_nbits_quantizer import (
    DefaultWeightOnlyQuantConfig,
    HQQWeightOnlyQuantConfig,
    KQuantWeightOnlyQuantConfig,
    MatMulNBitsQuantizer,
    RTNWeightOnlyQuantConfig,
)

from tests.deployed.files import Deployed, original
from tests.deployed.judging import ACTIVATIONS_IN_INT8
from tests.deployed.networks import DECODER, EVEN_DECODER
from tests.exports.case import Case

BOTH = ("MatMul", "Gather")


def nbits(
    name: str,
    config: type[Any] = DefaultWeightOnlyQuantConfig,
    case: Case = DECODER,
    outer: dict[str, Any] | None = None,
    **options: Any,
) -> Deployed:
    """Return a file of MatMulNBitsQuantizer with an algorithm's configuration."""

    def write(path: Path) -> None:
        quantizer = MatMulNBitsQuantizer(
            onnx.load(original(case)), algo_config=config(**options), **(outer or {})
        )
        quantizer.process()
        quantizer.model.save_model_to_file(str(path))

    algorithm = config.__name__.removesuffix("WeightOnlyQuantConfig")
    said = {**options, **(outer or {})}
    tolerance = ACTIVATIONS_IN_INT8 if options.get("accuracy_level") == 4 else None
    words = ", ".join([algorithm, *(f"{k}={getattr(v, 'name', v)}" for k, v in said.items())])
    return Deployed(
        f"nbits_{name}", "MatMulNBitsQuantizer", words, case, write, __name__, tolerance=tolerance
    )


def bnb4(name: str, kind: int, block_size: int) -> Deployed:
    def write(path: Path) -> None:
        quantizer = MatMulBnb4Quantizer(onnx.load(original(DECODER)), kind, block_size)
        quantizer.process()
        quantizer.model.save_model_to_file(str(path))

    words = f"{'NF4' if kind else 'FP4'}, block_size={block_size}"
    return Deployed(f"bnb4_{name}", "MatMulBnb4Quantizer", words, DECODER, write, __name__)


HQQ, RTN, KQUANT = HQQWeightOnlyQuantConfig, RTNWeightOnlyQuantConfig, KQuantWeightOnlyQuantConfig
QDQ = QuantFormat.QDQ
FILES = (
    nbits("4_block_16", block_size=16),
    nbits("4_block_32", block_size=32),
    nbits("4_block_64", block_size=64),
    nbits("4_block_128", block_size=128),
    nbits("4_symmetric", block_size=32, is_symmetric=True),
    nbits("4_level_0", block_size=32, accuracy_level=0),
    nbits("4_level_1", block_size=32, accuracy_level=1),
    nbits("4_level_4", block_size=32, accuracy_level=4),
    nbits("4_gather", block_size=32, op_types_to_quantize=BOTH),
    nbits("4_gather_symmetric", block_size=16, is_symmetric=True, op_types_to_quantize=BOTH),
    nbits("4_gather_only", block_size=32, op_types_to_quantize=("Gather",)),
    nbits("4_channel_wise", block_size=32, channel_wised_quantize=True, quant_format=QDQ),
    nbits("8_block_32", bits=8, block_size=32),
    nbits("8_symmetric", bits=8, block_size=64, is_symmetric=True),
    nbits("8_level_4", bits=8, block_size=32, accuracy_level=4),
    nbits("8_gather", bits=8, block_size=32, op_types_to_quantize=BOTH),
    nbits("2_block_32", bits=2, block_size=32),
    nbits("2_symmetric", bits=2, block_size=64, is_symmetric=True),
    nbits("4_qdq", block_size=32, quant_format=QDQ),
    nbits("4_qdq_symmetric", block_size=16, is_symmetric=True, quant_format=QDQ),
    nbits("8_qdq", bits=8, block_size=32, quant_format=QDQ),
    nbits("hqq", HQQ, block_size=32),
    nbits("hqq_64", HQQ, block_size=64),
    nbits("rtn", RTN, EVEN_DECODER, outer={"block_size": 32}),
    nbits("rtn_8", RTN, EVEN_DECODER, outer={"block_size": 32, "bits": 8}),
    nbits("kquant", KQUANT, EVEN_DECODER, outer={"block_size": 32}),
    nbits(
        "kquant_mixed",
        KQUANT,
        EVEN_DECODER,
        outer={"block_size": 32},
        customized_weight_config={"/head/MatMul": {"bits": 8}, "/down/MatMul": {"bits": 8}},
    ),
    bnb4("nf4", MatMulBnb4Quantizer.NF4, 64),
    bnb4("nf4_block_16", MatMulBnb4Quantizer.NF4, 16),
    bnb4("fp4", MatMulBnb4Quantizer.FP4, 32),
)
