"""The source of programs: nothing of a file is in it. And what making them takes."""

from __future__ import annotations

import ast
import re
import weakref
from collections.abc import Iterator
from typing import Any

import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from onnxinterp import OnnxModule
from onnxinterp.programs import recording
from onnxinterp.programs import tape as taping
from onnxinterp.programs.calls import Call, Check, Program, Value
from onnxinterp.programs.source import compiled as compile_program
from onnxinterp.runtime.interpreter import Frame
from tests.exports.exporting import export
from tests.exports.modules import CASES
from tests.models import parse
from tests.programs import MLP, X, assert_same, compiled, looped, the_program, warm

HOSTILE = (
    "__import__('os').system('x')",
    'a"b',
    "a'b",
    "a\nimport os\n",
    "{x}",
    "%s",
    "lambda",
    "import",
    "None",
    "weights",
    "program",
    "x0",
    "v1",
    "_",
    "DeviationError",
    "__builtins__",
    "\N{FULLWIDTH LATIN SMALL LETTER R}elu",
    "\N{LATIN SMALL LIGATURE FF}",
    "\u202eevil",
    "\x00",
    "\\",
)
NODES = (
    ast.Module, ast.FunctionDef, ast.arguments, ast.arg, ast.Assign, ast.Tuple, ast.List,
    ast.Name, ast.Load, ast.Store, ast.Del, ast.Delete, ast.Call, ast.keyword, ast.Attribute,
    ast.Subscript, ast.Constant, ast.Return, ast.Expr, ast.If, ast.Raise, ast.Compare, ast.NotEq,
    ast.BinOp, ast.Add, ast.Sub, ast.Mult, ast.Div, ast.UnaryOp, ast.USub,
)  # fmt: skip
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def check_source(source: str, variables: set[str]) -> None:
    """Check that a source consists of calls of bound names with numbers."""
    own = re.compile(r"[xwcv]\d+|weights|program|_|slice|DeviationError")
    assert source.isascii()
    for node in ast.walk(ast.parse(source)):
        assert isinstance(node, NODES), ast.dump(node)
        if isinstance(node, ast.Constant):
            assert type(node.value) in (int, float, bool, type(None)), node.value
        if isinstance(node, ast.Name):
            assert own.fullmatch(node.id) or node.id in variables, node.id
        if isinstance(node, ast.Attribute):
            assert hasattr(torch.Tensor, node.attr), node.attr
        if isinstance(node, ast.keyword):
            assert node.arg is None or NAME.fullmatch(node.arg)


def variables_of(function: Any) -> set[str]:
    return {n for n in function.__globals__ if n not in ("__builtins__", "program")}


def names_of(text: str) -> Iterator[onnx.ModelProto]:
    """Models in which each string is a hostile one."""
    tensor = numpy_helper.from_array(X.numpy(), text)
    nodes = [
        helper.make_node("Add", ["x", text], [f"{text}1"], name=text),
        helper.make_node("Einsum", [f"{text}1"], [f"{text}2"], name=text, equation="ij->ij"),
        helper.make_node("Relu", [f"{text}2"], ["y"], name=text),
    ]
    infos = [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in ("x", "y")]
    graph = helper.make_graph(nodes, text, infos[:1], infos[1:], [tensor])
    yield helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.parametrize("text", HOSTILE, ids=ascii)
@pytest.mark.parametrize("with_grad", [True, False])
def test_names_of_a_file_are_not_in_the_source(text: str, with_grad: bool) -> None:
    for model in names_of(text):
        with torch.set_grad_enabled(with_grad):
            module, loop = OnnxModule(model), looped(model)
            assert_same(warm(module, X), loop(X))
            made = the_program(module)
            check_source(made.source, variables_of(made.function))


@pytest.mark.parametrize("text", HOSTILE, ids=ascii)
def test_a_call_of_a_whole_step_has_no_name_of_the_file(text: str) -> None:
    """Not even where its kernel has no name but that of its operator."""

    class Unnamed:
        step = None

        def __call__(self, x: torch.Tensor) -> torch.Tensor:
            return x + 1

    x, y, z = (Value(torch.Size([2]), torch.float32, (1,)) for _ in range(3))
    step: Any = Unnamed()
    step.__name__ = text
    calls = [Call(torch.relu, (x,), {}, [y], False, 0), Call(step, (y,), {}, [z], False, 1)]
    function, source = compile_program(Program([x], [], {}, calls, [z]))
    check_source(source, variables_of(function))
    assert function(torch.tensor([-1.0, 1]), [])[0].tolist() == [1, 2]


