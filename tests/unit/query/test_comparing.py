from __future__ import annotations

import dataclasses
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.unit.query.shelf import Shelf, run

import overt
from overt.errors import ConfigurationError, RunNotFound
from overt.query.comparing import Comparison, compare_runs
from overt.records import StoredDataset

ONE = run(
    "a" * 32,
    params={"depth": "3", "kind": "RF"},
    metrics={"f1_score": 0.5, "odd": math.nan, "loss": 0.25},
    tags={"overt.git.commit": "c1", "overt.git.branch": "main", "overt.git.dirty": "true", "team": "blue"},
)
OTHER = run(
    "b" * 32,
    params={"depth": "4", "kind": "RF", "seed": "1"},
    metrics={"f1_score": 0.75, "odd": math.nan},
    tags={"mlflow.source.git.commit": "c2", "overt.git.branch": "main", "overt.git.dirty": "true", "team": "red"},
)


def files(numpy: str, python: str, diff: str) -> dict[str, bytes]:
    return {
        "overt/packages.json": json.dumps({"numpy": numpy, "scipy": "1"}).encode(),
        "overt/environment.json": json.dumps({"python": {"version": python}}).encode(),
        "overt/uncommitted.diff": diff.encode(),
    }


def shelf(**of_other: bytes) -> Shelf:
    return Shelf(
        ONE,
        OTHER,
        files={ONE.id: files("2.0", "3.11", "- a"), OTHER.id: of_other or files("2.1", "3.12", "+ b")},
        datasets={
            ONE.id: [StoredDataset("train", "d1", "fit", ""), StoredDataset("test", "d2", "eval", "")],
            OTHER.id: [StoredDataset("train", "d3", "fit", ""), StoredDataset("test", "d2", "eval", "")],
        },
    )


def test_only_what_differs_is_kept_and_what_a_run_has_not_is_none() -> None:
    found = compare_runs(shelf(), [ONE, OTHER])
    assert found.runs == (ONE, OTHER)
    assert found.params == {"depth": ("3", "4"), "seed": (None, "1")}
    assert found.metrics == {"f1_score": (0.5, 0.75), "loss": (0.25, None)}
    assert found.code.keys() == {"commit", "uncommitted diff"}
    assert found.code["commit"] == ("c1", "c2")
    assert found.data == {"train (fit)": ("d1", "d3")}
    assert found.packages == {"numpy": ("2.0", "2.1"), "python": ("3.11", "3.12")}
    assert found.notes == ()
    assert not found.is_empty


def test_a_comparison_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        compare_runs(shelf(), [ONE, OTHER]).notes = ()  # type: ignore[misc]


def test_files_that_git_does_not_know_are_no_other_code() -> None:
    diff = "diff --git a/x b/x\n- a\n"
    for one, other, differs in (
        (diff, "# untracked: overt-reproduce/\n" + diff, False),
        ("# untracked: a\n", "# untracked: b\n", False),
        (diff, "# untracked: a\n" + diff + "+ b\n", True),
    ):
        shelf = Shelf(
            ONE, OTHER, files={ONE.id: files("2.0", "3.11", one), OTHER.id: files("2.0", "3.11", other)}, datasets={}
        )
        assert ("uncommitted diff" in compare_runs(shelf, [ONE, OTHER]).code) == differs


def test_packages_that_a_run_did_not_record_are_a_note_and_no_difference() -> None:
    found = compare_runs(shelf(**{"overt/packages.json": b"{ torn"}), [ONE, OTHER])
    assert found.packages == {"python": ("3.11", None)}
    assert found.notes == (
        "packages are not compared: name-" + OTHER.id + " recorded no list of them in overt/packages.json.",
    )
    assert found.notes[0] in str(found)


def test_the_text_is_a_table_with_the_difference_of_two_metrics() -> None:
    lines = str(compare_runs(shelf(), [ONE, OTHER])).splitlines()
    assert lines[0] == f"Comparison of name-{ONE.id} (aaaaaaaa), name-{OTHER.id} (bbbbbbbb)"
    cells = [line.split() for line in lines]
    assert ["f1_score", "0.5", "0.75", "+0.25"] in cells
    assert ["loss", "0.25", "-"] in cells
    assert ["seed", "-", "1"] in cells
    assert [line for line in lines if not line.startswith((" ", "Comparison"))] == [
        *("", "Params", "", "Metrics", "", "Code", "", "Data", "", "Packages"),
    ]
    assert repr(compare_runs(shelf(), [ONE, OTHER])) == "\n".join(lines)


