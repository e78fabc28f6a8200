"""Files that no torch module was exported to: an int8 network, and a forest of decision trees."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from torch import Tensor, nn

from tests.exports.case import Case, Export, Input, floats
from tests.exports.exporting import export
from tests.ml import forests

CALIBRATIONS = 4
TREES, DEPTH, CLASSES = 10, 5, 3


class Classifier(nn.Sequential):
    """[batch, 3, 16, 16] -> [batch, 10]."""

    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(3, 8, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(8, 16, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(16, 10),
        )


CLASSIFIER = Case(
    name="classifier",
    network=Classifier,
    inputs=(Input("image", ("batch", 3, 16, 16), floats),),
    outputs=("scores",),
    sizes=({"batch": 2}, {"batch": 3}, {"batch": 5}),
    edges=({"batch": 1},),
    torchscript=(17,),
    dynamo=(18,),
)


class Calibration(CalibrationDataReader):  # type: ignore[misc]  # untyped in onnxruntime
    """A few batches of the network's inputs."""

    def __init__(self, case: Case) -> None:
        self._batches = self._all(case)

    @staticmethod
    def _all(case: Case) -> Iterator[dict[str, Any]]:
        for seed in range(CALIBRATIONS):
            values: tuple[Tensor, ...] = case.arguments(case.sizes[0], seed)
            yield {i.name: v.numpy() for i, v in zip(case.inputs, values, strict=True)}

    def get_next(self) -> dict[str, Any] | None:
        """The next batch, or None."""
        return next(self._batches, None)


def write_quantized(path: Path) -> None:
    """The classifier with QuantizeLinear and DequantizeLinear around each layer."""
    quantize_static(
        export(CLASSIFIER, Export("torchscript", 17)),
        path,
        Calibration(CLASSIFIER),
        quant_format=QuantFormat.QDQ,
        activation_type=QuantType.QInt8,
        weight_type=QuantType.QInt8,
        per_channel=True,
    )


def write_forest(path: Path) -> None:
    """A regressor of scikit-learn's kind, in one operator of ai.onnx.ml."""
    grown = forests.listed(TREES, DEPTH, CLASSES, "target")
    onnx.save(forests.model("TreeEnsembleRegressor", 3, n_targets=CLASSES, **grown), path)
