"""How well rows fall into clusters, judged from the data alone: no true labels are needed, and none are used.

Rows labelled -1 are noise, as in DBSCAN: they are counted and take no part in any other number.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.sparse import issparse
from sklearn.metrics import calinski_harabasz_score, davies_bouldin_score, silhouette_score

from overt.errors import ConfigurationError
from overt.evaluation.arrays import check_same_length, to_array
from overt.evaluation.notes import Notes, gathered
from overt.evaluation.report import Report

# Silhouette compares every row with every other: 2,000 rows take 32 MB and some 50 ms, 20,000 a hundred times that.
MAX_SILHOUETTE_ROWS = 2_000
NOISE = -1

_QUALITY = ("silhouette", "calinski_harabasz", "davies_bouldin")


def cluster(X: Any, labels: Any, *, random_state: int = 0) -> Report:
    """Evaluate a clustering.

    Parameters
    ----------
    X : array-like or sparse matrix of shape (n_samples, n_features)
        The rows that were clustered. A sparse one stays sparse: what scikit-learn computes from dense data only is
        left out, with a note.
    labels : array-like of int, shape (n_samples,)
        The cluster of each row, -1 for noise.
    random_state : int, default=0
        Seed of the sample that the silhouette is taken from when there are more than 2,000 rows.

    Returns
    -------
    Report
        Metrics ``n_clusters``, ``n_noise``, ``silhouette``, ``calinski_harabasz``, ``davies_bouldin`` in Euclidean
        distance, and the table ``cluster_sizes``, noise included. Metrics undefined for this clustering are NaN,
        with a note.

    Raises
    ------
    ConfigurationError
        When arrays are empty or do not fit together.

    Examples
    --------
    >>> from overt.evaluation.clustering import cluster
    >>> cluster([[0.0], [0.1], [5.0], [5.1], [99.0]], [0, 0, 1, 1, -1])["n_noise"]
    1.0
    """
    assigned = to_array(labels, name="labels")
    if assigned.ndim != 1 or assigned.dtype.kind not in "iu":
        raise ConfigurationError(
            f"`labels` must hold one whole number for each row (got shape {assigned.shape} of {assigned.dtype})"
        )
    rows = X.tocsr() if issparse(X) else np.asarray(X)
    if rows.ndim != 2:
        raise ConfigurationError(f"`X` must have rows and columns (got shape {rows.shape}); X.reshape(-1, 1) gives one")
    check_same_length(X=rows, labels=assigned)
    found, sizes = np.unique(assigned, return_counts=True)
    is_kept = assigned != NOISE
    n_clusters, n_noise = int(np.sum(found != NOISE)), int(np.sum(~is_kept))
    with gathered() as notes:
        if n_noise:
            notes.add(f"{n_noise:,} rows are noise (label -1) and take no part in the quality of the clusters")
            rows, assigned = rows[is_kept], assigned[is_kept]
        quality = _quality(rows, assigned, n_clusters, random_state, notes)
    metrics = {"n_clusters": float(n_clusters), "n_noise": float(n_noise), **quality}
    names = ["noise" if label == NOISE else str(label) for label in found.tolist()]
    tables = {"cluster_sizes": {"labels": names, "sizes": sizes.tolist()}}
    return Report("clustering", len(is_kept), metrics, tables, {}, notes.sentences)


def _quality(rows: Any, labels: Any, n_clusters: int, random_state: int, notes: Notes) -> dict[str, float]:
    undefined = dict.fromkeys(_QUALITY, float("nan"))
    if not 2 <= n_clusters < len(labels):
        notes.add(
            "silhouette, calinski_harabasz and davies_bouldin are undefined: they need at least 2 clusters and fewer "
            f"clusters than rows (got {n_clusters:,} clusters of {len(labels):,} rows)"
        )
        return undefined
    sampled = len(labels) > MAX_SILHOUETTE_ROWS
    if sampled:
        notes.add(f"silhouette is taken from a random {MAX_SILHOUETTE_ROWS:,} of {len(labels):,} rows")
    size = MAX_SILHOUETTE_ROWS if sampled else None
    measured = {
        "silhouette": notes.attempt(
            "silhouette", lambda: silhouette_score(rows, labels, sample_size=size, random_state=random_state)
        )
    }
    if issparse(rows):
        notes.add("calinski_harabasz and davies_bouldin need dense data, and X is sparse")
        return undefined | measured
    return measured | {
        "calinski_harabasz": notes.attempt("calinski_harabasz", lambda: calinski_harabasz_score(rows, labels)),
        "davies_bouldin": notes.attempt("davies_bouldin", lambda: davies_bouldin_score(rows, labels)),
    }
