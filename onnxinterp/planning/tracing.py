"""What `torch.compile` traces of a call: the program for its sizes, in place of the loop.

    run_traced        traced by the compiler: asks for the program, reads the weights, calls it
    Tracer.places     not traced, its result is a constant: where the weights are
    Tracer.program    likewise: makes the program, and stores it as an attribute of the tracer

The compiler guards the attribute. A tracer lasts as long as plans made anew would be the same; then
the attribute is missing in the next one, and the call is compiled again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from itertools import count
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from torch import Tensor, nn

from onnxinterp.errors import OnnxError
from onnxinterp.extras import MissingExtraError
from onnxinterp.planning.bound import BoundPlan, Mode
from onnxinterp.planning.facts import Setting
from onnxinterp.programs.compiling import (
    CONSTANTS,
    Places,
    Spec,
    can_trace,
    fake,
    fake_tensors,
    host_values,
    read,
    specs_of,
    trace,
)
from onnxinterp.programs.source import DeviationError
from onnxinterp.runtime.interpreter import FAILURES, Frame
from onnxinterp.runtime.plan import Key, Plan, WeightPlace
from onnxinterp.values import constant_when_compiled

if TYPE_CHECKING:
    from onnxinterp.planning.plans import Plans

Fields: TypeAlias = "tuple[bool, frozenset[str], frozenset[str]]"
"""Those of a mode but `nested`."""
MAX_TRACED = 64  # programs of a module: more than the compiler keeps
_numbers = count()  # so that a program never has the name of an older one


def run_traced(
    root: nn.Module, plans: Plans, mode: Mode, given: Mapping[str, Any]
) -> tuple[Any, ...] | None:
    """Run the program of a call that is being compiled.

    Args:
        root: the module that is called.
        plans: its plans.
        mode: of the call.
        given: the inputs by name.

    Returns:
        The results; None where the loop must be compiled: sizes are symbols, or there is no
        program.
    """
    if mode.nested:
        return None
    fields = mode.training, mode.apart, mode.overridden  # a named tuple would be empty there
    places = plans.tracer.places(fields)  # makes the plan, which the compiler cannot trace
    inputs = specs_of(list(given.values()))
    if places is None or inputs is None:
        return None
    weights = read(root, places)
    held = specs_of(weights)
    if held is None:
        return None
    name = plans.tracer.program(fields, tuple(given), inputs, held)
    if name is None:
        return None
    try:
        return getattr(plans.tracer, name)(*given.values(), weights)  # type: ignore[no-any-return]
    except DeviationError:  # strides are others than usual
        return None


class Tracer:
    """The programs of one module that the compiler has traced, each an attribute.

    Args:
        plans: the plans.
        setting: what they depend on.
        types: likewise, ONNX types of the weights.
    """

    def __init__(self, plans: Plans, setting: Setting, types: Mapping[str, int]) -> None:
        self._plans = plans
        self._setting = setting, dict(types)
        self._versions = versions(setting)
        self._fingerprint: tuple[Any, ...] | None = None
        self._programs: deque[str] = deque()

    def is_for(self, plans: Plans, setting: Setting, types: Mapping[str, int]) -> bool:
        """Whether programs that were made before are those of these plans."""
        known = self._fingerprint
        return known is not None and plans is self._plans and known == fingerprint(setting, types)

    @constant_when_compiled
    def places(self, fields: Fields) -> Places | None:
        """Where the weights of a plan are; None where one has no way to it that can be guarded."""
        named = self._plans.weights.root.named_modules()
        paths = {m: tuple(path.split(".")) if path else () for path, m in named}
        paths[self._plans.weights.constants] = CONSTANTS
        held = _by_holder(self._plans.flat(*fields), self._plans.weights.root)
        if any(holder not in paths for holder in held):
            return None
        return tuple((paths[m], tuple(p.attribute for p in places)) for m, places in held.items())

    @constant_when_compiled
    def program(
        self, fields: Fields, names: Sequence[str], inputs: Sequence[Spec], weights: Sequence[Spec]
    ) -> str | None:
        """Make the program of a call.

        Args:
            fields: the mode of the call.
            names: of the inputs that it gives.
            inputs: shapes and types of these.
            weights: those of the weights, in the order of `places`.

        Returns:
            The name of the attribute that is the function; None where there is no program.
        """
        try:
            function = self._traced(fields, names, inputs, weights)
        except (OnnxError, MissingExtraError, *FAILURES):
            return None  # the loop tells why, or is compiled where only fake tensors fail
        if function is None:
            return None
        if self._fingerprint is None and versions(self._setting[0]) == self._versions:
            self._fingerprint = fingerprint(*self._setting)
        if len(self._programs) == MAX_TRACED:
            delattr(self, self._programs.popleft())
        name = f"program_{next(_numbers)}"
        setattr(self, name, function)
        self._programs.append(name)
        return name

    def _traced(
        self, fields: Fields, names: Sequence[str], inputs: Sequence[Spec], weights: Sequence[Spec]
    ) -> Any:
        plans = self._plans
        bound = plans.flat(*fields)
        if not can_trace(bound.plan):
            return None
        held = _by_holder(bound, plans.weights.root)
        places = [place for some in held.values() for place in some]
        device = inputs[0][2] if inputs else plans.setting.device
        tensors = dict(zip([p.name for p in places], weights, strict=True))
        tensors.update(zip(names, inputs, strict=True))

        def frame(plan: Plan) -> Frame:
            values: dict[Key, Any] = {"": None, **plan.constants}
            values.update((name, fake(spec)) for name, spec in tensors.items())
            return Frame(values, device, None, plans.limits.loop_trips, plans.weights.root)

        if bound.plan.sized:
            with fake_tensors():
                found = host_values(bound.plan, frame(bound.plan))
            bound = plans.sized(bound, found)
        with fake_tensors():
            return trace(bound.plan, frame(bound.plan), names, places, bound.own)


def _by_holder(bound: BoundPlan, root: nn.Module) -> dict[nn.Module, list[WeightPlace]]:
    held: dict[nn.Module, list[WeightPlace]] = {}
    for place in bound.reads:
        held.setdefault(root if place.holder is None else place.holder, []).append(place)
    return held


def fingerprint(setting: Setting, types: Mapping[str, int]) -> tuple[Any, ...]:
    """What plans depend on: equal if plans made anew are the same."""
    return (
        setting.weights,
        setting.device,
        dict(setting.dtypes),
        dict(setting.types),
        dict(setting.shapes),
        setting.frozen_stats,
        setting.fuse,
        dict(types),
        {name: (host.data, host.dtype) for name, host in setting.hosts.items()},
        {name: _digest(value) for name, value in setting.constants.items()},
    )


def versions(setting: Setting) -> list[int]:
    """What changes where a constant is written to: a plan has its values of before."""
    held = [t for t in setting.constants.values() if isinstance(t, Tensor)]
    return [0 if t.is_inference() else t._version for t in held]


def _digest(value: Any) -> Any:
    """What tells the values of a constant from others."""
    if not isinstance(value, Tensor) or value.is_meta:
        return id(value)
    with torch.no_grad():
        data = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
    return value.dtype, value.shape, value.device, blake2b(data.data).digest()
