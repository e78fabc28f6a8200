"""Hooks on the modules of the original see and change the same values."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import (
    apply_activation_checkpointing,
    checkpoint_wrapper,
)
from torch.utils.flop_counter import FlopCounterMode

from tests.citizen.checks.comparing import (
    GRADIENTS,
    VALUES,
    Inputs,
    backward,
    gradients,
    loss,
    require,
    same,
    same_gradients,
    same_names,
    same_values,
    tensors,
)
from tests.citizen.checks.table import row
from tests.citizen.networks import LAYERS, blocks, layers

ONE_OUTPUT = tuple(kind for kind in LAYERS if kind is not nn.LSTM)  # captum asks for it

SAME_WORK = 0.02  # of the FLOPs of a step; those of fused attention are not counted

Seen = dict[str, list[Any]]


def outputs_of(module: nn.Module, names: Sequence[str], inputs: Inputs) -> Seen:
    """What forward hooks on some modules see, one entry a call."""
    seen: Seen = {name: [] for name in names}
    for name in names:
        module.get_submodule(name).register_forward_hook(
            lambda _m, _args, output, name=name: seen[name].append(output)
        )
    module(*inputs)
    return seen


def _same_seen(got: Seen, want: Seen, what: str, rtol: float) -> None:
    for name, calls in want.items():
        require(bool(got[name]), f"hooks for {what} do not run", name)
        counts = f"{name} {len(got[name])} times for {len(calls)}"
        require(
            len(got[name]) == len(calls), f"hooks for {what} run another number of times", counts
        )
        same_values(got[name], calls, what, rtol)


@row("hooks", "forward hook on each block", "noise", "shadow")
def forward_blocks(original: nn.Module, module: nn.Module, inputs: Inputs) -> None:
    _forward(original, module, inputs, blocks(original))


@row("hooks", "forward hook on each layer", "noise", "shadow")
def forward_layers(original: nn.Module, module: nn.Module, inputs: Inputs) -> None:
    _forward(original, module, inputs, layers(original))


def _forward(original: nn.Module, module: nn.Module, inputs: Inputs, names: Sequence[str]) -> None:
    got, want = (outputs_of(m, names, inputs) for m in (module, original))
    _same_seen(got, want, "outputs of modules", VALUES)


@row("hooks", "forward pre-hook on each block", "noise", "shadow")
def pre_hooks(original: nn.Module, module: nn.Module, inputs: Inputs) -> None:
    """The first input; masks and caches behind it may come from elsewhere in a graph."""
    found: list[Seen] = []
    for m in (module, original):
        seen: Seen = {name: [] for name in blocks(original)}
        for name in seen:
            m.get_submodule(name).register_forward_pre_hook(
                lambda _m, args, seen=seen, name=name: seen[name].append(args[0])
            )
        m(*inputs)
        found.append(seen)
    _same_seen(found[0], found[1], "inputs of modules", VALUES)


def _first(output: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """The same output, its first tensor changed."""
    if isinstance(output, Tensor):
        return change(output)
    return (change(output[0]), *output[1:])


def _ramp(x: Tensor) -> Tensor:
    """Another factor for each feature, which no normalization takes back."""
    return x * torch.linspace(0.5, 1.5, x.shape[-1])


@row("hooks", "forward hook that changes the output", "noise", "shadow")
def changing(original: nn.Module, module: nn.Module, inputs: Inputs) -> None:
    plain = original(*inputs)
    for name in blocks(original):
        results = []
        for m in (module, original):
            handle = m.get_submodule(name).register_forward_hook(
                lambda _m, _args, output: _first(output, _ramp)
            )
            results.append(m(*inputs))
            handle.remove()
        change = _distance(results[1], plain)
        require(change > 1e-3, "the hook must change the original", name)
        same_values(results[0], results[1], "outputs")


def _distance(got: Any, want: Any) -> float:
    return max(float((a - b).abs().max()) for a, b in zip(tensors(got), tensors(want), strict=True))


@row("hooks", "a block called by itself", "noise", "shadow")
def alone(original: nn.Module, module: nn.Module, inputs: Inputs) -> None:
    """With the inputs that it got in a call of the whole."""
    with torch.no_grad():
        want = outputs_of(original, blocks(original), inputs)
        for name in blocks(original):
            given: list[Inputs] = []
            block = module.get_submodule(name)
            handle = block.register_forward_pre_hook(
                lambda _m, args, given=given: given.append(args)
            )
            module(*inputs)
            handle.remove()
            require(bool(given), "hooks for inputs of modules do not run", name)
            same_values(block(*given[0]), want[name][0], "outputs of modules")


@row("hooks", "full backward hook on each block", "noise", "shadow", "detached")
def backward_hooks(original: nn.Module, module: nn.Module, inputs: Inputs) -> None:
    """The gradient of its output and of its first input."""
    found: list[Seen] = []
    for m in (module, original):
        seen: Seen = {name: [] for name in blocks(original)}
        for name in seen:
            m.get_submodule(name).register_full_backward_hook(
                lambda _m, before, after, seen=seen, name=name: seen[name].append(
                    (next(tensors(after)), next(tensors(before)))
                )
            )
        backward(m, inputs)
        found.append(seen)
    _same_seen(found[0], found[1], "gradients at modules", GRADIENTS)
    same(gradients(module), gradients(original), "gradients", GRADIENTS)


@row("hooks", "full backward pre-hook that scales the gradient", "noise", "shadow", "detached")
def scaling(original: nn.Module, module: nn.Module, inputs: Inputs) -> None:
    for m in (module, original):
        m.get_submodule(blocks(original)[0]).register_full_backward_pre_hook(
            lambda _m, after: tuple(None if g is None else 0.5 * g for g in after)
        )
    same_gradients(original, module, inputs)


@row("hooks", "Grad-CAM by hand (last block)", "noise", "shadow")
def grad_cam(original: nn.Module, module: nn.Module, inputs: Inputs) -> None:
    name = blocks(original)[-1]
    got, want = (_cam(m, name, inputs) for m in (module, original))
    same_values(got, want, "maps", GRADIENTS)


def _cam(module: nn.Module, name: str, inputs: Inputs) -> Tensor:
    kept: list[Tensor] = []
    handle = module.get_submodule(name).register_forward_hook(
        lambda _m, _args, output: kept.append(next(tensors(output)))
    )
    score = loss(module(*inputs))
    handle.remove()
    require(bool(kept), "hooks for outputs of modules do not run", name)
    (gradient,) = torch.autograd.grad(score, kept[0])
    places, features = ((2, 3), 1) if gradient.ndim == 4 else ((1,), -1)
    return (gradient.mean(places, keepdim=True) * kept[0]).sum(features).relu()


@row("hooks", "captum LayerActivation", "noise", "shadow", package="captum")
def layer_activation(original: nn.Module, module: nn.Module, inputs: Inputs) -> None:
    from captum.attr import LayerActivation

    for name in layers(original, *ONE_OUTPUT):
        got, want = (
            LayerActivation(m, m.get_submodule(name)).attribute(inputs) for m in (module, original)
        )
        same_values(got, want, "activations")


def _scores(module: nn.Module) -> Callable[..., Tensor]:
    """One number for each example."""

    def forward(*inputs: Tensor) -> Tensor:
        return next(tensors(module(*inputs))).flatten(1).tanh().sum(1)

    return forward


@row("hooks", "captum LayerGradCam", "noise", "shadow", "detached", package="captum")
def layer_grad_cam(original: nn.Module, module: nn.Module, inputs: Inputs) -> None:
    from captum.attr import LayerGradCam

    got, want = (
        LayerGradCam(_scores(m), m.get_submodule(_plain_layer(original))).attribute(inputs)
        for m in (module, original)
    )
    same_values(got, want, "attributions", GRADIENTS)


def _plain_layer(original: nn.Module) -> str:
    """A layer in the first block with one output, since captum takes no more."""
    first = blocks(original)[0]
    inside = [n for n in layers(original, nn.Linear, nn.Conv2d) if n.startswith(f"{first}.")]
    return inside[0] if inside else layers(original, nn.Embedding)[0]


@row("hooks", "captum LayerIntegratedGradients", "noise", "shadow", package="captum")
def layer_integrated(original: nn.Module, module: nn.Module, inputs: Inputs) -> None:
    from captum.attr import LayerIntegratedGradients

    got, want = (
        LayerIntegratedGradients(_scores(m), m.get_submodule(_plain_layer(original))).attribute(
            inputs,
            n_steps=3,
            internal_batch_size=len(inputs[0]),  # the batch of the file
        )
        for m in (module, original)
    )
    same_values(got, want, "attributions", GRADIENTS)


@row("hooks", "torchinfo.summary: a line for each layer", "shadow", "renamed", package="torchinfo")
def summary(original: nn.Module, module: nn.Module, inputs: Inputs) -> None:
    """Name, depth, size of the output and number of parameters of what has weights."""
    from torchinfo import summary as summarize

    wanted = set(layers(original))
    lines = []
    for m in (module, original):
        found = summarize(m, input_data=inputs, verbose=0, col_names=("output_size", "num_params"))
        rows = _lines(m, found)
        lines.append({n: r for n, r in rows.items() if n in wanted})
    same_names(lines[0], lines[1], "lines of the summary")
    for name, expected in lines[1].items():
        detail = f"{name} {lines[0][name]} for {expected}"
        require(lines[0][name] == expected, "lines of the summary differ", detail)


def _lines(module: nn.Module, found: Any) -> dict[str, tuple[Any, ...]]:
    names = {id(layer): name for name, layer in module.named_modules()}
    return {
        names[info.layer_id]: (info.depth, list(info.output_size), info.num_params)
        for info in found.summary_list
        if info.output_size
    }


@row(
    "hooks",
    "FlopCounterMode: totals by module, fuse=False",
    "shadow",
    "renamed",
    options={"fuse": False},
)
def flops(original: nn.Module, module: nn.Module, inputs: Inputs) -> None:
    """Nodes that run as fused attention are not fused: torch counts none of it on a CPU."""
    got, want = (_flops(m, inputs) for m in (module, original))
    wanted = {n for n in (*blocks(original), *layers(original), "") if n in want}
    same_names({n for n in wanted if n in got}, wanted, "modules with FLOPs")
    for name in sorted(wanted):
        detail = f"{name or 'all'} {got[name]} for {want[name]}"
        require(got[name] == want[name], "FLOPs differ", detail)


def _flops(module: nn.Module, inputs: Inputs) -> dict[str, int]:
    """Totals by module name; torch puts the class of the root before them."""
    counter = FlopCounterMode(display=False)
    with counter:
        module(*inputs)
    return {
        name.partition(".")[2]: sum(counts.values())
        for name, counts in counter.get_flop_counts().items()
        if name != "Global" and sum(counts.values())
    }


@row("hooks", "checkpoint_wrapper on each block", "noise", "shadow", "detached")
def checkpointing(original: nn.Module, module: nn.Module, inputs: Inputs) -> None:
    """Gradients are equal, and the forward pass of the blocks runs twice."""
    work = []
    for m in (module, original):
        plain = _training_flops(m, inputs)
        chosen = {id(m.get_submodule(name)) for name in blocks(original)}
        apply_activation_checkpointing(
            m,
            checkpoint_wrapper_fn=checkpoint_wrapper,
            check_fn=lambda layer, chosen=chosen: id(layer) in chosen,
        )
        work.append(_training_flops(m, inputs) / plain)
    ratio = f"{work[0]:.3f} for {work[1]:.3f}"
    require(abs(work[0] - work[1]) < SAME_WORK, "another part is computed twice", ratio)
    got, want = (
        {n.replace("_checkpoint_wrapped_module.", ""): g for n, g in gradients(m).items()}
        for m in (module, original)
    )
    same(got, want, "gradients", GRADIENTS)


def _training_flops(module: nn.Module, inputs: Inputs) -> float:
    counter = FlopCounterMode(display=False)
    with counter:
        backward(module, inputs)
    return float(counter.get_total_flops())
