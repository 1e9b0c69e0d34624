"""Fits of clones are rows of one group run, however they are nested, copied, threaded or ended."""

from __future__ import annotations

import copy
import csv
import io
import pickle
import threading
from typing import Any

import joblib
import numpy as np
import pytest
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.datasets import load_iris
from sklearn.ensemble import AdaBoostClassifier, BaggingClassifier, StackingClassifier, VotingClassifier
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.inspection import permutation_importance
from sklearn.linear_model import LogisticRegression, SGDClassifier
from sklearn.model_selection import GridSearchCV, KFold, cross_val_score
from sklearn.multiclass import OneVsRestClassifier
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier

import overt
from overt import OvertWarning, TrackedEstimator
from overt.stores.memory import MemoryRun

Runs = list[MemoryRun]
X, y = load_iris(return_X_y=True)


def tree(**keywords: Any) -> TrackedEstimator:
    return TrackedEstimator(DecisionTreeClassifier(random_state=0), **keywords)


def rows(run: MemoryRun) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(run.artifacts["fits.csv"].decode())))


def test_the_fits_of_a_cross_validation_are_rows_of_one_run(runs: Runs) -> None:
    scores = cross_val_score(tree(), X, y, cv=4)
    assert scores.tolist() == cross_val_score(DecisionTreeClassifier(random_state=0), X, y, cv=4).tolist()
    assert [run.name.startswith("DecisionTreeClassifier-fits-") for run in runs] == [True]
    found = rows(runs[0])
    assert [row["n_samples"] for row in found] == ["112", "112", "113", "113"]
    assert {(row["estimator"], row["method"], row["status"], row["n_features"]) for row in found} == {
        ("DecisionTreeClassifier", "fit", "FINISHED", "4")
    }
    assert all(float(row["fit_seconds"]) > 0 for row in found)
    assert runs[0].history == [], "processes that share a run cannot count the steps of one series"


def test_a_row_has_the_params_that_its_clone_was_given(runs: Runs) -> None:
    search = GridSearchCV(tree(), {"estimator__max_depth": [1, 2]}, cv=2).fit(X, y)
    assert len(runs) == 1
    assert [row["param_max_depth"] for row in rows(runs[0])] == ["1", "1", "2", "2", "2"]
    assert search.best_params_ == {"estimator__max_depth": 2}


def test_folds_pictures_models_and_registrations_rest_in_clones(runs: Runs) -> None:
    clone(tree(cv=3, register_as="m")).fit(X, y)
    assert (set(runs[0].artifacts), runs[0].figures, runs[0].models) == ({"fits.csv"}, {}, {})
    assert runs[0].metrics == {}


def test_a_fit_that_fails_is_a_row_that_says_of_what(runs: Runs) -> None:
    with pytest.raises(ValueError, match="does not match number of samples"):
        clone(tree()).fit(X, y[:-1])
    clone(tree()).fit(X, y)
    assert [row["status"] for row in rows(runs[0])] == ["FAILED"]
    assert rows(runs[0])[0]["error"].startswith("ValueError: Number of labels=149 does not match")
    assert len(runs) == 2, "two origins, two groups"


def test_the_origin_itself_has_runs_of_its_own_and_its_clones_share_one(runs: Runs) -> None:
    origin = tree()
    origin.fit(X, y)
    for _ in range(2):
        clone(origin).fit(X, y)
    clone(clone(origin)).fit(X, y)
    assert ["fits" in run.name for run in runs] == [False, True]
    assert len(rows(runs[1])) == 3


def test_other_settings_are_another_family(runs: Runs) -> None:
    origin = tree(run_name="first")
    clone(origin).fit(X, y)
    origin.set_params(run_name="second")
    clone(origin).fit(X, y)
    origin.set_params(estimator=GaussianNB())
    clone(origin).fit(X, y)
    assert [run.name for run in runs] == ["first", "second", "second"]
    assert runs[2].params["model_type"] == "GaussianNB"


def test_settings_that_are_equal_are_one_family_whatever_they_hold(runs: Runs) -> None:
    origin = tree(params={"weights": np.arange(30)}, tags={"a": ["b"]})
    cross_val_score(origin, X, y, cv=3)
    assert [len(rows(run)) for run in runs] == [3]


def test_inside_a_run_they_are_rows_of_it_and_later_families_get_children(runs: Runs) -> None:
    first, second = tree(), TrackedEstimator(GaussianNB())
    with overt.start_run("mine"):
        cross_val_score(first, X, y, cv=2)
        cross_val_score(second, X, y, cv=3)
        cross_val_score(first, X, y, cv=2)
    assert [run.name.partition("-")[0] for run in runs] == ["mine", "GaussianNB"]
    assert [len(rows(run)) for run in runs] == [4, 3]
    assert runs[1].spec.parent_key == runs[0].spec.key
    assert [run.status for run in runs] == ["FINISHED", "FINISHED"]


