"""Fits in threads and in worker processes: nothing hangs, nothing is lost or doubled, and no worker starts a courier.

The matrix: {none, threading, loky} x {a search in a tracked estimator, a tracked estimator in a search}. Each is a
script of its own, with scikit-learn's real pools, delivered into sqlite by a real courier.
"""

from __future__ import annotations

import csv
import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import sklearn
from sklearn.utils.fixes import parse_version

from overt.journal.reader import iter_heads, iter_records
from overt.records import Metric, Row, RunEnd

pytestmark = pytest.mark.slow

HAS_CALLBACKS = parse_version(sklearn.__version__) >= parse_version("1.9")

SCRIPT = """
import json, os, sys, warnings
import joblib, numpy, overt
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.tree import DecisionTreeClassifier

pool, nesting = sys.argv[1:]
X, y = load_iris(return_X_y=True)
grid = {"max_depth": [1, 2, 3]}
tree = DecisionTreeClassifier(random_state=0)
jobs = None if pool == "none" else 2
bare = GridSearchCV(tree, grid, cv=2).fit(X, y)
with joblib.parallel_config("loky" if pool == "none" else pool):
    if nesting == "search in tracked":
        search = overt.TrackedEstimator(GridSearchCV(tree, grid, cv=2, n_jobs=jobs)).fit(X, y)
        found, run = search.estimator_, search.run_
    else:
        grid = {f"estimator__{name}": values for name, values in grid.items()}
        found = GridSearchCV(overt.TrackedEstimator(tree), grid, cv=2, n_jobs=jobs).fit(X, y)
        run = found.best_estimator_.run_
same = numpy.array_equal(found.cv_results_["mean_test_score"], bare.cv_results_["mean_test_score"])
same = same and numpy.array_equal(found.predict_proba(X), bare.predict_proba(X))
print(json.dumps({"same": bool(same), "key": run.key, "pid": os.getpid()}))
"""


def run_script(script: str, tmp_path: Path, *arguments: str, **settings: str) -> Any:
    environment = {**os.environ, "OVERT_QUIET": "1", "OVERT_KEEP_JOURNAL": "1", **settings}
    environment["OVERT_STORE"] = f"sqlite:///{tmp_path / 'mlflow.db'}"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script, *arguments],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return json.loads(done.stdout)


def folders(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / ".overt" / "runs").iterdir())


@pytest.mark.timeout(120)
@pytest.mark.parametrize("nesting", ["search in tracked", "tracked in search"])
@pytest.mark.parametrize("pool", ["none", "threading", "loky"])
def test_every_pool_and_nesting(tmp_path: Path, pool: str, nesting: str) -> None:
    said = run_script(SCRIPT, tmp_path, pool, nesting, OVERT_DELIVERY="manual")
    assert said["same"]
    (folder,) = folders(tmp_path)
    assert folder.name == said["key"]
    records = list(iter_records(folder))
    assert [record.status for record in records if isinstance(record, RunEnd)][:1] == ["FINISHED"]
    rows = [record for record in records if isinstance(record, Row)]
    done = [r for r in records if isinstance(r, Metric) and r.name == "candidate_split_evaluation_seconds"]
    if nesting == "tracked in search":
        assert [row.cells["param_max_depth"] for row in sorted(rows, key=lambda row: row.time_ms)][-1] == "3"
        assert sorted(str(row.cells["param_max_depth"]) for row in rows) == ["1", "1", "2", "2", "3", "3", "3"]
        pids = {row.cells["pid"] for row in rows}
        assert (len(pids) > 1) == (pool == "loky")
        assert len(list(folder.glob("*.jsonl"))) == len(pids | {said["pid"]})
    elif HAS_CALLBACKS:
        assert sorted(point.step for point in done) == [0, 1, 2, 3, 4, 5]
        assert (len(list(folder.glob("*.jsonl"))) > 1) == (pool == "loky")


