"""Labels that may occur together: an indicator matrix is kept sparse, and read one label at a time.

``accuracy`` is the share of samples with every label right, as ``accuracy_score`` defines it for such data.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from scipy.sparse import csc_matrix, csr_matrix, issparse
from sklearn.metrics import accuracy_score, log_loss, multilabel_confusion_matrix

from overt.errors import ConfigurationError
from overt.evaluation.arrays import FloatArray, check_names, check_same_length, to_numbers, to_weight
from overt.evaluation.curves import Target, most_frequent, trace, weighted_area
from overt.evaluation.notes import Notes, gathered, named, named_where
from overt.evaluation.perclass import PerClass, average_row
from overt.evaluation.report import MAX_MATRIX_CLASSES, Report
from overt.evaluation.scores import label_columns


def classify_multilabel(
    y_true: Any,
    y_pred: Any,
    *,
    scores: Any,
    scores_are_probabilities: bool,
    classes: Any,
    class_names: Sequence[str] | None,
    sample_weight: Any,
) -> Report:
    """Evaluate a multilabel classifier; :func:`overt.evaluation.classification.classify` tells the parameters."""
    true, predicted = to_indicator(y_true, name="y_true"), to_indicator(y_pred, name="y_pred")
    check_same_length(y_true=true, y_pred=predicted)
    n_samples, n_labels = true.shape
    if predicted.shape != true.shape:
        raise ConfigurationError(
            f"`y_pred` must have a column for each of {n_labels} labels (got {predicted.shape[1]})"
        )
    names = _names(class_names, classes, n_labels)
    weight = to_weight(sample_weight, n_samples=n_samples)
    with gathered() as notes:
        per_label = PerClass.measure(true, predicted, labels=None, weight=weight)
        metrics, tables = _counted(true, predicted, per_label, names, weight, notes)
        curves: dict[str, Any] = {}
        if scores is None:
            notes.add("roc_auc, log_loss and the curves need scores, and there are none")
        else:
            columns = label_columns(
                scores,
                n_samples=n_samples,
                n_labels=n_labels,
                classes=classes,
                are_probabilities=scores_are_probabilities,
                notes=notes,
            )
            scored, curves = _scored(true, columns, per_label.support, names, weight, scores_are_probabilities, notes)
            metrics |= scored
    return Report("multilabel", n_samples, metrics, tables, curves, notes.sentences)


def to_indicator(y: Any, *, name: str) -> Any:
    """Return a 0/1 indicator matrix in CSR form, without making a sparse one dense.

    Raises
    ------
    ConfigurationError
        When there are no samples, or other values than 0 and 1: scikit-learn has no metrics for several outputs of
        several classes each.
    """
    matrix = csr_matrix(y) if issparse(y) else csr_matrix(to_numbers(y, name=name).reshape(len(y), -1))
    if not matrix.shape[0]:
        raise ConfigurationError(f"`{name}` is empty: there is nothing to evaluate; pass at least one sample")
    if not np.isin(matrix.data, (0, 1)).all():
        raise ConfigurationError(
            f"`{name}` has {matrix.shape[1]} columns, so it must be an indicator matrix of 0 and 1 "
            f"(got {named([str(value) for value in np.unique(matrix.data)])}); evaluate one output of several classes "
            "at a time"
        )
    matrix = matrix.astype(np.int64)
    matrix.eliminate_zeros()
    return matrix


def _names(class_names: Sequence[str] | None, classes: Any, n_labels: int) -> tuple[str, ...]:
    if class_names is not None:
        return check_names(class_names, argument="class_names", expected=n_labels, of="labels")
    if classes is not None and np.ndim(classes[0]) == 0 and len(classes) == n_labels:
        return check_names(classes, argument="classes", expected=n_labels, of="labels")
    return tuple(str(position) for position in range(n_labels))


def _counted(
    true: Any, predicted: Any, per_label: PerClass, names: tuple[str, ...], weight: FloatArray | None, notes: Notes
) -> tuple[dict[str, float], dict[str, Any]]:
    macro, weighted = per_label.macro(), per_label.weighted()
    metrics = {
        "accuracy": float(accuracy_score(true, predicted, sample_weight=weight)),
        "precision": weighted["precision"],
        "recall": weighted["recall"],
        "f1_score": weighted["f1-score"],
        "f1_macro": macro["f1-score"],
    }
    averages = {
        f"{average} avg": average_row(true, predicted, average=average, per_class=per_label, weight=weight)
        for average in ("micro", "samples")
    }
    tables: dict[str, Any] = {}
    if len(names) > MAX_MATRIX_CLASSES:
        notes.add(f"the confusion matrix is left out: {len(names):,} labels, and it is kept for {MAX_MATRIX_CLASSES:,}")
    else:
        matrices = multilabel_confusion_matrix(true, predicted, sample_weight=weight)
        tables["confusion_matrix"] = {"labels": list(names), "matrices": matrices.tolist()}
    tables["classification_report"] = {
        **per_label.rows(names),
        "micro avg": averages["micro avg"],
        "macro avg": macro,
        "weighted avg": weighted,
        "samples avg": averages["samples avg"],
    }
    _note_gaps(true, predicted, names, notes)
    return metrics, tables


def _note_gaps(true: Any, predicted: Any, names: tuple[str, ...], notes: Notes) -> None:
    for matrix, sentence in (
        (predicted, "precision counts as 0 for labels that were never predicted: {}"),
        (true, "recall counts as 0 for labels without samples in y_true: {}"),
    ):
        absent = matrix.getnnz(axis=0) == 0
        if absent.any():
            notes.add(sentence.format(named_where(names, absent)))


def _scored(
    true: Any,
    columns: FloatArray | None,
    support: FloatArray,
    names: tuple[str, ...],
    weight: FloatArray | None,
    are_probabilities: bool,
    notes: Notes,
) -> tuple[dict[str, float], dict[str, Any]]:
    metrics = dict.fromkeys(["roc_auc", *(["log_loss"] if are_probabilities else [])], float("nan"))
    if not are_probabilities:
        notes.add("log_loss and calibration need probabilities, and the scores are decision values")
    if columns is None:
        return metrics, {}
    traced = trace(
        _targets(true, columns, names),
        weight=weight,
        drawn=most_frequent(support, notes=notes),
        are_probabilities=are_probabilities,
        notes=notes,
    )
    metrics["roc_auc"] = weighted_area(traced.roc_areas, support, names, notes)
    if are_probabilities:
        losses = (_log_loss(target, weight) for target in _targets(true, columns, names))
        metrics["log_loss"] = notes.attempt("log_loss", lambda: float(np.mean(list(losses))))
    return metrics, traced.curves


def _log_loss(target: Target, weight: FloatArray | None) -> float:
    loss: float = log_loss(target.positive, target.score, labels=(False, True), sample_weight=weight)
    return loss


def _targets(true: Any, columns: FloatArray, names: tuple[str, ...]) -> Iterator[Target]:
    by_column = csc_matrix(true)
    for position, name in enumerate(names):
        positive = by_column[:, [position]].toarray().ravel().astype(bool)
        yield Target(name, positive, columns[:, position])
