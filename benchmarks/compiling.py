"""torch.compile of ONNX models and of the networks they were exported from.

Each network is compiled in a process of its own, without caches. What torch and the compiler need
once is not counted: a small layer is compiled first. With a C++ compiler the backend is inductor;
without one it is `aot_eager`, which makes graphs but no code.

    python -m benchmarks.compiling              all networks
    python -m benchmarks.compiling unet         some
"""

from __future__ import annotations

import os
import resource
import shutil
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import Tensor, nn

from benchmarks.networks import AttentionBlock, export, residual_network
from benchmarks.tables import Table
from benchmarks.timing import run_in_fresh_process, time_candidates, use_one_thread
from onnxinterp import OnnxModule

COMPILE_TARGET, CALL_TARGET = 1.3, 1.05
ROUNDS = 30
OPSET = 17
PROGRAM = "import sys; from benchmarks.compiling import measure_one; measure_one(*sys.argv[1:])"


class UNet(nn.Module):
    """Five levels of two convolutions, with skip connections."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        widths = [width * 2**level for level in range(5)]
        self.down = nn.ModuleList(map(_double, [3, *widths[:-1]], widths))
        pairs = list(zip(widths[:0:-1], widths[-2::-1], strict=True))
        self.up = nn.ModuleList(nn.ConvTranspose2d(wide, narrow, 2, 2) for wide, narrow in pairs)
        self.merge = nn.ModuleList(_double(2 * narrow, narrow) for _, narrow in pairs)
        self.head = nn.Conv2d(width, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        """[batch, 3, height, width] -> [batch, 2, height, width]."""
        kept = []
        for level in self.down[:-1]:
            x = level(x)
            kept.append(x)
            x = nn.functional.max_pool2d(x, 2)
        x = self.down[-1](x)
        for up, merge in zip(self.up, self.merge, strict=True):
            x = merge(torch.cat([kept.pop(), up(x)], 1))
        return self.head(x)  # type: ignore[no-any-return]


def _double(incoming: int, outgoing: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for width in (incoming, outgoing):
        convolution = nn.Conv2d(width, outgoing, 3, padding=1)
        layers += [convolution, nn.BatchNorm2d(outgoing), nn.ReLU()]
    return nn.Sequential(*layers)


def _torchvision(name: str, **options: Any) -> nn.Module:
    import torchvision

    return getattr(torchvision.models, name)(**options)  # type: ignore[no-any-return]


def _vit() -> nn.Module:
    sizes = {"image_size": 224, "patch_size": 16, "num_layers": 12, "num_heads": 6}
    return _torchvision("VisionTransformer", hidden_dim=384, mlp_dim=1536, **sizes)


class _LastState(nn.Module):
    """A BERT of four layers, from identifiers to the last hidden state."""

    def __init__(self) -> None:
        super().__init__()
        from transformers import BertConfig, BertModel

        sizes = {"hidden_size": 256, "num_attention_heads": 4, "intermediate_size": 1024}
        config = BertConfig(num_hidden_layers=4, vocab_size=3000, **sizes)
        self.bert = BertModel(config, add_pooling_layer=False)

    def forward(self, x: Tensor) -> Tensor:
        """[batch, length] -> [batch, length, 256]."""
        return self.bert(input_ids=x, return_dict=False)[0]  # type: ignore[no-any-return]


IMAGE = (1, 3, 224, 224)
NETWORKS: dict[str, tuple[Any, Any]] = {
    "residual network": (residual_network, lambda: torch.randn(IMAGE)),
    "resnet18": (lambda: _torchvision("resnet18"), lambda: torch.randn(IMAGE)),
    "mobilenet_v2": (lambda: _torchvision("mobilenet_v2"), lambda: torch.randn(IMAGE)),
    "unet": (UNet, lambda: torch.randn(1, 3, 128, 128)),
    "vit_small": (_vit, lambda: torch.randn(IMAGE)),
    "bert": (_LastState, lambda: torch.randint(0, 3000, (1, 64))),
    "attention in parts": (
        lambda: nn.Sequential(*(AttentionBlock(decomposed=True) for _ in range(4))),
        lambda: torch.randn(1, 16, 64),
    ),
}


def backend() -> str:
    """The backend that this machine can run."""
    has_compiler = any(map(shutil.which, ("g++", "clang++")))
    return "inductor" if has_compiler else "aot_eager"


def _seconds() -> float:
    """Processor time of this process and of the C++ compilers that it started."""
    kinds = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(used.ru_utime + used.ru_stime for used in kinds)


def _compiled(module: nn.Module, x: Tensor) -> tuple[Any, float]:
    """The compiled module, and the time of its first call."""
    run = torch.compile(module, fullgraph=True, dynamic=False, backend=backend())
    start = _seconds()
    run(x)
    return run, _seconds() - start


@torch.no_grad()
def measure_one(name: str, first: str) -> None:
    """Print the seconds to compile the network and its ONNX model, and those of their calls.

    Args:
        name: of the network.
        first: which is compiled first: "torch" or "onnx". The second may find something warm.
    """
    use_one_thread()
    warnings.simplefilter("ignore")
    torch.manual_seed(0)
    make_network, make_input = NETWORKS[name]
    network, x = make_network().eval(), make_input()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        onnx.save(export(network, x, opset=OPSET, dynamic=False), path)
        modules = {"torch": network, "onnx": OnnxModule(path)}
    _compiled(nn.Linear(3, 3), torch.ones(1, 3))
    compiled, seconds = {}, {}
    for key in sorted(modules, key=lambda key: key != first):
        modules[key](x)
        compiled[key], seconds[key] = _compiled(modules[key], x)
    torch.testing.assert_close(compiled["onnx"](x), network(x), rtol=1e-3, atol=1e-3)
    calls = {key: lambda run=run: run(x) for key, run in compiled.items()}
    times = time_candidates(calls, rounds=ROUNDS)
    print(*seconds.values(), *(times[key].minimum for key in seconds), file=sys.__stdout__)


def _row(name: str) -> tuple[str | float, ...]:
    """Each of the two is compiled first in one process, and only that time counts."""
    onnx_first = run_in_fresh_process(PROGRAM, name, "onnx")
    torch_first = run_in_fresh_process(PROGRAM, name, "torch")
    ours, original = onnx_first[0], torch_first[0]
    calls = min(onnx_first[2], torch_first[3]), min(onnx_first[3], torch_first[2])
    return (
        name,
        original,
        ours,
        ours / original,
        1e3 * calls[1],
        1e3 * calls[0],
        calls[0] / calls[1],
    )


def measure(*names: str) -> Table:
    os.environ["TORCHINDUCTOR_FORCE_DISABLE_CACHES"] = "1"
    os.environ["TORCHINDUCTOR_COMPILE_THREADS"] = "1"
    columns = ("network", "compile torch", "ours", "ratio", "call torch", "ours", "ratio")
    note = (
        f"Seconds of processor time of the first call of the compiled module, and milliseconds of "
        f"a call afterwards (minimum), backend {backend()}. The targets are ratios of at most "
        f"{COMPILE_TARGET} and {CALL_TARGET}."
    )
    rows = tuple(_row(name) for name in names or NETWORKS)
    return Table("Compiling", note, columns, rows)


if __name__ == "__main__":
    print(measure(*sys.argv[1:]).markdown())
