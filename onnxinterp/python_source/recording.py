"""Recording a module with free sizes: its nested plan runs once, on tensors without data.

Kernels see symbols where the file leaves a size free, and compute with them; what they call of
torch is noted as for a program, but function by function of torch's public interface. A step that
looks at data cannot run so: its kernel is written along, and its results have sizes of their own.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import sympy
import torch
from torch import Tensor
from torch._dispatch.python import enable_python_dispatcher
from torch._dynamo.source import ConstantSource
from torch._subclasses.fake_tensor import FakeTensorMode, unset_fake_temporarily
from torch.fx.experimental.symbolic_shapes import (
    DimDynamic,
    ShapeEnv,
    StatelessSymbolicContext,
    free_unbacked_symbols,
)

from onnxinterp.errors import InputError, NodeError, SourceError
from onnxinterp.inspection.runnable import Runnable
from onnxinterp.planning.bound import EVAL
from onnxinterp.planning.placement import device_of
from onnxinterp.programs.calls import Call, Value, values_in
from onnxinterp.programs.functions import name_of
from onnxinterp.programs.tape import NotRecordableError, Tape
from onnxinterp.python_source.bodies import Body, Choice, Layer, Recorded, Size
from onnxinterp.python_source.functions import public_name
from onnxinterp.python_source.layers import layer_of
from onnxinterp.runtime.interpreter import Frame, Interpreter, by_name
from onnxinterp.runtime.plan import Block, Key, Plan, Step, read_weights
from onnxinterp.values import Host

BRANCHES = ("then_branch", "else_branch")
SYMBOLS = (torch.SymInt, torch.SymFloat, torch.SymBool)


def record(module: Runnable, given: Mapping[str, Tensor]) -> Recorded:
    """Write down what a module computes in `eval()` mode.

    Args:
        module: the module; it runs once on the example.
        given: ONNX name of each input -> an example. Sizes that the file leaves free stay free.

    Raises:
        As a call of the module; SourceError: a kernel looks at data, or a value is no tensor.
    """
    bound = module._plans.bound(EVAL._replace(nested=True))
    plan, device = bound.plan, device_of(module.weights)
    inner = [place for block in plan.blocks() for place in block.reads]
    places = {place.name: place for place in (*bound.reads, *inner)}
    weights = read_weights(places.values(), module)
    seen, sizes = _Seen(), _Sizes()
    with torch.no_grad():
        seen.run(plan, Frame(_values(plan, weights, given), device, root=module))
    with torch.no_grad(), sizes.active():
        fakes = {key: sizes.fixed(weight) for key, weight in weights.items()}
        inputs = sizes.of_inputs(module._call.infos, given)
        tape = _SourceTape(sizes)
        held = {tape.add(fakes[name]): place for name, place in places.items()}
        paths = {id(level): path for path, level in module.named_modules()}
        recorder = _Recorder(tape, sizes, fakes, seen.results, module, paths)
        body = Body("", [tape.add(tensor) for tensor in inputs.values()])
        with tape, _refused():
            results = recorder.run(plan, Frame(_values(plan, fakes, inputs), device, root=module))
            results = tuple([r.tensor(device) if isinstance(r, Host) else r for r in results])
    body.calls, body.outputs = tape.calls, [tape.encode(r) for r in results]
    return Recorded(
        body,
        [alias for alias, name in module._call.aliases.items() if name in given],
        {v: (_path(place, paths), weights[place.name]) for v, place in held.items()},
        dict(tape.used.values()),
        sizes.names(module._call.infos, inputs),
        sizes.replaced,
        sizes.conditions(),
    )


@contextmanager
def _refused() -> Iterator[None]:
    """Errors of a run on tensors without data: the same run with data succeeded."""
    try:
        yield
    except (NodeError, NotRecordableError) as error:
        raise SourceError(f"the module cannot be written as Python source: {error}") from error


def _values(
    plan: Plan, weights: Mapping[Key, Tensor], given: Mapping[str, Tensor]
) -> dict[Key, Any]:
    """The values of a frame before the first step."""
    values: dict[Key, Any] = {"": None, **plan.constants, **weights}
    values.update(given)
    return values


def _path(place: Any, paths: Mapping[int, str]) -> str:
    """The path of a weight in the tree."""
    around = "" if place.holder is None else paths.get(id(place.holder), "")
    return f"{around}.{place.attribute}" if around else place.attribute


class _Seen(Interpreter):
    """Notes the dtype and the sizes of all results of a call."""

    def __init__(self) -> None:
        self.results: dict[str, tuple[torch.dtype, torch.Size]] = {}

    def run_step(self, step: Step, frame: Frame) -> Any:
        result = super().run_step(step, frame)
        for name, value in by_name(step, result):
            if isinstance(value, Tensor):
                self.results[name] = value.dtype, value.shape
        return result


class _Sizes:
    """Sizes that are symbols, and tensors without data that have them."""

    def __init__(self) -> None:
        self.env = ShapeEnv(duck_shape=False)
        self.mode = FakeTensorMode(allow_non_fake_inputs=True, shape_env=self.env)
        self.ignored = 0
        self._made = 0
        self._conditions: list[Any] = []

    @contextmanager
    def active(self) -> Iterator[None]:
        """Tensors are made without data meanwhile."""
        with self.mode, enable_python_dispatcher():
            yield

    def fixed(self, tensor: Tensor) -> Tensor:
        """A tensor without data that has the sizes of another."""
        return self.mode.from_tensor(tensor.detach(), static_shapes=True)

    def of_inputs(self, infos: Any, given: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The inputs without data."""
        return {name: self.free(name, x, infos[name].shape) for name, x in given.items()}

    def free(self, name: str, example: Tensor, declared: Sequence[Any] | None) -> Tensor:
        """A tensor without data, with a symbol for each size that is not declared."""
        sizes = [None] * example.ndim if declared is None else declared
        is_free = [not isinstance(size, int) or size < 0 for size in sizes]
        small = [axis for axis, free in enumerate(is_free) if free and example.shape[axis] < 2]
        if small:
            what = f"free sizes must be 2 or more in the example, got {list(example.shape)}"
            raise InputError(f"{what} for input {name!r}")
        dims = [DimDynamic.DYNAMIC if free else DimDynamic.STATIC for free in is_free]
        context: Any = StatelessSymbolicContext(dims)
        source = ConstantSource(name)
        return self.mode.from_tensor(example, source=source, symbolic_context=context)

    def of_data(self, name: str, dtype: torch.dtype, shape: Sequence[int]) -> Tensor:
        """A tensor without data whose sizes follow from data: each is a symbol."""
        return self._like(name, dtype, [None] * len(shape))

    def _like(self, name: str, dtype: torch.dtype, shape: Sequence[Any]) -> Tensor:
        """A tensor without data that has a new symbol for each size that is None."""
        known = [2 if size is None else size for size in shape]
        dims = [DimDynamic.STATIC if type(size) is int else DimDynamic.DYNAMIC for size in shape]
        with unset_fake_temporarily():
            example = torch.empty([n if type(n) is int else 2 for n in known], dtype=dtype)
        context: Any = StatelessSymbolicContext(dims)
        self._made += 1
        source = ConstantSource(f"{name}_{self._made}")
        made = self.mode.from_tensor(example, source=source, symbolic_context=context)
        sizes = [m if size is None else size for m, size in zip(made.shape, shape, strict=True)]
        return torch.empty(sizes, dtype=dtype)

    def with_symbols(self, result: Tensor) -> Tensor:
        """A result whose sizes follow from data, with symbols that have example values."""
        unknown = [
            isinstance(size, torch.SymInt) and bool(free_unbacked_symbols(size))
            for size in result.shape
        ]
        if not any(unknown):
            return result
        sizes = [None if u else size for u, size in zip(unknown, result.shape, strict=True)]
        return self._like("data", result.dtype, sizes)

    def keep_conditions(self) -> None:
        """Keep what kernels have decided by sizes since; torch checks its own at each call."""
        self._conditions += self.env.guards[self.ignored :]
        self.ignored = len(self.env.guards)

    def ignore_conditions(self) -> None:
        """Forget what was decided since, by functions of torch."""
        self.ignored = len(self.env.guards)

    def expression(self, number: Any) -> Any:
        """A number, or the expression of a symbol."""
        if isinstance(number, SYMBOLS):
            found = self.env.replace(number.node.expr)
            if found.is_Integer:
                return int(found)
            return float(found) if found.is_Float else found
        return number

    def replaced(self, expression: Any) -> Any:
        """An expression in which symbols that are equal are one."""
        return self.env.replace(expression) if isinstance(expression, sympy.Basic) else expression

    def conditions(self) -> list[sympy.Expr]:
        """What kernels decided by sizes, and is not known to hold for all."""
        found = [self.env.replace(guard.expr) for guard in self._conditions]
        return [c for c in dict.fromkeys(found) if c not in (sympy.true, sympy.false)]

    def names(self, infos: Any, inputs: Mapping[str, Tensor]) -> dict[sympy.Symbol, str]:
        """Symbol -> the name that the file has for the size."""
        found: dict[sympy.Symbol, str] = {}
        for name, tensor in inputs.items():
            for size, declared in zip(tensor.shape, infos[name].shape or (), strict=False):
                expression = self.expression(size)
                if isinstance(expression, sympy.Symbol):
                    found.setdefault(expression, declared if isinstance(declared, str) else "")
        return found


