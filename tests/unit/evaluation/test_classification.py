"""classify(): every number is scikit-learn's, every gap is a note, and no data makes it raise or warn."""

from __future__ import annotations

import json
import math
import warnings
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_matrix
from sklearn import metrics
from sklearn.calibration import calibration_curve
from sklearn.datasets import load_breast_cancer, load_digits, load_wine, make_multilabel_classification
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import RidgeClassifier
from sklearn.model_selection import train_test_split
from sklearn.multiclass import OneVsRestClassifier
from sklearn.svm import SVC

from overt.errors import ConfigurationError
from overt.evaluation.classification import classify
from overt.evaluation.report import Report


def held_out(load: Any, *, n_features: int | None = None) -> tuple[Any, Any, Any]:
    """A forest that makes mistakes, and the held-out half of its data."""
    X, y = load(return_X_y=True)
    X_train, X_test, y_train, y_test = train_test_split(X[:, :n_features], y, test_size=0.5, random_state=0)
    model = RandomForestClassifier(10, max_depth=3, random_state=0).fit(X_train, y_train)
    return model, X_test, y_test


def weights(n_samples: int) -> Any:
    return np.random.default_rng(1).uniform(0.1, 3.0, n_samples)


@pytest.mark.parametrize("weighted", [False, True])
def test_binary_metrics_equal_those_of_scikit_learn(weighted: bool) -> None:
    model, X, y = held_out(load_breast_cancer)
    predicted, proba = model.predict(X), model.predict_proba(X)
    w = weights(len(y)) if weighted else None
    report = classify(y, predicted, scores=proba, classes=model.classes_, sample_weight=w)
    assert report.metrics == pytest.approx(
        {
            "accuracy": metrics.accuracy_score(y, predicted, sample_weight=w),
            "balanced_accuracy": metrics.balanced_accuracy_score(y, predicted, sample_weight=w),
            "precision": metrics.precision_score(y, predicted, sample_weight=w),
            "recall": metrics.recall_score(y, predicted, sample_weight=w),
            "f1_score": metrics.f1_score(y, predicted, sample_weight=w),
            "precision_weighted": metrics.precision_score(y, predicted, average="weighted", sample_weight=w),
            "recall_weighted": metrics.recall_score(y, predicted, average="weighted", sample_weight=w),
            "f1_weighted": metrics.f1_score(y, predicted, average="weighted", sample_weight=w),
            "roc_auc": metrics.roc_auc_score(y, proba[:, 1], sample_weight=w),
            "average_precision": metrics.average_precision_score(y, proba[:, 1], sample_weight=w),
            "log_loss": metrics.log_loss(y, proba, sample_weight=w),
            "brier_score": metrics.brier_score_loss(y, proba[:, 1], sample_weight=w),
        },
        rel=1e-12,
    )
    matrix = metrics.confusion_matrix(y, predicted, sample_weight=w)
    assert report.tables["confusion_matrix"] == {"labels": ["0", "1"], "matrix": matrix.tolist()}
    assert_equal_reports(report, metrics.classification_report(y, predicted, sample_weight=w, output_dict=True))
    assert report.kind == "binary"
    assert report.n_samples == len(y)
    assert report.notes == ()
    assert 0.5 < report["accuracy"] < 1  # a perfect model would hide a mix-up


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(("load", "n_features"), [(load_wine, 2), (load_digits, None)])
def test_multiclass_metrics_are_weighted_averages(load: Any, n_features: int | None, weighted: bool) -> None:
    model, X, y = held_out(load, n_features=n_features)
    predicted, proba = model.predict(X), model.predict_proba(X)
    w = weights(len(y)) if weighted else None
    report = classify(y, predicted, scores=proba, classes=model.classes_, sample_weight=w)
    average: dict[str, Any] = {"average": "weighted", "sample_weight": w}
    pairs = {} if weighted else {"roc_auc_ovo": metrics.roc_auc_score(y, proba, multi_class="ovo", average="weighted")}
    assert any("roc_auc_ovo is left out" in note for note in report.notes) == weighted
    assert report.metrics == pytest.approx(
        {
            **pairs,
            "accuracy": metrics.accuracy_score(y, predicted, sample_weight=w),
            "balanced_accuracy": metrics.balanced_accuracy_score(y, predicted, sample_weight=w),
            "precision": metrics.precision_score(y, predicted, **average),
            "recall": metrics.recall_score(y, predicted, **average),
            "f1_score": metrics.f1_score(y, predicted, **average),
            "f1_macro": metrics.f1_score(y, predicted, average="macro", sample_weight=w),
            "roc_auc": metrics.roc_auc_score(y, proba, multi_class="ovr", **average),
            "log_loss": metrics.log_loss(y, proba, sample_weight=w),
        },
        rel=1e-12,
    )
    assert_equal_reports(report, metrics.classification_report(y, predicted, sample_weight=w, output_dict=True))
    assert [curve["name"] for curve in report.curves["roc"]["curves"]] == [str(label) for label in model.classes_]


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("sparse", [False, True])
def test_multilabel_metrics_equal_those_of_scikit_learn(sparse: bool, weighted: bool) -> None:
    X, Y = make_multilabel_classification(300, n_classes=4, random_state=0)
    model = RandomForestClassifier(10, max_depth=4, random_state=0).fit(X[:150], Y[:150])
    true, predicted, scores = Y[150:], model.predict(X[150:]), model.predict_proba(X[150:])
    proba = np.column_stack([columns[:, 1] for columns in scores])
    w = weights(len(true)) if weighted else None
    wrap = csr_matrix if sparse else np.asarray
    report = classify(wrap(true), wrap(predicted), scores=scores, classes=model.classes_, sample_weight=w)
    average: dict[str, Any] = {"average": "weighted", "sample_weight": w, "zero_division": 0}
    losses = [metrics.log_loss(true[:, i], proba[:, i], sample_weight=w) for i in range(4)]
    assert report.metrics == pytest.approx(
        {
            "accuracy": metrics.accuracy_score(true, predicted, sample_weight=w),
            "precision": metrics.precision_score(true, predicted, **average),
            "recall": metrics.recall_score(true, predicted, **average),
            "f1_score": metrics.f1_score(true, predicted, **average),
            "f1_macro": metrics.f1_score(true, predicted, average="macro", sample_weight=w, zero_division=0),
            "roc_auc": metrics.roc_auc_score(true, proba, average="weighted", sample_weight=w),
            "log_loss": np.mean(losses),
        },
        rel=1e-12,
    )
    matrices = metrics.multilabel_confusion_matrix(true, predicted, sample_weight=w)
    assert report.tables["confusion_matrix"]["matrices"] == matrices.tolist()
    assert_equal_reports(
        report, metrics.classification_report(true, predicted, sample_weight=w, output_dict=True, zero_division=0)
    )
    assert report.kind == "multilabel"


