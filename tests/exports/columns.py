"""The columns of docs/capture.md: a tool each, which turns a module into something callable."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import chain, repeat
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from torch import Tensor, nn

from onnxinterp import OnnxModule
from onnxinterp.deploy.formats import format_of
from onnxinterp.deploy.subject import Subject
from tests.exports import written
from tests.exports.rows import EXAMPLE, Inputs, Row

Function = Callable[..., Any]
Capture = Callable[[nn.Module, Row, Path], Function]

RELATIVE_ERROR = 1e-4
"""Of the norm: sums in another order, through some tens of layers."""

DEPLOYED_ERROR = 1e-3
"""The same of runtimes with kernels of their own."""

NCNN_ERROR = 1e-2
"""The same of ncnn, which approximates some functions."""


@dataclass(frozen=True)
class Column:
    """A tool.

    Attributes:
        name: in the head of the table.
        capture: module, row and an empty folder -> a function of the inputs.
        is_dynamic: whether sizes are free: the function is called at another size, too.
        has_control: whether it is run on the original torch module as well.
        trains: whether it needs parameters.
        needs: packages beyond those of the tests.
        error: relative error that is rounding.
        reference: module and row -> the function that is right.
    """

    name: str
    capture: Capture
    is_dynamic: bool = False
    has_control: bool = True
    trains: bool = False
    needs: tuple[str, ...] = ()
    error: float = RELATIVE_ERROR
    reference: Callable[[nn.Module, Row], Function] = lambda module, _: module

    @property
    def missing(self) -> list[str]:
        """What it needs and this environment has not."""
        return [name for name in self.needs if not _is_installed(name)]


def _is_installed(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except ModuleNotFoundError:  # of its package
        return False


COLUMNS: dict[str, Column] = {}


def column(name: str, **options: Any) -> Callable[[Capture], Capture]:
    """Register a column."""

    def register(capture: Capture) -> Capture:
        COLUMNS[name] = Column(name, capture, **options)
        return capture

    return register


def _onnxruntime(path: Path) -> Function:
    """Run a file by onnxruntime without optimization; an exporter may have dropped an input."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    names = [entry.name for entry in session.get_inputs()]

    def run(*inputs: Tensor) -> list[Tensor]:
        numbered = {f"in_{i}": x.numpy() for i, x in enumerate(inputs)}
        given = dict(zip(names, (x.numpy() for x in inputs), strict=False))
        feeds = {n: numbered[n] for n in names} if set(names) <= set(numbered) else given
        return [torch.from_numpy(array) for array in session.run(None, feeds)]

    return run


@column(
    "eager",
    has_control=False,
    error=DEPLOYED_ERROR,
    reference=lambda _, row: _onnxruntime(row.path()),
)
def eager(module: nn.Module, row: Row, folder: Path) -> Function:
    return module


def _compile(module: nn.Module, row: Row, dynamic: bool) -> Function:
    torch.compiler.reset()
    backend = "inductor" if row.inductor else "aot_eager"
    return torch.compile(module, fullgraph=True, dynamic=dynamic, backend=backend)


@column("compile static")
def compile_static(module: nn.Module, row: Row, folder: Path) -> Function:
    return _compile(module, row, dynamic=False)


@column("compile dynamic", is_dynamic=True)
def compile_dynamic(module: nn.Module, row: Row, folder: Path) -> Function:
    compiled = _compile(module, row, dynamic=True)
    stances = chain(["default"], repeat("fail_on_recompile"))

    def run(*inputs: Tensor) -> Any:
        with torch.compiler.set_stance(next(stances)):
            return compiled(*inputs)

    return run


def _program(module: nn.Module, row: Row, dynamic: bool = False) -> torch.export.ExportedProgram:
    shapes = row.dynamic_shapes if dynamic else None
    return torch.export.export(module, row.inputs(EXAMPLE, 0), dynamic_shapes=shapes)


@column("export static")
def export_static(module: nn.Module, row: Row, folder: Path) -> Function:
    return _loaded(_program(module, row), folder)


@column("export dynamic", is_dynamic=True)
def export_dynamic(module: nn.Module, row: Row, folder: Path) -> Function:
    return _loaded(_program(module, row, dynamic=True), folder)


def _loaded(program: torch.export.ExportedProgram, folder: Path) -> Function:
    """Through its file."""
    torch.export.save(program, folder / "m.pt2")
    return torch.export.load(folder / "m.pt2").module()


@column("AOTInductor")
def aot_inductor(module: nn.Module, row: Row, folder: Path) -> Function:
    from torch._inductor import aoti_compile_and_package, aoti_load_package

    package = aoti_compile_and_package(_program(module, row), package_path=str(folder / "m.pt2"))
    return aoti_load_package(package)


def _written_again(module: nn.Module, row: Row, folder: Path, **options: Any) -> Function:
    inputs = row.inputs(EXAMPLE, 0)
    names = [f"in_{i}" for i in range(len(inputs))]
    path = folder / "m.onnx"
    torch.onnx.export(module, inputs, path, input_names=names, verbose=False, **options)
    return _onnxruntime(path)


@column("re-export dynamo", error=DEPLOYED_ERROR)
def re_export_dynamo(module: nn.Module, row: Row, folder: Path) -> Function:
    return _written_again(module, row, folder, dynamo=True)


@column("re-export TorchScript", error=DEPLOYED_ERROR)
def re_export_torchscript(module: nn.Module, row: Row, folder: Path) -> Function:
    return _written_again(module, row, folder, dynamo=False, opset_version=20)


