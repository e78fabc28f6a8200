"""The rows of docs/capture.md: files, the torch modules they came from, and what they are fed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim

from tests.exporting import cached
from tests.exports.case import Case
from tests.exports.exporting import export
from tests.exports.modules import CASES
from tests.exports.modules.detector import DETECTOR
from tests.exports.modules.diffusion import DIFFUSION
from tests.exports.modules.files import CLASSIFIER, write_forest, write_quantized
from tests.exports.modules.gate import GATE
from tests.ml.forests import FEATURES
from tests.zoo.inputs import make_inputs
from tests.zoo.manifest import manifest

EXAMPLE, OTHER = 0, 1
"""The sizes a model is captured at, and those it must serve where its sizes are free."""

Inputs = tuple[Tensor, ...]


@dataclass(frozen=True)
class Row:
    """A model of the report.

    Attributes:
        name: unique.
        words: what it is.
        path: makes or finds its file.
        inputs: of one call, by size (EXAMPLE or OTHER) and seed.
        original: the torch module that was exported; None where there is none.
        inductor: whether "compile" runs the whole of inductor, not its capture alone.
        trains: whether it has parameters.
        is_large: whether it takes long.
    """

    name: str
    words: str
    path: Callable[[], Path]
    inputs: Callable[[int, int], Inputs]
    original: Callable[[], nn.Module] | None = None
    inductor: bool = False
    trains: bool = True
    is_large: bool = False

    @property
    def dynamic_shapes(self) -> tuple[dict[int, Any], ...]:
        """The argument of torch.export.export: what differs between the two sizes is free."""
        pairs = zip(self.inputs(EXAMPLE, 0), self.inputs(OTHER, 0), strict=True)
        return tuple(
            {
                axis: Dim.DYNAMIC
                for axis, (a, b) in enumerate(zip(one.shape, two.shape, strict=True))
                if a != b
            }
            for one, two in pairs
        )

    @property
    def is_dynamic(self) -> bool:
        """Whether any size is free."""
        return any(self.dynamic_shapes)


def _of_case(case: Case, words: str, inductor: bool = False) -> Row:
    return Row(
        case.name,
        words,
        lambda: export(case, case.exports()[-1]),
        lambda size, seed: case.arguments(case.sizes[size], seed),
        case.module,
        inductor,
    )


def _of_manifest(name: str, words: str, example: int, **other: tuple[int, ...]) -> Row:
    """A model of the zoo: a case of its manifest, and the shapes of some inputs at OTHER."""
    model = next(m for m in manifest() if m.name == name)

    def inputs(size: int, seed: int) -> Inputs:
        case = model.cases[example]
        if size == OTHER:
            shapes: Mapping[str, Any] = {k: list(v) for k, v in other.items()}
            case = {k: {**v, "shape": shapes.get(k, v["shape"])} for k, v in case.items()}
        return tuple(torch.from_numpy(a) for a in make_inputs(case, seed).values())

    return Row(name, words, model.file, inputs, is_large=True)


def _digits() -> Row:
    return Row(
        "digits",
        "the classifier that the package contains",
        lambda: Path(str(files("onnxinterp") / "data" / "digits.onnx")),
        lambda size, seed: (
            torch.rand(2 + size, 1, 8, 8, generator=torch.Generator().manual_seed(seed)),
        ),
        inductor=True,
    )


def _written(
    name: str, words: str, write: Callable[[Path], None], inputs: Any, trains: bool = True
) -> Row:
    def path() -> Path:
        return cached(f"capture-{name}", lambda folder: write(folder / "m.onnx")) / "m.onnx"

    return Row(name, words, path, inputs, trains=trains)


def _table(size: int, seed: int) -> Inputs:
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(2 + size, FEATURES, generator=generator),)


WORDS = {
    "encoder": "BERT-like encoder with a padding mask",
    "decoder": "GPT-like decoder with its cache",
    "sequence_to_sequence": "encoder and decoder with cross attention",
    "speech": "Conformer-like speech encoder",
    "segmentation": "U-Net-like segmentation",
    "tagger": "bidirectional LSTM tagger",
}

ROWS = (
    *(_of_case(case, WORDS[case.name]) for case in CASES),
    _of_case(DETECTOR, "detector with non-maximum suppression"),
    _of_case(GATE, "Silero-like voice detector with If"),
    _of_case(DIFFUSION, "block of a denoising U-Net", inductor=True),
    _digits(),
    _written(
        "int8",
        "int8 classifier of onnxruntime's quantizer (QDQ)",
        write_quantized,
        lambda size, seed: CLASSIFIER.arguments(CLASSIFIER.sizes[size], seed),
        trains=False,
    ),
    _written("forest", "tree ensemble of ai.onnx.ml", write_forest, _table, trains=False),
    _of_manifest("light_squeezenet", "light model of the onnx package", 1),
    _of_manifest("light_shufflenet", "light model of the onnx package", 1),
    _of_manifest("light_resnet50", "light model of the onnx package", 1),
    _of_manifest("mobilenetv2-1.0", "classifier of MXNet", 1, data=(3, 3, 224, 224)),
    _of_manifest("yolov5s", "YOLOv5 detector without suppression", 1, images=(3, 3, 320, 256)),
    _of_manifest(
        "silero_vad_16k_op15", "Silero VAD", 1, input=(4, 576), state=(2, 4, 128)
    ),
    _of_manifest(
        "silero_vad", "Silero VAD for two rates, with If", 1, input=(4, 576), state=(2, 4, 128)
    ),
    _of_manifest("rapidocr_cls_v2", "PaddleOCR text direction", 1, x=(4, 3, 48, 192)),
    _of_manifest("dnsmos_sig_bak_ovr", "DNSMOS, of TensorFlow", 1, input_1=(3, 144160)),
    _of_manifest("magika_v3_3", "Magika file types, of JAX", 1, bytes=(3, 2048)),
    _of_manifest("basic_pitch_nmp", "Basic Pitch, of TensorFlow", 1,
                 **{"serving_default_input_2:0": (3, 43844, 1)}),
)  # fmt: skip
BY_NAME = {row.name: row for row in ROWS}
