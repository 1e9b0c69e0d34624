"""How well scores tell each class from each other one: what one-vs-rest hides where one class is most of the data.

scikit-learn's one-vs-one area (``roc_auc_score(…, multi_class="ovo", average="weighted")``) to the last digits, at a
fraction of its time: no curve is needed for an area, only how many of one class score below each of the other.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from overt.evaluation.arrays import FloatArray

# A thousand classes are half a million pairs; a hundred take half a second of 100,000 rows.
MAX_PAIRED_CLASSES = 100


def area_of_pairs(true: NDArray[Any], columns: FloatArray) -> float:
    """Mean area under the ROC curve over all pairs of the classes in ``true``, weighted by the samples of each pair.

    Parameters
    ----------
    true : ndarray of int, shape (n_samples,)
        Positions of the true classes; at least two different ones.
    columns : ndarray of float, shape (n_samples, n_classes)
        How much the estimator believes in each class.

    Returns
    -------
    float
        Of Hand and Till (2001), equation 7, with weights.
    """
    rows = {label: np.flatnonzero(true == label) for label in np.unique(true).tolist()}
    areas = {label: _areas_against(label, columns[:, label], rows) for label in rows}
    pairs = [(one, other) for one in rows for other in rows if one < other]
    both_ways = [(areas[one][other] + areas[other][one]) / 2 for one, other in pairs]
    return float(np.average(both_ways, weights=[len(rows[one]) + len(rows[other]) for one, other in pairs]))


def _areas_against(label: int, scores: FloatArray, rows: dict[int, NDArray[np.intp]]) -> dict[int, float]:
    """For each other class, how often a sample of ``label`` scores higher than one of it; a tie counts half."""
    ordered = {other: np.sort(scores[members]) for other, members in rows.items()}
    own = ordered.pop(label)
    return {
        other: float(np.searchsorted(theirs, own, "left").sum() + np.searchsorted(theirs, own, "right").sum())
        / (2 * len(own) * len(theirs))
        for other, theirs in ordered.items()
    }