def test_multilabel_scores_come_as_a_list_or_as_columns() -> None:
    X, Y = make_multilabel_classification(200, n_classes=3, random_state=1)
    forest = RandomForestClassifier(5, max_depth=3, random_state=0).fit(X, Y)
    listed = forest.predict_proba(X)
    columns = np.column_stack([pair[:, 1] for pair in listed])
    assert classify(Y, forest.predict(X), scores=listed) == classify(Y, forest.predict(X), scores=columns)
    linear = OneVsRestClassifier(RidgeClassifier()).fit(X, Y)
    report = classify(Y, linear.predict(X), scores=linear.decision_function(X), scores_are_probabilities=False)
    assert report["roc_auc"] == pytest.approx(
        metrics.roc_auc_score(Y, linear.decision_function(X), average="weighted"), rel=1e-12
    )
    assert "log_loss" not in report


@pytest.mark.parametrize(("state", "expected"), [(0, 0.0), (1, 1.0)])
def test_a_label_that_a_forest_saw_in_one_state_keeps_its_meaning(state: int, expected: float) -> None:
    X, Y = make_multilabel_classification(60, n_classes=2, random_state=0)
    Y[:, 1] = state
    model = RandomForestClassifier(3, random_state=0).fit(X, Y)
    scores = model.predict_proba(X)
    assert scores[1].shape[1] == 1  # else this test would test nothing
    curves = classify(Y, model.predict(X), scores=scores, classes=model.classes_).curves["calibration"]["curves"]
    assert curves[1]["mean_predicted"] == [expected]


