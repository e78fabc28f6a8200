"""Snapshots: a module for inference, run by the engine that is fastest here.

Optimizable    the part of `OnnxModule` for it
snapshot       Snapshot, what `optimize` returns
competition    engines are prepared, compared with the module by `checking`, and measured
staleness      whether weights have changed since
choices        what was fastest, on disk
engines        the ways to run a model
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from onnxinterp.errors import ChangedWeightsError, EngineError
from onnxinterp.snapshots.engines import ENGINES, Engine, Options, Runner
from onnxinterp.snapshots.subject import Subject

__all__ = [
    "ENGINES",
    "ChangedWeightsError",
    "Engine",
    "EngineError",
    "Optimizable",
    "Options",
    "Runner",
    "Snapshot",
]

if TYPE_CHECKING:
    from onnxinterp.snapshots.snapshot import Snapshot


class Optimizable(Subject):
    """Snapshots for inference."""

    def optimize(
        self,
        *inputs: Any,
        engine: str | Sequence[str] | None = None,
        on_change: Literal["raise", "renew", "ignore"] = "raise",
        cache: bool = True,
        tolerance: float | None = None,
        providers: Sequence[Any] | None = None,
        **named: Any,
    ) -> Snapshot:
        """A snapshot for inference: the model with copies of its weights, as fast as it gets here.

        Each engine that is installed is prepared with the weights as they are now, compared with
        this module on the example and on random inputs, and measured. The fastest that is right
        runs the calls. Where an engine fails, or for inputs that it does not take, this module
        runs itself.

        A snapshot does not follow its module. Each call asks whether the weights changed (see
        `snapshots.staleness`): optimizers, in-place functions of torch, assignments, `.data =`,
        `load_state_dict`, `.to()`, hooks and new modules are noticed. **Not noticed** is what
        writes to the memory of a weight behind torch's back: `weight.data.add_()`, numpy arrays
        and tensors made of `weight.data` that share it, C extensions. Call `refresh()` then.

        Example:
            >>> fast = m.optimize(torch.randn(1, 3, 224, 224))  # doctest: +SKIP
            >>> y = fast(x)  # doctest: +SKIP
            >>> print(fast)  # doctest: +SKIP

        Args:
            *inputs: an example of the inputs, by position; sizes, dtypes and devices matter.
            engine: a name of `snapshots.ENGINES` or several. Only these compete, and no other runs
                calls of the example's sizes. None is all that are installed and take seconds to
                prepare, and this module itself.
            on_change: what a call does after the weights changed: "raise" an error, "renew" the
                snapshot first, or "ignore" it. Then the snapshot has a copy of the module, and
                computes with the weights of its last `refresh()`.
            cache: whether the choice is kept in `$XDG_CACHE_HOME/onnxinterp` for later processes,
                by machine, model and sizes.
            tolerance: how far an engine may differ from this module, relative to each element
                plus the root mean square of its output. By default 3e-4 for float32, see
                `snapshots.checking`. The rest must be equal.
            providers: execution providers of onnxruntime, in order: names, or (name, options).
            **named: the example by name.

        Returns:
            The snapshot. It is called as this module, in `eval()` mode and without gradients.

        Raises:
            InputError: the example is wrong, as in a call.
            EngineError: no engine that was named can run the model; the message says why.
            ChangedWeightsError: a part of the module is in `train()` mode.
            ValueError: there is no such engine; a value is out of range.
        """
        from onnxinterp.snapshots.snapshot import Snapshot  # late: few modules need it

        example = self._call.gather(inputs, named, self._floating)
        return Snapshot(
            self,
            example,
            engine=engine,
            on_change=on_change,
            cache=cache,
            tolerance=tolerance,
            providers=providers,
        )


def __getattr__(name: str) -> Any:
    if name == "Snapshot":
        from onnxinterp.snapshots.snapshot import Snapshot

        return Snapshot
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
