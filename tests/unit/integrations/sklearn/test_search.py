"""A search is one run: what it found, its whole table, the model it chose, and candidates as runs on request."""

from __future__ import annotations

import csv
import io
import json
import pickle
from typing import Any

import numpy as np
import pytest
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.cluster import KMeans
from sklearn.datasets import load_diabetes, load_iris
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.linear_model import Ridge, RidgeClassifier
from sklearn.metrics import make_scorer, root_mean_squared_error
from sklearn.model_selection import (
    GridSearchCV,
    HalvingGridSearchCV,
    HalvingRandomSearchCV,
    ParameterGrid,
    ParameterSampler,
    RandomizedSearchCV,
    cross_validate,
)
from sklearn.model_selection._search import BaseSearchCV
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier

from overt import OvertWarning, TrackedEstimator
from overt.errors import ConfigurationError
from overt.evaluation.report import FigureSpec
from overt.figures import draw
from overt.run import Run
from overt.stores.memory import MemoryRun

Runs = list[MemoryRun]
X, y = load_iris(return_X_y=True)
GRID = {"max_depth": [1, 2, 3], "criterion": ["gini", "entropy"]}


def tree() -> DecisionTreeClassifier:
    return DecisionTreeClassifier(random_state=0)


def table(run: MemoryRun, name: str = "cv_results.csv") -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(run.artifacts[name].decode())))


class Drawn(BaseSearchCV):  # type: ignore[misc]
    """A third party's search, whose candidates have no name in scikit-learn."""

    def __init__(self, estimator: Any, wanted: Any, *, cv: Any = None, refit: Any = True, scoring: Any = None) -> None:
        super().__init__(estimator, cv=cv, refit=refit, scoring=scoring)
        self.wanted = wanted

    def _run_search(self, evaluate_candidates: Any) -> None:
        evaluate_candidates(ParameterSampler(self.wanted, 3, random_state=0))


SEARCHES = {
    "grid": lambda: GridSearchCV(tree(), GRID, cv=3),
    "randomized": lambda: RandomizedSearchCV(tree(), GRID, n_iter=4, cv=3, random_state=0),
    "halving grid": lambda: HalvingGridSearchCV(tree(), GRID, cv=3, random_state=0),
    "halving random": lambda: HalvingRandomSearchCV(tree(), GRID, n_candidates=4, cv=3, random_state=0),
    "third party": lambda: Drawn(tree(), GRID, cv=3),
}


@pytest.mark.parametrize("kind", SEARCHES)
def test_every_search_leaves_its_best_candidate_and_its_whole_table(runs: Runs, kind: str) -> None:
    bare = SEARCHES[kind]().fit(X, y)
    model = TrackedEstimator(SEARCHES[kind]()).fit(X, y)
    (run,) = runs
    best = bare.best_index_
    assert {name: run.params[f"best_{name}"] for name in GRID} == {n: str(v) for n, v in bare.best_params_.items()}
    assert run.metrics["best_cv_score"] == bare.best_score_
    assert run.metrics["cv_mean_accuracy"] == bare.cv_results_["mean_test_score"][best]
    assert run.metrics["cv_std_accuracy"] == bare.cv_results_["std_test_score"][best]
    assert [(point.step, point.value) for point in run.history if point.name == "cv_accuracy"] == [
        (split, bare.cv_results_[f"split{split}_test_score"][best]) for split in range(3)
    ]
    found = table(run)
    assert list(found[0]) == list(bare.cv_results_)
    for name in bare.cv_results_:
        if "test_score" in name:
            assert [float(row[name]) for row in found] == list(map(float, bare.cv_results_[name]))
    assert [row["param_criterion"] for row in found] == list(bare.cv_results_["param_criterion"])
    assert np.array_equal(model.predict(X), bare.predict(X))


