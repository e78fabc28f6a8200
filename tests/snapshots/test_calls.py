"""A snapshot is called as its module, and computes the same, whatever engine runs it."""

from __future__ import annotations

import pytest
import torch

from onnxinterp import InputError, NodeError, OnnxModule
from onnxinterp.snapshots import ENGINES
from tests.exports.case import Case
from tests.exports.comparison import as_tuple, disagreements
from tests.exports.exporting import export
from tests.exports.modules import CASES
from tests.models import parse
from tests.snapshots.conftest import QUICK
from tests.snapshots.models import FIXED, mlp, right, rows, two_outputs


def test_the_engines_of_the_test_extra_are_tested() -> None:
    assert {"faithful", "onnxruntime"} <= set(QUICK)


def test_computes_what_the_module_computes(engine: str) -> None:
    module = mlp()
    fast = module.optimize(rows(2), engine=engine)
    assert fast.engine == engine
    for seed in range(3):
        x = rows(2, seed)
        torch.testing.assert_close(fast(x), right(module, x))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_networks_of_several_sizes(case: Case, engine: str) -> None:
    """Sizes come twice, since runners for particular sizes are prepared at the second call."""
    module = OnnxModule(export(case, case.exports()[-1]))
    sizes = (case.sizes[0], case.edges[0])
    fast = module.optimize(*case.arguments(sizes[0]), engine=engine, cache=False)
    assert fast.engine == engine
    for seed in range(3):
        for given in sizes:
            inputs = case.arguments(given, seed)
            got, want = as_tuple(fast(*inputs)), as_tuple(module(*inputs))
            assert disagreements(got, want) == {}, (given, seed)


def test_inputs_by_position_and_name(engine: str) -> None:
    module = two_outputs()
    x, index = rows(2), torch.tensor([3, 4])
    fast = module.optimize(x, index=index, engine=engine)
    want = module(x, index)
    for got in (
        fast(x, index),
        fast(x, index=index),
        fast(index=index, **{"first.x": x}),
        fast(first_x=x, index=index),
    ):
        assert isinstance(got, tuple)
        assert [o.dtype for o in got] == [torch.float32, torch.int64]
        torch.testing.assert_close(got, want)


def test_wrong_inputs_are_errors_of_the_module(engine: str) -> None:
    module = mlp()
    fast = module.optimize(rows(2), engine=engine)
    for wrong in (rows(2).double(), rows(2)[0], rows(2).numpy(), "x"):
        with pytest.raises(InputError) as expected:
            module(wrong)
        with pytest.raises(InputError) as got:
            fast(wrong)
        assert str(got.value) == str(expected.value)
    with pytest.raises(InputError, match="missing inputs: x"):
        fast()
    with pytest.raises(InputError, match="'z' is not an input"):
        fast(rows(2), z=1)


def test_sizes_that_no_engine_takes_are_errors_of_the_module(engine: str) -> None:
    module = mlp()
    fast = module.optimize(rows(2), engine=engine)
    for _ in range(3):
        with pytest.raises((InputError, NodeError)):
            fast(torch.randn(2, 5))
    torch.testing.assert_close(fast(rows(2)), right(module, rows(2)))


def test_wrong_examples_are_errors_at_once() -> None:
    with pytest.raises(InputError, match="must be float32"):
        mlp().optimize(rows(2).double())