def test_decision_values_give_areas_but_no_losses() -> None:
    X, y = load_breast_cancer(return_X_y=True)
    model = SVC().fit(X, y)
    values = model.decision_function(X)
    report = classify(y, model.predict(X), scores=values, scores_are_probabilities=False, classes=model.classes_)
    assert report["roc_auc"] == pytest.approx(metrics.roc_auc_score(y, values), rel=1e-12)
    assert set(report.curves) == {"roc", "precision_recall"}
    assert "log_loss" not in report
    assert "brier_score" not in report
    assert report.notes == ("log_loss and calibration need probabilities, and the scores are decision values",)


def test_pos_label_turns_every_binary_metric_round() -> None:
    model, X, y = held_out(load_breast_cancer)
    predicted, proba = model.predict(X), model.predict_proba(X)
    for scores in (proba, proba[:, 1]):
        report = classify(y, predicted, scores=scores, classes=model.classes_, pos_label=0)
        assert report["recall"] == metrics.recall_score(y, predicted, pos_label=0)
        assert report["roc_auc"] == pytest.approx(metrics.roc_auc_score(y == 0, proba[:, 0]), rel=1e-12)
        assert report["brier_score"] == pytest.approx(metrics.brier_score_loss(y == 0, proba[:, 0]), rel=1e-12)
        assert report["log_loss"] == pytest.approx(metrics.log_loss(y, proba), rel=1e-12)
        assert report.curves["roc"]["curves"][0]["name"] == "0"


@pytest.mark.parametrize("dtype", ["str", "object", "bool", "float", "category", "Int64"])
def test_labels_of_any_type_give_the_same_numbers(dtype: str) -> None:
    model, X, y = held_out(load_breast_cancer)
    predicted, proba = model.predict(X), model.predict_proba(X)

    def typed(codes: Any) -> Any:
        if dtype in ("category", "Int64"):
            return pytest.importorskip("pandas").Series(codes, dtype=dtype)
        return codes.astype(dtype)

    plain = classify(y, predicted, scores=proba)
    report = classify(typed(y), typed(predicted), scores=proba)
    assert report.metrics == plain.metrics
    assert report.tables["confusion_matrix"]["matrix"] == plain.tables["confusion_matrix"]["matrix"]


def test_class_names_follow_the_order_of_classes() -> None:
    report = classify(["b", "a", "b"], ["b", "a", "a"], classes=["b", "a"], class_names=["Bee", "Ay"])
    assert report.tables["confusion_matrix"] == {"labels": ["Bee", "Ay"], "matrix": [[1, 1], [0, 1]]}
    assert report.tables["classification_report"]["Bee"]["support"] == 2
    assert report["recall"] == 1.0  # of "a", the second of classes


@pytest.mark.parametrize("names", [["one"], ["one", "two", "three"], ["same", "same"]])
def test_class_names_that_do_not_fit_are_refused(names: list[str]) -> None:
    with pytest.raises(ConfigurationError, match="class_names"):
        classify([0, 1], [0, 1], classes=[0, 1], class_names=names)


def test_a_class_named_like_an_average_replaces_no_average() -> None:
    report = classify(["accuracy", "b"], ["accuracy", "accuracy"])
    assert report.tables["classification_report"]["accuracy"] == 0.5
    assert report.tables["classification_report"]["'accuracy'"]["recall"] == 1.0


def test_a_class_missing_from_the_data_is_left_out_of_averages_and_said() -> None:
    y, predicted = np.array([0, 1, 1, 0]), np.array([0, 1, 0, 0])
    report = classify(y, predicted, classes=[0, 1, 2], scores=np.full((4, 3), 1 / 3))
    assert report.kind == "multiclass"
    assert report["f1_macro"] == metrics.f1_score(y, predicted, average="macro")
    assert np.shape(report.tables["confusion_matrix"]["matrix"]) == (3, 3)
    assert list(report.tables["classification_report"]) == ["0", "1", "accuracy", "macro avg", "weighted avg"]
    assert report["roc_auc"] == 0.5
    assert any("occur nowhere" in note and "'2'" in note for note in report.notes)
    assert any("roc_auc" in note and "'2'" in note for note in report.notes)


def test_a_label_unseen_in_training_counts_as_a_mistake_and_is_said() -> None:
    report = classify([0, 1, 7], [0, 1, 1], classes=[0, 1], class_names=["no", "yes"], scores=np.eye(2)[[0, 1, 1]])
    assert report["accuracy"] == pytest.approx(2 / 3)
    assert report.tables["confusion_matrix"]["labels"] == ["no", "yes", "7"]
    assert math.isnan(report["roc_auc"])
    assert math.isnan(report["log_loss"])
    assert any("unknown to the estimator: '7'" in note for note in report.notes)


