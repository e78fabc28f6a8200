"""channels_last: convolutions on the CPU that are faster with the channels of a pixel side by side.

What a function computes does not depend on the layout. Torch passes the layout on through pooling,
normalization and elementwise functions, so a program needs a conversion only where it begins. A
weight is reordered by torch in each call; where it is larger than what it is applied to, that costs
more than the layout gains, and the convolution runs on contiguous tensors.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import torch
from torch import Tensor

from onnxinterp.programs.aliases import is_torch, writes
from onnxinterp.programs.calls import Call, Program, Value, mapped
from onnxinterp.programs.functions import name_of, names

Preference: TypeAlias = "Callable[[Call], bool | None]"
MIN_ELEMENTS = 4096  # of the input of a convolution: less takes no time
CONVOLUTIONS = {"conv2d": 6, "conv_transpose2d": 6}
"""Name -> where the number of groups stands among the arguments."""
KEEP_LAYOUT = names(
    "relu relu_ sigmoid tanh silu hardswish gelu clamp leaky_relu hardsigmoid hardtanh elu",
    "mul add sub div max_pool2d avg_pool2d adaptive_avg_pool2d batch_norm cat dropout mish",
    "exp sqrt abs neg maximum minimum where pow square relu6 threshold upsample_nearest2d",
    "upsample_bilinear2d",
)
"""Functions whose result has the layout of their arguments."""
STRIDED = names("stride is_contiguous as_strided data_ptr view_as unflatten")
ELEMENTWISE = names(
    "add sub mul div maximum minimum cat",
)


def choose_layouts(program: Program, prefers: Preference | None = None) -> Program:
    """A program that computes the same, with a layout chosen for each convolution.

    Args:
        program: without gradients, on the CPU.
        prefers: whether a convolution is to run in channels_last; None for what is none.
    """
    prefers = prefers or prefers_channels_last
    if any(writes(call) or _looks_at_strides(call) for call in program.calls):
        return program
    if not any(map(prefers, program.calls)):
        return program
    return _Layouts(program, prefers).program()


def _looks_at_strides(call: Call) -> bool:
    """Whether a call depends on strides: `view` with sizes does not, as it becomes `reshape`."""
    takes_type = any(isinstance(argument, torch.dtype) for argument in call.args[1:])
    return name_of(call.function) in STRIDED or (name_of(call.function) == "view" and takes_type)


def prefers_channels_last(call: Call) -> bool | None:
    """Whether a convolution is faster in channels_last; None for what is not a convolution."""
    name = name_of(call.function)
    if name not in CONVOLUTIONS or not is_torch(call) or len(call.args) < 2:
        return None
    x, weight, result = call.args[0], call.args[1], call.results[0]
    if result is None or x.dtype is not torch.float32 or len(x.shape) != 4:
        return None
    if x.shape.numel() < MIN_ELEMENTS:
        return None
    is_grouped = result.shape[1] != weight.shape[0] or x.shape[1] != weight.shape[1]
    if name == "conv_transpose2d":
        is_grouped = x.shape[1] != weight.shape[0] or result.shape[1] != weight.shape[1]
    is_pointwise = weight.shape[2:].numel() == 1 and x.shape[2:] == result.shape[2:]
    moved = x.shape.numel() + result.shape.numel()
    return bool(is_grouped or is_pointwise or weight.shape.numel() <= moved)


class _Layouts:
    """Rewrites one program.

    Attributes:
        calls: the new calls.
    """

    def __init__(self, program: Program, prefers: Preference) -> None:
        self.source = program
        self.prefers = prefers
        self.calls: list[Call] = []
        self._last: set[Value] = set()  # values that are in channels_last
        self._converted: dict[tuple[Value, bool], Value] = {}

    def program(self) -> Program:
        """The rewritten program."""
        source = self.source
        for call in source.calls:
            self._rewrite(call)
        outputs = mapped(source.outputs, self._as_recorded)
        return Program(source.inputs, source.weights, source.constants, self.calls, outputs)

    def _rewrite(self, call: Call) -> None:
        name = name_of(call.function)
        prefers = self.prefers(call)
        args, last = call.args, False
        if prefers is not None:
            args, last = (self._convert(args[0], prefers, call.step), *args[1:]), prefers
        elif name in KEEP_LAYOUT and is_torch(call):
            full = [v for v in call.reads() if v.shape == _shape(call)]
            last = any(v in self._last for v in (full or call.reads()))
            if last and name in ELEMENTWISE:
                args = self._aligned(call)
        elif name == "view":  # the strides may not allow it
            call = Call(torch.Tensor.reshape, args, call.kwargs, call.results, False, call.step)
        if args is not call.args:
            fields = (call.kwargs, call.results, call.is_many, call.step)
            call = Call(call.function, args, *fields)
        self.calls.append(call)
        if last and (result := call.results[0]) is not None and len(result.shape) == 4:
            self._last.add(result)

    def _aligned(self, call: Call) -> tuple[Any, ...]:
        """The arguments of an elementwise function, all in channels_last that are of full size."""
        rank = len(_shape(call) or ())

        def aligned(argument: Any) -> Any:
            if isinstance(argument, (list, tuple)):
                return type(argument)([aligned(part) for part in argument])
            large = isinstance(argument, Value) and len(argument.shape) == rank == 4
            if large and argument.shape[2:].numel() > 1 and argument not in self._last:
                return self._convert(argument, True, call.step)
            return argument

        return tuple([aligned(argument) for argument in call.args])

    def _convert(self, value: Value, last: bool, step: int) -> Value:
        """The value in a layout; itself where it is known to be in it."""
        if (value in self._last) is last:
            return value
        if value.shape[2:].numel() == 1:
            return value
        key = value, last
        if key not in self._converted:
            found = Value(value.shape, value.dtype, value.strides)
            layout = {"memory_format": torch.channels_last} if last else {}
            self.calls.append(Call(Tensor.contiguous, (value,), layout, [found], False, step))
            self._converted[key] = found
            if last:
                self._last.add(found)
        return self._converted[key]

    def _as_recorded(self, output: Any) -> Any:
        """An output in the layout that it had when it was recorded."""
        if isinstance(output, Value) and output.shape.numel() > 1 and _is_contiguous(output):
            found = Value(output.shape, output.dtype, output.strides)
            self.calls.append(Call(Tensor.contiguous, (output,), {}, [found], False, -1))
            return found
        return output


def _shape(call: Call) -> torch.Size | None:
    result = call.results[0] if call.results else None
    return None if result is None else result.shape


def _is_contiguous(value: Value) -> bool:
    step = 1
    for size, stride in zip(reversed(value.shape), reversed(value.strides), strict=True):
        if size != 1 and stride != step:
            return False
        step *= size
    return True
