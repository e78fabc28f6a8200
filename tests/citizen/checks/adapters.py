"""Adapters, quantization, pruning and new heads attach to the layers of the original, and train."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize, prune

from onnxinterp import OnnxModule
from tests.citizen.checks.comparing import (
    GRADIENTS,
    VALUES,
    Inputs,
    backward,
    gradients,
    loss,
    relative_error,
    require,
    same,
    same_gradients,
    same_names,
    same_outputs,
    same_values,
    tensors,
)
from tests.citizen.checks.table import LEAVES, row
from tests.citizen.networks import blocks, layers

RANK = 2
INT8 = 2e-3  # a rounding error of inputs may move one by a step of its scale


def untied(original: nn.Module, *kinds: type[nn.Module]) -> list[str]:
    """Linear layers, or others, with a weight of their own."""
    count: dict[int, int] = {}
    for _, p in original.named_parameters(remove_duplicate=False):
        count[id(p)] = count.get(id(p), 0) + 1
    names = layers(original, *(kinds or (nn.Linear,)))
    return [n for n in names if count[id(original.get_parameter(f"{n}.weight"))] == 1]


def fill(named: Sequence[tuple[str, Tensor]]) -> None:
    """Give tensors values that depend on their names alone."""
    for name, tensor in named:
        seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big")
        with torch.no_grad():
            tensor.copy_(
                0.3 * torch.randn(tensor.shape, generator=torch.Generator().manual_seed(seed))
            )


def _same_training(original: nn.Module, module: nn.Module, inputs: Inputs, part: str) -> None:
    """The parameters of the adapters, with equal values, have equal gradients and equal effect."""
    for m in (module, original):
        fill([(n, p) for n, p in m.named_parameters() if part in n])
    before = [{n: p for n, p in m.named_parameters() if part in n} for m in (module, original)]
    same_names(before[0], before[1], "parameters of the adapters")
    require(bool(before[1]), "the original must have adapters")
    same_values(module(*inputs), original(*inputs), "outputs")
    got, want = (
        {n: g for n, g in backward(m, inputs).items() if part in n} for m in (module, original)
    )
    require(any(float(g.norm()) > 0 for g in want.values()), "adapters must have a gradient")
    same(got, want, "gradients of the adapters", GRADIENTS)


def _peft(original: nn.Module, module: nn.Module, inputs: Inputs, **target: list[str]) -> None:
    from peft import LoraConfig, get_peft_model

    got, want = (
        get_peft_model(m, LoraConfig(r=RANK, lora_alpha=RANK, **target)) for m in (module, original)
    )
    _same_training(want, got, inputs, "lora_")
    merged = [m.merge_and_unload() for m in (got, want)]
    same_outputs(merged[1], merged[0], inputs)


@row(
    "adapters",
    'PEFT LoRA target_modules, leaves="nn"',
    "noise",
    "renamed",
    "shadow",
    "untyped",
    "detached",
    package="peft",
    options=LEAVES,
)
def peft_modules(original: nn.Module, module: nn.Module, inputs: Inputs) -> None:
    _peft(original, module, inputs, target_modules=untied(original))


@row(
    "adapters",
    "PEFT LoRA target_modules without leaves: trains or raises",
    "noise",
    "shadow",
    package="peft",
)
def peft_refuses(original: nn.Module, module: nn.Module, inputs: Inputs) -> None:
    """What must not be: adapters that are attached and have no effect."""
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(r=RANK, target_modules=untied(original))
    want = get_peft_model(original, config)
    try:
        got = get_peft_model(module, config)
    except ValueError:
        return
    _same_training(want, got, inputs, "lora_")


@row("adapters", "PEFT LoRA target_parameters", "noise", "shadow", "detached", package="peft")
def peft_parameters(original: nn.Module, module: nn.Module, inputs: Inputs) -> None:
    names = [f"{n}.weight" for n in untied(original)]
    _peft(original, module, inputs, target_parameters=names, target_modules=[])


class Low(nn.Module):
    """weight + up @ down, the meaning of LoRA."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.lora_B = nn.Parameter(torch.zeros(weight.shape[0], RANK))
        self.lora_A = nn.Parameter(torch.zeros(RANK, weight.shape[1]))

    def forward(self, weight: Tensor) -> Tensor:
        return weight + self.lora_B @ self.lora_A


