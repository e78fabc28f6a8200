"""Running a module to profile it."""

from __future__ import annotations

from collections.abc import Sequence
from time import perf_counter
from typing import Any

import torch

from onnxinterp.inspection.layers import notes_of
from onnxinterp.inspection.memory import MeasuringMemory
from onnxinterp.inspection.profile import Bar, Profile, StepTimes
from onnxinterp.inspection.runnable import Runnable
from onnxinterp.inspection.scoped import scoped_graph
from onnxinterp.inspection.timing import Timing, all_nodes_of, node_names, nodes_of, operators_of
from onnxinterp.planning.scoping import Chain, common
from onnxinterp.runtime.interpreter import Interpreter
from onnxinterp.runtime.plan import Step

WARM_UP_RUNS = 3  # inputs that come a second time have a plan for their sizes in the third run


@torch.no_grad()
def profile(module: Runnable, inputs: tuple[Any, ...], named: dict[str, Any], runs: int) -> Profile:
    """Profile the plan of `eval()` mode; runs with and without timing alternate."""
    if runs < 1:
        raise ValueError(f"runs must be at least 1, got {runs}")
    plans, uses_accelerator = module._plans, _uses_accelerator(module)

    def run(interpreter: Interpreter | None = None) -> float:
        start = perf_counter()
        if interpreter is None and not module.training:
            module.forward(*inputs, **named)  # as it is called, which needs no interpreter
        else:
            module._run(inputs, named, plans, interpreter or Interpreter())
        if uses_accelerator:
            torch.accelerator.synchronize()
        return perf_counter() - start

    for _ in range(WARM_UP_RUNS):
        run()
    run(measured := MeasuringMemory())
    untimed, timed, timings = [], [], []
    for _ in range(runs):
        untimed.append(run())
        timings.append(Timing(synchronize=uses_accelerator))
        timed.append(run(timings[-1]))
    notes = notes_of(module.template)
    return Profile(
        name=notes.classes.get("") or plans.graph.name,
        steps=_steps(timings, measured, _chains(module)),
        classes=notes.classes,
        seconds=min(timed),
        untimed_seconds=min(untimed),
        peak=measured.peak,
        threads=torch.get_num_threads(),
        runs=runs,
        timeline=_timeline(timings[timed.index(min(timed))], timings),
    )


def _uses_accelerator(module: Runnable) -> bool:
    return any(tensor.device.type != "cpu" for tensor in module.weights.values())


def _chains(module: Runnable) -> dict[str, Chain]:
    """First output of a node -> the paths of the modules around it."""
    graph = scoped_graph(module, module._plans.unfused())
    return {node.outputs[0]: chain for node, chain in graph.nodes}


def _all_steps(timings: Sequence[Timing]) -> dict[Step, int]:
    """The steps of all runs, numbered in the order in which they start."""
    found = dict.fromkeys(step for timing in timings for step in timing.seconds)
    return {step: number for number, step in enumerate(found)}


def _steps(
    timings: Sequence[Timing], measured: MeasuringMemory, chains: dict[str, Chain]
) -> tuple[StepTimes, ...]:
    steps, around, found = _all_steps(timings), list[Chain](), []
    for step in steps:
        depth = next(timing.depths[step] for timing in timings if step in timing.depths)
        own = _chain_of(step, chains)
        del around[depth:]
        around.append(own or (around[-1] if around else ()))  # a subgraph is where its node is
        found.append(
            StepTimes(
                nodes=node_names(step),
                outputs=tuple([node.outputs[0] for node in nodes_of(step)]),
                op=operators_of(step),
                layer=around[-1],
                depth=depth,
                calls=max(timing.calls[step] for timing in timings),
                seconds=min(timing.seconds[step] for timing in timings if step in timing.seconds),
                flops=measured.flops_by_step[step],
                bytes=measured.allocated.get(step, 0),
                alive=measured.alive.get(step, 0),
                shapes=measured.result_shapes.get(step, ()),
            )
        )
    return tuple(found)


def _chain_of(step: Step, chains: dict[str, Chain]) -> Chain:
    """The modules around all nodes of a step; those around the module that it calls, and this."""
    chain = common(chains.get(node.outputs[0], ()) for node in all_nodes_of(step))
    if step.block is None or step.block.path not in chain:
        return chain
    return chain[: chain.index(step.block.path) + 1]


def _timeline(timing: Timing, timings: Sequence[Timing]) -> tuple[Bar, ...]:
    numbers, spans = _all_steps(timings), sorted(timing.spans, key=lambda span: span.start)
    begin = spans[0].start if spans else 0.0
    return tuple([Bar(numbers[s.step], s.start - begin, s.seconds, s.depth) for s in spans])
