"""pnnx: an ONNX model as the two files of ncnn.

pnnx is a program. It is run in a child process, as it may end at once where it does not know an
operator; what it prints goes into the error.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx

from onnxinterp.deploy.fixed_sizes import Array, FixedModel
from onnxinterp.deploy.ncnn_context import as_float_or_int
from onnxinterp.errors import OnnxError
from onnxinterp.extras import require

NOTES = "# onnxinterp "
TIMEOUT_SECONDS = 600
FEED = re.compile(r'ex\.input\("(in\d+)", ncnn\.Mat\(.*?batch_index=(\d+)\)')
RESULT = re.compile(r"out\.append\(torch\.from_numpy\((out\d+)\.numpy\(batch_index=(\d+)\)\)\)")


class PnnxError(OnnxError, RuntimeError):
    """pnnx writes no files, or files with layers that ncnn does not have."""


def convert(
    proto: onnx.ModelProto, inputs: Mapping[str, Array], model: FixedModel, folder: Path
) -> tuple[Path, Path]:
    """Convert a model, with notes of inputs and outputs in its last line.

    Args:
        proto: what pnnx gets.
        inputs: their values: pnnx runs the model on them to find its sizes.
        model: what `proto` computes.
        folder: an empty folder for all files.

    Returns:
        The `.param` and the `.bin` file.

    Raises:
        PnnxError: there are none, or ncnn lacks a layer.
    """
    onnx.save(proto, folder / "model.onnx")
    files = [f"in{number}.npy" for number in range(len(inputs))]
    for file, value in zip(files, inputs.values(), strict=True):
        np.save(folder / file, as_float_or_int(value))
    command = [
        require("pnnx", "ncnn").EXEC_PATH,
        "model.onnx",
        f"input={','.join(files)}",
        "fp16=0",
    ]
    pipe, merged = subprocess.PIPE, subprocess.STDOUT
    done = subprocess.run(
        command, cwd=folder, stdout=pipe, stderr=merged, timeout=TIMEOUT_SECONDS, check=False
    )
    param, script = folder / "model.ncnn.param", folder / "model_ncnn.py"
    if done.returncode or not script.exists():
        lines = done.stdout.decode(errors="replace").strip().splitlines() or ["no message"]
        raise PnnxError(f"pnnx ended with status {done.returncode}: {lines[-1]}")
    _check_layers(param)
    notes = _notes(script.read_text(encoding="utf-8"), model)
    with param.open("a", encoding="utf-8") as out:
        out.write(f"{NOTES}{json.dumps(notes)}\n")
    return param.rename(folder / "model.param"), (folder / "model.ncnn.bin").rename(
        folder / "model.bin"
    )


def _check_layers(param: Path) -> None:
    """Check that ncnn has every layer of a file."""
    ncnn = require("ncnn", "ncnn")
    for line in param.read_text(encoding="utf-8").splitlines()[2:]:
        layer = line.split()[0]
        if ncnn.layer_to_index(layer) < 0:
            raise PnnxError(f"ncnn has no layer for what pnnx calls {layer}")


def _notes(script: str, model: FixedModel) -> dict[str, list[dict[str, object]]]:
    """Blobs, names and shapes; the batch axes stand in the script that pnnx writes."""
    axes = {blob: int(axis) for blob, axis in (*FEED.findall(script), *RESULT.findall(script))}
    notes = {}
    for kind, prefix, names in (("inputs", "in", model.inputs), ("outputs", "out", model.outputs)):
        notes[kind] = [
            {
                "name": name,
                "blob": f"{prefix}{number}",
                "shape": list(model.values[name].shape),
                "dtype": str(model.values[name].dtype),
                "batch_axis": axes[f"{prefix}{number}"],
            }
            for number, name in enumerate(names)
        ]
    return notes
