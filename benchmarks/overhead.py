"""Overhead of the interpreter in its worst case: one small transformer block, eager, one thread.

With batch 1, 16 tokens and 64 channels, arithmetic takes almost no time. The time is that of
calling torch functions, to which the interpreter adds its loop, its lookups and shape arithmetic.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import cycle
from typing import NamedTuple

import onnx
import onnxruntime
import torch
from torch import Tensor

from benchmarks.networks import AttentionBlock, export
from benchmarks.tables import Table, main
from benchmarks.timing import time_candidates, use_one_thread
from onnxinterp import OnnxModule

ROUNDS = 200


class Variant(NamedTuple):
    """An export of the block, and the sequence lengths of successive calls."""

    name: str
    opset: int
    dynamic: bool = True
    lengths: Sequence[int] = (16,)


VARIANTS = (
    Variant("opset 11", 11),
    Variant("opset 13", 13),
    Variant("opset 17", 17),
    Variant("opset 20", 20),
    Variant("opset 17, fixed sizes", 17, dynamic=False),
    Variant("opset 17, another size each call", 17, lengths=range(8, 40)),
)


def onnxruntime_session(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options, ["CPUExecutionProvider"]
    )


def _row(variant: Variant) -> tuple[str | float, ...]:
    network, decomposed = AttentionBlock().eval(), AttentionBlock(decomposed=True).eval()
    inputs = [torch.randn(1, length, 64) for length in variant.lengths]
    model = export(network, inputs[0], opset=variant.opset, dynamic=variant.dynamic)
    module, session = OnnxModule(model), onnxruntime_session(model)
    torch.testing.assert_close(module(inputs[0]), network(inputs[0]), rtol=1e-4, atol=1e-5)

    def over_inputs(call: Callable[[Tensor], object]) -> Callable[[], object]:
        turn = cycle(inputs)
        return lambda: call(next(turn))

    with torch.no_grad():
        times = time_candidates(
            {
                "torch": over_inputs(network),
                "decomposed": over_inputs(decomposed),
                "onnxinterp": over_inputs(module),
                "onnxruntime": over_inputs(lambda x: session.run(None, {"x": x.numpy()})),
            },
            rounds=ROUNDS,
        )
    ours = times["onnxinterp"]
    return (
        variant.name,
        str(len(model.graph.node)),
        *(1e6 * times[name].median for name in times),
        *ours.ratios(times["torch"]),
        ours.ratios(times["decomposed"])[0],
    )


def measure() -> Table:
    use_one_thread()
    return Table(
        "Overhead",
        "One transformer block (batch 1, 16 tokens, 64 channels) without gradients: median "
        "microseconds per call, and the ratio of onnxinterp to torch, by medians and by minima. "
        "The target is 1.3. Before opset 17, ONNX has layer normalization as nine nodes, and "
        "before opset 20 GELU as five; `decomposed` is the same in torch.",
        (
            "block",
            "nodes",
            "torch",
            "decomposed",
            "onnxinterp",
            "onnxruntime",
            "/ torch",
            "/ torch (minima)",
            "/ decomposed",
        ),
        tuple(_row(variant) for variant in VARIANTS),
    )


if __name__ == "__main__":
    main(measure)