def test_the_model_is_that_of_the_best_estimator(runs: Runs) -> None:
    model = TrackedEstimator(GridSearchCV(tree(), GRID, cv=3)).fit(X, y)
    saved = pickle.loads(runs[0].artifacts["model/model.pkl"])
    assert type(saved) is DecisionTreeClassifier
    assert saved.get_params() == model.best_estimator_.get_params()
    assert saved.predict(X).tolist() == model.predict(X).tolist()


def test_several_scorers_each_have_their_scores_and_picture(runs: Runs) -> None:
    scoring = {"accuracy": "accuracy", "f1": "f1_macro"}
    search = GridSearchCV(tree(), GRID, cv=3, scoring=scoring, refit="f1")
    model = TrackedEstimator(search).fit(X, y)
    best = model.best_index_
    assert runs[0].metrics["cv_mean_accuracy"] == model.cv_results_["mean_test_accuracy"][best]
    assert runs[0].metrics["cv_mean_f1"] == runs[0].metrics["best_cv_score"] == model.best_score_
    assert {"search_scores_accuracy.png", "search_scores_f1.png"} <= set(runs[0].figures)


def test_a_function_that_chooses_among_several_scorers_is_no_trouble(runs: Runs) -> None:
    def choose(results: Any) -> int:
        return int(np.argmin(results["mean_test_accuracy"]))

    search = GridSearchCV(tree(), GRID, cv=3, scoring=["accuracy", "f1_macro"], refit=choose)
    model = TrackedEstimator(search).fit(X, y)
    (run,) = runs
    assert run.metrics["cv_mean_f1_macro"] == model.cv_results_["mean_test_f1_macro"][model.best_index_]
    assert run.metrics["training_accuracy"] == np.mean(model.predict(X) == y)
    assert not [name for name in run.tags if name.startswith("overt.not_recorded")]


def test_several_scorers_rank_the_candidates_by_the_one_that_chooses(runs: Runs) -> None:
    scoring = {"worst": "neg_log_loss", "chosen": "accuracy"}
    grid = {"max_depth": [1, 2, 4, 6], "min_samples_leaf": [1, 20]}
    search = GridSearchCV(tree(), grid, cv=3, scoring=scoring, refit="chosen")
    model = TrackedEstimator(search, child_runs="all").fit(X, y)
    ranks = [int(model.cv_results_["rank_test_chosen"][int(run.tags["overt.candidate"])]) for run in runs[1:]]
    assert ranks == sorted(ranks)
    worst = model.cv_results_["rank_test_worst"]
    assert worst.tolist() != model.cv_results_["rank_test_chosen"].tolist()


def test_a_scorer_that_is_called_score_among_others_keeps_its_name(runs: Runs) -> None:
    scoring = {"score": "f1_macro", "acc": "accuracy"}
    TrackedEstimator(GridSearchCV(tree(), GRID, cv=3, scoring=scoring, refit="score")).fit(X, y)
    assert {"cv_score", "cv_mean_score", "cv_mean_acc"} <= set(runs[0].metrics)
    assert not any("dict" in name for name in runs[0].metrics)


def test_the_only_one_of_named_scorers_keeps_its_name(runs: Runs) -> None:
    TrackedEstimator(GridSearchCV(tree(), GRID, cv=3, scoring={"score": "f1_macro"}, refit="score")).fit(X, y)
    assert "cv_mean_score" in runs[0].metrics