def test_the_next_run_gets_rows_of_its_own(runs: Runs) -> None:
    origin = tree()
    for name in ("a", "b"):
        with overt.start_run(name):
            cross_val_score(origin, X, y, cv=2)
    cross_val_score(origin, X, y, cv=2)
    assert [run.name.partition("-")[0] for run in runs] == ["a", "b", "DecisionTreeClassifier"]
    assert [len(rows(run)) for run in runs] == [2, 2, 2]


def test_inside_a_tracked_fit_they_are_rows_of_a_run_nested_in_it(runs: Runs) -> None:
    search = TrackedEstimator(GridSearchCV(tree(), {"estimator__max_depth": [1, 2]}, cv=2))
    search.fit(X, y)
    search.fit(X, y)
    assert [(len(rows(run)), run.spec.parent_key) for run in runs[1::2]] == [
        (5, runs[0].spec.key),
        (5, runs[2].spec.key),
    ]
    assert {run.status for run in runs} == {"FINISHED"}


def test_a_run_that_is_given_is_where_they_go_and_once_it_has_ended_a_child_of_it(runs: Runs) -> None:
    given = overt.start_run("given")
    origin = tree(run=given)
    cross_val_score(origin, X, y, cv=2)
    given.finish()
    cross_val_score(origin, X, y, cv=3)
    assert [(len(rows(run)), run.spec.parent_key) for run in runs] == [(2, None), (3, given.key)]


def test_a_parent_that_is_given_gets_them_as_a_child(runs: Runs) -> None:
    with overt.start_run("given") as given:
        pass
    cross_val_score(tree(parent=given), X, y, cv=2)
    assert (len(rows(runs[1])), runs[1].spec.parent_key) == (2, given.key)


def test_whoever_waits_ends_the_group_and_later_fits_are_another(runs: Runs) -> None:
    origin = tree()
    group = clone(origin).fit(X, y).run_
    group.finish()
    clone(origin).fit(X, y)
    assert ([len(rows(run)) for run in runs], [run.status for run in runs]) == ([1, 1], ["FINISHED", "RUNNING"])


def test_six_fits_in_two_threads_are_six_records(runs: Runs) -> None:
    origin = tree()
    jobs = [joblib.delayed(clone(origin).fit)(X, y) for _ in range(6)]
    joblib.Parallel(n_jobs=2, prefer="threads")(jobs)
    assert [len(rows(run)) for run in runs] == [6]
    fits = [joblib.delayed(tree().fit)(X, y) for _ in range(6)]
    joblib.Parallel(n_jobs=2, prefer="threads")(fits)
    assert len(runs) == 1 + 6
    assert {run.status for run in runs[1:]} == {"FINISHED"}


def test_clones_made_in_threads_of_a_tracked_fit_are_nested_in_it(runs: Runs) -> None:
    with joblib.parallel_config("threading"):
        TrackedEstimator(BaggingClassifier(tree(), n_estimators=4, n_jobs=2, random_state=0)).fit(X, y)
    assert [run.spec.parent_key for run in runs] == [None, runs[0].spec.key]
    assert len(rows(runs[1])) == 4


def test_clones_fitted_in_threads_go_where_they_were_made(runs: Runs) -> None:
    with overt.start_run("mine"):
        copies = [clone(origin) for origin in [tree()] for _ in range(4)]
        joblib.Parallel(n_jobs=2, prefer="threads")(joblib.delayed(copy.fit)(X, y) for copy in copies)
    assert [(run.name.partition("-")[0], len(rows(run))) for run in runs] == [("mine", 4)]


