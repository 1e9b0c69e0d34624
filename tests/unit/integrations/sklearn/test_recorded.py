"""What a fit and an evaluation leave in their run: scikit-learn's own numbers, under names that are true."""

from __future__ import annotations

import csv
import json
import re
import threading
from typing import Any

import cloudpickle
import numpy as np
import pandas as pd
import pytest
from scipy.sparse import coo_matrix, csr_array, csr_matrix
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.cluster import DBSCAN, KMeans
from sklearn.compose import ColumnTransformer
from sklearn.datasets import make_classification
from sklearn.decomposition import PCA
from sklearn.ensemble import HistGradientBoostingRegressor, IsolationForest, RandomForestClassifier
from sklearn.exceptions import FitFailedWarning
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.feature_selection import SelectKBest, f_regression
from sklearn.linear_model import LogisticRegression, Ridge, SGDClassifier
from sklearn.metrics import (
    accuracy_score,
    balanced_accuracy_score,
    confusion_matrix,
    f1_score,
    log_loss,
    make_scorer,
    mean_absolute_error,
    mean_squared_error,
    precision_score,
    r2_score,
    recall_score,
    roc_auc_score,
    silhouette_score,
)
from sklearn.model_selection import GridSearchCV, KFold, RepeatedStratifiedKFold, cross_val_predict, cross_val_score
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.tree import DecisionTreeClassifier

from overt import OvertWarning, TrackedEstimator
from overt.errors import ConfigurationError
from overt.stores.memory import MemoryRun

Runs = list[MemoryRun]

X, y = make_classification(120, 6, n_informative=4, n_classes=3, random_state=0)
X_train, X_test, y_train, y_test = X[:80], X[80:], y[:80], y[80:]
BINARY, BINARY_TEST = y_train > 0, y_test > 0
NAMES = np.array(["ant", "bee", "cat"])


def points(run: MemoryRun, name: str) -> list[tuple[int, float]]:
    return [(point.step, point.value) for point in run.history if point.name == name]


def columns(content: bytes) -> dict[str, list[str]]:
    head, *rows = csv.reader(content.decode().splitlines())
    return {name: [row[i] for row in rows] for i, name in enumerate(head)}


def not_recorded(run: MemoryRun) -> set[str]:
    return {name.removeprefix("overt.not_recorded.") for name in run.tags if name.startswith("overt.not_recorded.")}


# -- params ------------------------------------------------------------------------------------------------------------


def test_all_params_are_recorded_deep(runs: Runs) -> None:
    TrackedEstimator(RandomForestClassifier(3, max_depth=2, random_state=0), params={"test_size": 0.2}).fit(X, y)
    params = runs[0].params
    assert params["n_estimators"] == "3"
    assert params["max_depth"] == "2"
    assert params["criterion"] == "gini"
    assert params["test_size"] == "0.2"
    assert params["model_type"] == params["model_name"] == "RandomForestClassifier"


def test_a_pipelines_final_step_has_its_params_under_their_bare_names_too(runs: Runs) -> None:
    TrackedEstimator(make_pipeline(StandardScaler(), RandomForestClassifier(3, max_depth=2))).fit(X, y)
    params = runs[0].params
    assert params["max_depth"] == params["randomforestclassifier__max_depth"] == "2"
    assert params["standardscaler__with_mean"] == "True"
    assert (params["model_type"], params["model_name"]) == ("RandomForestClassifier", "Pipeline")


@pytest.mark.parametrize(
    "nest",
    [
        TrackedEstimator(DecisionTreeClassifier(max_depth=2), cv=2),
        GridSearchCV(TrackedEstimator(DecisionTreeClassifier(max_depth=2), cv=2, log_model=False), {}, cv=2),
        make_pipeline(StandardScaler(), TrackedEstimator(DecisionTreeClassifier(max_depth=2))),
    ],
    ids=["itself", "a search", "a pipeline"],
)
def test_a_tracked_estimator_inside_is_named_for_what_it_wraps(runs: Runs, nest: Any) -> None:
    TrackedEstimator(nest).fit(X, y)
    params = runs[0].params
    assert runs[0].name.startswith("DecisionTreeClassifier-")
    assert (params["model_type"], params["max_depth"]) == ("DecisionTreeClassifier", "2")
    assert "TrackedEstimator" not in params["model_name"] + params["model_class"]
    assert not {"experiment", "log_model", "tracker"} & set(params)


def test_params_are_equal_text_from_fit_to_fit(runs: Runs) -> None:
    for _ in range(2):
        model = make_pipeline(FunctionTransformer(np.tanh), KMeans(2, init=X[:2], n_init=1, random_state=np.int64(3)))
        TrackedEstimator(model).fit(X)
    assert runs[0].params == runs[1].params
    assert not any(re.search(r"0x[0-9a-f]{6,}", text) for text in runs[0].params.values())


