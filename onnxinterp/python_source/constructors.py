"""How a layer of torch is made: `nn.Conv2d(64, 64, 3, padding=1)`."""

from __future__ import annotations

import ast
from inspect import signature

import torch
from torch import nn

from onnxinterp.python_source.expressions import Expression, call_of, one_for_all

N_POSITIONAL = 3  # arguments without their names


def constructor(layer: nn.Module) -> Expression | None:
    """The call that makes a layer, without what is the default.

    Torch prints layers as such calls; None where it prints something else.
    """
    try:
        tree = ast.parse(repr(layer), mode="eval").body
        assert isinstance(tree, ast.Call)
        given = [ast.literal_eval(argument) for argument in tree.args]
        named = {str(k.arg): ast.literal_eval(k.value) for k in tree.keywords}
    except (SyntaxError, ValueError, AssertionError):
        return None
    parameters = list(signature(type(layer)).parameters.values())
    names = [p.name for p in parameters]
    values = dict(zip(names, given, strict=False)) | named
    arguments, by_position = [], True
    for place, parameter in enumerate(parameters):
        if parameter.name not in values:
            by_position = False
            continue
        value = one_for_all(values[parameter.name])
        if value == parameter.default and type(value) is type(parameter.default):
            by_position = False
            continue
        text = repr(value)
        if not (by_position and place < N_POSITIONAL):
            text = f"{parameter.name}={text}"
        arguments.append(Expression(text))
    if not set(values) <= set(names):
        return None
    dtype = next((p.dtype for p in layer.parameters()), torch.float32)
    if dtype is not torch.float32:
        arguments.append(Expression(f"dtype={dtype}"))
    return call_of(f"nn.{type(layer).__name__}", arguments)
