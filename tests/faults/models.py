"""Small models that use what threads could fall over: sizes, branches, loops, strings, modes."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import torch
from onnx import numpy_helper

from onnxinterp import OnnxModule
from tests.models import HEADER, parse

TEXTS = {
    "sizes": f"""{HEADER} g (float[n,m,6] x) => (float[a,b,c,d] y) <int64[2] heads = {{2, 3}}> {{
      shape = Shape(x)
      first = Shape<start = 0, end = 2>(x)
      wanted = Concat<axis = 0>(first, heads)
      split = Reshape(x, wanted)
      product = ReduceProd<keepdims = 0>(shape)
      one = Constant<value_int = 1>()
      zero = Constant<value_int = 0>()
      steps = Range(zero, product, one)
      counted = Reshape(steps, wanted)
      floats = Cast<to = 1>(counted)
      y = Add(split, floats)
    }}""",
    "overridden": f"""{HEADER} g (float[n,3] x, float[3] w, int64[2] s, float[3] b)
      => (float[c,d] y)
      <float[3] w = {{1, 2, 3}}, int64[2] s = {{-1, 3}}, float[3] b = {{4, 5, 6}}> {{
      product = Mul(x, w)
      sum = Add(product, b)
      y = Reshape(sum, s)
    }}""",
    "loop": f"""{HEADER} g (float[n,3] x, int64 trips) => (float[n,3] y, float[k,n,3] seen) {{
      yes = Constant<value = bool {{1}}>()
      limit = Constant<value_float = 10.0>()
      y, seen = Loop(trips, yes, x) <body = each (int64 i, bool before, float[n,3] a)
        => (bool after, float[n,3] c, float[n,3] d) {{
          after = Identity(before)
          total = ReduceSum<keepdims = 0>(a)
          big = Less(limit, total)
          c = If(big) <
            then_branch = big_one () => (float[n,3] t) {{ t = Neg(a) }},
            else_branch = small_one () => (float[n,3] e) {{ e = Add(a, x) }}
          >
          d = Identity(c)
      }}>
    }}""",
    "strings": """<ir_version: 10, opset_import: ["": 20]>
    g (string[n] x, string[1] mark) => (string[n] y, int64[n] k) <string[1] mark = {"!"}> {
      y = StringConcat(x, mark)
      parts, k = StringSplit<delimiter = "a">(y)
    }""",
}


def network() -> onnx.ModelProto:
    """A convolution, normalisation with statistics and a product behind a reshape; trains."""
    model = parse(f"""{HEADER} g (float[n,3,h,k] x) => (float[n,4] y) {{
      a = Conv<pads = [1, 1, 1, 1]>(x, conv_w, conv_b)
      b = BatchNormalization(a, scale, bias, mean, var)
      c = Relu(b)
      d = GlobalAveragePool(c)
      batch = Shape<start = 0, end = 1>(x)
      size = Concat<axis = 0>(batch, rest)
      f = Reshape(d, size)
      y = Gemm<transB = 1>(f, fc_w, fc_b)
    }}""")
    random = np.random.default_rng(0)
    weights: dict[str, tuple[int, ...]] = {
        "conv_w": (8, 3, 3, 3),
        "conv_b": (8,),
        "scale": (8,),
        "bias": (8,),
        "mean": (8,),
        "var": (8,),
        "fc_w": (4, 8),
        "fc_b": (4,),
    }
    for name, shape in weights.items():
        array = (random.random(shape) + 0.1).astype(np.float32)
        model.graph.initializer.append(numpy_helper.from_array(array, name))
    model.graph.initializer.append(numpy_helper.from_array(np.array([8]), "rest"))
    return model


MODELS = {name: parse(text) for name, text in TEXTS.items()}
MODELS["network"] = network()


def call_of(name: str, i: int) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The i-th of many calls, of different sizes, and with other initializers given."""
    random = torch.Generator().manual_seed(i)
    n, m = 1 + i % 7, 1 + i % 5  # 35 pairs: more than are kept
    if name == "sizes":
        return (torch.randn(n, m, 6, generator=random),), {}
    if name == "network":
        return (torch.randn(n, 3, 4 + m, 5, generator=random),), {}
    if name == "loop":
        return (torch.randn(n, 3, generator=random), torch.tensor(i % 4)), {}
    if name == "strings":
        mark = {"mark": np.array([f"?{i}"], dtype=object)} if i % 3 == 0 else {}
        return (np.array([f"a{i}ab"] * n, dtype=object),), mark
    given: dict[str, Any] = {}
    if i % 2:
        given["w"] = torch.full((3,), float(i))
    if i % 3 == 0:
        given["s"] = torch.tensor([3, -1])
    if i % 5 == 0:
        given["b"] = torch.full((3,), -float(i))
    return (torch.randn(n, 3, generator=random),), given


class Answers(torch.utils.data.Dataset[torch.Tensor]):
    """A data set that computes with a module, as preprocessing exported to ONNX does."""

    def __init__(self, module: OnnxModule) -> None:
        self.module = module

    def __len__(self) -> int:
        return 8

    def __getitem__(self, i: int) -> torch.Tensor:
        found: torch.Tensor = self.module(torch.full((1, 3, 5, 5), float(i))).detach()
        return found
