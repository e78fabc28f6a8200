"""The values that are known while a plan is made, and the forms in which kernels take them.

A weight that never trains is known, and so is what a node computes from known values alone:
`fold` runs such a node at once. A kernel takes a constant as a tensor, a number, a list of numbers
or a host value; each form is made once, and is stored under a `Ref`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from onnxinterp.errors import UnsafeModelError
from onnxinterp.kinds import Kind
from onnxinterp.planning.carriers import CARRIED_BY_BITS
from onnxinterp.planning.facts import TENSOR_KINDS, Constant, Setting, snapshot
from onnxinterp.registry import Kernel
from onnxinterp.runtime.guard import LimitExceeded, bytes_of_strings
from onnxinterp.runtime.interpreter import Frame, Interpreter, describe
from onnxinterp.runtime.plan import Key, Plan, Ref, Step, onnx_name_of
from onnxinterp.values import HOST_DTYPES, Host, host_of, number, numbers

MAX_FOLDED_BYTES = 2**20  # of a constant that holds for one set of input shapes
AS_STORED = (*TENSOR_KINDS, Kind.ANY)


class Constants:
    """The known values of one plan.

    Attributes:
        known: name -> value.
        hosts: name -> the small ones as plain numbers.
        forms: what steps and outputs of the plan take, by key.
        device: where nodes of constants run.
    """

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self.known: dict[str, Constant] = {**setting.constants, **setting.sized}
        self.hosts: dict[str, Host] = {**setting.hosts, **setting.sized}
        self.forms: dict[Key, Any] = {}
        # on the meta device constants have no numbers: they are folded on the CPU
        on_meta = setting.device.type == "meta"
        self.device = torch.device("cpu") if on_meta else setting.device
        self._interpreter = Interpreter()

    def is_shape_like(self, name: str) -> bool:
        """Whether a value is a small constant of a type in which shapes are computed."""
        host = self.hosts.get(name)
        return host is not None and host.dtype in HOST_DTYPES

    def is_integer(self, name: str) -> bool:
        """Whether a value is a small constant of integers or booleans."""
        return self.is_shape_like(name) and not self.hosts[name].dtype.is_floating_point

    def key(self, name: str, kind: Kind) -> Key:
        """The key under which a frame has a value in the form that a kernel wants."""
        value = self.known.get(name)
        if value is None:
            return name
        if kind is Kind.LATE:
            self._convert(name, value, Kind.SCALAR)  # a constant of two elements is an error
            kind = Kind.HOST
        if kind is Kind.ANY and self.is_integer(name) and self.hosts[name].rank <= 1:
            kind = Kind.HOST  # a counter or a condition that a loop carries
        if kind in AS_STORED and name in self.setting.weights:
            return name  # read from the module's weights at every call
        key = Ref(name, kind.value)
        if key not in self.forms:
            self.forms[key] = self._convert(name, value, kind)
        return key

    def kind_of(self, kernel: Kernel, index: int, name: str, kind: Kind) -> Kind:
        """How a kernel gets an input: a constant exponent or index is passed as a number.

        Torch is far quicker with it.
        """
        parameter, host = kernel.parameter(index), self.hosts.get(name)
        if kind is not Kind.OPERAND or parameter is None or host is None or host.rank:
            return kind
        if host.dtype in CARRIED_BY_BITS:
            return kind  # the kernel sees the bits, not the number
        is_setting = parameter.name in kernel.frozen or host.dtype is torch.int64
        return Kind.SCALAR if is_setting else kind

    def _convert(self, name: str, value: Constant, kind: Kind) -> Any:
        if isinstance(value, np.ndarray):
            return value
        if kind in AS_STORED:
            return value.tensor(self.device) if isinstance(value, Host) else value
        host = self.hosts.get(name) or host_of(value)
        if kind is Kind.HOST:
            return host
        return numbers(host) if kind is Kind.LIST else number(host)

    def fold(self, step: Step, kernel: Kernel) -> bool:
        """Run a step that reads constants only: its outputs are constants, too.

        Returns:
            Whether the outputs are known now. A step that fails is not folded: the error is raised
            when it runs, with its inputs.

        Raises:
            UnsafeModelError: folding has taken all the time there is.
        """
        if kernel.random or step.updates or step.subgraphs:
            return False
        shared = self.setting.folded
        if all(name in shared for name in step.outputs):
            self.known.update((name, shared[name]) for name in step.outputs)
            return True
        values: dict[Key, Any] = {"": None}
        for key in (*step.inputs, *step.weights.values()):
            found = self.forms.get(key, self.known.get(onnx_name_of(key)))
            if found is None and kernel.returns_host:
                found = self._shaped(onnx_name_of(key))
            if key and found is None:
                return False
            values[key] = found
        guard = self.setting.guard
        try:
            with guard:
                result = self._interpreter.run_step(step, Frame(values, self.device, guard))
                guard.record(result)
        except Exception:  # it is raised when the step runs, with its inputs
            self._check_time(step, values)
            return False
        results = result if isinstance(result, tuple) else (result,)
        stored = all(isinstance(r, (Tensor, Host, np.ndarray)) for r in results)
        if not stored or len(results) < len(step.outputs):
            return False
        if self.setting.sized and any(map(_is_large, results)):
            return False  # one copy for each set of sizes would be too much
        for name, value in zip(step.outputs, results, strict=False):
            self.known[name] = value
            if (host := snapshot(value)) is not None:
                self.hosts[name] = host
        return True

    def _shaped(self, name: str) -> Tensor | None:
        """A tensor of the shape of a weight: all that is read of it is its shape."""
        setting = self.setting
        if name not in setting.weights or name not in setting.shapes:
            return None
        return torch.empty(setting.shapes[name], device="meta")

    def _check_time(self, step: Step, values: dict[Key, Any]) -> None:
        """Raise where folding has taken all the time there is; no other limit ends it."""
        try:
            self.setting.guard.seconds_left()
        except LimitExceeded as error:
            raise UnsafeModelError(f"{describe(step, values)}: {error}") from None


def _is_large(value: Constant) -> bool:
    if isinstance(value, Tensor):
        return value.untyped_storage().nbytes() > MAX_FOLDED_BYTES
    return isinstance(value, np.ndarray) and bytes_of_strings(value) > MAX_FOLDED_BYTES


def large_constants(plan: Plan) -> dict[str, Tensor]:
    """The constants that are too large for a copy in each plan for some sizes, by name."""
    found = ((onnx_name_of(key), value) for key, value in plan.constants.items())
    return {name: v for name, v in found if isinstance(v, Tensor) and _is_large(v)}