@pytest.mark.parametrize("label", [0, 1])
def test_one_class_in_y_true_makes_the_area_nan_with_a_note(label: int) -> None:
    report = classify([label] * 3, [0, 1, 1], scores=[0.1, 0.8, 0.9], classes=[0, 1])
    assert math.isnan(report["roc_auc"])
    assert math.isnan(report["average_precision"])
    assert math.isfinite(report["log_loss"])
    assert "roc_auc and average_precision are undefined: only one class in y_true" in report.notes
    assert "roc" not in report.curves


def test_all_negative_data_without_classes_has_no_true_positive() -> None:
    report = classify([0, 0, 0], [0, 0, 0])
    assert report["recall"] == 0.0
    assert report["accuracy"] == 1.0
    assert report.tables["confusion_matrix"]["labels"] == ["0", "1"]


def test_a_class_that_is_never_predicted_is_said() -> None:
    report = classify([0, 1, 2], [0, 1, 1])
    assert report["precision"] == metrics.precision_score([0, 1, 2], [0, 1, 1], average="weighted", zero_division=0)
    assert "precision counts as 0 for classes that were never predicted: '2'" in report.notes


@pytest.mark.parametrize(
    ("scores", "word"),
    [
        (np.zeros((4, 6)), "columns were expected"),
        (np.array([0.1, np.nan, 0.3, 0.4]), "NaN or infinity"),
    ],
)
def test_scores_that_cannot_be_used_become_a_note(scores: Any, word: str) -> None:
    report = classify([0, 1, 0, 1], [0, 1, 1, 1], scores=scores)
    assert math.isnan(report["roc_auc"])
    assert report["accuracy"] == 0.75
    assert any(word in note for note in report.notes)


def test_what_scikit_learn_warns_of_becomes_a_note() -> None:
    report = classify([0, 1, 2], [0, 1, 2], scores=np.full((3, 3), 0.5))  # rows that do not sum to 1
    assert any("sum to one" in note for note in report.notes)


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ({"y_true": [], "y_pred": []}, "empty"),
        ({"y_true": [0, 1], "y_pred": [0]}, "y_pred. has 1"),
        ({"y_true": [0, None], "y_pred": [0, 1]}, "missing"),
        ({"y_true": [0.0, float("nan")], "y_pred": [0, 1]}, "missing"),
        ({"y_true": [0.5, 1.5], "y_pred": [0, 1]}, "regress"),
        ({"y_true": [["a"], ["a", "b"]], "y_pred": [["a"], ["b"]]}, "y_true"),
        ({"y_true": [[1, 2], [2, 0]], "y_pred": [[1, 2], [2, 0]], "scores": np.eye(2)}, "indicator"),
        ({"y_true": [[1, 0], [1, 0]], "y_pred": [1, 0]}, "2 labels"),
        ({"y_true": [0, 1], "y_pred": [0, 1], "pos_label": 2}, "pos_label"),
        ({"y_true": [0, 1], "y_pred": [0, 1], "sample_weight": [1.0]}, "sample_weight"),
        ({"y_true": [0, 1], "y_pred": [0, 1], "sample_weight": [0.0, 0.0]}, "sample_weight"),
        ({"y_true": [0, 1], "y_pred": [0, 1], "scores": [0.5, 0.5, 0.5]}, "scores"),
        ({"y_true": [0, 1], "y_pred": [0, 1], "scores": [-3.0, 4.0]}, "scores_are_probabilities=False"),
        ({"y_true": 1, "y_pred": 1}, "y_true"),
    ],
)
def test_a_mistake_is_named(arguments: dict[str, Any], word: str) -> None:
    with pytest.raises(ConfigurationError, match=word):
        classify(**arguments)