def test_threads_that_clone_at_once_found_one_family(runs: Runs) -> None:
    origin = tree()
    gate = threading.Barrier(8)

    def fit() -> None:
        gate.wait()
        clone(origin).fit(X, y)

    threads = [threading.Thread(target=fit) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [len(rows(run)) for run in runs] == [8]


def test_evaluations_of_several_clones_are_told_apart(runs: Runs) -> None:
    origin = tree(check_overlap=False)
    first, second = clone(origin).fit(X[::2], y[::2]), clone(origin).fit(X[1::2], y[1::2])
    one = first.evaluate(X, y)
    with pytest.warns(OvertWarning, match="by another clone"):
        other = second.evaluate(X, y)
    first.evaluate(X, y)
    assert runs[0].metrics["accuracy"] == one["accuracy"]
    assert runs[0].metrics["eval_2_accuracy"] == other["accuracy"]
    assert {"confusion_matrix.json", "eval_2_confusion_matrix.json"} <= set(runs[0].artifacts)


def test_after_the_callers_mlflow_run_later_fits_are_another_family(
    monkeypatch: pytest.MonkeyPatch, runs: Runs
) -> None:
    origin = tree()
    guest = overt.start_run("theirs")  # stands for mlflow's: nobody tells it of the end
    with guest.as_current():
        cross_val_score(origin, X, y, cv=2)
    cross_val_score(origin, X, y, cv=3)
    assert [len(rows(run)) for run in runs] == [2, 3]


class Interrupted(DecisionTreeClassifier):
    """Ctrl-C in its fit."""

    def fit(self, X: Any, y: Any) -> None:
        raise KeyboardInterrupt


def test_ctrl_c_in_a_clones_fit_kills_the_group(runs: Runs) -> None:
    with pytest.raises(KeyboardInterrupt):
        cross_val_score(TrackedEstimator(Interrupted()), X, y, cv=2)
    assert (runs[0].status, rows(runs[0])[0]["status"]) == ("KILLED", "FAILED")


def test_a_clone_can_be_copied_pickled_and_evaluated(runs: Runs) -> None:
    fitted = clone(tree()).fit(X, y)
    for copied in (copy.deepcopy(fitted), pickle.loads(pickle.dumps(fitted))):
        assert copied.predict(X).tolist() == fitted.predict(X).tolist()
        clone(copied).fit(X, y)
    assert [len(rows(run)) for run in runs] == [3]
    report = fitted.evaluate(X, y)
    assert runs[0].metrics["accuracy"] == report["accuracy"]


def test_parts_of_a_clone_are_rows(runs: Runs) -> None:
    parts = clone(TrackedEstimator(SGDClassifier(random_state=0)))
    bare = SGDClassifier(random_state=0)
    for half in (slice(None, None, 2), slice(1, None, 2)):
        parts.partial_fit(X[half], y[half], classes=[0, 1, 2])
        bare.partial_fit(X[half], y[half], classes=[0, 1, 2])
    assert [row["method"] for row in rows(runs[0])] == ["partial_fit", "partial_fit"]
    assert np.array_equal(parts.coef_, bare.coef_)


def test_a_pickle_that_is_only_kept_starts_no_run(runs: Runs) -> None:
    pickle.loads(pickle.dumps(tree()))
    assert runs == []


NESTS = {
    "stacking": lambda inner: StackingClassifier([("a", inner), ("b", GaussianNB())], cv=2),
    "voting": lambda inner: VotingClassifier([("a", inner), ("b", GaussianNB())], voting="soft"),
    "calibrated": lambda inner: CalibratedClassifierCV(inner, cv=2),
    "one-vs-rest": OneVsRestClassifier,
    "boosting": lambda inner: AdaBoostClassifier(inner, n_estimators=3, random_state=0),
    "bagging": lambda inner: BaggingClassifier(inner, n_estimators=3, random_state=0),
    "step": lambda inner: GridSearchCV(make_pipeline(StandardScaler(), inner), {"standardscaler__with_std": [True]}),
}


@pytest.mark.parametrize("kind", NESTS)
def test_meta_estimators_predict_as_over_the_bare_estimator_and_fill_one_run(runs: Runs, kind: str) -> None:
    inner = LogisticRegression(max_iter=500)
    bare = NESTS[kind](inner).fit(X, y)
    nested = NESTS[kind](TrackedEstimator(inner)).fit(X, y)
    assert np.array_equal(nested.predict_proba(X), bare.predict_proba(X))
    assert len(runs) == 1
    assert len(rows(runs[0])) > 1 or kind in ("voting", "stacking")


def test_asking_a_fitted_model_many_times_records_nothing(runs: Runs) -> None:
    model = tree(log_model=False, training_metrics=False).fit(X, y)
    before = len(runs[0].history)
    permutation_importance(model, X, y, n_repeats=3, random_state=0)
    assert (len(runs), len(runs[0].history)) == (1, before)


class Unclonable(ClassifierMixin, BaseEstimator):
    """Fits nothing, and cannot describe itself."""

    def fit(self, X: Any, y: Any) -> Unclonable:
        self.classes_ = np.unique(y)
        return self

    def predict(self, X: Any) -> Any:
        return np.zeros(len(X), int)

    def __repr__(self) -> str:
        raise RuntimeError("no")


def test_data_without_a_shape_and_estimators_that_cannot_be_described_are_rows_too(runs: Runs) -> None:
    clone(TrackedEstimator(Unclonable())).fit(X.tolist(), y.tolist())
    assert rows(runs[0])[0]["n_samples"] == "150"


def test_a_saved_model_holds_what_was_wrapped_inside_it(runs: Runs) -> None:
    model = TrackedEstimator(StackingClassifier([("a", tree())], cv=2)).fit(X, y)
    content = runs[0].artifacts["model/model.pkl"]
    assert b"overt" not in content
    assert pickle.loads(content).predict(X).tolist() == model.predict(X).tolist()


NAMES = ["setosa", "versicolor", "virginica"]


def test_class_names_and_pos_label_are_the_origins_whatever_labels_its_clones_get(runs: Runs) -> None:
    assert OneVsRestClassifier(tree(class_names=NAMES)).fit(X, y).score(X, y) == 1
    words = np.array(["n", "y"])[(y == 1).astype(int)]
    assert BaggingClassifier(tree(pos_label="y"), n_estimators=2, random_state=0).fit(X, words).score(X, words) > 0.9
    scores = cross_val_score(tree(class_names=NAMES), X, y, cv=KFold(3))  # each fold lacks a class
    assert not np.isnan(scores).any()


def test_child_runs_are_the_origins_whatever_estimator_its_clones_get(runs: Runs) -> None:
    inner = GridSearchCV(DecisionTreeClassifier(random_state=0), {"max_depth": [1, 2]}, cv=2)
    search = GridSearchCV(TrackedEstimator(inner, child_runs=2), {"estimator": [DecisionTreeClassifier()]}, cv=2)
    assert search.fit(X, y).score(X, y) > 0.9


def test_data_that_has_no_length_costs_the_row_its_size_alone(runs: Runs) -> None:
    clone(TrackedEstimator(CountVectorizer())).fit(text for text in ("one", "two words"))
    assert [(row["status"], row["n_samples"]) for row in rows(runs[0])] == [("FINISHED", "")]


def test_the_group_of_a_parent_that_is_given_ends_with_it(runs: Runs) -> None:
    with overt.start_run("study") as study:
        thread = threading.Thread(target=cross_val_score, args=(tree(parent=study), X, y), kwargs={"cv": 2})
        thread.start()
        thread.join()
    assert [(run.status, run.spec.parent_key) for run in runs] == [("FINISHED", None), ("FINISHED", study.key)]


def test_a_search_over_estimators_is_one_group(runs: Runs) -> None:
    models = [LogisticRegression(max_iter=500), DecisionTreeClassifier(), GaussianNB()]
    GridSearchCV(TrackedEstimator(models[0]), {"estimator": models}, cv=3).fit(X, y)
    assert [len(rows(run)) for run in runs] == [10]
    assert {row["estimator"] for row in rows(runs[0])} == {type(model).__name__ for model in models}


def test_settings_that_clones_are_given_are_a_group_each_and_siblings_find_it(runs: Runs) -> None:
    GridSearchCV(tree(), {"tags": [{"a": "1"}, {"a": "2"}]}, cv=3).fit(X, y)
    assert [(run.tags["a"], len(rows(run))) for run in runs] == [("1", 4), ("2", 3)]


def test_threads_with_a_run_each_share_an_origin_and_fill_each_their_own(runs: Runs) -> None:
    origin, gate = tree(), threading.Barrier(2)

    def validate(name: str) -> None:
        with overt.start_run(name):
            for _ in range(3):
                gate.wait()
                cross_val_score(origin, X, y, cv=2)

    threads = [threading.Thread(target=validate, args=(name,)) for name in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted((run.name, len(rows(run))) for run in runs) == [("a", 6), ("b", 6)]


def test_a_pickle_that_is_kept_has_nothing_of_what_is_configured() -> None:
    overt.configure(store="postgresql://me:hunter2@nowhere/runs", delivery="manual")
    kept = pickle.dumps(clone(TrackedEstimator(LogisticRegression())))
    assert b"hunter2" not in kept
    assert b"nowhere" not in kept


@pytest.mark.parametrize("scoring", [None, "f1_macro"])
def test_a_search_weights_its_scores_as_around_the_bare_estimator(runs: Runs, scoring: Any) -> None:
    """scikit-learn 1.9 looks in the signature of ``score`` whether it takes weights."""
    weights = np.random.default_rng(0).uniform(0.1, 10, len(y))
    tree = DecisionTreeClassifier(random_state=0)
    bare = GridSearchCV(tree, {"max_depth": [1, 2]}, cv=3, scoring=scoring).fit(X, y, sample_weight=weights)
    tracked = GridSearchCV(TrackedEstimator(tree), {"estimator__max_depth": [1, 2]}, cv=3, scoring=scoring)
    tracked.fit(X, y, sample_weight=weights)
    for scores in ("split0_test_score", "mean_test_score"):
        assert tracked.cv_results_[scores].tolist() == bare.cv_results_[scores].tolist()
