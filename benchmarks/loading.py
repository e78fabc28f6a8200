"""What checking a file costs: load time of 100 MB with all checks, over the same without them.

The checks are those of `validation`, `tensors` and `texts`. Files are opened below the model's
folder in either case: that is no check to be left out, but how they are opened.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from unittest.mock import patch

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnx.external_data_helper import convert_model_to_external_data

from benchmarks.tables import Table, main
from benchmarks.timing import interleaved, one_thread
from onnxinterp import OnnxModule

BYTES = 100 * 10**6
ROUNDS = 15
CHECKS = (
    "reading.source.check_utf8",
    "reading.source.check_weights",
    "reading.source.validate",
    "module.check_types",
    "format.tensor_reader.check_tensor",
    "format.tensor_reader.check_numbers",
)


@contextmanager
def unchecked() -> Iterator[None]:
    """No check is made meanwhile."""
    with ExitStack() as stack:
        for check in CHECKS:
            stack.enter_context(patch(f"onnxinterp.{check}", lambda *_: None))
        yield


def _model(layers: int, *, numbers: bool = False) -> onnx.ModelProto:
    """`layers` times Mul and Add, with weights of 100 MB together.

    Args:
        layers: half as many nodes.
        numbers: weights stand in `float_data`, not in `raw_data`.
    """
    width = BYTES // 4 // (2 * layers)
    generator = np.random.default_rng(0)
    nodes, weights, value = [], [], "x"
    for i in range(layers):
        for operator in ("Mul", "Add"):
            name, result = f"{operator}{i}", f"{operator}{i}.out"
            array = generator.standard_normal(width, np.float32)
            weights.append(
                helper.make_tensor(name, TensorProto.FLOAT, [width], array)
                if numbers
                else numpy_helper.from_array(array, name)
            )
            nodes.append(helper.make_node(operator, [value, name], [result]))
            value = result
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, [width]) for n in ("x", value))
    graph = helper.make_graph(nodes, "layers", [x], [y], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def _files(folder: Path) -> Iterator[tuple[str, Path]]:
    for name, model in (
        ("20 nodes", _model(10)),
        ("20 nodes, weights as numbers", _model(10, numbers=True)),
        ("2,000 nodes", _model(1000)),
    ):
        path = folder / f"{len(name)}.onnx"
        onnx.save(model, path)
        yield name, path
    model = _model(1000)
    convert_model_to_external_data(model, location="weights.bin", size_threshold=0)
    onnx.save(model, folder / "external.onnx")
    yield "2,000 nodes, external data", folder / "external.onnx"


def measure() -> Table:
    one_thread()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name, path in _files(Path(folder)):
            load: Callable[[], object] = partial(OnnxModule, path)

            def without(load: Callable[[], object] = load) -> None:
                with unchecked():
                    load()

            times = interleaved({"with": load, "without": without}, rounds=ROUNDS)
            with_checks, without_checks = (times[n].minimum for n in ("with", "without"))
            rows.append(
                (name, 1e3 * with_checks, 1e3 * without_checks, with_checks / without_checks)
            )
    return Table(
        "Checking files",
        "Milliseconds to load 100 MB of weights, with the checks of a file and without: the "
        f"minimum of {ROUNDS}, and the ratio of both.",
        ("model", "with", "without", "ratio"),
        tuple(rows),
    )


if __name__ == "__main__":
    main(measure)