class _SourceTape(Tape):
    """Notes functions of torch as they are called, not what those written in Python call."""

    def __init__(self, sizes: _Sizes) -> None:
        super().__init__()
        self.sizes = sizes

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if self._is_paused:
            return func(*args, **kwargs)
        self.sizes.keep_conditions()
        result = func(*args, **kwargs)
        if isinstance(result, Tensor):
            with self.paused():
                result = self.sizes.with_symbols(result)
        self.sizes.ignore_conditions()
        if self.failure is None:
            try:
                return self._note(func, args, kwargs, result)
            except NotRecordableError as error:
                self.failure = str(error)
        return result

    def _note(self, func: Any, args: Any, kwargs: dict[str, Any], result: Any) -> Any:
        if isinstance(result, SYMBOLS) and not _tensors(args):
            return result  # a number of numbers
        if not isinstance(result, (int, float)) and public_name(func) is None:
            raise NotRecordableError(f"a function that is not public: {func}")
        return super()._note(func, args, kwargs, result)

    def _encode(self, leaf: Any) -> Any:
        if isinstance(leaf, SYMBOLS):
            found = self.sizes.expression(leaf)
            return Size(found) if isinstance(found, sympy.Basic) else found
        return super()._encode(leaf)

    def _add_check(self, function: Any, args: Any, kwargs: Any, expected: Any) -> None:
        del args, kwargs, expected
        raise NotRecordableError(f"a decision by data: {name_of(function)}")

    def _check_shapes(self, tensors: Any, values: Any) -> None:
        """Sizes that follow from data are symbols: there is nothing to check."""


