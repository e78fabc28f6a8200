"""An adapted module computes and learns as the original network with weight + scale * B @ A."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.utils.parametrizations import weight_norm

from onnxinterp import OnnxModule
from onnxinterp.patterns import Names
from onnxinterp.weights.lora import LoRA
from tests.exporting import export
from tests.exports.case import Export
from tests.saving.models import raw, sum_of
from tests.training.adapters import (
    ALPHA,
    IDS,
    MATRICES,
    RANK,
    SCALE,
    Matrices,
    adapted,
    check,
    original,
    products,
    randomize,
    reader,
    trained,
    written,
)
from tests.training.exporting import write
from tests.training.tied import Head


class Recurrent(nn.Module):
    """An LSTM in two directions."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.LSTM(5, 6, bidirectional=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.rnn(x)[0]


def same_names(products: Matrices) -> Matrices:
    return products


def per_direction(products: Matrices) -> Matrices:
    """ONNX stacks the directions, and its gates are in the order i, o, f, c: torch's i, f, c, o."""
    found = {}
    for product in products.values():
        name = "rnn.weight_ih_l0" if product.shape[-1] == 5 else "rnn.weight_hh_l0"
        for direction, suffix in zip(product, ("", "_reverse"), strict=True):
            found[name + suffix] = direction.unflatten(0, (4, 6))[[0, 2, 3, 1]].flatten(0, 1)
    return found


class Layer(NamedTuple):
    """A network with one adapted layer, its input, the sizes of A and B, what is adapted.

    `in_torch` maps the products of the ONNX weights to those of the network's parameters.
    """

    network: Callable[[], nn.Module]
    input: tuple[int, ...]
    sizes: list[tuple[int, ...]]
    names: Names = "*weight*"
    in_torch: Callable[[Matrices], Matrices] = same_names


GATES = [(2, 5), (24, 2), (2, 6), (24, 2)]
LAYERS = {
    "Linear": Layer(lambda: nn.Linear(6, 5), (4, 3, 6), [(2, 6), (5, 2)]),
    "Conv1d": Layer(lambda: nn.Conv1d(6, 8, 3), (2, 6, 9), [(2, 18), (8, 2)]),
    "Conv2d": Layer(lambda: nn.Conv2d(4, 8, 3), (2, 4, 7, 7), [(2, 36), (8, 2)]),
    "grouped": Layer(lambda: nn.Conv2d(4, 8, 3, groups=2), (2, 4, 7, 7), [(2, 18), (8, 2)]),
    "transposed": Layer(lambda: nn.ConvTranspose2d(4, 8, 3), (2, 4, 5, 5), [(2, 72), (4, 2)]),
    "Embedding": Layer(lambda: nn.Embedding(11, 6), (), [(2, 6), (11, 2)]),
    "LSTM": Layer(Recurrent, (7, 2, 5), 2 * GATES),
    "stacked": Layer(
        Recurrent,
        (7, 2, 5),
        [(2, 2, 5), (2, 24, 2), (2, 2, 6), (2, 24, 2)],
        lambda _, weight: weight.ndim == 3,
        per_direction,
    ),
}


def exported(layer: Layer) -> tuple[nn.Module, Tensor, OnnxModule]:
    torch.manual_seed(0)
    network = nn.Sequential(layer.network()) if layer.network is not Recurrent else Recurrent()
    x = torch.randn(layer.input) if layer.input else torch.tensor([[1, 2, 3], [3, 2, 1]])
    if layer.in_torch is same_names:
        return network, x, OnnxModule(write(network, (x,), Export("torchscript", 17)))
    model = export(network.eval(), (x,), dynamo=False, opset_version=17)
    for node in model.graph.node:  # the gates stay packed where no module is noted
        node.name = ""
    return network, x, OnnxModule(model)


@pytest.mark.parametrize("kind", LAYERS)
def test_values_and_gradients_are_those_of_the_original_with_the_product_added(kind: str) -> None:
    layer = LAYERS[kind]
    network, x, module = exported(layer)
    names = module.add_lora(layer.names, RANK, ALPHA)
    torch.testing.assert_close(module(x), network(x), msg="B is zero at the start")
    matrices = {n: m.requires_grad_() for n, m in randomize(module).items()}
    assert [tuple(m.shape) for m in matrices.values()] == layer.sizes

    def original(scale: float) -> Tensor:
        added = layer.in_torch(products(matrices, scale))
        parameters = dict(network.named_parameters())
        sums = {n: parameters[n] + p.reshape(parameters[n].shape) for n, p in added.items()}
        return functional_call(network, sums, (x,))

    torch.testing.assert_close(module(x), original(SCALE), rtol=1e-5, atol=1e-5)
    assert not torch.allclose(module(x), original(1), atol=1e-2)
    want = torch.autograd.grad(original(SCALE).square().sum(), list(matrices.values()))
    module(x).square().sum().backward()
    trained = [p for p in module.parameters() if p.requires_grad]
    assert all(p.grad is None for p in module.parameters() if not p.requires_grad)
    assert len(trained) == 2 * len(names)
    for parameter, w in zip(trained, want, strict=True):
        torch.testing.assert_close(parameter.grad, w, rtol=1e-5, atol=1e-5 * float(w.abs().max()))


