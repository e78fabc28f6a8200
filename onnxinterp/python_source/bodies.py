"""What a module computes, as it is written down: bodies of calls, nested as the modules are.

Body        the calls that one module makes when it is called
Call    of a function of torch, as in a program
Call    whose function is a `Layer`: a module of torch with the weights of a kernel
Call    whose function is a `Body`: a module inside
Call    whose function is a `Choice`: one of two bodies
Size        a number that follows from the sizes of the inputs
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import sympy
from torch import Tensor, nn

from onnxinterp.programs.calls import Call, Value, values_in


@dataclass(frozen=True, slots=True)
class Size:
    """A number that follows from sizes.

    Attributes:
        expression: over the symbols that stand for sizes of inputs.
    """

    expression: sympy.Basic


@dataclass(frozen=True, slots=True)
class Seeded:
    """A generator of random numbers that is new in each call.

    Attributes:
        seed: what it starts from.
    """

    seed: int


class Whole:
    """What a call runs that is no function of torch."""

    __name__ = "whole"
    step = None

    def __call__(self, *_: Any) -> Any:
        """It is written, not called.

        Raises:
            TypeError: always.
        """
        raise TypeError(f"a {type(self).__name__} is written, not called")


@dataclass(eq=False)
class Body(Whole):
    """The calls that a module makes.

    Attributes:
        path: of the module in the tree; "" for the root.
        inputs: what it is called with; sizes that it cannot read off a value come last.
        calls: in order.
        outputs: values that it returns.
        is_subgraph: whether it is the body of a subgraph, which sees the values around it.
        error: what it raises instead; "" where it can be written.
    """

    path: str
    inputs: list[Any]
    calls: list[Call] = field(default_factory=list)
    outputs: list[Any] = field(default_factory=list)
    is_subgraph: bool = False
    error: str = ""

    def layer_call(self) -> Call | None:
        """The call of a layer, where it is the only one."""
        is_layer = len(self.calls) == 1 and isinstance(self.calls[0].function, Layer)
        return self.calls[0] if is_layer else None

    def walk(self) -> Iterator[Body]:
        """This body and all inside, those inside first."""
        for call in self.calls:
            for inner in bodies_of(call):
                yield from inner.walk()
        yield self

    def from_outside(self) -> Iterator[Body]:
        """This body and all inside, this one first, in the order in which they are called."""
        yield self
        for call in self.calls:
            for inner in bodies_of(call):
                yield from inner.from_outside()


@dataclass(eq=False)
class Layer(Whole):
    """A layer of torch in the place of a kernel with its weights.

    Attributes:
        module: the layer, without data.
        weights: attribute of the layer -> the value of the weight.
        calls: what the kernel calls instead, where the layer has no place of its own.
    """

    module: nn.Module
    weights: Mapping[str, Value]
    calls: list[Call]


@dataclass(eq=False)
class Choice(Whole):
    """One of two bodies, by the truth of a value.

    Attributes:
        then: runs where the value is true.
        otherwise: runs where it is not.
    """

    then: Body
    otherwise: Body


@dataclass(frozen=True)
class Recorded:
    """A module as it is written down.

    Attributes:
        body: of the root.
        input_names: identifiers of the inputs of the root.
        weights: value -> the path of the weight in the tree, and its tensor.
        constants: value -> tensor that is the same in each call.
        symbols: symbol of a size -> the name that the file has for it.
        replace: returns an expression with symbols that are known to be equal as one.
        conditions: what must hold of sizes, where a kernel decided something by it.
        fixed: number of an input and axis whose free size must be 1.
    """

    body: Body
    input_names: list[str]
    weights: dict[Value, tuple[str, Tensor]]
    constants: dict[Value, Tensor]
    symbols: dict[sympy.Symbol, str]
    replace: Callable[[Any], Any]
    conditions: list[sympy.Expr]
    fixed: list[tuple[int, int]]


def bodies_of(call: Call) -> list[Body]:
    """The bodies that a call runs."""
    function = call.function
    if isinstance(function, Body):
        return [function]
    return [function.then, function.otherwise] if isinstance(function, Choice) else []


def reads_of(call: Call) -> list[Value]:
    """The values that a call reads, those that a subgraph sees around it included."""
    found = list(call.reads())
    for body in bodies_of(call):
        if body.is_subgraph:
            made = {v for c in body.calls for v in c.results} | {*values_in(body.inputs)}
            inner = [v for c in body.calls for v in reads_of(c)] + list(values_in(body.outputs))
            found += [v for v in inner if v not in made]
    return found
