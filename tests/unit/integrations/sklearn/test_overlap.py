"""Rows that a model was fitted to are told from held-out ones, whatever container they come in."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.sparse import csr_matrix
from sklearn.cluster import KMeans
from sklearn.datasets import make_classification
from sklearn.ensemble import GradientBoostingClassifier
from sklearn.model_selection import GridSearchCV
from sklearn.naive_bayes import GaussianNB
from sklearn.neural_network import MLPClassifier
from sklearn.tree import DecisionTreeClassifier

from overt import OvertWarning, TrackedEstimator
from overt.errors import ConfigurationError
from overt.stores.memory import MemoryRun

Runs = list[MemoryRun]
X, y = make_classification(60, n_features=4, random_state=0)


def model(**keywords: Any) -> TrackedEstimator:
    return TrackedEstimator(GaussianNB(), training_metrics=False, log_model=False, **keywords)


def test_shared_rows_are_counted_said_and_tagged(runs: Runs) -> None:
    fitted = model().fit(X[:40], y[:40])
    with pytest.warns(OvertWarning, match="5 of the 25 rows given to evaluate") as said:
        fitted.evaluate(X[35:], y[35:])
    assert "check_overlap=False" in str(said[0].message)
    assert runs[0].tags["overt.overlap_rows"] == "5"


def test_a_named_set_has_a_tag_of_its_own(runs: Runs) -> None:
    fitted = model().fit(X[:40], y[:40])
    with pytest.warns(OvertWarning, match=r"evaluate\(name='val'\)"):
        fitted.evaluate(X[30:], y[30:], name="val")
    assert runs[0].tags["overt.overlap_rows.val"] == "10"
    assert "overt.overlap_rows" not in runs[0].tags


def test_held_out_rows_are_none(runs: Runs) -> None:
    model().fit(X[:40], y[:40]).evaluate(X[40:], y[40:])  # warnings are errors here
    assert "overt.overlap_rows" not in runs[0].tags


def test_equal_rows_with_another_target_are_other_rows(runs: Runs) -> None:
    model().fit(X[:40], y[:40]).evaluate(X[:40], 1 - y[:40])
    assert "overt.overlap_rows" not in runs[0].tags


@pytest.mark.filterwarnings("ignore:X has feature names")
@pytest.mark.parametrize(
    "convert", [pd.DataFrame, np.asfortranarray, lambda rows: rows.tolist()], ids=["frame", "columns first", "lists"]
)
def test_another_container_hides_nothing(runs: Runs, convert: Any) -> None:
    fitted = model().fit(X[:40], y[:40])
    with pytest.warns(OvertWarning, match="3 of the 3 rows"):
        fitted.evaluate(convert(X[10:13]), y[10:13])


def test_sparse_rows_are_compared_without_being_made_dense(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    real = csr_matrix.toarray

    def watched(self: Any, *arguments: Any, **keywords: Any) -> Any:
        assert self.shape[1] != X.shape[1], "made dense"  # scikit-learn itself makes labels dense
        return real(self, *arguments, **keywords)

    for name in ("toarray", "todense"):
        monkeypatch.setattr(csr_matrix, name, watched)
    sparse = csr_matrix(np.where(np.abs(X) > 1, X, 0))
    fitted = TrackedEstimator(DecisionTreeClassifier(), training_metrics=False, log_model=False)
    with pytest.warns(OvertWarning, match="rows of the training data"):
        fitted.fit(sparse[:40], y[:40]).evaluate(sparse[38:], y[38:])


def test_it_is_off_by_one_argument(runs: Runs) -> None:
    model(check_overlap=False).fit(X, y).evaluate(X, y)
    assert "overt.overlap_rows" not in runs[0].tags


def test_it_may_be_switched_off_after_the_fit(runs: Runs) -> None:
    model().fit(X, y).set_params(check_overlap=False).evaluate(X, y)
    assert "overt.overlap_rows" not in runs[0].tags


def test_a_flag_that_is_none_is_refused(runs: Runs) -> None:
    with pytest.raises(ConfigurationError, match="`check_overlap` must be True or False"):
        model(check_overlap="no").fit(X, y)


def test_a_clustering_is_looked_at_on_its_own_data(runs: Runs) -> None:
    TrackedEstimator(KMeans(2, n_init=1)).fit(X).evaluate(X)
    assert "overt.overlap_rows" not in runs[0].tags


def test_a_fit_that_is_not_looked_at_leaves_no_rows_of_an_earlier_one(runs: Runs) -> None:
    fitted = model().fit(X[:30], y[:30])
    fitted.set_params(check_overlap=False).fit(X[30:], y[30:])
    fitted.set_params(check_overlap=True).evaluate(X[:30], y[:30])
    assert "overt.overlap_rows" not in runs[1].tags


def test_another_fit_forgets_the_rows_of_the_last(runs: Runs) -> None:
    fitted = model().fit(X[:30], y[:30])
    fitted.fit(X[30:], y[30:]).evaluate(X[:30], y[:30])
    assert "overt.overlap_rows" not in runs[1].tags


@pytest.mark.filterwarnings("ignore:Stochastic Optimizer")
@pytest.mark.parametrize("part", [slice(0, None, 2), slice(1, None, 2)], ids=["the first fit's", "the second's"])
def test_a_fit_that_goes_on_knows_the_rows_of_those_before_it(runs: Runs, part: slice) -> None:
    warm = TrackedEstimator(MLPClassifier((2,), max_iter=2, warm_start=True), training_metrics=False, log_model=False)
    warm.fit(X[::2], y[::2]).fit(X[1::2], y[1::2])
    with pytest.warns(OvertWarning, match="30 of the 30 rows"):
        warm.evaluate(X[part], y[part])
    assert runs[0].tags["overt.overlap_rows"] == "30"


@pytest.mark.filterwarnings("ignore::overt.OvertWarning")
def test_each_set_without_a_name_has_a_tag_of_its_own(runs: Runs) -> None:
    fitted = model().fit(X[:40], y[:40])
    for begin in (30, 45, 35):
        fitted.evaluate(X[begin:], y[begin:])
    tags = {name: text for name, text in runs[0].tags.items() if name.startswith("overt.overlap_rows")}
    assert tags == {"overt.overlap_rows": "10", "overt.overlap_rows.eval_3": "5"}


@pytest.mark.filterwarnings("ignore::overt.OvertWarning")
def test_a_set_that_is_evaluated_again_without_training_rows_takes_its_count_back(runs: Runs) -> None:
    fitted = model().fit(X[:40], y[:40])
    for begin in (30, 45):
        fitted.evaluate(X[begin:], y[begin:], name="val")
    assert runs[0].tags["overt.overlap_rows.val"] == "0"


def boosted(**keywords: Any) -> TrackedEstimator:
    booster = GradientBoostingClassifier(n_estimators=2)
    return TrackedEstimator(booster, training_metrics=False, log_model=False, **keywords)


class TakesEvalSet(GaussianNB):  # type: ignore[misc]
    """As xgboost does it."""

    def fit(self, X: Any, y: Any, eval_set: Any = None) -> TakesEvalSet:
        self.evals_result_ = {f"validation_{i}": {"logloss": [0.5]} for i, _ in enumerate(eval_set)}
        return super().fit(X, y)


def test_an_eval_set_is_looked_at_as_an_evaluation_is(runs: Runs) -> None:
    with pytest.warns(OvertWarning, match=r"5 of the 25 rows given to fit\(…, eval_set=…\)"):
        boosted().fit(X[:40], y[:40], eval_set=(X[35:], y[35:]))
    assert runs[0].tags["overt.overlap_rows.val"] == "5"


def test_an_eval_set_of_the_estimators_own_is_looked_at_unless_it_is_the_training_data(runs: Runs) -> None:
    train, mixed, held_out = ((X[rows], y[rows]) for rows in (slice(40), slice(35, 50), slice(50, None)))
    fitted = TrackedEstimator(TakesEvalSet(), training_metrics=False, log_model=False)
    with pytest.warns(OvertWarning, match="5 of the 15 rows") as said:
        fitted.fit(*train, eval_set=[train, held_out, (train[0].copy(), train[1]), mixed])
    assert len(said) == 1
    tags = {name: text for name, text in runs[0].tags.items() if name.startswith("overt.overlap_rows")}
    assert tags == {"overt.overlap_rows.val_2": "5"}
    assert {"train_logloss", "train_2_logloss", "val_logloss", "val_2_logloss"} <= set(runs[0].metrics)


def test_an_eval_set_is_left_alone_where_nothing_is_looked_at(runs: Runs) -> None:
    boosted(check_overlap=False).fit(X, y, eval_set=(X, y))
    assert "overt.overlap_rows.val" not in runs[0].tags


def test_what_a_clone_was_fitted_to_is_not_kept(runs: Runs) -> None:
    search = GridSearchCV(model(), {}, cv=2).fit(X, y)
    search.best_estimator_.evaluate(X, y)
    assert "overt.overlap_rows" not in runs[0].tags


@pytest.mark.filterwarnings("ignore::overt.OvertWarning")
def test_a_tracked_search_knows_its_rows(runs: Runs) -> None:
    search = TrackedEstimator(GridSearchCV(GaussianNB(), {}, cv=2), training_metrics=False, log_model=False)
    search.fit(X, y).evaluate(X[:7], y[:7])
    assert runs[0].tags["overt.overlap_rows"] == "7"