@column("jit.trace")
def trace(module: nn.Module, row: Row, folder: Path) -> Function:
    traced = torch.jit.trace(module, row.inputs(EXAMPLE, 0), check_trace=False)
    traced.save(folder / "m.pt")
    return torch.jit.load(folder / "m.pt")


def _loss(module: nn.Module) -> Function:
    def loss(parameters: dict[str, Tensor], *inputs: Tensor) -> Tensor:
        outputs = torch.func.functional_call(module, parameters, inputs)
        several = outputs if isinstance(outputs, (tuple, list)) else (outputs,)
        return sum(x.square().sum() for x in several if x.is_floating_point())

    return loss


def _differentiated(module: nn.Module) -> dict[str, Tensor]:
    return {n: p.detach() for n, p in module.named_parameters() if p.is_floating_point()}


def _samples(inputs: Inputs) -> Inputs:
    """Two samples of each input, stacked: the second is the first, halved where it is floating."""
    return tuple(torch.stack((x, x / 2 if x.is_floating_point() else x)) for x in inputs)


def _one_by_one(module: nn.Module, row: Row) -> Function:
    """Gradients of each sample by autograd."""

    def run(*inputs: Tensor) -> list[Tensor]:
        parameters = {n: p.requires_grad_() for n, p in _differentiated(module).items()}
        found = []
        for sample in zip(*_samples(inputs), strict=True):
            with torch.enable_grad():
                value = _loss(module)(parameters, *sample)
            found.append(
                torch.autograd.grad(
                    value, [*parameters.values()], allow_unused=True, materialize_grads=True
                )
            )
        return [torch.stack(pair) for pair in zip(*found, strict=True)]

    return run


@column("vmap(grad)", trains=True, reference=_one_by_one)
def vmap_grad(module: nn.Module, row: Row, folder: Path) -> Function:
    def run(*inputs: Tensor) -> Sequence[Tensor]:
        over = (None, *(0 for _ in inputs))
        gradients = torch.func.vmap(torch.func.grad(_loss(module)), over)
        return [*gradients(_differentiated(module), *_samples(inputs)).values()]

    return run


@column("to_python", has_control=False)
def to_python(module: nn.Module, row: Row, folder: Path) -> Function:
    module.to_python(folder / "m.py", *row.inputs(EXAMPLE, 0))  # type: ignore[operator]
    return written.caller(folder / "m.py")


def _deployed(module: OnnxModule, row: Row, path: Path) -> Function:
    """Written and loaded by `onnxinterp convert`, in the format of the path's suffix."""
    values = dict(zip(module.input_names, row.inputs(EXAMPLE, 0), strict=True))
    form = format_of(path, reexport=False)
    subject = Subject(module, values, {}, row.path())
    form.write(subject, path)
    return form.load(path, subject)


@column("ncnn", needs=("ncnn", "pnnx"), error=NCNN_ERROR)
def ncnn(module: nn.Module, row: Row, folder: Path) -> Function:
    if isinstance(module, OnnxModule):
        return _deployed(module, row, folder / "m.param")
    return _ncnn_of_pnnx(module, row.inputs(EXAMPLE, 0), folder)


def _ncnn_of_pnnx(module: nn.Module, inputs: Inputs, folder: Path) -> Function:
    """The makers' own way, called as in the script that pnnx writes: one sample at a time."""
    import ncnn
    import pnnx

    pnnx.export(module, str(folder / "m.pt"), inputs, fp16=False)
    net = ncnn.Net()
    net.load_param(str(folder / "m.ncnn.param"))
    net.load_model(str(folder / "m.ncnn.bin"))

    def run(*inputs: Tensor) -> list[Tensor]:
        with net.create_extractor() as extractor:
            for number, value in enumerate(inputs):
                extractor.input(f"in{number}", ncnn.Mat(value.squeeze(0).numpy()).clone())
            results = [extractor.extract(name) for name in net.output_names()]
        return [torch.from_numpy(np.array(mat)).unsqueeze(0) for _, mat in results]

    return run


@column("OpenVINO", needs=("openvino",), error=DEPLOYED_ERROR)
def openvino(module: nn.Module, row: Row, folder: Path) -> Function:
    if isinstance(module, OnnxModule):
        return _deployed(module, row, folder / "m.xml")
    import openvino as ov

    return run_by_openvino(ov.convert_model(_program(module, row)))


def run_by_openvino(model: Any) -> Function:
    """A converted model, in float32."""
    import openvino as ov

    compiled = ov.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})

    def run(*inputs: Tensor) -> list[Tensor]:
        results = compiled([x.numpy() for x in inputs])
        return [torch.from_numpy(results[i].copy()) for i in range(len(compiled.outputs))]

    return run


@column("ExecuTorch", needs=("executorch",), error=DEPLOYED_ERROR)
def executorch(module: nn.Module, row: Row, folder: Path) -> Function:
    if isinstance(module, OnnxModule):
        return _deployed(module, row, folder / "m.pte")
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower
    from executorch.runtime import Runtime

    edge = to_edge_transform_and_lower(_program(module, row), partitioner=[XnnpackPartitioner()])
    (folder / "m.pte").write_bytes(edge.to_executorch().buffer)
    method = Runtime.get().load_program(folder / "m.pte").load_method("forward")
    return lambda *inputs: method.execute(inputs)
