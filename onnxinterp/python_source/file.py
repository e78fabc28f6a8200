"""The files: the source, and the weights beside it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor

from onnxinterp.errors import SourceError, plain
from onnxinterp.format.atomic import atomic_write
from onnxinterp.inspection.runnable import Runnable
from onnxinterp.planning.placement import device_of
from onnxinterp.python_source.bodies import Recorded
from onnxinterp.python_source.checking import check, edges, network, widened
from onnxinterp.python_source.classes import Classes
from onnxinterp.python_source.recording import record
from onnxinterp.python_source.simplified import simplify
from onnxinterp.python_source.tree import Tree
from onnxinterp.writing.safetensors import save_tensors

OF_CALLS = '# mypy: disable-error-code="no-any-return"'
"""A call of a module is of type Any, so that `return self.fc(x)` would fail a strict check."""
LOADING = '''


def load(path: Path = WEIGHTS) -> Net:
    """The network with its weights, in eval mode."""
    net = Net()
    places = {**net.state_dict(), **dict(net.named_buffers())}
    data = bytearray(path.read_bytes())
    start = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:start])
    header.pop("__metadata__", None)
    raw = torch.frombuffer(data, dtype=torch.uint8)[start:]
    for name, entry in header.items():
        begin, end = entry["data_offsets"]
        place = places[name]
        place.copy_(raw[begin:end].clone().view(place.dtype).view(place.shape))
    return net.eval()
'''


def write(module: Runnable, path: Path, given: Mapping[str, Tensor]) -> Path:
    """Write the two files.

    Args:
        module: the module, in `eval()` mode.
        path: of the source; the weights get the suffix ".safetensors".
        given: ONNX name of each input -> an example.

    Raises:
        SourceError: the module cannot be written, or the source computes something else.
    """
    others = [name for name, value in given.items() if not isinstance(value, Tensor)]
    if others:
        raise SourceError(f"inputs must be tensors to write Python source, got {others[0]!r}")
    given = widened(module, given)
    recorded = record(module, given)
    held = {v: tensor for v, (_, tensor) in recorded.weights.items()}
    simplify(recorded.body, held | recorded.constants)
    tree = Tree(recorded, {name: type(m).__name__ for name, m in module.named_modules()})
    text = _source(module, recorded, tree)
    net = network(text, str(path), tree.stored(), device_of(module.weights))
    check(module, net, given)
    if conditions := edges(module, net, recorded, given):
        recorded.conditions.extend(conditions)
        text = _source(module, recorded, tree)
    save_tensors(tree.stored(), path.with_suffix(".safetensors"))
    atomic_write(path, lambda out: out.write(text.encode()))
    return path


def _source(module: Runnable, recorded: Recorded, tree: Tree) -> str:
    lines = Classes(recorded, tree, recorded.replace).write()
    return "\n".join([*_head(module, lines), *lines]) + LOADING


def _head(module: Runnable, lines: Sequence[str]) -> list[str]:
    """The docstring and the imports."""
    math = ["import math"] if any("math." in line for line in lines) else []
    functional = (
        ["from torch.nn import functional as F"]
        if any(re.search(r"\bF\.", line) for line in lines)
        else []
    )
    name = re.sub(r"[^\w .:/-]", "_", plain(module._plans.graph.name))[:60] or "network"
    calls = any(re.search(r"\bself\.[\w.\[\]]+\(", line) for line in lines)
    return [
        *([OF_CALLS] if calls else []),
        f'"""{name}"""',
        "",
        "import json",
        *math,
        "from pathlib import Path",
        "",
        "import torch",
        "from torch import Tensor, nn",
        *functional,
        "",
        'WEIGHTS = Path(__file__).with_suffix(".safetensors")',
    ]
