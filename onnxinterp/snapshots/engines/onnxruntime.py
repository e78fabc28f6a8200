"""onnxruntime: the file with the current weights, handed over in memory.

Tensors on the processor are passed as numpy arrays over the same memory, in both directions. Types
that numpy lacks, and other devices, are bound by their address.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor
from torch.utils.dlpack import from_dlpack

from onnxinterp.dtypes import FLOAT8, ONNX_TYPE, onnx_name
from onnxinterp.errors import EngineError
from onnxinterp.extras import require
from onnxinterp.snapshots.engines import Options, Runner
from onnxinterp.snapshots.engines.exported import Exported, export
from onnxinterp.snapshots.subject import Subject

CPU = "CPUExecutionProvider"
EXTERNAL_FOLDER = "session.model_external_initializers_file_folder_path"
TYPES = {f"tensor({onnx_name(t)})": t for t in ONNX_TYPE.values()}
WITHOUT_NUMPY = frozenset(ONNX_TYPE[d] for d in (torch.bfloat16, *FLOAT8))
SPINNING = ("session.intra_op.allow_spinning", "session.inter_op.allow_spinning")


class OnArrays:
    """Runs a session on the memory of tensors, by way of numpy."""

    takes_any_sizes = True

    def __init__(self, session: Any) -> None:
        self._run = session.run
        self._inputs = [i.name for i in session.get_inputs()]
        self._outputs = [o.name for o in session.get_outputs()]

    def __call__(self, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Run once."""
        arrays = [x.numpy(force=True) for x in inputs]
        results = self._run(self._outputs, dict(zip(self._inputs, arrays, strict=True)))
        return tuple([torch.from_numpy(array) for array in results])


class OnAddresses:
    """Runs a session on the memory of tensors of any type and device."""

    takes_any_sizes = True

    def __init__(self, session: Any, device: torch.device) -> None:
        self._session = session
        self._device = device
        self._inputs = [(i.name, type_of(i)) for i in session.get_inputs()]
        self._outputs = [o.name for o in session.get_outputs()]

    def __call__(self, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Run once; what torch has queued for the inputs is finished first."""
        place = {"device_type": self._device.type, "device_id": self._device.index or 0}
        binding = self._session.io_binding()
        held = [x.detach().resolve_neg().contiguous() for x in inputs]  # until the run has ended
        for (name, element), x in zip(self._inputs, held, strict=True):
            binding.bind_input(
                name, element_type=element, shape=x.shape, buffer_ptr=x.data_ptr(), **place
            )
        for name in self._outputs:
            binding.bind_output(name, **place)
        if self._device.type == "cuda":
            torch.cuda.current_stream(self._device).synchronize()
        self._session.run_with_iobinding(binding)
        found = binding.get_outputs()
        return tuple([from_dlpack(value._get_c_value().to_dlpack()) for value in found])


def prepare(module: Subject, inputs: tuple[Tensor, ...], options: Options) -> Runner:
    """Open a session of the module's file with its current weights.

    Raises:
        EngineError: it cannot run the model.
        MissingExtraError: onnxruntime is not installed.
    """
    runtime = require("onnxruntime", "verify")
    providers = list(options.providers or [CPU])
    names = [p if isinstance(p, str) else p[0] for p in providers]
    if unknown := [name for name in names if name not in runtime.get_available_providers()]:
        here = ", ".join(runtime.get_available_providers())
        raise EngineError(f"providers must be some of {here}, got {unknown[0]!r}")
    device = inputs[0].device if inputs else torch.device("cpu")
    if device.type != "cpu" and names == [CPU]:
        raise EngineError(f"inputs on {device} need providers= for this device")
    session = _open(runtime, export(module), options.threads, providers)
    if session.get_providers()[0] != names[0]:  # it prints why, and takes another
        raise EngineError(f"{names[0]} cannot be used on this machine")
    for given, x in zip(session.get_inputs(), inputs, strict=True):
        if type_of(given) != ONNX_TYPE.get(x.dtype):
            wanted = f"input {given.name!r} must be {given.type} in the file"
            raise EngineError(f"{wanted}, got {str(x.dtype).removeprefix('torch.')}")
    types = [type_of(v) for v in (*session.get_inputs(), *session.get_outputs())]
    if None in types:
        raise EngineError("inputs and outputs must be tensors of numbers")
    if device.type == "cpu" and WITHOUT_NUMPY.isdisjoint(types):
        return OnArrays(session)
    return OnAddresses(session, device)


def _open(runtime: Any, model: Exported, threads: int, providers: list[Any]) -> Any:
    settings = runtime.SessionOptions()
    settings.log_severity_level = 4  # errors are exceptions
    settings.intra_op_num_threads = threads
    settings.inter_op_num_threads = 1
    for entry in SPINNING:  # a thread that spins takes its processor from torch
        settings.add_session_config_entry(entry, "0")
    with ExitStack() as stack:
        source: Any = model.content
        if model.files and hasattr(settings, "add_external_initializers_from_files_in_memory"):
            sizes = [len(data) for data in model.files.values()]
            settings.add_external_initializers_from_files_in_memory(
                list(model.files), list(model.files.values()), sizes
            )
        elif model.files:
            source = stack.enter_context(model.on_disk())
        try:
            return runtime.InferenceSession(source, settings, providers=providers)
        except Exception as error:  # onnxruntime's exceptions have no base class
            raise EngineError(f"onnxruntime cannot open the model: {error}") from error


def type_of(value: Any) -> int | None:
    """The ONNX type of an input or output of a session; None for what is no tensor of numbers."""
    return TYPES.get(value.type)
