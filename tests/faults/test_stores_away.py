"""Training against stores that are dead, silent, refusing or in trouble: it ends as always, and nothing is lost."""

from __future__ import annotations

import json
import re
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities import ViewType
from tests.crash.processes import (
    DEADLINE_S,
    Database,
    Ended,
    bare,
    couriers_of,
    eventually,
    is_gone,
    kill,
    run_folders,
    run_python,
    start_python,
    sync_here,
    sync_until_delivered,
)
from tests.faults.servers import MlflowServer, answering_server, free_port, silent_server

pytestmark = pytest.mark.timeout(180)  # couriers have the lowest priority: on a busy machine they take their time

DRAIN_S = 1.0
SLACK_S = 12.0  # a busy machine; without a drain timeout each of these would wait for minutes

TRAINING = """
import os, sys, time

if os.environ.get("WITHOUT_OVERT"):
    class Stub:
        key = "none"
        def __enter__(self): return self
        def __exit__(self, *error): return False
        def __getattr__(self, name): return lambda *a, **k: None
    class overt:
        start_run = staticmethod(lambda name, **k: Stub())
else:
    touched = []
    def audit(event, arguments):
        if event in ("socket.connect", "socket.sendto", "socket.getaddrinfo", "socket.gethostbyname", "socket.bind"):
            touched.append((event, str(arguments)))
    sys.addaudithook(audit)
    import overt

slowest = 0.0
with overt.start_run("faulty", experiment="faults") as run:
    print(run.key, flush=True)
    run.log_param("lr", 0.1)
    for i in range(300):
        before = time.perf_counter()
        run.log_metric("loss", 1 / (i + 1), step=i)
        slowest = max(slowest, time.perf_counter() - before)
    run.log_text("a note", "notes/a.txt")
    for path in sys.argv[1:]:  # a longer training: until the test has seen what it waited for
        i += 1
        while not os.path.exists(path):
            run.log_metric("later", float(i))
            time.sleep(0.01)
    run.log_metric("last", 1.0)

if not os.environ.get("WITHOUT_OVERT"):
    assert not touched, touched
    assert not {"mlflow", "matplotlib"} & set(sys.modules)
assert slowest < 1.0, slowest
print("done", flush=True)
if os.environ.get("CODE"):
    sys.exit(int(os.environ["CODE"]))
"""


class Training:
    """A training in progress, whose standard error can be read meanwhile."""

    def __init__(self, *wait_for: str) -> None:
        with open("stderr.txt", "w") as err:
            self._process = start_python(TRAINING, *wait_for, stderr=err)
        assert self._process.stdout is not None
        self.key = self._process.stdout.readline().strip()

    def has_warned(self) -> bool:
        return "OvertWarning:" in Path("stderr.txt").read_text()

    def finish(self, *meanwhile: str) -> Ended:
        """Let it go on to its end."""
        for path in meanwhile:
            Path(path).touch()
        began = time.monotonic()
        out, _ = self._process.communicate(timeout=DEADLINE_S)
        return Ended(self._process.returncode, out, Path("stderr.txt").read_text(), time.monotonic() - began)


def said_once(ended: Ended, base: Path, *, warnings: int = 1) -> None:
    """The end of a training whose store was away: one warning at the user's line, one summary, the command to type."""
    assert ended.code == 9, ended.err
    assert ended.out.split() == ["done"]
    assert len(ended.warnings) == warnings, ended.err
    for line in ended.warnings:
        assert re.search(r"script-\w+\.py:\d+: OvertWarning: ", line), line
    command = f"overt sync {base}"
    assert ended.err.splitlines()[-1].endswith(f"To deliver: {command}"), ended.err
    assert f"1 run(s) not delivered yet, kept in {base}" in ended.err


def all_is_there(database: Database, key: str) -> None:
    """Everything that ``TRAINING`` records."""
    points = database.points(key)
    assert sorted((p.step, p.value, n) for p, n in points.items() if p.name == "loss") == [
        (i, 1 / (i + 1), 1) for i in range(300)
    ]
    assert [p.value for p in points if p.name == "last"] == [1.0]
    assert database.params(key) == {"lr": "0.1"}
    assert database.status(key) == "FINISHED"


@contextmanager
def dead() -> Iterator[str]:
    yield f"http://127.0.0.1:{free_port()}"


@contextmanager
def unwritable() -> Iterator[str]:
    Path("plain file").touch()
    yield f"sqlite:///{Path.cwd()}/plain file/mlflow.db"


