"""What a search of 200 candidates costs a server: counted where requests leave for a real one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
from mlflow import MlflowClient
from sklearn.datasets import load_iris
from sklearn.model_selection import GridSearchCV
from sklearn.naive_bayes import GaussianNB

import overt
from overt import TrackedEstimator
from overt.delivery.sync import sync
from overt.stores.mlflow.environment import CLIENT_ENVIRONMENT

X, y = load_iris(return_X_y=True)
pytestmark = pytest.mark.slow

CANDIDATES = 200
REQUESTS = 15
REQUESTS_OF_A_CHILD = 4
MOST_CHILDREN = 11
MOST_REQUESTS = 60


def delivered(child_runs: int, uri: str, monkeypatch: pytest.MonkeyPatch) -> tuple[list[str], Any, list[Any]]:
    """The requests that a search took, its run in the server, and the runs nested in it."""
    overt.configure(store=uri, delivery="manual", experiment=f"requests-{child_runs}")
    search = GridSearchCV(GaussianNB(), {"var_smoothing": np.logspace(-9, -1, CANDIDATES)}, cv=2)
    TrackedEstimator(search, child_runs=child_runs, log_model=False, training_metrics=False).fit(X, y)
    for name, value in CLIENT_ENVIRONMENT.items():  # as in a courier: else it asks to print where a run is
        monkeypatch.setenv(name, value)
    sent: list[str] = []
    real = requests.Session.send

    def counted(self: requests.Session, request: Any, **keywords: Any) -> Any:
        sent.append(f"{request.method} {request.path_url}")
        return real(self, request, **keywords)

    with monkeypatch.context() as patch:
        patch.setattr(requests.Session, "send", counted)
        outcomes = list(sync(Path(".overt") / "runs", store_of=lambda spec: uri))
    assert all(outcome.delivered for outcome in outcomes), outcomes
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name(f"requests-{child_runs}")
    runs = client.search_runs([experiment.experiment_id], max_results=1_000)
    (parent,) = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    children = [run for run in runs if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
    assert len(children) == len(runs) - 1
    return sent, parent, children


@pytest.mark.timeout(180)
@pytest.mark.parametrize("child_runs", [0, MOST_CHILDREN])
def test_200_candidates_take_few_requests(mlflow_server: str, monkeypatch: pytest.MonkeyPatch, child_runs: int) -> None:
    sent, parent, children = delivered(child_runs, mlflow_server, monkeypatch)
    client = MlflowClient(mlflow_server)
    table = Path(client.download_artifacts(parent.info.run_id, "cv_results.csv")).read_text("utf-8")
    assert len(table.splitlines()) == 1 + CANDIDATES
    assert len(children) == child_runs
    assert all({"cv_mean_accuracy", "fit_seconds"} <= set(child.data.metrics) for child in children)
    assert len(sent) <= REQUESTS + child_runs * REQUESTS_OF_A_CHILD < MOST_REQUESTS
