"""Training steps, transforms and copies do as with the original."""

from __future__ import annotations

import copy
import pickle
import warnings

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, jvp, vmap
from torch.utils.checkpoint import checkpoint

from tests.citizen.checks.comparing import (
    GRADIENTS,
    Inputs,
    backward,
    gradients,
    loss,
    require,
    same,
    same_gradients,
    same_names,
    same_outputs,
    same_values,
)
from tests.citizen.checks.names import is_tied, ties
from tests.citizen.checks.table import row
from tests.citizen.networks import blocks, layers

HALF = 2e-2  # bfloat16 has 8 bits


def _normalizes(original: nn.Module) -> bool:
    return any(isinstance(m, nn.BatchNorm2d) for m in original.modules())


@row("training", "gradients by name", "noise", "renamed", "detached")
def by_name(original: nn.Module, module: nn.Module, inputs: Inputs) -> None:
    same_gradients(original, module, inputs)


@row("training", "gradients by name in train()", "noise", "renamed", "detached")
def in_train_mode(original: nn.Module, module: nn.Module, inputs: Inputs) -> None:
    same_gradients(original.train(), module.train(), inputs)


@row("training", "which parameters require a gradient", "renamed")
def flags(original: nn.Module, module: nn.Module, inputs: Inputs) -> None:
    got, want = (
        {n for n, p in m.named_parameters() if p.requires_grad} for m in (module, original)
    )
    same_names(got, want, "trainable parameters")


@row("training", "3 steps of AdamW", "noise", "detached")
def adamw(original: nn.Module, module: nn.Module, inputs: Inputs) -> None:
    """Outputs, since Adam makes a step of the rounding error of a gradient that is zero."""
    for m in (module, original):
        optimizer = torch.optim.AdamW(m.parameters(), lr=1e-3)
        for _ in range(3):
            optimizer.zero_grad()
            loss(m(*inputs)).backward()
            optimizer.step()
    with torch.no_grad():
        same_values(module(*inputs), original(*inputs), "outputs", GRADIENTS)


@row("training", "3 steps of SGD in train(): parameters", "noise", "renamed", "detached")
def sgd(original: nn.Module, module: nn.Module, inputs: Inputs) -> None:
    for m in (module, original):
        m.train()
        optimizer = torch.optim.SGD(m.parameters(), lr=1e-2, momentum=0.9)
        for _ in range(3):
            optimizer.zero_grad()
            loss(m(*inputs)).backward()
            optimizer.step()
    got, want = (dict(m.named_parameters()) for m in (module, original))
    same(got, want, "parameters", GRADIENTS)


@row("training", "tied weights stay tied, with one gradient", "noise", "renamed", only=is_tied)
def tied(original: nn.Module, module: nn.Module, inputs: Inputs) -> None:
    for m in (module, original):
        optimizer = torch.optim.SGD(m.parameters(), lr=1e-2)
        backward(m, inputs)
        optimizer.step()
    require(ties(module) == ties(original), "parameters have other ties")
    same_gradients(original, module, inputs)


@row(
    "training",
    "BatchNorm in train(): outputs, running statistics",
    "noise",
    only=_normalizes,
)
def statistics(original: nn.Module, module: nn.Module, inputs: Inputs) -> None:
    for m in (module, original):
        m.train()
    same_values(module(*inputs), original(*inputs), "outputs in train()")
    got, want = ({n: b for n, b in m.named_buffers() if "running" in n} for m in (module, original))
    same_names(got, want, "running statistics")
    for part in ("running_mean", "running_var"):
        values = ({n: b for n, b in m.items() if part in n} for m in (got, want))
        same(*values, f"statistics {part}")


@row("training", "BatchNorm layers in eval() inside of train()", "noise", only=_normalizes)
def frozen_statistics(original: nn.Module, module: nn.Module, inputs: Inputs) -> None:
    """As users freeze statistics: layer by layer, all but the first."""
    for m in (module, original):
        m.train()
        for name in layers(original, nn.BatchNorm2d)[1:]:
            m.get_submodule(name).eval()
    same_values(module(*inputs), original(*inputs), "outputs in train()")
    got, want = (
        {n: b for n, b in m.named_buffers() if "running_mean" in n} for m in (module, original)
    )
    same(got, want, "statistics running_mean")


@row("training", "torch.utils.checkpoint of the whole", "noise", "renamed", "detached")
def checkpointed(original: nn.Module, module: nn.Module, inputs: Inputs) -> None:
    for m in (module, original):
        loss(checkpoint(m, *inputs, use_reentrant=False)).backward()
    same(gradients(module), gradients(original), "gradients", GRADIENTS)


@row("training", "clip_grad_norm_", "noise", "renamed", "detached")
def clipped(original: nn.Module, module: nn.Module, inputs: Inputs) -> None:
    norms = []
    for m in (module, original):
        backward(m, inputs)
        norms.append(torch.nn.utils.clip_grad_norm_(m.parameters(), 0.1))
    same_values(norms[0], norms[1], "norms", GRADIENTS)
    same(gradients(module), gradients(original), "gradients", GRADIENTS)


@row("training", "torch.compile (fullgraph, backend eager)", "noise", "renamed", "detached")
def compiled(original: nn.Module, module: nn.Module, inputs: Inputs) -> None:
    torch._dynamo.reset()
    found = [torch.compile(m, backend="eager", fullgraph=True) for m in (module, original)]
    for m in found:
        loss(m(*inputs)).backward()
    same(gradients(module), gradients(original), "gradients", GRADIENTS)
    same_outputs(found[1], found[0], inputs)