@row("adapters", "parametrize: LoRA by hand", "noise", "renamed", "shadow", "detached")
def parametrized(original: nn.Module, module: nn.Module, inputs: Inputs) -> None:
    for m in (module, original):
        for name in untied(original):
            layer = m.get_submodule(name)
            parametrize.register_parametrization(layer, "weight", Low(layer.weight))
    _same_training(original, module, inputs, "lora_")


@row("adapters", "add_lora, against LoRA by hand", "noise", "shadow", "detached")
def add_lora(original: nn.Module, module: nn.Module, inputs: Inputs) -> None:
    """Its adapters have names of their own, so they are compared by their layers."""
    names = untied(original)
    found = []
    for m in (module, original):
        before = {id(p) for p in m.parameters()}
        if isinstance(m, OnnxModule):
            m.add_lora([f"{n}.weight" for n in names], rank=RANK, alpha=RANK)
        else:
            for name in names:
                layer = m.get_submodule(name)
                parametrize.register_parametrization(layer, "weight", Low(layer.weight))
        added = [p for p in m.parameters() if id(p) not in before]
        found.append({_place(m, p, names): p for p in added})
    same_names(found[0], found[1], "adapters")
    for adapters in found:
        fill(sorted(adapters.items()))
    same_values(module(*inputs), original(*inputs), "outputs")
    results = []
    for m, adapters in zip((module, original), found, strict=True):
        loss(m(*inputs)).backward()
        results.append({n: p.grad for n, p in adapters.items() if p.grad is not None})
    require(any(float(g.norm()) > 0 for g in results[1].values()), "adapters must have a gradient")
    same(results[0], results[1], "gradients of the adapters", GRADIENTS)


def _place(module: nn.Module, parameter: Tensor, names: Sequence[str]) -> str:
    """The layer of an adapter, and on which side of the product it is: up is [out, rank]."""
    name = next(n for n, p in module.named_parameters() if p is parameter)
    layer = max((n for n in names if n in name), key=len, default=name)
    return f"{layer} {'up' if parameter.shape[1] == RANK else 'down'}"


@row(
    "adapters",
    'torchao quantize_ int8 weight-only, leaves="nn"',
    "noise",
    "untyped",
    package="torchao",
    options=LEAVES,
)
def torchao_int8(original: nn.Module, module: nn.Module, inputs: Inputs) -> None:
    from torchao.quantization import Int8WeightOnlyConfig, quantize_

    _quantized(original, module, inputs, lambda m: quantize_(m, Int8WeightOnlyConfig()))


def _quantized(
    original: nn.Module, module: nn.Module, inputs: Inputs, quantize: Callable[[nn.Module], object]
) -> None:
    """Outputs are equal, and differ from those before."""
    with torch.no_grad():
        plain = original(*inputs)
        for m in (module, original):
            quantize(m)
        got, want = module(*inputs), original(*inputs)
    same_values(got, want, "outputs")
    changes = [relative_error(a, b) for a, b in zip(tensors(want), tensors(plain), strict=True)]
    require(max(changes) > 10 * VALUES, "quantization must change the outputs", max(changes))


@row(
    "adapters",
    'torchao QAT, leaves="nn"',
    "noise",
    "shadow",
    "untyped",
    "detached",
    package="torchao",
    options=LEAVES,
)
def torchao_qat(original: nn.Module, module: nn.Module, inputs: Inputs) -> None:
    from torchao.quantization import quantize_
    from torchao.quantization.qat import IntxFakeQuantizeConfig, QATConfig

    config = IntxFakeQuantizeConfig(torch.int8, "per_channel", is_symmetric=True)

    def prepare(m: nn.Module) -> None:
        quantize_(m, QATConfig(weight_config=config, step="prepare"))

    _quantized(original, module, inputs, prepare)
    same_gradients(original, module, inputs)


