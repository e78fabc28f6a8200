"""A call of a module: which plan it runs, and whether as a program or step by step.

Caller._run           checks the inputs, finds the plan of their sizes
Programs.run      its program, from the fourth call with the same sizes on
Caller._step      the loop; it records the program in the third call
Caller.run_block      one module of the tree by itself
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from onnxinterp.errors import NodeError, plain
from onnxinterp.inspection.runnable import Runnable
from onnxinterp.limits import Limits
from onnxinterp.planning.bound import BoundPlan, sizes_of
from onnxinterp.planning.placement import device_of
from onnxinterp.planning.plans import Plans
from onnxinterp.planning.tracing import run_traced
from onnxinterp.programs import may_run
from onnxinterp.runtime import fx
from onnxinterp.runtime.guard import guard_of
from onnxinterp.runtime.inputs import Floating
from onnxinterp.runtime.interpreter import BlockCall, Frame, Interpreter
from onnxinterp.runtime.plan import Key, read_weights
from onnxinterp.values import Host


class Caller(Runnable):
    """Runs the plans of a module.

    Attributes:
        interpreter: runs the plan; replace it to profile or trace.
        limits: those of each call.
    """

    interpreter: Interpreter
    limits: Limits
    _floating: Floating | None
    _mapped: Any

    def _run(self, args: Any, keywords: Any, plans: Plans, by: Interpreter | None = None) -> Any:
        """Run the current plan of `plans`; or, by another interpreter, that of `eval()`."""
        if fx.is_fx_tracing(args, keywords):
            return self._trace(args, keywords, plans)
        if self._mapped and not torch.compiler.is_compiling():
            self._mapped.check()
        given = self._call.gather(args, keywords, self._floating)
        overridden = frozenset(given).difference(self._call.required)
        if by is None and torch.compiler.is_dynamo_compiling():
            traced = self._run_traced(given, plans, overridden)
            if traced is not None:
                return traced
        training = self.training and by is None
        bound = plans.get(training, overridden, plans.is_nested(training))
        if bound.mode.nested and plans is self._plans and not torch.compiler.is_compiling():
            plans.watch.check_replaced(bound.called)
        sizes = sizes_of(self._call.infos, given)
        known = None if sizes is None else bound.by_sizes.get(sizes)
        interpreter = by or self.interpreter
        if known is None or self.limits.watches_calls or not may_run(interpreter):
            return self._step(given, plans, bound, interpreter, known)
        results = known.programs.run(self._call.in_order(given), self)
        if results is not None:
            return _owned(results, known)
        return self._step(given, plans, bound, interpreter, known, records=known.programs.wants())

    def _step(
        self,
        given: dict[str, Any],
        plans: Plans,
        bound: BoundPlan,
        interpreter: Interpreter,
        known: BoundPlan | None,
        *,
        records: bool = False,
    ) -> tuple[Any, ...]:
        """Run a plan step by step.

        Args:
            given: the inputs.
            plans: of which it is one.
            bound: the plan for any sizes.
            interpreter: runs it.
            known: the plan for these sizes.
            records: whether the call becomes the program of the plan for these sizes.
        """
        current = known or bound
        weights = read_weights(current.reads, self)
        if known is not None and not known.fits(weights):
            current, records, weights = bound, False, read_weights(bound.reads, self)
        values: dict[Key, Any] = {"": None, **current.plan.constants, **weights}
        values.update(given)
        device, guard = self._device(given), guard_of(self.limits, given)
        frame = Frame(values, device, guard, self.limits.loop_trips, self)
        try:
            if records:
                names = self._call.names(given)
                return _owned(current.programs.record(frame, names, self), current)
            results = interpreter.start(current.plan, frame)
        except NodeError as error:
            self._call.blame_sizes(given, error)
            raise
        if known is None and (sizes := sizes_of(self._call.infos, given)) is not None:
            plans.specialize(bound, sizes, values, weights, guard)
        results = tuple([r.tensor(device) if isinstance(r, Host) else r for r in results])
        if guard is not None:
            guard.check_outputs([o.name for o in plans.graph.outputs], results)
        return _owned(results, current)

    def _run_traced(
        self, given: Mapping[str, Any], plans: Plans, overridden: frozenset[str]
    ) -> tuple[Any, ...] | None:
        """Run the program of a call that `torch.compile` traces; None where the loop must run."""
        if type(self.interpreter) is not Interpreter or self.interpreter.__dict__:
            return None
        nested = plans.is_nested(self.training)
        return run_traced(self, plans, plans.mode(self.training, overridden, nested), given)

    def run_block(self, level: nn.Module, inputs: tuple[Any, ...]) -> Any:
        """Run one module of the tree by itself.

        Args:
            level: the module.
            inputs: what it is called with in a call of the model.

        Raises:
            RuntimeError: the model does not call it exactly once, or with other inputs.
        """
        blocks = self._plans.get(self.training, nested=True).plan.blocks()
        own = [block for block in blocks if block.level is level]
        names = own[0].plan.inputs if len(own) == 1 else ()
        if len(own) != 1 or len(inputs) != len(names):
            wanted = f"{len(own)} calls of it" if len(own) != 1 else f"({', '.join(names)})"
            what = f"a module runs by itself with its inputs, got {len(inputs)} values"
            raise RuntimeError(plain(f"{what}; in a call of the model there are {wanted}"))
        given = dict(zip(names, inputs, strict=True))
        guard = guard_of(self.limits, given)
        frame = Frame({}, self._device(given), guard, self.limits.loop_trips, self)
        call = BlockCall(own[0], self.interpreter, frame)
        with guard or nullcontext():
            return call(level, inputs)

    def _trace(self, args: Any, keywords: Mapping[str, Any], plans: Plans) -> tuple[Any, ...]:
        """Record the plan for `torch.fx`."""
        if fx.is_root(args):
            inputs = {name: args[i] for i, name in enumerate(i.name for i in self._call.inputs)}
        else:
            given = self._call.signature().bind(*args, **keywords).arguments
            inputs = {self._call.aliases[name]: proxy for name, proxy in given.items()}
        bound = plans.get(self.training, frozenset(inputs).difference(self._call.required))
        return fx.trace(bound.plan, inputs, bound.reads, device_of(self.weights), self)

    def _device(self, given: Mapping[str, Any]) -> torch.device:
        flat = (x for v in given.values() for x in (v if isinstance(v, list) else (v,)))
        first = next((x for x in flat if isinstance(x, Tensor)), None)
        return device_of(self.weights) if first is None else first.device


def _owned(results: tuple[Any, ...], bound: BoundPlan) -> tuple[Any, ...]:
    """Results, of which none is a tensor of the module."""
    if not bound.own:
        return results
    return tuple([_copy(r) if i in bound.own else r for i, r in enumerate(results)])


def _copy(result: Any) -> Any:
    """What the module keeps, for a caller who may write to it."""
    if not isinstance(result, Tensor):
        return result.copy()
    many = zip(result.shape, result.stride(), strict=True)
    if any(n > 1 and not step for n, step in many):
        return result  # one element at many places: nobody can write to it, nor hold all of them
    return result.clone()