class Client(ClassifierMixin, BaseEstimator):
    def __init__(self, password: Any = None, url: Any = None, max_tokens: int = 1) -> None:
        self.password = password
        self.url = url
        self.max_tokens = max_tokens

    def fit(self, X: Any, y: Any) -> Client:
        self.classes_ = np.unique(y)
        return self

    def predict(self, X: Any) -> Any:
        return np.repeat(self.classes_[0], len(X))


def test_secrets_among_the_params_are_recorded_nowhere(runs: Runs) -> None:
    model = Client(password="hunter2-hunter2", url="postgres://ann:s3cr3tpass@db/x", max_tokens=512)
    TrackedEstimator(model, log_model=False, notes="from postgres://ann:s3cr3tpass@db/x").fit(X, y)
    run = runs[0]
    assert run.params["password"] == "[redacted]"
    assert run.params["max_tokens"] == "512"
    everything = [*run.artifacts.values(), repr(run.params).encode(), repr(run.tags).encode()]
    assert not any(secret in content for content in everything for secret in (b"hunter2-hunter2", b"s3cr3tpass"))


# -- the fit -----------------------------------------------------------------------------------------------------------


def test_a_bare_fit_shows_all_the_kinds_of_content(runs: Runs) -> None:
    TrackedEstimator(RandomForestClassifier(3, random_state=0)).fit(X_train, y_train)
    run = runs[0]
    assert run.status == "FINISHED"
    assert run.metrics["fit_seconds"] > 0
    assert {
        "estimator.html",
        "feature_importances.csv",
        "model/model.pkl",
        "model/input_example.json",
        "training_classification_report.json",
        "training_confusion_matrix.json",
    } <= set(run.artifacts)
    assert {"training_confusion_matrix.png", "feature_importances.png"} <= set(run.figures)
    assert all(name.startswith("training_") or name == "fit_seconds" for name in run.metrics)
    assert b"RandomForestClassifier" in run.artifacts["estimator.html"]
    assert not_recorded(run) == set()


SWAPPED = ColumnTransformer(
    [("second", StandardScaler(), ["big"]), ("first", "passthrough", ["small"])], verbose_feature_names_out=False
)
SCALED = FunctionTransformer(lambda data: data * 2)  # does not say what its columns are called


@pytest.mark.parametrize(
    ("estimator", "names"),
    [
        (make_pipeline(SWAPPED, Ridge()), ["big", "small"]),
        (GridSearchCV(make_pipeline(SWAPPED, Ridge()), {"ridge__alpha": [1.0]}, cv=2), ["big", "small"]),
        (make_pipeline(StandardScaler(), make_pipeline(SelectKBest(f_regression, k=1), Ridge())), ["big"]),
        (make_pipeline("passthrough", Ridge()), ["big", "small"]),
        (make_pipeline(PCA(), GridSearchCV(Ridge(), {"alpha": [1.0]}, cv=2)), ["pca0", "pca1"]),
        (GridSearchCV(make_pipeline(SCALED, Ridge()), {"ridge__alpha": [1.0]}, cv=2), ["big", "small"]),
        (GridSearchCV(make_pipeline(SCALED, PCA(), Ridge()), {"ridge__alpha": [1.0]}, cv=2), ["x0", "x1"]),
    ],
)
def test_importances_bear_the_names_that_the_final_step_saw(runs: Runs, estimator: Any, names: list[str]) -> None:
    noise = np.random.default_rng(0).normal(size=(40, 2)) * [1, 10]
    data = pd.DataFrame(noise, columns=["small", "big"])
    TrackedEstimator(estimator).fit(data, data["small"] + 100 * data["big"])
    assert columns(runs[0].artifacts["feature_importances.csv"])["feature"] == names


def test_what_a_fit_stops_by_is_not_what_the_estimator_scores_by(runs: Runs) -> None:
    boosted = HistGradientBoostingRegressor(max_iter=2, scoring="neg_mean_absolute_error", early_stopping=True)
    model = TrackedEstimator(boosted).fit(X_train, y_train)
    assert runs[0].metrics["training_r2"] == model.score(X_train, y_train)
    assert "training_score" not in runs[0].metrics


def test_training_scores_are_those_of_the_training_set(runs: Runs) -> None:
    model = TrackedEstimator(GaussianNB()).fit(X_train, y_train)
    predicted = model.predict(X_train)
    metrics = runs[0].metrics
    assert metrics["training_accuracy"] == accuracy_score(y_train, predicted)
    assert metrics["training_f1_score"] == pytest.approx(f1_score(y_train, predicted, average="weighted"), abs=1e-12)
    assert metrics["training_log_loss"] == pytest.approx(log_loss(y_train, model.predict_proba(X_train)), abs=1e-12)
    matrix = json.loads(runs[0].artifacts["training_confusion_matrix.json"])
    assert matrix["matrix"] == confusion_matrix(y_train, predicted).tolist()


