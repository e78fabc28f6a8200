"""The imported module answers what the network and onnxruntime answer, at every size."""

from __future__ import annotations

import onnxruntime
import pytest
import torch

from tests.exports.case import Case
from tests.exports.comparison import as_tuple, disagreements
from tests.exports.conftest import Subject
from tests.exports.modules import CASES


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_outputs_are_of_order_one(case: Case) -> None:
    """An absolute tolerance means nothing on outputs that are all but zero."""
    outputs = as_tuple(case.module()(*case.arguments(case.sizes[0])))
    spreads = [float(output.std()) for output in outputs if output.is_floating_point()]
    assert min(spreads) > 0.1
    assert max(spreads) < 10


def test_the_exporter_kept_the_meaning(subject: Subject) -> None:
    case, network = subject.case, subject.case.module()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3  # the constants it folds are no concern of ours
    session = onnxruntime.InferenceSession(subject.path, options, ["CPUExecutionProvider"])
    for sizes in (*case.sizes, *case.edges):
        inputs = case.arguments(sizes)
        feeds = {spec.name: x.numpy() for spec, x in zip(case.inputs, inputs, strict=True)}
        answers = [torch.from_numpy(answer) for answer in session.run(None, feeds)]
        assert disagreements(answers, as_tuple(network(*inputs))) == {}, sizes


def test_equals_the_network(subject: Subject) -> None:
    """Every size comes three times, with other values: plans kept for a size hold no values."""
    case, network, module = subject.case, subject.case.module(), subject.module()
    for seed in range(3):
        for sizes in (*case.sizes, *case.edges):
            inputs = case.arguments(sizes, seed)
            got, want = as_tuple(module(*inputs)), as_tuple(network(*inputs))
            assert disagreements(got, want) == {}, (sizes, seed)


def test_noise_on_any_one_weight_is_noticed(subject: Subject) -> None:
    """The negative control of the test above: every weight takes part, and 10 % is seen."""
    case, module = subject.case, subject.module()
    inputs = case.arguments(case.sizes[1])
    want = as_tuple(case.module()(*inputs))
    generator = torch.Generator().manual_seed(0)
    noticed = {}
    for name, weight in module.weights.items():
        if not weight.is_floating_point() or weight.ndim < 2:
            continue
        original = weight.detach().clone()
        with torch.no_grad():
            weight.mul_(1 + 0.1 * torch.randn(weight.shape, generator=generator))
            noticed[name] = disagreements(as_tuple(module(*inputs)), want) != {}
            weight.copy_(original)
    assert noticed
    assert [name for name, seen in noticed.items() if not seen] == []
    assert disagreements(as_tuple(module(*inputs)), want) == {}
