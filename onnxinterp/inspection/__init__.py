"""Looking into a module: activations by name, a table of its layers, and where time is spent.

Inspectable     the part of `OnnxModule` for it
capture         activations: a part of the graph on the same weights
program         the code that a call runs: `code`
summary         the table; `layers` finds its rows, `measure` runs them, `table` draws them
profile         time and memory; `profiling` and `timing` measure, `timeline` draws the page
"""

from __future__ import annotations

from typing import Any

from onnxinterp.inspection import profiling
from onnxinterp.inspection.capture import Capture, named_values
from onnxinterp.inspection.code import program_of
from onnxinterp.inspection.profile import Profile, ReferenceTimes
from onnxinterp.inspection.runnable import Runnable
from onnxinterp.inspection.scoped import scoped_graph
from onnxinterp.inspection.summary import Summary, summarize
from onnxinterp.inspection.table import preformatted
from onnxinterp.inspection.timing import Annotating

__all__ = ["Annotating", "Capture", "Inspectable", "Profile", "ReferenceTimes", "Summary"]


class Inspectable(Runnable):
    """Activations by name, a summary of the layers, and a profile."""

    def capture(self, *names: str) -> Capture:
        """A module that computes named activations, on the same weights.

        Example:
            >>> features = m.capture("layer4*", "fc")(x)  # doctest: +SKIP
            >>> features["layer4.1"].shape  # doctest: +SKIP

        Args:
            *names: paths of torch modules ("layer1.0": what `forward` of that module returned, as
                far as other nodes read it), names of values in the graph, or patterns of either
                (`fnmatch`). The second call of a module is "relu@1"; where calls cannot be told
                apart, "relu" has a tuple of all. In a file that records no modules, paths
                are prefixes of weights' names, and a module ends with the nodes that read these.

        Returns:
            The module. A call returns a dictionary from name to tensor, or to a tuple of tensors
            where a module has several outputs. It runs only what these need. Training it trains
            this module.

        Raises:
            ValueError: a name matches nothing; the message lists similar ones.
        """
        modules = scoped_graph(self, self._plans.unfused()).calls()
        return Capture(self, named_values(self._plans.graph, names, modules))

    def summary(self, *inputs: Any, **named: Any) -> Summary:
        """The layers with their shapes, parameters and floating point operations: `print` it.

        With inputs, the model runs once, in `eval()` mode and without gradients. FLOPs are those of
        `torch.utils.flop_counter`: products and convolutions, a multiplication and an addition
        being two. Without inputs, shapes are those that the file declares.

        Args:
            *inputs: of a call; none to run nothing.
            **named: inputs by name.

        Returns:
            The summary. `rows` has it as data.

        Raises:
            InputError: an input is missing, unknown, or of another rank or type than declared.
            NodeError: a kernel failed.
        """
        return summarize(self, inputs, named)

    def profile(self, *inputs: Any, runs: int = 10, **named: Any) -> Profile:
        """Time and memory of each step of a call: `print` it, or `save_html("profile.html")`.

        The model runs in `eval()` mode and without gradients: three times to warm up, once to
        measure memory and FLOPs, then `runs` times with the timing of its steps and as often
        without. Where weights are on an accelerator, each timed step waits for it.

        Args:
            *inputs: of a call.
            runs: how often steps are timed; times are minima of the runs. An input of this name
                is given by position.
            **named: inputs by name.

        Returns:
            The profile. `steps` has it as data, `rows` by node, operator or module.

        Raises:
            InputError: an input is missing, unknown, or of another rank or type than declared.
            NodeError: a kernel failed.
            ValueError: `runs` is less than 1.
        """
        return profiling.profile(self, inputs, named, runs)

    def program(self, *inputs: Any, **named: Any) -> str:
        """The straight-line Python that calls with such inputs run: `print` it.

        Of calls in `eval()` mode and without gradients; the model runs three times. The names in it
        are the library's own: inputs x0, x1, ..., weights w0, ..., constants c0, ....

        Args:
            *inputs: of a call.
            **named: inputs by name.

        Raises:
            InputError: an input is missing, unknown, or of another rank or type than declared.
            NodeError: a kernel failed.
            RuntimeError: such calls always run step by step: with limits, hooks, or strings.
        """
        made = program_of(self, inputs, named)
        if made is None:
            raise RuntimeError("calls with such inputs run step by step: print(module.plan)")
        return made.source

    def _repr_html_(self) -> str:
        """For notebooks: the model in a few lines, and its layers."""
        return preformatted(repr(self)) + self.summary()._repr_html_()
