"""Sizes that depend on data, and sizes of batches, regions and images, in one captured graph.

Each graph is captured once and called with data of which the results have other sizes.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from onnxinterp import OnnxModule
from tests.engine.test_captured_control_flow import CAPTURES, LEAVES, Inputs, as_list, feeds_of
from tests.engine.test_control_flow import assert_same, onnxruntime_answers, parse

pytestmark = LEAVES
FEW = torch.tensor([[1.0, 0, 2], [0, 0, 3], [4, 0, 0]])
MANY = torch.tensor([[1.0, 1, 2], [0, 5, 3], [4, 0, 0]])

TAKEN = "nz = NonZero (x)  t = Transpose (nz)  v = GatherND (x, t)"

BY_DATA: dict[str, tuple[str, list[Inputs]]] = {
    "NonZero": ("g (float[3,3] x) => (int64[2,N] y) { y = NonZero (x) }", [(FEW,), (MANY,)]),
    "Compress": (
        "g (float[3,3] x, bool[3] c) => (float[N,3] y) { y = Compress <axis = 0> (x, c) }",
        [(FEW, torch.tensor([True, False, True])), (MANY, torch.tensor([True, False, False]))],
    ),
    "Unique": (
        "g (float[9] x) => (float[N] y, int64[M] i, int64[K] j, int64[L] c)"
        "{ y, i, j, c = Unique (x) }",
        [(FEW.flatten(),), (MANY.flatten(),)],
    ),
    "TopK": (
        "g (float[3,3] x, int64[1] k) => (float[3,N] y, int64[3,N] i) { y, i = TopK (x, k) }",
        [(FEW, torch.tensor([2])), (MANY, torch.tensor([3]))],
    ),
    "TopK of as many as there are": (
        f"""g (float[3,3] x) => (float[N] y) {{
          {TAKEN} n = Shape (v)  most = Constant <value = int64[1] {{5}}> ()
          k = Min (n, most)  y, i = TopK (v, k)
        }}""",
        [(FEW,), (MANY,)],
    ),
    "Expand": (
        """g (float[3,3] x) => (float[N,3] y) {
          nz = NonZero (x)  n = Shape <start = 1> (nz)  three = Constant <value = int64[1] {3}> ()
          row = Constant <value = float[1,3] {1, 2, 3}> ()
          shape = Concat <axis = 0> (n, three)  y = Expand (row, shape)
        }""",
        [(FEW,), (MANY,)],
    ),
    "Squeeze": (
        f"""g (float[3,3] x) => (float[N] y) {{
          {TAKEN} axis = Constant <value = int64[1] {{0}}> ()
          u = Unsqueeze (v, axis)  y = Squeeze (u, axis)
        }}""",
        [(FEW,), (MANY,)],
    ),
    "Range": (
        """g (int64 n) => (int64[N] y) {
          zero = Constant <value = int64 {0}> ()  two = Constant <value = int64 {2}> ()
          y = Range (zero, n, two)
        }""",
        [(torch.tensor(3),), (torch.tensor(8),), (torch.tensor(0),)],
    ),
    "Resize": (
        """g (float[1,2,4,4] x, int64[4] s) => (float[A,B,C,D] y) {
          y = Resize <mode = "linear"> (x, "", "", s)
        }""",
        [
            (torch.linspace(0, 1, 32).reshape(1, 2, 4, 4), torch.tensor([1, 2, *sizes]))
            for sizes in ((8, 8), (6, 7), (3, 9))
        ],
    ),
}


def uniform(*shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(sum(shape)))


def regions(n: int, images: int) -> Inputs:
    start = uniform(n, 2) * 4
    return torch.cat([start, start + 2 + uniform(n, 2)], 1), torch.arange(n) % images


def boxes(images: int, n: int) -> Tensor:
    start = uniform(images, n, 2) * 3
    return torch.cat([start, start + 1 + uniform(n, images, 2).transpose(0, 1)], -1)


BY_BATCH: dict[str, tuple[str, list[Inputs]]] = {
    "RoiAlign": (
        """g (float[B,2,8,9] x, float[N,4] rois, int64[N] b) => (float[N,2,3,4] y) {
          y = RoiAlign <output_height = 3, output_width = 4, sampling_ratio = 2> (x, rois, b)
        }""",
        [(uniform(b, 2, 8, 9), *regions(n, b)) for b, n in ((5, 7), (6, 11))],
    ),
    "MaxRoiPool": (
        """g (float[B,2,8,9] x, float[N,5] rois) => (float[N,2,3,4] y) {
          y = MaxRoiPool <pooled_shape = [3, 4]> (x, rois)
        }""",
        [
            (uniform(b, 2, 8, 9), torch.cat([regions(n, b)[1][:, None], regions(n, b)[0]], 1))
            for b, n in ((6, 7), (5, 11))
        ],
    ),
    "DeformConv": (
        """g (float[B,2,8,9] x, float[4,2,3,3] w, float[B,18,6,7] o) => (float[B,4,6,7] y) {
          y = DeformConv <kernel_shape = [3, 3]> (x, w, o)
        }""",
        [(uniform(b, 2, 8, 9), uniform(4, 2, 3, 3), uniform(b, 18, 6, 7)) for b in (5, 11)],
    ),
    "NonMaxSuppression": (
        """g (float[B,N,4] x, float[B,3,N] s, float[B,2,8,9] f) => (float[M,24] y) {
          most = Constant <value = int64 {3}> ()  half = Constant <value = float {0.5}> ()
          rows = NonMaxSuppression (x, s, most, half, half)
          columns = Constant <value = int64[2] {0, 2}> ()  first = Constant <value = int64 {0}> ()
          places = Gather <axis = 1> (rows, columns)  kept = GatherND (x, places)
          b = Gather <axis = 1> (rows, first)
          pooled = RoiAlign <output_height = 3, output_width = 4, sampling_ratio = 2> (f, kept, b)
          shape = Constant <value = int64[2] {-1, 24}> ()  y = Reshape (pooled, shape)
        }""",
        [(boxes(b, n), uniform(b, 3, n), uniform(b, 2, 8, 9)) for b, n in ((5, 7), (6, 11))],
    ),
}


@pytest.mark.parametrize("capture", CAPTURES.values(), ids=CAPTURES)
@pytest.mark.parametrize(("graph", "calls"), BY_DATA.values(), ids=BY_DATA)
def test_sizes_may_depend_on_data(graph: str, calls: list[Inputs], capture: Any) -> None:
    check(graph, calls, capture)
    shapes = {tuple(x.shape) for call in calls for x in as_list(OnnxModule(parse(graph))(*call))}
    assert len(shapes) > 1


@pytest.mark.parametrize("capture", CAPTURES.values(), ids=CAPTURES)
@pytest.mark.parametrize(("graph", "calls"), BY_BATCH.values(), ids=BY_BATCH)
def test_the_number_of_images_is_free(graph: str, calls: list[Inputs], capture: Any) -> None:
    check(graph, calls, capture)


def check(graph: str, calls: list[Inputs], capture: Any) -> None:
    model = parse(graph, 19)
    module = OnnxModule(model)
    function = capture(module, calls)
    for inputs in calls:
        got = [r.detach() for r in as_list(function(*inputs))]
        assert_same(got, onnxruntime_answers(model, feeds_of(module, inputs)))