@pytest.mark.timeout(120)
def test_rows_of_workers_arrive_by_the_courier_of_their_parent(tmp_path: Path) -> None:
    from mlflow import MlflowClient

    said = run_script(SCRIPT, tmp_path, "loky", "tracked in search")
    client = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    (run,) = client.search_runs(["0"])
    assert (run.info.status, run.data.tags["overt.key"]) == ("FINISHED", said["key"])
    table = Path(client.download_artifacts(run.info.run_id, "fits.csv", str(tmp_path))).read_text("utf-8")
    assert len(list(csv.DictReader(io.StringIO(table)))) == 7


KILLED = """
import os, pathlib, signal, threading, time
import joblib, numpy, overt
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.datasets import load_iris
from sklearn.model_selection import KFold, cross_val_score

class Slow(ClassifierMixin, BaseEstimator):
    def fit(self, X, y):
        self.classes_ = numpy.unique(y)
        return self

    def predict(self, X):
        time.sleep(0.05)
        return numpy.zeros(len(X), int)

def kill_after_five_rows():
    while sum(path.read_bytes().count(b'"row"') for path in pathlib.Path().glob(".overt/runs/*/*.jsonl")) < 5:
        time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGKILL)

if __name__ == "__main__":
    X, y = load_iris(return_X_y=True)
    threading.Thread(target=kill_after_five_rows, daemon=True).start()
    cross_val_score(overt.TrackedEstimator(Slow()), X, y, cv=KFold(60), n_jobs=2)
"""


@pytest.mark.timeout(120)
def test_rows_survive_a_kill_of_the_whole_search(tmp_path: Path) -> None:
    script = tmp_path / "killed.py"
    script.write_text(KILLED, "utf-8")
    environment = {**os.environ, "OVERT_QUIET": "1", "OVERT_DELIVERY": "manual"}
    killed = subprocess.Popen([sys.executable, str(script)], env=environment, cwd=tmp_path, start_new_session=True)
    try:
        assert killed.wait(timeout=100) == -9
    finally:
        os.killpg(killed.pid, signal.SIGKILL)  # loky's workers outlive their parent by minutes
    rows = [record for folder in tmp_path.glob(".overt/runs/*") for record in iter_records(folder)]
    rows = [record for record in rows if isinstance(record, Row)]
    assert len(list(tmp_path.glob(".overt/runs/*"))) == 1
    assert len(rows) >= 5
    assert {row.cells["status"] for row in rows} == {"FINISHED"}


WAITED_FOR = """
import json
import overt
from sklearn.datasets import load_iris
from sklearn.model_selection import cross_val_score
from sklearn.naive_bayes import GaussianNB

model = overt.TrackedEstimator(GaussianNB())
for part in range(2):
    cross_val_score(model, *load_iris(return_X_y=True), cv=2 + part)
    overt.wait(1)
print(json.dumps(None))
"""


def test_whoever_waits_ends_the_group_and_later_fits_are_another(tmp_path: Path) -> None:
    run_script(WAITED_FOR, tmp_path, OVERT_DELIVERY="manual")
    found = [list(iter_records(folder)) for folder in folders(tmp_path)]
    assert sorted(sum(isinstance(r, Row) for r in records) for records in found) == [2, 3]
    assert [[r.status for r in records if isinstance(r, RunEnd)] for records in found] == [["FINISHED"]] * 2


SAVED = """
import json, pathlib, pickle, sys
import overt
from sklearn.naive_bayes import GaussianNB

if sys.argv[1] == "save":
    pathlib.Path("model.pkl").write_bytes(pickle.dumps(overt.TrackedEstimator(GaussianNB())))
else:
    model = pickle.loads(pathlib.Path("model.pkl").read_bytes())
print(json.dumps(None))
"""


def test_loading_what_was_pickled_unfitted_writes_nothing(tmp_path: Path) -> None:
    run_script(SAVED, tmp_path, "save", OVERT_DELIVERY="manual")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    run_script(SAVED, tmp_path, "load", OVERT_DELIVERY="manual")
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_a_pickle_that_is_kept_starts_no_run(tmp_path: Path) -> None:
    run_script(SAVED, tmp_path, "save", OVERT_DELIVERY="manual")
    assert not (tmp_path / ".overt").exists()


