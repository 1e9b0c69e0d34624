"""A run goes on from what a checkpoint tells of it, in this process and in others."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import overt
from overt.errors import ConfigurationError
from overt.journal.folder import last_attempt, main_segment, run_folder
from overt.journal.reader import iter_records, newest_head
from overt.records import Metric, Tag
from overt.resuming import continue_run
from overt.settings import Settings
from overt.stores.memory import MemoryRun
from overt.tracker import Tracker, open_for_hook

MANUAL = Settings(delivery="manual")


def started(**details: Any) -> overt.Run:
    return Tracker(delivery="manual", experiment="mine").start_run("trained", **details)


def folder_of(run: overt.Run) -> Path:
    return run_folder(Path(".overt"), run.key)


def test_a_checkpoint_holds_plain_values_and_no_credentials() -> None:
    run = Tracker(delivery="manual", store="http://mina:geheim@localhost:1/x").start_run("r")
    run.log_metric("loss", 0.5, step=7)
    checkpoint = run.to_checkpoint()
    assert json.loads(json.dumps(checkpoint)) == checkpoint
    assert checkpoint["top_steps"] == {"loss": 7}
    assert "geheim" not in checkpoint["run"]
    run.finish()


def test_the_run_that_goes_on_is_the_same_run_in_another_attempt() -> None:
    run = started(tags={"a": "b"})
    run.log_metric("loss", 0.5)
    run.log_metric("loss", 0.4)
    checkpoint = run.to_checkpoint()
    run.log_metric("loss", 0.3)
    run.finish("KILLED")
    again = continue_run(checkpoint, MANUAL)
    assert (again.key, again.name, again.experiment, again.status) == (run.key, run.name, "mine", "RUNNING")
    assert again.spec.tags["a"] == "b"
    again.log_metric("loss", 0.29)
    again.finish()
    assert (run.status, again.status) == ("KILLED", "FINISHED")
    recorded = [
        (attempt, record.step, record.value)
        for attempt in (1, 2)
        for record in iter_records(folder_of(run), attempt=attempt)
        if isinstance(record, Metric)
    ]
    assert recorded == [(1, 0, 0.5), (1, 1, 0.4), (1, 2, 0.3), (2, 2, 0.29)]


def test_each_time_is_another_attempt_also_from_the_same_checkpoint() -> None:
    run = started()
    checkpoint = run.to_checkpoint()
    run.finish()
    second = continue_run(checkpoint, MANUAL)
    second.finish()
    third = continue_run(checkpoint, MANUAL)
    fourth = continue_run(third.to_checkpoint(), MANUAL)
    fourth.finish()
    third.finish()
    assert last_attempt(folder_of(run)) == 4
    assert {path.name for path in folder_of(run).glob("journal.*")} == {main_segment(n) for n in (1, 2, 3, 4)}
    starts = [json.loads(line)["attempt"]["ms"] for n in (2, 3, 4) for line in [_first_line(run, n)]]
    assert starts == sorted(starts)
    newest = newest_head(folder_of(run))
    assert newest is not None
    assert newest.attempt.number == 4


def _first_line(run: overt.Run, attempt: int) -> bytes:
    return (folder_of(run) / main_segment(attempt)).read_bytes().partition(b"\n")[0]


def test_a_checkpoint_of_a_run_that_goes_on_knows_the_series_of_both() -> None:
    run = started()
    run.log_metric("early", 1.0, step=5)
    again = continue_run(run.to_checkpoint(), MANUAL)
    again.log_metric("late", 1.0, step=6)
    assert again.to_checkpoint()["top_steps"] == {"early": 5, "late": 6}
    assert again.metrics == {"late": 1.0}
    again.finish()
    run.finish()


@pytest.mark.parametrize(
    ("chosen", "store"),
    [
        ({}, "sqlite:////elsewhere/runs.db"),
        ({"OVERT_STORE": "sqlite:////other/mine.db"}, "sqlite:////other/mine.db"),
        ({"MLFLOW_TRACKING_URI": "http://localhost:7"}, "http://localhost:7"),
    ],
    ids=["none", "overt", "mlflow"],
)
def test_the_checkpoints_store_is_used_where_no_other_is_chosen(
    chosen: dict[str, str], store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("OVERT_STORE", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(variable, raising=False)
    # what another test has set in this process was not chosen here
    monkeypatch.delitem(sys.modules, "mlflow.tracking._tracking_service.utils", raising=False)
    run = Tracker(delivery="manual", store="sqlite:////elsewhere/runs.db").start_run("r")
    run.finish()
    for variable, value in chosen.items():
        monkeypatch.setenv(variable, value)
    again = continue_run(run.to_checkpoint(), MANUAL)
    again.finish()
    assert again.spec.store == store


@pytest.mark.parametrize(
    "checkpoint",
    [
        {},
        {"run": "", "top_steps": {}},
        {"run": 5, "top_steps": {}},
        {"run": '{"t":"seal"}', "top_steps": {}},
        {"run": '{"t":"segment","format":9}', "top_steps": {}},
        "a text",
        None,
    ],
    ids=range(7),
)
def test_what_tells_of_no_run_is_refused_in_one_line(checkpoint: Any) -> None:
    with pytest.raises(ConfigurationError, match="tells of no run of overt's that can go on") as refused:
        continue_run(checkpoint, MANUAL)
    assert "resume='never'" in str(refused.value)
    assert not Path(".overt", "runs").exists()


@pytest.mark.parametrize("steps", [{"x": 1.5}, {"x": True}, {"x": 2**80}, [1], 5])
def test_steps_that_are_none_are_refused(steps: Any) -> None:
    run = started()
    checkpoint = run.to_checkpoint() | {"top_steps": steps}
    run.finish()
    with pytest.raises(ConfigurationError, match="no run of overt's"):
        continue_run(checkpoint, MANUAL)


def test_a_crafted_key_reaches_no_other_folder(tmp_path: Path) -> None:
    run = started()
    checkpoint = run.to_checkpoint()
    run.finish()
    checkpoint["run"] = checkpoint["run"].replace(run.key, "../../../evil")
    with pytest.raises(ConfigurationError, match="key must be 32 hexadecimal digits"):
        continue_run(checkpoint, MANUAL)


def test_switched_off_a_run_goes_on_nowhere() -> None:
    run = Tracker(enabled=False).start_run("null")
    run.log_metric("x", 1.0)
    again = continue_run(run.to_checkpoint(), Settings(enabled=False))
    assert again.is_null
    assert again.key == run.key
    assert not Path(".overt").exists()


def test_a_captured_run_goes_on_in_memory() -> None:
    with overt.testing.captured_runs() as runs:
        run = overt.start_run("mine")
        run.log_metric("loss", 0.5)
        checkpoint = run.to_checkpoint()
        run.log_metric("loss", 0.4)
        run.finish("KILLED")
        again = continue_run(checkpoint)
        for value in (0.41, 0.3):
            again.log_metric("loss", value)
        again.finish()
    assert [type(run) for run in runs] == [MemoryRun]
    assert [(point.step, point.value) for point in runs[0].history] == [(0, 0.5), (1, 0.4), (2, 0.3)]
    assert runs[0].status == "FINISHED"


def test_a_hook_goes_on_in_the_checkpoints_run_and_ends_it() -> None:
    with overt.testing.captured_runs() as runs:
        first = overt.start_run("first")
        checkpoint = first.to_checkpoint()
        first.finish("KILLED")
        with overt.start_run("around"):
            hook = open_for_hook("Net", tags={"late": "yes"}, params={"lr": 0.1}, checkpoint=checkpoint)
        assert hook.owned
        hook.run.finish()
        given = overt.start_run("given")
        assert open_for_hook("Net", run=given, checkpoint=checkpoint).run is given
        given.finish()
    assert [run.name for run in runs] == ["first", "around", "given"]
    assert (runs[0].status, runs[0].tags["late"], runs[0].params) == ("FINISHED", "yes", {"lr": "0.1"})


SCRIPT = """
import json, os, signal, sys, overt
from overt.resuming import continue_run
from overt.settings import Settings
first = not os.path.exists("checkpoint.json")
run = overt.start_run("mine") if first else continue_run(json.load(open("checkpoint.json")))
begin = 0 if first else 100
for step in range(begin, 300):
    run.log_metric("loss", step + (0.25 if first else 0.75), step=step)
    run.log_metric("counted", float(step))
    if first and step == 99:
        json.dump(run.to_checkpoint(), open("partial.json", "w"))
        os.rename("partial.json", "checkpoint.json")
    if first and step == 149:
        os.kill(os.getpid(), signal.SIGKILL)
