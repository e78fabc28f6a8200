"""Older versions derived from a newer kernel: signature, options, sample, host rule, calls."""

from __future__ import annotations

import copy
import inspect
import pickle
import typing
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any, Literal
from unittest import mock

import onnx
import pytest
import torch
from torch import Tensor

from onnxinterp import InvalidModelError, OnnxModule, registry
from onnxinterp.registry import (
    HOST_RULES,
    SAMPLES,
    host,
    lookup,
    op,
    sample,
)
from onnxinterp.values import Host, Ints
from onnxinterp.versions import NEWER, forwards, host_rule_of, older, sample_of

DOMAIN = "test.versions"
Mode = Literal["plain", "double"]


@pytest.fixture(autouse=True)
def _tables() -> Iterator[None]:
    """What a test registers is gone after it."""
    tables = (registry.KERNELS, HOST_RULES, SAMPLES, NEWER)
    with ExitStack() as stack:
        for table in tables:
            stack.enter_context(mock.patch.dict(table))
        yield


@pytest.fixture
def newest() -> Callable[..., Any]:
    @op("Moved", since=9, domain=DOMAIN, uint64="bits", frozen=("by",), data_shaped=False)
    def moved(
        x: Tensor, by: Ints, to: Tensor | None = None, *, axis: int = -1, mode: Mode = "plain"
    ) -> Tensor:
        """Roll x along an axis."""
        y = x.roll(by[0], axis) * (2 if mode == "double" else 1)
        return y if to is None else y + to

    return moved


def run(opset: int, node: str, *inputs: Tensor) -> Tensor:
    names = ", ".join(f"float[{', '.join(map(str, x.shape))}] x{i}" for i, x in enumerate(inputs))
    text = f"""<ir_version: 8, opset_import: ["{DOMAIN}": {opset}, "": 18]>
    g ({names}) => (float[M, N] y) <int64[1] one = {{1}}> {{ y = {DOMAIN}.{node} }}"""
    result = OnnxModule(onnx.parser.parse_model(text))(*inputs)
    assert isinstance(result, Tensor)
    return result


X = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])


def test_the_signature_is_real(newest: Callable[..., Any]) -> None:
    version = older(
        newest,
        since=2,
        without=["to"],
        defaults={"axis": 0},
        attributes=["by"],
        unused={"hint": 0},
        hints={"mode": Literal["plain"]},
    )
    parameters = inspect.signature(version).parameters
    kinds = [(p.name, p.kind is p.KEYWORD_ONLY, p.default) for p in parameters.values()]
    assert kinds == [
        ("x", False, inspect.Parameter.empty),
        ("by", True, inspect.Parameter.empty),
        ("axis", True, 0),
        ("mode", True, "plain"),
        ("hint", True, 0),
    ]
    hints = {"by": Ints, "axis": int, "mode": Literal["plain"], "hint": int}
    assert typing.get_type_hints(version) == {"x": Tensor, **hints, "return": Tensor}
    assert version.__name__ == version.__qualname__ == "moved_2"
    assert version.__module__ == __name__
    assert version.__doc__ == "Roll x along an axis."


def test_a_required_parameter_has_no_default(newest: Callable[..., Any]) -> None:
    parameters = inspect.signature(older(newest, since=5, required=["to"])).parameters
    assert parameters["to"].default is inspect.Parameter.empty
    assert inspect.signature(newest).parameters["to"].default is None


def test_each_opset_has_its_version(newest: Callable[..., Any]) -> None:
    older(newest, since=5, without=["to"], defaults={"axis": 0})
    older(newest, since=2, without=["mode"], defaults={"mode": "double"}, attributes=["by"])
    assert run(9, "Moved (x0, one)", X).tolist() == X.roll(1, -1).tolist()
    assert run(5, "Moved (x0, one)", X).tolist() == X.roll(1, 0).tolist()
    assert run(5, "Moved <axis = -1> (x0, one)", X).tolist() == X.roll(1, -1).tolist()
    assert run(2, "Moved <by = [1]> (x0)", X).tolist() == (2 * X.roll(1, -1)).tolist()
    with pytest.raises(InvalidModelError, match="at most 2"):
        run(5, "Moved (x0, one, x0)", X)
    with pytest.raises(InvalidModelError, match="mode"):
        run(2, 'Moved <by = [1], mode = "plain"> (x0)', X)