def test_the_original_tells_adapters_apart() -> None:
    one, other = randomize(adapted(), 1), randomize(adapted(), 2)
    assert not torch.allclose(original(one), original(other), atol=0.1)
    assert not torch.allclose(original(one), reader()(IDS), atol=0.1)


def test_adapters_start_as_in_peft() -> None:
    """A is uniform with Kaiming's bound for nn.Linear, B is zero, alpha / rank is 1."""
    module = OnnxModule(sum_of(raw("w", 300, 400)))
    assert module.add_lora("w", 50) == ("w",)
    a, b = module.lora_state_dict().values()
    assert (a.shape, b.shape, b.any()) == ((50, 400), (300, 50), False)
    assert 0.999 * 400**-0.5 < a.abs().max() <= 400**-0.5
    assert abs(a.mean()) < 1e-3
    adapter = next(p for p in module.modules() if isinstance(p, LoRA))
    assert (adapter.rank, adapter.alpha) == (50, 50)


def test_sgd_learns_what_the_original_learns() -> None:
    module, target = adapted(), torch.randn(2, 4, 10)
    matrices = {n: m.requires_grad_() for n, m in randomize(module).items()}
    start = {n: m.detach().clone() for n, m in matrices.items()}
    optimizers = [torch.optim.SGD(p, 0.01) for p in (module.parameters(), matrices.values())]
    for _ in range(5):
        for output, optimizer in zip((module(IDS), original(matrices)), optimizers, strict=True):
            optimizer.zero_grad()
            (output - target).square().mean().backward()
            optimizer.step()
    got = module.lora_state_dict()
    torch.testing.assert_close(got, {n: m.detach() for n, m in matrices.items()})
    assert not any(torch.allclose(got[n], start[n]) for n in got)
    assert module.remove_lora() == MATRICES
    for name, parameter in reader().named_parameters():
        assert torch.equal(module.weights[name], parameter), name


def test_a_weight_that_two_nodes_read_is_computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    module, seen, forward = adapted(), [], LoRA.forward
    readers = [n for n in module.onnx_graph.nodes if "embedding.weight" in n.inputs]
    assert len(readers) == 2

    def count(self: LoRA, weight: Tensor) -> Tensor:
        seen.append(tuple(weight.shape))
        return forward(self, weight)

    monkeypatch.setattr(LoRA, "forward", count)
    for _ in range(3):  # the third call has a plan for these sizes
        seen.clear()
        module(IDS)
        assert sorted(seen) == [(8, 8), (8, 8), (8, 8, 3), (10, 8)]


def test_narrow_weights_have_float32_adapters() -> None:
    module = OnnxModule(written()).bfloat16()
    module.add_lora("*", RANK, ALPHA)
    assert {m.dtype for m in module.lora_state_dict().values()} == {torch.float32}
    matrices = randomize(module)
    got = module(IDS)
    assert got.dtype == module.weights["conv.weight"].dtype == torch.bfloat16
    torch.testing.assert_close(got.float(), original(matrices), rtol=0.05, atol=0.3)
    assert module.bfloat16()(IDS).dtype == torch.bfloat16
    assert {m.dtype for m in module.lora_state_dict().values()} == {torch.bfloat16}
    double = OnnxModule(written()).double()
    double.add_lora("*")
    assert {m.dtype for m in double.lora_state_dict().values()} == {torch.float64}


def test_functional_call_and_compile() -> None:
    module = adapted()
    compiled = torch.compile(module, backend="eager", fullgraph=True)
    check(compiled, randomize(module, 1))
    check(compiled, randomize(module, 2))
    matrices = module.lora_state_dict()
    halves = {n: p.detach() / 2 for n, p in module.named_parameters() if p.requires_grad}
    got = functional_call(module, halves, (IDS,))
    torch.testing.assert_close(got, original({n: m / 2 for n, m in matrices.items()}))
    check(module, matrices)


def test_only_adapters_train_until_others_are_unfrozen() -> None:
    module = OnnxModule(written())
    weights = dict(module.weights.items())
    module.add_lora("conv.*", RANK)
    adapter = trained(module)
    assert len(adapter) == 2
    assert not any(w.requires_grad for w in weights.values())
    assert module.freeze() == tuple(weights)
    assert trained(module) == set()
    assert module.unfreeze(["conv.weight", "out.bias"]) == ("conv.weight", "out.bias")
    assert trained(module) == {*adapter, id(weights["out.bias"])}
    module.add_lora("out.*", RANK)
    assert trained(module) > adapter, "the first adapter stays"
    assert len(trained(module)) == 4
    assert module.freeze(lambda _, weight: weight.requires_grad) == ("conv.weight", "out.weight")
    module.remove_lora()
    assert module.unfreeze() == tuple(weights)
    assert trained(module) == {id(w) for w in weights.values()}, "the same parameters as before"


