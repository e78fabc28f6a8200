"""Older versions of an operator that differ from a newer one in their signature only."""

from __future__ import annotations

import re
import typing
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from inspect import Parameter, Signature, signature
from types import FunctionType
from typing import TYPE_CHECKING, Any

from onnxinterp.registry import (
    HOST_RULES,
    OLDER,
    SAMPLES,
    Function,
    KernelOptions,
    add_kernel,
    find_kernel,
    store,
)

if TYPE_CHECKING:
    from typing_extensions import Unpack  # typing has it from Python 3.11 on


def older(
    newer: Function,
    *,
    since: int,
    without: Sequence[str] = (),
    defaults: Mapping[str, Any] | None = None,
    required: Sequence[str] = (),
    attributes: Sequence[str] = (),
    unused: Mapping[str, Any] | None = None,
    hints: Mapping[str, Any] | None = None,
    **options: Unpack[KernelOptions],
) -> Function:
    """Register and return an older version: the function `newer` with another signature.

    The version has the registration options, the sample and the host rule of `newer`, unless it
    is given its own.

    Args:
        newer: the registered kernel of a later version.
        since: the first opset of the older version.
        without: parameters that the older version does not have.
        defaults: other default values, also of parameters in `without`.
        required: parameters that have no default in the older version.
        attributes: inputs of `newer` that are attributes of the older version.
        unused: attributes that only the older version has, and their defaults; without an effect.
        hints: other annotations.
        options: registration options that differ from those of `newer`.

    Raises:
        ValueError: `newer` is not registered, or the older version already is.
        KeyError: a name is not a parameter of `newer`.
        TypeError: `newer` needs a value of a parameter that the older version does not have, or
            other defaults are wanted of a version that was derived with `unused`.
    """
    kernel = find_kernel(newer)
    if kernel is None:
        raise ValueError(f"{newer.__name__} must be a registered kernel")
    defaults, unused = defaults or {}, unused or {}
    parameters = dict(signature(newer).parameters)
    for name in attributes:
        parameters[name] = parameters[name].replace(kind=Parameter.KEYWORD_ONLY)
    for name, value in {**defaults, **dict.fromkeys(required, Parameter.empty)}.items():
        parameters[name] = parameters[name].replace(default=value)
    for name in without:
        if parameters.pop(name).default is Parameter.empty:
            raise TypeError(f"{newer.__name__} needs a value of {name}")
    for name, value in unused.items():
        parameters[name] = Parameter(name, Parameter.KEYWORD_ONLY, default=value)
    version = _forward(_with_defaults(newer, defaults), {}, unused)
    types = {**typing.get_type_hints(newer), **dict.fromkeys(unused, int), **(hints or {})}
    _describe(version, newer, since, list(parameters.values()), types)

    inputs = {p.name for p in parameters.values() if p.kind is not p.KEYWORD_ONLY}
    options.setdefault("frozen", tuple(name for name in kernel.frozen if name in inputs))
    add_kernel(replace(kernel, function=version, since=since, **options))
    OLDER.setdefault(newer, {})[version] = lambda rule: _forward(rule, defaults, unused)
    for table in (HOST_RULES, SAMPLES):
        if newer in table:
            store(table, [newer], table[newer])
    return version


def _with_defaults(newer: Function, defaults: Mapping[str, Any]) -> Function:
    """A function of the same code with other default values: a call takes no longer."""
    assert isinstance(newer, FunctionType)
    code, given = newer.__code__, newer.__defaults__ or ()
    names = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
    if foreign := [name for name in defaults if name not in names]:
        raise TypeError(f"{newer.__name__} must not be derived with `unused`, to change {foreign}")
    version = FunctionType(code, newer.__globals__, closure=newer.__closure__)
    inputs = names[code.co_argcount - len(given) : code.co_argcount]
    version.__defaults__ = tuple(map(defaults.get, inputs, given))
    version.__kwdefaults__ = {**(newer.__kwdefaults__ or {}), **defaults}
    return version


def _forward(function: Function, defaults: Mapping[str, Any], unused: Collection[str]) -> Function:
    """A function that calls `function` with other defaults and without the `unused` attributes."""
    if not defaults and not unused:
        return function

    def call(*inputs: Any, **attributes: Any) -> Any:
        used = {name: value for name, value in attributes.items() if name not in unused}
        return function(*inputs, **{**defaults, **used})

    return call


def _describe(
    version: Function,
    newer: Function,
    since: int,
    parameters: Sequence[Parameter],
    types: Mapping[str, Any],
) -> None:
    """Set the name and the signature of a version; inputs come before attributes."""
    base = re.sub(r"_(\d+)?$", "", newer.__name__)
    version.__name__ = version.__qualname__ = f"{base}_{since}"
    version.__module__, version.__doc__ = newer.__module__, newer.__doc__
    ordered = sorted(parameters, key=lambda p: p.kind)
    names = {"return", *(p.name for p in ordered)}
    version.__annotations__ = {name: hint for name, hint in types.items() if name in names}
    version.__signature__ = Signature(  # type: ignore[attr-defined]
        [p.replace(annotation=types.get(p.name, p.empty)) for p in ordered],
        return_annotation=types.get("return", Signature.empty),
    )