def test_an_unused_attribute_has_no_effect(newest: Callable[..., Any]) -> None:
    older(newest, since=2, unused={"hint": 0})
    want = run(9, "Moved (x0, one)", X)
    assert run(2, "Moved <hint = 1> (x0, one)", X).tolist() == want.tolist()
    with pytest.raises(InvalidModelError, match="hint"):
        run(9, "Moved <hint = 1> (x0, one)", X)


def test_a_version_of_a_version_has_both_differences(newest: Callable[..., Any]) -> None:
    middle = older(newest, since=5, without=["to"], defaults={"axis": 0}, unused={"hint": 0})
    oldest = older(middle, since=2, without=["mode"])
    assert oldest.__name__ == "moved_2"
    assert list(inspect.signature(oldest).parameters) == ["x", "by", "axis", "hint"]
    assert oldest(X, [1], hint=1).tolist() == X.roll(1, 0).tolist()
    plain = older(newest, since=4, defaults={"axis": 0})
    assert (
        older(plain, since=3, defaults={"mode": "double"})(X, [1]).tolist()
        == (2 * X.roll(1, 0)).tolist()
    )


def test_a_call_of_a_version_runs_the_code_of_the_newest(newest: Callable[..., Any]) -> None:
    assert older(newest, since=5, defaults={"axis": 0}).__code__ is newest.__code__


def test_the_name_of_a_version_ends_in_its_opset() -> None:
    @op("Range", since=9, domain=DOMAIN)
    def range_(x: Tensor) -> Tensor:
        return x

    assert older(older(range_, since=5), since=1).__name__ == "range_1"


def test_options_are_those_of_the_newer_kernel(newest: Callable[..., Any]) -> None:
    older(newest, since=5)
    older(newest, since=3, attributes=["by"])
    older(newest, since=2, uint64=None, any_type=True)
    kernels = {since: lookup("Moved", since, DOMAIN) for since in (5, 3, 2)}
    options = {
        since: (k.op_type, k.domain, k.since, k.uint64, k.any_type, k.data_shaped, k.frozen)
        for since, k in kernels.items()
        if k is not None
    }
    common = ("Moved", DOMAIN)
    assert options == {
        5: (*common, 5, "bits", False, False, ("by",)),
        3: (*common, 3, "bits", False, False, ()),  # an attribute never trains
        2: (*common, 2, None, True, False, ("by",)),
    }


def test_a_version_has_the_sample_and_the_host_rule_of_the_next_newer_one(
    newest: Callable[..., Any],
) -> None:
    middle = older(newest, since=5, defaults={"axis": 0}, unused={"hint": 0})
    oldest = older(middle, since=2, without=["to"])
    with pytest.raises(KeyError):
        sample_of(oldest)
    assert host_rule_of(oldest) is None

    @host(newest)
    def rule(x: Host, by: Any, to: Any = None, *, axis: int = -1, mode: Mode = "plain") -> Any:
        return x, by, to, axis, mode

    sample(newest)(draw := lambda: None)
    number = Host(1, torch.int64)
    assert host_rule_of(newest) is rule
    for version in (middle, oldest):
        adapted = host_rule_of(version)
        assert adapted is not None
        assert adapted(number, [1], hint=1) == (number, [1], None, 0, "plain")
        assert adapted(number, [1], axis=-1)[3] == -1
    assert [sample_of(f) for f in (newest, middle, oldest)] == [draw, draw, draw]
    sample(middle)(own := lambda: None)
    host(middle)(other := lambda: None)
    assert [sample_of(f) for f in (newest, middle, oldest)] == [draw, own, own]
    assert [host_rule_of(f) for f in (newest, middle, oldest)] == [rule, other, other]


