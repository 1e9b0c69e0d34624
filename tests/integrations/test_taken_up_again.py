"""A run that another process takes up, and a run inside the caller's own: what is said of them stays true."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from mlflow import MlflowClient

from overt.delivery.sync import sync

pytestmark = pytest.mark.timeout(180)  # couriers have the lowest priority: on a busy machine they take their time

FIT = """
import overt, pickle
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression
X, y = load_iris(return_X_y=True)
model = overt.TrackedEstimator(LogisticRegression(max_iter=500)).fit(X, y)
assert overt.wait(60)
pickle.dump(model, open("model.pkl", "wb"))
print(model.run_.id)
"""

EVALUATE = """
import overt, pickle
from sklearn.datasets import load_iris
X, y = load_iris(return_X_y=True)
model = pickle.load(open("model.pkl", "rb"))
assert model.run_.status == "FINISHED", model.run_.status
model.evaluate(X, y)
assert overt.wait(60)
print(model.run_.id)
"""

TWO_FITS_IN_THE_CALLERS_RUN = """
import mlflow, overt
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression
X, y = load_iris(return_X_y=True)
overt.configure(tags={"team": "blue"})
mlflow.set_experiment("theirs")
with mlflow.start_run() as active:
    for _ in range(2):
        overt.TrackedEstimator(LogisticRegression(max_iter=500)).fit(X, y)
    off = overt.TrackedEstimator(LogisticRegression(max_iter=500), tracker=overt.Tracker(enabled=False))
    off.fit(X, y)
assert overt.wait(60)
print(active.info.run_id)
"""


def run_script(code: str, uri: str) -> str:
    """What the script printed; it must exit with 0."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=dict(os.environ) | {"MLFLOW_TRACKING_URI": uri},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.slow
def test_an_evaluation_in_a_later_process_arrives_and_the_run_stays_finished(sqlite_uri: str, tmp_path: Path) -> None:
    run_id = run_script(FIT, sqlite_uri)
    ended = MlflowClient(sqlite_uri).get_run(run_id).info.end_time
    assert run_script(EVALUATE, sqlite_uri) == run_id

    list(sync(tmp_path / ".overt", store_of=lambda spec: sqlite_uri))
    run = MlflowClient(sqlite_uri).get_run(run_id)
    assert (run.info.status, run.info.end_time) == ("FINISHED", ended)
    assert "accuracy" in run.data.metrics


@pytest.mark.slow
def test_a_second_fit_in_the_callers_run_is_nested_in_it_in_its_experiment(sqlite_uri: str) -> None:
    chosen = f"import mlflow; mlflow.set_tracking_uri({sqlite_uri!r})\n"
    caller_id = run_script(chosen + TWO_FITS_IN_THE_CALLERS_RUN, "http://127.0.0.1:9")
    client = MlflowClient(sqlite_uri)
    caller = client.get_run(caller_id)
    runs = client.search_runs([caller.info.experiment_id])
    assert client.get_experiment(caller.info.experiment_id).name == "theirs"
    assert len(runs) == 2
    child = next(run for run in runs if run.info.run_id != caller_id)
    assert child.data.tags["mlflow.parentRunId"] == caller_id
    assert caller.data.tags["team"] == child.data.tags["team"] == "blue"
    assert client.search_runs(["0"]) == []
