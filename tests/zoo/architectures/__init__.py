"""Architectures of the ONNX model zoo, built as ONNX graphs with seeded weights.

The layer tables, names, opsets and IR versions are those of the files they stand for; the weights
are not: they are seeded and calibrated (see `builder`).
"""

from __future__ import annotations

from collections.abc import Callable

import onnx

from tests.zoo.architectures.alexnet import bvlc_alexnet, zfnet512
from tests.zoo.architectures.googlenet import googlenet, inception_v1
from tests.zoo.architectures.inception import inception_v2
from tests.zoo.architectures.mobilenet import mobilenet_v2_gluon, mobilenet_v2_torch
from tests.zoo.architectures.rcnn import rcnn_ilsvrc13
from tests.zoo.architectures.resnet import resnet50_v2
from tests.zoo.architectures.shufflenet import shufflenet_v2
from tests.zoo.architectures.squeezenet import squeezenet1_1
from tests.zoo.architectures.vgg import vgg19
from tests.zoo.architectures.yolo import yolov5s

ARCHITECTURES: dict[str, Callable[[], onnx.ModelProto]] = {
    "zfnet512-9": zfnet512,
    "resnet50-v2-7": resnet50_v2,
    "mobilenetv2-7": mobilenet_v2_torch,
    "mobilenetv2-1.0": mobilenet_v2_gluon,
    "bvlcalexnet-9": bvlc_alexnet,
    "googlenet-9": googlenet,
    "squeezenet1.1-7": squeezenet1_1,
    "shufflenet-v2-10": shufflenet_v2,
    "inception-v1-9": inception_v1,
    "inception-v2-9": inception_v2,
    "vgg19-caffe2-9": vgg19,
    "rcnn-ilsvrc13-9": rcnn_ilsvrc13,
    "yolov5s": yolov5s,
}
