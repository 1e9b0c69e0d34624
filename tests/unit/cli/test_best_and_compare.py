from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.unit.cli.conftest import VANISHED_RUN, Overt, Record

THREE = """
for name, experiment, score, depth in (("one", "a", 0.5, 3), ("two", "a", 0.9, 5), ("three", "b", 0.7, 5)):
    with overt.start_run(name, experiment=experiment, params={"depth": depth}) as run:
        run.log_metric("f1_score", score)
"""


@pytest.fixture
def recorded(record: Record, overt: Overt) -> None:
    record(THREE)
    overt("sync")


def names(overt: Overt, *arguments: str) -> list[str]:
    return [run["name"] for run in json.loads(overt("runs", "--json", *arguments).out)["runs"]]


def test_best_shows_the_run_and_what_made_it(recorded: None, overt: Overt) -> None:
    said = overt("best", "f1_score")
    assert said.code == 0, said.err
    lines = [line.split() for line in said.out.splitlines()]
    assert lines[0] == ["two", "f1_score", "0.9", "(max)"]
    assert ["depth", "5"] in lines


def test_best_as_json_has_the_documented_shape(recorded: None, overt: Overt, sqlite_uri: str) -> None:
    found = json.loads(overt("best", "f1_score", "--experiment", "a", "--mode", "min", "--json").out)
    assert found.keys() == {"store", "metric", "mode", "run"}
    assert (found["store"], found["metric"], found["mode"]) == (sqlite_uri, "f1_score", "min")
    assert found["run"].keys() == {
        *("id", "key", "name", "experiment", "status", "started_ms", "ended_ms", "metrics", "params"),
    }
    assert (found["run"]["name"], found["run"]["params"]) == ("one", {"depth": "3"})


def test_best_says_in_one_line_why_there_is_none(recorded: None, overt: Overt) -> None:
    assert "did you mean f1_score?" in overt.fails("best", "f1_scor")
    assert "no OR" in overt.fails("best", "f1_score", "--where", "params.depth = '3' OR params.depth = '5'")
    assert "no run fulfils the filter" in overt.fails("best", "f1_score", "--where", "params.depth = '9'")
    assert "no experiment 'c'" in overt.fails("best", "f1_score", "--experiment", "c")
    assert "has the metric 'depth': there is f1_score" in overt.fails("best", "depth")


def test_compare_shows_what_differs(recorded: None, overt: Overt) -> None:
    said = overt("compare", "one", "two")
    assert said.code == 0, said.err
    cells = [line.split() for line in said.out.splitlines()]
    assert ["depth", "3", "5"] in cells
    assert ["f1_score", "0.5", "0.9", "+0.4"] in cells


def test_compare_as_json_has_the_documented_shape(recorded: None, overt: Overt) -> None:
    found = json.loads(overt("compare", "one", "two", "three", "--json").out)
    assert found.keys() == {"store", "runs", "params", "metrics", "code", "data", "packages", "notes"}
    assert [run["name"] for run in found["runs"]] == ["one", "two", "three"]
    assert found["params"] == {"depth": ["3", "5", "5"]}
    assert found["metrics"] == {"f1_score": [0.5, 0.9, 0.7]}


def test_compare_needs_two_runs_that_are_there(recorded: None, overt: Overt) -> None:
    assert "two runs or more" in overt.fails("compare", "one")
    assert "no run answers to 'four'" in overt.fails("compare", "one", "four")


def test_compare_says_that_a_run_lies_here_and_has_not_arrived(recorded: None, record: Record, overt: Overt) -> None:
    record(VANISHED_RUN)
    said = overt.fails("compare", "one", "lost")
    assert "run lost (" in said
    assert "has not arrived in the store" in said
    assert "overt doctor delivers it" in said


def test_runs_are_filtered_and_sorted_as_asked(recorded: None, overt: Overt) -> None:
    assert names(overt, "--where", "metrics.f1_score > 0.6") == ["three", "two"]
    assert names(overt, "--order-by", "metrics.f1_score DESC", "--limit", "2") == ["two", "three"]
    assert names(overt, "--order-by", "params.depth", "--order-by", "metrics.f1_score DESC") == ["one", "two", "three"]
    assert "expected a number" in overt.fails("runs", "--where", "metrics.f1_score > good")


def test_runs_that_none_fulfils_say_so_and_doubt_a_name_that_no_run_has(recorded: None, overt: Overt) -> None:
    said = overt("runs", "--where", "metrics.f1_scroe > 0")
    assert said.code == 0
    assert "fulfils the filter" in said.out
    assert "did you mean f1_score?" in said.err
    assert overt("runs", "--where", "metrics.f1_score > 5").err == ""


def test_a_run_that_has_not_arrived_is_listed_whatever_the_filter(record: Record, overt: Overt) -> None:
    record(THREE)
    overt("sync")
    record(VANISHED_RUN)
    said = overt("runs", "--where", "metrics.f1_score > 5")
    assert "lost" in said.out.partition("Not delivered yet")[2]


def test_before_the_first_run_best_says_that_nothing_is_there(overt: Overt, tmp_path: Path) -> None:
    overt.fails("best", "f1_score")
    assert list(tmp_path.iterdir()) == []


def test_the_commands_work_without_pandas(record: Record) -> None:
    environment = {"OVERT_STORE": "jsonl:shelf", "OVERT_DELIVERY": "inline", "OVERT_WAIT": "1"}
    assert record(THREE, **environment).returncode == 0
    script = "import sys; sys.modules['pandas'] = None; from overt.cli import main; main()"
    for arguments in (["best", "f1_score"], ["compare", "one", "two"], ["runs", "--where", "metrics.f1_score > 0"]):
        said = subprocess.run(
            [sys.executable, "-c", script, *arguments, "--store", "jsonl:shelf"],
            env=dict(os.environ),
            capture_output=True,
            text=True,
            check=False,
        )
        assert said.returncode == 0, said.stderr
        assert "two" in said.stdout
