"""Names, shapes and ties are those of the original, and so are the tools that go by name."""

from __future__ import annotations

import copy
import io
import tempfile
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.utils import parameters_to_vector, vector_to_parameters
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from tests.citizen.checks.comparing import (
    Inputs,
    backward,
    relative_error,
    require,
    same,
    same_names,
    same_outputs,
    same_values,
    tensors,
)
from tests.citizen.checks.table import LEAVES, row
from tests.citizen.networks import another, layers

COUNTER = "num_batches_tracked"  # ONNX has none, and nn.Module.load_state_dict asks for none


def state(module: nn.Module) -> dict[str, Tensor]:
    """The state dict without counters of batches."""
    return {k: v for k, v in module.state_dict().items() if not k.endswith(COUNTER)}


def is_tied(original: nn.Module) -> bool:
    """Whether a parameter has two names."""
    return any(len(names) > 1 for names in ties(original))


def ties(module: nn.Module) -> set[tuple[str, ...]]:
    """Names of each parameter."""
    names: dict[int, list[str]] = {}
    for name, parameter in module.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    return {tuple(sorted(n)) for n in names.values()}


@row("names", "state_dict: keys", "renamed")
def keys(original: nn.Module, module: nn.Module, inputs: Inputs) -> None:
    same_names(state(module), state(original), "entries of the state dict")


@row("names", "state_dict: shapes, dtypes, values", "renamed", "noise")
def entries(original: nn.Module, module: nn.Module, inputs: Inputs) -> None:
    same(state(module), state(original), "entries of the state dict")


@row("names", "load_state_dict(other weights, strict)", "renamed")
def strict_load(original: nn.Module, module: nn.Module, inputs: Inputs) -> None:
    _takes(original, module, inputs, another(original).state_dict())


def _takes(
    original: nn.Module, module: nn.Module, inputs: Inputs, weights: Mapping[str, Tensor]
) -> None:
    """Both get other weights, which change the outputs in the same way."""
    before = _first(original, inputs)
    module.load_state_dict(weights)
    original.load_state_dict(weights)
    change = relative_error(_first(original, inputs), before)
    require(change > 0.1, "other weights must change the outputs")
    same_outputs(original, module, inputs)


@torch.no_grad()
def _first(module: nn.Module, inputs: Inputs) -> Tensor:
    return next(tensors(module(*inputs)))


@row("names", "original.load_state_dict(m.state_dict(), strict)", "renamed", "noise")
def load_back(original: nn.Module, module: nn.Module, inputs: Inputs) -> None:
    target = another(original)
    target.load_state_dict(module.state_dict())
    same_outputs(original, target, inputs)


@row("names", "load_state_dict(assign=True) from meta", "renamed")
def from_meta(original: nn.Module, module: nn.Module, inputs: Inputs) -> None:
    source = another(original)
    module.to("meta").load_state_dict(source.state_dict(), assign=True)
    buffers = {n for n, b in original.to("meta").named_buffers() if n not in original.state_dict()}
    for name in buffers:  # what no state dict holds is made anew by the user of the original
        _put(original, name, dict(source.named_buffers())[name])
        if name in dict(module.named_buffers()):
            _put(module, name, dict(source.named_buffers())[name])
    original.load_state_dict(source.state_dict(), assign=True)
    same_outputs(original, module, inputs)


def _put(module: nn.Module, name: str, buffer: Tensor) -> None:
    owner, _, leaf = name.rpartition(".")
    module.get_submodule(owner)._buffers[leaf] = buffer


@row("names", "named_parameters: names, shapes, ties", "renamed")
def parameters(original: nn.Module, module: nn.Module, inputs: Inputs) -> None:
    got, want = (
        {n: list(p.shape) for n, p in m.named_parameters(remove_duplicate=False)}
        for m in (module, original)
    )
    same_names(got, want, "parameters")
    require(got == want, "parameters have other shapes", str(got))
    require(ties(module) == ties(original), "parameters have other ties")
    same_names(dict(module.named_parameters()), dict(original.named_parameters()), "parameters")


@row("names", "named_parameters: order", "renamed")
def order(original: nn.Module, module: nn.Module, inputs: Inputs) -> None:
    """Optimizer state, parameters_to_vector and some checkpoints go by position."""
    got, want = ([n for n, _ in m.named_parameters()] for m in (module, original))
    same_names(got, want, "parameters")
    wrong = [pair for pair in zip(got, want, strict=True) if pair[0] != pair[1]]
    require(not wrong, "parameters come in another order", str(wrong[:1]))


@row("names", "named_buffers: statistics, nothing more", "unknown")
def buffers(original: nn.Module, module: nn.Module, inputs: Inputs) -> None:
    """What is broadcast, offloaded and summed up; constants of the original may be folded."""
    got, want = (
        {n for n, _ in m.named_buffers() if not n.endswith(COUNTER)} for m in (module, original)
    )
    statistics = {n for n in want if "running" in n}
    same_names(got & statistics, statistics, "statistics")
    require(got <= want, "buffers that the original lacks", f"{len(got - want)}")


@row("names", "parameters_to_vector, vector_to_parameters", "noise", "renamed")
def vectors(original: nn.Module, module: nn.Module, inputs: Inputs) -> None:
    order(original, module, inputs)
    vector = parameters_to_vector(original.parameters())
    same_values(parameters_to_vector(module.parameters()), vector, "vectors")
    vector_to_parameters(0.9 * vector, module.parameters())
    vector_to_parameters(0.9 * vector, original.parameters())
    same_outputs(original, module, inputs)