@row(
    "adapters",
    'quantize_dynamic of nn.Linear, leaves="nn"',
    "noise",
    "renamed",
    "shadow",
    "untyped",
    options=LEAVES,
)
def dynamic(original: nn.Module, module: nn.Module, inputs: Inputs) -> None:
    from torch.ao.nn.quantized import dynamic as kinds
    from torch.ao.quantization import quantize_dynamic

    plain = original(*inputs)
    got, want = (quantize_dynamic(m, {nn.Linear}, dtype=torch.qint8) for m in (module, original))
    layers_got, layers_want = (
        {n for n, layer in m.named_modules() if isinstance(layer, kinds.Linear)}
        for m in (got, want)
    )
    same_names(layers_got, layers_want, "quantized layers")
    results = got(*inputs), want(*inputs)
    same_values(*results, "outputs", INT8)
    changes = [
        relative_error(a, b) for a, b in zip(tensors(results[1]), tensors(plain), strict=True)
    ]
    require(max(changes) > 2 * INT8, "quantization must change the outputs", max(changes))


@row("adapters", "prune and its mask", "noise", "renamed", "shadow", "detached")
def pruned(original: nn.Module, module: nn.Module, inputs: Inputs) -> None:
    names = untied(original, nn.Linear, nn.Conv2d)
    for m in (module, original):
        for name in names:
            prune.l1_unstructured(m.get_submodule(name), "weight", 0.5)
    same_outputs(original, module, inputs)
    same_gradients(original, module, inputs)
    for m in (module, original):
        for name in names:
            prune.remove(m.get_submodule(name), "weight")
    same_outputs(original, module, inputs)
    same_names(dict(module.named_parameters()), dict(original.named_parameters()), "parameters")


@row("adapters", "parametrizations.weight_norm", "noise", "renamed", "shadow", "detached")
def weight_norm(original: nn.Module, module: nn.Module, inputs: Inputs) -> None:
    for m in (module, original):
        for name in untied(original, nn.Linear, nn.Conv2d):
            parametrizations.weight_norm(m.get_submodule(name))
    same_outputs(original, module, inputs)
    same_gradients(original, module, inputs)


def _set(module: nn.Module, name: str, child: nn.Module) -> None:
    parent, _, leaf = name.rpartition(".")
    setattr(module.get_submodule(parent), leaf, child)


@row("adapters", "a new head by assignment", "noise", "shadow", "detached")
def new_head(original: nn.Module, module: nn.Module, inputs: Inputs) -> None:
    """`m.fc = nn.Linear(...)`, of another size."""
    name = layers(original, nn.Linear)[-1]
    size = original.get_submodule(name).in_features
    for m in (module, original):
        head = nn.Linear(size, 3)
        fill(list(head.named_parameters()))
        _set(m, name, head)
    same_outputs(original, module, inputs)
    same_gradients(original, module, inputs)


class Halved(nn.Module):
    """Another module around a block."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.block = block
        self.scale = nn.Parameter(torch.tensor(0.5))

    def forward(self, *args: Tensor) -> object:
        output = self.block(*args)
        if isinstance(output, Tensor):
            return self.scale * output
        return (self.scale * output[0], *output[1:])


@row("adapters", "a block wrapped by assignment", "noise", "shadow", "detached")
def wrapped(original: nn.Module, module: nn.Module, inputs: Inputs) -> None:
    name = blocks(original)[0]
    for m in (module, original):
        _set(m, name, Halved(m.get_submodule(name)))
    same_outputs(original, module, inputs)
    got, want = (
        {n.replace(f"{name}.block.", f"{name}."): g for n, g in backward(m, inputs).items()}
        for m in (module, original)
    )
    same(got, want, "gradients", GRADIENTS)


@row("adapters", "requires_grad_(False) on each block", "noise", "detached")
def frozen(original: nn.Module, module: nn.Module, inputs: Inputs) -> None:
    for name in blocks(original):
        for m in (module, original):
            m.zero_grad()
            m.get_submodule(name).requires_grad_(False)
            loss(m(*inputs)).backward()
        same(gradients(module), gradients(original), "gradients", GRADIENTS)
