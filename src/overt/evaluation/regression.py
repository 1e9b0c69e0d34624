"""How far predictions lie from the truth, for one output or several.

With several outputs the plain names are averages in which outputs weigh alike, and ``max_error`` is the largest of all.
Outputs of different units make such averages meaningless, hence ``rmse_<name>`` and the table beside them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from sklearn.metrics import (
    explained_variance_score,
    mean_absolute_error,
    mean_absolute_percentage_error,
    mean_squared_error,
    median_absolute_error,
    r2_score,
)

from overt.errors import ConfigurationError
from overt.evaluation.arrays import FloatArray, check_names, check_same_length, to_numbers, to_weight
from overt.evaluation.notes import Notes, gathered
from overt.evaluation.report import Report

MAX_POINTS = 5_000
MAX_DRAWN_OUTPUTS = 6
HISTOGRAM_BINS = 30
MAX_VALUE = 1e100  # the square of anything much larger overflows

_MEANS: dict[str, Callable[..., Any]] = {
    "mae": mean_absolute_error,
    "r2": r2_score,
    "median_absolute_error": median_absolute_error,
    "mape": mean_absolute_percentage_error,
    "explained_variance": explained_variance_score,
}
_METRICS = ("rmse", "mse", *_MEANS, "max_error")
_PER_OUTPUT = ("rmse", "mae", "r2")


def regress(
    y_true: Any, y_pred: Any, *, target_names: Sequence[str] | None = None, sample_weight: Any = None
) -> Report:
    """Evaluate the predictions of a regressor.

    Parameters
    ----------
    y_true, y_pred : array-like of shape (n_samples,) or (n_samples, n_outputs)
        True and predicted values.
    target_names : sequence of str, optional
        What to call the outputs; by default their position.
    sample_weight : array-like of shape (n_samples,), optional
        Weighs every metric but ``max_error``, which knows no weights.

    Returns
    -------
    Report
        Metrics ``rmse``, ``mse``, ``mae``, ``r2``, ``median_absolute_error``, ``mape`` (a ratio, not a percentage),
        ``explained_variance`` and ``max_error``. With several outputs these are means over the outputs; besides there
        are ``rmse_pooled``, the root of the mean over all values, ``rmse_<name>``, ``mae_<name>`` and ``r2_<name>``,
        and every metric of each output in the table ``regression_report``. Values that are not finite
        make every metric NaN, with a note.

    Raises
    ------
    ConfigurationError
        When arrays are empty, do not hold numbers or do not fit together.

    Examples
    --------
    >>> from overt.evaluation.regression import regress
    >>> regress([1.0, 2.0, 3.0], [1.0, 2.0, 5.0])["max_error"]
    2.0
    """
    true, predicted = _outputs(y_true, name="y_true"), _outputs(y_pred, name="y_pred")
    check_same_length(y_true=true, y_pred=predicted)
    if true.shape != predicted.shape:
        raise ConfigurationError(
            f"`y_pred` must have a column for each of {true.shape[1]} outputs (got {predicted.shape[1]})"
        )
    n_samples, n_outputs = true.shape
    weight = to_weight(sample_weight, n_samples=n_samples)
    names = _names(target_names, n_outputs)
    with gathered() as notes:
        if not _is_finite(true, predicted, notes):
            metrics = dict.fromkeys(_METRICS, float("nan"))
            tables: dict[str, Any] = {}
            curves: dict[str, Any] = {}
        else:
            metrics, tables = _summed_up(_per_output(true, predicted, weight, notes), names)
            curves = _curves(true, predicted, names, notes)
    return Report("multioutput" if n_outputs > 1 else "regression", n_samples, metrics, tables, curves, notes.sentences)


def _outputs(values: Any, *, name: str) -> FloatArray:
    numbers = to_numbers(values, name=name)
    return numbers[:, np.newaxis] if numbers.ndim == 1 else numbers


def _names(target_names: Sequence[str] | None, n_outputs: int) -> tuple[str, ...]:
    if target_names is not None:
        return check_names(target_names, argument="target_names", expected=n_outputs, of="outputs")
    return ("target",) if n_outputs == 1 else tuple(str(position) for position in range(n_outputs))


def _is_finite(true: FloatArray, predicted: FloatArray, notes: Notes) -> bool:
    is_finite = True
    for name, values in (("y_true", true), ("y_pred", predicted)):
        if count := int(np.sum(~(np.abs(values) <= MAX_VALUE))):
            notes.add(
                f"every metric is undefined: {name} holds {count:,} values that are NaN, infinite or beyond 1e100"
            )
            is_finite = False
    return is_finite


def _per_output(
    true: FloatArray, predicted: FloatArray, weight: FloatArray | None, notes: Notes
) -> dict[str, FloatArray]:
    """Return each metric as an array with one entry for each output."""
    squared = mean_squared_error(true, predicted, sample_weight=weight, multioutput="raw_values")
    each = {"rmse": np.sqrt(squared), "mse": squared}
    for name, compute in _MEANS.items():
        raw = compute(true, predicted, sample_weight=weight, multioutput="raw_values")
        each[name] = np.broadcast_to(raw, squared.shape)  # r2_score of a single sample is a bare NaN
    each["max_error"] = np.max(np.abs(true - predicted), axis=0)  # sklearn.metrics.max_error takes one output only
    if zeros := int(np.sum(true == 0)):
        notes.add(f"mape divides by y_true, and {zeros:,} of its values are 0: it is huge and means little")
    return each


def _summed_up(each: dict[str, FloatArray], names: tuple[str, ...]) -> tuple[dict[str, float], dict[str, Any]]:
    metrics = {name: float(np.mean(each[name])) for name in _METRICS}
    metrics["max_error"] = float(np.max(each["max_error"]))
    if len(names) == 1:
        return metrics, {}
    metrics["rmse_pooled"] = float(np.sqrt(metrics["mse"]))
    for metric in _PER_OUTPUT:
        metrics |= {f"{metric}_{name}": float(value) for name, value in zip(names, each[metric], strict=True)}
    report = {name: {metric: float(each[metric][i]) for metric in _METRICS} for i, name in enumerate(names)}
    return metrics, {"regression_report": report}


def _curves(true: FloatArray, predicted: FloatArray, names: tuple[str, ...], notes: Notes) -> dict[str, Any]:
    n_samples, n_outputs = true.shape
    n_drawn = min(n_outputs, MAX_DRAWN_OUTPUTS)
    if n_drawn < n_outputs:
        notes.add(f"residuals are drawn for the first {n_drawn} of {n_outputs:,} outputs; metrics use all of them")
    rows = _sample(n_samples, MAX_POINTS // n_drawn, notes)
    points = [
        {"name": names[i], "actual": true[rows, i].tolist(), "predicted": predicted[rows, i].tolist()}
        for i in range(n_drawn)
    ]
    histograms = [_histogram(true[:, i] - predicted[:, i]) for i in range(n_drawn)]
    residuals = [{**point, "histogram": bars} for point, bars in zip(points, histograms, strict=True)]
    return {"residuals": {"outputs": residuals}, "predicted_vs_actual": {"outputs": points}}


def _sample(n_samples: int, limit: int, notes: Notes) -> Any:
    if n_samples <= limit:
        return slice(None)
    notes.add(f"residual points are a random {limit:,} of {n_samples:,} rows; metrics and histogram use every row")
    return np.sort(np.random.default_rng(0).choice(n_samples, size=limit, replace=False))


def _histogram(residuals: FloatArray) -> dict[str, list[float]]:
    low, high = float(residuals.min()), float(residuals.max())
    if high - low <= 1e-9 * max(abs(low), abs(high)):  # all alike: numpy finds no bins between two equal floats
        low, high = low - (abs(low) or 1.0) / 2, high + (abs(high) or 1.0) / 2
    counts, edges = np.histogram(residuals, bins=HISTOGRAM_BINS, range=(low, high))
    return {"edges": edges.tolist(), "counts": counts.tolist()}
