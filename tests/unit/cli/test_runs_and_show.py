from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from tests.unit.cli.conftest import ONE_RUN, VANISHED_RUN, Overt, Record, journals

from overt.errors import RunNotFound
from overt.query.finding import find_run, open_query
from overt.stores.mlflow import query

DEAD = "http://127.0.0.1:9"
RUN_FIELDS = {"id", "key", "name", "experiment", "status", "started_ms", "ended_ms", "metrics"}
JOURNAL_FIELDS = {
    *("key", "name", "experiment", "started_ms", "store", "state", "host", "folder", "run_id", "waiting_bytes"),
}


def test_runs_lists_what_arrived_and_apart_from_it_what_did_not(record: Record, overt: Overt) -> None:
    record(ONE_RUN)
    overt("sync")
    record(VANISHED_RUN)
    said = overt("runs")
    assert said.code == 0
    arrived, _, waiting = said.out.partition("Not delivered yet")
    assert "small" in arrived
    assert "FINISHED" in arrived
    assert "lost" not in arrived
    assert "lost" in waiting
    assert "vanished" in waiting
    assert "overt doctor" in waiting


def test_runs_as_json_has_the_documented_shape(record: Record, overt: Overt, sqlite_uri: str) -> None:
    record(ONE_RUN)
    overt("sync")
    record(VANISHED_RUN)
    said = overt("runs", "--json")
    listed = json.loads(said.out)
    assert listed.keys() == {"store", "has_more", "runs", "undelivered"}
    assert listed["store"] == sqlite_uri
    (run,) = listed["runs"]
    assert run.keys() == RUN_FIELDS
    assert (run["name"], run["experiment"], run["status"]) == ("small", "shelf", "FINISHED")
    assert run["metrics"] == {"loss": 0.25, "mAP@0.5": "inf", "odd": "nan"}
    (waiting,) = listed["undelivered"]
    assert waiting.keys() == JOURNAL_FIELDS
    assert (waiting["name"], waiting["state"], waiting["run_id"]) == ("lost", "vanished", None)
    assert waiting["waiting_bytes"] > 0


def test_runs_are_newest_first_in_pages_and_within_the_limit(
    record: Record, overt: Overt, monkeypatch: pytest.MonkeyPatch
) -> None:
    record("import time\nfor i in range(5):\n    overt.start_run(f'r{i}').finish()\n    time.sleep(0.002)")
    overt("sync")
    monkeypatch.setattr(query, "PAGE_RUNS", 2)
    assert [run["name"] for run in json.loads(overt("runs", "--json").out)["runs"]] == ["r4", "r3", "r2", "r1", "r0"]
    few = json.loads(overt("runs", "--json", "--limit", 3).out)
    assert [run["name"] for run in few["runs"]] == ["r4", "r3", "r2"]
    assert few["has_more"]
    assert "--limit shows them" in overt("runs", "--limit", 3).out


def test_runs_of_one_experiment(record: Record, overt: Overt) -> None:
    record(ONE_RUN + "overt.start_run('other').finish()")
    overt("sync")
    assert [run["name"] for run in json.loads(overt("runs", "--json", "--experiment", "shelf").out)["runs"]] == [
        "small"
    ]
    said = overt.fails("runs", "--experiment", "shelves")
    assert "no experiment 'shelves'" in said
    assert "Default, shelf" in said


def test_runs_before_the_first_one_is_an_empty_list_and_makes_nothing(overt: Overt, tmp_path: Path) -> None:
    said = overt("runs")
    assert said.code == 0
    assert "No runs in" in said.out
    assert list(tmp_path.iterdir()) == []


def test_runs_of_a_dead_server_still_lists_what_lies_here(record: Record, overt: Overt) -> None:
    record(VANISHED_RUN)
    said = overt("runs", "--store", DEAD)
    assert said.code == 1
    assert "lost" in said.out
    assert said.err.count("\n") == 1
    assert "127.0.0.1:9" in said.err


def test_a_delivered_journal_that_is_kept_does_not_count_as_undelivered(record: Record, overt: Overt) -> None:
    record(ONE_RUN)
    overt("sync", "--keep")
    assert len(journals()) == 1
    assert json.loads(overt("runs", "--json").out)["undelivered"] == []


