"""The schemas of onnxruntime in the package are those of onnxruntime itself."""

from __future__ import annotations

import onnx.parser
import onnxruntime
import pytest

from onnxinterp import OnnxModule, UnsupportedOpError
from onnxinterp.registry import KERNELS, REFUSED
from onnxinterp.schemas import CONTRIB, MICROSOFT, contrib_schema, contrib_schemas
from tools.contrib_schemas import schemas

WRITTEN_FROM = "1.32."


@pytest.mark.skipif(
    not onnxruntime.__version__.startswith(WRITTEN_FROM),
    reason=f"the file holds the schemas of onnxruntime {WRITTEN_FROM}*",
)
def test_the_file_has_what_onnxruntime_has() -> None:
    assert contrib_schemas() == schemas()


@pytest.mark.parametrize("domain", CONTRIB)
def test_every_schema_can_be_built(domain: str) -> None:
    for name, declared in contrib_schemas()[domain].items():
        schema = contrib_schema(name, domain)
        assert schema is not None
        assert len(schema.inputs) == len(declared["inputs"])
        assert {a.name for a in schema.attributes.values() if a.required} == {
            a for a, (_kind, default) in declared["attributes"].items() if default == "required"
        }


@pytest.mark.parametrize("name", contrib_schemas()[MICROSOFT])
def test_every_operator_has_a_kernel_or_advice(name: str) -> None:
    has_kernel = (MICROSOFT, name) in KERNELS
    assert has_kernel != ((MICROSOFT, name) in REFUSED)


def test_the_error_names_the_advice() -> None:
    text = (
        '<ir_version: 8, opset_import: ["": 17]> '
        "g (float[2, 3] x) => (y) { y = com.microsoft.QOrderedGelu (x, x, x) }"
    )
    with pytest.raises(UnsupportedOpError, match="quantize the float model in the QDQ format"):
        OnnxModule(onnx.parser.parse_model(text))
