"""``start_run(resume=…)``: a run that has ended goes on, in whichever store it is."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

import overt
from overt.errors import ConfigurationError, RunNotFound
from overt.journal.codec import decode
from overt.query.finding import open_configured, run_id_of
from overt.records import SegmentHead

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(params=["mlflow", "jsonl:experiments", "csv:experiments.csv"])
def uri(request: pytest.FixtureRequest, sqlite_uri: str) -> Iterator[str]:
    uri = sqlite_uri if request.param == "mlflow" else request.param
    overt.configure(store=uri, experiment="resumed")
    yield uri
    overt.wait()


def recorded(name: str = "first") -> overt.Run:
    with overt.start_run(name, params={"lr": 0.1}) as run:
        for value in (0.5, 0.25):
            run.log_metric("loss", value)
    return run


@pytest.mark.parametrize("how", ["id", "key", "prefix", "name", "last", "itself"])
def test_a_run_goes_on_behind_its_last_step(uri: str, how: str) -> None:
    run = recorded()
    given = {"id": run.id, "key": run.key, "prefix": run.key[:9], "name": "first", "last": "last", "itself": run}[how]
    run_id = run.id
    with overt.start_run(resume=given, params={"lr": 0.2}, tags={"again": "yes"}) as again:
        assert (again.key, again.name, again.experiment) == (run.key, "first", "resumed")
        again.log_metric("loss", 0.125)
        again.log_text("a note", "note.txt")
    store = open_configured()
    details = store.read_run(run_id)
    assert [run.id for run in store.iter_runs()] == [run_id]
    assert details.run.status == "FINISHED"
    assert details.run.params == {"lr": "0.1"}
    assert (details.run.tags["param_drift.lr"], details.run.tags["again"]) == ("0.2", "yes")
    points = sorted((point.step, point.value) for point in store.iter_points(run_id, "loss"))
    assert points == [(0, 0.5), (1, 0.25), (2, 0.125)]
    assert store.read_file(run_id, "note.txt") == b"a note"


def test_a_run_can_be_resumed_again_and_ends_as_it_ended_last(uri: str) -> None:
    run = recorded()
    run_id = run.id
    for number in range(2):
        again = overt.start_run(resume=run_id)
        again.log_metric("loss", number)
        head = decode(again.to_checkpoint()["run"].encode())
        assert isinstance(head, SegmentHead)
        assert head.attempt.number == number + 2
        again.finish("FAILED")
        store = open_configured()
        found = store.read_run(run_id_of(store, run.key)).run
        assert found.status == "FAILED"
        assert len(json.loads(found.tags["overt.attempts"])) == number + 1
    assert [point.step for point in store.iter_points(run_id, "loss")] == [0, 1, 2, 3]


def test_what_cannot_be_resumed_says_why(uri: str) -> None:
    with overt.start_run("running") as run:
        run.log_metric("loss", 1.0)
        for given in (run, run.key):
            with pytest.raises(ConfigurationError, match="goes on with a run that has ended"):
                overt.start_run(resume=given)
    with pytest.raises(RunNotFound, match="no run answers to 'absent'"):
        overt.start_run(resume="absent")
    with pytest.raises(ConfigurationError, match="give none of them"):
        overt.start_run("name", resume=run)
    with pytest.raises(ConfigurationError, match="a run must be given as a Run"):
        overt.start_run(resume=5)  # type: ignore[arg-type]


def test_a_run_of_somebody_else_is_not_ours_to_go_on_with(sqlite_uri: str) -> None:
    from mlflow import MlflowClient

    theirs = MlflowClient(sqlite_uri).create_run("0").info.run_id
    overt.configure(store=sqlite_uri)
    with pytest.raises(RunNotFound, match=f"was not recorded by overt.*start_run\\(run_id='{theirs}'"):
        overt.start_run(resume=theirs)


def test_a_key_that_is_none_opens_no_folder(sqlite_uri: str) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(sqlite_uri)
    theirs = client.create_run("0", tags={"overt.key": "../../../evil"}).info.run_id
    overt.configure(store=sqlite_uri, directory="inner/.overt")
    with pytest.raises(RunNotFound, match="was not recorded by overt"):
        overt.start_run(resume=theirs)
    assert open_configured().read_run(theirs).run.key is None
    assert not Path("evil").exists()


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_a_table_or_lines_that_came_without_their_records_are_not_gone_on_with(kind: str) -> None:
    Path("there").mkdir()
    overt.configure(store="csv:there/runs.csv")
    run = recorded()
    assert overt.wait()
    Path("here").mkdir()
    place = Path("there", *(["runs.csv"] if kind == "csv" else ["runs.runs", "runs.jsonl"]))
    copied = Path("here", place.name)
    copied.write_bytes(place.read_bytes())
    overt.configure(store="csv:here/runs.csv" if kind == "csv" else "jsonl:here")
    with pytest.raises(RunNotFound, match="is here without its records") as raised:
        overt.start_run(resume=run.key)
    assert "mlflow" not in str(raised.value)
    assert copied.read_bytes() == place.read_bytes()


def test_a_switched_off_overt_looks_nothing_up() -> None:
    overt.configure(store="http://127.0.0.1:1", enabled=False)
    with overt.start_run(resume="anything") as run:
        run.log_metric("loss", 1.0)
    assert run.metrics == {"loss": 1.0}


def test_a_captured_run_goes_on_as_itself() -> None:
    with overt.testing.captured_runs() as runs:
        with overt.start_run("captured") as run:
            run.log_metric("loss", 0.5)
        with overt.start_run(resume=run) as again:
            again.log_metric("loss", 0.25)
        with pytest.raises(ConfigurationError, match="must be the Run itself"):
            overt.start_run(resume="captured")
    (captured,) = runs
    assert [(point.step, point.value) for point in captured.history] == [(0, 0.5), (1, 0.25)]
