"""cluster(): quality from the data alone, sparse data left sparse, noise left out."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from scipy.sparse import csr_matrix
from sklearn import metrics
from sklearn.datasets import make_blobs

from overt.errors import ConfigurationError
from overt.evaluation.clustering import cluster


def blobs(n_samples: int = 300) -> tuple[Any, Any]:
    X, labels = make_blobs(n_samples, centers=4, cluster_std=2.0, random_state=0)
    return X, labels


def test_quality_equals_that_of_scikit_learn() -> None:
    X, labels = blobs()
    assert cluster(X, labels).metrics == pytest.approx(
        {
            "n_clusters": 4,
            "n_noise": 0,
            "silhouette": metrics.silhouette_score(X, labels),
            "calinski_harabasz": metrics.calinski_harabasz_score(X, labels),
            "davies_bouldin": metrics.davies_bouldin_score(X, labels),
        },
        rel=1e-12,
    )
    assert cluster(X, labels).notes == ()


def test_noise_is_counted_and_takes_no_part() -> None:
    X, labels = blobs()
    labels[:30] = -1
    report = cluster(X, labels)
    assert report["n_clusters"] == 4
    assert report["n_noise"] == 30
    assert report.n_samples == 300
    assert report["silhouette"] == pytest.approx(metrics.silhouette_score(X[30:], labels[30:]), rel=1e-12)
    assert report.tables["cluster_sizes"]["labels"][0] == "noise"
    assert sum(report.tables["cluster_sizes"]["sizes"]) == 300
    assert any("30 rows are noise" in note for note in report.notes)


def test_a_large_silhouette_is_sampled_alike_every_time() -> None:
    X, labels = blobs(3_000)
    report = cluster(X, labels)
    expected = metrics.silhouette_score(X, labels, sample_size=2_000, random_state=0)
    assert report["silhouette"] == pytest.approx(expected, rel=1e-12)
    assert report == cluster(X, labels)
    assert any("random 2,000 of 3,000" in note for note in report.notes)


class NeverDense(csr_matrix):  # type: ignore[misc]
    """Rows that must not become dense; the distances between them, a product of the same class, may."""

    def toarray(self, *args: Any, **kwargs: Any) -> Any:
        assert self.shape[0] == self.shape[1], "made dense"
        return super().toarray(*args, **kwargs)

    todense = toarray


def test_sparse_data_stays_sparse() -> None:
    X, labels = blobs()
    report = cluster(NeverDense(X), labels)
    assert report["silhouette"] == pytest.approx(metrics.silhouette_score(X, labels), rel=1e-9)
    assert math.isnan(report["davies_bouldin"])
    assert any("X is sparse" in note for note in report.notes)


@pytest.mark.parametrize("labels", [np.zeros(20, int), np.arange(20), np.full(20, -1)])
def test_quality_that_is_undefined_is_nan_with_a_note(labels: Any) -> None:
    report = cluster(np.random.default_rng(0).normal(size=(20, 2)), labels)
    assert math.isnan(report["silhouette"])
    assert math.isnan(report["davies_bouldin"])
    assert any("are undefined" in note for note in report.notes)


def test_rows_that_scikit_learn_refuses_become_notes() -> None:
    report = cluster([[np.nan], [1.0], [2.0]], [0, 0, 1])
    assert math.isnan(report["silhouette"])
    assert any("silhouette is undefined" in note for note in report.notes)


@pytest.mark.parametrize(("X", "labels"), [([[1.0], [2.0]], [0]), ([[1.0]], ["a"]), ([1.0], [0]), ([], [])])
def test_a_mistake_is_named(X: Any, labels: Any) -> None:
    with pytest.raises(ConfigurationError):
        cluster(X, labels)