run.finish()
print(run.id)
"""


@pytest.mark.timeout(240)
@pytest.mark.parametrize("place", ["here", "elsewhere"])
def test_killed_at_150_with_a_checkpoint_at_100_no_step_is_missing_and_none_doubled(
    place: str, sqlite_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("OVERT_STORE", sqlite_uri)
    killed = subprocess.run([sys.executable, "-c", SCRIPT], check=False, capture_output=True, text=True)
    assert killed.returncode == -9, killed.stderr
    client = mlflow.MlflowClient(sqlite_uri)
    if place == "elsewhere":  # a machine that has the checkpoint and the store, and no journal
        _wait_for_status(client, "KILLED")
        monkeypatch.setenv("OVERT_DIR", str(tmp_path / "another"))
    ended = subprocess.run([sys.executable, "-c", SCRIPT], check=False, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    (run,) = client.search_runs(["0"])
    assert (run.info.run_id, run.info.status) == (ended.stdout.strip(), "FINISHED")
    for name, offset in (("loss", (0.25, 0.75)), ("counted", (0.0, 0.0))):
        history = client.get_metric_history(run.info.run_id, name)
        values = sorted((point.step, point.value) for point in history)
        assert values == [(step, step + offset[0 if step < 150 else 1]) for step in range(300)]
    assert run.data.tags["overt.repeated_points"].startswith("100: ")


def _wait_for_status(client: Any, status: str) -> None:
    import time

    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if [run.info.status for run in client.search_runs(["0"])] == [status]:
            return
        time.sleep(0.2)
    raise AssertionError(f"no run became {status}")


def test_what_surrounds_a_later_attempt_stands_beside_what_surrounded_the_first() -> None:
    run = started()
    run.finish()
    continue_run(run.to_checkpoint(), MANUAL).finish()
    first, second = ([*iter_records(folder_of(run), attempt=n)] for n in (1, 2))
    paths = [{getattr(record, "path", None) for record in records} for records in (first, second)]
    assert "overt/environment.json" in paths[0]
    assert "overt/attempt-2/environment.json" in paths[1]
    tags = {record.name for record in second if isinstance(record, Tag)}
    assert "overt.attempt_2.overt.argv" in tags
    assert "overt.argv" not in tags
