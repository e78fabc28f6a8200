"""torch.compile, torch.export and the meta device see one whole graph with free dimensions."""

from __future__ import annotations

import onnx.parser
import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend

from onnxinterp import OnnxModule
from tests.exports.comparison import as_tuple, disagreements
from tests.exports.conftest import OLDEST_AND_NEWEST, Subject
from tests.exports.exporting import dynamic_shapes

TRACED = ("encoder", "decoder", "tagger")
oldest_and_newest = pytest.mark.parametrize("subject", OLDEST_AND_NEWEST, indirect=True)


@pytest.mark.capture
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


@pytest.mark.filterwarnings("ignore:`torch.jit.trace:FutureWarning")
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")  # shapes that are compared
@pytest.mark.parametrize(
    "subject", [e for e in OLDEST_AND_NEWEST if e.values[0][0].name in TRACED], indirect=True
)
def test_traces_with_free_dimensions(subject: Subject) -> None:
    case, network, module = subject.case, subject.case.module(), subject.module()
    inputs = case.arguments(case.sizes[0])
    for _ in range(2):  # first with no plan for these sizes, then with one
        traced = torch.jit.trace(module, inputs, check_trace=True)
        module(*inputs)
        module(*inputs)
    for sizes in (*case.sizes, *case.edges):
        inputs = case.arguments(sizes)
        assert disagreements(as_tuple(traced(*inputs)), as_tuple(network(*inputs))) == {}, sizes


PADS = """<ir_version: 8, opset_import: ["": 17]> g (float[n] x) => (float[m] y)
    <int64[2] p = {1, 2}, int64[2] row = {1, 2}, int64[1] all = {-1}, float half = {0.5},
     bool on = {1}>
    { r = Reshape(p, row) t = Transpose(r) pads = Reshape(t, all) d = Dropout(x, half, on)
      y = Pad(d, pads) }"""


@pytest.mark.filterwarnings("ignore:`torch.jit.trace:FutureWarning")
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
def test_a_plan_that_a_trace_asks_for_serves_other_calls() -> None:
    module = OnnxModule(onnx.parser.parse_model(PADS)).train()
    module._plans._plans.clear()
    torch.jit.trace(module, (torch.ones(3),), check_trace=False)
    kept = module.plan.constants.values()
    assert [1, 2] in [v for v in kept if isinstance(v, list)]
    assert all(type(n) is int for v in kept if isinstance(v, list) for n in v)


def test_meta_device_gives_the_shapes(subject: Subject) -> None:
    case, network = subject.case, subject.case.module()
    module = subject.module().to("meta")
    for sizes in (*case.sizes, *case.edges):
        inputs = case.arguments(sizes)
        outputs = as_tuple(module(*(x.to("meta") for x in inputs)))
        assert all(output.is_meta for output in outputs)
        wanted = as_tuple(network(*inputs))
        assert [(x.shape, x.dtype) for x in outputs] == [(x.shape, x.dtype) for x in wanted]
