from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from tests.unit.cli.conftest import ONE_RUN, VANISHED_RUN, Overt, Record, journals
from tests.unit.cli.test_sync import DEAD, from_another_host

CHECK_FIELDS = {"name", "ok", "text", "next"}


def diagnosis(overt: Overt, *arguments: object) -> dict[str, object]:
    """What the doctor says of the only journal."""
    (found,) = json.loads(overt("doctor", "--json", *arguments).out)["journals"]
    return dict(found)


def test_nothing_wrong_is_said_and_is_exit_code_0(overt: Overt) -> None:
    said = overt("doctor")
    assert said.code == 0
    assert "All is well." in said.out
    assert said.err == ""


def test_doctor_makes_neither_folder_nor_database(overt: Overt, tmp_path: Path) -> None:
    overt("doctor")
    assert list(tmp_path.iterdir()) == []


def test_a_vanished_run_is_closed_as_killed_and_delivered(record: Record, overt: Overt) -> None:
    assert record(VANISHED_RUN).returncode == -9
    said = overt("doctor")
    assert said.code == 0
    assert "closed as KILLED and delivered" in said.out
    assert journals() == []
    shown = json.loads(overt("show", "lost", "--json").out)
    assert shown["status"] == "KILLED"
    assert shown["metrics"] == {"loss": {"last": 0.5, "points": 1}}


def test_doctor_as_json_has_the_documented_shape(record: Record, overt: Overt) -> None:
    record(VANISHED_RUN)
    content = json.loads(overt("doctor", "--json").out)
    assert content.keys() == {"healthy", "checks", "journals"}
    assert content["healthy"] is True
    assert [check["name"] for check in content["checks"]] == ["overt", "mlflow", "plots", "journals", "store"]
    assert all(check.keys() == CHECK_FIELDS for check in content["checks"])
    (journal,) = content["journals"]
    assert {"ok", "text", "next", "closed", "bad_lines", "rejected", "lost", "state", "folder"} <= journal.keys()
    assert (journal["name"], journal["state"], journal["closed"], journal["ok"]) == ("lost", "vanished", True, True)


def test_an_ended_run_is_left_to_sync(record: Record, overt: Overt) -> None:
    record(ONE_RUN)
    said = overt("doctor")
    assert said.code == 1
    assert "next: overt sync" in said.out
    assert len(journals()) == 1
    assert json.loads(overt("runs", "--json").out)["runs"] == []


def test_a_run_of_another_host_is_closed_only_on_request(record: Record, overt: Overt) -> None:
    record(VANISHED_RUN)
    from_another_host()
    found = diagnosis(overt)
    assert (found["state"], found["ok"], found["closed"]) == ("elsewhere", False, False)
    assert f"overt doctor --close {found['folder']}" in str(found["next"])
    assert json.loads(overt("runs", "--json").out)["runs"] == []
    assert overt("doctor", "--close", found["folder"]).code == 0
    assert json.loads(overt("runs", "--json").out)["runs"][0]["status"] == "KILLED"


def test_closing_leaves_the_ended_ones_alone(record: Record, overt: Overt) -> None:
    record(ONE_RUN)
    record(VANISHED_RUN)
    overt("doctor", "--close")
    assert [run["name"] for run in json.loads(overt("runs", "--json").out)["runs"]] == ["lost"]


def test_a_dead_store_keeps_a_vanished_run_for_the_next_time(record: Record, overt: Overt) -> None:
    record(VANISHED_RUN)
    said = overt("doctor", "--store", DEAD)
    assert said.code == 1
    assert "store: http://127.0.0.1:9 does not answer" in said.out
    assert "could not be closed" in said.out
    assert overt("doctor").code == 0
    assert json.loads(overt("runs", "--json").out)["runs"][0]["status"] == "KILLED"


def test_a_strangers_journal_is_closed_nowhere_without_a_store(
    record: Record, overt: Overt, tmp_path: Path, sqlite_uri: str
) -> None:
    folder = tmp_path / "usb" / ".overt"
    record(VANISHED_RUN, OVERT_STORE="http://collector.example", OVERT_DIR=str(folder))
    found = diagnosis(overt, folder)
    assert f"overt doctor {folder} --store http://collector.example" in str(found["text"])
    assert overt("doctor", folder, "--store", sqlite_uri).code == 0


def test_damage_is_counted_and_named(record: Record, overt: Overt) -> None:
    record(ONE_RUN)
    (folder,) = journals()
    with open(folder / "journal.jsonl", "a") as file:
        file.write('garbage\n{"t":"lost","count":3,"reason":"disk full"}\n')
    found = diagnosis(overt)
    assert (found["bad_lines"], found["lost"], found["ok"]) == (1, 3, False)
    assert "1 line damaged, 3 records lost before reaching the disk" in str(found["text"])


def test_refused_records_are_counted_and_where_they_are_is_said(record: Record, overt: Overt) -> None:
    record(ONE_RUN)
    (folder,) = journals()
    (folder / "rejected.jsonl").write_text("{}\n{}\n")
    overt("sync", "--keep")
    found = diagnosis(overt)
    assert (found["rejected"], found["ok"]) == (2, False)
    assert str(folder / "rejected.jsonl") in str(found["next"])


def test_an_unreadable_journal_is_named(overt: Overt) -> None:
    broken = Path(".overt/runs/broken")
    broken.mkdir(parents=True)
    (broken / "journal.jsonl").write_text('{"t":"segment","format":99}\n')
    found = diagnosis(overt)
    assert (found["state"], found["ok"]) == ("unreadable", False)
    assert "a newer overt wrote it" in str(found["text"])


def test_a_missing_mlflow_is_named_with_its_extra(overt: Overt, monkeypatch: pytest.MonkeyPatch) -> None:
    for place in ("overt.optional.is_installed", "overt.stores.uri.is_installed"):
        monkeypatch.setattr(place, lambda module: False)
    said = overt("doctor")
    assert said.code == 1
    assert "pip install 'overt[mlflow]'" in said.out
    assert "pip install 'overt[plots]'" in said.out


@pytest.mark.parametrize("command", [("runs",), ("show", "last")])
def test_reading_without_mlflow_is_one_line(
    command: tuple[str, ...], overt: Overt, sqlite_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OVERT_STORE", sqlite_uri)
    monkeypatch.setattr("overt.stores.uri.is_installed", lambda module: False)
    said = overt(*command)
    assert said.code == 1
    assert "pip install 'overt[mlflow]'" in said.err


def test_a_journal_folder_that_cannot_be_made_is_named(
    overt: Overt, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("OVERT_DIR", str(tmp_path / "file" / ".overt"))
    said = overt("doctor")
    assert said.code == 1
    assert "OVERT_DIR" in said.out
    assert os.environ["XDG_CACHE_HOME"] in said.out
