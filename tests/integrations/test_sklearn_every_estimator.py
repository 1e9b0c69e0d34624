"""Every estimator that scikit-learn has, wrapped: fitted as it is alone, recorded whole, and read back equal."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import warnings
from collections.abc import Callable, Mapping
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.base import BaseEstimator, TransformerMixin, is_classifier, is_regressor
from sklearn.cluster import KMeans
from sklearn.experimental import enable_halving_search_cv, enable_iterative_imputer  # noqa: F401
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge
from sklearn.multioutput import ClassifierChain
from sklearn.preprocessing import MinMaxScaler, StandardScaler
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor
from sklearn.utils import all_estimators, get_tags
from tests.integrations.sklearn_parts import Subject, complaints, differences

pytestmark = pytest.mark.slow

RANDOM = np.random.RandomState(0)
X = RANDOM.uniform(0.1, 2.0, (60, 4))
TARGET = X @ [1.0, 2.0, 0.5, 0.0] + RANDOM.uniform(0.0, 0.5, 60)
CLASSES = np.digitize(TARGET, np.quantile(TARGET, [1 / 3, 2 / 3]))
TWO_CLASSES = (np.median(TARGET) < TARGET).astype(int)
TWO_TARGETS = np.column_stack([TARGET, X[:, 0] - TARGET])
TWO_LABELS = np.column_stack([TWO_CLASSES, X[:, 0] > 1]).astype(int)
SOME_UNLABELLED = np.where(np.arange(60) % 5 == 0, -1, TWO_CLASSES)
WITH_GAPS = np.where(RANDOM.uniform(size=X.shape) < 0.1, np.nan, X)
TEXTS = [" ".join(RANDOM.choice(["night", "train", "rain", "river", "light"], 6)) for _ in range(20)]
MAPPINGS = [{"city": text.split()[0], "length": float(len(text))} for text in TEXTS]
IMAGES = RANDOM.uniform(size=(5, 8, 8))
KERNEL = X @ X.T
FEW = LogisticRegression(max_iter=50)
SPLITS = {"cv": 2}
SEARCHED = {"estimator": DecisionTreeClassifier(random_state=0), "cv": 2}
BY_DEPTH = {"max_depth": [1, 2]}
SMALL = {"n_estimators": 3}
HASHED = {"n_features": 64}
CHAINED = next(iter(signature(ClassifierChain).parameters))  # `base_estimator` until 1.7

# Constructor arguments: those that an estimator cannot do without, and those that keep its fit short.
ARGUMENTS: dict[str, dict[str, Any]] = {
    "AdaBoostClassifier": SMALL,
    "AdaBoostRegressor": SMALL,
    "BaggingClassifier": SMALL,
    "BaggingRegressor": SMALL,
    "BernoulliRBM": {"n_iter": 2, "n_components": 3},
    "BisectingKMeans": {"n_clusters": 3},
    "CalibratedClassifierCV": {"estimator": FEW, **SPLITS},
    "ClassifierChain": {CHAINED: FEW},
    "ColumnTransformer": {"transformers": [("scaled", StandardScaler(), [0, 1]), ("ranged", MinMaxScaler(), [2])]},
    "DictionaryLearning": {"n_components": 2, "max_iter": 3},
    "ElasticNetCV": SPLITS,
    "ExtraTreesClassifier": SMALL,
    "ExtraTreesRegressor": SMALL,
    "FeatureHasher": HASHED,
    "FeatureUnion": {"transformer_list": [("scaled", StandardScaler()), ("ranged", MinMaxScaler())]},
    "FixedThresholdClassifier": {"estimator": FEW},
    "FrozenEstimator": {"estimator": FEW.fit(X, CLASSES)},
    "GaussianRandomProjection": {"n_components": 2},
    "GradientBoostingClassifier": SMALL,
    "GradientBoostingRegressor": SMALL,
    "GraphicalLassoCV": SPLITS,
    "GridSearchCV": {**SEARCHED, "param_grid": BY_DEPTH},
    "HalvingGridSearchCV": {**SEARCHED, "param_grid": BY_DEPTH},
    "HalvingRandomSearchCV": {**SEARCHED, "param_distributions": BY_DEPTH},
    "HashingVectorizer": HASHED,
    "HistGradientBoostingClassifier": {"max_iter": 3},
    "HistGradientBoostingRegressor": {"max_iter": 3},
    "IsolationForest": SMALL,
    "KMeans": {"n_clusters": 3},
    "LassoCV": SPLITS,
    "LassoLarsCV": SPLITS,
    "LarsCV": SPLITS,
    "LatentDirichletAllocation": {"n_components": 2, "max_iter": 2},
    "LogisticRegressionCV": {**SPLITS, "Cs": 2},
    "MDS": {"n_init": 1, "max_iter": 10},
    "MLPClassifier": {"hidden_layer_sizes": (4,), "max_iter": 5},
    "MLPRegressor": {"hidden_layer_sizes": (4,), "max_iter": 5},
    "MiniBatchDictionaryLearning": {"n_components": 2, "max_iter": 3},
    "MiniBatchKMeans": {"n_clusters": 3},
    "MiniBatchNMF": {"n_components": 2},
    "MiniBatchSparsePCA": {"n_components": 2, "max_iter": 3},
    "MultiOutputClassifier": {"estimator": FEW},
    "MultiOutputRegressor": {"estimator": Ridge()},
    "MultiTaskElasticNetCV": SPLITS,
    "MultiTaskLassoCV": SPLITS,
    "NMF": {"n_components": 2},
    "NeighborhoodComponentsAnalysis": {"max_iter": 3},
    "Nystroem": {"n_components": 5},
    "OneVsOneClassifier": {"estimator": FEW},
    "OneVsRestClassifier": {"estimator": FEW},
    "OrthogonalMatchingPursuitCV": SPLITS,
    "OutputCodeClassifier": {"estimator": FEW},
    "PatchExtractor": {"patch_size": (3, 3), "max_patches": 2},
    "Pipeline": {"steps": [("scaled", StandardScaler()), ("clusters", KMeans(2)), ("classifier", FEW)]},
    "RANSACRegressor": {"estimator": LinearRegression()},
    "RFE": {"estimator": FEW},
    "RFECV": {"estimator": FEW, **SPLITS},
    "RandomForestClassifier": SMALL,
    "RandomForestRegressor": SMALL,
    "RandomTreesEmbedding": SMALL,
    "RandomizedSearchCV": {**SEARCHED, "param_distributions": BY_DEPTH, "n_iter": 2},
    "RegressorChain": {CHAINED: Ridge()},
    "SelectFromModel": {"estimator": FEW},
    "SelectKBest": {"k": 2},
    "SelfTrainingClassifier": {"estimator": FEW},
    "SequentialFeatureSelector": {"estimator": FEW, **SPLITS},
    "SparseCoder": {"dictionary": np.eye(4)},
    "SparsePCA": {"n_components": 2, "max_iter": 3},
    "SparseRandomProjection": {"n_components": 2},
    "SpectralBiclustering": {"n_clusters": 2},
    "SpectralClustering": {"n_clusters": 2},
    "SpectralCoclustering": {"n_clusters": 2},
    "StackingClassifier": {"estimators": [("tree", DecisionTreeClassifier()), ("line", FEW)], **SPLITS},
    "StackingRegressor": {"estimators": [("tree", DecisionTreeRegressor()), ("line", Ridge())], **SPLITS},
    "TSNE": {"perplexity": 5, "max_iter": 250},
    "TargetEncoder": SPLITS,
    "TheilSenRegressor": {"max_iter": 5, "max_subpopulation": 50},
    "TruncatedSVD": {"n_components": 2},
    "TunedThresholdClassifierCV": {"estimator": FEW, **SPLITS},
    "VotingClassifier": {"estimators": [("tree", DecisionTreeClassifier()), ("line", FEW)]},
    "VotingRegressor": {"estimators": [("tree", DecisionTreeRegressor()), ("line", Ridge())]},
}

# Data of those that cannot be fitted to numbers and classes, to numbers and a target, or to numbers alone.
DATA: dict[str, tuple[Any, Any]] = {
    "CCA": (X, TWO_TARGETS),
    "CategoricalNB": (X.astype(int), CLASSES),
    "ClassifierChain": (X, TWO_LABELS),
    "CountVectorizer": (TEXTS, None),
    "DictVectorizer": (MAPPINGS, None),
    "FeatureHasher": (MAPPINGS, None),
    "FixedThresholdClassifier": (X, TWO_CLASSES),
    "HashingVectorizer": (TEXTS, None),
    "IsotonicRegression": (X[:, 0], TARGET),
    "IterativeImputer": (WITH_GAPS, None),
    "KNNImputer": (WITH_GAPS, None),
    "KernelCenterer": (KERNEL, None),
    "LabelBinarizer": (CLASSES, None),
    "LabelEncoder": (CLASSES, None),
    "LabelPropagation": (X, SOME_UNLABELLED),
    "LabelSpreading": (X, SOME_UNLABELLED),
    "MissingIndicator": (WITH_GAPS, None),
    "MultiLabelBinarizer": ([("a",), ("a", "b"), ()], None),
    "MultiOutputClassifier": (X, TWO_LABELS),
    "MultiOutputRegressor": (X, TWO_TARGETS),
    "MultiTaskElasticNet": (X, TWO_TARGETS),
    "MultiTaskElasticNetCV": (X, TWO_TARGETS),
    "MultiTaskLasso": (X, TWO_TARGETS),
    "MultiTaskLassoCV": (X, TWO_TARGETS),
    "PLSCanonical": (X, TWO_TARGETS),
    "PLSRegression": (X, TWO_TARGETS),
    "PLSSVD": (X, TWO_TARGETS),
    "PatchExtractor": (IMAGES, None),
    "RFE": (X, CLASSES),
    "RFECV": (X, CLASSES),
    "RegressorChain": (X, TWO_TARGETS),
    "SelectFromModel": (X, CLASSES),
    "SelectKBest": (X, CLASSES),
    "SelectPercentile": (X, CLASSES),
    "SelfTrainingClassifier": (X, SOME_UNLABELLED),
    "SequentialFeatureSelector": (X, CLASSES),
    "SimpleImputer": (WITH_GAPS, None),
    "TfidfVectorizer": (TEXTS, None),
    "TunedThresholdClassifierCV": (X, TWO_CLASSES),
}


def subject(name: str, kind: Callable[..., Any]) -> Subject:
    """An estimator of this kind, set up to give the same again, and its data."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of classes that will be removed; the copies that are fitted warn again
        estimator = kind(**ARGUMENTS.get(name, {}))
    if not isinstance(estimator, FrozenEstimator):
        seeds = {key: 0 for key in estimator.get_params(deep=True) if key.rpartition("__")[2] == "random_state"}
        estimator.set_params(**seeds)
    rows, y = DATA.get(name) or (X, default_target(estimator))
    return Subject(estimator, rows, y)


