"""The program of a module over prepared weights: torch's own kernels, without a compiler.

What depends on weights alone is computed once. The program then runs in one of four forms, the
fastest of those that compute the same:

    plain     functions of torch, called from Python
    packed    convolutions and products over weights packed by oneDNN, with what follows fused
    graph     traced and frozen; oneDNN compiles parts of the graph
    traced    traced and frozen
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from threading import Lock
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from onnxinterp.errors import EngineError
from onnxinterp.programs import packing
from onnxinterp.programs.aliases import is_torch
from onnxinterp.programs.calls import Check, Program, Value, dense_strides
from onnxinterp.programs.inference import for_snapshot
from onnxinterp.programs.memory import reuse_memory
from onnxinterp.programs.source import DeviationError, compiled
from onnxinterp.programs.timing import least_seconds
from onnxinterp.snapshots.checking import problem, similar_inputs
from onnxinterp.snapshots.engines import Options, Runner
from onnxinterp.snapshots.subject import Subject, check_module_alone, recorded_program
from onnxinterp.values import read_weight

Form: TypeAlias = Callable[..., Any]
WARM_CALLS = 3  # of a traced form: it compiles itself in the first ones
MEASURED_SECONDS = 0.2  # for each form
VIEWS = ("prim::ListUnpack", "aten::unsafe_chunk", "aten::chunk", "aten::split", "aten::view")
_FUSION = Lock()  # TorchScript's fusion is one switch of the process


class ProgramRunner:
    """Runs one form of a program.

    Attributes:
        form: its name.
    """

    takes_any_sizes = False

    def __init__(self, form: str, function: Form, fixed: frozenset[int]) -> None:
        self.form = form
        self._function = function
        self._fixed = fixed  # places of results that a frozen graph has itself

    def __call__(self, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Run once.

        Raises:
            EngineError: the data lead to another branch or size than those of the example.
        """
        try:
            with torch.no_grad():
                results = self._function(*inputs)
        except DeviationError as error:
            raise EngineError("the data lead to another branch or size") from error
        if self._fixed:
            return tuple([r.clone() if i in self._fixed else r for i, r in enumerate(results)])
        return tuple(results)


def prepare(module: Subject, inputs: tuple[Tensor, ...], options: Options) -> Runner:  # noqa: ARG001
    """The fastest form of the program of a module, for inputs of these sizes.

    Raises:
        EngineError: there is no program, or a call of it would differ from the last one.
    """
    check_module_alone(module)
    recorded = recorded_program(module, inputs)
    weights = {
        value: read_weight(holder or module, name).detach()
        for value, (_, holder, name) in recorded.weights
    }
    with torch.no_grad():
        program = for_snapshot(recorded, weights)
        fixed = _fixed(program)
        forms = {name: ProgramRunner(name, form, fixed) for name, form in _forms(program, inputs)}
        return _fastest(forms, inputs)


def _forms(program: Program, inputs: Sequence[Tensor]) -> Iterator[tuple[str, Form]]:
    """The forms that there are: "plain" first."""
    yield "plain", _from_python(reuse_memory(program))
    on_cpu = all(x.device.type == "cpu" for x in inputs)
    if on_cpu and packing.is_available():
        yield "packed", _from_python(reuse_memory(packing.pack(program)))
    if any(isinstance(call, Check) or not is_torch(call) for call in program.calls):
        return
    function = _from_python(program)
    inputs = [_dense(x) for x in inputs]
    for name in ("graph", "traced") if on_cpu else ("traced",):
        if (graph := _traced(function, inputs, fuses=name == "graph")) is not None:
            yield name, graph


def _from_python(program: Program) -> Form:
    function, _ = compiled(program)

    def run(*inputs: Tensor) -> tuple[Any, ...]:
        return function(*inputs, ())

    return run


def _traced(function: Form, inputs: Sequence[Tensor], *, fuses: bool) -> Form | None:
    """A function as a frozen graph of TorchScript; None where it refuses, at the first run even."""

    class Traced(nn.Module):
        def forward(self, *inputs: Tensor) -> Any:
            return function(*inputs)

    with _FUSION, _fusion(fuses), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is deprecated; shapes are constants
        try:
            traced = torch.jit.trace(  # type: ignore[no-untyped-call]  # untyped in torch
                Traced().eval(), tuple(inputs), check_trace=False
            )
            graph: Any = torch.jit.freeze(traced)
            if _writes_to_constants(graph.graph):
                return None
            for _ in range(WARM_CALLS):
                graph(*[x.clone() for x in inputs])
        except Exception:  # its refusals have no common class
            return None

    def run(*inputs: Tensor) -> Any:
        return graph(*map(_dense, inputs))

    return run


def _dense(x: Tensor) -> Tensor:
    """A tensor with the strides that a graph knows: it reads memory by them, of any other too.

    `contiguous` would leave any stride to an axis of one.
    """
    is_dense = x.stride() == dense_strides(x.shape) and not x.is_neg()
    return x if is_dense else x.clone(memory_format=torch.contiguous_format).resolve_neg()


def _writes_to_constants(graph: Any) -> bool:
    """Whether a frozen graph changes a tensor that it has for all calls.

    TorchScript writes gru_cell as functions in place, and folds constants in them: the products of
    a constant state are added to in each call.
    """
    for node in graph.nodes():
        if not node.kind().endswith("_"):
            continue
        target = node
        while target.kind().endswith("_") or target.kind() in VIEWS:
            target = next(iter(target.inputs())).node()
        if target.kind() == "prim::Constant":
            return True
    return False


@contextmanager
def _fusion(enabled: bool) -> Iterator[None]:
    """Let oneDNN compile parts of the graphs that are traced meanwhile."""
    before = torch.jit.onednn_fusion_enabled()  # type: ignore[no-untyped-call]  # as above
    torch.jit.enable_onednn_fusion(enabled)
    try:
        yield
    finally:
        torch.jit.enable_onednn_fusion(before)


def _fixed(program: Program) -> frozenset[int]:
    """Places of the outputs that depend on no input."""
    live = set(program.inputs)
    for call in program.calls:
        if live.intersection(call.reads()):
            live.update(v for v in call.results if v is not None)
    outputs = enumerate(program.outputs)
    return frozenset(i for i, v in outputs if isinstance(v, Value) and v not in live)


def _fastest(forms: dict[str, ProgramRunner], inputs: tuple[Tensor, ...]) -> ProgramRunner:
    """The fastest of the forms that compute what the plain one does."""
    plain = forms["plain"]
    right = [plain]
    others = [runner for runner in forms.values() if runner is not plain]
    right += [runner for runner in others if _computes_the_same(runner, plain, inputs)]
    seconds = least_seconds([partial(r, inputs) for r in right], MEASURED_SECONDS * len(right))
    return right[seconds.index(min(seconds))]


def _computes_the_same(
    runner: ProgramRunner, plain: ProgramRunner, inputs: tuple[Tensor, ...]
) -> bool:
    """Whether two forms agree, on the example and on other values."""
    for given in (inputs, *similar_inputs(inputs)):
        try:
            wanted = plain(tuple([x.clone() for x in given]))
        except (RuntimeError, IndexError, ValueError, EngineError):
            continue  # these values are not for this model
        try:
            results = runner(tuple([x.clone() for x in given]))
        except Exception:  # as above
            return False
        if problem(results, wanted, None):
            return False
    return True