IN_A_POOL = """
import json, multiprocessing, sys
import joblib, overt
from concurrent.futures import ProcessPoolExecutor
from sklearn.base import clone
from sklearn.datasets import load_iris
from sklearn.naive_bayes import GaussianNB

X, y = load_iris(return_X_y=True)

def fit(model):
    return clone(model).fit(X, y).score(X, y)

if __name__ == "__main__":
    model = overt.TrackedEstimator(GaussianNB())
    if sys.argv[1] == "joblib":
        with joblib.parallel_config("multiprocessing"):
            scores = joblib.Parallel(n_jobs=2)(joblib.delayed(fit)(model) for _ in range(4))
    elif sys.argv[1] == "executor":
        with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
            scores = list(pool.map(fit, [model] * 4))
    else:
        with multiprocessing.get_context(sys.argv[1]).Pool(2) as pool:
            scores = pool.map(fit, [model] * 4, chunksize=1)
            pool.close()
            pool.join()
    print(json.dumps(scores))
"""


@pytest.mark.timeout(120)
@pytest.mark.parametrize("pool", ["joblib", "executor", "spawn", "fork"])
def test_other_pools_fill_one_run_too(tmp_path: Path, pool: str) -> None:
    script = tmp_path / "pooled.py"
    script.write_text(IN_A_POOL, "utf-8")
    done = subprocess.run(
        [sys.executable, str(script), pool],
        env={**os.environ, "OVERT_DELIVERY": "manual", "OVERT_STORE": f"sqlite:///{tmp_path / 'mlflow.db'}"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    assert len(set(json.loads(done.stdout))) == 1
    (folder,) = folders(tmp_path)
    assert sum(isinstance(record, Row) for record in iter_records(folder)) == 4


CALLED_BACK = """
import json
import overt
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV

X, y = load_iris(return_X_y=True)
search = GridSearchCV(LogisticRegression(max_iter=1000), {"C": [0.1, 1.0, 10.0]}, cv=2, n_jobs=2)
search.set_callbacks(overt.SklearnTrackingCallback(live_scores=True)).fit(X, y)
print(json.dumps({"score": search.best_score_, "iterations": int(search.best_estimator_.n_iter_[0])}))
"""


@pytest.mark.skipif(not HAS_CALLBACKS, reason="scikit-learn has callbacks from 1.9 on")
@pytest.mark.timeout(120)
def test_a_callback_set_by_hand_hears_of_workers_and_of_the_refit(tmp_path: Path) -> None:
    said = run_script(CALLED_BACK, tmp_path, OVERT_DELIVERY="manual")
    (folder,) = folders(tmp_path)
    points = [record for record in iter_records(folder) if isinstance(record, Metric)]
    names = {name: sorted(point.step for point in points if point.name == name) for name in {p.name for p in points}}
    assert names["candidate_split_evaluation_seconds"] == list(range(6))
    assert names["candidate_split_evaluation_train_accuracy"] == list(range(6))
    assert names["train_loss"] == list(range(said["iterations"]))
    assert [point.value for point in points if point.name == "best_cv_score"] == [said["score"]]
    assert len(list(folder.glob("*.jsonl"))) <= 3, "a segment for each process"


TAKEN_UP = """
import json, pathlib, pickle, sys
import overt
from sklearn.base import clone
from sklearn.datasets import load_iris
from sklearn.model_selection import cross_val_score
from sklearn.naive_bayes import GaussianNB

X, y = load_iris(return_X_y=True)
if sys.argv[1] == "first":
    model = overt.TrackedEstimator(GaussianNB())
    cross_val_score(model, X, y, cv=5)
    pathlib.Path("model.pkl").write_bytes(pickle.dumps(model))
else:
    model = pickle.loads(pathlib.Path("model.pkl").read_bytes())
    cross_val_score(model, X, y, cv=3)
print(json.dumps(None))
"""


@pytest.mark.timeout(120)
def test_a_pickle_read_after_its_process_has_ended_fills_another_run(tmp_path: Path) -> None:
    from mlflow import MlflowClient

    for part in ("first", "second"):
        run_script(TAKEN_UP, tmp_path, part, OVERT_KEEP_JOURNAL="0")
    client = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    tables = [client.download_artifacts(run.info.run_id, "fits.csv") for run in client.search_runs(["0"])]
    assert sorted(len(Path(table).read_text("utf-8").splitlines()) - 1 for table in tables) == [3, 5]


CONFIGURED = """
import json, sys
import joblib, overt
from sklearn.datasets import load_iris
from sklearn.naive_bayes import GaussianNB

def fit(model):
    return float(model.fit(X, y).score(X, y))

X, y = load_iris(return_X_y=True)
overt.configure(directory="elsewhere", experiment="fraud", delivery="manual", enabled=sys.argv[1] == "on")
scores = joblib.Parallel(n_jobs=2)(joblib.delayed(fit)(overt.TrackedEstimator(GaussianNB())) for _ in range(2))
print(json.dumps(scores))
"""


@pytest.mark.timeout(120)
@pytest.mark.parametrize("switch", ["on", "off"])
def test_workers_record_as_the_process_has_configured_that_sent_them_their_work(tmp_path: Path, switch: str) -> None:
    assert len(run_script(CONFIGURED, tmp_path, switch)) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["elsewhere"] * (switch == "on")
    runs = [next(head for _, head in iter_heads(folder)).spec for folder in tmp_path.glob("elsewhere/runs/*")]
    assert {run.experiment for run in runs} <= {"fraud"}
    assert sum("-fits-" not in run.name for run in runs) == 2 * (switch == "on")


FITTED_THERE = """
import json, pathlib, sys
import joblib, overt
from sklearn.base import clone
from sklearn.datasets import load_iris
from sklearn.naive_bayes import GaussianNB

def fit(model):
    return float((model if sys.argv[1] == "itself" else clone(model)).fit(X, y).score(X, y))

X, y = load_iris(return_X_y=True)
scores = joblib.Parallel(n_jobs=2)(joblib.delayed(fit)(overt.TrackedEstimator(GaussianNB())) for _ in range(2))
print(json.dumps(overt.wait(30)))
"""


@pytest.mark.timeout(120)
@pytest.mark.parametrize(("fitted", "prefix"), [("itself", "GaussianNB-"), ("clone", "GaussianNB-fits-")])
def test_no_group_without_rows_arrives(tmp_path: Path, fitted: str, prefix: str) -> None:
    """A tracked estimator that is sent may be cloned there or be fitted itself, which is a run of its own."""
    from mlflow import MlflowClient

    assert run_script(FITTED_THERE, tmp_path, fitted, OVERT_KEEP_JOURNAL="0")
    runs = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}").search_runs(["0"])
    assert [run.info.status for run in runs] == ["FINISHED"] * 2
    assert all(run.info.run_name.startswith(prefix) and len(run.info.run_name) == len(prefix) + 4 for run in runs)
    assert not any(path.name.startswith("journal") for path in (tmp_path / ".overt").rglob("*.jsonl"))


FORKED = """
import json, sys
import joblib, overt
from sklearn.datasets import load_iris
from sklearn.inspection import permutation_importance
from sklearn.model_selection import cross_val_score
from sklearn.naive_bayes import GaussianNB

X, y = load_iris(return_X_y=True)
with joblib.parallel_config("multiprocessing"):
    if sys.argv[1] == "fit":
        with overt.start_run("outer"):
            cross_val_score(overt.TrackedEstimator(GaussianNB()), X, y, cv=4, n_jobs=2)
    else:
        permutation_importance(overt.TrackedEstimator(GaussianNB()).fit(X, y), X, y, n_repeats=2, n_jobs=2)
print(json.dumps(None))
"""


@pytest.mark.parametrize(("use", "rows"), [("fit", 4), ("ask", 0)])
def test_forks_add_to_the_run_around_them_and_asking_there_starts_none(tmp_path: Path, use: str, rows: int) -> None:
    run_script(FORKED, tmp_path, use, OVERT_DELIVERY="manual")
    (folder,) = folders(tmp_path)
    assert sum(isinstance(record, Row) for record in iter_records(folder)) == rows