class _Recorder(Interpreter):
    """Runs a nested plan under a tape."""

    def __init__(
        self,
        tape: _SourceTape,
        sizes: _Sizes,
        weights: Mapping[Key, Tensor],
        seen: Mapping[str, Any],
        module: Runnable,
        paths: Mapping[int, str],
    ) -> None:
        self.tape = tape
        self.sizes = sizes
        self.weights = weights
        self.seen = seen
        self.module = module
        self.paths = paths
        self.path = ""

    def run_step(self, step: Step, frame: Frame) -> Any:
        """Run one step, and note what it calls."""
        tape = self.tape
        if step.block is not None:
            return self._note_block(step, step.block, frame)
        begin, before = tape.mark(), tape.failure
        tape.failure = None
        tape.constants.update(_tensors(frame.values[key] for key in step.reads))
        tape.constants.update(_tensors(step.attributes.values()))
        try:
            result = super().run_step(step, frame)
            self.sizes.keep_conditions()
            if tape.failure is not None:
                raise NotRecordableError(tape.failure)
            tape.encode(_plain(result))
        except Exception as error:  # whatever a kernel raises that looks at data
            tape.take_back(begin)
            result = self._note_choice(step, frame, error)
        tape.failure = before
        self._note_layer(step, frame, begin[0], result)
        return result

    def _note_block(self, step: Step, block: Block, frame: Frame) -> Any:
        """Note the call of a module as one call of its body."""
        tape = self.tape
        inputs = [frame.values[key] for key in step.inputs]
        body = Body(self.paths[id(block.level)], self._values(inputs))
        begin, _ = tape.mark()
        values: dict[Key, Any] = {"": None, **block.plan.constants}
        values.update(zip(block.plan.inputs, inputs, strict=True))
        values.update((place.name, self.weights[place.name]) for place in block.reads)
        around, self.path = self.path, body.path
        results = self.run(block.plan, Frame(values, frame.device, root=frame.root))
        self.path = around
        body.calls = tape.calls[begin:]
        del tape.calls[begin:]
        body.outputs = self._values(results)
        many = len(body.outputs) != 1
        tape.calls.append(Call(body, tuple(body.inputs), {}, list(body.outputs), many, 0))
        return results if len(results) != 1 else results[0]

    def _values(self, given: Iterable[Any]) -> list[Value]:
        """The values of tensors; numbers follow from sizes, wherever they are needed."""
        return list(values_in(self.tape.encode([_plain(value) for value in given])))

    def _note_layer(self, step: Step, frame: Frame, begin: int, result: Any) -> None:
        """Note the layer of torch that a step is a call of, in the place of what it called."""
        tape = self.tape
        calls, (_, result), *others = tape.calls[begin:], *by_name(step, result)
        if others or not calls or isinstance(calls[0].function, Choice):
            return
        found = layer_of(step, self.module.weights, frame.values)
        if found is None:
            return
        layer, source, names = found
        weights = {attribute: tape._find(frame.values[name]) for attribute, name in names.items()}
        value, given = tape._find(result), tape._find(frame.values[source])
        if value is None or given is None or None in weights.values():
            return
        del tape.calls[begin:]
        call = Layer(layer, weights, calls)  # type: ignore[arg-type]  # none is None
        tape.calls.append(Call(call, (given,), {}, [value], False, 0))

    def _note_choice(self, step: Step, frame: Frame, error: Exception) -> Any:
        """Note a step that runs one of two subgraphs, by data.

        Raises:
            Exception: the error, where it is another step.
        """
        tape, condition = self.tape, frame.values[step.inputs[0]]
        if tuple(step.subgraphs) != BRANCHES or not isinstance(condition, Tensor):
            raise error
        bodies, results = [], []
        for name in BRANCHES:
            begin, _ = tape.mark()
            body = Body(self.path, [], is_subgraph=True)
            found = self._bind(step.subgraphs[name], frame, step.node)()
            body.outputs = [tape.encode(_plain(result)) for result in found]
            if tape.failure is not None or not all(isinstance(r, Tensor) for r in found):
                raise error
            body.calls = tape.calls[begin:]
            del tape.calls[begin:]
            bodies.append(body)
            results.append(found)
        made = tuple([self._either(*pair) for pair in zip(step.outputs, *results, strict=True)])
        values: list[Any] = [tape.add(tensor) for tensor in made]
        choice = Choice(*bodies)
        tape.calls.append(Call(choice, (tape.encode(condition),), {}, values, len(values) != 1, 0))
        return made if len(made) != 1 else made[0]

    def _either(self, name: str, then: Tensor, otherwise: Tensor) -> Tensor:
        """A tensor that stands for either of two."""
        with self.tape.paused():
            if then.shape == otherwise.shape:
                return torch.empty_like(then)
            return self.sizes.of_data(name, then.dtype, self.seen[name][1])


def _plain(value: Any) -> Any:
    """A value of a frame without its wrapper."""
    return value.data if isinstance(value, Host) else value


def _tensors(values: Any) -> dict[int, Tensor]:
    """Tensors by their identity."""
    return {id(v): v for v in values if isinstance(v, Tensor)}
