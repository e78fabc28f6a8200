"""Where the messages of ONNX store values: the fields of attributes and of tensors.

Source: https://github.com/onnx/onnx/blob/main/onnx/onnx.proto
"""

from __future__ import annotations

from onnx import AttributeProto, TensorProto

SINGLE_FIELD: dict[str, str] = {
    "FLOAT": "f",
    "INT": "i",
    "STRING": "s",
    "TENSOR": "t",
    "GRAPH": "g",
    "SPARSE_TENSOR": "sparse_tensor",
    "TYPE_PROTO": "tp",
}
VALUE_FIELD: dict[int, str] = {
    AttributeProto.AttributeType.Value(kind): field
    for single, name in SINGLE_FIELD.items()
    for kind, field in ((single, name), (f"{single}S", f"{single.lower()}s"))
}
"""Type of an attribute -> the field that has its value, such as "f", or "floats" of several."""
_DATA_FIELDS = {name for name in TensorProto.DESCRIPTOR.fields_by_name if name.endswith("_data")}
TYPED_FIELDS = tuple(sorted(_DATA_FIELDS - {"raw_data", "external_data"}))
"""The fields of a TensorProto that have elements, beside `raw_data`."""
