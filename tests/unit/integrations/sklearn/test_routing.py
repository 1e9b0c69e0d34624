"""Where ``groups`` goes: to the splitter that asks for it, and to the estimator only if its own ``fit`` takes it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import sklearn
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.cluster import KMeans
from sklearn.datasets import make_classification
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import (
    BaseCrossValidator,
    GridSearchCV,
    GroupKFold,
    GroupShuffleSplit,
    KFold,
    LeaveOneGroupOut,
    StratifiedGroupKFold,
    cross_val_score,
)
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier

from overt import TrackedEstimator
from overt.stores.memory import MemoryRun

Runs = list[MemoryRun]

X, y = make_classification(80, 5, random_state=0)
GROUPS = np.random.RandomState(0).randint(0, 6, 80)
WEIGHTS = np.linspace(0.1, 1, 80)


@pytest.fixture(params=[False, True], ids=["routing off", "routing on"])
def routing(request: pytest.FixtureRequest) -> Iterator[bool]:
    with sklearn.config_context(enable_metadata_routing=request.param):
        yield request.param


def folds(run: MemoryRun) -> list[float]:
    return [point.value for point in run.history if point.name == "cv_accuracy"]


def expected(estimator: Any, cv: Any, **params: Any) -> list[float]:
    with sklearn.config_context(enable_metadata_routing=False):
        return cross_val_score(estimator, X, y, cv=cv, groups=GROUPS, params=params or None).tolist()


@pytest.mark.parametrize(
    "cv", [GroupKFold(5), LeaveOneGroupOut(), StratifiedGroupKFold(3), GroupShuffleSplit(3, random_state=0)], ids=repr
)
def test_groups_reach_a_splitter_that_splits_by_them(runs: Runs, routing: bool, cv: Any) -> None:
    TrackedEstimator(GaussianNB(), cv=cv).fit(X, y, groups=GROUPS)
    assert folds(runs[0]) == expected(GaussianNB(), cv)
    assert runs[0].status == "FINISHED"
    assert runs[0].metrics["training_accuracy"] == GaussianNB().fit(X, y).score(X, y)


def test_groups_and_weights_each_go_where_they_belong(runs: Runs, routing: bool) -> None:
    tree = DecisionTreeClassifier(max_depth=2, random_state=0)
    if routing:
        tree.set_fit_request(sample_weight=True).set_score_request(sample_weight=False)
    TrackedEstimator(tree, cv=GroupKFold(4)).fit(X, y, groups=GROUPS, sample_weight=WEIGHTS)
    bare = DecisionTreeClassifier(max_depth=2, random_state=0)
    assert folds(runs[0]) == expected(bare, GroupKFold(4), sample_weight=WEIGHTS)


def test_a_pipeline_is_fitted_without_the_groups(runs: Runs, routing: bool) -> None:
    model = make_pipeline(StandardScaler(), GaussianNB())
    TrackedEstimator(model, cv=GroupKFold(3)).fit(X, y, groups=GROUPS)
    assert folds(runs[0]) == expected(model, GroupKFold(3))


def test_fit_predict_and_fit_transform_divide_them_too(runs: Runs, routing: bool) -> None:
    for method in ("fit_predict", "fit_transform"):
        getattr(TrackedEstimator(KMeans(2, n_init=1, random_state=0), cv=GroupKFold(3)), method)(X, groups=GROUPS)
    assert ["cv_mean_score" in run.metrics for run in runs] == [True, True]


class TakesGroups(ClassifierMixin, BaseEstimator):
    def fit(self, X: Any, y: Any, groups: Any = None) -> TakesGroups:
        self.classes_ = np.unique(y)
        self.n_groups_ = 0 if groups is None else len(np.unique(groups))
        return self

    def predict(self, X: Any) -> Any:
        return np.repeat(self.classes_[0], len(X))


def test_an_estimator_whose_fit_takes_groups_gets_them_as_well(runs: Runs, routing: bool) -> None:
    inner = TakesGroups().set_fit_request(groups=True) if routing else TakesGroups()
    model = TrackedEstimator(inner, cv=LeaveOneGroupOut()).fit(X, y, groups=GROUPS)
    assert model.n_groups_ == 6
    assert len(folds(runs[0])) == 6


def test_without_a_splitter_that_wants_them_groups_are_the_estimators(runs: Runs, routing: bool) -> None:
    assert TrackedEstimator(TakesGroups()).fit(X, y, groups=GROUPS).n_groups_ == 6
    for cv in (None, 3):
        with pytest.raises(TypeError, match="groups"):
            TrackedEstimator(GaussianNB(), cv=cv).fit(X, y, groups=GROUPS)
    with pytest.raises(TypeError, match="groups"):
        TrackedEstimator(GaussianNB(), cv=KFold(3)).fit(X, y, groups=GROUPS)


def test_a_search_that_splits_by_groups_gets_them_with_and_without_a_cv_around_it(runs: Runs, routing: bool) -> None:
    def search() -> Any:
        return GridSearchCV(DecisionTreeClassifier(random_state=0), {"max_depth": [1, 3]}, cv=GroupKFold(2))

    bare = search().fit(X, y, groups=GROUPS)
    for cv in (None, GroupKFold(3)):
        model = TrackedEstimator(search(), cv=cv).fit(X, y, groups=GROUPS)
        assert model.cv_results_["mean_test_score"].tolist() == bare.cv_results_["mean_test_score"].tolist()
    assert folds(runs[1]) == expected(search(), GroupKFold(3), groups=GROUPS)


def test_a_search_with_plain_folds_is_not_given_the_groups_of_the_cv_around_it(runs: Runs, routing: bool) -> None:
    search = GridSearchCV(DecisionTreeClassifier(random_state=0), {"max_depth": [1, 3]}, cv=2)
    TrackedEstimator(search, cv=GroupKFold(3)).fit(X, y, groups=GROUPS)  # KFold would warn that it ignores them
    assert len(folds(runs[0])) == 3


class Own(BaseCrossValidator):
    def split(self, X: Any, y: Any = None, groups: Any = None) -> Iterator[Any]:
        return LeaveOneGroupOut().split(X, y, groups)

    def get_n_splits(self, X: Any = None, y: Any = None, groups: Any = None) -> int:
        return len(np.unique(groups))


class Plain:
    split, get_n_splits = Own.split, Own.get_n_splits


@pytest.mark.parametrize("kind", [Own, Plain])
def test_a_splitter_of_ones_own_that_names_groups_gets_them(runs: Runs, kind: Any) -> None:
    TrackedEstimator(GaussianNB(), cv=kind()).fit(X, y, groups=GROUPS)
    assert folds(runs[0]) == expected(GaussianNB(), LeaveOneGroupOut())


def test_with_routing_a_splitter_may_call_its_groups_otherwise(runs: Runs) -> None:
    with sklearn.config_context(enable_metadata_routing=True):
        TrackedEstimator(GaussianNB(), cv=GroupKFold(3).set_split_request(groups="patients")).fit(X, y, patients=GROUPS)
    assert folds(runs[0]) == expected(GaussianNB(), GroupKFold(3))


def test_in_a_pipeline_the_tracked_step_takes_its_groups(runs: Runs) -> None:
    model = make_pipeline(StandardScaler(), TrackedEstimator(LogisticRegression(), cv=GroupKFold(3)))
    model.fit(X, y, trackedestimator__groups=GROUPS)
    assert len(folds(runs[0])) == 3
