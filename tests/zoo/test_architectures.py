"""The seeded architectures are the nets they stand for, and their signals stay alive.

The onnx package ships six of the zoo's files without their weights, as light models. The graphs
built here are held against them node by node.
"""

from __future__ import annotations

from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from tests.zoo import reference
from tests.zoo.manifest import LIGHT_FOLDER, Model, built, manifest

TWINS = {  # seeded -> light
    "bvlcalexnet-9": "light_bvlc_alexnet",
    "inception-v1-9": "light_inception_v1",
    "inception-v2-9": "light_inception_v2",
    "vgg19-caffe2-9": "light_vgg19",
    "zfnet512-9": "light_zfnet512",
}
SEEDED = [m for m in manifest() if m.origin == "seeded"]
SIGNALS = ("Conv", "Gemm")

# Published counts of trainable parameters; those of a twin are compared with the light model.
# R-CNN: CaffeNet's count less 800 classes of 4096 weights and a bias. yolov5s: after fusing, and 18
# numbers of its anchors.
PARAMETERS = {
    "resnet50-v2-7": 25_549_486,
    "mobilenetv2-7": 3_504_872,
    "mobilenetv2-1.0": 3_504_960,
    "bvlcalexnet-9": 60_965_224,
    "googlenet-9": 6_998_552,
    "squeezenet1.1-7": 1_235_496,
    "shufflenet-v2-10": 2_278_604,
    "inception-v1-9": 6_998_552,
    "vgg19-caffe2-9": 143_667_240,
    "rcnn-ilsvrc13-9": 60_965_224 - 800 * 4097,
    "yolov5s": 7_225_885 + 18,
}


def layers(model: onnx.ModelProto) -> list[tuple[Any, ...]]:
    """Operator, attributes and weight shapes of each node but those that make constants."""
    shapes = {i.name: tuple(i.dims) for i in model.graph.initializer}
    values = {i.name: i for i in model.graph.initializer}
    table = []
    for node in model.graph.node:
        if node.op_type == "ConstantOfShape":  # how the light models leave their weights out
            shapes[node.output[0]] = tuple(numpy_helper.to_array(values[node.input[0]]).tolist())
            continue
        attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        rounded = {k: round(v, 6) if isinstance(v, float) else v for k, v in attributes.items()}
        read = tuple(shapes[name] for name in node.input if name in shapes)
        table.append((node.op_type, sorted(rounded.items()), read))
    return table


@pytest.mark.parametrize("seeded", TWINS)
def test_layers_are_those_of_the_light_model(seeded: str) -> None:
    ours = onnx.load(built(seeded))
    light = onnx.load(LIGHT_FOLDER / f"{TWINS[seeded]}.onnx")
    assert layers(ours) == layers(light)
    assert (ours.ir_version, ours.opset_import) == (light.ir_version, light.opset_import)


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameters_are_as_many_as_published(name: str) -> None:
    graph = onnx.load(built(name)).graph
    norms = [node for node in graph.node if node.op_type == "BatchNormalization"]
    statistics = {name for node in norms for name in node.input[3:]}
    counted = [i for i in graph.initializer if i.data_type == onnx.TensorProto.FLOAT]
    assert sum(prod(i.dims) for i in counted if i.name not in statistics) == PARAMETERS[name]


@pytest.mark.parametrize("model", SEEDED, ids=lambda m: m.name)
def test_file_declares_the_opset_of_the_manifest(model: Model) -> None:
    imports = onnx.load(built(model.name)).opset_import
    assert {o.domain or "ai.onnx": o.version for o in imports} == model.opsets


@pytest.mark.parametrize("model", SEEDED, ids=lambda m: m.name)
def test_signals_keep_their_size_through_the_depth(model: Model, tmp_path: Path) -> None:
    proto = onnx.load(built(model.name))
    signals = [n.output[0] for n in proto.graph.node if n.op_type in SIGNALS]
    declared = {o.name for o in proto.graph.output}
    new = [onnx.ValueInfoProto(name=name) for name in signals if name not in declared]
    proto.graph.output.extend(new)
    path = tmp_path / "signals.onnx"
    onnx.save(proto, path)
    values = reference.session(path).run(signals, next(model.inputs()))
    deviations = [float(np.std(np.asarray(value))) for value in values]
    assert min(deviations) > 0.3
    assert max(deviations) < 6


@pytest.mark.parametrize("model", SEEDED, ids=lambda m: m.name)
def test_outputs_tell_inputs_apart(model: Model) -> None:
    opened = reference.session(built(model.name))
    first, second = (outputs[0][0] for outputs in reference.answers(opened, list(model.inputs())))
    assert first.std() / np.abs(first).mean() > 0.1
    rows = min(len(first), len(second))  # yolov5s has as many rows as the image has cells
    apart = np.linalg.norm(first[:rows] - second[:rows]) / np.linalg.norm(first[:rows])
    assert apart > 0.05
