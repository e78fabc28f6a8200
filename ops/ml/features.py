"""Join and select features: FeatureVectorizer, ArrayFeatureExtractor.

History: 1 (both).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from onnxinterp.ops.ml.registration import ml_op
from onnxinterp.registry import sample
from onnxinterp.testing.samples import Call, Draw, call
from onnxinterp.values import Ints


@ml_op("FeatureVectorizer", since=1)
def feature_vectorizer(
    *X: Tensor, inputdimensions: Ints | None = None, output_type: torch.dtype = torch.float32
) -> Tensor:
    """Join columns; those of an input are cropped or padded with 0 to the given number.

    An input of rank 1 is one row, as in the specification and onnxruntime; in the reference it is
    one column. From rank 3 on, all axes but the first are flattened.
    """
    rows = [x.unsqueeze(0) if x.ndim == 1 else x.flatten(1) for x in X]
    widths = inputdimensions or [row.shape[1] for row in rows]
    columns = [functional.pad(r, (0, w - r.shape[1])) for r, w in zip(rows, widths, strict=True)]
    return torch.cat([x.to(output_type) for x in columns], 1)


@ml_op("ArrayFeatureExtractor", since=1)
def array_feature_extractor(X: Tensor, Y: Tensor) -> Tensor:
    """Elements of the last axis; an input of rank 1 is one row, indices of any rank are a list."""
    rows = X.unsqueeze(0) if X.ndim == 1 else X
    return rows.index_select(-1, Y.flatten())


@sample(feature_vectorizer)
def _(d: Draw) -> Call:
    count = d.integer(1, 4)
    rank = d.integer(1, 3)
    shapes = [d.shape(min_dims=rank, max_dims=rank) for _ in range(d.integer(1, 3))]
    xs = [d.tensor((count, *shape[1:]) if rank > 1 else shape) for shape in shapes]
    widths = [x.shape[0] if x.ndim == 1 else x.flatten(1).shape[1] for x in xs]
    return call(*xs, inputdimensions=[max(n + d.integer(-1, 2), 1) for n in widths])


@sample(array_feature_extractor)
def _(d: Draw) -> Call:
    count = d.integer(1, 4)
    x = d.tensor((*d.shape(max_dims=2), count))
    return call(x, d.ints(d.shape(max_dims=2), 0, count - 1))
