"""Tensor parallelism: which linear layers of a model may be split between devices, in pairs.

    tensor_parallel_plan(module, example, ranks) -> {"blocks.0.fc1": ColwiseParallel(), ...}

The first layers of a pair (`fc1`; or query, key and value) are split by columns: each device has
some of their results. The last layer (`fc2`, or the output of attention) is split by rows: it adds
up what all devices have. The steps in between run on each part by itself, and nothing else may
read their results.

Whether a part can run by itself is not read off the operators, it is tried: the steps run on each
part of the values that an example has there, and must return this part of what they returned for
the whole. A graph that reshapes to a fixed number of heads fails, one that reshapes to heads of a
fixed width does not.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.distributed.tensor.parallel import ColwiseParallel, ParallelStyle, RowwiseParallel

from onnxinterp.errors import NodeError
from onnxinterp.module import OnnxModule
from onnxinterp.runtime.interpreter import Frame, Interpreter, by_name
from onnxinterp.runtime.plan import Key, Plan, Step


def tensor_parallel_plan(
    module: OnnxModule, example: Sequence[Any], ranks: int
) -> dict[str, ParallelStyle]:
    """The layers to split, for `torch.distributed.tensor.parallel.parallelize_module`.

    Args:
        module: made with `leaves="nn"`, its weights whole. It runs once, in its current mode.
        example: inputs of a call, in graph order.
        ranks: how many devices there will be.

    Returns:
        Path of each layer -> how it is split; empty where no layers can be.

    Raises:
        ValueError: the module has no linear layers of torch, or `ranks` is not positive.
    """
    if ranks < 1:
        raise ValueError(f"ranks must be positive, got {ranks}")
    if not any(isinstance(level, nn.Linear) for level in module.modules()):
        raise ValueError('module must have layers of type nn.Linear (leaves="nn"), got none')
    call = _Call.of(module, example)
    plan: dict[str, ParallelStyle] = {}
    for last in call.linears.values():
        firsts, steps = call.between(last)
        paths = [first.path for first in firsts]
        is_free = plan.keys().isdisjoint([last.path, *paths])
        if is_free and call.can_split(firsts, steps, last, ranks):
            plan |= {path: ColwiseParallel() for path in paths}
            plan[last.path] = RowwiseParallel()
    return plan


@dataclass(frozen=True)
class _Linear:
    """The call of a linear layer: its path, and the names of its input and its result."""

    path: str
    source: Key
    result: Key


class _Recorder(Interpreter):
    """Keeps all values of a call, and its steps, those inside of blocks in their places."""

    def __init__(self) -> None:
        self.values: dict[Key, Any] = {"": None}
        self.steps: list[Step] = []

    def run_step(self, step: Step, frame: Frame) -> Any:
        """Run one step, as without the recorder."""
        self.values.update({key: frame.values[key] for key in step.reads})
        result = super().run_step(step, frame)
        single = len(step.outputs) == 1 and not isinstance(result, tuple)
        self.values.update([(step.outputs[0], result)] if single else by_name(step, result))
        if step.block is None or step.block.is_leaf:
            self.steps.append(step)
        return result


@dataclass(frozen=True)
class _Call:
    """A call of a module.

    Attributes:
        module: the module.
        steps: those that ran, in order; a layer of torch is one.
        values: inputs, weights, constants and all results.
        linears: result of each call of a linear layer that is called once -> this call.
        outputs: the results of the module.
    """

    module: OnnxModule
    steps: Sequence[Step]
    values: Mapping[Key, Any]
    linears: Mapping[Key, _Linear]
    outputs: frozenset[Key]

    @classmethod
    def of(cls, module: OnnxModule, example: Sequence[Any]) -> _Call:
        """Run a module."""
        recorder, interpreter = _Recorder(), module.interpreter
        module.interpreter = recorder
        try:
            with torch.no_grad():
                module(*example)
        finally:
            module.interpreter = interpreter
        paths = {level: path for path, level in module.named_modules()}
        blocks = [(step, step.block.level) for step in recorder.steps if step.block is not None]
        calls = [level for _, level in blocks]
        linears: dict[Key, _Linear] = {
            step.outputs[0]: _Linear(paths[level], step.inputs[0], step.outputs[0])
            for step, level in blocks
            if isinstance(level, nn.Linear) and calls.count(level) == 1
        }
        outputs = frozenset[Key](module.plan.outputs)
        return cls(module, recorder.steps, recorder.values, linears, outputs)

    def between(self, last: _Linear) -> tuple[list[_Linear], list[Step]]:
        """The linear layers that one is computed from, and the steps from them to it, in order.

        Other layers are not passed: they read whole rows.
        """
        makers = {name: step for step in self.steps for name in step.outputs if step.block is None}
        before, firsts, pending = set[Step](), set[Key](), [last.source]
        while pending:
            key = pending.pop()
            if key in self.linears:
                firsts.add(key)
            elif (step := makers.get(str(key))) is not None and step not in before:
                before.add(step)
                pending.extend(step.reads)
        made, steps = set(firsts), []
        for step in self.steps:
            if step in before and not made.isdisjoint(step.reads):
                steps.append(step)
                made.update(step.outputs)
        return [call for key, call in self.linears.items() if key in firsts], steps

    def can_split(
        self, firsts: Sequence[_Linear], steps: Sequence[Step], last: _Linear, ranks: int
    ) -> bool:
        """Whether the steps run on each part of the results of the first layers by itself."""
        results = [first.result for first in firsts]
        split = {*results, *(name for step in steps for name in step.outputs)}
        around = (step for step in self.steps if step not in steps)
        readers = (step for step in around if not split.isdisjoint(step.reads))
        if last.source not in split or any(last.result not in step.outputs for step in readers):
            return False
        widths = [self.values[key].shape[-1] for key in (last.source, *results)]
        if not split.isdisjoint(self.outputs) or any(width % ranks for width in widths):
            return False
        plan = Plan(steps=tuple(steps), dead=((),) * len(steps), inputs=(), outputs=(last.source,))
        return all(self._runs_on(part, ranks, results, plan) for part in range(ranks))

    def _runs_on(self, part: int, ranks: int, results: Iterable[Key], plan: Plan) -> bool:
        """Whether steps return one part of their result where they read one part of `results`."""
        parts = {key: self.values[key].chunk(ranks, -1)[part] for key in results}
        want = self.values[plan.outputs[0]].chunk(ranks, -1)[part]
        frame = Frame({**self.values, **parts}, want.device, root=self.module)
        try:
            with torch.no_grad():
                (got,) = Interpreter().run(plan, frame)
        except NodeError:  # a size is fixed: it is that of the whole
            return False
        if got.shape != want.shape:
            return False
        tolerance = torch.finfo(want.dtype).eps ** 0.5 * want.abs().max()
        return bool((got - want).abs().max() <= tolerance)