@row("names", "get_submodule, get_parameter of each layer", "noise")
def lookups(original: nn.Module, module: nn.Module, inputs: Inputs) -> None:
    for layer in layers(original):
        own = dict(original.get_submodule(layer).named_parameters())
        same(dict(module.get_submodule(layer).named_parameters()), own, "parameters of a layer")
        for name, parameter in own.items():
            found = module.get_parameter(f"{layer}.{name}")
            require(found.shape == parameter.shape, "get_parameter has another shape", name)


@row("names", "named_modules: the tree of layers", "renamed")
def tree(original: nn.Module, module: nn.Module, inputs: Inputs) -> None:
    want = [n for n, m in original.named_modules() if any(True for _ in m.parameters())]
    got = [n for n, m in module.named_modules() if any(True for _ in m.parameters())]
    same_names(got, want, "modules with weights")


@row("names", "weight decay by name (no bias, no norm)", "renamed")
def decay_by_name(original: nn.Module, module: nn.Module, inputs: Inputs) -> None:
    for group in (True, False):
        got, want = (
            {n for n, _ in m.named_parameters() if _decays(n) is group} for m in (module, original)
        )
        same_names(got, want, "parameters of a group")


def _decays(name: str) -> bool:
    return not any(part in name for part in ("bias", "norm", "ln_", "bn"))


@row("names", 'weight decay by type of layer, leaves="nn"', "renamed", "untyped", options=LEAVES)
def decay_by_type(original: nn.Module, module: nn.Module, inputs: Inputs) -> None:
    """As in minGPT: weights of linear layers and convolutions decay."""
    kinds = (nn.Linear, nn.Conv2d)
    got, want = (
        {f"{n}.weight" for n, layer in m.named_modules() if isinstance(layer, kinds)}
        for m in (module, original)
    )
    same_names(got, want, "parameters of a group")


@row("names", "safetensors save_model, load_model", "renamed", "noise", package="safetensors")
def safetensors_model(original: nn.Module, module: nn.Module, inputs: Inputs) -> None:
    from safetensors.torch import load_model, save_model

    with tempfile.TemporaryDirectory() as folder:
        path, target = Path(folder) / "m.safetensors", another(original)
        save_model(module, str(path))
        load_model(target, str(path))
        same_outputs(original, target, inputs)
        save_model(another(original), str(path))
        load_model(module, str(path))
        load_model(original, str(path))
        same_outputs(original, module, inputs)


@row("names", "safetensors save_file(original.state_dict())", "renamed", package="safetensors")
def safetensors_file(original: nn.Module, module: nn.Module, inputs: Inputs) -> None:
    from safetensors.torch import load_file, save_file

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "m.safetensors"
        save_file(another(original).state_dict(), path)
        _takes(original, module, inputs, load_file(path))


@row("names", "torch.save, torch.load of the original's weights", "renamed")
def torch_save(original: nn.Module, module: nn.Module, inputs: Inputs) -> None:
    buffer = io.BytesIO()
    torch.save(another(original).state_dict(), buffer)
    buffer.seek(0)
    _takes(original, module, inputs, torch.load(buffer, weights_only=True))


class Outer(nn.Module):
    """A network of the user's, with another inside."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, *inputs: Tensor) -> object:
        return self.backbone(*inputs)


@row("names", "inside another module: keys, load_state_dict", "renamed")
def nested(original: nn.Module, module: nn.Module, inputs: Inputs) -> None:
    weights = Outer(another(original)).state_dict()
    _takes(Outer(original), Outer(module), inputs, weights)
    same_names(state(Outer(module)), state(Outer(original)), "entries of the state dict")


@row("names", "functional_call with the original's parameters", "renamed")
def by_call(original: nn.Module, module: nn.Module, inputs: Inputs) -> None:
    weights = dict(another(original).named_parameters())
    got, want = (functional_call(m, weights, inputs, strict=False) for m in (module, original))
    same_values(got, want, "outputs")
    same_names(dict(module.named_parameters()), weights, "parameters")


@row("names", "AveragedModel (EMA) and back", "renamed", "noise")
def average(original: nn.Module, module: nn.Module, inputs: Inputs) -> None:
    """The average of the import is loaded into the original, as for evaluation."""
    swapped = another(original)
    averages = [
        AveragedModel(m, multi_avg_fn=get_ema_multi_avg_fn(0.5)) for m in (module, original)
    ]
    for m, averaged in zip((module, original), averages, strict=True):
        averaged.update_parameters(m)
        backward(m, inputs)
        torch.optim.SGD(m.parameters(), lr=0.1).step()
        averaged.update_parameters(m)
    same_outputs(averages[1].module, averages[0].module, inputs)
    swapped.load_state_dict(averages[0].module.state_dict())
    same_outputs(averages[1].module, swapped, inputs)
    module.load_state_dict(averages[1].module.state_dict())
    same_outputs(averages[1].module, module, inputs)


@row("names", "an optimizer goes on with the original's state", "renamed")
def optimizer_state(original: nn.Module, module: nn.Module, inputs: Inputs) -> None:
    order(original, module, inputs)
    first = torch.optim.SGD(original.parameters(), lr=0.05, momentum=0.9)
    backward(original, inputs)
    first.step()
    module.load_state_dict(original.state_dict())
    second = torch.optim.SGD(module.parameters(), lr=0.05, momentum=0.9)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    for m, optimizer in ((original, first), (module, second)):
        backward(m, inputs)
        optimizer.step()
    same_outputs(original, module, inputs)
