"""A change of the weights after the snapshot is noticed, or `refresh` is for it."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import nn

from onnxinterp import OnnxModule
from onnxinterp.snapshots import ChangedWeightsError
from tests.models import parse
from tests.snapshots.models import mlp, right, rows

Change = Callable[[OnnxModule], object]


def _step(optimizer: type[torch.optim.Optimizer], **settings: object) -> Change:
    def change(module: OnnxModule) -> None:
        module(rows(2)).sum().backward()
        optimizer(module.parameters(), lr=0.1, **settings).step()  # type: ignore[call-arg]

    return change


def _in_place(module: OnnxModule) -> None:
    with torch.no_grad():
        module.weights["w1"].add_(1)


def _in_inference_mode(module: OnnxModule) -> None:
    with torch.inference_mode():
        module.weights["w1"].add_(1)


def _data(module: OnnxModule) -> None:
    module.weights["w1"].data = module.weights["w1"].data * 2


def _data_twice(module: OnnxModule) -> None:
    """The allocator would return to the first address, if nothing was kept there."""
    for _ in range(2):
        module.weights["w1"].data = module.weights["w1"].data * 2


def _parameter(module: OnnxModule) -> None:
    module.w1 = nn.Parameter(module.w1.detach() * 2)


def _vector(module: OnnxModule) -> None:
    vector = nn.utils.parameters_to_vector(module.parameters())
    nn.utils.vector_to_parameters(vector * 2, module.parameters())


def _load(module: OnnxModule) -> None:
    module.load_state_dict({k: v * 2 for k, v in module.state_dict().items()})


def _assign(module: OnnxModule) -> None:
    module.load_state_dict({k: v * 2 for k, v in module.state_dict().items()}, assign=True)


def _swap(module: OnnxModule) -> None:
    torch.utils.swap_tensors(module.w1, nn.Parameter(module.w1.detach() * 2))


def _set(module: OnnxModule) -> None:
    with torch.no_grad():
        module.weights["w1"].set_(torch.zeros(4, 3))


def _lora(module: OnnxModule) -> None:
    module.add_lora("w1", rank=1)


CHANGES: dict[str, Change] = {
    "SGD": _step(torch.optim.SGD),
    "Adam": _step(torch.optim.Adam),
    "fused Adam": _step(torch.optim.Adam, fused=True),
    "fused SGD": _step(torch.optim.SGD, fused=True),
    "in place": _in_place,
    "in inference mode": _in_inference_mode,
    ".data =": _data,
    ".data = twice": _data_twice,
    "new parameter": _parameter,
    "vector_to_parameters": _vector,
    "load_state_dict": _load,
    "load_state_dict, assign": _assign,
    "swap_tensors": _swap,
    "set_": _set,
    "LoRA": _lora,
    "half": OnnxModule.half,
    "double": OnnxModule.double,
    "refresh": OnnxModule.refresh,
}
changes = pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)


@changes
def test_changes_raise(change: Change, engine: str) -> None:
    module = mlp()
    fast = module.optimize(rows(2), engine=engine)
    fast(rows(2))
    change(module)
    dtype = next(module.parameters()).dtype
    for _ in range(2):
        with pytest.raises(ChangedWeightsError, match=r"the weights changed .*: call refresh\(\)"):
            fast(rows(2).to(dtype))


FLOAT32 = [name for name in CHANGES if name not in ("half", "double")]


@pytest.mark.parametrize("name", FLOAT32)
def test_changes_renew(name: str, engine: str) -> None:
    module = mlp()
    fast = module.optimize(rows(2), engine=engine, on_change="renew")
    CHANGES[name](module)
    for seed in range(2):
        torch.testing.assert_close(fast(rows(2, seed)), right(module, rows(2, seed)))
    assert fast.engine == engine


@pytest.mark.parametrize("name", FLOAT32)
def test_ignored_changes_change_nothing(name: str, engine: str) -> None:
    """Sizes that come later are prepared from the same weights."""
    module = mlp()
    before = copy.deepcopy(module)
    fast = module.optimize(rows(2), engine=engine, on_change="ignore")
    CHANGES[name](module)
    for count in (2, 3, 3, 3):
        torch.testing.assert_close(fast(rows(count)), right(before, rows(count)))
    fast.refresh()
    torch.testing.assert_close(fast(rows(2)), right(module, rows(2)))


def test_refresh_takes_changes_that_nothing_notices(engine: str) -> None:
    """`.data.add_` has a version counter of its own: the reason for `refresh`."""
    module = mlp()
    fast = module.optimize(rows(2), engine=engine)
    module.weights["w1"].data.add_(1)
    fast.refresh()
    torch.testing.assert_close(fast(rows(2)), right(module, rows(2)))


def test_refresh_after_an_error(engine: str) -> None:
    module = mlp()
    fast = module.optimize(rows(2), engine=engine)
    _in_place(module)
    with pytest.raises(ChangedWeightsError):
        fast(rows(2))
    fast.refresh()
    torch.testing.assert_close(fast(rows(2)), right(module, rows(2)))


def test_the_message_says_what_changed() -> None:
    module = mlp()
    fast = module.optimize(rows(2), engine="faithful")
    for name, expected in {
        "fused Adam": "an optimizer made a step",
        "in place": "a weight was changed in place",
        ".data =": "a weight was replaced",
        "new parameter": "a weight was replaced",
        "half": "the module was moved, loaded or refreshed",
    }.items():
        fast.refresh()
        CHANGES[name](module)
        with pytest.raises(ChangedWeightsError, match=expected):
            fast(rows(2).to(next(module.parameters()).dtype))


def test_steps_of_other_modules_are_not_changes(engine: str) -> None:
    module = mlp()
    fast = module.optimize(rows(2), engine=engine)
    CHANGES["fused Adam"](mlp())
    torch.testing.assert_close(fast(rows(2)), right(module, rows(2)))


def test_parameters_of_the_same_memory_are_watched() -> None:
    """They are equal to the old ones, but an optimizer may make its steps with them."""
    module = mlp()
    fast = module.optimize(rows(2))
    module.w1 = nn.Parameter(module.w1.detach())
    torch.testing.assert_close(fast(rows(2)), right(module, rows(2)))
    CHANGES["fused Adam"](module)
    with pytest.raises(ChangedWeightsError, match="an optimizer made a step"):
        fast(rows(2))


def test_weights_that_were_made_in_inference_mode(engine: str) -> None:
    """They have no version counter."""
    with torch.inference_mode():
        module = mlp()
    fast = module.optimize(rows(2), engine=engine)
    torch.testing.assert_close(fast(rows(2)), right(module, rows(2)))
    module.half()
    with pytest.raises(ChangedWeightsError):
        fast(rows(2).half())


NORM = """
g (float[n, 2] x) => (float[n, 2] y)
<float[2] scale = {1, 2}, float[2] bias = {0, 1}, float[2] mean = {0.5, 0}, float[2] var = {1, 2}>
{ y = BatchNormalization(x, scale, bias, mean, var) }
"""


def test_running_statistics_are_weights(engine: str) -> None:
    module = OnnxModule(parse(NORM))
    x = torch.randn(4, 2)
    fast = module.optimize(x, engine=engine)
    torch.testing.assert_close(fast(x), right(module, x))
    module.train()(x)
    module.eval()
    with pytest.raises(ChangedWeightsError, match="a weight was changed in place"):
        fast(x)
    fast.refresh()
    torch.testing.assert_close(fast(x), right(module, x))


def test_training_mode_is_an_error_until_it_ends(engine: str) -> None:
    module = OnnxModule(parse(NORM))
    x = torch.randn(4, 2)
    fast = module.optimize(x, engine=engine)
    want = fast(x)
    module.train()
    with pytest.raises(ChangedWeightsError, match=r"in train\(\) mode: call eval\(\)"):
        fast(x)
    with pytest.raises(ChangedWeightsError, match=r"in train\(\) mode: call eval\(\)"):
        fast.refresh()
    with pytest.raises(ChangedWeightsError, match=r"in train\(\) mode: call eval\(\)"):
        module.optimize(x)
    module.eval()
    assert torch.equal(fast(x), want)


def test_ignoring_snapshots_run_while_the_module_trains(engine: str) -> None:
    module = OnnxModule(parse(NORM))
    x = torch.randn(4, 2)
    fast = module.optimize(x, engine=engine, on_change="ignore")
    want = right(module, x)
    module.train()(x)
    torch.testing.assert_close(fast(x), want)
    torch.testing.assert_close(fast(x[:3]), want[:3])


def test_constants_count_after_refresh_of_the_module(engine: str) -> None:
    """As in the module itself, which reads constants when it is told to."""
    module = OnnxModule(
        parse("g (int64[n] x) => (int64[n] y) <int64[1] one = {1}> { y = Add(x, one) }")
    )
    x = torch.tensor([1, 2])
    fast = module.optimize(x, engine=engine)
    module.weights["one"].fill_(5)
    module.refresh()
    with pytest.raises(ChangedWeightsError, match="moved, loaded or refreshed"):
        fast(x)
    fast.refresh()
    assert fast(x).tolist() == [6, 7]


def test_values_of_on_change() -> None:
    with pytest.raises(ValueError, match="on_change must be one of raise, renew, ignore"):
        mlp().optimize(rows(2), on_change="never")  # type: ignore[arg-type]
