"""How much a file may ask for: of the loader, and of each call.

    Limits()               what every load is held to, so that no file can exhaust the process
    Limits.untrusted()     calls too: memory, steps and seconds, for models of strangers

What is over a limit is refused with `UnsafeModelError`.
"""

from __future__ import annotations

from dataclasses import dataclass

GIB = 2**30
REPEATED = (
    4 * GIB
)  # bytes of weights that are given or read again, where no limit on weights is set


@dataclass(frozen=True)
class Limits:
    """Bounds on what loading and running one model may take; None is no bound.

    The first group counts while loading and costs nothing at run time. The second group holds each
    call of the module, and what is folded while loading; where any of it is set, calls are watched
    (see `guarding`), which costs some microseconds for each torch function.

    Attributes:
        model_bytes: of the ONNX file, without external data; protobuf itself ends at 2 GiB.
        weight_bytes: of all tensors the file ships, external data included, as dense tensors; and
            of the copies of them that functions and ties make.
        nodes: in all graphs, after functions are opened. Their inputs, outputs, tensors and
            attributes may be 16 times as many, beside those that the file itself spells out.
        subgraph_depth: of If, Loop, Scan and the like in each other.
        function_depth: of functions that call functions.
        loop_trips: of one Loop, Scan or SequenceMap, each time it runs.
        tensor_bytes: of one tensor that a call makes.
        live_bytes: of all tensors that a call keeps at one time, weights and inputs apart.
        steps: nodes run in one call, each trip of a loop anew.
        seconds: of one call; looked at before each torch function, which is never interrupted.

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
        """For files of strangers: loads of 4 GiB and 100,000 nodes, calls of 4 GiB and a minute."""
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
        """Whether calls have bounds that must be watched while they run."""
        return not (self.tensor_bytes is self.live_bytes is self.steps is self.seconds is None)