@row("training", "compile() of each block", "noise", "shadow", "detached")
def compiled_blocks(original: nn.Module, module: nn.Module, inputs: Inputs) -> None:
    """Regional compilation: at most one graph a block, where the original shares them."""
    from torch._dynamo.testing import CompileCounter  # imports the compiler

    counts = []
    for m in (module, original):
        torch._dynamo.reset()
        counter = CompileCounter()
        for name in blocks(original):
            m.get_submodule(name).compile(backend=counter, fullgraph=True)
        backward(m, inputs)
        counts.append(counter.frame_count)
    require(counts[1] > 0, "blocks of the original must be compiled")
    fits = counts[1] <= counts[0] <= len(blocks(original))
    require(fits, "another number of graphs", f"{counts[0]} for {counts[1]}")
    same(gradients(module), gradients(original), "gradients", GRADIENTS)


@row("training", "autocast to bfloat16", "noise", "detached")
def autocast(original: nn.Module, module: nn.Module, inputs: Inputs) -> None:
    with torch.autocast("cpu", torch.bfloat16):
        got, want = module(*inputs), original(*inputs)
    same_values(got, want, "outputs", HALF)
    for result in (got, want):
        loss(result).backward()
    same(gradients(module), gradients(original), "gradients", 2 * HALF)


@row("training", "double()", "noise", "renamed", "detached")
def doubled(original: nn.Module, module: nn.Module, inputs: Inputs) -> None:
    wide = tuple(x.double() if x.is_floating_point() else x for x in inputs)
    same_gradients(original.double(), module.double(), wide)


def _losses(module: nn.Module, inputs: Inputs) -> tuple[dict[str, Tensor], object]:
    weights = {n: p.detach() for n, p in module.named_parameters()}
    return weights, lambda w, *args: loss(functional_call(module, w, args))


@row("training", "torch.func.grad", "noise", "renamed", "detached")
def func_grad(original: nn.Module, module: nn.Module, inputs: Inputs) -> None:
    results = []
    for m in (module, original):
        weights, function = _losses(m, inputs)
        results.append(grad(function)(weights, *inputs))
    same(results[0], results[1], "gradients", GRADIENTS)


@row("training", "torch.func.vmap over batches", "noise")
def mapped(original: nn.Module, module: nn.Module, inputs: Inputs) -> None:
    stacked = tuple(torch.stack([x, x.flip(0)]) for x in inputs)
    got, want = (vmap(m)(*stacked) for m in (module, original))
    same_values(got, want, "outputs")


@row("training", "vmap(grad): gradients of each batch", "noise", "renamed", "detached")
def per_sample(original: nn.Module, module: nn.Module, inputs: Inputs) -> None:
    stacked = tuple(torch.stack([x, x.flip(0)]) for x in inputs)
    results = []
    for m in (module, original):
        weights, function = _losses(m, inputs)
        places = (None, *(0 for _ in inputs))
        results.append(vmap(grad(function), in_dims=places)(weights, *stacked))
    same(results[0], results[1], "gradients", GRADIENTS)


@row("training", "torch.func.jvp along the parameters", "noise")
def forward_mode(original: nn.Module, module: nn.Module, inputs: Inputs) -> None:
    results = []
    for m in (module, original):
        weights, function = _losses(m, inputs)
        results.append(jvp(lambda w, f=function: f(w, *inputs), (weights,), (weights,)))
    same_values(results[0], results[1], "derivatives", GRADIENTS)


@row(
    "training",
    "gradient penalty (second derivative), fuse=False",
    "noise",
    "renamed",
    "detached",
    options={"fuse": False},
)
def penalty(original: nn.Module, module: nn.Module, inputs: Inputs) -> None:
    for m in (module, original):
        weights = [p for p in m.parameters() if p.requires_grad]
        first = torch.autograd.grad(loss(m(*inputs)), weights, create_graph=True, allow_unused=True)
        torch.stack([g.square().sum() for g in first if g is not None]).sum().backward()
    same(gradients(module), gradients(original), "gradients", GRADIENTS)


@row("training", "deepcopy", "noise", "renamed", "detached")
def deepcopied(original: nn.Module, module: nn.Module, inputs: Inputs) -> None:
    """The copy computes the same, and training it leaves the first as it was."""
    twin = copy.deepcopy(module)
    same_gradients(original, twin, inputs)
    torch.optim.SGD(twin.parameters(), lr=0.1).step()
    require(not gradients(module), "the copy has its gradients in the first module")
    same_outputs(original, module, inputs)


@row("training", "pickle", "noise", "renamed")
def pickled(original: nn.Module, module: nn.Module, inputs: Inputs) -> None:
    same_gradients(original, pickle.loads(pickle.dumps(module)), inputs)


@row("training", "torch.save of the whole module", "noise", "renamed")
def saved_whole(original: nn.Module, module: nn.Module, inputs: Inputs) -> None:
    import io

    buffer = io.BytesIO()
    torch.save(module, buffer)
    buffer.seek(0)
    same_gradients(original, torch.load(buffer, weights_only=False), inputs)


@row("training", "torch.jit.trace", "noise", "renamed", "detached")
def traced(original: nn.Module, module: nn.Module, inputs: Inputs) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch about itself
        got, want = (torch.jit.trace(m, inputs, check_trace=False) for m in (module, original))
    same_outputs(want, got, inputs)
    same_gradients(want, got, inputs)


@row(
    "training",
    "gradient of the inputs",
    "noise",
    "detached",
    only=lambda m: next(m.parameters()).ndim > 2,
)
def inputs_gradient(original: nn.Module, module: nn.Module, inputs: Inputs) -> None:
    results = []
    for m in (module, original):
        given = [x.clone().requires_grad_() for x in inputs]
        results.append(torch.autograd.grad(loss(m(*given)), given))
    same_values(results[0], results[1], "gradients", GRADIENTS)