def test_show_has_everything_of_the_run(record: Record, overt: Overt) -> None:
    record(ONE_RUN)
    overt("sync")
    said = overt("show", "small")
    assert said.code == 0
    for text in ("FINISHED", "shelf", "depth", "mAP@0.5", "team", "blue", "a *note*", "notes/hello.txt"):
        assert text in said.out
    assert ["loss", "0.25", "4"] in [line.split() for line in said.out.splitlines()]


def test_show_as_json_has_the_documented_shape(record: Record, overt: Overt) -> None:
    record(ONE_RUN)
    overt("sync")
    shown = json.loads(overt("show", "last", "--json").out)
    assert shown.keys() == RUN_FIELDS | {"store", "params", "tags", "notes", "datasets", "files", "models"}
    assert shown["params"] == {"depth": "3"}
    assert shown["notes"] == "a *note*"
    assert shown["tags"]["team"] == "blue"
    assert shown["metrics"] == {
        "loss": {"last": 0.25, "points": 4},
        "mAP@0.5": {"last": "inf", "points": 1},
        "odd": {"last": "nan", "points": 1},
    }
    assert {"path": "notes/hello.txt", "size": 5} in shown["files"]
    assert shown["models"] == shown["datasets"] == []


def test_show_says_how_the_model_is_loaded_and_the_lines_do_load_it(
    record: Record, overt: Overt, sqlite_uri: str
) -> None:
    recorded = record(
        """
        from sklearn.linear_model import LogisticRegression
        overt.TrackedEstimator(LogisticRegression()).fit([[0.0], [1.0], [2.0], [3.0]], [0, 0, 1, 1])
        """
    )
    assert recorded.returncode == 0, recorded.stderr
    overt("sync")
    shown = json.loads(overt("show", "last", "--json").out)
    (model,) = shown["models"]
    assert model.keys() == {"name", "uri", "status", "flavors"}
    assert model["flavors"] == ["python_function", "sklearn"]
    assert shown["datasets"][0].keys() == {"name", "digest", "context", "profile"}
    lines = [line.strip() for line in overt("show", "last").out.splitlines() if "mlflow." in line]
    advice = [line for line in lines if line.startswith(("mlflow.set_tracking_uri(", "model = "))]
    assert advice == [
        f'mlflow.set_tracking_uri("{sqlite_uri}")',
        f'model = mlflow.sklearn.load_model("{model["uri"]}")',
    ]


def test_show_says_that_a_models_description_cannot_be_read_and_why(
    record: Record, overt: Overt, tmp_path: Path
) -> None:
    record(
        """
        from sklearn.linear_model import LogisticRegression
        overt.TrackedEstimator(LogisticRegression()).fit([[0.0], [1.0]], [0, 1])
        """
    )
    overt("sync")
    (description,) = tmp_path.rglob("MLmodel")
    description.unlink()
    said = overt("show", "last", "--json")
    (model,) = json.loads(said.out)["models"]
    assert (said.code, model["flavors"]) == (0, [])
    assert said.err.count("\n") == 1
    assert "what model model is cannot be read from here" in said.err
    assert str(description.parent) in said.err


@pytest.mark.parametrize("digits", [32, 12])
def test_a_run_answers_to_its_id_its_key_and_the_beginning_of_both(record: Record, overt: Overt, digits: int) -> None:
    record(ONE_RUN)
    overt("sync")
    shown = json.loads(overt("show", "last", "--json").out)
    for name in (shown["id"][:digits], shown["key"][:digits]):
        assert json.loads(overt("show", name, "--json").out)["id"] == shown["id"]


@pytest.mark.parametrize("name", ["it's", 'a "b"', "100%_[x]*?", "분류", "back\\slash"])
def test_a_run_answers_to_any_name(record: Record, overt: Overt, name: str) -> None:
    alike = re.sub(r"[^a-z ]", "X", name)
    record(f"overt.start_run({name!r}).finish()\novert.start_run({alike!r}).finish()")
    overt("sync")
    assert json.loads(overt("show", name, "--json").out)["name"] == name


def test_a_name_that_several_runs_have_is_one_line_that_lists_them(record: Record, overt: Overt) -> None:
    record("for i in range(8):\n    overt.start_run('twin').finish()")
    overt("sync")
    ids = [run["id"] for run in json.loads(overt("runs", "--json").out)["runs"]]
    said = overt.fails("show", "twin")
    assert sum(run_id in said for run_id in ids) == 5
    assert "and others" in said