def default_target(estimator: Any) -> Any:
    """What this kind of estimator learns from the rows of X."""
    if is_regressor(estimator):
        return TARGET
    return CLASSES if is_classifier(estimator) or get_tags(estimator).target_tags.required else None


@pytest.fixture(scope="module")
def kinds() -> Mapping[str, Callable[..., Any]]:
    """Every estimator class of this scikit-learn; to find them is to import all of it, so not before a test runs."""
    return dict(all_estimators())


@pytest.mark.parametrize("initials", ["A-C", "D-G", "H-K", "L", "M-O", "P-R", "S", "T-Z"])
def test_a_wrapped_fit_equals_the_bare_one_and_is_recorded_whole(
    initials: str, kinds: Mapping[str, Callable[..., Any]]
) -> None:
    first, last = initials[0], initials[-1]
    names = [name for name in kinds if first <= name[0] <= last]
    assert len(names) > 10
    found = {name: complaints(subject(name, kinds[name])) for name in names}
    assert {name: said for name, said in found.items() if said} == {}


class Logarithm(TransformerMixin, BaseEstimator):
    """One that a fit leaves as it was."""

    def fit(self, X: Any, y: Any = None) -> Logarithm:
        return self

    def transform(self, X: Any) -> Any:
        return np.log(X)


