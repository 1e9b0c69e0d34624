"""What scikit-learn's own callbacks tell is recorded while the fit goes on, and nothing of ours stays behind."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sklearn
from sklearn.datasets import load_diabetes, load_iris
from sklearn.decomposition import PCA
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, log_loss
from sklearn.model_selection import GridSearchCV, HalvingGridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, StandardScaler
from sklearn.tree import DecisionTreeClassifier
from sklearn.utils.fixes import parse_version

import overt
from overt import OvertWarning, TrackedEstimator
from overt.delivery.lock import are_unused
from overt.errors import ConfigurationError
from overt.integrations.sklearn.live import Follower
from overt.journal.folder import segment_paths
from overt.journal.reader import iter_records
from overt.records import Metric
from overt.run import Run
from overt.stores.memory import MemoryRun

if parse_version(sklearn.__version__) < parse_version("1.9"):
    pytest.skip("scikit-learn has callbacks from 1.9 on", allow_module_level=True)

from sklearn.callback import AutoPropagatedCallback, FitCallback, ProgressBar, ScoringMonitor

from overt import SklearnTrackingCallback

Runs = list[MemoryRun]
X, y = load_iris(return_X_y=True)
X = StandardScaler().fit_transform(X)


def logistic(**params: Any) -> LogisticRegression:
    return LogisticRegression(**params)


def series(run: MemoryRun, name: str) -> list[tuple[int, float]]:
    return [(point.step, point.value) for point in run.history if point.name == name]


def test_it_is_what_scikit_learn_calls_a_callback() -> None:
    assert isinstance(SklearnTrackingCallback(), FitCallback)
    assert isinstance(SklearnTrackingCallback(), AutoPropagatedCallback)


def test_each_iteration_is_a_point_while_the_fit_goes_on(runs: Runs) -> None:
    seen: list[int] = []

    class Looks(ScoringMonitor):  # type: ignore[misc]
        def on_fit_task_begin(self, estimator: Any, context: Any) -> None:
            seen.append(len(series(runs[0], "lbfgs_iter_seconds")))

    model = logistic().set_callbacks(SklearnTrackingCallback(), Looks(scoring="accuracy")).fit(X, y)
    n_iterations = int(model.n_iter_[0])
    assert [step for step, _ in series(runs[0], "lbfgs_iter_seconds")] == list(range(n_iterations))
    assert seen[-1] >= n_iterations - 1, "the points were there before the end"
    assert runs[0].status == "FINISHED"
    assert runs[0].params["C"] == "1.0"


def test_live_scores_are_those_of_each_iterations_model(runs: Runs) -> None:
    model = logistic().set_callbacks(SklearnTrackingCallback(live_scores=True)).fit(X, y)
    losses, hits = series(runs[0], "train_loss"), series(runs[0], "train_accuracy")
    assert len(losses) == len(hits) == model.n_iter_[0]
    assert losses[-1][1] == log_loss(y, model.predict_proba(X))
    assert hits[-1][1] == accuracy_score(y, model.predict(X))
    assert losses[0][1] > losses[-1][1]


def test_without_live_scores_none_is_computed(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LogisticRegression, "predict", lambda self, X: pytest.fail("predicted"))
    logistic().set_callbacks(SklearnTrackingCallback()).fit(X, y)
    assert series(runs[0], "train_loss") == []


def test_each_candidate_of_a_search_is_a_point_and_its_result_is_recorded(runs: Runs) -> None:
    search = GridSearchCV(logistic(), {"C": [0.1, 1.0]}, cv=3).set_callbacks(SklearnTrackingCallback())
    search.fit(X, y)
    assert [step for step, _ in series(runs[0], "candidate_split_evaluation_seconds")] == list(range(6))
    refitted = int(search.best_estimator_.n_iter_[0])
    assert [step for step, _ in series(runs[0], "lbfgs_iter_seconds")] == list(range(refitted)), "of the refit alone"
    assert runs[0].metrics["best_cv_score"] == search.best_score_
    assert runs[0].params["best_C"] == str(search.best_params_["C"])
    assert len(runs) == 1


def test_each_step_of_a_pipeline_is_timed(runs: Runs) -> None:
    make_pipeline(StandardScaler(), logistic()).set_callbacks(SklearnTrackingCallback()).fit(X, y)
    assert {
        "fit_transform_standardscaler_seconds",
        "fit_final_estimator_seconds",
        "lbfgs_iter_seconds",
        "fit_seconds",
    } <= set(runs[0].metrics)


def test_every_fit_is_a_run_of_its_own(runs: Runs) -> None:
    model = logistic().set_callbacks(SklearnTrackingCallback(run_name="again"))
    model.fit(X, y)
    model.fit(X, y)
    cross_val_score(model, X, y, cv=2)
    assert [(run.name, run.status) for run in runs] == [("again", "FINISHED")] * 4


def test_a_run_that_is_around_is_joined_and_left_open(runs: Runs) -> None:
    with overt.start_run("mine") as run:
        logistic().set_callbacks(SklearnTrackingCallback()).fit(X, y)
        assert run.status == "RUNNING"
    assert [run.name for run in runs] == ["mine"]
    assert runs[0].metrics["fit_seconds"] > 0


@pytest.mark.parametrize(("error", "status"), [(ValueError("x"), "FAILED"), (KeyboardInterrupt(), "KILLED")])
def test_a_fit_that_fails_is_a_run_that_says_so(
    runs: Runs, monkeypatch: pytest.MonkeyPatch, error: BaseException, status: str
) -> None:
    def fail(*arguments: Any, **keywords: Any) -> None:
        raise error

    monkeypatch.setattr("scipy.optimize.minimize", fail)
    with pytest.raises(type(error)):
        logistic().set_callbacks(SklearnTrackingCallback()).fit(X, y)
    assert runs[0].status == status


def test_a_fit_that_succeeds_while_an_error_is_handled_has_succeeded(runs: Runs) -> None:
    try:
        raise KeyError("earlier")
    except KeyError:
        logistic().set_callbacks(SklearnTrackingCallback()).fit(X, y)
    assert runs[0].status == "FINISHED"


@pytest.mark.parametrize(
    "setting",
    [
        {"experiment": 5},
        {"run_name": 3},
        {"tags": ["a"]},
        {"run": "abc"},
        {"tracker": 1},
        {"parent": 7},
        {"live_scores": "no"},
        {"max_propagation_depth": "no"},
        {"max_propagation_depth": -1},
        {"max_propagation_depth": True},
    ],
    ids=str,
)
def test_a_setting_that_cannot_work_raises_where_it_is_given(setting: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=f"`{next(iter(setting))}`"):
        SklearnTrackingCallback(**setting)


def test_trouble_with_recording_never_reaches_the_fit(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Run.log_metric

    def fails(self: Run, name: str, *arguments: Any, **keywords: Any) -> None:
        if name == "lbfgs_iter_seconds":
            raise OSError("no")
        real(self, name, *arguments, **keywords)

    monkeypatch.setattr(Run, "log_metric", fails)
    with pytest.warns(OvertWarning, match="live metrics"):
        logistic().set_callbacks(SklearnTrackingCallback()).fit(X, y)
    assert runs[0].status == "FINISHED"


def test_a_model_with_the_callback_can_be_pickled_and_its_copy_records_too(runs: Runs) -> None:
    model = logistic().set_callbacks(SklearnTrackingCallback(run_name="r", live_scores=True)).fit(X, y)
    copied = pickle.loads(pickle.dumps(model)).fit(X, y)
    assert np.array_equal(copied.coef_, model.coef_)
    assert [run.name for run in runs] == ["r", "r"]
    assert series(runs[1], "train_loss") == series(runs[0], "train_loss")


# -- in TrackedEstimator -----------------------------------------------------------------------------------------------


def test_a_tracked_estimator_follows_what_tells(runs: Runs) -> None:
    model = TrackedEstimator(logistic(), live_scores=True).fit(X, y)
    assert len(series(runs[0], "lbfgs_iter_seconds")) == model.n_iter_[0]
    assert series(runs[0], "train_loss")[-1][1] == runs[0].metrics["training_log_loss"]


def test_the_steps_of_a_continued_fit_come_behind(runs: Runs) -> None:
    model = TrackedEstimator(logistic(warm_start=True, max_iter=500), live_scores=True).fit(X, y)
    first = int(model.n_iter_[0])
    model.set_params(estimator__C=100.0).fit(X, y)
    steps = [step for step, _ in series(runs[0], "train_loss")]
    assert steps == list(range(first + int(model.n_iter_[0])))


def test_an_iteration_inside_a_pipeline_is_scored_once(runs: Runs) -> None:
    model = TrackedEstimator(make_pipeline(StandardScaler(), logistic()), live_scores=True).fit(X, y)
    assert [step for step, _ in series(runs[0], "train_loss")] == list(range(int(model.estimator_[-1].n_iter_[0])))


def test_nothing_of_ours_is_in_the_fitted_estimator_or_the_model(runs: Runs) -> None:
    for bare in (logistic(), make_pipeline(StandardScaler(), logistic()), GridSearchCV(logistic(), {"C": [1]}, cv=2)):
        model = TrackedEstimator(bare).fit(X, y)
        assert vars(model.estimator_).keys() == vars(type(bare)(**bare.get_params(deep=False)).fit(X, y)).keys()
    assert not any(b"overt" in run.artifacts["model/model.pkl"] for run in runs)


def test_the_users_own_callbacks_stay(runs: Runs) -> None:
    monitor = ScoringMonitor(scoring="accuracy")
    model = TrackedEstimator(logistic().set_callbacks(monitor)).fit(X, y)
    assert len(monitor.get_logs().data) > model.n_iter_[0] - 1
    assert model.estimator_._skl_callbacks == [monitor]


@pytest.mark.parametrize(
    "estimator",
    [
        logistic(solver="newton-cg"),
        make_pipeline(PCA(2), logistic()),
        make_pipeline(StandardScaler(), DecisionTreeClassifier()),
        make_pipeline(StandardScaler(), logistic(solver="newton-cg")),
        GridSearchCV(DecisionTreeClassifier(), {"max_depth": [1, 2]}, cv=2),
        GridSearchCV(make_pipeline(PCA(2), logistic()), {"pca__n_components": [1, 2]}, cv=2),
    ],
    ids=str,
)
def test_scikit_learn_has_nothing_to_warn_of(runs: Runs, estimator: Any) -> None:
    TrackedEstimator(estimator).fit(X, y)  # warnings are errors here
    assert runs[0].status == "FINISHED"


@pytest.mark.parametrize(
    "estimator",
    [
        DecisionTreeClassifier(),
        make_pipeline(MinMaxScaler(), logistic()),
        GridSearchCV(logistic(), {"C": [1.0, 2.0]}, cv=2),
    ],
    ids=str,
)
def test_live_scores_that_nothing_tells_of_are_said_to_be_none(runs: Runs, estimator: Any) -> None:
    with pytest.warns(OvertWarning, match="live_scores=True finds no iterations"):
        TrackedEstimator(estimator, live_scores=True).fit(X, y)
    assert series(runs[0], "train_loss") == []


@pytest.mark.filterwarnings("ignore:The estimator MinMaxScaler does not support callbacks")
@pytest.mark.parametrize(
    "estimator",
    [make_pipeline(MinMaxScaler(), logistic()), GridSearchCV(logistic(), {"C": [1.0, 2.0]}, cv=2)],
    ids=str,
)
def test_set_by_hand_the_callback_scores_what_takes_it(runs: Runs, estimator: Any) -> None:
    TrackedEstimator(estimator.set_callbacks(SklearnTrackingCallback(live_scores=True))).fit(X, y)
    assert any(series(run, "train_loss") for run in runs)


def test_a_search_tells_of_each_candidate(runs: Runs) -> None:
    TrackedEstimator(GridSearchCV(DecisionTreeClassifier(), {"max_depth": [1, 2]}, cv=2)).fit(X, y)
    assert [step for step, _ in series(runs[0], "candidate_split_evaluation_seconds")] == [0, 1, 2, 3]


def test_a_task_in_a_worker_forces_nothing_to_the_disk_and_leaves_nothing_open(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    tracker = overt.Tracker(store=f"jsonl:{tmp_path / 'experiments'}", delivery="manual")
    run = tracker.start_run("mine")
    forced: list[int] = []
    with monkeypatch.context() as patch:
        patch.setattr(run, "is_inherited", True)
        patch.setattr(os, "fsync", forced.append)
        logistic().set_callbacks(Follower(run, live_scores=False, max_propagation_depth=None)).fit(X, y)
    folder = run._writer.folder
    assert are_unused(segment_paths(folder))
    assert any(isinstance(r, Metric) and r.name == "lbfgs_iter_seconds" for r in iter_records(folder))
    assert forced == []
    run.finish()


def test_the_candidates_of_later_rounds_are_counted_on(runs: Runs) -> None:
    search = HalvingGridSearchCV(DecisionTreeClassifier(), {"max_depth": [1, 2, 3, 4, 5, 6]}, cv=2, random_state=0)
    model = TrackedEstimator(search).fit(X, y)
    assert len(model.n_candidates_) > 1
    steps = [step for step, _ in series(runs[0], "candidate_split_evaluation_seconds")]
    assert steps == list(range(2 * sum(model.n_candidates_)))


def test_a_regression_in_parts_has_its_scores_live(runs: Runs) -> None:
    from sklearn.linear_model import SGDRegressor

    data, target = load_diabetes(return_X_y=True)
    model = TrackedEstimator(SGDRegressor(random_state=0), live_scores=True)
    for _ in range(3):
        model.partial_fit(data, target)
    assert [step for step, _ in series(runs[0], "train_rmse")] == [0, 1, 2]
    assert {"train_r2"} <= set(runs[0].metrics)


def test_a_progress_bar_goes_with_it(runs: Runs) -> None:
    pytest.importorskip("rich")
    logistic().set_callbacks(SklearnTrackingCallback(), ProgressBar()).fit(X, y)
    assert runs[0].status == "FINISHED"
