"""Files of `quantize_static`: QuantizeLinear with DequantizeLinear, or QLinear operators."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_static,
)

from tests.deployed.files import Deployed, Feeds, calibration, original
from tests.deployed.networks import CLASSIFIER, DECODER, DETECTOR
from tests.exports.case import Case

U8, S8, U16, S16 = QuantType.QUInt8, QuantType.QInt8, QuantType.QUInt16, QuantType.QInt16
U4, S4, F8 = QuantType.QUInt4, QuantType.QInt4, QuantType.QFLOAT8E4M3FN
NAMES = {U8: "uint8", S8: "int8", U16: "uint16", S16: "int16", U4: "uint4", S4: "int4", F8: "f8"}


class Calibration(CalibrationDataReader):
    def __init__(self, case: Case) -> None:
        self.rest = iter(calibration(case))

    def get_next(self) -> Feeds | None:
        return next(self.rest, None)


def static(
    name: str,
    case: Case,
    form: QuantFormat,
    activations: QuantType,
    weights: QuantType,
    extra: dict[str, Any] | None = None,
    seed: int = 0,
    reduced: bool | None = None,
    **options: Any,
) -> Deployed:
    """Return a file of quantize_static.

    Where activations are uint8 and weights int8 the weights get 7 bits: onnxruntime's products of
    the two saturate on a processor without VNNI. Its optimizer makes such products of int8 x int8,
    so that a file that a session saves has to be `reduced`, too.
    """
    if reduced is None:
        reduced = (activations, weights) == (U8, S8)

    def write(path: Path) -> None:
        quantize_static(
            original(case),
            path,
            Calibration(case),
            quant_format=form,
            activation_type=activations,
            weight_type=weights,
            reduce_range=reduced,
            extra_options=extra or {},
            **options,
        )

    said = {**options, **(extra or {}), **({"reduce_range": True} if reduced else {})}
    words = ", ".join(f"{k}={getattr(v, 'name', v)}" for k, v in said.items())
    kinds = f"{form.name}, {NAMES[activations]} x {NAMES[weights]}"
    return Deployed(
        f"static_{form.name.lower()}_{name}",
        "quantize_static",
        f"{kinds}, {words}" if words else kinds,
        case,
        write,
        __name__,
        no_ties=activations in (U8, S8),
        seed=seed,
    )


QDQ, QOPERATOR = QuantFormat.QDQ, QuantFormat.QOperator
FILES = (
    static("u8u8", CLASSIFIER, QDQ, U8, U8),
    static("u8s8", CLASSIFIER, QDQ, U8, S8),
    static("s8s8", CLASSIFIER, QDQ, S8, S8, seed=4),
    static("per_channel", CLASSIFIER, QDQ, S8, S8, reduced=True, per_channel=True, seed=2),
    static("symmetric", CLASSIFIER, QDQ, S8, S8, {"ActivationSymmetric": True}),
    static("asymmetric_weights", CLASSIFIER, QDQ, U8, U8, {"WeightSymmetric": False}),
    static("restricted", CLASSIFIER, QDQ, U8, U8, {"ActivationRestrictedAsymmetric": True}, seed=1),
    static("s16s8", CLASSIFIER, QDQ, S16, S8),
    static("u16u8", CLASSIFIER, QDQ, U16, U8),
    static("s16s16", CLASSIFIER, QDQ, S16, S16),
    static("u8s4", CLASSIFIER, QDQ, U8, S4),
    static("u8u4", CLASSIFIER, QDQ, U8, U4, per_channel=True),
    static("contrib", CLASSIFIER, QDQ, U8, U8, {"UseQDQContribOps": True}),
    static("contrib_s16", CLASSIFIER, QDQ, S16, S8, {"UseQDQContribOps": True}, per_channel=True),
    static("contrib_u16u16", CLASSIFIER, QDQ, U16, U16, {"UseQDQContribOps": True}),
    static("contrib_u8s4", CLASSIFIER, QDQ, U8, S4, {"UseQDQContribOps": True}),
    static("contrib_u8u4", CLASSIFIER, QDQ, U8, U4, {"UseQDQContribOps": True}),
    static("dedicated", CLASSIFIER, QDQ, U8, U8, {"DedicatedQDQPair": True}),
    static("weights_with_pairs", CLASSIFIER, QDQ, U8, U8, {"AddQDQPairToWeight": True}),
    static("float_bias", CLASSIFIER, QDQ, U8, U8, {"QuantizeBias": False}),
    static("removable_kept", CLASSIFIER, QDQ, U8, U8, {"QDQKeepRemovableActivations": True}),
    static(
        "f8",
        DECODER,
        QDQ,
        F8,
        F8,
        calibrate_method=CalibrationMethod.Distribution,
        op_types_to_quantize=["MatMul"],
    ),
    static("detector", DETECTOR, QDQ, U8, U8, seed=23),
    static("decoder", DECODER, QDQ, U8, U8, seed=5),
    static(
        "decoder_per_channel", DECODER, QDQ, S8, S8, {"MatMulConstBOnly": True}, per_channel=True
    ),
    static("u8u8", CLASSIFIER, QOPERATOR, U8, U8),
    static("u8s8", CLASSIFIER, QOPERATOR, U8, S8),
    static("s8s8", CLASSIFIER, QOPERATOR, S8, S8),
    static("per_channel", CLASSIFIER, QOPERATOR, U8, S8, per_channel=True),
    static("symmetric", CLASSIFIER, QOPERATOR, S8, S8, {"ActivationSymmetric": True}),
    static(
        "percentile", CLASSIFIER, QOPERATOR, U8, U8, calibrate_method=CalibrationMethod.Percentile
    ),
    static("detector", DETECTOR, QOPERATOR, U8, U8),
    static("decoder", DECODER, QOPERATOR, U8, U8),
    static("decoder_s8s8", DECODER, QOPERATOR, S8, S8, per_channel=True),
)
