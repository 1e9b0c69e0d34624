"""From a fitted estimator and data to a Report: which predictions to ask for, and which evaluation fits them."""

from __future__ import annotations

from collections.abc import Sequence
from inspect import signature
from typing import Any

import numpy
from sklearn.base import ClassifierMixin, RegressorMixin, is_classifier, is_regressor
from sklearn.utils import get_tags

from overt.capture.params import final_estimator
from overt.evaluation.classification import classify
from overt.evaluation.clustering import cluster
from overt.evaluation.regression import regress
from overt.evaluation.report import Report


def is_clusterer(estimator: Any) -> bool:
    """Whether ``estimator`` clusters; scikit-learn 1.6 has no function for it that takes meta-estimators."""
    clusters_columns = hasattr(estimator, "transform") and not hasattr(estimator, "predict")  # FeatureAgglomeration
    return bool(get_tags(estimator).estimator_type == "clusterer") and not clusters_columns


def can_be_evaluated(estimator: Any) -> bool:
    """Whether there is an evaluation for this kind of estimator."""
    return is_classifier(estimator) or is_regressor(estimator) or is_clusterer(estimator)


def can_be_asked(estimator: Any) -> bool:
    """Whether a fit has left something that predicts, or has predicted: a search with ``refit=False`` has not."""
    return hasattr(estimator, "predict") or hasattr(estimator, "labels_")


def own_score(estimator: Any, X: Any, y: Any, *, sample_weight: Any = None) -> float | None:
    """What the estimator's ``score`` returns, where no report has it: neither accuracy nor R²."""
    score, final = getattr(estimator, "score", None), final_estimator(estimator)
    is_mixed_in = getattr(type(final), "score", None) in (ClassifierMixin.score, RegressorMixin.score)
    # `scoring` is what a search scores by; elsewhere, as in HistGradientBoosting, it is for the fit alone
    if score is None or (is_mixed_in and (estimator is final or getattr(estimator, "scoring", None) is None)):
        return None
    is_weighted = sample_weight is not None and "sample_weight" in signature(score).parameters
    return float(score(X, y, **({"sample_weight": sample_weight} if is_weighted else {})))


def evaluate(
    estimator: Any,
    X: Any,
    y: Any,
    *,
    class_names: Sequence[str] | None = None,
    pos_label: Any = None,
    sample_weight: Any = None,
) -> Report:
    """Predict ``X`` and compare with ``y``; for a clusterer, look at the clusters themselves."""
    if is_classifier(estimator):
        scores, are_probabilities = scores_of(estimator, X)
        return classify_predictions(
            y,
            estimator.predict(X),
            classes=getattr(estimator, "classes_", None),
            scores=scores,
            are_probabilities=are_probabilities,
            class_names=class_names,
            pos_label=pos_label,
            sample_weight=sample_weight,
        )
    if is_regressor(estimator):
        return regress(y, estimator.predict(X), target_names=_column_names(y), sample_weight=sample_weight)
    return cluster(X, labels_of(estimator, X))


def classify_predictions(
    y: Any,
    predicted: Any,
    *,
    classes: Any,
    scores: Any,
    are_probabilities: bool,
    class_names: Sequence[str] | None,
    pos_label: Any,
    sample_weight: Any = None,
) -> Report:
    """Compare predictions of a classifier with ``y``, in the order of its ``classes``."""
    return classify(
        y,
        predicted,
        scores=scores,
        scores_are_probabilities=are_probabilities,
        classes=classes,
        class_names=class_names,
        pos_label=pos_label,
        sample_weight=sample_weight,
    )


def scores_of(estimator: Any, X: Any) -> tuple[Any, bool]:
    """Probabilities if the classifier gives them, else decision values, else None; and which of the two."""
    for method, are_probabilities in (("predict_proba", True), ("decision_function", False)):
        if hasattr(estimator, method):
            return getattr(estimator, method)(X), are_probabilities
    return None, False


def labels_of(estimator: Any, X: Any) -> Any:
    """Clusters of ``X``: predicted, or those of the fit where the clusterer cannot predict."""
    return estimator.predict(X) if hasattr(estimator, "predict") else estimator.labels_


def importances_of(estimator: Any) -> Any:
    """One number per feature: ``feature_importances_``, or the mean size of ``coef_`` over classes; None if neither."""
    importances = getattr(estimator, "feature_importances_", None)
    if importances is None:
        coefficients = getattr(estimator, "coef_", None)
        if coefficients is None:
            return None
        if hasattr(coefficients, "toarray"):
            coefficients = coefficients.toarray()
        importances = numpy.abs(numpy.atleast_2d(coefficients)).mean(axis=0)
    importances = numpy.asarray(importances, dtype=float)
    return importances if importances.ndim == 1 else None


def _column_names(y: Any) -> list[str] | None:
    columns = getattr(y, "columns", None)
    return None if columns is None else [str(column) for column in columns]
