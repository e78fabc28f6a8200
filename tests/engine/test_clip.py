"""Clip with constant bounds: they are numbers, and the answer is that of bounds that are inputs."""

from __future__ import annotations

import math

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from onnxinterp import OnnxModule

INF, NAN = math.inf, math.nan
X = {
    "float32": [-INF, -3.4e38, -1.5, -0.0, 0.0, 2.5, 3.4e38, INF, NAN],
    "float16": [-INF, -65504, -1.5, -0.0, 0.0, 2.5, 65504, INF, NAN],
    "float64": [-INF, -1e300, -1.5, -0.0, 0.0, 2.5, 1e300, INF, NAN],
    "int8": [-128, -3, 0, 3, 127],
    "int32": [-(2**31), -3, 0, 3, 2**31 - 1],
    "int64": [-(2**63), -3, 0, 3, 2**63 - 1],
    "uint8": [0, 3, 255],
    "uint64": [0, 3, 2**63, 2**64 - 1],
}
BOUNDS = {
    "float": [
        *((-1, 2), (None, 2), (-1, None), (None, None), (2, -1)),
        *((NAN, 2), (-1, NAN), (-INF, INF), (INF, -INF), (0.1, 0.7)),
    ],
    "int": [(-2, 2), (None, 2), (-2, None), (None, None), (2, -2)],
    "uint": [(1, 2), (None, 2), (1, None), (None, None), (2, 1)],
}
CASES = [(t, b) for t in X for b in BOUNDS[t.strip("0123456789")]]


def model(name: str, bounds: tuple[float | None, float | None], constant: bool) -> onnx.ModelProto:
    dtype = np.dtype(name)
    elem_type = helper.np_dtype_to_tensor_dtype(dtype)
    names = ["x", *("" if b is None else n for n, b in zip(("lo", "hi"), bounds, strict=True))]
    held = [
        numpy_helper.from_array(np.array(b, dtype), n)
        for n, b in zip(("lo", "hi"), bounds, strict=True)
        if b is not None
    ]
    inputs = [helper.make_tensor_value_info("x", elem_type, ["n"])]
    if not constant:
        inputs += [helper.make_tensor_value_info(t.name, elem_type, []) for t in held]
    output = helper.make_tensor_value_info("y", elem_type, ["n"])
    node = helper.make_node("Clip", names, ["y"])
    graph = helper.make_graph([node], "g", inputs, [output], held if constant else [])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


@pytest.mark.parametrize(("name", "bounds"), CASES)
def test_numbers_and_tensors_clip_alike(
    name: str, bounds: tuple[float | None, float | None]
) -> None:
    fixed, free = (OnnxModule(model(name, bounds, constant)) for constant in (True, False))
    x = torch.from_numpy(np.array(X[name], np.dtype(name)))
    given = [torch.from_numpy(np.array(b, np.dtype(name))) for b in bounds if b is not None]
    info = torch.finfo(x.dtype) if x.is_floating_point() else torch.iinfo(x.dtype)
    limits = [torch.tensor(end, dtype=x.dtype) for end in (info.min, info.max)]
    results = []
    for module, more in ((fixed, []), (free, given)):
        leaf = x.clone().requires_grad_(x.is_floating_point())
        y = module(leaf, *more)
        assert y.dtype is x.dtype
        grads = None
        if leaf.requires_grad and not any(b is not None and math.isnan(b) for b in bounds):
            inside = ~x.isnan() & ~torch.isin(x, torch.stack([*given, *limits]))  # 0.5 at a bound
            grads = torch.autograd.grad(y.sum(), leaf)[0][inside]
        results.append((y, grads))
    torch.testing.assert_close(results[0], results[1], rtol=0, atol=0, equal_nan=True)


def test_onnxruntime_agrees() -> None:
    ort = pytest.importorskip("onnxruntime")
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    for name, bounds in CASES:
        finite = not any(b is not None and math.isnan(b) for b in bounds)
        if name == "float16" or not finite or (None not in bounds and bounds[0] > bounds[1]):
            continue  # it has no kernel, or the specification leaves it open
        proto = model(name, bounds, True)
        x = np.array(X[name], np.dtype(name))
        session = ort.InferenceSession(proto.SerializeToString(), options)
        (want,) = session.run(None, {"x": x})
        np.testing.assert_array_equal(OnnxModule(proto)(torch.from_numpy(x)).numpy(), want)


@pytest.mark.parametrize("bounds", [(-1.0, 6.0), (None, 6.0), (0.0, None)])
def test_constant_bounds_are_numbers(bounds: tuple[float | None, float | None]) -> None:
    """As inductor wants them, which folds tensors and then cannot compare them."""
    module = OnnxModule(model("float32", bounds, True))
    program = torch.export.export(module, (torch.randn(3),))
    (clamp,) = (n for n in program.graph.nodes if "clamp" in str(n.target))
    assert all(type(bound) is float for bound in clamp.args[1:])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_bounds_beyond_the_type_a_module_is_moved_to(dtype: torch.dtype) -> None:
    module = OnnxModule(model("float32", (-1.0, 3.4e38), True))
    x = torch.tensor([-2.0, 0.5, 3.0], dtype=dtype)
    torch.testing.assert_close(module.to(dtype)(x), x.clamp(min=-1))


def test_a_bound_of_each_kind() -> None:
    proto = model("float32", (-1.0, 2.0), True)
    proto.graph.initializer.pop()
    proto.graph.input.append(helper.make_tensor_value_info("hi", TensorProto.FLOAT, []))
    x, hi = torch.linspace(-3, 3, 7), torch.tensor(0.5, requires_grad=True)
    y = OnnxModule(proto)(x, hi)
    torch.testing.assert_close(y, x.clamp(-1, 0.5))
    y.sum().backward()
    assert hi.grad == 3
