"""The curves that a fitted estimator brings along, under the names that a loop of the user's own would give them.

Read from attributes alone, so no library is imported for it, and only where an attribute holds one value per iteration:
what cannot be told to be that is left out. Losses are positive numbers, however their library signs them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from numbers import Real
from typing import Any

import numpy
from sklearn.base import is_classifier, is_regressor
from sklearn.metrics import accuracy_score, log_loss, r2_score, root_mean_squared_error

from overt.capture.params import final_estimator
from overt.integrations.sklearn.crossval import name_of_scorer
from overt.integrations.sklearn.path import path_to_final, seen_by_final

# One value for each of the iterations that `n_iter_` counts, in some with the value at the start or at the end.
_BY_ITERATION = {
    "error_": "train_loss",  # DictionaryLearning, SparsePCA: the cost that they minimise
    "loglike_": "train_log_likelihood",  # FactorAnalysis
    "lower_bounds_": "train_lower_bound",  # GaussianMixture since 1.7
}
_TRAINING_SETS = {"training", "train", "learn"}  # as lightgbm and catboost call the data of the fit
_RATES = {"lr", "learning_rate"}


def training_history(estimator: Any, *, eval_sets: Sequence[bool] = ()) -> dict[str, list[float]]:
    """Return the series that the final estimator of a Pipeline or search kept of its fit; empty where it kept none.

    Parameters
    ----------
    estimator : fitted estimator
    eval_sets : sequence of bool, optional
        Of each evaluation set that the fit was given, in their order, whether it is the training data: xgboost does not
        tell. Without it none is, unless the estimator names one so.

    Returns
    -------
    dict of str to list of float
        Such as ``train_loss``, ``val_loss``, ``val_accuracy``. Of several evaluation sets the first is ``val_…``, the
        next ``val_2_…``. Some estimators keep the value before their first iteration as well, as the first of the list.
    """
    path = path_to_final(estimator)
    if not path:
        return {}
    final = path[-1]
    return {
        **_of_iterations(final),
        **_of_network(final),
        **_of_boosting(final),
        **_of_evaluations(final, eval_sets),
        **_of_epochs(final),
    }


def can_be_staged(estimator: Any) -> bool:
    """Whether the final estimator, once fitted, predicts as it would have after each of its iterations."""
    final = final_estimator(estimator)
    return hasattr(final, "staged_predict") and (is_classifier(final) or is_regressor(final))


def name_of_held_out(estimator: Any) -> str:
    """What an ``eval_set`` is called: ``val``, or ``val_2`` where the fit has split a validation set off by itself."""
    return "val_2" if any(name.startswith("val_") for name in training_history(estimator)) else "val"


def staged_scores(estimator: Any, X: Any, y: Any, *, name: str = "val") -> dict[str, list[float]]:
    """Score held-out data as the fitted estimator would have done after each of its iterations.

    Returns
    -------
    dict of str to list of float
        ``val_accuracy`` of classifiers, with ``val_log_loss`` where there are probabilities and no class of ``y`` is
        new to the estimator: it is called by its kind, for the ``train_loss`` that an estimator keeps may be another.
        ``val_rmse`` and ``val_r2`` of regressors. Empty for other estimators, and for a search that did not refit.
    """
    path = path_to_final(estimator)
    if not path or not can_be_staged(estimator):
        return {}
    X, final = seen_by_final(estimator, X), path[-1]
    scores = _staged_classification(final, X, y) if is_classifier(final) else _staged_regression(final, X, y)
    return {f"{name}_{score}": values for score, values in scores.items()}


def _staged_classification(final: Any, X: Any, y: Any) -> dict[str, list[float]]:
    scores = {"accuracy": [float(accuracy_score(y, predicted)) for predicted in final.staged_predict(X)]}
    classes = final.classes_
    if hasattr(final, "staged_predict_proba") and len(classes) > 1 and numpy.isin(numpy.unique(y), classes).all():
        scores["log_loss"] = [float(log_loss(y, proba, labels=classes)) for proba in final.staged_predict_proba(X)]
    return scores


def _staged_regression(final: Any, X: Any, y: Any) -> dict[str, list[float]]:
    predictions = [(root_mean_squared_error(y, p), r2_score(y, p)) for p in final.staged_predict(X)]
    return {"rmse": [float(rmse) for rmse, _ in predictions], "r2": [float(r2) for _, r2 in predictions]}


# --- what a fit leaves behind, by family ------------------------------------------------------------------------------


def _of_iterations(final: Any) -> dict[str, list[float]]:
    n_iter = _attribute(final, "n_iter_")
    if not isinstance(n_iter, (int, numpy.integer)):
        return {}
    candidates = {ours: _attribute(final, theirs) for theirs, ours in _BY_ITERATION.items()}
    if _attribute(final, "compute_score") is True:  # BayesianRidge, ARDRegression; elsewhere `scores_` are of features
        candidates["train_log_marginal_likelihood"] = _attribute(final, "scores_")
    return {name: values for name, values in _only_series(candidates).items() if abs(len(values) - n_iter) <= 1}


def _of_network(final: Any) -> dict[str, list[float]]:
    validation = "val_accuracy" if is_classifier(final) else "val_r2"
    return _only_series(
        {"train_loss": _attribute(final, "loss_curve_"), validation: _attribute(final, "validation_scores_")}
    )


def _of_boosting(final: Any) -> dict[str, list[float]]:
    train = _attribute(final, "train_score_")
    if not hasattr(final, "validation_score_"):  # GradientBoosting: its scores are losses
        return _only_series({"train_loss": train, "oob_loss": _attribute(final, "oob_scores_")})
    scoring = _attribute(final, "scoring")
    scorer = name_of_scorer(final, scoring)
    series = _only_series({f"train_{scorer}": train, f"val_{scorer}": _attribute(final, "validation_score_")})
    return {name: [-v for v in values] for name, values in series.items()} if scorer == "loss" else series


def _of_evaluations(final: Any, eval_sets: Sequence[bool]) -> dict[str, list[float]]:
    """What xgboost, lightgbm and catboost recorded of each evaluation set: ``{"valid_0": {"l2": […]}}``."""
    results = _attribute(final, "evals_result_") or _result_of(final, "evals_result")
    if not isinstance(results, Mapping):
        return {}
    is_training = [str(name) in _TRAINING_SETS for name in results]
    if not any(is_training) and len(eval_sets) == len(is_training):
        is_training = list(eval_sets)
    counts = {"train": 0, "val": 0}
    named: dict[str, Any] = {}
    for is_train, metrics in zip(is_training, results.values(), strict=True):
        side = "train" if is_train else "val"
        counts[side] += 1
        prefix = side if counts[side] == 1 else f"{side}_{counts[side]}"
        if isinstance(metrics, Mapping):
            named |= {f"{prefix}_{metric}": values for metric, values in metrics.items()}
    return _only_series(named)


def _of_epochs(final: Any) -> dict[str, list[float]]:
    """The history of skorch, a list of epochs, or that of scikeras, lists by name."""
    history = _attribute(final, "history_")
    if isinstance(history, Mapping):
        return _only_series({_keras_name(str(name)): values for name, values in history.items()})
    epochs = list(history) if isinstance(history, Iterable) else []
    if not all(isinstance(epoch, Mapping) for epoch in epochs):
        return {}
    names = dict.fromkeys(name for epoch in epochs for name, value in epoch.items() if _is_measured(name, value))
    return {
        _skorch_name(name): [float(v) if _is_measured(name, v := epoch.get(name)) else numpy.nan for epoch in epochs]
        for name in names
    }


def _is_measured(name: Any, value: Any) -> bool:
    is_counter = name == "epoch" or str(name).endswith("_batch_count")
    return isinstance(value, Real) and not isinstance(value, bool) and not is_counter


def _skorch_name(name: str) -> str:
    if name == "dur":
        return "epoch_seconds"
    name = "val_" + name.removeprefix("valid_") if name.startswith("valid_") else name
    return name.removesuffix("_acc") + "_accuracy" if name.endswith("_acc") else name


def _keras_name(name: str) -> str:
    if name in _RATES:
        return "learning_rate"
    name = name if name.startswith("val_") else f"train_{name}"
    return name.removesuffix("_acc") + "_accuracy" if name.endswith("_acc") else name


# --- reading ----------------------------------------------------------------------------------------------------------


def _attribute(estimator: Any, name: str) -> Any:
    try:
        return getattr(estimator, name, None)
    except Exception:  # noqa: BLE001 - a property may raise anything, such as lightgbm's own NotFittedError
        return None


def _result_of(estimator: Any, method: str) -> Any:
    try:
        return getattr(estimator, method)()
    except Exception:  # noqa: BLE001 - xgboost raises where it was given no evaluation set
        return None


def _only_series(candidates: Mapping[str, Any]) -> dict[str, list[float]]:
    """Those candidates that are lists of numbers, as lists of floats."""
    series = {name: _series(value) for name, value in candidates.items()}
    return {name: values for name, values in series.items() if values}


def _series(value: Any) -> list[float]:
    if not isinstance(value, (list, tuple, numpy.ndarray)):
        return []
    try:
        array = numpy.asarray(value, dtype=float)
    except (TypeError, ValueError):
        return []
    return array.tolist() if array.ndim == 1 else []