STORES: dict[str, Callable[[], AbstractContextManager[str]]] = {
    "dead": dead,
    "silent": silent_server,
    "500": lambda: answering_server(500, b"<h1>Internal Server Error</h1>"),
    "503": lambda: answering_server(503, b"no healthy upstream", "text/plain"),
    "401": lambda: answering_server(401, b"You are not authenticated.", "text/plain"),
    "403": lambda: answering_server(403, b'{"error_code": "PERMISSION_DENIED", "message": "no"}', "application/json"),
    "404": lambda: answering_server(404, b"<h1>Not Found</h1>"),
    "garbage": lambda: answering_server(200, b"\x00\xff<html>it works!"),
    "other JSON": lambda: answering_server(200, b'{"experiment": 7, "runs": "no"}', "application/json"),
    "no folder": unwritable,
}


# A server that refuses in one way more or less is the sweep; of each kind of trouble one is looked at always.
SWEEP = ("503", "401", "404", "other JSON")


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.slow] * (name in SWEEP)) for name in STORES])
def test_training_goes_on_without_its_store(
    name: str, sqlite_uri: str, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CODE", "9")
    without = run_python(TRAINING, env=bare())
    assert without.code == 9
    monkeypatch.setenv("OVERT_WAIT", str(DRAIN_S))
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "2")
    with STORES[name]() as uri:
        monkeypatch.setenv("OVERT_STORE", uri)
        training = Training("warned")
        eventually(training.has_warned, "a warning")
        ended = training.finish("warned")
    said_once(ended, base)
    assert ended.seconds < DRAIN_S + SLACK_S
    for courier in couriers_of(base):
        kill(courier)
    sync_until_delivered(base, sqlite_uri)
    all_is_there(Database(sqlite_uri), training.key)


def test_a_short_script_waits_no_longer_than_it_was_told_for_a_server_that_says_nothing(
    base: Path, sqlite_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CODE", "9")
    monkeypatch.setenv("OVERT_WAIT", str(DRAIN_S))
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "60")  # nothing fails while it waits
    with silent_server() as uri:
        monkeypatch.setenv("OVERT_STORE", uri)
        ended = run_python(TRAINING)
    assert ended.seconds < DRAIN_S + SLACK_S
    said_once(ended._replace(out="done"), base, warnings=0)
    for courier in couriers_of(base):
        kill(courier)
    sync_until_delivered(base, sqlite_uri)
    all_is_there(Database(sqlite_uri), ended.out.split()[0])