def test_a_version_without_other_defaults_has_the_very_rule(newest: Callable[..., Any]) -> None:
    @host(newest)
    def rule(*_: Any) -> Any:
        return NotImplemented

    assert host_rule_of(older(newest, since=5, without=["to"])) is rule


def test_what_prepare_reads_may_be_left_out() -> None:
    def table(*, sizes: Ints, scale: float = 2.0, shift: Tensor | None = None) -> float:
        return sum(sizes) * scale + (0 if shift is None else 100)

    @op("Tabled", since=9, domain=DOMAIN, prepare=table)
    def tabled(x: Tensor, *, shift: Tensor | None = None, prepared: float) -> Tensor:
        return x * prepared if shift is None else x * prepared + shift

    older(tabled, since=3, without=["shift", "scale"])
    old, new = lookup("Tabled", 3, DOMAIN), lookup("Tabled", 9, DOMAIN)
    assert old is not None
    assert new is not None
    assert list(new.attributes) == ["sizes", "scale", "shift", "prepared"]
    assert list(old.attributes) == ["sizes", "prepared"]
    assert old.prepare is not None
    assert old.prepare(sizes=[1, 2]) == 6.0
    assert old.prepare.__name__ == "table_3"
    got = run(3, "Tabled <sizes = [1, 2]> (x0)", X)
    assert got.tolist() == (6 * X).tolist()


def test_forwards_completes_a_signature(newest: Callable[..., Any]) -> None:
    @op("Moved", since=5, domain=DOMAIN)
    @forwards(newest, without=["mode"])
    def moved_5(*inputs: Any, flip: int = 0, **attributes: Any) -> Tensor:
        return torch.as_tensor(newest(*inputs, **attributes)).flip(0) if flip else X

    parameters = inspect.signature(moved_5).parameters
    assert [(p.name, p.kind is p.KEYWORD_ONLY, p.default) for p in parameters.values()] == [
        ("x", False, inspect.Parameter.empty),
        ("by", False, inspect.Parameter.empty),
        ("to", False, None),
        ("flip", True, 0),
        ("axis", True, -1),
    ]
    hints = {"x": Tensor, "by": Ints, "to": Tensor | None, "flip": int, "axis": int}
    assert typing.get_type_hints(moved_5) == {**hints, "return": Tensor}
    got = run(5, "Moved <flip = 1, axis = 0> (x0, one)", X)
    assert got.tolist() == X.roll(1, 0).flip(0).tolist()
    with pytest.raises(InvalidModelError, match="mode"):
        run(5, 'Moved <mode = "plain"> (x0, one)', X)


def test_each_kernel_of_the_package_can_be_pickled() -> None:
    for versions in registry.KERNELS.values():
        for kernel in versions.values():
            assert pickle.loads(pickle.dumps(kernel)) is kernel
            assert copy.deepcopy(kernel) is kernel


def test_a_kernel_of_another_package_is_pickled_with_its_function() -> None:
    kernel = registry.kernel_of("Own", run)
    copied = pickle.loads(pickle.dumps(kernel))
    assert (copied.function, copied.op_type, copied.data_shaped) == (run, "Own", True)


def test_what_cannot_be_derived_raises(newest: Callable[..., Any]) -> None:
    older(newest, since=5)
    with pytest.raises(ValueError, match="Moved-5 is registered twice"):
        older(newest, since=5)
    with pytest.raises(ValueError, match="run must be a registered kernel"):
        older(run, since=2)
    with pytest.raises(TypeError, match="moved needs a value of by"):
        older(newest, since=2, without=["by"])
    with pytest.raises(KeyError, match="nothing"):
        older(newest, since=2, defaults={"nothing": 1})
    ignoring = older(newest, since=3, unused={"hint": 0})
    with pytest.raises(TypeError, match=r"moved_3 must name \['axis'\] in its own code"):
        older(ignoring, since=2, defaults={"axis": 0})
    assert lookup("Moved", 2, DOMAIN) is None