def test_training_metrics_can_be_left_out_and_the_training_set_is_then_not_predicted(runs: Runs) -> None:
    asked: list[int] = []

    class Counting(GaussianNB):
        def predict(self, X: Any) -> Any:
            asked.append(len(X))
            return super().predict(X)

    TrackedEstimator(Counting(), training_metrics=False).fit(X_train, y_train)
    assert set(runs[0].metrics) == {"fit_seconds"}
    assert not any(path.startswith("training_") for path in [*runs[0].artifacts, *runs[0].figures])
    assert max(asked, default=0) <= 5, "only the first rows, for the signature"


def test_the_model_is_the_fitted_estimator_with_signature_and_example(runs: Runs) -> None:
    frame = pd.DataFrame(X_train, columns=list("abcdef"))
    model = TrackedEstimator(GaussianNB()).fit(frame, y_train)
    recorded = runs[0].models["model"]
    loaded = cloudpickle.loads(runs[0].artifacts["model/model.pkl"])
    assert type(loaded) is GaussianNB
    assert loaded.predict_proba(frame).tobytes() == model.predict_proba(frame).tobytes()
    assert [column["name"] for column in json.loads(recorded.signature["inputs"])] == list("abcdef")
    assert "long" in recorded.signature["outputs"] or "int64" in recorded.signature["outputs"]
    assert len(json.loads(runs[0].artifacts["model/input_example.json"])["data"]) == 5
    assert any(line.startswith("scikit-learn==") for line in recorded.requirements)


def test_log_model_off_records_none(runs: Runs) -> None:
    model = TrackedEstimator(GaussianNB(), log_model=False).fit(X_train, y_train)
    model.evaluate(X_test, y_test)
    assert runs[0].models == {}
    assert {point.model for point in runs[0].history} == {None}
    with pytest.raises(LookupError, match="no model"):
        _ = model.run_.model_uri


