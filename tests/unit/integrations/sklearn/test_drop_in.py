"""A tracked estimator is the estimator: the same bits come out, wherever scikit-learn lets one be put in."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import sklearn
from scipy.sparse import csr_matrix
from sklearn.base import BaseEstimator, clone, is_classifier, is_clusterer, is_outlier_detector, is_regressor
from sklearn.cluster import DBSCAN, AgglomerativeClustering, KMeans, MiniBatchKMeans
from sklearn.datasets import make_classification
from sklearn.decomposition import PCA
from sklearn.ensemble import (
    BaggingClassifier,
    ExtraTreesClassifier,
    GradientBoostingClassifier,
    IsolationForest,
    RandomForestClassifier,
    RandomForestRegressor,
    StackingClassifier,
    VotingClassifier,
)
from sklearn.exceptions import NotFittedError
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.feature_selection import SelectKBest
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.linear_model import LogisticRegression, Ridge, SGDClassifier
from sklearn.metrics import get_scorer
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import GridSearchCV, cross_val_predict, cross_val_score
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KernelDensity, KNeighborsClassifier, LocalOutlierFactor
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    LabelBinarizer,
    LabelEncoder,
    MinMaxScaler,
    MultiLabelBinarizer,
    StandardScaler,
)
from sklearn.svm import SVC, LinearSVC, OneClassSVM
from sklearn.tree import DecisionTreeClassifier

from overt import OvertWarning, TrackedEstimator, Tracker
from overt.testing import captured_runs

X, y = make_classification(90, 6, n_informative=4, n_classes=3, random_state=0)
UNSEEN = X[::-1] * 1.01

OUTPUTS = (
    "predict",
    "predict_proba",
    "predict_log_proba",
    "decision_function",
    "score_samples",
    "transform",
    "inverse_transform",
)
METHODS = (*OUTPUTS, "fit_predict", "fit_transform", "partial_fit", "score", "get_feature_names_out", "set_output")

KINDS: dict[str, Callable[[], Any]] = {
    "LogisticRegression": lambda: LogisticRegression(max_iter=500),
    "SVC without probabilities": SVC,
    "LinearSVC": lambda: LinearSVC(random_state=0),
    "KNeighborsClassifier": KNeighborsClassifier,
    "GaussianNB": GaussianNB,
    "DecisionTreeClassifier": lambda: DecisionTreeClassifier(random_state=0),
    "RandomForestClassifier": lambda: RandomForestClassifier(5, random_state=0),
    "GradientBoostingClassifier": lambda: GradientBoostingClassifier(n_estimators=3, random_state=0),
    "MLPClassifier": lambda: MLPClassifier((4,), solver="lbfgs", max_iter=5000, random_state=0),
    "BaggingClassifier": lambda: BaggingClassifier(n_estimators=3, random_state=0),
    "Ridge": Ridge,
    "RandomForestRegressor": lambda: RandomForestRegressor(5, random_state=0),
    "GaussianProcessRegressor": GaussianProcessRegressor,
    "KMeans": lambda: KMeans(3, n_init=1, random_state=0),
    "DBSCAN": lambda: DBSCAN(eps=2.0),
    "AgglomerativeClustering": lambda: AgglomerativeClustering(3),
    "GaussianMixture": lambda: GaussianMixture(2, random_state=0),
    "KernelDensity": KernelDensity,
    "StandardScaler": StandardScaler,
    "PCA": lambda: PCA(2, random_state=0),
    "FunctionTransformer": lambda: FunctionTransformer(np.tanh),
    "IsolationForest": lambda: IsolationForest(n_estimators=10, random_state=0),
    "LocalOutlierFactor": LocalOutlierFactor,
    "LocalOutlierFactor for novelties": lambda: LocalOutlierFactor(novelty=True),
    "OneClassSVM": OneClassSVM,
    "Pipeline": lambda: make_pipeline(StandardScaler(), LogisticRegression(max_iter=500)),
    "Pipeline of transformers": lambda: make_pipeline(StandardScaler(), PCA(2, random_state=0)),
    "GridSearchCV": lambda: GridSearchCV(LogisticRegression(max_iter=500), {"C": [0.1, 1.0]}, cv=2),
}


def same_bits(one: Any, other: Any) -> bool:
    one, other = np.asarray(one), np.asarray(other)
    return bool(one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes())


def tracked(estimator: Any, **keywords: Any) -> TrackedEstimator:
    return TrackedEstimator(estimator, **keywords)


@pytest.fixture(autouse=True)
def _captured():
    with captured_runs():
        yield


# -- the same bits -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_every_output_is_that_of_the_bare_estimator_to_the_last_bit(kind: str) -> None:
    bare, model = KINDS[kind]().fit(X, y), tracked(KINDS[kind]()).fit(X, y)
    given = {
        name: PCA(2).fit_transform(X) if name == "inverse_transform" and "PCA" in kind else UNSEEN for name in OUTPUTS
    }
    if kind == "Pipeline of transformers":
        given["inverse_transform"] = bare.transform(UNSEEN)
    found = [name for name in OUTPUTS if hasattr(bare, name)]
    assert [name for name in OUTPUTS if hasattr(model, name)] == found
    with np.errstate(divide="ignore"):  # log(0)
        for name in found:
            assert same_bits(getattr(bare, name)(given[name]), getattr(model, name)(given[name])), name
    if hasattr(bare, "score"):
        assert bare.score(X, y) == model.score(X, y)
    if hasattr(bare, "labels_"):
        assert same_bits(bare.labels_, model.labels_)


@pytest.mark.parametrize("kind", KINDS)
def test_a_method_exists_only_where_the_estimator_has_it(kind: str) -> None:
    for make in (KINDS[kind], lambda: KINDS[kind]().fit(X, y)):
        bare = make()
        assert [m for m in METHODS if hasattr(bare, m)] == [m for m in METHODS if hasattr(tracked(bare), m)]


@pytest.mark.parametrize("kind", ["KMeans", "DBSCAN", "IsolationForest", "LocalOutlierFactor", "GaussianMixture"])
def test_fit_predict_is_that_of_the_bare_estimator(kind: str) -> None:
    assert same_bits(KINDS[kind]().fit_predict(X), tracked(KINDS[kind]()).fit_predict(X))


@pytest.mark.parametrize("kind", ["StandardScaler", "PCA", "KMeans", "Pipeline of transformers"])
def test_fit_transform_is_that_of_the_bare_estimator(kind: str) -> None:
    assert same_bits(KINDS[kind]().fit_transform(X), tracked(KINDS[kind]()).fit_transform(X))


class TakesNoTarget(BaseEstimator):
    def fit(self, X: Any) -> TakesNoTarget:
        self.mean_ = np.mean(X)
        return self

    partial_fit = fit


@pytest.mark.parametrize("method", ["fit", "partial_fit"])
def test_what_takes_no_y_is_fitted_without_one(method: str) -> None:
    model = TrackedEstimator(TakesNoTarget())
    for fitted in (model, clone(model)):
        assert getattr(fitted, method)(X).mean_ == X.mean()


@pytest.mark.parametrize(
    ("encoder", "labels"),
    [(LabelEncoder(), ["b", "a"]), (LabelBinarizer(), ["b", "a"]), (MultiLabelBinarizer(), [("b", "a"), ("c",)])],
)
def test_an_encoder_of_labels_is_fitted_to_them(encoder: Any, labels: Any) -> None:
    bare = clone(encoder).fit(labels)
    assert np.array_equal(TrackedEstimator(encoder).fit(labels).transform(labels), bare.transform(labels))
    assert np.array_equal(TrackedEstimator(encoder).fit_transform(labels), bare.transform(labels))


def test_data_goes_by_the_name_that_the_estimator_has_for_it() -> None:
    texts, labels = ["a cat", "a dog"], ["b", "a"]
    vectorizer = TrackedEstimator(TfidfVectorizer())
    expected = TfidfVectorizer().fit_transform(texts).toarray()
    assert np.array_equal(vectorizer.fit(raw_documents=texts).transform(raw_documents=texts).toarray(), expected)
    assert np.array_equal(vectorizer.fit_transform(raw_documents=texts).toarray(), expected)
    assert list(TrackedEstimator(LabelEncoder()).fit(y=labels).transform(y=labels)) == [1, 0]


def test_data_that_is_missing_is_missed() -> None:
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'X'"):
        TrackedEstimator(LogisticRegression()).fit(y=y)


def test_a_y_that_is_required_is_missed_in_the_estimators_own_words() -> None:
    with pytest.raises(ValueError, match="requires y to be passed"):
        TrackedEstimator(LogisticRegression()).fit(X)


def test_fitted_attributes_are_forwarded() -> None:
    bare, model = (
        IsolationForest(n_estimators=5, random_state=0).fit(X),
        tracked(IsolationForest(n_estimators=5, random_state=0)).fit(X),
    )
    assert model.offset_ == bare.offset_
    assert model.n_features_in_ == 6
    assert len(model.estimators_) == 5
    assert not hasattr(model, "classes_")
    assert not hasattr(tracked(IsolationForest()), "offset_")


def test_what_kind_of_estimator_it_is_can_be_asked() -> None:
    assert is_classifier(tracked(SVC()))
    assert is_regressor(tracked(make_pipeline(StandardScaler(), Ridge())))
    assert is_outlier_detector(tracked(IsolationForest()))
    assert not is_classifier(tracked(KMeans()))
    assert is_clusterer(tracked(KMeans())) or sklearn.__version__ < "1.7"


def test_keywords_reach_the_estimators_own_methods() -> None:
    bare, model = GaussianProcessRegressor().fit(X, y), tracked(GaussianProcessRegressor()).fit(X, y)
    assert same_bits(bare.predict(UNSEEN, return_std=True)[1], model.predict(UNSEEN, return_std=True)[1])
    weights = np.linspace(0.1, 1, len(y))
    bare_tree = DecisionTreeClassifier(max_depth=2, random_state=0).fit(X, y, sample_weight=weights)
    tree = tracked(DecisionTreeClassifier(max_depth=2, random_state=0)).fit(X, y, sample_weight=weights)
    assert same_bits(bare_tree.predict_proba(X), tree.predict_proba(X))
    assert bare_tree.score(X, y, sample_weight=weights) == tree.score(X, y, sample_weight=weights)


def test_what_the_estimator_takes_by_position_is_taken_so() -> None:
    weights = np.linspace(0.1, 1, len(y))
    with captured_runs() as runs:
        model = TrackedEstimator(LogisticRegression()).fit(X, y, weights)
        parts = TrackedEstimator(SGDClassifier(random_state=0)).partial_fit(X, y, [0, 1, 2], weights)
        regression = TrackedEstimator(GaussianProcessRegressor()).fit(X, y)
    bare = LogisticRegression().fit(X, y, weights)
    bare_parts = SGDClassifier(random_state=0).partial_fit(X, y, [0, 1, 2], weights)
    assert model.coef_.tobytes() == bare.coef_.tobytes()
    assert parts.coef_.tobytes() == bare_parts.coef_.tobytes()
    assert model.score(X, y, weights) == bare.score(X, y, weights)
    assert runs[0].metrics["training_accuracy"] == pytest.approx(bare.score(X, y, weights))
    assert len(regression.predict(X, True)) == 2


@pytest.mark.parametrize(("args", "keywords"), [((1, 2), {}), ((1,), {"sample_weight": 1})], ids=["many", "twice"])
def test_more_arguments_than_the_estimator_takes_are_refused_as_alone(args: Any, keywords: Any) -> None:
    for estimator in (LogisticRegression(), TrackedEstimator(LogisticRegression())):
        with pytest.raises(TypeError, match="argument"):
            estimator.fit(X, y, *args, **keywords)


def test_the_users_own_estimator_is_not_fitted() -> None:
    mine = LogisticRegression(max_iter=500)
    tracked(mine).fit(X, y)
    assert not hasattr(mine, "coef_")


def test_nothing_can_be_asked_before_the_fit() -> None:
    for method in ("predict", "predict_proba", "score"):
        with pytest.raises(NotFittedError):
            getattr(tracked(LogisticRegression()), method)(X)
    with pytest.raises(NotFittedError):
        tracked(LogisticRegression()).evaluate(X, y)


# -- fitting again -----------------------------------------------------------------------------------------------------


def test_a_random_state_advances_from_fit_to_fit_as_in_the_bare_estimator() -> None:
    bare = RandomForestClassifier(3, random_state=np.random.RandomState(0))
    model = tracked(RandomForestClassifier(3, random_state=np.random.RandomState(0)), cv=2)
    first = bare.fit(X, y).predict_proba(X)
    assert same_bits(first, model.fit(X, y).predict_proba(X))
    second = bare.fit(X, y).predict_proba(X)
    assert not same_bits(first, second)
    assert same_bits(second, model.fit(X, y).predict_proba(X)), "what is recorded has drawn from the user's stream"


def test_a_random_state_inside_a_pipeline_advances_too() -> None:
    def make() -> Any:
        return make_pipeline(StandardScaler(), RandomForestClassifier(3, random_state=np.random.RandomState(7)))

    bare, model = make(), tracked(make())
    for _ in range(2):
        assert same_bits(bare.fit(X, y).predict_proba(X), model.fit(X, y).predict_proba(X))


def forest_of(model: Any) -> Any:
    return getattr(model.estimator_, "steps", [(None, model.estimator_)])[-1][1]


@pytest.mark.parametrize("prefix", ["", "randomforestclassifier__"])
def test_warm_start_goes_on_with_the_same_forest_in_the_same_run(prefix: str) -> None:
    def make() -> Any:
        forest = RandomForestClassifier(2, warm_start=True, random_state=0)
        return make_pipeline(StandardScaler(), forest) if prefix else forest

    bare, model = make().fit(X, y), tracked(make()).fit(X, y)
    run, first_tree = model.run_, forest_of(model).estimators_[0]
    bare.set_params(**{f"{prefix}n_estimators": 5}).fit(X, y)
    model.set_params(**{f"estimator__{prefix}n_estimators": 5}).fit(X, y)
    assert same_bits(bare.predict_proba(X), model.predict_proba(X))
    assert model.run_ is run
    assert len(forest_of(model).estimators_) == 5
    assert forest_of(model).estimators_[0] is first_tree


def test_a_second_fit_starts_afresh_in_a_run_of_its_own() -> None:
    model = tracked(MLPClassifier((4,), solver="lbfgs", max_iter=5000, random_state=0)).fit(X, y)
    first, run = model.predict_proba(X), model.run_
    assert same_bits(first, model.fit(X, y).predict_proba(X))
    assert model.run_ is not run


def test_partial_fit_goes_on_where_the_bare_estimator_would() -> None:
    bare, model = SGDClassifier(random_state=0), tracked(SGDClassifier(random_state=0))
    for estimator in (bare, model):
        estimator.partial_fit(X[:40], y[:40], classes=[0, 1, 2])
        estimator.partial_fit(X[40:], y[40:])
    assert same_bits(bare.coef_, model.coef_)
    assert model.run_.status == "RUNNING"
    model.run_.finish()
    for estimator in (bare, model):
        estimator.partial_fit(X[:40], y[:40])  # in a new run, with what was learned before
    assert same_bits(bare.coef_, model.coef_)


def test_partial_fit_goes_on_from_a_fit() -> None:
    bare, model = SGDClassifier(random_state=0).fit(X[:40], y[:40]), tracked(SGDClassifier(random_state=0))
    model.fit(X[:40], y[:40])
    assert same_bits(bare.partial_fit(X[40:], y[40:]).coef_, model.partial_fit(X[40:], y[40:]).coef_)


def test_a_setting_changed_between_two_parts_counts_as_in_the_bare_estimator() -> None:
    bare, model = SGDClassifier(random_state=0), tracked(SGDClassifier(random_state=0))
    bare.partial_fit(X, y, classes=[0, 1, 2]).set_params(alpha=1.0).partial_fit(X, y)
    model.partial_fit(X, y, classes=[0, 1, 2]).set_params(estimator__alpha=1.0).partial_fit(X, y)
    assert same_bits(bare.coef_, model.coef_)


def test_a_part_that_fails_leaves_what_was_learned() -> None:
    model = tracked(MiniBatchKMeans(2, n_init=1, random_state=0)).partial_fit(X)
    before = model.predict(X)
    with pytest.raises(ValueError, match="NaN"):
        model.partial_fit(np.full((4, 6), np.nan))
    assert model.run_.status == "FAILED"
    assert same_bits(model.predict(X), before)


# -- copies ------------------------------------------------------------------------------------------------------------


def test_a_clone_has_the_settings_and_nothing_of_the_fit() -> None:
    tracker = Tracker(experiment="e")
    model = tracked(RandomForestClassifier(3), tags={"a": "b"}, tracker=tracker).fit(X, y)
    twin = clone(model)
    assert not hasattr(twin, "estimator_")
    assert not hasattr(twin, "run_")
    assert twin.tracker is tracker
    assert twin.estimator is not model.estimator
    assert twin.get_params()["estimator__n_estimators"] == 3
    assert twin.tags == {"a": "b"}


def test_settings_are_read_and_set_through_the_wrapper() -> None:
    model = tracked(make_pipeline(StandardScaler(), RandomForestClassifier(3, max_depth=2)))
    assert model.get_params()["estimator__randomforestclassifier__max_depth"] == 2
    model.set_params(estimator__randomforestclassifier__max_depth=1, cv=3)
    assert model.estimator[-1].max_depth == 1
    assert model.cv == 3


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_a_copy_predicts_the_same_and_keeps_its_run(copied: Callable[[Any], Any]) -> None:
    model = tracked(RandomForestClassifier(3, random_state=0)).fit(X, y)
    twin = copied(model)
    assert same_bits(model.predict_proba(X), twin.predict_proba(X))
    assert twin.run_ is model.run_
    twin.evaluate(UNSEEN, y)
    assert "accuracy" in model.run_.metrics


def test_a_pickle_predicts_in_another_process(tmp_path: Path) -> None:
    model = tracked(RandomForestClassifier(3, random_state=0)).fit(X, y)
    (tmp_path / "model.pkl").write_bytes(pickle.dumps(model))
    np.save(tmp_path / "X.npy", X)
    script = (
        "import pickle, numpy\n"
        "model = pickle.load(open('model.pkl', 'rb'))\n"
        "X = numpy.load('X.npy')\n"
        "numpy.save('proba.npy', model.predict_proba(X))\n"
        "report = model.evaluate(X, model.predict(X))\n"
        "print(report['accuracy'], model.run_.name, model.run_.status)\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[:2] == ["1.0", model.run_.name]
    assert same_bits(np.load(tmp_path / "proba.npy"), model.predict_proba(X))


# -- wherever scikit-learn lets an estimator be put in -----------------------------------------------------------------


def test_a_grid_search_over_a_tracked_estimator_chooses_as_over_the_bare_one() -> None:
    bare = GridSearchCV(DecisionTreeClassifier(random_state=0), {"max_depth": [1, 3, 5]}, cv=3).fit(X, y)
    model = GridSearchCV(
        tracked(DecisionTreeClassifier(random_state=0)), {"estimator__max_depth": [1, 3, 5]}, cv=3
    ).fit(X, y)
    assert model.best_params_["estimator__max_depth"] == bare.best_params_["max_depth"]
    assert same_bits(model.cv_results_["mean_test_score"], bare.cv_results_["mean_test_score"])
    assert same_bits(model.predict(UNSEEN), bare.predict(UNSEEN))


def test_cross_validation_scores_a_tracked_estimator_as_the_bare_one() -> None:
    bare, model = GaussianNB(), tracked(GaussianNB())
    assert same_bits(cross_val_score(bare, X, y, cv=3), cross_val_score(model, X, y, cv=3))
    assert same_bits(
        cross_val_predict(bare, X, y, cv=3, method="predict_proba"),
        cross_val_predict(model, X, y, cv=3, method="predict_proba"),
    )


def test_a_tracked_estimator_is_a_step_of_a_pipeline_and_a_member_of_an_ensemble() -> None:
    bare = make_pipeline(StandardScaler(), GaussianNB()).fit(X, y)
    model = make_pipeline(tracked(StandardScaler()), tracked(GaussianNB())).fit(X, y)
    assert same_bits(bare.predict_proba(UNSEEN), model.predict_proba(UNSEEN))
    for ensemble in (VotingClassifier, lambda members: StackingClassifier(members, cv=2)):
        bare = ensemble([("nb", GaussianNB()), ("tree", DecisionTreeClassifier(random_state=0))]).fit(X, y)
        model = ensemble([("nb", tracked(GaussianNB())), ("tree", DecisionTreeClassifier(random_state=0))]).fit(X, y)
        assert same_bits(bare.predict(UNSEEN), model.predict(UNSEEN))


def test_metadata_is_routed_to_the_estimator() -> None:
    weights = np.linspace(0.01, 1, len(y))
    with sklearn.config_context(enable_metadata_routing=True):

        def make() -> Any:
            tree = DecisionTreeClassifier(max_depth=2, random_state=0)
            return tree.set_fit_request(sample_weight=True).set_score_request(sample_weight=True)

        how = {"cv": 2, "scoring": get_scorer("accuracy").set_score_request(sample_weight=True)}
        bare = GridSearchCV(make(), {"max_depth": [1, 2]}, **how).fit(X, y, sample_weight=weights)
        model = GridSearchCV(tracked(make()), {"estimator__max_depth": [1, 2]}, **how)
        model.fit(X, y, sample_weight=weights)
        assert same_bits(bare.cv_results_["mean_test_score"], model.cv_results_["mean_test_score"])
        assert same_bits(bare.predict_proba(X), model.predict_proba(X))
        folds = tracked(make(), **how).fit(X, y, sample_weight=weights).run_.metrics
        assert folds["cv_mean_accuracy_score"] == pytest.approx(bare.cv_results_["mean_test_score"][1], abs=1e-12)


def test_set_output_gives_data_frames() -> None:
    frame = pd.DataFrame(X, columns=list("abcdef"))
    model = tracked(StandardScaler()).set_output(transform="pandas")
    assert list(model.fit_transform(frame).columns) == list("abcdef")
    assert list(model.transform(frame).columns) == list("abcdef")
    assert list(model.get_feature_names_out()) == list("abcdef")
    assert isinstance(model.set_output(transform="default").transform(frame), np.ndarray)
    piped = make_pipeline(tracked(StandardScaler()), tracked(PCA(2))).set_output(transform="pandas")
    assert list(piped.fit_transform(frame).columns) == ["pca0", "pca1"]


def test_sparse_data_goes_in_as_it_is() -> None:
    sparse = csr_matrix(X)
    bare = LogisticRegression(max_iter=500).fit(sparse, y)
    assert same_bits(
        bare.predict_proba(sparse), tracked(LogisticRegression(max_iter=500)).fit(sparse, y).predict_proba(sparse)
    )


class Locked(BaseEstimator):
    def __init__(self, lock: Any = None, depth: int = 1) -> None:
        self.lock = lock
        self.depth = depth

    def fit(self, X: Any, y: Any = None) -> Locked:
        with self.lock:
            self.n_features_in_ = X.shape[1]
        return self


def test_a_parameter_that_cannot_be_copied_is_shared_and_stops_nothing() -> None:
    lock, mine = threading.Lock(), None
    mine = Locked(lock)
    model = tracked(make_pipeline(StandardScaler(), mine))
    with pytest.warns(OvertWarning, match=r"model of run .* could not be recorded .*pickle"):
        model.fit(X, y)
    assert model.estimator_[-1].lock is lock
    assert model.estimator_[-1] is not mine
    assert not hasattr(mine, "n_features_in_")


def test_it_shows_itself_in_a_notebook_as_any_estimator_does() -> None:
    model = tracked(GaussianNB()).fit(X, y)
    assert "GaussianNB" in model._repr_html_()
    assert repr(tracked(GaussianNB())) == "TrackedEstimator(estimator=GaussianNB())"


def _replaced_forest(pipeline: Any, prefix: str) -> Any:
    pipeline.fit(X, y)
    extra = ExtraTreesClassifier(n_estimators=5, warm_start=True, random_state=0)
    return pipeline.set_params(**{f"{prefix}steps": [("scale", StandardScaler()), ("model", extra)]})


def _replaced_step(pipeline: Any, prefix: str) -> Any:
    pipeline.fit(X, y)
    return pipeline.set_params(**{f"{prefix}model": SGDClassifier(warm_start=True, random_state=0)})


def _grown_forest_behind_another_scaler(pipeline: Any, prefix: str) -> Any:
    pipeline.fit(X, y)
    pipeline.set_params(**{f"{prefix}scale": MinMaxScaler()})
    return pipeline.set_params(**{f"{prefix}model__n_estimators": 8})


@pytest.mark.parametrize("change", [_replaced_forest, _replaced_step, _grown_forest_behind_another_scaler])
def test_what_is_replaced_inside_a_warm_pipeline_is_replaced_and_the_rest_goes_on(change: Any) -> None:
    def pipeline() -> Pipeline:
        forest = RandomForestClassifier(n_estimators=5, warm_start=True, random_state=0)
        return Pipeline([("scale", StandardScaler()), ("model", forest)])

    bare = change(pipeline(), "").fit(X, y)
    with captured_runs():
        tracked = change(TrackedEstimator(pipeline()), "estimator__").fit(X, y)
    assert type(tracked.estimator_[-1]) is type(bare[-1])
    assert tracked.predict(X).tolist() == bare.predict(X).tolist()
    assert getattr(tracked.estimator_[-1], "n_estimators", None) == getattr(bare[-1], "n_estimators", None)


def test_what_a_search_or_a_bagging_clones_begins_anew_in_a_run_of_its_own() -> None:
    inner = SGDClassifier(warm_start=True, random_state=0)
    search = GridSearchCV(inner, {"alpha": [1e-4, 1e-3]}, cv=2)
    for meta in (search, BaggingClassifier(inner, random_state=0)):
        bare = clone(meta).fit(X, y)
        bare.fit(X, y)
        with captured_runs() as runs:
            tracked = TrackedEstimator(meta).fit(X, y)
            tracked.fit(X, y)
        assert len(runs) == 2
        assert tracked.predict(X).tolist() == bare.predict(X).tolist()


@pytest.mark.parametrize(
    ("estimator", "ask"),
    [
        (KNeighborsClassifier(), lambda fitted: fitted.kneighbors(UNSEEN, 2)[1]),
        (RandomForestClassifier(3, random_state=0), lambda fitted: fitted.apply(UNSEEN)),
        (GradientBoostingClassifier(n_estimators=2, random_state=0), lambda fitted: [*fitted.staged_predict(UNSEEN)]),
        (SelectKBest(k=2), lambda fitted: fitted.get_support()),
        (GaussianMixture(2, random_state=0), lambda fitted: fitted.bic(UNSEEN)),
    ],
)
def test_methods_that_few_estimators_have_are_there_after_the_fit(estimator: Any, ask: Any) -> None:
    with captured_runs():
        model = TrackedEstimator(estimator).fit(X, y)
    assert np.array_equal(ask(model), ask(estimator.fit(X, y)))


@pytest.mark.parametrize("name", ["fit_predict", "partial_fit", "set_fit_request", "C", "support", "_compute_kernel"])
def test_what_would_train_it_unseen_is_not_there_and_neither_are_parameters(name: str) -> None:
    with captured_runs():
        assert not hasattr(TrackedEstimator(SVC()).fit(X, y), name)
