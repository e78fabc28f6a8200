"""Limits on what a file may require of the loader, and of each call.

    Limits()               limits of every load, so that no file can exhaust the process
    Limits.untrusted()     limits of calls too: memory, steps and seconds, for untrusted models

Whatever is over a limit raises `UnsafeModelError`.
"""

from __future__ import annotations

from dataclasses import dataclass

GIB = 2**30
# Bytes of weights that are copied or read again, where weights have no limit.
REPEATED = 4 * GIB


@dataclass(frozen=True)
class Limits:
    """Limits of loading and running one model; None is no limit.

    The first group applies while loading and costs nothing at run time. The second group applies to
    each call of the module, and to constant folding; where any of it is set, calls are watched (see
    `runtime/guard.py`), which costs some microseconds for each torch function.

    Attributes:
        model_bytes: of the ONNX file, without external data; protobuf itself ends at 2 GiB.
        weight_bytes: of all tensors the file contains, external data included, as dense tensors;
            and of the copies of them that functions and ties make.
        nodes: in all graphs, after functions are expanded. Their inputs, outputs, tensors and
            attributes may be 16 times as many, beside those that the file itself spells out.
        subgraph_depth: of If, Loop, Scan and the like in each other.
        function_depth: of functions that call functions.
        loop_trips: of one Loop, Scan or SequenceMap, each time it runs.
        tensor_bytes: of one tensor that a call makes. A view within a call takes no memory; an
            output is counted at its logical size, which is that of a copy.
        live_bytes: of all tensors that a call keeps at one time, weights and inputs apart.
        steps: nodes run in one call, each trip of a loop anew.
        seconds: of one call; checked before each torch function, which is never interrupted. A
            function that cannot end in the time left, at a rate beyond the processor's, does not
            begin; it passes at least once over its inputs, expanded or not.

    Example:
        >>> Limits(seconds=2.0, live_bytes=2**30).watches_calls
        True
    """

    model_bytes: int | None = 2 * GIB
    weight_bytes: int | None = None
    nodes: int | None = 1_000_000
    subgraph_depth: int | None = 32
    function_depth: int | None = 32
    loop_trips: int | None = 1_000_000

    tensor_bytes: int | None = None
    live_bytes: int | None = None
    steps: int | None = None
    seconds: float | None = None

    @classmethod
    def untrusted(cls) -> Limits:
        """For untrusted files: loads of 4 GiB and 100,000 nodes, calls of 4 GiB and a minute."""
        return cls(
            weight_bytes=4 * GIB,
            nodes=100_000,
            tensor_bytes=GIB,
            live_bytes=4 * GIB,
            steps=10_000_000,
            seconds=60.0,
        )

    @property
    def watches_calls(self) -> bool:
        """Whether calls have limits that must be checked while they run."""
        return not (self.tensor_bytes is self.live_bytes is self.steps is self.seconds is None)
