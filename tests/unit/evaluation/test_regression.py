"""regress(): every number is scikit-learn's, for one output and for several."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from sklearn import metrics
from sklearn.datasets import load_diabetes, load_linnerud
from sklearn.linear_model import LinearRegression

from overt.errors import ConfigurationError
from overt.evaluation.regression import regress


def expected_metrics(true: Any, predicted: Any, weight: Any) -> dict[str, float]:
    return {
        "rmse": metrics.root_mean_squared_error(true, predicted, sample_weight=weight),
        "mse": metrics.mean_squared_error(true, predicted, sample_weight=weight),
        "mae": metrics.mean_absolute_error(true, predicted, sample_weight=weight),
        "r2": metrics.r2_score(true, predicted, sample_weight=weight),
        "median_absolute_error": metrics.median_absolute_error(true, predicted, sample_weight=weight),
        "mape": metrics.mean_absolute_percentage_error(true, predicted, sample_weight=weight),
        "explained_variance": metrics.explained_variance_score(true, predicted, sample_weight=weight),
    }


@pytest.mark.parametrize("weighted", [False, True])
def test_metrics_equal_those_of_scikit_learn(weighted: bool) -> None:
    X, y = load_diabetes(return_X_y=True)
    predicted = LinearRegression().fit(X, y).predict(X)
    weight = np.random.default_rng(0).uniform(0.1, 3, len(y)) if weighted else None
    report = regress(y, predicted, sample_weight=weight)
    expected = expected_metrics(y, predicted, weight) | {"max_error": metrics.max_error(y, predicted)}
    assert report.metrics == pytest.approx(expected, rel=1e-12)
    assert report.kind == "regression"
    assert report.notes == ()
    assert list(report.iter_files()) == []


@pytest.mark.parametrize("weighted", [False, True])
def test_several_outputs_have_averages_and_metrics_of_their_own(weighted: bool) -> None:
    data = load_linnerud()
    predicted = LinearRegression().fit(data.data, data.target).predict(data.data)
    weight = np.random.default_rng(0).uniform(0.1, 3, len(predicted)) if weighted else None
    names = ["weight", "waist", "pulse"]
    report = regress(data.target, predicted, target_names=names, sample_weight=weight)
    assert report.kind == "multioutput"
    for name, value in expected_metrics(data.target, predicted, weight).items():
        assert report[name] == pytest.approx(value, rel=1e-12), name
    for i, name in enumerate(names):
        single = expected_metrics(data.target[:, i], predicted[:, i], weight)
        for metric in ("rmse", "mae", "r2"):
            assert report[f"{metric}_{name}"] == pytest.approx(single[metric], rel=1e-12)
        single["max_error"] = metrics.max_error(data.target[:, i], predicted[:, i])
        assert report.tables["regression_report"][name] == pytest.approx(single, rel=1e-12)
    assert report["max_error"] == np.abs(data.target - predicted).max()
    pooled = metrics.mean_squared_error(data.target, predicted, sample_weight=weight) ** 0.5
    assert report["rmse_pooled"] == pytest.approx(pooled, rel=1e-12)
    assert json.loads(dict(report.iter_files())["regression_report.json"]) == report.tables["regression_report"]


def test_one_sample_has_errors_but_no_r2() -> None:
    report = regress([1.0], [1.5])
    assert report["mae"] == 0.5
    assert math.isnan(report["r2"])
    assert any("R^2" in note for note in report.notes)


def test_several_outputs_of_one_sample_do_not_raise() -> None:
    report = regress([[1.0, 2.0]], [[1.5, 2.0]])
    assert report["mae_0"] == 0.5
    assert math.isnan(report["r2_0"])


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e200])
def test_values_that_no_metric_can_take_make_all_of_them_nan(bad: float) -> None:
    report = regress([1.0, 2.0], [1.0, bad])
    assert all(math.isnan(value) for value in report.metrics.values())
    assert "rmse" in report
    assert any("y_pred holds 1 values" in note for note in report.notes)
    assert list(report.iter_figures()) == []


def test_zeros_in_y_true_spoil_mape_and_are_said() -> None:
    assert any("mape" in note and "1 of its" in note for note in regress([0.0, 1.0], [1.0, 1.0]).notes)


@pytest.mark.parametrize("residual", [0.0, 0.1, 1e-12, 1e90])
def test_residuals_that_are_all_alike_still_have_a_histogram(residual: float) -> None:
    true = np.random.default_rng(0).normal(size=100)
    bars = regress(true, true - residual).curves["residuals"]["outputs"][0]["histogram"]
    assert sum(bars["counts"]) == 100


def test_points_are_thinned_alike_every_time_and_metrics_are_not() -> None:
    rng = np.random.default_rng(0)
    true, predicted = rng.normal(size=(2, 12_000))
    report = regress(true, predicted)
    (output,) = report.curves["predicted_vs_actual"]["outputs"]
    assert len(output["actual"]) == len(output["predicted"]) == 5_000
    assert set(zip(output["actual"], output["predicted"], strict=True)) <= set(zip(true, predicted, strict=True))
    assert report["rmse"] == pytest.approx(metrics.root_mean_squared_error(true, predicted), rel=1e-12)
    assert sum(report.curves["residuals"]["outputs"][0]["histogram"]["counts"]) == 12_000
    assert any("random 5,000 of 12,000" in note for note in report.notes)
    assert report == regress(true, predicted)


def test_only_the_first_outputs_are_drawn() -> None:
    true = np.random.default_rng(0).normal(size=(20, 9))
    report = regress(true, true + 1)
    assert len(report.curves["residuals"]["outputs"]) == 6
    assert "rmse_8" in report
    assert any("first 6 of 9" in note for note in report.notes)


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ({"y_true": [], "y_pred": []}, "empty"),
        ({"y_true": ["a"], "y_pred": ["b"]}, "numbers"),
        ({"y_true": [1.0, 2.0], "y_pred": [1.0]}, "same samples"),
        ({"y_true": [[1.0, 2.0]], "y_pred": [[1.0, 2.0, 3.0]]}, "2 outputs"),
        ({"y_true": [1.0], "y_pred": [1.0], "target_names": ["a", "b"]}, "target_names"),
        ({"y_true": [[[1.0]]], "y_pred": [[[1.0]]]}, "dimensions"),
    ],
)
def test_a_mistake_is_named(arguments: dict[str, Any], word: str) -> None:
    with pytest.raises(ConfigurationError, match=word):
        regress(**arguments)
