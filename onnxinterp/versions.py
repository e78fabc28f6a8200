"""Kernels whose signature is that of another kernel, but for some parameters.

`older` derives an older version that differs from a newer one in its signature only. `forwards`
completes the signature of a function that hands most of its parameters on to another one.
"""

from __future__ import annotations

import re
import typing
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import replace
from functools import lru_cache
from inspect import Parameter, Signature, signature
from types import FunctionType
from typing import TYPE_CHECKING, Any

from onnxinterp.registry import (
    HOST_RULES,
    SAMPLES,
    F,
    Function,
    KernelOptions,
    add_kernel,
    find_kernel,
)

if TYPE_CHECKING:
    from typing_extensions import Unpack  # typing has it from Python 3.11 on

NEWER: dict[Function, tuple[Function, Callable[[Function], Function]]] = {}
"""Derived version -> the newer kernel, and what adapts a host rule of that one."""


def older(
    newer: Function,
    *,
    since: int,
    without: Collection[str] = (),
    defaults: Mapping[str, Any] | None = None,
    required: Collection[str] = (),
    attributes: Collection[str] = (),
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
        without: parameters that the older version does not have, also those of `prepare`.
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
            does not name a parameter that gets another default.
    """
    kernel = find_kernel(newer)
    if kernel is None:
        raise ValueError(f"{newer.__name__} must be a registered kernel")
    defaults, unused = defaults or {}, unused or {}
    reads = [name for name in without if name in kernel.reads]
    if kernel.prepare and reads:
        prepare = _with_defaults(kernel.prepare, {})
        _describe(prepare, kernel.prepare, since)
        _set_signature(prepare, _parameters(kernel.prepare, {}, reads).values(), {})
        options.setdefault("prepare", prepare)
    own = [name for name in without if name not in reads or name in kernel.keywords]
    parameters = _parameters(newer, defaults, own)
    for name in attributes:
        parameters[name] = parameters[name].replace(kind=Parameter.KEYWORD_ONLY)
    for name in required:
        parameters[name] = parameters[name].replace(default=Parameter.empty)
    for name, value in unused.items():
        parameters[name] = Parameter(name, Parameter.KEYWORD_ONLY, default=value)
    version = _forward(_with_defaults(newer, defaults), {}, unused)
    _describe(version, newer, since)
    types = {**typing.get_type_hints(newer), **dict.fromkeys(unused, int), **(hints or {})}
    _set_signature(version, parameters.values(), types)
    inputs = {name for name, p in parameters.items() if p.kind is not p.KEYWORD_ONLY}
    options.setdefault("frozen", tuple(name for name in kernel.frozen if name in inputs))
    add_kernel(replace(kernel, function=version, since=since, **options))
    NEWER[version] = newer, lambda rule: _forward(rule, defaults, unused)
    return version


def forwards(target: Function, *, without: Collection[str] = ()) -> Callable[[F], F]:
    """Complete the signature of a function that hands its parameters on to `target`.

    `*inputs` and `**attributes` of the function stand for the parameters of `target` that it does
    not name itself, but for those in `without`.
    """

    def complete(function: F) -> F:
        own = signature(function).parameters
        rest = [
            p for n, p in signature(target).parameters.items() if n not in own and n not in without
        ]
        parameters: list[Parameter] = []
        for p in own.values():
            if p.kind is p.VAR_POSITIONAL:
                parameters += [r for r in rest if r.kind is not r.KEYWORD_ONLY]
            elif p.kind is p.VAR_KEYWORD:
                parameters += [r for r in rest if r.kind is r.KEYWORD_ONLY]
            else:
                parameters.append(p)
        types = {**typing.get_type_hints(target), **typing.get_type_hints(function)}
        _set_signature(function, parameters, types)
        return function

    return complete


def host_rule_of(function: Function) -> Function | None:
    """The host rule of a kernel, or of the newer one that it is derived from."""
    if function in HOST_RULES or function not in NEWER:
        return HOST_RULES.get(function)
    newer, adapt = NEWER[function]
    rule = host_rule_of(newer)
    return rule and _adapted(adapt, rule)


@lru_cache(maxsize=1024)
def _adapted(adapt: Callable[[Function], Function], rule: Function) -> Function:
    return adapt(rule)


def sample_of(function: Function) -> Function:
    """The sample of a kernel, or of the newer one that it is derived from."""
    while function not in SAMPLES and function in NEWER:
        function, _ = NEWER[function]
    return SAMPLES[function]


def _parameters(
    function: Function, defaults: Mapping[str, Any], without: Collection[str]
) -> dict[str, Parameter]:
    """The parameters of a function with other defaults, but for those in `without`."""
    parameters = dict(signature(function).parameters)
    for name, value in defaults.items():
        parameters[name] = parameters[name].replace(default=value)
    for name in without:
        if parameters.pop(name).default is Parameter.empty:
            raise TypeError(f"{function.__name__} needs a value of {name}")
    return parameters


def _with_defaults(function: Function, defaults: Mapping[str, Any]) -> Function:
    """A function of the same code with other default values: a call takes no longer."""
    assert isinstance(function, FunctionType)
    code, given = function.__code__, function.__defaults__ or ()
    names = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
    if foreign := [name for name in defaults if name not in names]:
        raise TypeError(f"{function.__name__} must name {foreign} in its own code")
    copy = FunctionType(code, function.__globals__, closure=function.__closure__)
    inputs = names[code.co_argcount - len(given) : code.co_argcount]
    copy.__defaults__ = tuple(map(defaults.get, inputs, given))
    copy.__kwdefaults__ = {**(function.__kwdefaults__ or {}), **defaults}
    return copy


def _forward(function: Function, defaults: Mapping[str, Any], unused: Collection[str]) -> Function:
    """A function that calls `function` with other defaults and without the `unused` attributes."""
    if not defaults and not unused:
        return function

    def call(*inputs: Any, **attributes: Any) -> Any:
        used = {name: value for name, value in attributes.items() if name not in unused}
        return function(*inputs, **{**defaults, **used})

    return call


def _describe(version: Function, newer: Function, since: int) -> None:
    """Name a version after the newer function and its opset."""
    base = re.sub(r"_(\d+)?$", "", newer.__name__)
    version.__name__ = version.__qualname__ = f"{base}_{since}"
    version.__module__, version.__doc__ = newer.__module__, newer.__doc__


def _set_signature(
    function: Function, parameters: Iterable[Parameter], types: Mapping[str, Any]
) -> None:
    """Set the signature of a function, inputs before attributes, with these annotations."""
    ordered = sorted(parameters, key=lambda p: p.kind)
    names = {"return", *(p.name for p in ordered)}
    function.__annotations__ = {name: hint for name, hint in types.items() if name in names}
    function.__signature__ = Signature(  # type: ignore[attr-defined]
        [p.replace(annotation=types.get(p.name, p.annotation)) for p in ordered],
        return_annotation=types.get("return", Signature.empty),
    )
