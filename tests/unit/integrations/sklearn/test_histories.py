"""Curves of fitted estimators: one value per iteration, named as a loop would name them, equal to sklearn.metrics."""

from __future__ import annotations

import importlib.util
import warnings
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.datasets import load_diabetes, load_iris
from sklearn.decomposition import DictionaryLearning, FactorAnalysis, SparsePCA
from sklearn.ensemble import (
    AdaBoostClassifier,
    AdaBoostRegressor,
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
)
from sklearn.exceptions import ConvergenceWarning
from sklearn.feature_selection import SelectKBest, f_classif
from sklearn.linear_model import ARDRegression, BayesianRidge, LogisticRegressionCV, SGDClassifier
from sklearn.metrics import accuracy_score, log_loss, make_scorer, mean_squared_error, r2_score
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import PolynomialFeatures, StandardScaler

from overt.integrations.sklearn.histories import can_be_staged, staged_scores, training_history

X, y = load_iris(return_X_y=True)
NAMES = np.array(["setosa", "versicolor", "virginica"])[y]
XR, yr = load_diabetes(return_X_y=True)


def fitted(estimator: Any, X: Any = X, y: Any = y) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return estimator.fit(X, y)


# --- curves of the fit ------------------------------------------------------------------------------------------------


def test_a_network_has_its_loss_and_with_early_stopping_its_validation_score() -> None:
    network = fitted(MLPClassifier(max_iter=5, random_state=0))
    assert training_history(network) == {"train_loss": network.loss_curve_}
    network = fitted(MLPClassifier(max_iter=5, early_stopping=True, random_state=0))
    assert training_history(network) == {"train_loss": network.loss_curve_, "val_accuracy": network.validation_scores_}
    network = fitted(MLPRegressor(max_iter=5, early_stopping=True, random_state=0), XR, yr)
    assert training_history(network) == {"train_loss": network.loss_curve_, "val_r2": network.validation_scores_}


def test_gradient_boosting_has_its_loss_and_out_of_bag_its_loss_there() -> None:
    model = GradientBoostingClassifier(n_estimators=4, subsample=0.5, random_state=0).fit(X, y)
    assert training_history(model) == {
        "train_loss": model.train_score_.tolist(),
        "oob_loss": model.oob_scores_.tolist(),
    }
    model = GradientBoostingRegressor(n_estimators=4).fit(XR, yr)
    assert training_history(model) == {"train_loss": model.train_score_.tolist()}
    assert model.train_score_[3] == pytest.approx(mean_squared_error(yr, model.predict(XR)))


def test_histogram_boosting_has_its_loss_as_a_positive_number() -> None:
    model = HistGradientBoostingRegressor(max_iter=4, early_stopping=True, scoring="loss", random_state=0).fit(XR, yr)
    history = training_history(model)
    assert history == {"train_loss": (-model.train_score_).tolist(), "val_loss": (-model.validation_score_).tolist()}
    assert min(history["train_loss"]) > 0
    assert len(history["train_loss"]) == 5


@pytest.mark.parametrize(
    ("scoring", "name"),
    [(None, "accuracy"), ("neg_log_loss", "neg_log_loss"), (make_scorer(accuracy_score), "accuracy_score")],
)
def test_histogram_boosting_has_the_scores_it_was_asked_for(scoring: Any, name: str) -> None:
    model = HistGradientBoostingClassifier(max_iter=3, early_stopping=True, scoring=scoring, random_state=0).fit(X, y)
    expected = {f"train_{name}": model.train_score_.tolist(), f"val_{name}": model.validation_score_.tolist()}
    assert training_history(model) == expected


def test_histogram_boosting_without_early_stopping_has_no_curve() -> None:
    assert training_history(HistGradientBoostingClassifier(max_iter=3, early_stopping=False).fit(X, y)) == {}
    only_train = HistGradientBoostingClassifier(max_iter=3, early_stopping=True, validation_fraction=None).fit(X, y)
    assert set(training_history(only_train)) == {"train_loss"}


@pytest.mark.parametrize("make", [BayesianRidge, ARDRegression])
def test_bayesian_regression_has_its_likelihood_if_it_computed_one(make: Any) -> None:
    model = make(compute_score=True).fit(XR, yr)
    assert training_history(model) == {"train_log_marginal_likelihood": list(model.scores_)}
    assert training_history(make().fit(XR, yr)) == {}


