"""Curves are shapes to look at, metrics are numbers to rely on: a curve may be thinned, its area never is.

Each class or label is traced by itself against all others, by scikit-learn's own functions. Points are rounded to
six decimals, a hundred times finer than a pixel.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import auc, precision_recall_curve, roc_curve

from overt.evaluation.arrays import FloatArray
from overt.evaluation.notes import Notes, named_where

MAX_CURVES = 20
MAX_POINTS = 1_000
CALIBRATION_BINS = 10

_UNDEFINED = float("nan")


@dataclass(frozen=True, slots=True)
class Target:
    """One class or label against all others.

    Attributes
    ----------
    name : str
        What to call it in a legend.
    positive : ndarray of bool, shape (n_samples,)
        Where it is true.
    score : ndarray of float, shape (n_samples,)
        How much the estimator believes in it.
    """

    name: str
    positive: NDArray[np.bool_]
    score: FloatArray

    def has_both_sides(self) -> bool:
        """Whether there are positive and negative samples, without which no curve exists."""
        return bool(self.positive.any()) and not bool(self.positive.all())


@dataclass(slots=True)
class Traced:
    """Areas of all targets, in order, and the curves of those that are drawn."""

    roc_areas: list[float] = field(default_factory=list)
    average_precisions: list[float] = field(default_factory=list)
    curves: dict[str, dict[str, list[Any]]] = field(default_factory=dict)

    def keep(self, curve: str, points: dict[str, Any]) -> None:
        """Add one curve to those of its kind."""
        self.curves.setdefault(curve, {"curves": []})["curves"].append(points)


def trace(
    targets: Iterable[Target],
    *,
    weight: FloatArray | None,
    drawn: Container[int],
    are_probabilities: bool,
    notes: Notes,
) -> Traced:
    """Trace every target and keep the curves of those whose position is in ``drawn``.

    The area of a target that is not drawn is computed all the same; its average precision is NaN.
    """
    traced = Traced()
    for position, target in enumerate(targets):
        is_drawn = position in drawn
        defined = target.has_both_sides()
        roc = _roc(target, weight, notes) if defined else None
        precision_recall = _precision_recall(target, weight, notes) if defined and is_drawn else None
        traced.roc_areas.append(_UNDEFINED if roc is None else roc["auc"])
        traced.average_precisions.append(
            _UNDEFINED if precision_recall is None else precision_recall["average_precision"]
        )
        if is_drawn:
            if roc is not None:
                traced.keep("roc", roc)
            if precision_recall is not None:
                traced.keep("precision_recall", precision_recall)
            if are_probabilities:
                traced.keep("calibration", _calibration(target, weight))
    return traced


def most_frequent(support: NDArray[Any], *, notes: Notes) -> frozenset[int]:
    """Choose the classes to draw: all of them, or those with the largest support where they would fill no legend."""
    if len(support) <= MAX_CURVES:
        return frozenset(range(len(support)))
    notes.add(f"curves show the {MAX_CURVES} most frequent of {len(support):,} classes; metrics use all of them")
    return frozenset(np.argsort(-support, kind="stable")[:MAX_CURVES].tolist())


def weighted_area(areas: Sequence[float], support: NDArray[Any], names: Sequence[str], notes: Notes) -> float:
    """Average one-vs-rest areas by support over the classes for which they are defined, and note the others."""
    values = np.asarray(areas)
    defined = ~np.isnan(values)
    if not support[defined].sum():
        notes.add("roc_auc is undefined: no class has samples both inside and outside it in y_true")
        return _UNDEFINED
    if not defined.all():
        missing = named_where(names, ~defined)
        notes.add(f"roc_auc is the average over the other classes, being undefined for: {missing}")
    return float(np.average(values[defined], weights=support[defined]))


def thin(x: FloatArray, y: FloatArray, *, limit: int = MAX_POINTS) -> NDArray[np.intp]:
    """Choose the points of a curve that keep its shape.

    Points are taken at equal steps along the curve, its length being the sum of ``|dx| + |dy|``: steep and flat parts
    keep their points in proportion to what there is to see. A point left out lies within one such step of one
    that was kept, for a ROC curve at most 0.002 away.

    Returns
    -------
    ndarray of int
        Rising positions, at most ``limit`` of them; the first and the last point are always there.
    """
    if len(x) <= limit:
        return np.arange(len(x))
    walked = np.concatenate(([0.0], np.cumsum(np.abs(np.diff(x)) + np.abs(np.diff(y)))))
    steps = np.linspace(0.0, walked[-1], limit - 1, endpoint=False)
    chosen = np.searchsorted(walked, steps)
    return np.unique(np.append(chosen, len(x) - 1))


def _roc(target: Target, weight: FloatArray | None, notes: Notes) -> dict[str, Any] | None:
    try:
        false_positive, true_positive, _ = roc_curve(target.positive, target.score, sample_weight=weight)
        area = float(auc(false_positive, true_positive))
    except ValueError as error:  # negative weights, which can make the curve turn back
        notes.add(f"the ROC curve of {target.name!r} is undefined: {error}")
        return None
    kept = _thinned(false_positive, true_positive, curve="roc", notes=notes)
    return {
        "name": target.name,
        "auc": area,
        "false_positive_rate": _rounded(false_positive[kept]),
        "true_positive_rate": _rounded(true_positive[kept]),
    }


def _precision_recall(target: Target, weight: FloatArray | None, notes: Notes) -> dict[str, Any] | None:
    try:
        precision, recall, _ = precision_recall_curve(target.positive, target.score, sample_weight=weight)
    except ValueError as error:
        notes.add(f"the precision-recall curve of {target.name!r} is undefined: {error}")
        return None
    # The definition of sklearn.metrics.average_precision_score, from the curve that is there already.
    area = max(0.0, float(-np.sum(np.diff(recall) * precision[:-1])))
    kept = _thinned(recall, precision, curve="precision_recall", notes=notes)
    return {
        "name": target.name,
        "average_precision": area,
        "prevalence": float(np.average(target.positive, weights=weight)),
        "recall": _rounded(recall[kept]),
        "precision": _rounded(precision[kept]),
    }


def _calibration(target: Target, weight: FloatArray | None) -> dict[str, Any]:
    """Compare predicted with observed frequencies in ten bins of equal width, empty ones left out.

    Equal to ``sklearn.calibration.calibration_curve`` (a test says so), which takes no weights and whose
    module takes 0.1 s to import.
    """
    edges = np.linspace(0.0, 1.0, CALIBRATION_BINS + 1)
    bins = np.searchsorted(edges[1:-1], target.score)
    weights = np.ones(len(bins)) if weight is None else weight
    total = np.bincount(bins, weights=weights, minlength=CALIBRATION_BINS)
    predicted = np.bincount(bins, weights=weights * target.score, minlength=CALIBRATION_BINS)
    positive = np.bincount(bins, weights=weights * target.positive, minlength=CALIBRATION_BINS)
    filled = total > 0
    return {
        "name": target.name,
        "mean_predicted": _rounded(predicted[filled] / total[filled]),
        "fraction_positive": _rounded(positive[filled] / total[filled]),
        "weight": _rounded(total[filled]),
    }


def _thinned(x: FloatArray, y: FloatArray, *, curve: str, notes: Notes) -> NDArray[np.intp]:
    kept = thin(x, y)
    if len(kept) < len(x):
        notes.add(f"{curve} curves of more than {MAX_POINTS:,} points are thinned to that; metrics use every point")
    return kept


def _rounded(values: NDArray[Any]) -> list[float]:
    rounded: list[float] = np.round(values, 6).tolist()
    return rounded
