"""Nothing that a node asks of torch kills the process, never ends, or comes out as rubbish."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.untrusted.calls import nodes, torch_calls
from tests.untrusted.calls.running import Cases


@pytest.fixture(scope="module")
def hostile_nodes() -> Iterator[Cases]:
    cases = Cases("tests.untrusted.calls.nodes")
    yield cases
    cases.close()


@pytest.mark.parametrize("case", nodes.cases())
def test_hostile_nodes_are_refused_or_right(case: str, hostile_nodes: Cases) -> None:
    assert hostile_nodes.run(case) == "ok"


def test_torch_refuses_what_kernels_leave_to_it() -> None:
    """Where this fails, a new torch answers otherwise: the kernels that call it need a guard."""
    answers = Cases("tests.untrusted.calls.torch_calls").results(torch_calls.REFUSED)
    assert {c: a for c, a in answers.items() if not a.startswith("raises")} == {}


@pytest.mark.parametrize(
    ("case", "answer"), [("dies", "died of SIGABRT"), ("hangs", "hung"), ("well", "ok")]
)
def test_a_child_tells_how_it_ended(case: str, answer: str) -> None:
    """A negative control: a death and an endless loop are seen, and the next child starts."""
    cases = Cases("tests.untrusted.calls.accidents", seconds=15 if case != "hangs" else 3)
    assert cases.results([case, "well"]) == {case: answer, "well": "ok"}
