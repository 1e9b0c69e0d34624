"""As the last step of a pipeline a tracked estimator advises to wrap the pipeline, once, and nowhere else."""

from __future__ import annotations

import pytest
from sklearn.cluster import KMeans
from sklearn.datasets import load_iris
from sklearn.ensemble import VotingClassifier
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from overt import OvertWarning, TrackedEstimator
from overt.delivery.dispatch import dispatch
from overt.stores.memory import MemoryRun

Runs = list[MemoryRun]
X, y = load_iris(return_X_y=True)


class Line(Pipeline):  # type: ignore[misc]
    """A subclass, such as imblearn's."""


@pytest.mark.parametrize("kind", [Pipeline, Line])
def test_the_last_step_of_a_pipeline_says_to_wrap_the_whole_once(
    runs: Runs, kind: type[Pipeline], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatch(), "_said", set())  # once in each process
    pipeline = kind([("scale", StandardScaler()), ("model", TrackedEstimator(GaussianNB()))])
    with pytest.warns(OvertWarning, match=r"Wrap the whole: TrackedEstimator\(make_pipeline") as said:
        pipeline.fit(X, y)
    assert len(said) == 1
    pipeline.fit(X, y)  # warnings are errors here
    assert [run.status for run in runs] == ["FINISHED", "FINISHED"]


def test_it_is_said_by_the_other_ways_to_fit_too(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    clusters = make_pipeline(StandardScaler(), TrackedEstimator(KMeans(2, n_init=1)))
    scaled = make_pipeline(StandardScaler(), TrackedEstimator(StandardScaler()))
    for fit in (clusters.fit_predict, scaled.fit_transform):
        monkeypatch.setattr(dispatch(), "_said", set())
        with pytest.warns(OvertWarning, match="Wrap the whole"):
            fit(X)


def test_nothing_is_said_elsewhere(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch(), "_said", set())
    TrackedEstimator(make_pipeline(StandardScaler(), GaussianNB())).fit(X, y)
    make_pipeline(TrackedEstimator(StandardScaler()), GaussianNB()).fit(X, y)
    VotingClassifier([("model", TrackedEstimator(GaussianNB()))]).fit(X, y)
    assert not dispatch()._said


def test_nothing_is_said_where_no_other_step_transforms_the_data(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch(), "_said", set())
    make_pipeline(TrackedEstimator(GaussianNB())).fit(X, y)
    make_pipeline("passthrough", TrackedEstimator(GaussianNB())).fit(X, y)
    make_pipeline(None, TrackedEstimator(GaussianNB())).fit(X, y)
    assert not dispatch()._said
