"""torch.compile, torch.export and the meta device see one whole graph with free dimensions."""

from __future__ import annotations

import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend

from tests.exports.comparison import as_tuple, disagreements
from tests.exports.conftest import OLDEST_AND_NEWEST, Subject
from tests.exports.exporting import dynamic_shapes

pytestmark = pytest.mark.capture
oldest_and_newest = pytest.mark.parametrize("subject", OLDEST_AND_NEWEST, indirect=True)


@oldest_and_newest
def test_compiles_whole_and_seldom(subject: Subject) -> None:
    case, network = subject.case, subject.case.module()
    torch.compiler.reset()
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(subject.module(), fullgraph=True, dynamic=True, backend=counter)
    for sizes in case.sizes:
        inputs = case.arguments(sizes)
        assert disagreements(as_tuple(compiled(*inputs)), as_tuple(network(*inputs))) == {}, sizes
    assert counter.frame_count <= 2


# torch's own tracing of scan, by which an LSTM steps, looks at .grad of what is no leaf.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")
@oldest_and_newest
def test_exports_with_free_dimensions(subject: Subject) -> None:
    case, network = subject.case, subject.case.module()
    program = torch.export.export(
        subject.module(), case.arguments(case.sizes[0]), dynamic_shapes=dynamic_shapes(case)
    )
    exported = program.module()
    for sizes in case.sizes:
        inputs = case.arguments(sizes)
        assert disagreements(as_tuple(exported(*inputs)), as_tuple(network(*inputs))) == {}, sizes


def test_meta_device_gives_the_shapes(subject: Subject) -> None:
    case, network = subject.case, subject.case.module()
    module = subject.module().to("meta")
    for sizes in (*case.sizes, *case.edges):
        inputs = case.arguments(sizes)
        outputs = as_tuple(module(*(x.to("meta") for x in inputs)))
        assert all(output.is_meta for output in outputs)
        wanted = as_tuple(network(*inputs))
        assert [(x.shape, x.dtype) for x in outputs] == [(x.shape, x.dtype) for x in wanted]