def test_results_share_memory_with_nothing(engine: str) -> None:
    module = OnnxModule(
        parse(
            "g (float[n, 4] x) => "
            "(float[n, 4] a, float[n, 4] b, float[m] c, float[2, 2] d, float[1] e)"
            "<float[2, 2] w = {1, 2, 3, 4}, float[1] v = {5}, int64[1] flat = {-1}>"
            "{ a = Identity(x) b = Identity(x) c = Reshape(x, flat) d = Transpose(w)"
            "e = Identity(v) }"
        )
    )
    x = rows(2)
    fast = module.optimize(x, engine=engine)
    want = [y.clone() for y in fast(x)]
    for _ in range(3):
        got = fast(x)
        before = x.clone()
        for i, y in enumerate(got):
            torch.testing.assert_close(y, want[i], rtol=0, atol=0)
            y.fill_(i + 100)
        assert torch.equal(x, before)
        assert [float(y.min()) for y in got] == [100, 101, 102, 103, 104]
    earlier = fast(x)
    fast(rows(2, 1))
    for y, right_one in zip(earlier, want, strict=True):
        assert torch.equal(y, right_one)


def test_inputs_are_not_changed_and_may_have_any_strides(engine: str) -> None:
    module = mlp()
    fast = module.optimize(rows(2), engine=engine)
    wide = torch.randn(4, 4)
    for x in (wide[::2], wide.T[:2], wide[:1].expand(2, 4), wide[:2].clone().requires_grad_()):
        before = x.detach().clone()
        torch.testing.assert_close(fast(x), right(module, x))
        assert torch.equal(x.detach(), before)


def test_negated_views(engine: str) -> None:
    """Torch keeps the sign of such tensors beside their memory."""
    module = mlp()
    x = torch.view_as_complex(torch.randn(2, 4, 2)).conj().imag
    assert x.is_neg()
    torch.testing.assert_close(module.optimize(rows(2), engine=engine)(x), right(module, x))


def test_copies_of_inputs_live_until_the_end_of_a_call(engine: str) -> None:
    module = OnnxModule(parse("g (float[n, 512] x) => (float[n, 512] y) { y = Neg(x) }"))
    fast = module.optimize(torch.randn(256, 512), engine=engine)
    for _ in range(20):
        x = torch.randn(512, 256).T
        torch.testing.assert_close(fast(x), -x, rtol=0, atol=0)


def test_numbers_of_rank_0(engine: str) -> None:
    module = OnnxModule(
        parse(
            "g (float x, float[n] y) => (float a, float b)"
            "{ a = Neg(x) b = ReduceSum<keepdims=0>(y) }"
        )
    )
    x, y = torch.tensor(3.0), torch.tensor([1.0, 2.0])
    for _ in range(2):
        a, b = module.optimize(x, y, engine=engine)(x, y)
        assert (a.item(), b.item()) == (-3, 3)
        assert a.shape == b.shape == ()


def test_made_under_autocast_inference_mode_and_transforms(engine: str) -> None:
    """It is the same as made elsewhere."""
    module, x = mlp(), rows(2)
    with torch.autocast("cpu", torch.bfloat16):
        fast = module.optimize(x, engine=engine)
    torch.testing.assert_close(fast(x), right(module, x))
    with torch.inference_mode():
        fast = module.optimize(x, engine=engine)
    torch.testing.assert_close(fast(x), right(module, x))
    renewing = module.optimize(x, engine=engine, on_change="renew")
    with torch.no_grad():
        module.weights["w1"].add_(1)
    y = torch.func.vmap(renewing)(x[None])
    torch.testing.assert_close(y[0], right(module, x))
    torch.testing.assert_close(renewing(x), right(module, x))


def test_with_another_default_device_and_dtype(engine: str) -> None:
    module, x = mlp(), rows(2)
    try:
        torch.set_default_dtype(torch.float64)
        with torch.device("meta"):  # where "torch" records no calls
            fast = module.optimize(x, engine=[engine, "faithful"])
            y = fast(x)
    finally:
        torch.set_default_dtype(torch.float32)
    assert y.device.type == "cpu"
    torch.testing.assert_close(y, right(module, x))


def test_a_module_on_the_meta_device_runs_itself() -> None:
    module = mlp().to("meta")
    fast = module.optimize(rows(2).to("meta"))
    assert fast.engine == "faithful"
    assert fast(rows(2).to("meta")).shape == (2, 2)


