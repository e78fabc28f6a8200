"""Trees, support vectors, labels and n-grams that point nowhere."""

from __future__ import annotations

from typing import Any

from tests.hostile_calls.one_node import ANY, ML, REFUSED, Node, f, i


def nodes() -> list[Node]:
    """Each with what must become of it."""

    def tree(**changes: Any) -> dict[str, Any]:
        return {
            "nodes_treeids": [0, 0, 0],
            "nodes_nodeids": [0, 1, 2],
            "nodes_modes": ["BRANCH_LEQ", "LEAF", "LEAF"],
            "nodes_featureids": [0, 0, 0],
            "nodes_values": [0.5, 0.0, 0.0],
            "nodes_truenodeids": [1, 0, 0],
            "nodes_falsenodeids": [2, 0, 0],
            "target_treeids": [0, 0],
            "target_nodeids": [1, 2],
            "target_ids": [0, 0],
            "target_weights": [1.0, 2.0],
            "n_targets": 1,
            **changes,
        }

    def regressor(expected: Any = REFUSED, **changes: Any) -> Node:
        return Node("TreeEnsembleRegressor", [f([0.0], [1.0])], tree(**changes), expected, 3, ML)

    x = f([1, 2])
    svm = {"coefficients": [1.0, 1.0], "rho": [0.0], "support_vectors": [1.0] * 4, "n_supports": 2}
    gram = {
        "mode": "TF",
        "min_gram_length": 1,
        "max_gram_length": 1,
        "max_skip_count": 0,
        "ngram_counts": [0],
        "ngram_indexes": [0, 1],
        "pool_int64s": [1, 2],
    }
    return [
        regressor([[1.0], [2.0]]),
        regressor(nodes_truenodeids=[0, 0, 0]),
        regressor(nodes_truenodeids=[9, 0, 0]),
        regressor(nodes_truenodeids=[-1, 0, 0]),
        regressor(nodes_modes=["BRANCH_LEQ", "BRANCH_LEQ", "LEAF"], nodes_truenodeids=[1, 0, 0]),
        regressor(nodes_modes=["BRANCH_LEQ", "BRANCH_LEQ", "LEAF"], nodes_truenodeids=[1, 1, 0]),
        regressor(nodes_modes=["EVIL", "LEAF", "LEAF"]),
        regressor(nodes_featureids=[9, 0, 0]),
        regressor(nodes_featureids=[-1, 0, 0]),
        regressor(nodes_featureids=[2**62, 0, 0]),
        regressor(target_nodeids=[1, 9]),
        regressor(target_ids=[0, 9]),
        regressor(target_ids=[0, -1]),
        regressor(n_targets=2**40),
        regressor(n_targets=-1),
        regressor(target_weights=[1.0]),
        regressor(nodes_values=[0.5]),
        regressor(nodes_nodeids=[0, 0, 0]),
        regressor(aggregate_function="EVIL"),
        regressor(post_transform="EVIL"),
        Node("SVMRegressor", [x], svm, [[6.0]], 1, ML),
        Node("SVMRegressor", [x], {**svm, "n_supports": 3}, REFUSED, 1, ML),
        Node("SVMRegressor", [x], {**svm, "n_supports": -3}, REFUSED, 1, ML),
        Node("SVMRegressor", [x], {**svm, "support_vectors": [1.0] * 6}, REFUSED, 1, ML),
        Node(
            "SVMRegressor",
            [x],
            {**svm, "kernel_type": "RBF", "kernel_params": [1.0]},
            REFUSED,
            1,
            ML,
        ),
        Node(
            "SVMClassifier",
            [x],
            {
                "coefficients": [1.0] * 4,
                "rho": [0.0],
                "support_vectors": [1.0] * 8,
                "vectors_per_class": [2, 9],
                "classlabels_ints": [0, 1],
            },
            REFUSED,
            1,
            ML,
            2,
        ),
        Node(
            "SVMClassifier",
            [x],
            {
                "coefficients": [1.0] * 4,
                "rho": [0.0],
                "support_vectors": [1.0] * 8,
                "vectors_per_class": [-2, 6],
                "classlabels_ints": [0, 1],
            },
            REFUSED,
            1,
            ML,
            2,
        ),
        Node(
            "LinearClassifier",
            [x],
            {"coefficients": [1.0], "classlabels_ints": [0, 1]},
            REFUSED,
            1,
            ML,
            2,
        ),
        Node("LinearRegressor", [x], {"coefficients": [1.0, 1.0], "targets": -3}, REFUSED, 1, ML),
        Node("LinearRegressor", [x], {"coefficients": [1.0, 1.0], "targets": 0}, REFUSED, 1, ML),
        Node("ArrayFeatureExtractor", [x, i(9)], {}, REFUSED, 1, ML),
        Node("ArrayFeatureExtractor", [x, i(-9)], {}, REFUSED, 1, ML),
        Node("OneHotEncoder", [i(9)], {"cats_int64s": [1, 2], "zeros": 0}, REFUSED, 1, ML),
        Node("LabelEncoder", [i(1)], {"keys_int64s": [1], "values_int64s": [1, 2]}, REFUSED, 2, ML),
        Node("LabelEncoder", [i(1)], {}, REFUSED, 2, ML),
        Node("FeatureVectorizer", [x], {"inputdimensions": [2**40]}, REFUSED, 1, ML),
        Node("FeatureVectorizer", [x], {"inputdimensions": [-1]}, REFUSED, 1, ML),
        Node("Scaler", [x], {"offset": [1.0] * 3, "scale": [1.0]}, REFUSED, 1, ML),
        Node("Imputer", [x], {"imputed_value_floats": [1.0] * 3}, REFUSED, 1, ML),
        Node("TfIdfVectorizer", [i(1, 2)], {**gram, "ngram_indexes": [0, -1]}, REFUSED),
        Node("TfIdfVectorizer", [i(1, 2)], {**gram, "ngram_indexes": [0, 2**62]}, REFUSED),
        Node("TfIdfVectorizer", [i(1, 2)], {**gram, "ngram_indexes": [0]}, REFUSED),
        Node("TfIdfVectorizer", [i(1, 2)], {**gram, "ngram_counts": [9]}, REFUSED),
        Node("TfIdfVectorizer", [i(1, 2)], {**gram, "ngram_counts": [-9]}, REFUSED),
        Node("TfIdfVectorizer", [i(1, 2)], {**gram, "weights": [1.0], "mode": "TFIDF"}, REFUSED),
        Node(
            "TfIdfVectorizer",
            [i(1, 2)],
            {**gram, "max_skip_count": 2**40, "max_gram_length": 2, "ngram_counts": [0, 0]},
            ANY,
        ),
        Node("TfIdfVectorizer", [i(1, 2)], {**gram, "mode": "EVIL"}, REFUSED),
    ]