def test_strings_that_functions_take_are_bound() -> None:
    text = 'g (float[n, m] x) => (float[m, n] y) { y = Einsum<equation = "ij->ji">(x) }'
    module = OnnxModule(parse(text))
    warm(module, X)
    made = the_program(module)
    check_source(made.source, variables_of(made.function))


def test_numbers_that_have_no_literal_are_bound() -> None:
    x, y = (Value(torch.Size([2]), torch.float32, (1,)) for _ in range(2))
    odd = [float("inf"), -float("inf"), float("nan"), -0.0, 1e-45, 1j, True, -(2**63), None]
    kept = [Call(lambda *a: x_of(a), (x, *odd), {}, [y], False, 0)]
    found: list[Any] = []

    def x_of(arguments: tuple[Any, ...]) -> Any:
        found.extend(arguments[1:])
        return arguments[0]

    kept[0].function.__name__ = "<lambda>"
    function, source = compile_program(Program([x], [], {}, kept, [y]))
    check_source(source, variables_of(function))
    function(torch.ones(2), [])
    assert list(map(repr, found)) == list(map(repr, odd))


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_programs_of_whole_networks_are_of_the_same_parts(case: Any) -> None:
    for how in case.exports()[-1:]:
        module = OnnxModule(export(case, how))
        for with_grad in (True, False):
            with torch.set_grad_enabled(with_grad):
                warm(module, *case.arguments(case.sizes[0]))
        for made in compiled(module):
            assert made is not None
            check_source(made.source, variables_of(made.function))
            assert not any(type(c) is Check and made.deviations for c in made.program.calls)


# ---- what it takes


def chain(count: int) -> onnx.ModelProto:
    nodes = [helper.make_node("Neg", [f"t{i}"], [f"t{i + 1}"]) for i in range(count)]
    infos = [helper.make_tensor_value_info(f"t{i}", TensorProto.FLOAT, ["n"]) for i in (0, count)]
    graph = helper.make_graph(nodes, "chain", infos[:1], infos[1:])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def test_a_graph_of_more_nodes_than_a_program_may_have() -> None:
    count = taping.MAX_CALLS + 10_000
    module = OnnxModule(chain(count))
    for _ in range(5):
        assert torch.equal(module(torch.ones(2)), torch.ones(2))
    assert compiled(module) == [None]


def test_a_tape_that_has_given_up_keeps_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(taping, "MAX_CALLS", 3)
    closed: list[Any] = []
    close = taping.Tape.close
    monkeypatch.setattr(taping.Tape, "close", lambda t: (close(t), closed.append(t)))
    module = OnnxModule(parse(MLP))
    warm(module, X)
    (tape,) = closed
    assert (tape.calls, tape.used, tape._values) == ([], {}, {})


def peak_of_recording(with_grad: bool) -> tuple[int, int]:
    """How many tensors are alive at most: in the loop, and while a program is recorded."""
    count, size = 50, 1 << 18
    module = OnnxModule(chain(count))
    x = torch.ones(size)
    peaks = []
    with torch.set_grad_enabled(with_grad):
        for call in range(4):
            alive = Alive()
            run_step = type(module.interpreter).run_step
            for owner in (type(module.interpreter), recording._Recorder):
                if "run_step" in vars(owner):
                    alive.watch(owner)
            module(x)
            alive.unwatch()
            assert type(module.interpreter).run_step is run_step, call
            peaks.append(alive.peak)
    return peaks[1], peaks[2]


class Alive:
    """Counts the results of steps that are alive after each step."""

    def __init__(self) -> None:
        self.peak, self._kept = 0, []
        self._seen: list[weakref.ref[torch.Tensor]] = []

    def watch(self, owner: Any) -> None:
        run_step = vars(owner)["run_step"]

        def watched(itself: Any, step: Any, frame: Frame) -> Any:
            result = run_step(itself, step, frame)
            if all(seen() is not result for seen in self._seen):
                self._seen.append(weakref.ref(result))
            self._seen = [seen for seen in self._seen if seen() is not None]
            self.peak = max(self.peak, len(self._seen))
            return result

        self._kept.append((owner, run_step))
        owner.run_step = watched

    def unwatch(self) -> None:
        for owner, run_step in self._kept:
            owner.run_step = run_step


def test_recording_keeps_no_tensor_longer_than_the_loop() -> None:
    for with_grad in (True, False):
        loop, recorded = peak_of_recording(with_grad)
        assert loop == recorded <= 4
