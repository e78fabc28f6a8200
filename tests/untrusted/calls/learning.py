"""Trees, support vectors, labels and n-grams that point nowhere."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tests.untrusted.calls.one_node import ANY, ML, REFUSED, Node, f, gives, i, ones, refused
from tests.untrusted.files.models import stump

X = f([1, 2])


def _tree(expected: Any = REFUSED, **changes: Any) -> Node:
    x = f([0.0], [1.0])
    return gives(
        expected, "TreeEnsembleRegressor", [x], opset=3, domain=ML, **{**stump(), **changes}
    )


def trees() -> Iterator[Node]:
    """A right one, then circles, nodes, features and targets that are not there."""
    yield _tree([[1.0], [2.0]])
    yield _tree(nodes_truenodeids=[0, 0, 0])
    yield _tree(nodes_truenodeids=[9, 0, 0])
    yield _tree(nodes_truenodeids=[-1, 0, 0])
    yield _tree(nodes_modes=["BRANCH_LEQ", "BRANCH_LEQ", "LEAF"], nodes_truenodeids=[1, 0, 0])
    yield _tree(nodes_modes=["BRANCH_LEQ", "BRANCH_LEQ", "LEAF"], nodes_truenodeids=[1, 1, 0])
    yield _tree(nodes_modes=["EVIL", "LEAF", "LEAF"])
    yield _tree(nodes_featureids=[9, 0, 0])
    yield _tree(nodes_featureids=[-1, 0, 0])
    yield _tree(nodes_featureids=[2**62, 0, 0])
    yield _tree(target_nodeids=[1, 9])
    yield _tree(target_ids=[0, 9])
    yield _tree(target_ids=[0, -1])
    yield _tree(n_targets=2**40)
    yield _tree(n_targets=-1)
    yield _tree(target_weights=[1.0])
    yield _tree(nodes_values=[0.5])
    yield _tree(nodes_nodeids=[0, 0, 0])
    yield _tree(aggregate_function="EVIL")
    yield _tree(post_transform="EVIL")


def _svm(expected: Any = REFUSED, **changes: Any) -> Node:
    attributes = {
        "coefficients": [1.0, 1.0],
        "rho": [0.0],
        "support_vectors": [1.0] * 4,
        "n_supports": 2,
        **changes,
    }
    return gives(expected, "SVMRegressor", [X], opset=1, domain=ML, **attributes)


def support_vectors() -> Iterator[Node]:
    """A right one, then vectors of other counts and sizes, and a kernel without its numbers."""
    yield _svm([[6.0]])
    yield _svm(n_supports=3)
    yield _svm(n_supports=-3)
    yield _svm(support_vectors=[1.0] * 6)
    yield _svm(kernel_type="RBF", kernel_params=[1.0])
    for counts in ([2, 9], [-2, 6]):
        yield refused(
            "SVMClassifier",
            [X],
            opset=1,
            domain=ML,
            outputs=2,
            coefficients=[1.0] * 4,
            rho=[0.0],
            support_vectors=[1.0] * 8,
            vectors_per_class=counts,
            classlabels_ints=[0, 1],
        )


def _pairs(expected: Any = REFUSED, **changes: Any) -> Node:
    attributes = {
        "coefficients": [1.0, -1.0, 2.0, -2.0, 0.5, 0.25],
        "rho": [0.0] * 3,
        "support_vectors": [1.0] * 6,
        "vectors_per_class": [1, 1, 1],
        "classlabels_ints": [0, 1, 2],
        **changes,
    }
    return gives(expected, "SVMClassifier", [X], opset=1, domain=ML, outputs=2, **attributes)


def pairs_of_classes() -> Iterator[Node]:
    """A right one, then numbers for fewer pairs than there are, and one half without the other."""
    yield _pairs(ANY)
    yield _pairs(rho=[1.0])
    yield _pairs(prob_a=[1.0], prob_b=[1.0])
    yield _pairs(prob_a=[1.0] * 3)
    yield _pairs(prob_a=[1.0] * 3, prob_b=[1.0] * 4)


def linear() -> Iterator[Node]:
    """Fewer coefficients than features, and targets that are none."""
    own: dict[str, Any] = {"opset": 1, "domain": ML}
    labels = [0, 1]
    yield refused(
        "LinearClassifier", [X], **own, outputs=2, coefficients=[1.0], classlabels_ints=labels
    )
    yield refused("LinearRegressor", [X], **own, coefficients=[1.0, 1.0], targets=-3)
    yield refused("LinearRegressor", [X], **own, coefficients=[1.0, 1.0], targets=0)


def states() -> Iterator[Node]:
    """States, gates and rules of recurrences that are not of the sizes of their keys."""
    x, rule = ones(2, 3, 2), {"update_rule": "linear"}
    own: dict[str, Any] = {"opset": 27, "outputs": 2, "kv_num_heads": 1, "q_num_heads": 1}
    for shape in ((1, 1, 2, 2), (2, 1, 1, 1), (4, 2, 1, 2, 2)):
        yield refused("LinearAttention", [x, x, x, ones(*shape)], **own, **rule)
    yield refused("LinearAttention", [x, x[:1], x], **own, **rule)
    yield refused("LinearAttention", [x, x, x[:1]], **own, **rule)
    yield refused("LinearAttention", [x, x, x], **own, update_rule="gatedevildelta")
    gate = ones(1, 3, 1)
    yield refused("LinearAttention", [x, x, x, None, gate], **own, update_rule="gated")
    yield refused("LinearAttention", [x, x, x, None, None, gate], **own, update_rule="delta")
    yield refused("LinearAttention", [x, x, x, None, None, x], **own, update_rule="delta")
    image: list[Any] = [ones(1, 2, 4), ones(2, 1, 3), None]
    yield refused("CausalConvWithState", [*image, ones(1, 2, 5)], opset=27, outputs=2)
    yield refused("CausalConvWithState", image, opset=27, outputs=2, activation="evil")


def losses() -> Iterator[Node]:
    """Scores without an axis of classes, and weights and targets that are not theirs."""
    scores, target = ones(2, 3), i(0, 1)
    for operator in ("NegativeLogLikelihoodLoss", "SoftmaxCrossEntropyLoss"):
        yield refused(operator, [ones(3), i(0)], opset=13)
        yield refused(operator, [scores, i(0)], opset=13)
        yield refused(operator, [scores, target, ones(1)], opset=13)
        yield refused(operator, [scores, target, ones(3, 1)], opset=13)


def features() -> Iterator[Node]:
    """Columns, categories, labels and sizes that the values do not have."""
    own: dict[str, Any] = {"opset": 1, "domain": ML}
    yield refused("ArrayFeatureExtractor", [X, i(9)], **own)
    yield refused("ArrayFeatureExtractor", [X, i(-9)], **own)
    yield refused("OneHotEncoder", [i(9)], **own, cats_int64s=[1, 2], zeros=0)
    yield refused("LabelEncoder", [i(1)], opset=2, domain=ML, keys_int64s=[1], values_int64s=[1, 2])
    yield refused("LabelEncoder", [i(1)], opset=2, domain=ML)
    yield refused("FeatureVectorizer", [X], **own, inputdimensions=[2**40])
    yield refused("FeatureVectorizer", [X], **own, inputdimensions=[-1])
    yield refused("Scaler", [X], **own, offset=[1.0] * 3, scale=[1.0])
    yield refused("Scaler", [X], **own, offset=[1.0], scale=[1.0, 2.0])
    yield refused("Imputer", [X], **own, imputed_value_floats=[1.0] * 3)


def _ngrams(expected: Any = REFUSED, **changes: Any) -> Node:
    attributes = {
        "mode": "TF",
        "min_gram_length": 1,
        "max_gram_length": 1,
        "max_skip_count": 0,
        "ngram_counts": [0],
        "ngram_indexes": [0, 1],
        "pool_int64s": [1, 2],
        **changes,
    }
    return gives(expected, "TfIdfVectorizer", [i(1, 2)], **attributes)


def ngrams() -> Iterator[Node]:
    """Counts that cut the pool outside of it, and columns, weights and modes that do not fit."""
    yield _ngrams(ngram_indexes=[0, -1])
    yield _ngrams(ngram_indexes=[0, 2**62])
    yield _ngrams(ngram_indexes=[0])
    yield _ngrams(ngram_counts=[9])
    yield _ngrams(ngram_counts=[-9])
    yield _ngrams(weights=[1.0], mode="TFIDF")
    yield _ngrams(ANY, max_skip_count=2**40, max_gram_length=2, ngram_counts=[0, 0])
    yield _ngrams(mode="EVIL")


GROUPS = (
    trees,
    support_vectors,
    pairs_of_classes,
    linear,
    states,
    losses,
    features,
    ngrams,
)
