"""A module that was exported with default options has the state dict of the original."""

from __future__ import annotations

import copy
import fnmatch
import pickle
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from torch import Tensor, nn

from onnxinterp import OnnxModule, SaveError, checkpoints
from tests.exporting import export
from tests.exports.case import Case, Export
from tests.exports.comparison import as_tuple, disagreements
from tests.exports.exporting import export as export_case
from tests.exports.modules import CASES
from tests.exports.test_gradients import backward
from tests.saving.models import run
from tests.training.networks import TASKS, Task
from tests.training.tied import NETWORKS

FRESH = ("tagger", "lstm", "lstm without bias", "gru")  # see tests.exports.exporting
FOLDED = {"speech", "segmentation", "resnet18"}  # exporters fold their BatchNormalization
CONSTANT = {  # the newer one folds what is read without an input, where all sizes are fixed
    "vit": ("class_token", "expand"),
    "encoder": ("positions.weight", "embedding_1"),
}
by_exporter = pytest.mark.parametrize("dynamo", [False, True], ids=["torchscript", "dynamo"])
by_network = pytest.mark.parametrize("name", NETWORKS)


def redrawn(network: nn.Module) -> nn.Module:
    """Other weights, of the same size: random, and no two of them equal."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for tensor in (*network.parameters(), *network.buffers()):
            if tensor.is_floating_point():
                noise = torch.randn(tensor.shape, generator=generator)
                tensor.add_(0.3 * noise.abs() * tensor.abs().mean().clamp(min=0.1))
    return network


def exported(network: nn.Module, x: tuple[Tensor, ...], dynamo: bool, name: str) -> onnx.ModelProto:
    """With no option but the exporter."""
    fresh = dynamo and name in FRESH
    options = {"gradients": True} if name == "copies" else {}  # else its layers are one operator
    return export(
        network.eval(),
        x,
        fresh=fresh,
        dynamo=dynamo,
        opset_version=18 if dynamo else 17,
        **options,
    )


def shapes(state: dict[str, Tensor]) -> dict[str, tuple[int, ...]]:
    """Name -> shape; what ONNX does not have is left out."""
    return {n: tuple(t.shape) for n, t in state.items() if not n.endswith("num_batches_tracked")}


def check(
    source: Any, network: nn.Module, inputs: Sequence[Tensor], folded: Sequence[str] = ()
) -> bool:
    """Whether other weights load strictly; then the outputs must be those of the original.

    Without, the names that differ must be those of folded layers.
    """
    module, want = OnnxModule(source), shapes(network.state_dict())
    before = as_tuple(module(*inputs))
    assert disagreements(before, as_tuple(network(*inputs))) == {}
    have = shapes(module.state_dict())
    if folded:
        differ = {n for n in have.keys() | want.keys() if have.get(n) != want.get(n)}
        assert [n for n in differ if not any(fnmatch.fnmatch(n, p) for p in folded)] == []
        return False
    assert have == want
    assert all(p.is_contiguous() for p in module.parameters())
    other = redrawn(copy.deepcopy(network))
    module.load_state_dict(other.state_dict())
    assert disagreements(as_tuple(other(*inputs)), before), "a control: the weights matter"
    assert disagreements(as_tuple(module(*inputs)), as_tuple(other(*inputs))) == {}
    return True


def _names(case: Case) -> tuple[str, ...]:
    """The layers that exporters fold, and what they leave: a bias in the convolution."""
    return (*case.folded, "*.0.bias", "*.running_*", "*.weight_bias")


EXPORTS = [(case, how) for case in CASES for how in case.exports()]


@pytest.mark.parametrize(
    ("case", "how"), EXPORTS, ids=[f"{c.name}-{h.exporter}-{h.opset}" for c, h in EXPORTS]
)
def test_networks_of_the_export_tests(case: Case, how: Export) -> None:
    folded = _names(case) if case.name in FOLDED else ()
    check(export_case(case, how), case.module(), case.arguments(case.sizes[0]), folded)


@by_exporter
@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_networks_of_the_training_tests(task: Task, dynamo: bool) -> None:
    network, (inputs, _) = task.original().eval(), task.batch(0)
    folded = ("*bn*", "*downsample.1.*", "*conv*.*", "*downsample.0.*")
    source = exported(network, inputs, dynamo, task.name)
    if task.name not in FOLDED:
        folded = CONSTANT.get(task.name, ()) if dynamo else ()
    check(source, network, inputs, folded)


def test_nine_of_ten_exports_load_strictly() -> None:
    """Of those without BatchNormalization, whose weights are in no file any more."""
    strict = [case.name not in FOLDED for case, _ in EXPORTS if case.name not in FOLDED]
    for task in TASKS:
        if task.name not in FOLDED:
            strict += [True, task.name not in CONSTANT]
    assert len(strict) == 30
    assert sum(strict) / len(strict) > 0.9


def small(name: str) -> tuple[nn.Module, tuple[Tensor, ...]]:
    torch.manual_seed(0)
    make, x = NETWORKS[name]
    return make().eval(), (x,)


@by_exporter
@by_network
def test_small_networks(name: str, dynamo: bool) -> None:
    network, inputs = small(name)
    assert check(exported(network, inputs, dynamo, name), network, inputs)


@by_exporter
@by_network
def test_gradients_are_those_of_the_original_by_name(name: str, dynamo: bool) -> None:
    """Also of tied weights: the sum over all uses."""
    network, inputs = small(name)
    module = OnnxModule(exported(network, inputs, dynamo, name))
    backward(network, inputs)
    backward(module, inputs)
    for key, weight in network.named_parameters(remove_duplicate=False):
        found = module.get_parameter(key).grad
        torch.testing.assert_close(found, weight.grad, rtol=1e-4, atol=1e-6, msg=key)
    assert len(list(module.parameters())) == len(list(network.parameters()))


def answer(path: Path, *inputs: Tensor) -> Tensor:
    """The output in onnxruntime."""
    return torch.from_numpy(run(path, *inputs)[0])


def trained(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        module(*inputs).square().mean().backward()
        optimizer.step()


@by_exporter
@by_network
def test_weights_are_written_back_to_all_their_places(
    name: str, dynamo: bool, tmp_path: Path
) -> None:
    network, inputs = small(name)
    model, path = exported(network, inputs, dynamo, name), tmp_path / "m.onnx"
    module = OnnxModule(model)
    module.save_onnx(path)
    assert path.read_bytes() == model.SerializeToString()
    before = answer(path, *inputs)
    trained(module, inputs)
    module.save_onnx(path)
    want = module(*inputs)
    torch.testing.assert_close(answer(path, *inputs), want, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(before, want, rtol=1e-3), "a control: training changes the outputs"
    again = OnnxModule(path)
    assert shapes(again.state_dict()) == shapes(module.state_dict())
    torch.testing.assert_close(dict(again.state_dict()), dict(module.state_dict()))
    again.save_onnx(tmp_path / "again.onnx")
    assert (tmp_path / "again.onnx").read_bytes() == path.read_bytes()


def _checkpoint(module: OnnxModule, model: onnx.ModelProto, folder: Path) -> OnnxModule:
    checkpoints.save(model, folder / "m.pth", module=module)
    return checkpoints.load(folder / "m.pth")


def _safetensors(module: OnnxModule, model: onnx.ModelProto, folder: Path) -> OnnxModule:
    module.save_safetensors(folder / "m.safetensors")
    loaded = OnnxModule(model)
    loaded.load_safetensors(folder / "m.safetensors")
    return loaded


COPIES: dict[str, Callable[[OnnxModule, onnx.ModelProto, Path], Any]] = {
    "deepcopy": lambda module, *_: copy.deepcopy(module),
    "pickle": lambda module, *_: pickle.loads(pickle.dumps(module)),
    "checkpoint": _checkpoint,
    "safetensors": _safetensors,
}


@pytest.mark.parametrize("way", COPIES)
@pytest.mark.parametrize("name", ["halves", "lstm", "normalized"])
@by_exporter
def test_copies_have_the_same_weights_and_ties(
    name: str, dynamo: bool, way: str, tmp_path: Path
) -> None:
    network, inputs = small(name)
    model = exported(network, inputs, dynamo, name)
    module = OnnxModule(model)
    trained(module, inputs)
    twin = COPIES[way](module, model, tmp_path)
    torch.testing.assert_close(twin(*inputs), module(*inputs))
    assert list(twin.state_dict()) == list(module.state_dict())
    assert len(list(twin.parameters())) == len(list(module.parameters()))
    module.save_onnx(tmp_path / "one.onnx")
    twin.save_onnx(tmp_path / "two.onnx", like=model)
    assert (tmp_path / "one.onnx").read_bytes() == (tmp_path / "two.onnx").read_bytes()


@by_exporter
def test_a_safetensors_file_of_the_original_loads(dynamo: bool, tmp_path: Path) -> None:
    """It has a tied weight once."""
    from safetensors.torch import save_model

    network, inputs = small("halves")
    module = OnnxModule(exported(network, inputs, dynamo, "halves"))
    save_model(redrawn(network), str(tmp_path / "m.safetensors"))
    module.load_safetensors(tmp_path / "m.safetensors")
    torch.testing.assert_close(module(*inputs), network(*inputs))


@by_exporter
def test_a_name_of_the_file_is_an_alias(dynamo: bool) -> None:
    network, inputs = small("lstm")
    module = OnnxModule(exported(network, inputs, dynamo, "lstm"))
    packed = [n for n, stored in module.weights.stored.items() if len(stored.names) > 1]
    assert len(packed) == 7
    for name in packed:
        with pytest.raises(KeyError, match=r"is stored as the weights '(both|one)\.\w+_l[01]"):
            module.weights[name]
    assert not set(packed) & set(module.weights)
    assert module.freeze(packed[0]) == module.weights.stored[packed[0]].names
    network, inputs = small("head")
    module = OnnxModule(exported(network, inputs, dynamo, "head"))
    (alias,) = [n for n, stored in module.weights.stored.items() if "mix.weight" in stored.names]
    assert alias in module.weights
    assert module.weights[alias] is module.get_parameter("mix.weight")
    assert module.freeze(alias) == ("mix.weight",)
    chosen = OnnxModule(exported(network, inputs, dynamo, "head"), trainable=[alias, "head.*"])
    assert {n for n, p in chosen.named_parameters() if p.requires_grad} == {
        "mix.weight",
        *(n for n, p in chosen.named_parameters() if p is chosen.get_parameter("head.weight")),
    }


@by_exporter
@pytest.mark.parametrize("choice", [{"tie": False}, {"untie": "*head.weight"}])
def test_equal_tensors_train_apart_where_the_user_says_so(
    dynamo: bool, choice: dict[str, Any], tmp_path: Path
) -> None:
    network, inputs = small("head")
    model = exported(network, inputs, dynamo, "head")
    module = OnnxModule(model, **choice)
    assert len(list(module.parameters())) == len(list(network.parameters())) + 1
    trained(module, inputs)
    module.save_onnx(tmp_path / "m.onnx")
    found = answer(tmp_path / "m.onnx", *inputs)
    torch.testing.assert_close(found, module(*inputs), rtol=1e-4, atol=1e-5)
    twin = _checkpoint(module, model, tmp_path)
    torch.testing.assert_close(twin(*inputs), module(*inputs))


def test_a_broken_tie_is_not_written(tmp_path: Path) -> None:
    network, inputs = small("halves")
    module = OnnxModule(exported(network, inputs, False, "halves"))
    module.decoder.embed.weight = nn.Parameter(torch.zeros(31, 12))
    with pytest.raises(SaveError, match="must be equal: they are one tensor in the file"):
        module.save_onnx(tmp_path / "m.onnx")


def test_a_wrong_name_is_reported_with_a_similar_one() -> None:
    network, inputs = small("head")
    module = OnnxModule(exported(network, inputs, False, "head"))
    state = network.state_dict()
    state["mix.wieght"] = state.pop("mix.weight")
    with pytest.raises(RuntimeError, match=r"'mix\.wieght' resembles the missing 'mix\.weight'"):
        module.load_state_dict(state)


@by_exporter
@by_network
def test_linear_layers_run_with_the_original_weight(name: str, dynamo: bool) -> None:
    """No step transposes or packs a weight at each call."""
    network, inputs = small(name)
    plan = str(OnnxModule(exported(network, inputs, dynamo, name)).plan)
    assert "linear_of_columns" not in plan
    assert "packed_" not in plan
    assert "= mat_mul(" not in plan or name in ("halves", "twice", "copies")
