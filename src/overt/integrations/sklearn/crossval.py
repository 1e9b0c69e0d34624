"""Cross-validation of one estimator: scores with their folds, failed folds marked, predictions of rows never seen."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy
from sklearn.base import clone, is_classifier, is_regressor
from sklearn.metrics import check_scoring
from sklearn.model_selection import cross_validate
from sklearn.utils import _safe_indexing, indexable

from overt.evaluation.regression import regress
from overt.evaluation.report import Report
from overt.integrations.sklearn.evaluating import classify_predictions, scores_of
from overt.integrations.sklearn.routing import params_of_cross_validate


@dataclass(frozen=True, slots=True)
class CrossValidation:
    """Scores of one estimator on every fold.

    Attributes
    ----------
    scores : mapping
        Scorer's name to one score per fold; NaN where the fold failed.
    failed : tuple of int
        Folds whose fit or scoring raised.
    table : bytes
        One line per fold, as CSV.
    report : callable
        Computes the report of all out-of-fold predictions together: None where the estimator is neither classifier
        nor regressor. It may raise for what has scores and no report, such as several outputs of several classes.
    """

    scores: Mapping[str, Sequence[float]]
    failed: tuple[int, ...]
    table: bytes
    report: Callable[[], Report | None]

    def means(self) -> dict[str, tuple[float, float]]:
        """Mean and standard deviation (ddof 0) of each scorer over the folds that succeeded."""
        kept = {name: [v for v in values if not math.isnan(v)] for name, values in self.scores.items()}
        return {
            name: (float(numpy.mean(values)), float(numpy.std(values))) if values else (math.nan, math.nan)
            for name, values in kept.items()
        }


def cross_validate_estimator(
    estimator: Any,
    X: Any,
    y: Any,
    *,
    cv: Any,
    scoring: Any,
    n_jobs: int | None,
    fit_params: Mapping[str, Any],
    class_names: Sequence[str] | None,
    pos_label: Any,
) -> CrossValidation:
    """Fit a clone of ``estimator`` on each fold; a fold that fails is marked and the others count.

    scikit-learn's own ``FitFailedWarning`` tells the user what a failed fold died of; if all fail, it raises.
    """
    X, y = indexable(X, y)  # a coo matrix has no rows to take, and becomes csr
    result = cross_validate(
        clone(estimator),
        X,
        y,
        cv=cv,
        scoring=scoring if callable(scoring) else named_scorers(estimator, scoring),
        n_jobs=n_jobs,
        **params_of_cross_validate(estimator, cv, fit_params),
        return_estimator=True,
        return_indices=True,
        error_score=numpy.nan,
    )
    scores = {name.removeprefix("test_"): list(map(float, v)) for name, v in result.items() if name.startswith("test_")}
    if callable(scoring) and list(scores) == ["score"]:  # one that returns a dict has named its scores itself
        scores = {name_of_scorer(estimator, scoring): scores["score"]}
    n_folds = len(result["fit_time"])
    failed = tuple(fold for fold in range(n_folds) if any(math.isnan(values[fold]) for values in scores.values()))
    return CrossValidation(
        scores=scores,
        failed=failed,
        table=_table(result, scores, failed),
        report=lambda: _out_of_fold(estimator, X, y, result, failed, class_names, pos_label),
    )


def named_scorers(estimator: Any, scoring: Any) -> dict[str, Any]:
    """``scoring`` in any of scikit-learn's forms as scorers by name; the estimator's own score if None."""
    if scoring is None:
        return {name_of_scorer(estimator, None): check_scoring(estimator)}
    if isinstance(scoring, Mapping):
        return {str(name): check_scoring(estimator, scorer) for name, scorer in scoring.items()}
    if isinstance(scoring, str) or callable(scoring):
        scoring = [scoring]
    scorers: dict[str, Any] = {}
    for scorer in scoring:
        name = unique = name_of_scorer(estimator, scorer)
        count = 1
        while unique in scorers:  # two of make_scorer(f1_score, average=…)
            count += 1
            unique = f"{name}_{count}"
        scorers[unique] = check_scoring(estimator, scorer)
    if not scorers:
        raise ValueError("`scoring` names no scorer")
    return scorers


def name_of_scorer(estimator: Any, scorer: Any) -> str:
    """What the score of one scorer is called: its name or that of its function; None is the estimator's own score."""
    if scorer is None:
        return "accuracy" if is_classifier(estimator) else "r2" if is_regressor(estimator) else "score"
    if isinstance(scorer, str):
        return scorer
    function = getattr(scorer, "_score_func", scorer)
    sign = "neg_" if getattr(scorer, "_sign", 1) < 0 else ""  # as scikit-learn names its own that are negated
    return sign + str(getattr(function, "__name__", type(function).__name__))


def _table(result: Mapping[str, Any], scores: Mapping[str, Sequence[float]], failed: Sequence[int]) -> bytes:
    indices = result["indices"]
    head = ["fold", "n_train", "n_test", "fit_time", "score_time", *(f"test_{name}" for name in scores), "status"]
    rows = [
        [
            fold,
            len(indices["train"][fold]),
            len(indices["test"][fold]),
            f"{result['fit_time'][fold]:.6f}",
            f"{result['score_time'][fold]:.6f}",
            *(values[fold] for values in scores.values()),
            "failed" if fold in failed else "ok",
        ]
        for fold in range(len(result["fit_time"]))
    ]
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([head, *rows])
    return text.getvalue().encode()


def _out_of_fold(
    estimator: Any,
    X: Any,
    y: Any,
    result: Mapping[str, Any],
    failed: Sequence[int],
    class_names: Sequence[str] | None,
    pos_label: Any,
) -> Report | None:
    """A report on every test row's prediction by the model that had not seen it."""
    if y is None or not (is_classifier(estimator) or is_regressor(estimator)):
        return None
    folds = [
        (fitted, test)
        for fold, (fitted, test) in enumerate(zip(result["estimator"], result["indices"]["test"], strict=True))
        if fold not in failed and fitted is not None
    ]
    if not folds:
        return None
    rows = numpy.concatenate([test for _, test in folds])
    predicted = numpy.concatenate([fitted.predict(_safe_indexing(X, test)) for fitted, test in folds])
    true = _safe_indexing(y, rows)
    if is_regressor(estimator):
        return regress(true, predicted)
    scores, are_probabilities = _joined_scores(folds, X)
    return classify_predictions(
        true,
        predicted,
        classes=_joined_classes([fitted for fitted, _ in folds]),
        scores=scores,
        are_probabilities=are_probabilities,
        class_names=class_names,
        pos_label=pos_label,
    )


def _joined_classes(fitted: Sequence[Any]) -> Any:
    """The classes that any fold has seen: a rare one may be missing from the training rows of some."""
    classes: list[Any] = [getattr(estimator, "classes_", None) for estimator in fitted]
    if any(c is None or isinstance(c, list) for c in classes):
        return classes[0]
    return numpy.unique(numpy.concatenate(classes))


def _joined_scores(folds: Sequence[tuple[Any, Any]], X: Any) -> tuple[Any, bool]:
    """Scores of all folds, where every fold has seen the same classes, so that columns mean the same."""
    classes: list[Any] = [getattr(fitted, "classes_", None) for fitted, _ in folds]
    if any(isinstance(c, list) or c is None or not numpy.array_equal(c, classes[0]) for c in classes):
        return None, False
    found = [scores_of(fitted, _safe_indexing(X, test)) for fitted, test in folds]
    if any(scores is None or isinstance(scores, list) for scores, _ in found):
        return None, False
    return numpy.concatenate([scores for scores, _ in found]), found[0][1]