def test_a_mixture_has_the_lower_bound_of_its_best_start() -> None:
    model = fitted(GaussianMixture(3, n_init=2, random_state=0))
    if not hasattr(model, "lower_bounds_"):
        pytest.skip("scikit-learn keeps lower_bounds_ from 1.7 on")
    assert training_history(model) == {"train_lower_bound": list(model.lower_bounds_)}
    assert model.lower_bounds_[-1] == model.lower_bound_


def test_decompositions_have_their_cost_or_likelihood() -> None:
    model = fitted(FactorAnalysis(2))
    assert training_history(model) == {"train_log_likelihood": list(model.loglike_)}
    for make in (DictionaryLearning, SparsePCA):
        model = fitted(make(2, max_iter=5, random_state=0))
        assert training_history(model) == {"train_loss": list(model.error_)}
        assert len(model.error_) > 1


@pytest.mark.parametrize(
    "estimator",
    [
        SGDClassifier(random_state=0),
        RandomForestClassifier(3),
        SelectKBest(f_classif, k=2),
        StandardScaler(),
        LogisticRegressionCV(Cs=2, cv=2, max_iter=2_000),
    ],
    ids=lambda estimator: type(estimator).__name__,
)
def test_what_holds_no_series_gives_none(estimator: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        assert training_history(estimator.fit(X, y)) == {}


def test_the_final_estimator_of_a_pipeline_or_search_is_read() -> None:
    pipeline = make_pipeline(StandardScaler(), GradientBoostingClassifier(n_estimators=3)).fit(X, y)
    assert training_history(pipeline) == {"train_loss": pipeline[-1].train_score_.tolist()}
    search = GridSearchCV(pipeline, {"gradientboostingclassifier__n_estimators": [3, 5]}, cv=2).fit(X, y)
    assert training_history(search) == {"train_loss": search.best_estimator_[-1].train_score_.tolist()}
    without_refit = GridSearchCV(pipeline, {"gradientboostingclassifier__n_estimators": [3, 5]}, cv=2, refit=False)
    assert training_history(without_refit.fit(X, y)) == {}


def test_what_was_not_fitted_gives_none() -> None:
    assert training_history(GradientBoostingClassifier()) == {}
    assert training_history(GridSearchCV(GradientBoostingClassifier(), {"n_estimators": [1]})) == {}


# --- evaluation sets of xgboost and lightgbm, epochs of skorch and keras ----------------------------------------------


class Boosted(ClassifierMixin, BaseEstimator):
    """Has what ``XGBClassifier`` and ``LGBMClassifier`` have."""

    def __init__(self, results: Any = None) -> None:
        self.results = results

    def evals_result(self) -> Any:
        if self.results is None:
            raise RuntimeError("No evaluation result, `eval_set` is not used during training.")
        return self.results


TWO_SETS = {
    "validation_0": {"logloss": [0.5, 0.4], "auc": [0.8, 0.9]},
    "validation_1": {"logloss": [0.6, 0.5], "auc": [0.7, 0.8]},
}


def test_evaluation_sets_are_named_by_whether_they_are_the_training_data() -> None:
    assert training_history(Boosted(TWO_SETS), eval_sets=[True, False]) == {
        "train_logloss": [0.5, 0.4], "train_auc": [0.8, 0.9], "val_logloss": [0.6, 0.5], "val_auc": [0.7, 0.8],
    }  # fmt: skip
    assert training_history(Boosted(TWO_SETS), eval_sets=[False, True])["train_auc"] == [0.7, 0.8]
    for eval_sets in ([], [False, False], [True]):
        assert list(training_history(Boosted(TWO_SETS), eval_sets=eval_sets)) == [
            "val_logloss", "val_auc", "val_2_logloss", "val_2_auc",
        ]  # fmt: skip


def test_an_evaluation_set_that_says_it_is_the_training_data_is_believed() -> None:
    model = SimpleNamespace(evals_result_={"training": {"l2": [3.0]}, "valid_1": {"l2": [4.0]}})
    assert training_history(model_of(model), eval_sets=[False, True]) == {"train_l2": [3.0], "val_l2": [4.0]}


def test_a_fit_without_evaluation_sets_has_no_curves() -> None:
    assert training_history(Boosted(None)) == training_history(Boosted({})) == {}


class Holder(RegressorMixin, BaseEstimator):
    """Any attributes, on an estimator."""


def model_of(attributes: SimpleNamespace) -> Holder:
    model = Holder()
    vars(model).update(vars(attributes))
    return model


def test_the_epochs_of_skorch_become_series_of_their_numbers() -> None:
    epochs = [
        {"batches": [{"train_loss": 1.0}], "epoch": 1, "train_batch_count": 3, "train_loss": np.float32(1.0),
         "train_loss_best": True, "valid_loss": 1.5, "valid_acc": 0.5, "valid_acc_best": np.True_, "dur": 0.25},
        {"batches": [], "epoch": 2, "train_batch_count": 3, "train_loss": 0.5, "train_loss_best": True, "dur": 0.5,
         "roc": 0.9},
    ]  # fmt: skip
    history = training_history(model_of(SimpleNamespace(history_=epochs)))
    assert set(history) == {"train_loss", "val_loss", "val_accuracy", "epoch_seconds", "roc"}
    assert history["train_loss"] == [1.0, 0.5]
    assert history["epoch_seconds"] == [0.25, 0.5]
    assert np.array_equal(history["val_accuracy"], [0.5, np.nan], equal_nan=True)
    assert np.array_equal(history["roc"], [np.nan, 0.9], equal_nan=True)
    assert type(history["train_loss"][0]) is float


def test_the_history_of_keras_says_which_series_are_of_the_training_data() -> None:
    history = {"loss": [1.0, 0.5], "acc": [0.1, 0.2], "val_loss": [2.0, 1.0], "val_acc": [0.3, 0.4], "lr": [0.1, 0.1]}
    assert training_history(model_of(SimpleNamespace(history_=history))) == {
        "train_loss": [1.0, 0.5], "train_accuracy": [0.1, 0.2], "val_loss": [2.0, 1.0], "val_accuracy": [0.3, 0.4],
        "learning_rate": [0.1, 0.1],
    }  # fmt: skip


@pytest.mark.parametrize(
    "attributes",
    [
        {"loss_curve_": None}, {"loss_curve_": []}, {"loss_curve_": [[1.0]]}, {"loss_curve_": ["x"]},
        {"train_score_": 0.5}, {"error_": [1.0, 2.0]}, {"error_": [1.0] * 9, "n_iter_": 2}, {"history_": [1, 2]},
        {"history_": 3}, {"history_": {}}, {"history_": []}, {"evals_result_": [1]}, {"evals_result_": {"a": [1.0]}},
        {"evals_result_": {"a": {"b": None}}}, {"scores_": [1.0, 2.0], "n_iter_": 2},
    ],
    ids=str,
)  # fmt: skip
def test_attributes_of_another_meaning_are_left_alone(attributes: dict[str, Any]) -> None:
    assert training_history(model_of(SimpleNamespace(**attributes))) == {}


def test_xgboost_itself() -> None:
    xgboost = pytest.importorskip("xgboost")
    model = xgboost.XGBClassifier(n_estimators=3, n_jobs=1, eval_metric=["mlogloss", "merror"])
    assert training_history(model.fit(X, y)) == {}
    history = training_history(
        model.fit(X, y, eval_set=[(X, y), (X[::2], y[::2])], verbose=False), eval_sets=[True, False]
    )
    assert list(history) == ["train_mlogloss", "train_merror", "val_mlogloss", "val_merror"]
    assert history["train_mlogloss"][-1] == pytest.approx(log_loss(y, model.predict_proba(X)), rel=1e-4)
    assert history["val_mlogloss"][-1] == pytest.approx(log_loss(y[::2], model.predict_proba(X[::2])), rel=1e-4)


def test_lightgbm_itself() -> None:
    lightgbm = pytest.importorskip("lightgbm")
    model = lightgbm.LGBMRegressor(n_estimators=3, n_jobs=1, verbose=-1)
    assert training_history(model) == training_history(model.fit(XR, yr)) == {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # 4.7 has eval_X and eval_y beside eval_set, and warns of the latter
        model.fit(XR, yr, eval_set=[(XR[::2], yr[::2]), (XR, yr)])
    history = training_history(model)
    assert list(history) == ["train_l2", "val_l2"]
    assert history["train_l2"][-1] == pytest.approx(mean_squared_error(yr, model.predict(XR)), rel=1e-4)
    assert history["val_l2"][-1] == pytest.approx(mean_squared_error(yr[::2], model.predict(XR[::2])), rel=1e-4)


@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="skorch needs torch")
def test_skorch_itself() -> None:
    skorch = pytest.importorskip("skorch")
    import torch

    net = skorch.NeuralNetClassifier(
        torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Softmax(dim=-1)), max_epochs=3, verbose=0
    )
    history = training_history(net.fit(X.astype("f4"), y.astype("i8")))
    assert set(history) == {"train_loss", "val_loss", "val_accuracy", "epoch_seconds"}
    assert history["val_accuracy"] == net.history[:, "valid_acc"]
    assert len(history["epoch_seconds"]) == 3