def test_an_unknown_name_is_one_line(record: Record, overt: Overt) -> None:
    assert "no last run" in overt.fails("show", "last")
    record(ONE_RUN)
    overt("sync")
    for name in ("nobody", "deadbeef", "0" * 32, "model@champion", "", "%", "'"):
        overt.fails("show", name)


def test_a_run_that_lies_here_undelivered_is_not_simply_unknown(record: Record, overt: Overt) -> None:
    record(VANISHED_RUN)
    said = overt.fails("show", "lost")
    assert "has not arrived" in said
    assert "overt doctor" in said


def test_last_says_that_a_newer_run_has_not_arrived(record: Record, overt: Overt) -> None:
    record(ONE_RUN)
    overt("sync")
    record(VANISHED_RUN)
    said = overt("show", "last")
    assert said.code == 0
    assert "small" in said.out
    assert "a newer run, lost" in said.err


def test_a_registered_version_leads_to_its_run(record: Record, overt: Overt, sqlite_uri: str) -> None:
    from mlflow import MlflowClient

    record(ONE_RUN)
    overt("sync")
    run_id = json.loads(overt("show", "last", "--json").out)["id"]
    client = MlflowClient(sqlite_uri, registry_uri=sqlite_uri)
    client.create_registered_model("m")
    client.create_model_version("m", "/nowhere", run_id=run_id)
    client.set_registered_model_alias("m", "champion", "1")
    assert json.loads(overt("show", "m@champion", "--json").out)["id"] == run_id


def test_names_that_mlflow_refuses_or_cuts_come_back_whole(record: Record, sqlite_uri: str, overt: Overt) -> None:
    long = "x" * 300
    record(f"with overt.start_run('n') as run:\n    run.log_metric({long!r}, 1.0)\n    run.log_metric('a//b=c', 2.0)")
    overt("sync")
    store = open_query(sqlite_uri)
    details = store.read_run(find_run(store, "n"))
    assert dict(details.run.metrics) == {long: 1.0, "a//b=c": 2.0}
    assert dict(details.points) == {long: 1, "a//b=c": 1}


def test_a_server_is_read_like_a_file(
    record: Record, overt: Overt, mlflow_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    record(
        """
        from sklearn.linear_model import LogisticRegression
        overt.TrackedEstimator(LogisticRegression(), run_name="served").fit([[0.0], [1.0]], [0, 1])
        """
    )
    monkeypatch.setenv("OVERT_STORE", mlflow_server)
    overt("sync", "--store", mlflow_server)
    assert "served" in [run["name"] for run in json.loads(overt("runs", "--json").out)["runs"]]
    (model,) = json.loads(overt("show", "served", "--json").out)["models"]
    assert model["flavors"] == ["python_function", "sklearn"]


def test_an_id_that_the_store_has_not_is_not_found(sqlite_uri: str) -> None:
    with pytest.raises(RunNotFound, match="there is no run"):
        open_query(sqlite_uri).read_run("0" * 32)


def test_a_name_cannot_move_the_cursor_or_break_the_line(record: Record, overt: Overt) -> None:
    record("overt.start_run('evil\\x1b[2J[bold]x').finish()")
    overt("sync")
    for command in (("runs",), ("show", "last")):
        said = overt(*command)
        assert "\x1b" not in said.out
        assert "evil\\x1b[2J[bold]x" in said.out


@pytest.mark.parametrize("arguments", [("runs",), ("best", "f1_score"), ("best", "f1_scor")])
def test_a_line_that_is_no_run_is_said_once_and_in_a_line_of_ours(
    arguments: tuple[str, ...], overt: Overt, tmp_path: Path
) -> None:
    line = {"run_id": "one", "experiment": "e", "run_name": "n", "timestamp": "2024-01-01T00:00:00"}
    lines = [json.dumps({**line, "params": {}, "metrics": {"f1_score": 0.5}}), "no run", ""]
    (tmp_path / "runs.jsonl").write_text("\n".join(lines))
    said = overt(*arguments, "--store", f"jsonl:{tmp_path}")
    complaints = said.err.splitlines()
    assert all(complaint.startswith("overt: ") for complaint in complaints)
    assert [complaint for complaint in complaints if "is left out, since it is no run" in complaint] == complaints[:1]
    assert ".py" not in said.err
