"""Plain files as users have them: delivered by real couriers, killed, in many processes, and without MLflow."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from overt.stores.csv import CsvStore
from overt.stores.jsonl import JsonlStore

STORES = {
    "jsonl:experiments": lambda: JsonlStore(Path("experiments")),
    "csv:experiments.csv": lambda: CsvStore(Path("experiments.csv")),
}
NO_MLFLOW = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "mlflow":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Absent())
"""


def run_script(source: str, *arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", source, *map(str, arguments)],
        env=dict(os.environ) | environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("uri", STORES)
def test_an_estimator_is_recorded_whole_where_mlflow_is_not_installed(uri: str, tmp_path: Path) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(NO_MLFLOW)  # of the courier as well
    done = run_script(
        f"""
import overt
from sklearn.datasets import load_wine
from sklearn.tree import DecisionTreeClassifier
X, y = load_wine(return_X_y=True)
overt.configure(store={uri!r})
model = overt.TrackedEstimator(DecisionTreeClassifier(), cv=3, notes="no MLflow").fit(X[::2], y[::2])
model.evaluate(X[1::2], y[1::2])
assert overt.wait()
try:
    import mlflow
except ModuleNotFoundError:
    print("absent")
""",
        PYTHONPATH=str(tmp_path / "site"),
    )
    assert (done.returncode, done.stdout) == (0, "absent\n"), done.stderr
    assert "Warning" not in done.stderr
    store = STORES[uri]()
    (run,) = store.iter_runs()
    assert run.status == "FINISHED"
    assert {"accuracy", "cv_mean_accuracy", "training_accuracy"} <= run.metrics.keys()
    details = store.read_run(run.id)
    paths = {file.path for file in details.files}
    assert {"confusion_matrix.json", "confusion_matrix.png", "model/model.pkl", "overt/packages.json"} <= paths
    assert [(data.context, bool(data.digest)) for data in details.datasets] == [("training", True), ("eval", True)]
    assert [point.step for point in store.iter_points(run.id, "cv_accuracy")] == [0, 1, 2]


@pytest.mark.parametrize("uri", STORES)
def test_a_training_that_is_killed_is_closed_and_has_its_line(uri: str) -> None:
    script = f"""
import sys, time
import overt
run = overt.start_run("killed", tracker=overt.Tracker(store={uri!r}))
for step in range(1_000_000):
    run.log_metric("loss", 1 / (step + 1))
    print(step, flush=True)
"""
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as training:
        assert training.stdout is not None
        while int(training.stdout.readline()) < 2_000:
            pass
        os.kill(training.pid, signal.SIGKILL)
        *said, _ = ["2000", *training.stdout.read().split("\n")]  # the last may be cut off
    store, deadline = STORES[uri](), time.monotonic() + 60
    while not store.lines.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    (line,) = store.lines.read_text("utf-8").splitlines()
    assert json.loads(line)["status"] == "KILLED"
    (run,) = store.iter_runs()
    steps = [point.step for point in store.iter_points(run.id, "loss")]
    assert steps == list(range(len(steps)))
    assert len(steps) > int(said[-1]), "what log_metric returned for has arrived"
    if isinstance(store, CsvStore):
        (row,) = csv.DictReader(store.path.read_text("utf-8").splitlines())
        assert row["status"] == "KILLED"


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("uri", STORES)
def test_eight_processes_with_500_runs_each_lose_none(uri: str) -> None:
    script = """
import sys
import overt
uri, number = sys.argv[1:]
overt.configure(store=uri, experiment=f"process-{number}")
for i in range(500):
    with overt.start_run(f"run-{i}", params={"i": i, f"only_{number}": "yes"}) as run:
        run.log_metric("value", i / 7)
sys.exit(not overt.wait())
"""
    processes = [subprocess.Popen([sys.executable, "-c", script, uri, str(number)]) for number in range(8)]
    assert [process.wait() for process in processes] == [0] * 8
    store = STORES[uri]()
    found = [json.loads(line) for line in store.lines.read_text("utf-8").splitlines()]
    lines = list({line["run_id"]: line for line in found}.values())  # of a run sealed twice the last counts
    expected = {(f"process-{number}", f"run-{i}", i) for number in range(8) for i in range(500)}
    assert len(lines) == 4_000
    assert {(line["experiment"], line["run_name"], line["params"]["i"]) for line in lines} == expected
    assert all(line["metrics"] == {"value": line["params"]["i"] / 7} for line in lines)
    if isinstance(store, CsvStore):
        with open(store.path, newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file, strict=True))
        assert len(rows) == 4_000
        assert {(row["experiment"], row["run_name"], int(row["param_i"])) for row in rows} == expected
        assert all(row[f"param_only_{row['experiment'][-1]}"] == "yes" for row in rows)
