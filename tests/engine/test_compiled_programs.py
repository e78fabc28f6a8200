"""`torch.compile` traces the program of a call; the loop only where there is none."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounterWithBackend

from onnxinterp import InputError, OnnxModule
from onnxinterp.runtime.interpreter import Interpreter
from tests import models

backends = pytest.mark.parametrize("backend", ["eager", "aot_eager"])
NET = """net (float[n, c, s, s] x) => (float[n, k] y) {
        h = Conv <pads = [1, 1, 1, 1]> (x, conv__weight, conv__bias)
        b = BatchNormalization (h, bn__weight, bn__bias, bn__running_mean, bn__running_var)
        a = Relu (b)
        shape = Shape (a)
        two = Slice (shape, start, end, zero)
        last = Constant <value = int64[1] {-1}> ()
        sizes = Concat <axis = 0> (two, last)
        flat = Reshape (a, sizes)
        m = ReduceMean <axes = [2], keepdims = 0> (flat)
        c = Constant <value = float[2] {0.25, 0.5}> ()
        low = Min (m, c)
        y = Gemm <transB = 1> (low, fc__weight, fc__bias)
    }"""  # two underscores are a dot
SHAPES = {
    "conv.weight": (2, 3, 3, 3),
    "conv.bias": (2,),
    "bn.weight": (2,),
    "bn.bias": (2,),
    "bn.running_mean": (2,),
    "bn.running_var": (2,),
    "fc.weight": (4, 2),
    "fc.bias": (4,),
}


def net(**options: Any) -> OnnxModule:
    """A convolution, batch normalization, a reshape to computed sizes, and a linear layer."""
    model = models.parse(NET)
    for node in model.graph.node:
        node.input[:] = [name.replace("__", ".") for name in node.input]
    generator = torch.Generator().manual_seed(0)
    tensors = {n: torch.rand(s, generator=generator) + 0.1 for n, s in SHAPES.items()}
    tensors.update(start=torch.tensor([0]), end=torch.tensor([2]), zero=torch.tensor([0]))
    for name, tensor in tensors.items():
        model.graph.initializer.append(numpy_helper.from_array(tensor.numpy(), name))
    return OnnxModule(model, **options)


def image(batch: int = 2, seed: int = 1) -> Tensor:
    return torch.randn((batch, 3, 5, 5), generator=torch.Generator().manual_seed(seed))


def programs(module: OnnxModule) -> int:
    """How many programs the compiler has traced since the plans were made."""
    return sum(name.startswith("program_") for name in vars(module._plans.tracer))


def compiled(module: Any, backend: Any = "eager", **options: Any) -> Any:
    return torch.compile(module, fullgraph=True, backend=backend, **options)


def _doubled(result: Any) -> Any:
    return result * 2 if isinstance(result, Tensor) else result


@pytest.fixture(autouse=True)
def _without_compiled_code() -> Iterator[None]:
    torch.compiler.reset()
    yield
    torch.compiler.reset()


@backends
def test_a_call_is_one_graph_of_the_program(backend: str) -> None:
    module, x = net(), image()
    with torch.no_grad():
        torch.testing.assert_close(compiled(module, backend)(x), module(x))
    assert programs(module) == 1


def test_the_graph_has_one_node_for_each_call() -> None:
    graphs: list[torch.fx.GraphModule] = []

    def backend(graph: torch.fx.GraphModule, _: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    with torch.no_grad():
        compiled(net(), backend)(image())
    called = [node.target for node in graphs[0].graph.nodes if node.op.startswith("call_")]
    assert [getattr(c, "__name__", c) for c in called] == [
        "conv2d",
        "batch_norm",
        "relu",
        "reshape",
        "mean",
        "minimum",
        "linear",
    ]


@backends
def test_gradients_are_those_of_the_loop(backend: str) -> None:
    module, x = net(), image().requires_grad_()
    parameters = [p for p in module.parameters() if p.requires_grad]
    wanted = torch.autograd.grad(module(x).square().sum(), [x, *parameters])
    got = torch.autograd.grad(compiled(module, backend)(x).square().sum(), [x, *parameters])
    torch.testing.assert_close(got, wanted)
    assert programs(module) == 1


@backends
def test_training_needs_one_compilation(backend: str) -> None:
    module, judge = net(), net()
    counter = CompileCounterWithBackend(backend)
    run = compiled(module, counter)
    optimizers = [torch.optim.SGD(m.parameters(), lr=0.1) for m in (module, judge)]
    for seed in range(3):
        for call, optimizer in zip((run, judge), optimizers, strict=True):
            optimizer.zero_grad()
            call(image(seed=seed)).square().mean().backward()
            optimizer.step()
    assert counter.frame_count == 1
    torch.testing.assert_close(module.state_dict(), judge.state_dict())


@backends
def test_batch_statistics_are_updated_in_training(backend: str) -> None:
    module, judge = net().train(), net().train()
    run = compiled(module, backend)
    for seed in range(2):
        torch.testing.assert_close(run(image(seed=seed)), judge(image(seed=seed)))
    assert programs(module) == 1
    torch.testing.assert_close(module.state_dict(), judge.state_dict())
    assert not torch.equal(module.weights["bn.running_mean"], net().weights["bn.running_mean"])


def test_the_mode_of_each_module_is_guarded() -> None:
    module, judge = net(), net()
    run = compiled(module)
    for change in (
        lambda m: m.train(),
        lambda m: m.get_submodule("bn").eval(),
        lambda m: m.get_submodule("bn").train(),
        lambda m: m.eval(),
    ):
        for m in (module, judge):
            change(m)
        torch.testing.assert_close(run(image()), judge(image()))
    assert programs(module) == 3
    torch.testing.assert_close(module.state_dict(), judge.state_dict())


def test_frozen_statistics_stay() -> None:
    module = net().train()
    run = compiled(module)
    run(image())
    module.freeze_statistics()
    kept = module.weights["bn.running_mean"].clone()
    torch.testing.assert_close(run(image()), module(image()))
    assert torch.equal(module.weights["bn.running_mean"], kept)


def test_other_sizes_have_programs_of_their_own() -> None:
    module = net()
    run = compiled(module, dynamic=False)
    for batch in (2, 3, 2):
        torch.testing.assert_close(run(image(batch)), module(image(batch)))
    assert programs(module) == 2


@pytest.mark.parametrize("dynamic", [None, True])
def test_the_loop_is_traced_where_sizes_are_symbols(dynamic: bool | None) -> None:
    module = net()
    counter = CompileCounterWithBackend("eager")
    run = compiled(module, counter, dynamic=dynamic)
    for batch in (2, 3, 4, 5):
        torch.testing.assert_close(run(image(batch)), module(image(batch)))
    assert programs(module) == (dynamic is None)
    assert counter.frame_count == 1 + (dynamic is None)


def test_inputs_by_name() -> None:
    module = net()
    torch.testing.assert_close(compiled(module)(x=image()), module(image()))
    assert programs(module) == 1


def test_an_initializer_that_a_call_gives() -> None:
    model = models.parse("g (float[n] x, float[1] w) => (float[n] y) { y = Mul(x, w) }")
    model.graph.initializer.append(numpy_helper.from_array(torch.ones(1).numpy(), "w"))
    module, x = OnnxModule(model), torch.randn(3)
    run = compiled(module)
    torch.testing.assert_close(run(x), x)
    torch.testing.assert_close(run(x, w=torch.full((1,), 3.0)), 3 * x)
    assert programs(module) == 2
    run = compiled(module, dynamic=True)
    torch.testing.assert_close(run(x, w=torch.full((1,), 3.0)), 3 * x)
    assert programs(module) == 2


def test_wrong_inputs_raise_as_before() -> None:
    with pytest.raises(InputError, match="float32"):
        torch.compile(net(), backend="eager")(image().double())


def test_a_module_that_was_cast() -> None:
    module = net()
    run = compiled(module)
    run(image())
    module.double()
    torch.testing.assert_close(run(image().double()), module(image().double()))
    assert programs(module) == 1


def test_plans_that_would_be_the_same_need_no_compilation() -> None:
    module = net()
    counter = CompileCounterWithBackend("eager")
    run = compiled(module, counter)
    for _ in range(12):  # torch compiles a function eight times at most
        run(image())
        module.to("cpu")
        module.refresh()
        module.load_state_dict(module.state_dict())
    assert counter.frame_count == 1


def test_a_constant_that_was_changed_in_place() -> None:
    model = models.parse("g (float[n] x) => (float[1] y) { y = Gather(x, place) }")
    model.graph.initializer.append(numpy_helper.from_array(torch.tensor([1]).numpy(), "place"))
    module, x = OnnxModule(model), torch.tensor([1.0, 2.0, 3.0])
    run = compiled(module)
    for place in (1, 2, 0, 2):
        module.weights["place"].fill_(place)
        module.refresh()
        assert run(x) == module(x) == x[place]
    assert programs(module) == 1


def test_a_constant_that_was_changed_before_the_compilation() -> None:
    model = models.parse(
        "g (float[n] x) => (float[a, b] y) { t = Add(rows, rows) y = Gather(x, t) }"
    )
    rows = torch.zeros(3, 2, dtype=torch.int64)
    model.graph.initializer.append(numpy_helper.from_array(rows.numpy(), "rows"))
    module, x = OnnxModule(model), torch.arange(8.0)
    run = compiled(module)
    module.weights["rows"].fill_(2)
    torch.testing.assert_close(run(x), module(x))
    module.refresh()
    torch.testing.assert_close(run(x), torch.full((3, 2), 4.0))


def test_hooks_run() -> None:
    module, seen = net(), []
    module.get_submodule("conv").register_forward_hook(lambda *_: seen.append(1))
    torch.testing.assert_close(compiled(module)(image()), module(image()))
    assert programs(module) == 0
    assert len(seen) == 2


def test_another_interpreter_runs() -> None:
    class Twice(Interpreter):
        def run_step(self, step: Any, frame: Any) -> Any:
            result = super().run_step(step, frame)
            return result * 2 if step.op == "Relu" else result

    module = net()
    module.interpreter = Twice()
    torch.testing.assert_close(compiled(module)(image()), module(image()))
    assert programs(module) == 0


def test_a_step_that_was_replaced_runs() -> None:
    module = net()
    run_step = module.interpreter.run_step
    module.interpreter.run_step = lambda step, frame: _doubled(run_step(step, frame))  # type: ignore[method-assign]
    x = image()
    torch.testing.assert_close(torch.compile(module, backend="eager")(x), module(x))
    assert programs(module) == 0


def test_kernels_of_the_user_are_traced() -> None:
    def relu(X: Tensor) -> Tensor:
        return X.clamp(0, 0.5)

    module = net(kernels={"Relu": relu})
    torch.testing.assert_close(compiled(module)(image()), module(image()))
    assert programs(module) == 0


def test_what_depends_on_data_is_traced_as_before() -> None:
    text = """g (float[n] x, int64[1] k) => (float[m] y) { y, i = TopK(x, k) }"""
    module, x = OnnxModule(models.parse(text)), torch.randn(5)
    run = torch.compile(module, backend="eager")
    for k in (2, 3):
        torch.testing.assert_close(run(x, torch.tensor([k]))[0], module(x, torch.tensor([k]))[0])
    assert programs(module) == 0


def test_outputs_are_not_tensors_of_the_module() -> None:
    model = models.parse("g (float[2] x) => (float[2] y, float[2] w) { y = Mul(x, w) }")
    model.graph.initializer.append(numpy_helper.from_array(torch.ones(2).numpy(), "w"))
    module = OnnxModule(model)
    with torch.no_grad():
        _, w = compiled(module)(torch.ones(2))
        w.zero_()
    assert programs(module) == 1
    assert module.weights["w"].tolist() == [1, 1]


def test_weights_of_functional_call() -> None:
    module, x = net(), image().double()
    weights = {n: (2 * w).double() for n, w in module.state_dict().items()}

    def call(weights: dict[str, Tensor], x: Tensor) -> Any:
        return torch.func.functional_call(module, weights, (x,))

    torch.testing.assert_close(compiled(call)(weights, x), call(weights, x))


def test_transforms_of_torch_func() -> None:
    module, x = net(), image()
    run = torch.func.grad(lambda x: module(x).sum())
    torch.testing.assert_close(compiled(run)(x), run(x))
    many = torch.func.vmap(lambda x: module(x[None])[0])
    torch.testing.assert_close(compiled(many)(x), many(x))


def test_autocast() -> None:
    module = net()
    with torch.autocast("cpu", torch.bfloat16):
        got, wanted = compiled(module)(image()), module(image())
    assert got.dtype == wanted.dtype == torch.bfloat16
    torch.testing.assert_close(got, wanted)
    assert programs(module) == 1


def test_recording_draws_no_random_numbers() -> None:
    text = """g (float[n] x) => (float[n] y) <float half = {0.5}, bool on = {1}>
        { y = Dropout(x, half, on) }"""
    module, x = OnnxModule(models.parse(text)).train(), torch.ones(100)
    run = compiled(module)
    torch.manual_seed(0)
    got = run(x)
    assert programs(module) == 1
    torch.manual_seed(0)
    assert torch.equal(got, module(x))


def test_within_another_function() -> None:
    module, x = net(), image()

    def twice(x: Tensor) -> Tensor:
        return module(x) + module(torch.cat([x, x]))[:2]

    torch.testing.assert_close(compiled(twice)(x), twice(x))
    assert programs(module) == 2


def test_features_of_a_module() -> None:
    module, x = net(), image()
    features = module.capture("a", "m")
    torch.testing.assert_close(compiled(features)(x), features(x))
    assert programs(module) == 0


def test_copies_have_programs_of_their_own() -> None:
    module, x = net(), image()
    compiled(module)(x)
    twin = copy.deepcopy(module)
    assert programs(twin) == 0
    with torch.no_grad():
        twin.weights["fc.bias"].add_(1)
    torch.testing.assert_close(compiled(twin)(x), module(x) + 1)


def test_a_module_in_place_of_another() -> None:
    module, x = net(), image()
    before = compiled(module)(x)
    torch.compiler.reset()
    module.fc = nn.Linear(2, 4)
    got = compiled(module)(x)
    torch.testing.assert_close(got, module(x))
    assert not torch.allclose(got, before)


def test_no_string_of_the_file_is_in_the_source() -> None:
    model = models.parse("g (float[2] x) => (float[2] y) { y = Mul(x, w) }")
    name = "w); raise SystemExit  # .\n"
    model.graph.initializer.append(numpy_helper.from_array(torch.ones(2).numpy(), name))
    model.graph.node[0].input[1] = name
    onnx.checker.check_model(model)
    module = OnnxModule(model)
    torch.testing.assert_close(compiled(module)(torch.ones(2)), torch.ones(2))
    assert programs(module) == 1
