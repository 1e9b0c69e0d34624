"""scikit-learn's own checks, with tracking really on: a wrapped estimator may fail only what the bare one fails."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
from sklearn.cluster import KMeans
from sklearn.ensemble import HistGradientBoostingRegressor, RandomForestClassifier
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator

from overt import TrackedEstimator
from overt.testing import captured_runs

MUTATED = "fit leaves the fitted steps in the `steps` that the user gave"
WEIGHTS = "an integer weight is not the same as a repeated row where rows are drawn at random"
NO_ITERATIONS = "n_iter_ is None for solvers that do not iterate"

# Which of its checks each bare estimator fails, and why. Here and nowhere else may the wrapped one fail too.
KINDS: dict[str, tuple[Callable[[], Any], dict[str, str]]] = {
    "LogisticRegression": (LogisticRegression, {}),
    "Ridge": (lambda: Ridge(random_state=0), {"check_non_transformer_estimators_n_iter": NO_ITERATIONS}),
    "RandomForestClassifier": (
        lambda: RandomForestClassifier(n_estimators=2, random_state=0),
        {
            "check_sample_weight_equivalence_on_dense_data": WEIGHTS,
            "check_sample_weight_equivalence_on_sparse_data": WEIGHTS,
        },
    ),
    "HistGradientBoostingRegressor": (lambda: HistGradientBoostingRegressor(max_iter=5, random_state=0), {}),
    "StandardScaler": (StandardScaler, {}),
    "GaussianNB": (GaussianNB, {}),  # has partial_fit
    "KMeans": (
        lambda: KMeans(n_clusters=3, n_init=1, random_state=0),
        {
            "check_sample_weight_equivalence_on_dense_data": WEIGHTS,
            "check_sample_weight_equivalence_on_sparse_data": WEIGHTS,
        },
    ),
    "Pipeline": (
        lambda: make_pipeline(StandardScaler(), LogisticRegression()),
        {"check_dont_overwrite_parameters": MUTATED, "check_estimators_overwrite_params": MUTATED},
    ),
}


def outcomes(estimator: Any, expected: dict[str, str]) -> dict[str, str]:
    """What each check came to; a check that fails and was not expected to is told with its error."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the checks provoke them on purpose
        results = check_estimator(estimator, expected_failed_checks=expected, on_fail=None, on_skip=None)
    return {
        result["check_name"]: f"failed: {result['exception']!r}" if result["status"] == "failed" else result["status"]
        for result in results
    }


@pytest.mark.parametrize("kind", KINDS)
def test_a_wrapped_estimator_passes_every_check_that_the_bare_one_passes(kind: str) -> None:
    make, expected = KINDS[kind]
    with captured_runs() as runs:
        found = outcomes(TrackedEstimator(make()), expected)
    assert {name: said for name, said in found.items() if said.startswith("failed")} == {}
    assert sum(said == "passed" for said in found.values()) > 40
    assert len(runs) > 40, "the checks have fitted nothing that was tracked"
    left_open = {"RUNNING"} if hasattr(make(), "partial_fit") else set()  # nobody has ended those
    assert {run.status for run in runs} <= {"FINISHED", "FAILED"} | left_open


@pytest.mark.parametrize("kind", ["Ridge", "RandomForestClassifier", "StandardScaler", "KMeans", "Pipeline"])
def test_the_failures_that_are_allowed_are_failures_of_the_bare_estimator(kind: str) -> None:
    make, expected = KINDS[kind]
    found = outcomes(make(), expected)
    checked = {name: said for name, said in found.items() if name in expected}
    # a check that this version of scikit-learn does not know, or does not fail, allows nothing
    assert set(checked.values()) <= {"xfail"}
    assert {name for name, said in found.items() if said.startswith("failed")} == set()
