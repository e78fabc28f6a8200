"""ExecuTorch: a `.pte` file for phones and small devices, with XNNPACK's kernels where it has them.

ExecuTorch plans the memory ahead, so it must know the largest sizes. They are those of the
examples, and sizes are fixed unless `dynamic` asks for dimensions that vary.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from onnxinterp.deploy.errors import reported
from onnxinterp.deploy.exported import export
from onnxinterp.deploy.subject import Dims, Subject
from onnxinterp.extras import require
from onnxinterp.format.atomic import atomic_write

EXTRA = "executorch"


def write(subject: Subject, path: Path) -> Dims:
    """Write a `.pte`.

    Returns:
        The dimensions that can vary, up to the sizes of the examples.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its own use of torch
        lowering = require("executorch.exir", EXTRA)
        xnnpack = require("executorch.backends.xnnpack.partition.xnnpack_partitioner", EXTRA)
        program, dims = export(subject, largest=subject.sizes)
        with reported("ExecuTorch cannot lower the model"):
            edge = lowering.to_edge_transform_and_lower(
                program, partitioner=[xnnpack.XnnpackPartitioner()]
            )
            data = edge.to_executorch().buffer
    atomic_write(path, lambda out: out.write(data))
    return dims


def load(path: Path) -> Callable[..., Any]:
    """A function that runs the method `forward` of a `.pte`."""
    runtime = require("executorch.runtime", EXTRA)
    method = runtime.Runtime.get().load_program(path).load_method("forward")

    def call(*inputs: Any) -> Any:
        return tuple(x.clone() for x in method.execute([x.contiguous() for x in inputs]))

    return call
