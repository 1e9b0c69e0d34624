"""Curves of a fit become series, go on where the fit goes on, and held-out data have theirs stage by stage."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.calibration import CalibratedClassifierCV
from sklearn.datasets import load_breast_cancer, load_diabetes
from sklearn.ensemble import (
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
)
from sklearn.metrics import accuracy_score, log_loss, root_mean_squared_error
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.naive_bayes import GaussianNB
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from overt import TrackedEstimator
from overt.errors import ConfigurationError
from overt.stores.memory import MemoryRun

Runs = list[MemoryRun]
X, X_val, y, y_val = train_test_split(*load_breast_cancer(return_X_y=True), random_state=0)


def series(run: MemoryRun, name: str) -> list[tuple[int, float]]:
    return [(point.step, point.value) for point in run.history if point.name == name]


def boosting(**params: Any) -> GradientBoostingClassifier:
    return GradientBoostingClassifier(n_estimators=4, random_state=0, **params)


def test_the_loss_of_each_iteration_is_a_series(runs: Runs) -> None:
    model = TrackedEstimator(boosting()).fit(X, y)
    assert series(runs[0], "train_loss") == list(enumerate(model.train_score_))


def test_a_warm_start_goes_on_with_the_series_and_scores_each_fit(runs: Runs) -> None:
    model = TrackedEstimator(boosting(warm_start=True)).fit(X, y)
    model.set_params(estimator__n_estimators=6).fit(X, y)
    assert series(runs[0], "train_loss") == list(enumerate(model.train_score_))
    assert [step for step, _ in series(runs[0], "training_accuracy")] == [0, 1]
    assert [step for step, _ in series(runs[0], "fit_seconds")] == [0, 1]
    assert len(runs) == 1


def test_each_warm_fit_has_a_point_of_its_own_in_the_mean_over_the_folds(runs: Runs) -> None:
    model = TrackedEstimator(boosting(warm_start=True), cv=2, log_model=False).fit(X, y)
    model.set_params(estimator__n_estimators=6).fit(X, y)
    assert [step for step, _ in series(runs[0], "cv_mean_accuracy")] == [0, 1]
    assert [step for step, _ in series(runs[0], "cv_accuracy")] == [0, 1, 0, 1]


def test_a_continued_fit_that_fails_says_so_in_its_run(runs: Runs) -> None:
    model = TrackedEstimator(boosting(warm_start=True)).fit(X, y)
    model.set_params(estimator__n_estimators=2)
    with pytest.raises(ValueError, match="n_estimators=2 must be larger"):
        model.fit(X, y)
    assert (len(runs), runs[0].status) == (1, "FINISHED")
    assert "n_estimators=2 must be larger" in runs[0].tags["overt.error"]
    assert "Traceback" in runs[0].artifacts["overt/traceback.txt"].decode()


def test_a_fit_that_begins_anew_has_its_own_series(runs: Runs) -> None:
    model = TrackedEstimator(boosting()).fit(X, y)
    model.fit(X, y)
    assert [series(run, "train_loss") for run in runs] == [list(enumerate(model.train_score_))] * 2


def test_an_evaluation_after_each_warm_fit_is_a_series(runs: Runs) -> None:
    model = TrackedEstimator(boosting(warm_start=True))
    for count in (4, 6, 8):
        model.set_params(estimator__n_estimators=count).fit(X, y)
        model.evaluate(X_val, y_val)
    assert [step for step, _ in series(runs[0], "accuracy")] == [0, 1, 2]
    assert "eval_2_accuracy" not in runs[0].metrics


def test_an_evaluation_after_each_part_is_a_series(runs: Runs) -> None:
    model = TrackedEstimator(GaussianNB())
    for part in range(3):
        model.partial_fit(X[part::3], y[part::3], classes=[0, 1])
        model.evaluate(X_val, y_val)
        model.evaluate(X_val, y_val)
    assert [step for step, _ in series(runs[0], "accuracy")] == [0, 0, 1, 1, 2, 2]


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_parts_go_on_with_the_series(runs: Runs) -> None:
    model = TrackedEstimator(MLPClassifier(hidden_layer_sizes=(4,), random_state=0))
    for part in range(3):
        model.partial_fit(X, y, classes=[0, 1])
        assert len(series(runs[0], "train_loss")) == part + 1
    assert series(runs[0], "train_loss") == list(enumerate(model.loss_curve_))


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_parts_in_a_new_run_do_not_repeat_the_curve_of_the_earlier_one(runs: Runs) -> None:
    model = TrackedEstimator(MLPClassifier(hidden_layer_sizes=(4,), max_iter=3, random_state=0))
    model.fit(X, y)
    for _ in range(2):
        model.partial_fit(X, y)
        model.run_.finish()
    points = list(enumerate(model.loss_curve_))
    assert [series(run, "train_loss") for run in runs] == [points[:3], points[3:4], points[4:]]


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_a_curve_of_its_own_is_not_mixed_with_live_scores(runs: Runs) -> None:
    model = TrackedEstimator(MLPClassifier(hidden_layer_sizes=(4,), random_state=0), live_scores=True)
    for _ in range(3):
        model.partial_fit(X, y, classes=[0, 1])
    assert series(runs[0], "train_loss") == list(enumerate(model.loss_curve_))
    assert [step for step, _ in series(runs[0], "train_accuracy")] == [0, 1, 2]


def test_an_eval_set_is_scored_after_each_stage(runs: Runs) -> None:
    model = TrackedEstimator(boosting()).fit(X, y, eval_set=(X_val, y_val))
    assert series(runs[0], "val_accuracy") == list(
        enumerate(accuracy_score(y_val, predicted) for predicted in model.estimator_.staged_predict(X_val))
    )
    assert series(runs[0], "val_log_loss")[-1][1] == log_loss(y_val, model.predict_proba(X_val))
    assert [(found.name, found.context) for found in runs[0].datasets] == [("train", "training"), ("val", "val")]


def test_an_eval_set_of_a_regression_behind_a_pipeline(runs: Runs) -> None:
    data, data_val, target, target_val = train_test_split(*load_diabetes(return_X_y=True), random_state=0)
    pipeline = make_pipeline(StandardScaler(), GradientBoostingRegressor(n_estimators=3))
    model = TrackedEstimator(pipeline).fit(data, target, eval_set=(data_val, target_val))
    last = root_mean_squared_error(target_val, model.predict(data_val))
    assert [step for step, _ in series(runs[0], "val_rmse")] == [0, 1, 2]
    assert series(runs[0], "val_rmse")[-1][1] == pytest.approx(last, rel=1e-12)


def test_a_log_loss_of_ours_is_not_called_as_if_it_were_the_loss_that_the_estimator_keeps(runs: Runs) -> None:
    model = TrackedEstimator(boosting(loss="exponential"), check_overlap=False).fit(X, y, eval_set=(X, y))
    assert "val_loss" not in runs[0].metrics
    assert runs[0].metrics["val_log_loss"] == runs[0].metrics["training_log_loss"] != model.train_score_[-1]


@pytest.mark.parametrize("scoring", ["loss", "accuracy"])
def test_an_eval_set_beside_a_validation_set_of_the_fits_own_is_the_second(runs: Runs, scoring: str) -> None:
    booster = HistGradientBoostingClassifier(max_iter=3, early_stopping=True, scoring=scoring, random_state=0)
    model = TrackedEstimator(booster).fit(X, y, eval_set=(X_val, y_val))
    assert len(series(runs[0], f"val_{scoring}")) == len(model.validation_score_)
    assert [step for step, _ in series(runs[0], "val_2_log_loss")] == [0, 1, 2]
    assert runs[0].metrics["val_2_accuracy"] == model.score(X_val, y_val)
    assert [found.name for found in runs[0].datasets] == ["train", "val_2"]


def test_an_eval_set_reaches_through_a_tracked_estimator_inside(runs: Runs) -> None:
    TrackedEstimator(TrackedEstimator(boosting())).fit(X, y, eval_set=(X_val, y_val))
    assert [step for step, _ in series(runs[0], "val_accuracy")] == [0, 1, 2, 3]


def test_a_score_named_as_a_curve_is_the_point_after_its_last(runs: Runs) -> None:
    model = TrackedEstimator(boosting()).fit(X, y, eval_set=(X_val, y_val))
    report = model.evaluate(X_val, y_val, name="val")
    assert series(runs[0], "val_log_loss")[-1] == (4, report["log_loss"])
    assert series(runs[0], "val_accuracy")[-1] == (4, report["accuracy"])
    assert runs[0].metrics["val_accuracy"] == report["accuracy"]


class TakesEvalSet(ClassifierMixin, BaseEstimator):
    """As xgboost does it."""

    def __init__(self, label: int = 0, seen: Any = None) -> None:
        self.label = label
        self.seen = seen

    def __sklearn_clone__(self) -> TakesEvalSet:
        return TakesEvalSet(self.label, self.seen)  # a list of all that its copies were given

    def fit(self, X: Any, y: Any, eval_set: Any = None) -> TakesEvalSet:
        self.classes_ = np.unique(y)
        self.given_ = eval_set
        if self.seen is not None:
            self.seen.append(eval_set)
        self.evals_result_ = {f"validation_{i}": {"logloss": [0.5 + i, 0.4 + i]} for i in range(self._n_sets(eval_set))}
        return self

    def _n_sets(self, eval_set: Any) -> int:
        return 1 if isinstance(eval_set, tuple) else len(eval_set)  # lightgbm also takes a lone pair

    def predict(self, X: Any) -> Any:
        return np.full(len(X), self.label)

    def predict_proba(self, X: Any) -> Any:
        return np.full((len(X), 2), 0.5)


def test_an_estimator_that_takes_an_eval_set_gets_it_and_its_curves_are_named_by_the_data(runs: Runs) -> None:
    given = [(X, y), (X_val, y_val)]
    model = TrackedEstimator(TakesEvalSet(), log_model=False).fit(X, y, eval_set=given)
    assert model.given_ is given
    assert series(runs[0], "train_logloss") == [(0, 0.5), (1, 0.4)]
    assert series(runs[0], "val_logloss") == [(0, 1.5), (1, 1.4)]


def test_a_copy_of_the_training_data_is_known_as_such(runs: Runs) -> None:
    TrackedEstimator(TakesEvalSet(), log_model=False).fit(X, y, eval_set=[(X_val, y_val), (X.copy(), y)])
    assert series(runs[0], "val_logloss") == [(0, 0.5), (1, 0.4)]
    assert series(runs[0], "train_logloss") == [(0, 1.5), (1, 1.4)]


def test_a_lone_pair_is_one_evaluation_set(runs: Runs) -> None:
    table = pd.DataFrame(X)
    TrackedEstimator(TakesEvalSet(), log_model=False).fit(table, y, eval_set=(table.copy(), y))
    assert [len(series(runs[0], name)) for name in ("train_logloss", "val_logloss")] == [2, 0]


@pytest.mark.parametrize("before", ["passthrough", StandardScaler()], ids=["as given", "scaled"])
def test_evaluation_sets_of_a_pipelines_step_are_named_by_the_data(runs: Runs, before: Any) -> None:
    transformed = X if before == "passthrough" else StandardScaler().fit_transform(X)
    pipeline = make_pipeline(before, TakesEvalSet())
    given = [(transformed, y), (X_val, y_val)]
    TrackedEstimator(pipeline, log_model=False).fit(X, y, takesevalset__eval_set=given)
    assert series(runs[0], "train_logloss") == [(0, 0.5), (1, 0.4)]
    assert series(runs[0], "val_logloss") == [(0, 1.5), (1, 1.4)]


@pytest.mark.parametrize(
    "around",
    [
        lambda inner: GridSearchCV(inner, {"label": [0, 1]}, cv=2),
        lambda inner: CalibratedClassifierCV(inner, cv=2),
        lambda inner: GridSearchCV(CalibratedClassifierCV(inner, cv=2), {"estimator__label": [0, 1]}, cv=2),
    ],
    ids=["search", "calibration", "both"],
)
def test_an_estimator_inside_another_gets_the_eval_set_that_its_fit_takes(runs: Runs, around: Any) -> None:
    seen: list[Any] = []
    given = [(X_val, y_val)]
    TrackedEstimator(around(TakesEvalSet(seen=seen)), log_model=False).fit(X, y, eval_set=given)
    assert seen
    assert all(eval_set is given for eval_set in seen)
    assert runs[0].status == "FINISHED"


def test_the_curves_of_a_searchs_best_candidate_are_series(runs: Runs) -> None:
    search = GridSearchCV(TakesEvalSet(), {"label": [0, 1]}, cv=2)
    TrackedEstimator(search, log_model=False).fit(X, y, eval_set=[(X, y), (X_val, y_val)])
    assert series(runs[0], "train_logloss") == [(0, 0.5), (1, 0.4)]
    assert series(runs[0], "val_logloss") == [(0, 1.5), (1, 1.4)]


def test_a_search_of_boosted_models_is_scored_on_the_eval_set_after_each_stage(runs: Runs) -> None:
    search = GridSearchCV(boosting(), {"max_depth": [1, 2]}, cv=2)
    TrackedEstimator(search, log_model=False).fit(X, y, eval_set=(X_val, y_val))
    assert [step for step, _ in series(runs[0], "val_accuracy")] == [0, 1, 2, 3]


@pytest.mark.parametrize("estimator", [boosting(), RandomForestClassifier(2)], ids=["staged", "not staged"])
def test_an_eval_set_of_none_is_none(runs: Runs, estimator: Any) -> None:
    TrackedEstimator(estimator, log_model=False).fit(X, y, eval_set=None)
    assert (runs[0].status, series(runs[0], "val_accuracy")) == ("FINISHED", [])


@pytest.mark.parametrize(
    "eval_set",
    [X_val, (X_val,), "val", [(X, y), (X_val, y_val)], (X_val, None), (X_val, y_val[1:])],
    ids=["array", "one", "text", "pairs", "no targets", "other rows"],
)
def test_an_eval_set_that_is_no_pair_is_refused_before_anything_begins(runs: Runs, eval_set: Any) -> None:
    with pytest.raises(ConfigurationError, match="must be a pair"):
        TrackedEstimator(boosting()).fit(X, y, eval_set=eval_set)
    assert runs == []


def test_an_eval_set_for_what_has_no_stages_is_refused_with_the_way_out(runs: Runs) -> None:
    with pytest.raises(ConfigurationError, match=r"evaluate\(X_val, y_val, name=\"val\"\)"):
        TrackedEstimator(RandomForestClassifier()).fit(X, y, eval_set=(X_val, y_val))


def test_curves_that_cannot_be_computed_stop_nothing(runs: Runs) -> None:
    from overt import OvertWarning

    with pytest.warns(OvertWarning, match="curves"):
        model = TrackedEstimator(boosting()).fit(X, y, eval_set=(X_val[:, :3], y_val))
    assert (runs[0].status, model.n_features_in_) == ("FINISHED", 30)
