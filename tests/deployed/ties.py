"""How near a value that a file quantizes comes to a tie.

Where a file computes in float32 and rounds to integers, two correct programs that sum in another
order may differ by one step, if a value is that near to a tie. The files of this package stay away
from ties, so that their outputs must be equal: their weights and inputs are seeded, and no pool
averages four quantized values of one scale, which end in a half every fourth time.
"""

from __future__ import annotations

import numpy as np
import onnx

from tests.deployed.files import Deployed
from tests.deployed.judging import run

TIE_MARGIN = 1e-4  # steps; the sums of both sides differ by up to 7e-5


def margin(file: Deployed) -> float:
    """Return the least distance to a tie, in steps, of all values that 8 bits are made of."""
    model = onnx.load(file.path())
    fixed = {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}
    nodes = [
        n for n in model.graph.node if n.op_type in ("QuantizeLinear", "DynamicQuantizeLinear")
    ]
    same = {*fixed, *(i.name for i in model.graph.input)}  # the same on both sides
    nodes = [n for n in nodes if n.input[0] not in same]
    wanted = [n.input[0] for n in nodes]
    wanted += [n.output[1] for n in nodes if n.op_type == "DynamicQuantizeLinear"]
    del model.graph.output[:]
    model.graph.output.extend(onnx.ValueInfoProto(name=n) for n in dict.fromkeys(wanted))
    nearest = 0.5
    if not nodes:
        return nearest
    for feeds, values in zip(
        file.feeds(), run(model.SerializeToString(), file.feeds()), strict=True
    ):
        found = dict(zip(dict.fromkeys(wanted), values, strict=True)) | feeds | fixed
        for node in nodes:
            dynamic = node.op_type == "DynamicQuantizeLinear"
            steps = found[node.input[0]] / found[node.output[1] if dynamic else node.input[1]]
            nearest = min(nearest, float(np.abs(steps - np.floor(steps) - 0.5).min()))
    return nearest
