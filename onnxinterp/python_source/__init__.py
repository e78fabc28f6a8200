"""A module as Python source that someone could have written, with the weights beside it.

Printable       the part of `OnnxModule` for it: `to_python`
recording       the calls of torch's functions that each module makes, with free sizes -> bodies
simplified      fewer modules: functions are called where they are read, chains are `nn.Sequential`
tree            which layers, weights and modules each class has
sizes           how a method finds the sizes that it computes with
statements      calls -> statements; `expressions` are their text
classes         modules -> classes; `families`: those that differ in numbers are one class
checking        whether the source computes the same
file            the two files

What a kernel calls is noted as for a program, but in the modules of a nested plan, and on tensors
without data whose free sizes are symbols.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from onnxinterp.inspection.runnable import Runnable

__all__ = ["Printable"]


class Printable(Runnable):
    """Python source."""

    def to_python(self, path: str | os.PathLike[str], *inputs: Any, **named: Any) -> Path:
        """Write the module as Python source, and its weights beside it.

        The file needs torch alone. It has a class for each kind of module of the tree, `Net` for
        the root, and `load()`, which returns the network with its weights in `eval()` mode:

            m.to_python("net.py", x)
            from net import load
            net = load()  # reads net.safetensors

        Layers are those of torch (`nn.Conv2d`, `nn.Linear`, `nn.BatchNorm2d`, ...), so that
        `net.train()` trains them. Names of weights are those of the module where it has the names
        of torch. Sizes that the file leaves free stay free. The source is compared with the module
        on the example before it is written, and with free sizes of 1 and 0: where it would be wrong
        for these, it refuses them.

        Args:
            path: of the source, "net.py"; the weights are written to "net.safetensors".
            *inputs: an example of each input. Free sizes must not be 0 in it; one of 1 is
                fixed where the module does not run with 2.
            **named: inputs by name.

        Returns:
            The path of the source.

        Raises:
            SourceError: a kernel looks at data (a loop that data end, NonMaxSuppression), or uses
                something else than tensors: strings, sequences.
            InputError: an input is missing, unknown, or of another rank or type than declared.
            NodeError: a kernel failed on the example.
        """
        from onnxinterp.python_source.file import write  # imports sympy, which takes a second

        return write(self, Path(path), self._call.gather(inputs, named))
