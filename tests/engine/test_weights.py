"""Weights keep their ONNX names, whatever these are, and the module stays a good citizen."""

from __future__ import annotations

import copy
import io
import itertools
import pickle
import tracemalloc

import onnx
import onnx.parser
import pytest
import torch
from torch import nn

from onnxinterp import OnnxModule
from onnxinterp.weights import Weights
from onnxinterp.weights.tree import RESERVED

NAMES = [
    "weight",
    "layer1.0.conv1.weight",
    "half",
    "type",
    "keys",
    "pop",
    "forward",
    "training",
    "type_",
    "a.type",
    "_",
    "",
    "a..b",
    ".a",
    "a.",
    "onnx::MatMul_3",
    "gpu_0/data:0",
    "naïve",
    "with space\0and NUL",
]


def affine(name: str) -> onnx.ModelProto:
    """Make y = x + w, with w under the given name."""
    model = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["": 17]> g (float[2,3] x) => (float[2,3] y)'
        "<float[3] w = {1, 2, 3}> { y = Add(x, w) }"
    )
    model.graph.node[0].input[1] = model.graph.initializer[0].name = name
    return model


@pytest.mark.parametrize("name", [n for n in NAMES if n])
def test_any_name_survives_copies_capture_and_training(name: str) -> None:
    module, x = OnnxModule(affine(name)), torch.randn(2, 3)
    assert list(module.weights) == [name]
    want = module(x)
    module.train().eval()
    saved = io.BytesIO()
    torch.save(module, saved)
    twins = [
        copy.deepcopy(module),
        pickle.loads(pickle.dumps(module)),
        torch.load(io.BytesIO(saved.getvalue()), weights_only=False),
        torch.export.export(module, (x,)).module(),
        torch.compile(module, fullgraph=True, backend="aot_eager"),
    ]
    for twin in twins:
        torch.testing.assert_close(twin(x), want)
    want.sum().backward()
    assert module.weights[name].grad is not None
    path = module.weights.path(name)
    assert [n for n, _ in module.named_parameters()] == [path] == list(module.state_dict())
    assert module.get_parameter(path) is module.weights[name]
    swapped = {path: torch.zeros(3)}
    torch.testing.assert_close(torch.func.functional_call(module, swapped, (x,)), x)


@pytest.mark.parametrize("name", ["weights", "all", "none"])
def test_a_tensor_may_have_the_name_of_a_choice(name: str) -> None:
    for trainable, trains in (("weights", True), ("all", True), ("none", False)):
        module = OnnxModule(affine(name), trainable=trainable)
        assert [p.requires_grad for p in module.parameters()] == [trains]
    assert module.unfreeze(name) == (name,)


def test_names_are_keys_both_ways() -> None:
    weights = Weights({name: torch.full((2,), float(i)) for i, name in enumerate(NAMES)})
    assert list(weights) == NAMES
    assert len(weights) == len(NAMES)
    paths = [weights.path(name) for name in NAMES]
    assert len(set(paths)) == len(NAMES)
    assert set(weights.state_dict()) == set(paths)
    for i, name in enumerate(NAMES):
        assert weights[name].tolist() == [i, i]
        assert name in weights
    other = Weights({name: torch.zeros(2) for name in NAMES})
    other.load_state_dict(weights.state_dict())
    assert all(torch.equal(other[name], weights[name]) for name in NAMES)


def test_plain_names_are_not_changed() -> None:
    name = "layer1.0.conv1.weight"
    weights = Weights({name: nn.Parameter(torch.ones(1))})
    assert list(weights.state_dict()) == [name]
    assert weights.get_parameter(name) is weights[name]


def test_parameters_are_registered_as_torch_does() -> None:
    """Tools replace parameters there: torch's registration hooks, accelerate's empty weights."""
    names = ["layer1.0.weight", "bias", "half", "a.type"]
    own_methods = ["path", "b.forward"]  # of the dictionary, of every module
    hook = torch.nn.modules.module.register_module_parameter_registration_hook(
        lambda _module, _name, weight: nn.Parameter(weight.to("meta"))
    )
    with hook:
        weights = Weights({n: nn.Parameter(torch.ones(1)) for n in names + own_methods})
        module = OnnxModule(affine("layer.w"))
    assert all(weights[n].is_meta for n in names + own_methods)
    assert module.weights["layer.w"].is_meta
    module.load_state_dict(OnnxModule(affine("layer.w")).state_dict(), assign=True)
    torch.testing.assert_close(module(torch.zeros(2, 3))[0], torch.tensor([1.0, 2.0, 3.0]))


def test_a_name_may_be_the_prefix_of_another() -> None:
    weights = Weights(
        {"a": nn.Parameter(torch.ones(1)), "a.b": torch.zeros(1), "a_": torch.ones(2)}
    )
    assert list(weights) == ["a", "a.b", "a_"]
    assert len({weights.path(n) for n in weights}) == 3
    assert weights["a"].item() == 1
    assert weights["a.b"].item() == 0


