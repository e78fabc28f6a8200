"""Every operator as a program: its fifth call is what the loop computes.

`pytest tests/property/test_programs.py -s` prints which operators become a program, one call of a
whole step, or neither, and why.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from onnx.defs import OpSchema
from torch import Tensor

from onnxinterp import OnnxModule
from onnxinterp.programs import Compiled, recording, tape
from onnxinterp.programs.calls import Check
from onnxinterp.programs.source import compiled as compile_program
from onnxinterp.runtime.steps import StepCall
from tests.programs import assert_same, compiled, flat, looped, warm
from tests.property.drawing import COMMON, SeededDraw
from tests.property.one_node import OneNode, drawn
from tests.property.served import NEWEST, label

FOUND: dict[str, set[str]] = defaultdict(set)
"""What becomes of an operator -> operators; "program", "whole step: why" or "none: why"."""
SAMPLES = 1
CONVOLVED = (
    *("Conv", "ConvTranspose", "DeformConv", "CausalConvWithState", "FusedConv"),
    *("MatMulNBitsMlp", "MatMulNBitsQkv", "MatMulNBitsQLoRA"),
    "MatMulNBits",  # which has another function from the second product with a matrix on
)


def case_of(schema: OpSchema, seed: int, constants: str) -> OneNode:
    return drawn(schema, SeededDraw(f"{label(schema)} {seed}", schema, only=COMMON), constants)


@pytest.fixture
def reasons(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Why something could not be recorded."""
    found: list[str] = []

    class Noted(recording.NotRecordableError):
        def __init__(self, why: str) -> None:
            super().__init__(why)
            found.append(why)

    for module in (recording, tape):
        monkeypatch.setattr(module, "NotRecordableError", Noted)
    return found


@pytest.fixture(scope="module", autouse=True)
def table() -> Iterator[None]:
    """Print what became a program."""
    yield
    counts = Counter({what: len(operators) for what, operators in FOUND.items()})
    print(f"\n{'operators':>9}  what they become")
    for what, count in counts.most_common():
        listed = "" if count > 30 else f": {', '.join(sorted(FOUND[what]))}"
        print(f"{count:>9}  {what}{listed}")


def what_it_is(made: list[Compiled | None], reasons: list[str]) -> str:
    why = f": {reasons[0]}" if reasons else ""
    if not made:
        return "no plan for its sizes"
    if made[0] is None:
        return f"none{why}"
    whole = any(isinstance(call.function, StepCall) for call in made[0].program.calls)
    return f"whole step{why}" if whole else "program"


@pytest.mark.parametrize("schema", NEWEST.values(), ids=label)
@pytest.mark.parametrize("constants", ["none", "settings"])
@pytest.mark.parametrize("with_grad", [True, False])
def test_the_fifth_call_is_what_the_loop_computes(
    schema: OpSchema, constants: str, with_grad: bool, reasons: list[str]
) -> None:
    for seed in range(SAMPLES):
        case = case_of(schema, seed, constants)
        module, loop = OnnxModule(case.model), looped(case.model)
        tolerance = 1e-5 if not with_grad and schema.name in CONVOLVED else 0
        reasons.clear()
        with torch.set_grad_enabled(with_grad):
            for _ in range(5):
                torch.manual_seed(3)
                got = module(**case.torch_feeds())
                torch.manual_seed(3)
                assert_same(got, loop(**case.torch_feeds()), tolerance=tolerance)
        made = compiled(module)
        assert all(m is None or m.deviations == 0 for m in made)
        FOUND[what_it_is(made, reasons)].add(label(schema))


def other_feeds(feeds: dict[str, Any]) -> dict[str, Any]:
    """Inputs of the same sizes and types, with other data."""
    return {n: mirrored(v) if isinstance(v, Tensor) else v for n, v in feeds.items()}


def mirrored(value: Tensor) -> Tensor:
    """The elements in reverse order; as bytes, where torch cannot for a type of one byte."""
    bits = value.view(torch.uint8) if value.itemsize == 1 else value
    return bits.flip(list(range(value.ndim))).view(value.dtype)


@pytest.mark.parametrize("schema", NEWEST.values(), ids=label)
@pytest.mark.parametrize("with_grad", [True, False])
def test_other_data_are_what_the_loop_computes(schema: OpSchema, with_grad: bool) -> None:
    """A program for the data of the first calls: it computes with those of the next."""
    case = case_of(schema, 0, "settings")
    feeds = other_feeds(case.torch_feeds())
    module, loop = OnnxModule(case.model), looped(case.model)
    tolerance = 1e-5 if not with_grad and schema.name in CONVOLVED else 0
    with torch.set_grad_enabled(with_grad):
        warm(module, **case.torch_feeds())
        torch.manual_seed(3)
        want, error = outcome(loop, feeds)
        torch.manual_seed(3)
        got, got_error = outcome(module, feeds)
    assert got_error == error
    if error is None:
        assert_same(got, want, tolerance=tolerance)


def outcome(module: OnnxModule, feeds: dict[str, Any]) -> tuple[Any, str | None]:
    try:
        return module(**feeds), None
    except Exception as error:
        return None, f"{type(error).__name__}: {error}"


def test_most_operators_are_programs() -> None:
    """Else the tests above compare the loop with itself."""
    counts = Counter()
    for schema in NEWEST.values():
        case = case_of(schema, 0, "settings")
        module = OnnxModule(case.model)
        warm(module, **case.torch_feeds())
        counts[what_it_is(compiled(module), [])] += 1
    assert counts["program"] > 0.8 * counts.total()


def test_a_program_without_one_of_its_calls_or_arguments_is_found() -> None:
    """Negative control: the comparison sees a call that is left out, and a changed number."""
    found = missed = 0
    for schema in NEWEST.values():
        case = case_of(schema, 0, "settings")
        module, loop = OnnxModule(case.model), looped(case.model)
        with torch.no_grad():
            warm(module, **case.torch_feeds())
            made = next(iter(compiled(module)), None)
            if made is None or not spoil(made):
                continue
            torch.manual_seed(3)
            want = loop(**case.torch_feeds())
            torch.manual_seed(3)
            try:
                assert_same(made.function(*inputs_of(module, case), made.weights(module)), want)
            except Exception:
                found += 1
            else:
                missed += 1
    assert found > 100
    assert missed < 0.2 * found  # a result that does not depend on that argument


def spoil(made: Compiled) -> bool:
    """Drop the last argument that may be dropped, or the last call."""
    for call in reversed(made.program.calls):
        if isinstance(call, Check) or not call.args or isinstance(call.function, StepCall):
            continue
        if len(call.args) > 1:
            call.args = call.args[:-1]
        else:
            call.function, call.args = Tensor.clone, (call.args[0],)
        if not isinstance(call.args[0], (list, tuple)):
            made.function, made.source = compile_program(made.program)
            return True
        return False
    return False


def inputs_of(module: OnnxModule, case: OneNode) -> list[Any]:
    given = module._call.gather((), case.torch_feeds(), None)
    return module._call.in_order(given)


def test_the_comparison_sees_one_bit() -> None:
    with pytest.raises(AssertionError, match="is not"):
        assert_same(torch.tensor([0.0]), torch.tensor([-0.0]))
    with pytest.raises(AssertionError):
        assert_same([torch.ones(2)], [torch.ones(2, dtype=torch.float64)])
    assert_same(torch.tensor(float("nan")), torch.tensor(-float("nan")))
    assert flat(((1, [2]), 3)) == [1, 2, 3]