def test_who_ends_the_wait_at_the_end_is_told_what_is_left(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = """
import os, signal, threading, time
import overt
with overt.start_run("mine"):
    pass
threading.Thread(target=lambda: (time.sleep(3), os.kill(os.getpid(), signal.SIGINT)), daemon=True).start()
"""
    with silent_server() as uri:
        monkeypatch.setenv("OVERT_STORE", uri)
        ended = run_python(script)
    left = f"overt: 1 run(s) not delivered yet, kept in {base}. To deliver: overt sync {base}\n"
    assert (ended.code, ended.err) == (0, left)
    for courier in couriers_of(base):
        kill(courier)


def test_a_short_script_does_not_wait_where_it_was_told_not_to(
    base: Path, sqlite_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CODE", "9")
    monkeypatch.setenv("OVERT_WAIT", "0")
    with silent_server() as uri:
        monkeypatch.setenv("OVERT_STORE", uri)
        ended = run_python(TRAINING)
    assert (ended.code, ended.err) == (9, ""), "OVERT_WAIT=0 leaves at once, without a word"
    assert ended.seconds < SLACK_S
    for courier in couriers_of(base):
        kill(courier)
    sync_until_delivered(base, sqlite_uri)
    all_is_there(Database(sqlite_uri), ended.out.split()[0])


@pytest.mark.timeout(240)
def test_a_server_killed_and_restarted_midway_gets_everything(
    sqlite_uri: str, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    database, server = Database(sqlite_uri), MlflowServer(sqlite_uri, tmp_path, free_port())
    monkeypatch.setenv("OVERT_STORE", server.uri)
    monkeypatch.setenv("OVERT_EXPERIMENT", "midway")
    try:
        server.start()
        training = Training("killed", "restarted")
        eventually(lambda: database.run_id(training.key) and database.points(training.key), "first metrics")
        server.kill()
        Path("killed").touch()
        eventually(training.has_warned, "a warning")
        server.start()
        ended = training.finish("restarted")
        assert ended.code == 0
        assert len(ended.warnings) == 1, ended.err
        assert f"overt sync {base}" in ended.warnings[0]
        eventually(lambda: not run_folders(base), "delivered by the courier, unasked")
        all_is_there(database, training.key)
        later = sorted(p.step for p in database.points(training.key) if p.name == "later")
        assert later == list(range(len(later)))
        notes = list((tmp_path / "artifacts").rglob("notes/a.txt"))
        assert [note.read_text() for note in notes] == ["a note"]
    finally:
        server.kill()


@pytest.mark.slow  # MLflow itself waits for more than a minute before it says that the database is locked
def test_a_database_that_another_process_locks_is_waited_for(
    sqlite_uri: str, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = Database(sqlite_uri)
    monkeypatch.setenv("OVERT_STORE", sqlite_uri)
    training = Training("locked", "unlocked")
    eventually(lambda: database.run_id(training.key), "the run's creation")
    with closing(sqlite3.connect(database.path, timeout=60, isolation_level=None)) as connection:
        eventually(lambda: _try(connection, "BEGIN EXCLUSIVE"), "the lock")
        Path("locked").touch()
        eventually(training.has_warned, "a warning")
        connection.execute("ROLLBACK")
    ended = training.finish("unlocked")
    assert ended.code == 0
    assert len(ended.warnings) == 1, ended.err
    eventually(lambda: not run_folders(base), "delivered by the courier, unasked")
    all_is_there(database, training.key)


def _try(connection: sqlite3.Connection, statement: str) -> bool:
    try:
        connection.execute(statement)
    except sqlite3.OperationalError:
        return False
    return True


@pytest.mark.parametrize("what", ["experiment", "run"])
def test_what_was_deleted_in_mlflow_arrives_once_it_is_restored(
    what: str, sqlite_uri: str, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = Database(sqlite_uri)
    monkeypatch.setenv("OVERT_STORE", sqlite_uri)
    monkeypatch.setenv("OVERT_WAIT", str(DRAIN_S))
    monkeypatch.setenv("CODE", "9")
    training = Training("deleted", "warned")
    eventually(lambda: database.run_id(training.key) and database.points(training.key), "first metrics")
    _mlflow(sqlite_uri, what, "delete", training.key)
    Path("deleted").touch()
    eventually(training.has_warned, "a warning")
    ended = training.finish("warned")
    said_once(ended, base)
    assert "restore" in ended.warnings[0]
    _mlflow(sqlite_uri, what, "restore", training.key)
    for courier in couriers_of(base):
        kill(courier)
    sync_until_delivered(base, sqlite_uri)
    all_is_there(database, training.key)


def test_a_run_deleted_just_before_its_end_gets_its_ending_once_it_is_restored(
    sqlite_uri: str, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = Database(sqlite_uri)
    monkeypatch.setenv("OVERT_STORE", sqlite_uri)
    monkeypatch.setenv("OVERT_WAIT", str(DRAIN_S))
    training = start_python("""
        import os, time
        import overt
        with overt.start_run("cut", experiment="faults") as run:
            run.log_metric("loss", 1.0)
            print(run.key, flush=True)
            while not os.path.exists("deleted"):
                time.sleep(0.01)
    """)
    assert training.stdout is not None
    key = training.stdout.readline().strip()
    eventually(
        lambda: database.run_id(key) and (database.artifacts(key) / "overt" / "packages.json").exists(),
        "all but the end",
    )
    eventually(lambda: database.points(key), "its metric")
    _mlflow(sqlite_uri, "run", "delete", key)
    Path("deleted").touch()
    _, err = training.communicate(timeout=DEADLINE_S)
    for courier in couriers_of(base):
        kill(courier)
    sync_here(base, sqlite_uri)
    assert "restore" in err
    _mlflow(sqlite_uri, "run", "restore", key)
    sync_until_delivered(base, sqlite_uri)
    assert database.status(key) == "FINISHED"


def _mlflow(uri: str, what: str, verb: str, key: str) -> None:
    """Delete or restore the run, or its experiment, as MLflow's own client does."""
    client = MlflowClient(uri)
    experiments = [e.experiment_id for e in client.search_experiments(view_type=ViewType.ALL)]
    (run,) = client.search_runs(experiments, f"tags.`overt.key` = '{key}'", run_view_type=ViewType.ALL)
    identity = run.info.run_id if what == "run" else run.info.experiment_id
    getattr(client, f"{verb}_{what}")(identity)


STRACE = "strace -f --seccomp-bpf -qq -o trace -e trace=network,process".split()


@pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")
def test_the_training_process_never_touches_the_network(
    base: Path, sqlite_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the kernel's own word: system calls of the training process's threads, not of the courier it starts."""
    with silent_server() as uri:
        monkeypatch.setenv("OVERT_STORE", uri)
        monkeypatch.setenv("OVERT_WAIT", str(DRAIN_S))
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
        traced = start_python(TRAINING, prefix=STRACE)
        eventually(lambda: "AF_INET" in _trace(), "the courier's look for its store")
        eventually(lambda: is_gone(int(_trace().split()[0])), "the training's end")
        for courier in couriers_of(base):  # it would go on looking for half a minute
            kill(courier)
        _, err = traced.communicate(timeout=DEADLINE_S)
    assert traced.returncode == 0, err
    trace = _trace().splitlines()
    threads, begun = {trace[0].split()[0]}, {}
    for line in trace:
        pid, call = line.split(maxsplit=1)
        if call.endswith("<unfinished ...>"):
            begun[pid] = call
        elif "resumed>" in call:
            call = begun.pop(pid, "") + call
        child = re.search(r"= (\d+)$", call)
        if child and pid in threads and "CLONE_THREAD" in call:
            threads.add(child[1])
    calls = [line.split(maxsplit=1) for line in trace if "AF_INET" in line]
    assert len(threads) >= 3, "the threads that talk to the courier were not seen"
    assert any(pid not in threads for pid, _ in calls), "the courier was not seen: nothing was tested"
    assert not [call for pid, call in calls if pid in threads]


def _trace() -> str:
    return Path("trace").read_text(errors="replace") if Path("trace").exists() else ""


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_eight_processes_that_start_together_on_a_new_database_all_succeed(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = f"sqlite:///{tmp_path}/not there yet.db"
    monkeypatch.setenv("OVERT_STORE", uri)
    trainings = [start_python(TRAINING) for _ in range(8)]
    ended = [training.communicate(timeout=200) for training in trainings]
    assert [training.returncode for training in trainings] == [0] * 8
    assert [err for _, err in ended] == [""] * 8
    eventually(lambda: not run_folders(base), "delivered")
    database = Database(uri)
    for out, _ in ended:
        all_is_there(database, out.split()[0])
    assert len(database.keys()) == 8
    assert database.rows("SELECT name, count(*) FROM experiments WHERE name = 'faults' GROUP BY name") == [
        ("faults", 1)
    ]


FIT = """
import numpy, overt, sys
from sklearn.datasets import load_iris
from sklearn.ensemble import RandomForestClassifier

X, y = load_iris(return_X_y=True)
model = overt.TrackedEstimator(RandomForestClassifier(5, random_state=0), experiment="faults", cv=2).fit(X[::2], y[::2])
model.evaluate(X[1::2], y[1::2])
numpy.save("predicted.npy", model.predict(X))
assert not {"mlflow", "matplotlib"} & set(sys.modules)
"""

FOUND = """
import json, sys, mlflow, numpy
from mlflow import MlflowClient
from sklearn.datasets import load_iris
mlflow.set_tracking_uri(sys.argv[1])
client = MlflowClient()
(run,) = client.search_runs([client.get_experiment_by_name("faults").experiment_id])
model = mlflow.sklearn.load_model(f"runs:/{run.info.run_id}/model")
assert numpy.array_equal(model.predict(load_iris(return_X_y=True)[0]), numpy.load("predicted.npy"))
print(json.dumps({
    "status": run.info.status,
    "metrics": sorted(run.data.metrics),
    "params": run.data.params,
    "files": sorted(file.path for file in client.list_artifacts(run.info.run_id)),
    "inputs": sorted(found.dataset.name for found in run.inputs.dataset_inputs),
}))
"""


def test_a_tracked_fit_without_its_store_loses_neither_model_nor_picture(
    sqlite_uri: str, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OVERT_WAIT", str(DRAIN_S))
    with dead() as uri:
        monkeypatch.setenv("OVERT_STORE", uri)
        ended = run_python(FIT)
    assert ended.code == 0, ended.err
    for courier in couriers_of(base):
        kill(courier)
    sync_until_delivered(base, sqlite_uri)
    found = json.loads(run_python(FOUND, sqlite_uri).out.splitlines()[-1])
    assert found["status"] == "FINISHED"
    assert {"accuracy", "f1_score", "training_accuracy", "cv_accuracy", "cv_mean_accuracy", "fit_seconds"} <= set(
        found["metrics"]
    )
    assert found["params"]["n_estimators"] == "5"
    assert {"confusion_matrix.json", "confusion_matrix.png", "classification_report.json", "roc_curve.png"} <= set(
        found["files"]
    )
    assert found["inputs"] == ["test", "train"]