def test_that_nothing_differs_is_said() -> None:
    twin = dataclasses.replace(ONE, id="c" * 32)
    found = compare_runs(Shelf(ONE, twin), [ONE, twin])
    assert found.is_empty
    assert "Nothing differs." in str(found)
    assert "Nothing differs." in found._repr_html_()


def test_names_from_a_strangers_store_cannot_act_on_what_shows_them() -> None:
    bad = run("c" * 32, params={"<script>x</script>": "\x1b[31m"}, metrics={})
    found = compare_runs(Shelf(ONE, bad), [ONE, bad])
    assert "\x1b" not in str(found)
    assert "\\x1b[31m" in str(found)
    assert "<script>" not in found._repr_html_()
    assert "&lt;script&gt;" in found._repr_html_()


def test_a_frame_has_a_row_for_each_name_that_differs() -> None:
    frame = compare_runs(shelf(), [ONE, OTHER]).to_frame()
    assert list(frame)[:2] == ["section", "name"]
    assert list(frame)[-1] == "difference"
    row = frame[frame["name"] == "f1_score"].iloc[0]
    assert (row["section"], *row.iloc[2:]) == ("metrics", 0.5, 0.75, 0.25)
    three = compare_runs(Shelf(ONE, OTHER, run("d" * 32)), [ONE, OTHER, "d" * 32]).to_frame()
    assert len(three.columns) == 5
    assert "difference" not in three


def test_runs_of_one_name_are_told_apart_by_as_much_of_the_id_as_it_takes() -> None:
    near = dataclasses.replace(OTHER, id="a" * 10 + "b" * 22)
    assert "(aaaaaaaaaab)" in str(compare_runs(Shelf(ONE, near), [ONE, near]))


@pytest.mark.parametrize("runs", [[], [ONE]])
def test_fewer_than_two_runs_are_nothing_to_compare(runs: list[overt.Run]) -> None:
    with pytest.raises(ConfigurationError, match="takes two runs or more"):
        compare_runs(shelf(), runs)


@pytest.mark.parametrize("runs", [[ONE, ONE], [ONE, OTHER, ONE]])
def test_a_run_is_not_compared_with_itself(runs: list[overt.Run]) -> None:
    with pytest.raises(ConfigurationError, match=f"run {ONE.id} was named twice: leave one out"):
        compare_runs(shelf(), runs)


def test_recorded_runs_are_compared_with_the_code_that_they_ran_from(sqlite_uri: str, tmp_path: Path) -> None:
    def git(*arguments: str) -> None:
        subprocess.run(
            ["git", "-c", "user.name=a", "-c", "user.email=a@b", *arguments], check=True, capture_output=True
        )

    git("init", "-b", "main")
    Path("code.py").write_text("a = 1\n")
    Path(".gitignore").write_text("*\n!code.py\n")
    git("add", "-f", "code.py", ".gitignore")
    git("commit", "-m", "first")
    record(sqlite_uri, "one", depth=3)
    Path("code.py").write_text("a = 2\n")
    record(sqlite_uri, "two", depth=4)
    git("commit", "-am", "second")
    record(sqlite_uri, "three", depth=4)
    found = overt.compare("one", "two", store=sqlite_uri)
    assert found.params == {"depth": ("3", "4")}
    assert found.code["dirty"] == ("false", "true")
    assert found.code["uncommitted diff"][0] is None
    assert "commit" not in found.code
    assert found.packages == {}
    assert found.notes == ()
    committed = overt.compare("one", "two", "three", store=sqlite_uri).code["commit"]
    assert committed[0] == committed[1] != committed[2]
    assert isinstance(found, Comparison)
    with pytest.raises(RunNotFound, match="'four'"):
        overt.compare("one", "four", store=sqlite_uri)


def record(store: str, name: str, depth: int) -> None:
    """One run of a process of its own: what surrounds a run is looked up once for some seconds."""
    script = (
        f"import overt\nwith overt.start_run({name!r}, params={{'depth': {depth}}}) as run: run.log_metric('loss', 0.5)"
    )
    environment = dict(os.environ) | {"OVERT_STORE": store}
    subprocess.run([sys.executable, "-c", script], env=environment, check=True)