def test_calibration_equals_scikit_learn_and_weights_repeat_rows() -> None:
    model, X, y = held_out(load_breast_cancer)
    proba = model.predict_proba(X)[:, 1]
    observed, predicted = calibration_curve(y, proba, n_bins=10)
    (curve,) = classify(y, model.predict(X), scores=proba).curves["calibration"]["curves"]
    assert curve["fraction_positive"] == pytest.approx(observed, abs=1e-6)
    assert curve["mean_predicted"] == pytest.approx(predicted, abs=1e-6)
    assert sum(curve["weight"]) == len(y)

    twice = np.random.default_rng(0).integers(1, 3, len(y))
    rows = np.repeat(np.arange(len(y)), twice)
    weighted = classify(y, model.predict(X), scores=proba, sample_weight=twice).curves["calibration"]["curves"][0]
    repeated = classify(y[rows], model.predict(X)[rows], scores=proba[rows]).curves["calibration"]["curves"][0]
    for key in ("fraction_positive", "mean_predicted", "weight"):
        assert weighted[key] == pytest.approx(repeated[key], abs=2e-6)


def test_only_the_twenty_most_frequent_classes_are_drawn_and_all_are_measured() -> None:
    rng = np.random.default_rng(0)
    y = np.concatenate([np.repeat(np.arange(25), 4), np.arange(5, 25)])
    proba = rng.dirichlet(np.ones(25), len(y))
    report = classify(y, proba.argmax(axis=1), scores=proba)
    assert [curve["name"] for curve in report.curves["roc"]["curves"]] == [str(label) for label in range(5, 25)]
    assert report["roc_auc"] == pytest.approx(
        metrics.roc_auc_score(y, proba, multi_class="ovr", average="weighted"), rel=1e-12
    )
    assert any("20 most frequent of 25" in note for note in report.notes)


def test_a_huge_number_of_classes_gets_no_confusion_matrix() -> None:
    labels = np.arange(1_001)
    report = classify(labels, labels)
    assert "confusion_matrix" not in report.tables
    assert any("confusion matrix is left out" in note for note in report.notes)
    assert [figure.kind for figure in report.iter_figures()] == []


def test_everything_in_a_report_is_plain_and_fit_for_json() -> None:
    model, X, y = held_out(load_wine)
    report = classify(y, model.predict(X), scores=model.predict_proba(X), sample_weight=weights(len(y)))
    assert json.loads(json.dumps([report.tables, report.curves], allow_nan=False)) == [report.tables, report.curves]
    assert {type(value) for value in report.metrics.values()} == {float}


LABELS = st.sampled_from(["ant", "bee", "cat", "dog"])
PAIRS = st.lists(st.tuples(LABELS, LABELS), min_size=1, max_size=40)


@settings(max_examples=60, deadline=None)
@given(PAIRS)
def test_any_labels_give_what_scikit_learn_gives(pairs: list[tuple[str, str]]) -> None:
    y, predicted = (list(column) for column in zip(*pairs, strict=True))
    labels = ["ant", "bee", "cat", "dog"]
    report = classify(y, predicted, classes=labels)
    expected = metrics.classification_report(y, predicted, output_dict=True, zero_division=0)
    assert_equal_reports(report, expected)
    for name, entry in (("precision", "precision"), ("recall", "recall"), ("f1_score", "f1-score")):
        assert report[name] == pytest.approx(expected["weighted avg"][entry], rel=1e-12)
    assert report["f1_macro"] == pytest.approx(expected["macro avg"]["f1-score"], rel=1e-12)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        balanced = metrics.balanced_accuracy_score(y, predicted)
    assert report["balanced_accuracy"] == pytest.approx(balanced, rel=1e-12)
    matrix = metrics.confusion_matrix(y, predicted, labels=labels)
    assert report.tables["confusion_matrix"]["matrix"] == matrix.tolist()


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 30), st.integers(2, 5), st.booleans())
def test_any_scores_end_in_numbers_or_notes(seed: int, n_samples: int, n_classes: int, decision: bool) -> None:
    rng = np.random.default_rng(seed)
    y, predicted = rng.integers(0, n_classes, (2, n_samples))
    scores = rng.dirichlet(np.ones(n_classes), n_samples)
    scores = np.log(scores + 1e-9) if decision else scores
    report = classify(y, predicted, scores=scores, scores_are_probabilities=not decision, classes=range(n_classes))
    assert not math.isnan(report["roc_auc"]) or any("roc_auc" in note for note in report.notes)
    assert decision or report["log_loss"] == pytest.approx(
        metrics.log_loss(y, scores, labels=range(n_classes)), rel=1e-9
    )


def assert_equal_reports(report: Report, expected: dict[str, Any]) -> None:
    found = report.tables["classification_report"]
    assert list(found) == list(expected)
    for label, row in expected.items():
        assert found[label] == pytest.approx(row, rel=1e-12), label
