"""Files of `quantize_dynamic`: weights in 8 bits, activations quantized in each call."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
from onnxruntime.quantization import QuantType, quantize_dynamic

from tests.deployed.files import Deployed, original
from tests.deployed.networks import CLASSIFIER, DECODER, TAGGER
from tests.deployed.older import GPT2_PAST
from tests.deployed.optimized import optimize
from tests.deployed.pretrained import BERT, GPT2
from tests.exports.case import Case

U8, S8 = QuantType.QUInt8, QuantType.QInt8
FLOAT = {"DefaultTensorType": onnx.TensorProto.FLOAT}
"""The tool does not know the element types behind operators of com.microsoft."""


def dynamic(
    name: str,
    case: Case,
    weights: QuantType,
    optimized: str = "",
    extra: dict[str, Any] | None = None,
    seed: int = 0,
    **options: Any,
) -> Deployed:
    """Return a file of quantize_dynamic, of the original or of the optimizer's file.

    Weights of int8 get 7 bits, and so do all weights of an LSTM: see `static`.
    """
    reduced = weights == S8 or case is TAGGER

    def write(path: Path) -> None:
        source = original(case)
        if optimized:
            source = path.with_name("optimized.onnx")
            optimize(original(case), source, optimized)
        quantize_dynamic(
            source,
            path,
            weight_type=weights,
            reduce_range=reduced,
            extra_options={**(extra or {}), **(FLOAT if optimized else {})},
            **options,
        )

    said = {**options, **(extra or {}), **({"reduce_range": True} if reduced else {})}
    words = [f"{k}={v}" for k, v in said.items()]
    first = f"after the optimizer ({optimized}), " if optimized else ""
    kinds = f"{first}weights {'int8' if weights == S8 else 'uint8'}"
    return Deployed(
        f"dynamic_{name}",
        "quantize_dynamic",
        ", ".join([kinds, *words]),
        case,
        write,
        __name__,
        no_ties=True,
        seed=seed,
    )


FILES = (
    dynamic("matmul_u8", DECODER, U8),
    dynamic("matmul_s8", DECODER, S8),
    dynamic("matmul_per_channel", DECODER, S8, per_channel=True),
    dynamic("matmul_asymmetric", DECODER, S8, extra={"WeightSymmetric": False}),
    dynamic("gather", DECODER, U8, op_types_to_quantize=["MatMul", "Gather"]),
    dynamic("conv", CLASSIFIER, U8, seed=4, op_types_to_quantize=["Conv", "Gemm", "MatMul"]),
    dynamic("lstm_u8", TAGGER, U8),
    dynamic("lstm_s8", TAGGER, S8),
    dynamic("lstm_per_channel", TAGGER, S8, per_channel=True),
    dynamic("bert", BERT, S8, seed=6),
    dynamic("bert_attention", BERT, S8, "bert", seed=1),
    dynamic("bert_attention_u8", BERT, U8, "bert"),
    dynamic("bert_attention_per_channel", BERT, S8, "bert", per_channel=True, seed=5),
    dynamic(
        "bert_embedding",
        BERT,
        U8,
        "bert",
        op_types_to_quantize=["EmbedLayerNormalization", "Attention", "MatMul"],
    ),
    dynamic("gpt2_past_attention", GPT2_PAST, S8, "gpt2"),
    dynamic("gpt2_attention", GPT2, S8, "gpt2", seed=16),
)
