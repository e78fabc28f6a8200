"""Comparison of a model's results here and in onnxruntime.

    verify(source, inputs) -> Report                 every output, measured and judged
    trace(source, inputs) -> list[NodeReport]        every intermediate tensor, in graph order
    isolate(source, inputs, node) -> Isolated        the smallest sub-model that shows a divergence
    time_nodes(source, inputs) -> ReferenceTimes     onnxruntime's times, for a profile

Nothing here prints; `onnxinterp verify` does. onnxruntime is imported by the first call.
"""

from onnxinterp.verify.comparison import Comparison, Tolerance, compare
from onnxinterp.verify.isolation import Isolated, isolate
from onnxinterp.verify.node_times import time_nodes
from onnxinterp.verify.report import NodeReport, Report, trace, verify

__all__ = [
    "Comparison",
    "Isolated",
    "NodeReport",
    "Report",
    "Tolerance",
    "compare",
    "isolate",
    "time_nodes",
    "trace",
    "verify",
]