# --- curves of held-out data ------------------------------------------------------------------------------------------


CLASSIFIERS = [
    AdaBoostClassifier(n_estimators=4, random_state=0),
    GradientBoostingClassifier(n_estimators=4, random_state=0),
    HistGradientBoostingClassifier(max_iter=4),
]
REGRESSORS = [
    AdaBoostRegressor(n_estimators=4, random_state=0),
    GradientBoostingRegressor(n_estimators=4),
    HistGradientBoostingRegressor(max_iter=4),
]


@pytest.mark.parametrize("labels", [y, NAMES, NAMES == "setosa", pd.Series(NAMES, dtype="category")], ids=list("itbc"))
@pytest.mark.parametrize("model", CLASSIFIERS, ids=lambda model: type(model).__name__)
def test_held_out_curves_of_classifiers_are_those_of_sklearn_metrics(model: Any, labels: Any) -> None:
    X_train, X_test, y_train, y_test = train_test_split(X, labels, random_state=0)
    scores = staged_scores(model.fit(X_train, y_train), X_test, y_test)
    assert set(scores) == {"val_accuracy", "val_log_loss"}
    assert len(scores["val_accuracy"]) == len(scores["val_log_loss"]) == len(list(model.staged_predict(X_test)))
    assert scores["val_accuracy"][-1] == accuracy_score(y_test, model.predict(X_test))
    assert scores["val_log_loss"][-1] == pytest.approx(log_loss(y_test, model.predict_proba(X_test)))
    first = next(iter(model.staged_predict(X_test)))
    assert scores["val_accuracy"][0] == accuracy_score(y_test, first)
    assert all(type(value) is float for values in scores.values() for value in values)


