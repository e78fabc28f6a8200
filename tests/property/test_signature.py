"""A kernel's signature is the schema of every version it serves. No model is run."""

from __future__ import annotations

from types import NoneType
from typing import get_args

import onnx
import pytest
import torch
from onnx.defs import OpSchema

from onnxinterp.dtypes import CARRIER
from onnxinterp.registry import ENGINE_KEYWORDS, KERNELS, Kernel
from onnxinterp.versions import sample_of
from tests.property.served import SCHEMAS, kernel_of, label

OPTIONAL = OpSchema.FormalParameterOption.Optional
VARIADIC = OpSchema.FormalParameterOption.Variadic
IGNORED_ATTRIBUTES = {"consumed_inputs", "nodes_hitrates", "nodes_hitrates_as_tensor"}

ALL_KERNELS = [k for versions in KERNELS.values() for k in versions.values()]


def name_of(kernel: Kernel) -> str:
    return f"{kernel.op_type}-{kernel.since}"


def default(attribute: OpSchema.Attribute, wants_dtype: bool) -> object:
    """What the signature must say, `...` where the attribute is required."""
    if attribute.required:
        return ...
    if not attribute.default_value.type:
        return None
    value = onnx.helper.get_attribute_value(attribute.default_value)
    if wants_dtype:
        return CARRIER.get(value)  # 0 is no type: the kernel decides
    return value.decode() if isinstance(value, bytes) else value


def same(signature: object, schema: object) -> bool:
    if isinstance(schema, float) and isinstance(signature, (int, float)):
        return signature == pytest.approx(schema, rel=1e-6)
    if isinstance(schema, int) and isinstance(signature, torch.dtype):
        return CARRIER.get(schema) == signature
    if isinstance(schema, (list, tuple)) and isinstance(signature, (list, tuple)):
        return list(signature) == [v.decode() if isinstance(v, bytes) else v for v in schema]
    return signature == schema


@pytest.mark.parametrize("schema", SCHEMAS, ids=label)
def test_attributes_are_the_schemas(schema: OpSchema) -> None:
    kernel = kernel_of(schema)
    declared = {n: p for n, p in kernel.attributes.items() if n not in ENGINE_KEYWORDS}
    wanted = {n: a for n, a in schema.attributes.items() if n not in IGNORED_ATTRIBUTES}
    assert declared.keys() == wanted.keys()
    for name, parameter in declared.items():
        said = ... if parameter.default is parameter.empty else parameter.default
        assert same(said, default(wanted[name], kernel.wants_dtype(name))), name


@pytest.mark.parametrize("schema", SCHEMAS, ids=label)
def test_inputs_are_the_schemas(schema: OpSchema) -> None:
    kernel = kernel_of(schema)
    assert len(kernel.parameters) == len(schema.inputs)
    required = [
        i for i, wanted in enumerate(schema.inputs) if wanted.option not in (OPTIONAL, VARIADIC)
    ]
    for index, (parameter, wanted) in enumerate(zip(kernel.parameters, schema.inputs, strict=True)):
        assert (parameter.kind is parameter.VAR_POSITIONAL) == (wanted.option is VARIADIC)
        if wanted.option is OPTIONAL and index < max(required, default=0):  # Python has no default
            assert NoneType in get_args(kernel.hints[parameter.name]), f"{wanted.name} is optional"
        elif wanted.option is OPTIONAL:
            assert parameter.default is None, f"{wanted.name} is optional"


@pytest.mark.parametrize("kernel", ALL_KERNELS, ids=name_of)
def test_declarations_name_inputs(kernel: Kernel) -> None:
    names = {p.name for p in kernel.parameters} | kernel.attributes.keys()
    assert {*kernel.frozen, *kernel.state} <= names


@pytest.mark.parametrize("kernel", ALL_KERNELS, ids=name_of)
def test_every_kernel_has_a_sample(kernel: Kernel) -> None:
    assert kernel.initializer or callable(sample_of(kernel.function))


@pytest.mark.parametrize("kernel", ALL_KERNELS, ids=name_of)
def test_every_kernel_starts_at_a_schema_version(kernel: Kernel) -> None:
    versions = {
        s.since_version for s in SCHEMAS if (s.domain, s.name) == (kernel.domain, kernel.op_type)
    } or {1}  # what onnxruntime writes into ONNX's domain, without a schema
    assert kernel.since in versions
