"""The parameters of every export are those of the network, and `inspect` counts the same ones."""

from __future__ import annotations

from onnxinterp.cli.inspect import weights_of
from onnxinterp.graph.build import build
from onnxinterp.reading.source import read
from tests.exports.conftest import Subject
from tests.training.parameters import check_parameters


def test_every_parameter_is_one_of_the_networks_and_learns(subject: Subject) -> None:
    case = subject.case
    check_parameters(
        case.module(),
        subject.module(),
        case.arguments(case.sizes[0]),
        folded=case.folded,
        fills=subject.how.exporter == "dynamo",
    )


def test_inspect_and_the_module_have_the_same_weights(subject: Subject) -> None:
    module = subject.module()
    counted = {
        w.name: (w.shape, w.bytes, w.trains) for w in weights_of(build(read(subject.path).proto))
    }
    assert counted == {
        name: (tuple(w.shape), w.nbytes, w.requires_grad) for name, w in module.weights.items()
    }
