"""However meta-estimators are nested, and whatever of it is tracked: equal predictions, and all of it recorded."""

from __future__ import annotations

import csv
import io
import warnings
from dataclasses import dataclass
from functools import update_wrapper
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.calibration import CalibratedClassifierCV
from sklearn.datasets import make_classification
from sklearn.ensemble import AdaBoostClassifier, BaggingClassifier, StackingClassifier, VotingClassifier
from sklearn.feature_selection import SelectFromModel
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.multiclass import OneVsRestClassifier
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier

from overt import TrackedEstimator
from overt.records import ROWS_TAG
from overt.stores.memory import MemoryRun
from overt.testing import captured_runs

X, y = make_classification(60, n_features=4, n_informative=3, n_redundant=0, n_classes=3, random_state=0)

LEAVES = {
    "logistic": lambda: LogisticRegression(max_iter=500),
    "bayes": GaussianNB,
    "tree": lambda: DecisionTreeClassifier(max_depth=2, random_state=0),
}

# Steps have names, or make_pipeline would name them after the wrapper: scikit-learn draws random states in the order of
# the parameters' names.
NESTS = {
    "pipeline": lambda inner: Pipeline([("scale", StandardScaler()), ("model", inner)]),
    "selected": lambda inner: Pipeline(
        [("select", SelectFromModel(DecisionTreeClassifier(random_state=0))), ("model", inner)]
    ),
    "bagging": lambda inner: BaggingClassifier(inner, n_estimators=2, random_state=0),
    "boosting": lambda inner: AdaBoostClassifier(inner, n_estimators=2, random_state=0),
    "calibrated": lambda inner: CalibratedClassifierCV(inner, cv=2),
    "one-vs-rest": OneVsRestClassifier,
    "search": lambda inner: GridSearchCV(inner, {}, cv=2),
    "voting": lambda inner: VotingClassifier([("a", inner), ("b", GaussianNB())]),
    "stacking": lambda inner: StackingClassifier([("a", inner), ("b", GaussianNB())], cv=2),
}


def noting(kind: type, fits: list[str]) -> type:
    """A class that is ``kind`` in all but that it notes each of its fits."""

    def fit(self: Any, *args: Any, **keywords: Any) -> Any:
        fits.append(kind.__name__)
        return kind.fit(self, *args, **keywords)  # type: ignore[attr-defined]

    return type(kind.__name__, (kind,), {"fit": update_wrapper(fit, kind.fit)})  # type: ignore[attr-defined]


@dataclass(frozen=True)
class Nest:
    """One estimator, with what is inside it; ``is_tracked`` counts only where tracking is wanted."""

    kind: str
    is_tracked: bool
    inner: Nest | None = None

    def build(self, *, fits: list[str] | None = None) -> Any:
        """The estimator; tracked, or with the fits of what would be tracked noted in ``fits``."""
        make = LEAVES[self.kind] if self.inner is None else NESTS[self.kind]
        estimator = make() if self.inner is None else make(self.inner.build(fits=fits))
        if not self.is_tracked:
            return estimator
        if fits is None:
            return TrackedEstimator(estimator)
        estimator.__class__ = noting(type(estimator), fits)
        return estimator

    def has_tracked(self) -> bool:
        return self.count_tracked() > 0

    def count_tracked(self) -> int:
        return self.is_tracked + (0 if self.inner is None else self.inner.count_tracked())


leaves = st.builds(Nest, st.sampled_from(sorted(LEAVES)), st.booleans())
nests = st.recursive(
    leaves, lambda inner: st.builds(Nest, st.sampled_from(sorted(NESTS)), st.booleans(), inner), max_leaves=3
)


def outcome(estimator: Any) -> Any:
    """What the fitted estimator predicts, or the kind of error that its fit raises."""
    try:
        return estimator.fit(X, y).predict(X)
    except Exception as error:  # noqa: BLE001 - some nests make no sense, and the bare one says so as well
        return type(error)


def count_fits(run: MemoryRun) -> int:
    """How many fits a run tells of: its rows, or one, where it is that of a fit."""
    if ROWS_TAG not in run.tags:
        return 1
    return len(list(csv.DictReader(io.StringIO(run.artifacts.get("fits.csv", b"").decode()))))


@pytest.mark.timeout(300)
@settings(max_examples=120)
@given(nests)
def test_a_nest_predicts_as_if_nothing_were_tracked_and_all_of_it_is_recorded(nest: Nest) -> None:
    fits: list[str] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        bare = outcome(nest.build(fits=fits))
    with captured_runs() as runs, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = outcome(nest.build())
    assert np.array_equal(found, bare) if isinstance(bare, np.ndarray) else found is bare
    if isinstance(bare, type):
        return
    assert bool(runs) == nest.has_tracked()
    assert len([run for run in runs if run.spec.parent_key is None]) <= nest.count_tracked()
    assert sum(map(count_fits, runs)) == len(fits), fits
    assert not [tag for run in runs for tag in run.tags if tag.startswith("overt.not_recorded")]
    assert {run.status for run in runs} <= {"FINISHED", "RUNNING"}
    assert not any(b"FAILED" in run.artifacts.get("fits.csv", b"") for run in runs)