def test_the_data_are_described_and_never_copied_or_made_dense(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    class Huge(csr_matrix):
        def toarray(self, *_: Any, **__: Any) -> Any:
            if self.shape[0] > 5:
                raise AssertionError("the whole matrix was made dense")
            return super().toarray()

        todense = toarray

    TrackedEstimator(GaussianNBOnSparse()).fit(Huge(X_train), y_train)
    dataset = runs[0].datasets[0]
    assert (dataset.name, dataset.context) == ("train", "training")
    assert json.loads(dataset.profile)["features_shape"] == [80, 6]


class GaussianNBOnSparse(ClassifierMixin, BaseEstimator):
    def fit(self, X: Any, y: Any) -> GaussianNBOnSparse:
        self.classes_ = np.unique(y)
        return self

    def predict(self, X: Any) -> Any:
        return np.repeat(self.classes_[0], X.shape[0])


def test_training_and_held_out_data_have_contexts_and_their_scores_name_them(runs: Runs) -> None:
    model = TrackedEstimator(GaussianNB()).fit(X_train, y_train)
    model.evaluate(X_test, y_test)
    model.evaluate(X_test[:20], y_test[:20], name="val")
    datasets = runs[0].datasets
    assert [(d.name, d.context) for d in datasets] == [("train", "training"), ("test", "eval"), ("val", "val")]
    of = {point.name: (point.dataset, point.model) for point in runs[0].history}
    for metric, dataset in zip(("training_accuracy", "accuracy", "val_accuracy"), datasets, strict=True):
        assert of[metric] == (f"{dataset.name}#{dataset.digest}", "model")


def test_equal_data_have_equal_digests_and_one_changed_value_another(runs: Runs) -> None:
    changed = X_train.copy()
    changed[40, 3] += 1e-12
    for data in (X_train, X_train.copy(), changed):
        TrackedEstimator(GaussianNB(), log_model=False, training_metrics=False).fit(data, y_train)
    one, same, other = (run.datasets[0].digest for run in runs)
    assert one == same != other


def test_data_that_can_be_read_only_once_is_left_to_the_estimator(runs: Runs) -> None:
    texts = ["one two", "two three", "three four"] * 3
    assert TrackedEstimator(TfidfVectorizer()).fit_transform(text for text in texts).shape == (9, 4)
    assert "no signature" in runs[0].tags["overt.model_note"]


# -- evaluate ----------------------------------------------------------------------------------------------------------


def test_a_binary_evaluation_has_scikit_learns_numbers(runs: Runs) -> None:
    model = TrackedEstimator(GaussianNB()).fit(X_train, BINARY)
    report = model.evaluate(X_test, BINARY_TEST)
    predicted, proba = model.predict(X_test), model.predict_proba(X_test)
    expected = {
        "accuracy": accuracy_score(BINARY_TEST, predicted),
        "f1_score": f1_score(BINARY_TEST, predicted),
        "precision": precision_score(BINARY_TEST, predicted),
        "recall": recall_score(BINARY_TEST, predicted),
        "roc_auc": roc_auc_score(BINARY_TEST, proba[:, 1]),
        "log_loss": log_loss(BINARY_TEST, proba),
    }
    for name, value in expected.items():
        assert report[name] == pytest.approx(value, abs=1e-12), name
        assert runs[0].metrics[name] == report[name]
    assert {"confusion_matrix.json", "classification_report.json", "classification_report.csv"} <= set(
        runs[0].artifacts
    )
    assert {
        "confusion_matrix.png",
        "confusion_matrix_normalized.png",
        "roc_curve.png",
        "precision_recall_curve.png",
        "calibration_curve.png",
    } <= set(runs[0].figures)
    assert runs[0].status == "FINISHED"


def test_a_multiclass_evaluation_is_weighted_and_names_classes(runs: Runs) -> None:
    model = TrackedEstimator(GaussianNB(), class_names=["A", "B", "C"]).fit(X_train, NAMES[y_train])
    report = model.evaluate(X_test, NAMES[y_test])
    predicted = model.predict(X_test)
    truth = NAMES[y_test]
    assert report["f1_score"] == pytest.approx(f1_score(truth, predicted, average="weighted"), abs=1e-12)
    assert report["f1_macro"] == pytest.approx(f1_score(truth, predicted, average="macro"), abs=1e-12)
    assert report["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(truth, predicted), abs=1e-12)
    area = roc_auc_score(truth, model.predict_proba(X_test), multi_class="ovr", average="weighted")
    assert report["roc_auc"] == pytest.approx(area, abs=1e-12)
    assert json.loads(runs[0].artifacts["confusion_matrix.json"])["labels"] == ["A", "B", "C"]


def test_the_positive_class_can_be_chosen(runs: Runs) -> None:
    truth, held_out = np.where(BINARY, "yes", "no"), np.where(BINARY_TEST, "yes", "no")
    model = TrackedEstimator(GaussianNB(), pos_label="no").fit(X_train, truth)
    report = model.evaluate(X_test, held_out)
    predicted = model.predict(X_test)
    assert report["precision"] == pytest.approx(precision_score(held_out, predicted, pos_label="no"), abs=1e-12)
    assert report["roc_auc"] == pytest.approx(
        roc_auc_score(held_out == "no", model.predict_proba(X_test)[:, 0]), abs=1e-12
    )


def test_decision_values_serve_where_there_are_no_probabilities(runs: Runs) -> None:
    model = TrackedEstimator(SGDClassifier(random_state=0)).fit(X_train, BINARY)
    report = model.evaluate(X_test, BINARY_TEST)
    assert report["roc_auc"] == pytest.approx(roc_auc_score(BINARY_TEST, model.decision_function(X_test)), abs=1e-12)
    assert "log_loss" not in report


def test_weights_count_in_training_and_held_out_scores(runs: Runs) -> None:
    weights, held_out = np.linspace(0.1, 1, 80), np.linspace(1, 0.1, 40)
    model = TrackedEstimator(GaussianNB()).fit(X_train, y_train, sample_weight=weights)
    report = model.evaluate(X_test, y_test, sample_weight=held_out)
    expected = accuracy_score(y_train, model.predict(X_train), sample_weight=weights)
    assert runs[0].metrics["training_accuracy"] == pytest.approx(expected, abs=1e-12)
    expected = accuracy_score(y_test, model.predict(X_test), sample_weight=held_out)
    assert report["accuracy"] == pytest.approx(expected, abs=1e-12)


def test_several_labels_at_once(runs: Runs) -> None:
    Y = np.c_[y > 0, y > 1].astype(int)
    model = TrackedEstimator(RandomForestClassifier(5, random_state=0), class_names=["p", "q"]).fit(X_train, Y[:80])
    report = model.evaluate(X_test, Y[80:])
    assert report.kind == "multilabel"
    assert report["f1_score"] == pytest.approx(f1_score(Y[80:], model.predict(X_test), average="weighted"), abs=1e-12)
    assert not_recorded(runs[0]) == set()


def test_several_outputs_of_several_classes(runs: Runs) -> None:
    Y = pd.DataFrame({"animal": NAMES[y], "is_big": np.where(y > 1, "yes", "no")})
    model = TrackedEstimator(RandomForestClassifier(5, random_state=0)).fit(X_train, Y[:80])
    report = model.evaluate(X_test, Y[80:])
    predicted = model.predict(X_test)
    assert report["accuracy"] == pytest.approx(np.mean((predicted == Y[80:].to_numpy()).all(axis=1)), abs=1e-12)
    expected = f1_score(Y["animal"][80:], predicted[:, 0], average="weighted")
    assert report["f1_score_animal"] == pytest.approx(expected, abs=1e-12)
    assert runs[0].metrics["training_accuracy_is_big"] == pytest.approx(
        accuracy_score(Y["is_big"][:80], model.predict(X_train)[:, 1]), abs=1e-12
    )
    assert {"confusion_matrix_animal.json", "training_classification_report_is_big.csv"} <= set(runs[0].artifacts)
    assert {"roc_curve_animal.png", "confusion_matrix_normalized_is_big.png"} <= set(runs[0].figures)
    assert not_recorded(runs[0]) == set()


def test_a_regression_and_one_of_several_outputs(runs: Runs) -> None:
    target = X @ np.arange(6.0)
    model = TrackedEstimator(Ridge()).fit(X_train, target[:80])
    report = model.evaluate(X_test, target[80:])
    predicted = model.predict(X_test)
    assert report["rmse"] == pytest.approx(mean_squared_error(target[80:], predicted) ** 0.5, abs=1e-12)
    assert report["mae"] == pytest.approx(mean_absolute_error(target[80:], predicted), abs=1e-12)
    assert report["r2"] == pytest.approx(r2_score(target[80:], predicted), abs=1e-12)
    assert {"residuals.png", "predicted_vs_actual.png"} <= set(runs[0].figures)
    two = pd.DataFrame({"left": target, "right": -target})
    model = TrackedEstimator(Ridge()).fit(X_train, two[:80])
    report = model.evaluate(X_test, two[80:])
    assert report["rmse_left"] == pytest.approx(report["rmse_right"], abs=1e-9)
    assert report["r2"] == pytest.approx(r2_score(two[80:], model.predict(X_test)), abs=1e-12)


def test_a_clustering_needs_no_truth(runs: Runs) -> None:
    model = TrackedEstimator(KMeans(3, n_init=1, random_state=0)).fit(X_train)
    report = model.evaluate(X_test)
    assert report["silhouette"] == pytest.approx(silhouette_score(X_test, model.predict(X_test)), abs=1e-12)
    assert runs[0].metrics["training_n_clusters"] == 3
    assert "cluster_sizes.png" in runs[0].figures


def test_a_clusterer_that_cannot_predict_is_scored_on_the_data_of_its_fit_only(runs: Runs) -> None:
    model = TrackedEstimator(DBSCAN(eps=2.0)).fit(X_train)
    assert "training_n_clusters" in runs[0].metrics
    assert model.evaluate(X_train).n_samples == 80
    with pytest.raises(ConfigurationError, match="DBSCAN has no predict"):
        model.evaluate(X_train[::-1] * 5)


@pytest.mark.parametrize("make", [StandardScaler, IsolationForest, lambda: make_pipeline(StandardScaler())])
def test_what_has_no_evaluation_says_so_once_and_is_recorded_all_the_same(runs: Runs, make: Any) -> None:
    model = TrackedEstimator(make()).fit(X_train, y_train)
    with pytest.raises(ConfigurationError, match="scores classifiers, regressors and clusterers"):
        model.evaluate(X_test, y_test)
    assert {name for name in runs[0].metrics if not name.endswith("_seconds")} == set()
    assert "model" in runs[0].models
    assert runs[0].status == "FINISHED"


@pytest.mark.parametrize("convert", [csr_matrix, csr_array, coo_matrix])
def test_sparse_data_are_recorded_like_any_other(runs: Runs, convert: Any) -> None:
    model = TrackedEstimator(LogisticRegression(max_iter=500), cv=2).fit(convert(X_train), y_train)
    report = model.evaluate(convert(X_test), y_test)
    assert report["accuracy"] == accuracy_score(y_test, model.predict(X_test))
    assert not_recorded(runs[0]) == set()
    assert runs[0].datasets[0].name == "train"


def test_a_second_evaluation_of_the_same_data_replaces_the_first(runs: Runs) -> None:
    model = TrackedEstimator(GaussianNB()).fit(X_train, y_train)
    assert model.evaluate(X_test, y_test).metrics == model.evaluate(X_test.copy(), y_test).metrics
    assert not any(name.startswith("eval_") for name in runs[0].metrics)


def test_an_unnamed_evaluation_of_other_data_warns_and_has_a_name_of_its_own(runs: Runs) -> None:
    model = TrackedEstimator(GaussianNB()).fit(X_train, y_train)
    first = model.evaluate(X_test, y_test)
    with pytest.warns(OvertWarning, match=r"recorded as eval_2_.*name=\"val\""):
        second = model.evaluate(X_test[:20], y_test[:20])
    assert runs[0].metrics["accuracy"] == first["accuracy"]
    assert runs[0].metrics["eval_2_accuracy"] == second["accuracy"]
    assert "eval_2_confusion_matrix.json" in runs[0].artifacts
    model.evaluate(X_test, y_test)  # the first data again: no warning


def test_a_name_precedes_metrics_and_files(runs: Runs) -> None:
    model = TrackedEstimator(GaussianNB()).fit(X_train, y_train)
    report = model.evaluate(X_test, y_test, name="val")
    assert runs[0].metrics["val_f1_score"] == report["f1_score"]
    assert {"val_confusion_matrix.json", "val_classification_report.csv"} <= set(runs[0].artifacts)
    assert "val_roc_curve.png" in runs[0].figures
    assert "f1_score" not in runs[0].metrics


def test_predict_and_score_record_nothing(runs: Runs) -> None:
    model = TrackedEstimator(GaussianNB()).fit(X_train, y_train)
    before = (len(runs[0].history), len(runs[0].artifacts), len(runs[0].datasets))
    model.predict(X_test)
    model.score(X_test, y_test)
    assert (len(runs[0].history), len(runs[0].artifacts), len(runs[0].datasets)) == before


def test_an_estimator_fitted_in_parts_can_be_evaluated(runs: Runs) -> None:
    model = TrackedEstimator(SGDClassifier(random_state=0))
    for part in (slice(0, 40), slice(40, 80)):
        model.partial_fit(X_train[part], y_train[part], classes=[0, 1, 2])
    report = model.evaluate(X_test, y_test)
    assert runs[0].metrics["accuracy"] == report["accuracy"]
    assert [step for step, _ in points(runs[0], "partial_fit_seconds")] == [0, 1]
    assert runs[0].params["alpha"] == "0.0001"
    assert runs[0].status == "RUNNING"
    model.fit(X_train, y_train)  # starts afresh: nobody could end the first run any more
    assert [run.status for run in runs] == ["FINISHED", "FINISHED"]


# -- cross-validation --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cv", "n_folds"),
    [
        (4, 4),
        (KFold(3, shuffle=True, random_state=0), 3),
        (RepeatedStratifiedKFold(n_splits=2, n_repeats=3, random_state=0), 6),
        (list(KFold(3).split(X)), 3),
    ],
    ids=["int", "splitter", "repeated", "list"],
)
def test_the_scores_of_the_folds_are_those_of_cross_val_score(runs: Runs, cv: Any, n_folds: int) -> None:
    TrackedEstimator(GaussianNB(), cv=cv).fit(X, y)
    expected = cross_val_score(GaussianNB(), X, y, cv=cv)
    run = runs[0]
    assert points(run, "cv_accuracy") == list(enumerate(expected.tolist()))
    assert len(expected) == n_folds
    assert run.metrics["cv_mean_accuracy"] == pytest.approx(expected.mean(), abs=1e-15)
    assert run.metrics["cv_std_accuracy"] == pytest.approx(expected.std(ddof=0), abs=1e-15)
    table = columns(run.artifacts["cv_results.csv"])
    assert list(map(float, table["test_accuracy"])) == expected.tolist()
    assert table["status"] == ["ok"] * n_folds
    assert "overt.cv_failed_folds" not in run.tags


def test_splits_that_can_be_read_only_once_are_read_once(runs: Runs) -> None:
    TrackedEstimator(GaussianNB(), cv=KFold(3).split(X)).fit(X, y)
    assert [value for _, value in points(runs[0], "cv_accuracy")] == cross_val_score(
        GaussianNB(), X, y, cv=KFold(3)
    ).tolist()


MACRO, MICRO = (make_scorer(f1_score, average=average) for average in ("macro", "micro"))


def scores_twice(estimator: Any, X: Any, y: Any) -> dict[str, float]:
    return {"half": 0.5, "quarter": 0.25}


@pytest.mark.parametrize(
    ("scoring", "names"),
    [
        (None, ["accuracy"]),
        ("f1_macro", ["f1_macro"]),
        (["accuracy", "f1_macro"], ["accuracy", "f1_macro"]),
        ({"mine": "f1_macro", "other": MICRO}, ["mine", "other"]),
        (MACRO, ["f1_score"]),
        ([MACRO, MICRO], ["f1_score", "f1_score_2"]),
        (scores_twice, ["half", "quarter"]),
        (make_scorer(mean_absolute_error, greater_is_better=False), ["neg_mean_absolute_error"]),
    ],
    ids=["none", "text", "list", "dict", "scorer", "two of a name", "returns a dict", "negated"],
)
def test_every_form_of_scoring_has_its_names(runs: Runs, scoring: Any, names: list[str]) -> None:
    TrackedEstimator(GaussianNB(), cv=3, scoring=scoring).fit(X, y)
    run = runs[0]
    assert [name for name in run.metrics if name.startswith("cv_mean_")] == [f"cv_mean_{name}" for name in names]
    for name in names:
        assert [step for step, _ in points(run, f"cv_{name}")] == [0, 1, 2]
    if scoring is not None and "f1_score_2" in names:
        assert run.metrics["cv_mean_f1_score"] == cross_val_score(GaussianNB(), X, y, cv=3, scoring=MACRO).mean()
        assert run.metrics["cv_mean_f1_score_2"] == cross_val_score(GaussianNB(), X, y, cv=3, scoring=MICRO).mean()


def test_the_out_of_fold_matrix_is_that_of_cross_val_predict(runs: Runs) -> None:
    TrackedEstimator(GaussianNB(), cv=KFold(3), class_names=["A", "B", "C"]).fit(X, y)
    predicted = cross_val_predict(GaussianNB(), X, y, cv=KFold(3))
    table = json.loads(runs[0].artifacts["cv_confusion_matrix.json"])
    assert table == {"labels": ["A", "B", "C"], "matrix": confusion_matrix(y, predicted).tolist()}
    report = json.loads(runs[0].artifacts["cv_classification_report.json"])
    assert report["accuracy"] == accuracy_score(y, predicted)
    assert "cv_confusion_matrix.png" in runs[0].figures


def test_a_class_too_rare_for_some_folds_stops_nothing(runs: Runs) -> None:
    rare = np.array(["a"] * 58 + ["b"] * 60 + ["z"] * 2)
    rare[:2], rare[-2:] = ["z", "z"], ["a", "a"]  # both in the first test fold: its model has never seen them
    TrackedEstimator(GaussianNB(), cv=KFold(3), class_names=["A", "B", "Z"]).fit(X, rare)
    assert not_recorded(runs[0]) == set()
    assert json.loads(runs[0].artifacts["cv_confusion_matrix.json"])["labels"] == ["A", "B", "Z"]


class FailsWithout(GaussianNB):
    """Refuses training data that lacks the first row."""

    def fit(self, X: Any, y: Any) -> Any:
        if not (X == X_FIRST).all(axis=1).any():
            raise ValueError("the first row is missing")
        return super().fit(X, y)


X_FIRST = X[0]


def test_a_fold_that_fails_is_marked_and_the_others_count(runs: Runs) -> None:
    with pytest.warns(FitFailedWarning, match="1 fits failed"):
        TrackedEstimator(FailsWithout(), cv=KFold(3)).fit(X, y)
    run = runs[0]
    bare = cross_val_score(GaussianNB(), X, y, cv=KFold(3))
    (_, first), *rest = points(run, "cv_accuracy")
    assert np.isnan(first)
    assert rest == list(enumerate(bare.tolist()))[1:]
    assert run.metrics["cv_mean_accuracy"] == pytest.approx(bare[1:].mean(), abs=1e-15)
    assert run.metrics["cv_std_accuracy"] == pytest.approx(bare[1:].std(), abs=1e-15)
    assert run.tags["overt.cv_failed_folds"] == "0"
    assert columns(run.artifacts["cv_results.csv"])["status"] == ["failed", "ok", "ok"]
    predicted = cross_val_predict(GaussianNB(), X, y, cv=KFold(3))[40:]
    assert (
        json.loads(run.artifacts["cv_confusion_matrix.json"])["matrix"] == confusion_matrix(y[40:], predicted).tolist()
    )
    assert run.status == "FINISHED"


class FailsOnFewer(GaussianNB):
    def fit(self, X: Any, y: Any) -> Any:
        if len(X) < len(y_all):
            raise ValueError("some rows are missing")
        return super().fit(X, y)


y_all = y


def test_folds_that_all_fail_are_a_warning_and_the_fit_stands(runs: Runs) -> None:
    with pytest.warns(OvertWarning, match=r"(?s)cross-validation of run .*All the 3 fits failed"):
        model = TrackedEstimator(FailsOnFewer(), cv=3).fit(X, y)
    assert not_recorded(runs[0]) == {"cross-validation"}
    assert not any(name.startswith("cv_") for name in runs[0].metrics)
    assert runs[0].status == "FINISHED"
    assert model.predict(X).shape == (120,)


class PredictsHalves(GaussianNB):
    def predict(self, X: Any) -> Any:
        return super().predict(X) + 0.5


def test_scores_stand_where_a_report_cannot_be_made_of_the_predictions(runs: Runs) -> None:
    with pytest.warns(OvertWarning, match="out-of-fold report"):
        TrackedEstimator(PredictsHalves(), cv=2, scoring=lambda *_: 1.0, training_metrics=False).fit(X, y)
    assert len(points(runs[0], "cv_<lambda>")) == 2
    assert not_recorded(runs[0]) == {"out-of-fold_report"}


def test_several_outputs_of_several_classes_have_a_report_of_the_folds(runs: Runs) -> None:
    Y = np.c_[y, (y + 1) % 3]
    forest = RandomForestClassifier(5, random_state=0)
    TrackedEstimator(forest, cv=2, scoring=lambda model, X, y: float((model.predict(X) == y).mean())).fit(X, Y)
    assert {"cv_confusion_matrix_0.json", "cv_classification_report_1.csv"} <= set(runs[0].artifacts)
    assert not_recorded(runs[0]) == set()


def test_a_search_and_a_clusterer_can_be_cross_validated(runs: Runs) -> None:
    TrackedEstimator(GridSearchCV(DecisionTreeClassifier(random_state=0), {"max_depth": [1, 2]}, cv=2), cv=2).fit(X, y)
    TrackedEstimator(KMeans(2, n_init=1, random_state=0), cv=2).fit(X)
    assert "cv_mean_accuracy" in runs[0].metrics
    assert "cv_mean_score" in runs[1].metrics


# -- what may go wrong -------------------------------------------------------------------------------------------------


class PredictsNothing(GaussianNB):
    def predict(self, X: Any) -> Any:
        raise RuntimeError("predict is broken")


def test_an_estimator_that_cannot_predict_after_its_fit_is_one_warning(runs: Runs) -> None:
    with pytest.warns(OvertWarning, match="training metrics of run .* predict is broken") as warned:
        TrackedEstimator(PredictsNothing()).fit(X, y)
    assert len(warned) == 1
    assert not_recorded(runs[0]) == {"training_metrics"}
    assert "predict is broken" in runs[0].tags["overt.model_note"]
    assert runs[0].models["model"].signature is None
    assert runs[0].status == "FINISHED"


def test_an_estimator_with_a_lambda_is_saved(runs: Runs) -> None:
    TrackedEstimator(FunctionTransformer(lambda X: X * 2)).fit(X)
    loaded = cloudpickle.loads(runs[0].artifacts["model/model.pkl"])
    assert (loaded.transform(X) == X * 2).all()


def test_an_estimator_that_cannot_be_pickled_is_one_warning(runs: Runs) -> None:
    lock = threading.Lock()
    with pytest.warns(OvertWarning, match=r"model of run .*cannot pickle '_thread.lock'") as warned:
        model = TrackedEstimator(make_pipeline(FunctionTransformer(lambda X, lock=lock: X * 2), GaussianNB())).fit(X, y)
    assert len(warned) == 1
    assert not_recorded(runs[0]) == {"model"}
    assert runs[0].models == {}
    assert runs[0].status == "FINISHED"
    model.evaluate(X, y)
    assert {point.model for point in runs[0].history} == {None}


class Failing(GaussianNB):
    def __init__(self, error: BaseException | None = None) -> None:
        super().__init__()
        self.error = error

    def fit(self, X: Any, y: Any) -> Any:
        raise ERRORS[type(self.error)]


ERRORS = {kind: kind("of the fit") for kind in (ZeroDivisionError, KeyboardInterrupt, SystemExit)}


def test_a_fit_that_fails_raises_what_it_raised_and_the_run_has_failed(runs: Runs) -> None:
    with pytest.raises(ZeroDivisionError) as raised:
        TrackedEstimator(Failing(ZeroDivisionError())).fit(X, y)
    assert raised.value is ERRORS[ZeroDivisionError]
    assert runs[0].status == "FAILED"
    assert runs[0].tags["overt.error"] == "ZeroDivisionError: of the fit"
    assert b"raise ERRORS" in runs[0].artifacts["overt/traceback.txt"]
    assert runs[0].datasets[0].name == "train"


def test_ctrl_c_in_a_fit_is_killed_and_passes_through(runs: Runs) -> None:
    with pytest.raises(KeyboardInterrupt) as raised:
        TrackedEstimator(Failing(KeyboardInterrupt())).fit(X, y)
    assert raised.value is ERRORS[KeyboardInterrupt]
    assert runs[0].status == "KILLED"
    assert "overt/traceback.txt" not in runs[0].artifacts


def test_unlabelled_rows_are_no_class(runs: Runs) -> None:
    from sklearn.semi_supervised import SelfTrainingClassifier

    partly = np.where(np.arange(120) < 60, y, -1)
    TrackedEstimator(SelfTrainingClassifier(GaussianNB()), class_names=["A", "B", "C"], training_metrics=False).fit(
        X, partly
    )
    assert runs[0].status == "FINISHED"
