"""Several outputs of several classes each: every number is the one that scikit-learn has for that output alone."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn import metrics
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.multioutput import MultiOutputClassifier
from sklearn.neighbors import KNeighborsClassifier

from overt.errors import ConfigurationError
from overt.evaluation.classification import classify
from overt.evaluation.multioutput import MAX_DETAILED_OUTPUTS

rng = np.random.default_rng(0)
X = rng.normal(size=(150, 4))
KIND = np.digitize(X[:, 0] + rng.normal(size=150) / 2, [-0.5, 0.5])
SIDE = (X[:, 1] + rng.normal(size=150) / 2 > 0).astype(int)
NUMBERS = np.c_[KIND, SIDE]
TEXTS = np.c_[np.array(["ant", "bee", "cat"])[KIND], np.array(["l", "r"])[SIDE]]
FRAME = pd.DataFrame(TEXTS, columns=["kind", "side"])
TRAIN, TEST = slice(100), slice(100, None)
ESTIMATORS = {
    "forest": RandomForestClassifier(5, random_state=0),
    "neighbors": KNeighborsClassifier(),
    "one_for_each": MultiOutputClassifier(LogisticRegression()),
}


def rows(y: Any, part: slice) -> Any:
    return y.iloc[part] if hasattr(y, "iloc") else y[part]


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("name", ESTIMATORS)
@pytest.mark.parametrize(("y", "names"), [(NUMBERS, "01"), (TEXTS, "01"), (FRAME, ["kind", "side"])])
def test_each_output_has_the_numbers_of_scikit_learn(y: Any, names: Any, name: str, weighted: bool) -> None:
    w = np.linspace(0.1, 1, 50) if weighted else None
    estimator = ESTIMATORS[name].fit(X[TRAIN], rows(y, TRAIN))
    true, predicted, proba = rows(y, TEST), estimator.predict(X[TEST]), estimator.predict_proba(X[TEST])
    report = classify(true, predicted, scores=proba, classes=estimator.classes_, sample_weight=w)

    assert report.kind == "multiclass-multioutput"
    right = (np.asarray(true) == predicted).all(axis=1)
    assert report["accuracy"] == pytest.approx(np.average(right, weights=w), abs=1e-12)
    if isinstance(estimator, MultiOutputClassifier) and not weighted:
        assert report["accuracy"] == pytest.approx(estimator.score(X[TEST], np.asarray(true)), abs=1e-12)
    kind, side = names
    columns = [np.asarray(true)[:, k].tolist() for k in (0, 1)]
    guesses = [predicted[:, k].tolist() for k in (0, 1)]
    of_kind = {"average": "weighted", "sample_weight": w}
    assert report[f"accuracy_{kind}"] == pytest.approx(metrics.accuracy_score(columns[0], guesses[0], sample_weight=w))
    assert report[f"f1_score_{kind}"] == pytest.approx(metrics.f1_score(columns[0], guesses[0], **of_kind))
    assert report[f"roc_auc_{kind}"] == pytest.approx(
        metrics.roc_auc_score(columns[0], proba[0], multi_class="ovr", **of_kind)
    )
    positive = max(columns[1])
    assert report[f"recall_{side}"] == pytest.approx(
        metrics.recall_score(columns[1], guesses[1], pos_label=positive, sample_weight=w)
    )
    assert report[f"log_loss_{side}"] == pytest.approx(metrics.log_loss(columns[1], proba[1], sample_weight=w))
    assert report[f"average_precision_{side}"] == pytest.approx(
        metrics.average_precision_score(np.equal(columns[1], positive), proba[1][:, 1], sample_weight=w)
    )
    matrix = metrics.confusion_matrix(columns[0], guesses[0], sample_weight=w)
    files = dict(report.iter_files())
    assert np.allclose(json.loads(files[f"confusion_matrix_{kind}.json"])["matrix"], matrix)


def test_files_and_figures_bear_the_names_of_the_outputs() -> None:
    estimator = ESTIMATORS["forest"].fit(X[TRAIN], FRAME[TRAIN])
    report = classify(
        FRAME[TEST], estimator.predict(X[TEST]), scores=estimator.predict_proba(X[TEST]), classes=estimator.classes_
    )
    assert {path for path, _ in report.iter_files()} == {
        f"{table}_{name}.{ending}"
        for name in ("kind", "side")
        for table, ending in (
            ("confusion_matrix", "json"),
            ("classification_report", "json"),
            ("classification_report", "csv"),
        )
    }
    assert {figure.path for figure in report.iter_figures()} == {
        f"{figure}_{name}.png"
        for name in ("kind", "side")
        for figure in (
            "confusion_matrix",
            "confusion_matrix_normalized",
            "roc_curve",
            "precision_recall_curve",
            "calibration_curve",
        )
    }


def test_the_classes_of_the_fit_decide_and_not_what_a_test_set_happens_to_hold() -> None:
    few = np.array([[0, 1], [1, 0]])
    report = classify(few, few, classes=[np.arange(3), np.arange(2)])
    assert report.kind == "multiclass-multioutput"
    assert classify(few, few, classes=[np.arange(2), np.arange(2)]).kind == "multilabel"
    assert classify(few, few).kind == "multilabel"


def test_a_frame_of_booleans_beside_integers_is_still_multilabel() -> None:
    y = pd.DataFrame({"a": [True, False], "b": [0, 1]})
    assert classify(y, np.array([[1, 0], [0, 1]])).kind == "multilabel"


def test_without_scores_there_are_the_metrics_of_labels() -> None:
    report = classify([[1, "x"], [2, "y"]], [[1, "x"], [2, "x"]])
    assert report["accuracy"] == 0.5
    assert (report["accuracy_0"], report["accuracy_1"]) == (1.0, 0.5)
    assert "roc_auc_0" not in report
    assert report.notes[0].startswith("0: ")


@pytest.mark.parametrize("columns", [["a/b", "c"], ["..", "c"], ["a", "A"], ["", "c"]])
def test_names_that_no_file_could_bear_give_way_to_positions(columns: list[str]) -> None:
    report = classify(pd.DataFrame(NUMBERS, columns=columns), NUMBERS)
    assert report["accuracy_0"] == report["accuracy_1"] == 1.0
    assert any("position" in note for note in report.notes)


def test_what_is_not_used_is_said() -> None:
    report = classify(NUMBERS, NUMBERS, scores=[np.zeros((150, 3))], class_names=["a", "b", "c"])
    assert any("1 outputs, and there are 2" in note for note in report.notes)
    assert any("class_names and pos_label" in note for note in report.notes)
    assert math.isnan(report.metrics.get("roc_auc_0", math.nan))


def test_of_very_many_outputs_only_the_first_have_files() -> None:
    many = np.tile(KIND[:, None], (1, MAX_DETAILED_OUTPUTS + 2))
    report = classify(many, many)
    assert f"accuracy_{MAX_DETAILED_OUTPUTS + 1}" in report
    assert sum(name.startswith("confusion_matrix_") for name in report.tables) == MAX_DETAILED_OUTPUTS
    assert any(f"first {MAX_DETAILED_OUTPUTS} of" in note for note in report.notes)


def test_predictions_of_another_shape_are_a_mistake() -> None:
    with pytest.raises(ConfigurationError, match="shape of `y_true`"):
        classify(NUMBERS, np.c_[NUMBERS, KIND])
