"""Writing models as Python source, and loading what was written."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import onnx.parser
import torch
from torch import Tensor, nn

from onnxinterp import OnnxModule

HEAD = '<ir_version: 8, opset_import: ["": 17]>'


def parsed(text: str) -> OnnxModule:
    """The module of a graph in ONNX's text format."""
    return OnnxModule(onnx.parser.parse_model(f"{HEAD} {text}"))


def written(module: OnnxModule, folder: Path, *inputs: Tensor) -> tuple[nn.Module, str]:
    """The network that is written for a module, and its source."""
    path = module.to_python(folder / "net.py", *inputs)
    return load(path), path.read_text()


def load(path: Path) -> nn.Module:
    """The network of a file, with its weights."""
    net: nn.Module = runpy.run_path(str(path))["load"]()
    return net


def outputs(module: Any, *inputs: Tensor) -> tuple[Tensor, ...]:
    """The results of a call, always a tuple."""
    with torch.no_grad():
        results = module(*inputs)
    return results if isinstance(results, tuple) else (results,)


def assert_same(net: nn.Module, module: OnnxModule, *inputs: Tensor) -> None:
    """Both return the same, but for the last bits."""
    wanted, got = outputs(module, *inputs), outputs(net, *inputs)
    torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-5, equal_nan=True)


def comparable(results: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Results, those of one byte an element as wider ones: torch does not compare these."""
    return tuple([r.float() if r.is_floating_point() and r.itemsize == 1 else r for r in results])


def difference(net: nn.Module, module: OnnxModule, *inputs: Tensor) -> str:
    """How what both return differs; "" where it does not."""
    torch.manual_seed(1)
    wanted = outputs(module, *inputs)
    torch.manual_seed(1)
    try:
        got = outputs(net, *inputs)
        assert [r.dtype for r in got] == [r.dtype for r in wanted]
        wanted, got = map(comparable, (wanted, got))
        torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-5, equal_nan=True)
    except Exception as error:
        return " ".join(str(error).split())
    return ""