def memory(names: list[str]) -> int:
    """The most bytes that the names of these weights take."""
    values = dict.fromkeys(names, torch.zeros(1))
    tracemalloc.start()
    weights = Weights(values)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert list(weights) == names
    paths = {weights.path(name) for name in names}
    assert len(paths) == len(names)
    return peak


def test_names_take_memory_in_proportion() -> None:
    plain = memory([f"layer.{i}.weight" for i in range(2000)])
    assert memory([f"{i}" + ".a" * 64 for i in range(2000)]) < 12 * plain, "levels of their own"
    assert memory(["a." * 64 + f"{i}" for i in range(2000)]) < 12 * plain, "one level for all"
    assert memory(["a." * 64 + f"{i}" + "x" * 10**6 for i in range(4)]) < 4 * 3 * 10**6


def test_deep_names_of_many_modules_are_not_changed() -> None:
    adapters = [
        f"base.model.model.layers.{i}.attention.{part}.{end}.weight"
        for i in range(100)
        for part in ("query", "key", "value")
        for end in ("base_layer", "lora_A.default", "lora_B.default")
    ]
    wrapped = [f"backbone.body.{i}.block.conv.conv.weight" for i in range(1500)]
    for names in (adapters, wrapped, ["x." * 64 + "y"]):
        weights = Weights({name: torch.zeros(1) for name in names})
        assert [weights.path(name) for name in weights] == names


def test_a_name_without_levels_goes_as_it_came() -> None:
    name = "a." + "b" * 1000
    weights = Weights({name: torch.zeros(1), "a.c": torch.ones(1)})
    assert weights.path(name) == "a_" + "b" * 1000
    del weights[name]
    assert list(weights) == list(weights.state_dict()) == ["a.c"]


def test_names_that_are_one_without_dots_find_a_place_soon() -> None:
    """They may not try each number that others have taken."""
    same = ["".join(dots) + "x" * 600 for dots in itertools.product(("a.", "a_"), repeat=9)]
    taken = [f"{'a_' * 9}{'x' * 600}_{n}" for n in range(len(same) * 3)]

    class Counting(dict[str, torch.Tensor]):
        looks = 0

        def __contains__(self, name: object) -> bool:
            Counting.looks += 1
            return super().__contains__(name)

    weights = Weights()
    weights._buffers = Counting()
    for name in taken + same:
        weights[name] = torch.zeros(1)
    assert len(weights.state_dict()) == len(taken) + len(same)
    assert Counting.looks < 10 * len(weights)


def test_a_weights_dictionary_behaves_like_one() -> None:
    weights = Weights({"a.b": torch.zeros(1), "c": torch.ones(1)})
    weights["d.e"] = nn.Parameter(torch.ones(2))
    assert weights.get("x") is None
    assert [k for k, _ in weights.items()] == ["a.b", "c", "d.e"]
    weights["d.e"] = torch.zeros(2)
    assert isinstance(weights["d.e"], nn.Parameter), "a parameter stays one"
    assert weights.pop("c").item() == 1
    assert "c" not in weights
    assert weights.popitem()[0] == "d.e"
    assert list(weights.copy()) == ["a.b"]


def test_a_state_dict_of_the_original_model_loads() -> None:
    original = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    state = original.state_dict()
    weights = Weights({k: torch.zeros_like(v) for k, v in state.items() if "num_b" not in k})
    assert "1.num_batches_tracked" in state
    weights.load_state_dict(state)
    assert torch.equal(weights["0.weight"], original[0].weight)
    with pytest.raises(RuntimeError, match="Unexpected"):
        weights.load_state_dict({**state, "other": torch.zeros(1)})


def test_reserved_names_are_those_of_torch() -> None:
    assert {"half", "type", "training"} <= RESERVED


MIXED = """<ir_version: 8, opset_import: ["": 17]> g (float[2,3] x) => (float[2,3] y)
<float[3] w = {1, 2, 3}, float scale = {2}, float[3] lo = {-9, -9, -9}, int64[2] shape = {2, 3}>
{
  a = Mul(x, w)
  b = Mul(a, scale)
  c = Max(b, lo)
  two = Constant<value = float[1] {2}>()
  d = Pow(c, two)
  y = Reshape(d, shape)
}"""


@pytest.mark.parametrize(
    ("trainable", "trained"),
    [
        ("weights", {"w", "lo"}),
        ("all", {"w", "lo", "scale", "two"}),
        ("none", set()),
        ("w*", {"w"}),
        (["w", "scale"], {"w", "scale"}),
        (lambda name, tensor: tensor.numel() == 3 and name != "lo", {"w"}),
    ],
)
def test_what_trains(trainable: object, trained: set[str]) -> None:
    module = OnnxModule(onnx.parser.parse_model(MIXED), trainable=trainable)
    assert {n for n, w in module.weights.items() if w.requires_grad} == trained
    assert set(module.weights) == {"w", "scale", "lo", "shape", "two"}
    assert set(module.state_dict()) == {n for n, _ in module.named_parameters()}, "no constants"