def test_no_gradients(engine: str) -> None:
    module = mlp()
    x = rows(2).requires_grad_()
    fast = module.optimize(x, engine=engine)
    y = fast(x)
    assert not y.requires_grad
    assert torch.is_grad_enabled()
    assert not fast(rows(3)).requires_grad


def test_other_element_types(engine: str) -> None:
    """Half precision, booleans, bytes: those of the file, as the file has them."""
    module = OnnxModule(
        parse(
            "g (float16[n] h, bool[n] t, uint8[n] u, int32[n] i) => "
            "(float16[n] a, bool[n] b, uint8[n] c, int32[n] d)"
            "<uint8[1] one = {1}, int32[1] two = {2}>"
            "{ a = Add(h, h) b = Not(t) c = Max(u, one) d = Mul(i, two) }"
        )
    )
    inputs = (
        torch.tensor([1.5, -2]).half(),
        torch.tensor([True, False]),
        torch.tensor([3, 130], dtype=torch.uint8),
        torch.tensor([2**19, -7], dtype=torch.int32),
    )
    fast = module.optimize(*inputs, engine=engine)
    for got, want in zip(fast(*inputs), module(*inputs), strict=True):
        assert got.dtype == want.dtype
        assert torch.equal(got, want)


def test_empty_inputs(engine: str) -> None:
    module = mlp()
    fast = module.optimize(rows(2), engine=engine)
    for _ in range(3):
        assert fast(rows(0)).shape == (0, 2)


def test_initializers_that_a_call_gives(engine: str) -> None:
    """Such calls run in the module: an engine has the initializer as a constant."""
    module = OnnxModule(
        parse(
            "g (float[n, 4] x, float[4] w) => (float[n, 4] y) <float[4] w = {1, 2, 3, 4}>"
            "{ y = Mul(x, w) }"
        )
    )
    fast, x, w = module.optimize(rows(2), engine=engine), rows(2), torch.full((4,), 5.0)
    torch.testing.assert_close(fast(x), module(x))
    torch.testing.assert_close(fast(x, w=w), x * 5)
    torch.testing.assert_close(fast(x), module(x))


def test_other_outputs_than_those_of_the_file(engine: str) -> None:
    module = OnnxModule(parse(FIXED), outputs=["r", "s"])
    x = rows(2)
    fast = module.optimize(x, engine=engine)
    torch.testing.assert_close(fast(x), module(x))


def test_trained_weights_reach_the_engine(engine: str) -> None:
    module = mlp()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.mul_(1.5).add_(0.25)
    x = rows(2)
    torch.testing.assert_close(module.optimize(x, engine=engine)(x), right(module, x))


def test_lora_reaches_the_engine(engine: str) -> None:
    module = mlp()
    module.add_lora("w*", rank=1)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.5)
    x = rows(2)
    fast = module.optimize(x, engine=engine)
    assert fast.engine == engine
    torch.testing.assert_close(fast(x), right(module, x))


def test_calls_under_transforms_and_autocast_run_in_the_module(engine: str) -> None:
    module = mlp()
    fast = module.optimize(rows(2), engine=engine)
    x = torch.randn(3, 2, 4)
    torch.testing.assert_close(torch.func.vmap(fast)(x), torch.stack([right(module, y) for y in x]))
    with torch.autocast("cpu", torch.bfloat16):
        assert fast(rows(2)).dtype == module(rows(2)).dtype


def test_a_model_without_inputs(engine: str) -> None:
    module = OnnxModule(parse("g () => (float[2] y) <float[2] w = {1, 2}> { y = Mul(w, w) }"))
    fast = module.optimize(engine=engine)
    assert fast().tolist() == [1, 4]


def test_names_are_those_of_engines() -> None:
    with pytest.raises(
        ValueError, match="engine must be one or several of faithful, torch, onnxruntime"
    ):
        mlp().optimize(rows(2), engine="fastest")
    assert next(iter(ENGINES)) == "faithful"