@pytest.mark.parametrize("model", REGRESSORS, ids=lambda model: type(model).__name__)
def test_held_out_curves_of_regressors_are_those_of_sklearn_metrics(model: Any) -> None:
    X_train, X_test, y_train, y_test = train_test_split(XR, yr, random_state=0)
    scores = staged_scores(model.fit(X_train, y_train), X_test, y_test)
    assert set(scores) == {"val_rmse", "val_r2"}
    assert scores["val_rmse"][-1] == pytest.approx(mean_squared_error(y_test, model.predict(X_test)) ** 0.5)
    assert scores["val_r2"][-1] == pytest.approx(r2_score(y_test, model.predict(X_test)))
    first = next(iter(model.staged_predict(X_test)))
    assert scores["val_r2"][0] == pytest.approx(r2_score(y_test, first))


def test_held_out_curves_pass_through_the_steps_before() -> None:
    inner = GradientBoostingClassifier(n_estimators=3, random_state=0)
    pipeline = make_pipeline(StandardScaler(), Pipeline([("more", PolynomialFeatures(2)), ("model", inner)]))
    search = GridSearchCV(pipeline, {"pipeline__model__max_depth": [1, 2]}, cv=2)
    for model in (pipeline, search, make_pipeline(search)):
        assert can_be_staged(model)
        scores = staged_scores(model.fit(X[::2], NAMES[::2]), X[1::2], NAMES[1::2])
        assert scores["val_accuracy"][-1] == accuracy_score(NAMES[1::2], model.predict(X[1::2]))
        assert scores["val_log_loss"][-1] == pytest.approx(log_loss(NAMES[1::2], model.predict_proba(X[1::2])))


def test_a_class_that_the_fit_has_not_seen_leaves_no_log_loss() -> None:
    model = GradientBoostingClassifier(n_estimators=2).fit(X[:100], NAMES[:100])
    assert set(staged_scores(model, X, NAMES)) == {"val_accuracy"}
    assert set(staged_scores(model, X[:10], NAMES[:10])) == {"val_accuracy", "val_log_loss"}


def test_what_cannot_be_staged_has_no_held_out_curves() -> None:
    for model in (RandomForestClassifier(2), SGDClassifier(random_state=0), make_pipeline(StandardScaler())):
        assert not can_be_staged(model)
        assert staged_scores(model.fit(X, y), X, y) == {}
    without_refit = GridSearchCV(GradientBoostingClassifier(n_estimators=1), {"max_depth": [1, 2]}, cv=2, refit=False)
    assert can_be_staged(without_refit)
    assert staged_scores(without_refit.fit(X, y), X, y) == {}