def test_what_has_no_fitted_attributes_can_be_asked_after_its_fit() -> None:
    assert complaints(Subject(Logarithm(), X)) == []


def test_a_difference_is_found_wherever_it_is() -> None:
    one, other = (Ridge().fit(X, TARGET) for _ in range(2))
    assert list(differences(one, other)) == []
    other.coef_[1] = np.nextafter(other.coef_[1], 2)
    assert list(differences({"a": [one]}, {"a": [other]})) == [".a[0]:Ridge.coef_"]


LOADED = """
    import mlflow
    import numpy as np
    from sklearn.cluster import DBSCAN
    from sklearn.decomposition import PCA
    from sklearn.ensemble import IsolationForest, StackingRegressor
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression, Ridge
    from sklearn.multioutput import MultiOutputClassifier
    from sklearn.tree import DecisionTreeRegressor

    import overt

    X = np.random.RandomState(0).uniform(size=(40, 3))
    texts = ["rain at night", "night train", "light rain"]
    both = np.column_stack([X[:, 0] > 0.5, X[:, 1] > 0.5]).astype(int)
    stack = StackingRegressor([("tree", DecisionTreeRegressor(random_state=0)), ("line", Ridge())], cv=2)
    for estimator, data, y, method in (
        (IsolationForest(n_estimators=3, random_state=0), X, None, "score_samples"),
        (PCA(2), X, None, "transform"),
        (TfidfVectorizer(), texts, None, "transform"),
        (DBSCAN(), X, None, None),
        (MultiOutputClassifier(LogisticRegression()), X, both, "predict"),
        (stack, X, X[:, 0], "predict"),
    ):
        model = overt.TrackedEstimator(estimator).fit(data, y)
        loaded = mlflow.sklearn.load_model(model.run_.model_uri)
        assert type(loaded) is type(estimator), loaded
        before, after = (getattr(m, method)(data) if method else m.labels_ for m in (model, loaded))
        before, after = (value.toarray() if hasattr(value, "toarray") else value for value in (before, after))
        assert np.array_equal(before, after), estimator
        print(type(loaded).__name__)
"""


def test_mlflow_loads_back_what_is_neither_classifier_nor_simple(sqlite_uri: str, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(LOADED), "utf-8")
    done = subprocess.run(
        [sys.executable, str(script)],
        env={**os.environ, "MLFLOW_TRACKING_URI": sqlite_uri},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.split()) == 6
