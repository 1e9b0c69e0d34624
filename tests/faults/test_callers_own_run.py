"""Inside the caller's own ``mlflow.start_run()`` overt is a guest: it adds, gives way, and never ends the run."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from tests.crash.processes import DEADLINE_S, Database, eventually, run_folders, run_python, start_python

pytestmark = pytest.mark.timeout(180)  # couriers have the lowest priority: on a busy machine they take their time

HEAD = """
import os, sys, time
import mlflow
import overt
from overt.tracker import open_for_hook

mlflow.set_experiment("mine")

def wait_for(path):
    while not os.path.exists(path):
        time.sleep(0.01)
"""

# One run after the other, each with its ending; its id is printed first. What is in MLflow is read past both libraries.
DURING = (
    HEAD
    + """
for number, ending in enumerate(sys.argv[1:]):
    with mlflow.start_run() as mine:
        print(mine.info.run_id, flush=True)
        with open_for_hook("hook").ending() as run:
            run.log_params({"lr": 0.1, "depth": 3})
            run.log_metric("loss", 0.5, step=0)
            run.set_tag("hooked", "yes")
        wait_for(f"seen-{number}")
        mlflow.log_params({"lr": "1e-1", "mine": "too"})
        mlflow.log_metric("my_own", 1.0)
        wait_for(f"looked-{number}")
        exec(ending)
"""
)


@pytest.fixture
def database(sqlite_uri: str, monkeypatch: pytest.MonkeyPatch) -> Database:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", sqlite_uri)
    return Database(sqlite_uri)


def params(database: Database, run_id: str) -> dict[str, str]:
    return dict(database.rows("SELECT key, value FROM params WHERE run_uuid = ?", run_id))


def tags(database: Database, run_id: str) -> dict[str, str]:
    return dict(database.rows("SELECT key, value FROM tags WHERE run_uuid = ?", run_id))


def metrics(database: Database, run_id: str) -> set[str]:
    return {name for (name,) in database.rows("SELECT key FROM metrics WHERE run_uuid = ?", run_id)}


def status(database: Database, run_id: str) -> str:
    return database.rows("SELECT status FROM runs WHERE run_uuid = ?", run_id)[0][0]


@pytest.mark.parametrize(
    ("endings", "code"),
    [
        ({"pass": "FINISHED", "mlflow.end_run('KILLED')": "KILLED", "raise ValueError('mine')": "FAILED"}, 1),
        ({"sys.exit(3)": "FAILED"}, 3),
    ],
    ids=["one after the other", "exit"],
)
def test_metrics_come_at_once_params_last_and_the_ending_is_the_callers(
    endings: dict[str, str], code: int, database: Database, base: Path
) -> None:
    training = start_python(DURING, *endings)
    assert training.stdout is not None
    run_ids = []
    for number in range(len(endings)):
        run_id = training.stdout.readline().strip()
        eventually(
            lambda run_id=run_id: {"loss"} <= metrics(database, run_id) and "hooked" in tags(database, run_id),  # type: ignore[misc]
            "metrics and tags",
        )
        assert params(database, run_id) == {}, "a param of overt's could make the caller's own log_params fail"
        Path(f"seen-{number}").touch()
        eventually(lambda run_id=run_id: "my_own" in metrics(database, run_id), "the caller's own metric")  # type: ignore[misc]
        assert params(database, run_id) == {"lr": "1e-1", "mine": "too"}
        assert status(database, run_id) == "RUNNING"
        Path(f"looked-{number}").touch()
        run_ids.append(run_id)
    _, err = training.communicate(timeout=DEADLINE_S)
    assert training.returncode == code, err
    assert "OvertWarning" not in err
    eventually(lambda: not run_folders(base), "delivered and removed")
    for run_id, expected in zip(run_ids, endings.values(), strict=True):
        assert params(database, run_id) == {"lr": "1e-1", "mine": "too", "depth": "3"}
        assert tags(database, run_id)["param_drift.lr"] == "0.1"
        assert status(database, run_id) == expected
    assert len(database.rows("SELECT 1 FROM runs")) == len(endings)


def test_a_run_left_open_is_ended_by_mlflow_alone(database: Database, base: Path) -> None:
    ended = run_python(
        HEAD
        + """
mine = mlflow.start_run()
run = open_for_hook("hook").run
run.log_params({"lr": 0.1})
run.log_metric("loss", 0.5)
print(mine.info.run_id)
"""
    )
    run_id = ended.out.split()[0]
    assert (ended.code, ended.warnings) == (0, [])
    eventually(lambda: not run_folders(base), "delivered and removed")
    assert params(database, run_id) == {"lr": "0.1"}
    assert status(database, run_id) == "FINISHED"  # by mlflow's own exit handler


def test_a_killed_script_leaves_the_callers_run_as_it_was(database: Database, base: Path) -> None:
    ended = run_python(
        HEAD
        + """
