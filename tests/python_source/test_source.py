"""Python source: what it looks like, for small graphs."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from onnxinterp.errors import InputError, SourceError
from tests.python_source.writing import assert_same, parsed, written

LAYER = """g (float[n, 3] x) => (float[n, 2] y)
    <float[2, 3] w = {1, 2, 3, 4, 5, 6}, float[2] b = {1, 2}>
    { h = Gemm <transB = 1> (x, w, b) y = Relu(h) }"""
SIZES = """g (float[batch, 4, length] x) => (float[batch, rest] y)
    { s = Shape(x) zero = Constant <value_ints = [0]> () b = Gather(s, zero)
      minus = Constant <value_ints = [-1]> () t = Concat <axis = 0> (b, minus)
      y = Reshape(x, t) }"""
CHOICE = """g (float[n, 3] x) => (float[n, 3] y)
    <float[3, 3] w = {1, 2, 3, 4, 5, 6, 7, 8, 9}>
    { s = ReduceSum <keepdims = 0> (x) zero = Constant <value_float = 0.0> () c = Greater(s, zero)
      a = MatMul(x, w)
      y = If(c) <
        then_branch = t () => (float[n, 3] p) { r = Relu(x) q = Add(a, r) p = Tanh(q) },
        else_branch = e () => (float[n, 3] m) { m = MatMul(a, w) }> }"""
FOUND = """g (float[n] x) => (int64[m] y)
    { zero = Constant <value_float = 0.0> () c = Greater(x, zero) p = NonZero(c)
      axis = Constant <value_ints = [0]> () y = Squeeze(p, axis) }"""
LOOP = """g (float[n] x, int64 trips) => (float[n] y)
    { on = Constant <value = bool {1}> ()
      y = Loop(trips, on, x) <
        body = b (int64 i, bool c, float[n] v) => (bool d, float[n] w) {
          d = Identity(c) w = Tanh(v) }> }"""


def body_of(text: str, method: str = "forward") -> list[str]:
    """The statements of the last method of a name, without comments."""
    lines = text.split(f"def {method}(")[-1].split("\n\n")[0].splitlines()[1:]
    return [line.split("  # ")[0].strip() for line in lines]


def test_a_weight_and_its_kernel_are_a_layer(tmp_path: Path) -> None:
    net, text = written(parsed(LAYER), tmp_path, torch.randn(2, 3))
    assert "self.linear_1 = nn.Linear(3, 2)" in text
    assert body_of(text) == ["return torch.relu(self.linear_1(x))"]
    assert sorted(net.state_dict()) == ["linear_1.bias", "linear_1.weight"]


def test_free_sizes_have_the_names_of_the_file(tmp_path: Path) -> None:
    module = parsed(SIZES)
    net, text = written(module, tmp_path, torch.randn(2, 4, 3))
    assert body_of(text) == ["batch = x.shape[0]", "return x.reshape(batch, -1)"]
    for shape in ((2, 4, 3), (5, 4, 7), (1, 4, 1)):
        assert_same(net, module, torch.randn(shape))


def test_both_branches_are_written(tmp_path: Path) -> None:
    module = parsed(CHOICE)
    net, text = written(module, tmp_path, torch.ones(2, 3))
    assert "        if y:\n" in text
    assert "        else:\n" in text
    for x in (torch.rand(3, 3), -torch.rand(2, 3)):
        assert_same(net, module, x)


def test_sizes_that_follow_from_data_are_read_where_they_are_made(tmp_path: Path) -> None:
    module = parsed(FOUND)
    net, _ = written(module, tmp_path, torch.randn(5))
    for x in (torch.randn(7), -torch.ones(3), torch.ones(4)):
        assert_same(net, module, x)


def test_a_loop_that_data_end_is_refused(tmp_path: Path) -> None:
    module = parsed(LOOP)
    with pytest.raises(SourceError, match="Loop"):
        module.to_python(tmp_path / "net.py", torch.ones(2), torch.tensor(3))
    assert list(tmp_path.iterdir()) == []


def test_free_sizes_of_one_in_the_example_stay_free(tmp_path: Path) -> None:
    module = parsed(LAYER)
    net, _ = written(module, tmp_path, torch.randn(1, 3))
    for length in (1, 2, 5):
        assert_same(net, module, torch.randn(length, 3))


def test_free_sizes_of_none_in_the_example_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="must not be 0"):
        parsed(LAYER).to_python(tmp_path / "net.py", torch.randn(0, 3))


def test_a_changed_weight_is_noticed(tmp_path: Path) -> None:
    """The negative control."""
    module, x = parsed(LAYER), torch.rand(2, 3)
    net, _ = written(module, tmp_path, x)
    assert_same(net, module, x)
    with torch.no_grad():
        net.get_parameter("linear_1.weight").mul_(1.1)
    with pytest.raises(AssertionError):
        assert_same(net, module, x)
