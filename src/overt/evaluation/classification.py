"""What a classifier got right and wrong, with plain names for what scikit-learn computes.

Binary metrics are those of one class, ``pos_label``. With more classes, and for labels that may occur together,
they are averages weighted by support, as scikit-learn's ``average="weighted"`` takes them; ``f1_macro`` weighs all
classes alike. What a plain name leaves open stands beside it: the weighted averages of a binary problem, and the
one-vs-one area of several classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from scipy.sparse import issparse
from sklearn.metrics import accuracy_score, brier_score_loss, confusion_matrix, log_loss

from overt.evaluation.arrays import FloatArray, to_array, to_weight
from overt.evaluation.curves import Target, most_frequent, trace, weighted_area
from overt.evaluation.labels import CodedLabels, encode_labels
from overt.evaluation.multilabel import classify_multilabel
from overt.evaluation.multioutput import are_several_outputs, classify_outputs
from overt.evaluation.notes import Notes, gathered, named_where
from overt.evaluation.pairs import MAX_PAIRED_CLASSES, area_of_pairs
from overt.evaluation.perclass import PerClass
from overt.evaluation.report import MAX_MATRIX_CLASSES, Kind, Report
from overt.evaluation.scores import class_columns

_UNDEFINED = float("nan")


def classify(
    y_true: Any,
    y_pred: Any,
    *,
    scores: Any = None,
    scores_are_probabilities: bool = True,
    classes: Any = None,
    class_names: Sequence[str] | None = None,
    pos_label: Any = None,
    sample_weight: Any = None,
) -> Report:
    """Evaluate the predictions of a classifier.

    Parameters
    ----------
    y_true, y_pred : array-like of shape (n_samples,) or (n_samples, n_labels)
        Labels of any type, the 0/1 indicator matrix (dense or sparse) of a multilabel problem, or a column of labels
        for each of several outputs.
    scores : array-like, optional
        What ``predict_proba`` or ``decision_function`` returned: of shape (n_samples,), the score of the second
        class; (n_samples, n_classes); for multilabel (n_samples, n_labels) or a list of (n_samples, 2); for
        several outputs a list of (n_samples, n_classes).
    scores_are_probabilities : bool, default=True
        False for decision values. ``log_loss``, ``brier_score`` and calibration exist only for probabilities.
    classes : array-like, optional
        The estimator's ``classes_``, in the order of the columns of ``scores``, for several outputs a list of
        these; by default the labels found, sorted.
    class_names : sequence of str, optional
        What to call ``classes`` (or the labels of a multilabel problem), in their order.
    pos_label : label, optional
        The class that binary metrics speak of; by default the second.
    sample_weight : array-like of shape (n_samples,), optional
        Weighs everything, the confusion matrix included.

    Returns
    -------
    Report
        Metrics ``accuracy``, ``balanced_accuracy`` (not for multilabel), ``precision``, ``recall``, ``f1_score`` and,
        unless binary, ``f1_macro``; for binary ``precision_weighted``, ``recall_weighted`` and ``f1_weighted``. From
        scores ``roc_auc`` (weighted one-vs-rest unless binary) and for binary ``average_precision``; from
        probabilities ``log_loss`` (for multilabel the mean over labels), for binary ``brier_score``, and for 3 to 100
        classes without ``sample_weight`` ``roc_auc_ovo`` (weighted one-vs-one). Curves of at most the 20 most frequent
        classes. For several outputs all of these for each of them, as ``f1_score_<name>`` by the column of ``y_true``
        or its position, and ``accuracy``, the share of samples with every output right.

    Raises
    ------
    ConfigurationError
        When arrays are empty, do not fit together or are not labels, when ``pos_label`` or ``class_names`` do not fit
        them, and when probabilities lie outside 0 to 1. Data for which a metric is undefined never raises: the
        metric is NaN, with a note.

    Examples
    --------
    >>> from overt.evaluation.classification import classify
    >>> report = classify(["cat", "dog", "dog", "dog"], ["cat", "dog", "dog", "cat"], scores=[0.2, 0.9, 0.8, 0.4])
    >>> report["accuracy"], report["precision"], report["roc_auc"]
    (0.75, 1.0, 1.0)
    """
    if are_several_outputs(y_true, y_pred, classes=classes, scores=scores):
        return classify_outputs(
            y_true,
            y_pred,
            scores=scores,
            classes=classes,
            are_names_given=class_names is not None or pos_label is not None,
            sample_weight=sample_weight,
            classify_one=partial(classify, scores_are_probabilities=scores_are_probabilities),
        )
    if any(issparse(y) or to_array(y, name=name).ndim > 1 for name, y in (("y_true", y_true), ("y_pred", y_pred))):
        return classify_multilabel(
            y_true,
            y_pred,
            scores=scores,
            scores_are_probabilities=scores_are_probabilities,
            classes=classes,
            class_names=class_names,
            sample_weight=sample_weight,
        )
    with gathered() as notes:
        coded = encode_labels(y_true, y_pred, classes=classes, class_names=class_names, notes=notes)
        weight = to_weight(sample_weight, n_samples=len(coded.true))
        positive = _positive(coded, pos_label, notes)
        metrics, tables = _counted(coded, weight, positive, notes)
        curves: dict[str, Any] = {}
        if scores is None:
            notes.add("roc_auc, log_loss and the curves need scores, and there are none")
        else:
            columns = class_columns(
                scores,
                n_samples=len(coded.true),
                n_classes=coded.n_classes,
                are_probabilities=scores_are_probabilities,
                notes=notes,
            )
            scored, curves = _scored(coded, columns, weight, positive, scores_are_probabilities, notes)
            metrics |= scored
    kind: Kind = "multiclass" if positive is None else "binary"
    return Report(kind, len(coded.true), metrics, tables, curves, notes.sentences)


def _positive(coded: CodedLabels, pos_label: Any, notes: Notes) -> int | None:
    """Return the position of the positive class, or None where there are more than two."""
    position = len(coded.labels) - 1 if pos_label is None else coded.position(pos_label)
    if len(coded.labels) > 2:
        if pos_label is not None:
            notes.add(f"pos_label is not used: metrics are averages over all {len(coded.labels):,} classes")
        return None
    if len(coded.labels) == 1:
        notes.add(f"there is one class only, {coded.names[0]!r}: binary metrics take it as the positive one")
    return position


def _counted(
    coded: CodedLabels, weight: FloatArray | None, positive: int | None, notes: Notes
) -> tuple[dict[str, float], dict[str, Any]]:
    """Return what follows from labels alone: metrics and tables."""
    n_labels = len(coded.labels)
    per_class = PerClass.measure(coded.true, coded.predicted, labels=np.arange(n_labels), weight=weight)
    is_true = np.bincount(coded.true, minlength=n_labels) > 0
    is_predicted = np.bincount(coded.predicted, minlength=n_labels) > 0
    present = is_true | is_predicted
    _note_gaps(coded.names, is_true, is_predicted, notes)

    shown = per_class.only(present)
    macro, weighted = shown.macro(), shown.weighted()
    accuracy = float(accuracy_score(coded.true, coded.predicted, sample_weight=weight))
    metrics = {
        "accuracy": accuracy,
        "balanced_accuracy": float(np.mean(per_class.recall[per_class.support > 0])),
        **_averaged(per_class, macro, weighted, positive),
    }
    names = [name for name, is_present in zip(coded.names, present, strict=True) if is_present]
    report = {**shown.rows(names), "accuracy": accuracy, "macro avg": macro, "weighted avg": weighted}
    if n_labels > MAX_MATRIX_CLASSES:
        notes.add(f"the confusion matrix is left out: {n_labels:,} classes, and it is kept for {MAX_MATRIX_CLASSES:,}")
        return metrics, {"classification_report": report}
    matrix = confusion_matrix(coded.true, coded.predicted, labels=np.arange(n_labels), sample_weight=weight)
    table = {"labels": list(coded.names), "matrix": matrix.tolist()}
    return metrics, {"confusion_matrix": table, "classification_report": report}


def _averaged(
    per_class: PerClass, macro: dict[str, float], weighted: dict[str, float], positive: int | None
) -> dict[str, float]:
    if positive is None:
        return {
            "precision": weighted["precision"],
            "recall": weighted["recall"],
            "f1_score": weighted["f1-score"],
            "f1_macro": macro["f1-score"],
        }
    return {
        "precision": float(per_class.precision[positive]),
        "recall": float(per_class.recall[positive]),
        "f1_score": float(per_class.f1[positive]),
        "precision_weighted": weighted["precision"],
        "recall_weighted": weighted["recall"],
        "f1_weighted": weighted["f1-score"],
    }


def _note_gaps(names: Sequence[str], is_true: Any, is_predicted: Any, notes: Notes) -> None:
    for classes, sentence in (
        (~is_true & ~is_predicted, "classes that occur nowhere count as 0 and are left out of averages and report: {}"),
        (is_true & ~is_predicted, "precision counts as 0 for classes that were never predicted: {}"),
        (~is_true & is_predicted, "recall counts as 0 for classes without samples in y_true: {}"),
    ):
        if classes.any():
            notes.add(sentence.format(named_where(names, classes)))


def _scored(
    coded: CodedLabels,
    columns: FloatArray | None,
    weight: FloatArray | None,
    positive: int | None,
    are_probabilities: bool,
    notes: Notes,
) -> tuple[dict[str, float], dict[str, Any]]:
    """Return what follows from scores: metrics and curves."""
    expected = ["roc_auc", *(["average_precision"] if positive is not None else [])]
    if are_probabilities:
        expected += ["log_loss", *(["brier_score"] if positive is not None else [])]
    else:
        notes.add("log_loss and calibration need probabilities, and the scores are decision values")
    metrics = dict.fromkeys(expected, _UNDEFINED)
    if columns is None:
        return metrics, {}
    if coded.n_classes < len(coded.labels):
        notes.add("no metric or curve could be computed from scores: they have no column for labels outside `classes`")
        return metrics, {}
    if are_probabilities:
        metrics["log_loss"] = notes.attempt("log_loss", lambda: _log_loss(coded, columns, weight))
    if positive is None:
        scored, curves = _averaged_areas(coded, columns, weight, are_probabilities, notes)
    else:
        target = Target(coded.names[positive], coded.true == positive, columns[:, positive])
        scored, curves = _areas_of_one(target, weight, are_probabilities, notes)
    return metrics | scored, curves


def _averaged_areas(
    coded: CodedLabels,
    columns: FloatArray,
    weight: FloatArray | None,
    are_probabilities: bool,
    notes: Notes,
) -> tuple[dict[str, float], dict[str, Any]]:
    """Trace each class against all others."""
    support = np.bincount(coded.true, weights=weight, minlength=coded.n_classes)
    targets = (Target(coded.names[i], coded.true == i, columns[:, i]) for i in range(coded.n_classes))
    drawn = most_frequent(support, notes=notes)
    traced = trace(targets, weight=weight, drawn=drawn, are_probabilities=are_probabilities, notes=notes)
    metrics = {"roc_auc": weighted_area(traced.roc_areas, support, coded.names, notes)}
    if are_probabilities:
        metrics |= _one_vs_one(coded, columns, weight, notes)
    return metrics, traced.curves


def _one_vs_one(coded: CodedLabels, columns: FloatArray, weight: FloatArray | None, notes: Notes) -> dict[str, float]:
    """Return the area between pairs of classes, where it is defined and does not cost too much."""
    if weight is not None:
        notes.add("roc_auc_ovo is left out: it is not defined with sample weights")
        return {}
    if coded.n_classes > MAX_PAIRED_CLASSES:
        notes.add(f"roc_auc_ovo is left out: {coded.n_classes:,} classes, and it is for up to {MAX_PAIRED_CLASSES}")
        return {}
    if len(np.unique(coded.true)) < 2:
        notes.add("roc_auc_ovo is undefined: only one class in y_true")
        return {"roc_auc_ovo": _UNDEFINED}
    return {"roc_auc_ovo": area_of_pairs(coded.true, columns)}


def _areas_of_one(
    target: Target, weight: FloatArray | None, are_probabilities: bool, notes: Notes
) -> tuple[dict[str, float], dict[str, Any]]:
    """Trace the positive class of a binary problem."""
    traced = trace([target], weight=weight, drawn={0}, are_probabilities=are_probabilities, notes=notes)
    metrics = {"roc_auc": traced.roc_areas[0], "average_precision": traced.average_precisions[0]}
    if not target.has_both_sides():
        notes.add("roc_auc and average_precision are undefined: only one class in y_true")
    if are_probabilities:
        metrics["brier_score"] = notes.attempt(
            "brier_score",
            lambda: brier_score_loss(target.positive, target.score, sample_weight=weight, pos_label=True),
        )
    return metrics, traced.curves


def _log_loss(coded: CodedLabels, columns: FloatArray, weight: FloatArray | None) -> float:
    loss: float = log_loss(coded.true, columns, labels=np.arange(coded.n_classes), sample_weight=weight)
    return loss
