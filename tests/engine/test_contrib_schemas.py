"""The schemas of onnxruntime in the package are those of onnxruntime itself."""

from __future__ import annotations

import onnxruntime
import pytest

from onnxinterp.schemas import CONTRIB, contrib_schema, contrib_schemas
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
