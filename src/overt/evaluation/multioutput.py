"""A classifier of several outputs is as many classifiers: each output has the report that it would have by itself.

Metrics, tables and curves of output ``k`` bear its name at the end: ``f1_score_k``, ``confusion_matrix_k``. The plain
``accuracy`` is the share of samples with every output right, as scikit-learn's ``MultiOutputClassifier.score`` defines
it (``np.mean(np.all(y == y_pred, axis=1))``, sklearn/multioutput.py); ``sklearn.metrics`` has none for such data.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from scipy.sparse import issparse

from overt.errors import ConfigurationError
from overt.evaluation.arrays import to_array, to_weight
from overt.evaluation.notes import Notes
from overt.evaluation.report import Report

MAX_DETAILED_OUTPUTS = 20

_NAME = re.compile(r"\w[\w .-]*")  # part of a metric's and of a file's name


def are_several_outputs(y_true: Any, y_pred: Any, *, classes: Any, scores: Any) -> bool:
    """Whether the columns of ``y_true`` are outputs with classes of their own, and no indicator matrix of 0 and 1.

    The estimator's classes decide where it names them output by output, for a test set may happen to hold only 0 and 1.
    Scores as one array are those of labels: several outputs come as a list.
    """
    if issparse(y_true) or issparse(y_pred) or not (scores is None or isinstance(scores, list | tuple)):
        return False
    columns = [to_array(y_true, name="y_true"), to_array(y_pred, name="y_pred")]
    if any(column.ndim != 2 for column in columns):
        return False
    return not all(map(_is_indicator, (*columns, *(_by_output(classes) or ()))))


def classify_outputs(
    y_true: Any,
    y_pred: Any,
    *,
    scores: Any,
    classes: Any,
    are_names_given: bool,
    sample_weight: Any,
    classify_one: Callable[..., Report],
) -> Report:
    """Evaluate each output by itself, and all together; :func:`~overt.evaluation.classification.classify` explains.

    Parameters
    ----------
    y_true : array-like of shape (n_samples, n_outputs)
        The columns of a DataFrame name the outputs; else their position does.
    scores, classes : list, one entry for each output, or None
    are_names_given : bool
        Whether ``class_names`` or ``pos_label`` were: they speak of one set of classes, and are not used.
    classify_one : callable
        Evaluates one output from labels, ``scores``, ``classes`` and ``sample_weight``.
    """
    true, predicted = to_array(y_true, name="y_true"), to_array(y_pred, name="y_pred")
    if true.shape != predicted.shape:
        raise ConfigurationError(f"`y_pred` must have the shape of `y_true`, {true.shape} (got {predicted.shape})")
    n_samples, n_outputs = true.shape
    weight = to_weight(sample_weight, n_samples=n_samples)
    notes = Notes()
    names = _names(getattr(y_true, "columns", None), n_outputs, notes)
    if are_names_given:
        notes.add("class_names and pos_label are not used: each output has classes of its own")
    reports = [
        classify_one(true[:, k], predicted[:, k], scores=of_output, classes=known, sample_weight=weight)
        for k, (of_output, known) in enumerate(
            zip(_scores(scores, n_outputs, notes), _by_output(classes) or [None] * n_outputs, strict=True)
        )
    ]
    if n_outputs > MAX_DETAILED_OUTPUTS:
        notes.add(f"tables and curves are kept for the first {MAX_DETAILED_OUTPUTS} of {n_outputs:,} outputs")
    for name, report in zip(names, reports, strict=True):
        for note in report.notes:
            notes.add(f"{name}: {note}")
    metrics = {
        f"{metric}_{name}": report[metric] for name, report in zip(names, reports, strict=True) for metric in report
    }
    detailed = list(zip(names, reports, strict=True))[:MAX_DETAILED_OUTPUTS]
    return Report(
        "multiclass-multioutput",
        n_samples,
        {"accuracy": float(np.average(np.all(true == predicted, axis=1), weights=weight)), **metrics},
        {f"{table}_{name}": report.tables[table] for name, report in detailed for table in report.tables},
        {f"{curve}_{name}": report.curves[curve] for name, report in detailed for curve in report.curves},
        notes.sentences,
    )


def _is_indicator(values: Any) -> bool:
    try:  # as the multilabel metrics read them: booleans beside integers make an array of objects
        return bool(np.isin(np.asarray(values).astype(float), (0, 1)).all())
    except (TypeError, ValueError):
        return False


def _by_output(classes: Any) -> Sequence[Any] | None:
    """The classes of each output where that is what ``classes`` are, and not the labels of a single one."""
    is_nested = isinstance(classes, list | tuple) and len(classes) > 0 and all(np.ndim(known) == 1 for known in classes)
    return classes if is_nested else None


def _names(columns: Any, n_outputs: int, notes: Notes) -> list[str]:
    positions = [str(position) for position in range(n_outputs)]
    names = positions if columns is None else [str(column) for column in columns]
    if len(set(map(str.casefold, names))) < n_outputs or not all(map(_NAME.fullmatch, names)):
        notes.add(f"outputs go by their position: not all of {names} can be part of a metric's and of a file's name")
        return positions
    return names


def _scores(scores: Any, n_outputs: int, notes: Notes) -> Sequence[Any]:
    if scores is not None and len(scores) != n_outputs:
        notes.add(f"scores are not used: they speak of {len(scores)} outputs, and there are {n_outputs}")
        scores = None
    return [None] * n_outputs if scores is None else scores