mine = mlflow.start_run()
run = open_for_hook("hook").run
run.log_params({"lr": 0.1})
run.log_metric("loss", 0.5)
print(mine.info.run_id, flush=True)
while sys.modules["overt.delivery.dispatch"].dispatch().courier_pid is None:
    time.sleep(0.01)
os._exit(4)
"""
    )
    run_id = ended.out.split()[0]
    assert ended.code == 4
    eventually(lambda: not run_folders(base), "delivered and removed")
    assert params(database, run_id) == {"lr": "0.1"}
    assert metrics(database, run_id) == {"loss"}
    assert status(database, run_id) == "RUNNING"


def test_a_run_that_is_started_there_is_the_callers_own_and_later_ones_are_nested_in_it(
    database: Database, base: Path
) -> None:
    ended = run_python(
        HEAD
        + """
with mlflow.start_run() as mine:
    with overt.start_run(params={"lr": 0.1}, tags={"stage": "one"}) as run:
        run.log_metric("loss", 0.5)
        with open_for_hook("fit").ending() as hook:  # the first hook joins, as in any current run
            hook.log_metric("accuracy", 0.9)
    with overt.start_run() as second:
        second.log_metric("second", 1.0)
    with overt.start_run("named") as third:
        third.log_metric("third", 1.0)
    with open_for_hook("late").ending() as fourth:
        fourth.log_metric("fourth", 1.0)
    mlflow.log_params({"lr": "1e-1"})
print(mine.info.run_id)
"""
    )
    assert (ended.code, ended.warnings) == (0, [])
    run_id = ended.out.split()[0]
    eventually(lambda: not run_folders(base), "delivered and removed")
    assert metrics(database, run_id) == {"loss", "accuracy"}
    assert params(database, run_id) == {"lr": "1e-1"}
    assert tags(database, run_id)["param_drift.lr"] == "0.1"
    assert (tags(database, run_id)["stage"], status(database, run_id)) == ("one", "FINISHED")
    children = database.rows("SELECT run_uuid FROM tags WHERE key = 'mlflow.parentRunId' AND value = ?", run_id)
    assert sorted(name for (child,) in children for name in metrics(database, child)) == ["fourth", "second", "third"]
    experiments = {row[0] for row in database.rows("SELECT DISTINCT experiment_id FROM runs")}
    assert len(experiments) == 1, "children are in the experiment of the caller's run"


def test_another_store_chosen_in_code_is_not_left_for_the_callers_run(database: Database, base: Path) -> None:
    shutil.copyfile(database.path, "ours.db")
    ended = run_python(
        HEAD
        + """
overt.configure(store="sqlite:///ours.db")
with mlflow.start_run() as mine:
    with overt.start_run("ours") as run:
        run.log_metric("loss", 0.5)
    assert overt.wait(60)
    print(mine.info.run_id, run.id)
"""
    )
    assert (ended.code, ended.warnings) == (0, [])
    theirs, ours = ended.out.split()[:2]
    assert theirs != ours
    assert metrics(database, theirs) == set()
    assert metrics(Database("sqlite:///ours.db"), ours) == {"loss"}


def test_the_experiment_that_mlflow_was_told_is_ours_too(database: Database, base: Path) -> None:
    ended = run_python(
        HEAD
        + """
with overt.start_run("alone") as run:
    run.log_metric("loss", 0.5)
with overt.start_run("elsewhere", experiment="argument") as run:
    run.log_metric("loss", 0.5)
assert overt.wait(60)
"""
    )
    assert (ended.code, ended.warnings) == (0, [])
    found = database.rows("SELECT r.name, e.name FROM runs r JOIN experiments e USING (experiment_id) ORDER BY 1")
    assert found == [("alone", "mine"), ("elsewhere", "argument")]


@pytest.mark.parametrize("delivery", ["process", "inline"])
def test_whoever_waits_after_the_callers_run_has_ended_finds_the_params_there(
    delivery: str, database: Database, base: Path
) -> None:
    ended = run_python(
        HEAD
        + """
from overt import configure, wait
configure(delivery=sys.argv[1])
for number in range(3):
    with mlflow.start_run() as mine:
        with open_for_hook("hook").ending() as run:
            run.log_params({"depth": number})
        assert wait(), "what is held back for the caller is waited for in the caller's run"
        assert "depth" not in mlflow.get_run(mine.info.run_id).data.params
    assert wait()
    assert mlflow.get_run(mine.info.run_id).data.params["depth"] == str(number)
""",
        delivery,
    )
    assert ended.code == 0, ended.err