def test_groups_have_the_adapters_in_place_of_their_weights() -> None:
    module = OnnxModule(written())
    before = {g["name"]: g["lr"] for g in module.parameter_groups(1.0, decay=0.5)}
    module.add_lora("*", RANK)
    groups = module.parameter_groups(1.0, decay=0.5)
    assert {g["name"]: g["lr"] for g in groups} == before
    assert {id(p) for g in groups for p in g["params"]} == trained(module)
    module.unfreeze("*.bias")
    groups = module.parameter_groups(1.0, weight_decay=0.1)
    ranks = {g["weight_decay"]: {p.ndim for p in g["params"]} for g in groups}
    assert ranks == {0.1: {2}, 0.0: {1}}
    module.freeze("embedding.*")
    assert len([p for g in module.parameter_groups(1.0) for p in g["params"]]) == 8


def test_any_parametrized_weight_trains_and_is_no_constant() -> None:
    """The original with torch's weight_norm, whose parameters are two."""
    module, network = OnnxModule(written()), reader()
    weight_norm(module.weights.holder("out.weight")[0])
    weight_norm(network.out)
    module.refresh()
    originals = [
        list(n.parametrizations["weight"].parameters())
        for n in (network.out, module.weights.holder("out.weight")[0])
    ]
    with torch.no_grad():
        for size, direction in originals:
            size.add_(1)
            direction.mul_(torch.linspace(0.5, 2, 8))
    torch.testing.assert_close(module(IDS), network(IDS))
    assert not torch.allclose(network(IDS), reader()(IDS))
    assert module.freeze("out.weight") == ("out.weight",)
    assert not any(p.requires_grad for p in originals[1])
    module.unfreeze()
    assert {id(p) for p in originals[1]} < trained(module)
    groups = module.parameter_groups(1.0)
    assert {id(p) for g in groups for p in g["params"]} == trained(module)


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "a vector": (
        {"names": "conv.bias"},
        r"a parameter of rank 2 or more, got 'conv\.bias'; similar: 'conv\.weight'",
    ),
    "no such name": ({"names": ["out.*", "cnv.weight"]}, r"got 'cnv\.weight'; similar: 'conv"),
    "nothing": ({"names": lambda *_: False}, "a parameter of rank 2 or more, got <function"),
    "rank": ({"names": "*", "rank": 0}, "rank must be at least 1, got 0"),
    "a second": ({"names": "out.*"}, r"without a parametrization, got 'out\.weight'"),
}


@pytest.mark.parametrize("mistake", BAD)
def test_mistakes_change_nothing(mistake: str) -> None:
    module = OnnxModule(written())
    if mistake == "a second":
        module.add_lora("out.weight")
        module.unfreeze()
    before, state = trained(module), module.state_dict().keys()
    keywords, message = BAD[mistake]
    with pytest.raises(ValueError, match=message):
        module.add_lora(**keywords)
    assert trained(module) == before
    assert module.state_dict().keys() == state


def test_a_level_of_the_name_that_torch_needs_is_not_replaced() -> None:
    module = OnnxModule(sum_of(raw("a.w", 4, 4), raw("a.parametrizations.v", 4, 4)))
    with pytest.raises(ValueError, match=r"that torch can parametrize, got 'a\.w'"):
        module.add_lora("a.w")
    assert module.add_lora("a.p*") == ("a.parametrizations.v",)


def test_a_type_without_arithmetic_is_refused() -> None:
    with pytest.raises(
        ValueError, match=r"16 bits and rank 2 or more, got torch.complex64\[2, 2\]"
    ):
        LoRA(torch.zeros(2, 2, dtype=torch.complex64), 1, 1)


@pytest.mark.parametrize("dynamo", [False, True])
@pytest.mark.parametrize("name", ["words.weight", "head.weight", ["words.weight", "head.weight"]])
def test_both_readers_of_a_tied_weight_have_the_adapter(
    name: Names, dynamo: bool, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    network, ids = Head().eval(), torch.tensor([[1, 2, 3]])
    options: dict[str, Any] = {"dynamo": dynamo, "opset_version": 18 if dynamo else 17}
    module = OnnxModule(export(network, (ids,), **options))
    module.add_lora(name, RANK, ALPHA)
    matrices = randomize(module)
    (b,) = (m for n, m in matrices.items() if n.endswith("lora_B"))
    (a,) = (m for n, m in matrices.items() if n.endswith("lora_A"))
    weight = network.words.weight + SCALE * b @ a
    want = functional_call(network, {"words.weight": weight, "head.weight": weight}, (ids,))
    torch.testing.assert_close(module(ids), want)
    module.save_onnx(tmp_path / "m.onnx")
    torch.testing.assert_close(OnnxModule(tmp_path / "m.onnx")(ids), want)
    assert len(module.merge_lora()) == 1
    torch.testing.assert_close(module(ids), want)
    assert module.get_parameter("words.weight") is module.get_parameter("head.weight")