def test_a_search_that_varies_nothing_has_no_picture(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[str] = []
    monkeypatch.setattr(Run, "log_drawing", lambda self, figure, **keywords: drawn.append(figure.kind))
    TrackedEstimator(GridSearchCV(tree(), {}, cv=3), child_runs=1).fit(X, y)
    assert "search_scores" not in drawn
    assert runs[1].metrics["cv_mean_accuracy"] == runs[0].metrics["best_cv_score"]


def test_without_a_refit_there_is_no_model_and_an_evaluation_says_why(runs: Runs) -> None:
    model = TrackedEstimator(GridSearchCV(tree(), GRID, cv=3, refit=False)).fit(X, y)
    assert runs[0].models == {}
    assert runs[0].metrics["best_cv_score"] == model.best_score_
    assert "training_accuracy" not in runs[0].metrics
    with pytest.raises(ConfigurationError, match="refit=False"):
        model.evaluate(X, y)


def test_without_a_refit_of_several_scorers_nothing_is_called_best(runs: Runs) -> None:
    search = GridSearchCV(tree(), GRID, cv=3, scoring=["accuracy", "f1_macro"], refit=False)
    TrackedEstimator(search).fit(X, y)
    assert not any(name.startswith(("best_", "cv_")) for name in {*runs[0].metrics, *runs[0].params} - {"cv"})
    assert len(table(runs[0])) == 6


def test_a_callable_may_choose(runs: Runs) -> None:
    search = GridSearchCV(tree(), GRID, cv=3, refit=lambda results: 1)
    TrackedEstimator(search, child_runs=1).fit(X, y)
    assert runs[0].params["best_max_depth"] == runs[1].params["max_depth"] == "2"
    assert "best_cv_score" not in runs[0].metrics
    assert runs[0].metrics["cv_mean_accuracy"] == float(table(runs[0])[1]["mean_test_score"])


class DeepFails(ClassifierMixin, BaseEstimator):
    """Fails where it is told to be deep."""

    def __init__(self, depth: int = 1) -> None:
        self.depth = depth

    def fit(self, X: Any, y: Any) -> DeepFails:
        if self.depth > 1:
            raise ValueError("too deep")
        self.classes_ = np.unique(y)
        return self

    def predict(self, X: Any) -> Any:
        return np.zeros(len(X), int)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.FitFailedWarning", "ignore:One or more of the test scores")
def test_failed_candidates_are_counted_and_stay_in_the_table(runs: Runs) -> None:
    TrackedEstimator(GridSearchCV(DeepFails(), {"depth": [1, 2, 3]}, cv=2), child_runs="all").fit(X, y)
    assert runs[0].tags["overt.failed_candidates"] == "2 of 3"
    assert [row["mean_test_score"] for row in table(runs[0])][1:] == ["nan", "nan"]
    assert [run.status for run in runs[1:]] == ["FINISHED", "FAILED", "FAILED"]


def test_a_pipeline_that_ends_with_a_search_is_one_too(runs: Runs) -> None:
    TrackedEstimator(make_pipeline(StandardScaler(), GridSearchCV(tree(), GRID, cv=3))).fit(X, y)
    assert runs[0].params["best_max_depth"]
    assert len(table(runs[0])) == 6
    assert pickle.loads(runs[0].artifacts["model/model.pkl"]).predict(X[:1]).tolist() == [0]


def test_outer_folds_have_the_plain_names_and_the_search_its_own(runs: Runs) -> None:
    search = GridSearchCV(tree(), {"max_depth": [1, 2]}, cv=2)
    model = TrackedEstimator(search, cv=3).fit(X, y)
    outer = cross_validate(search, X, y, cv=3)["test_score"]
    assert runs[0].metrics["cv_mean_accuracy"] == np.mean(outer)
    assert runs[0].metrics["search_cv_mean_accuracy"] == model.best_score_
    assert len(table(runs[0])) == 3
    assert len(table(runs[0], "search_cv_results.csv")) == 2


def test_a_regression_scored_by_a_function_is_named_after_it(runs: Runs) -> None:
    data = load_diabetes(return_X_y=True)
    scorer = make_scorer(root_mean_squared_error, greater_is_better=False)
    model = TrackedEstimator(GridSearchCV(Ridge(), {"alpha": [0.1, 1.0]}, cv=3, scoring=scorer)).fit(*data)
    assert runs[0].metrics["cv_mean_neg_root_mean_squared_error"] == model.best_score_


def test_a_search_of_clusterings_needs_no_y(runs: Runs) -> None:
    TrackedEstimator(GridSearchCV(KMeans(n_init=1, random_state=0), {"n_clusters": [2, 3]}, cv=2)).fit(X)
    assert {"best_n_clusters", "model_type"} <= set(runs[0].params)
    assert "cv_mean_score" in runs[0].metrics


def test_the_table_has_its_types_in_parquet(runs: Runs) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    TrackedEstimator(GridSearchCV(tree(), {"max_depth": [1, None]}, cv=3)).fit(X, y)
    found = parquet.read_table(io.BytesIO(runs[0].artifacts["cv_results.parquet"]))
    assert found["mean_test_score"].to_pylist() == [float(row["mean_test_score"]) for row in table(runs[0])]
    assert found["param_max_depth"].to_pylist() == ["1", "None"]


def test_the_picture_can_be_drawn(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[FigureSpec] = []
    monkeypatch.setattr(Run, "log_drawing", lambda self, figure, **keywords: drawn.append(figure))
    grid = {"alpha": np.logspace(-3, 3, 9), "fit_intercept": [True, False]}
    TrackedEstimator(RandomizedSearchCV(RidgeClassifier(), grid, cv=2, random_state=0)).fit(X, y)
    (figure,) = [figure for figure in drawn if figure.kind == "search_scores"]
    assert {panel["param"] for panel in figure.data["panels"]} == {"alpha", "fit_intercept"}
    assert draw(figure.kind, json.loads(json.dumps(figure.data))).startswith(b"\x89PNG")


def test_secrets_among_the_candidates_are_hidden(runs: Runs) -> None:
    class Keyed(DeepFails):
        def __init__(self, depth: int = 1, api_key: str = "") -> None:
            super().__init__(depth)
            self.api_key = api_key

    secret = "sk-" + "a1B2" * 12
    TrackedEstimator(GridSearchCV(Keyed(), {"api_key": [secret, "x"]}, cv=2), log_model=False, child_runs=1).fit(X, y)
    everything = repr([(run.params, run.tags, run.artifacts, run.figures) for run in runs])
    assert secret not in everything
    assert "[redacted]" in everything


@pytest.mark.parametrize(("child_runs", "count"), [(0, 0), (2, 2), (np.int64(3), 3), (100, 6), ("all", 6)])
def test_candidates_become_runs_of_their_own_the_best_first(runs: Runs, child_runs: Any, count: int) -> None:
    model = TrackedEstimator(GridSearchCV(tree(), GRID, cv=3), child_runs=child_runs).fit(X, y)
    children = runs[1:]
    assert len(children) == count
    scores = [run.metrics["cv_mean_accuracy"] for run in children]
    assert scores == sorted(scores, reverse=True)
    for child in children:
        row = table(runs[0])[int(child.tags["overt.candidate"])]
        assert child.params["max_depth"] == row["param_max_depth"]
        assert child.params["criterion"] == row["param_criterion"]
        assert child.metrics["cv_mean_accuracy"] == float(row["mean_test_score"])
        assert [p.value for p in child.history if p.name == "cv_accuracy"] == [
            float(row[f"split{split}_test_score"]) for split in range(3)
        ]
        assert (child.status, child.spec.parent_key) == ("FINISHED", runs[0].spec.key)
        assert child.artifacts == {}
    if children:
        assert children[0].tags["overt.candidate"] == str(model.best_index_)


@pytest.mark.parametrize("child_runs", [-1, 1.5, "some", None, True, np.array([1, 2])])
def test_a_number_of_candidates_that_is_none_is_refused(runs: Runs, child_runs: Any) -> None:
    with pytest.raises(ConfigurationError, match="`child_runs` must be"):
        TrackedEstimator(GridSearchCV(tree(), GRID), child_runs=child_runs).fit(X, y)
    assert runs == []


def test_candidates_of_what_has_none_are_refused(runs: Runs) -> None:
    with pytest.raises(ConfigurationError, match="`child_runs` is for searches"):
        TrackedEstimator(tree(), child_runs=2).fit(X, y)


class Plain(BaseSearchCV):  # type: ignore[misc]
    """A third party's search that takes no more than it needs."""

    def __init__(self, estimator: Any, grid: Any) -> None:
        super().__init__(estimator)
        self.grid = grid

    def _run_search(self, evaluate_candidates: Any) -> None:
        evaluate_candidates(ParameterGrid(self.grid))


def test_a_search_without_the_usual_parameters_has_candidates_too(runs: Runs) -> None:
    TrackedEstimator(Plain(tree(), {"max_depth": [1, 2, 3]}), child_runs=2).fit(X, y)
    assert len(runs) == 3


def test_each_candidate_says_which_estimator_it_is(runs: Runs) -> None:
    grid = [{"clf": [RidgeClassifier()]}, {"clf": [tree()], "clf__max_depth": [2, 3]}]
    model = TrackedEstimator(GridSearchCV(Pipeline([("clf", RidgeClassifier())]), grid, cv=3), child_runs="all")
    model.fit(X, y)
    types = {int(run.tags["overt.candidate"]): run.params["model_type"] for run in runs[1:]}
    assert types == {0: "RidgeClassifier", 1: "DecisionTreeClassifier", 2: "DecisionTreeClassifier"}
    assert runs[0].params["best_model_type"] == type(model.best_estimator_[-1]).__name__ == "DecisionTreeClassifier"
    assert runs[0].params["model_type"] == "RidgeClassifier"


class Renaming(GridSearchCV):  # type: ignore[misc]
    """A third party's search that notes its candidates by names of its own."""

    def fit(self, X: Any, y: Any = None) -> Renaming:
        super().fit(X, y)
        self.cv_results_["params"] = [{"kind": params["clf"]} for params in self.cv_results_["params"]]
        return self


def test_what_a_candidate_is_of_is_left_out_and_said_where_it_cannot_be_found_out(runs: Runs) -> None:
    search = Renaming(Pipeline([("clf", RidgeClassifier())]), {"clf": [tree(), RidgeClassifier()]}, cv=3)
    with pytest.warns(OvertWarning, match="model types of candidates of run .* could not be recorded") as said:
        TrackedEstimator(search, child_runs="all").fit(X, y)
    assert len(said) == 1
    assert "ValueError" in runs[0].tags["overt.not_recorded.model_types_of_candidates"]
    assert "best_model_type" not in runs[0].params
    assert [set(run.params) for run in runs[1:]] == [{"kind"}, {"kind"}]


def test_a_candidate_that_is_tried_in_several_rounds_says_in_which(runs: Runs) -> None:
    search = HalvingGridSearchCV(tree(), GRID, cv=3, random_state=0)
    model = TrackedEstimator(search, child_runs="all").fit(X, y)
    assert model.n_iterations_ > 1
    for run in runs[1:]:
        index = int(run.tags["overt.candidate"])
        assert run.params["iter"] == str(model.cv_results_["iter"][index])
        assert run.params["n_resources"] == str(model.cv_results_["n_resources"][index])


def test_what_has_results_of_another_kind_is_no_search(runs: Runs) -> None:
    from sklearn.feature_selection import RFECV
    from sklearn.linear_model import RidgeCV

    TrackedEstimator(RFECV(tree(), cv=2)).fit(X, y)
    TrackedEstimator(RidgeCV(store_cv_results=True)).fit(X, y)
    assert not any("cv_results.csv" in run.artifacts or "overt.not_recorded.search" in run.tags for run in runs)


def test_no_end_of_a_secret_is_left_in_a_diagram_that_is_cut(runs: Runs) -> None:
    """scikit-learn cuts long texts in their midst, from before the name of the parameter."""

    class Keyed(DeepFails):
        def __init__(self, depth: int = 1, password: str = "") -> None:
            super().__init__(depth)
            self.password = password

    secret = "q7Zx" * 10
    for n in (1, 2, 3):
        pipeline = make_pipeline(*[StandardScaler() for _ in range(n)], Keyed(password=secret))
        search = GridSearchCV(pipeline, {"keyed__depth": [1], "keyed__password": [secret]}, cv=2)
        TrackedEstimator(search, log_model=False).fit(X, y)
        diagram = runs[-1].artifacts["estimator.html"].decode()
        assert "7Zxq" not in diagram
        assert "Keyed" in diagram
