"""The journal's own disk in trouble: read-only, full, removed under it. Training goes on, what is lost is said."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from tests.crash.processes import Database, PlainFiles, eventually, run_folders, run_python, start_python

pytestmark = pytest.mark.timeout(180)  # couriers have the lowest priority: on a busy machine they take their time

RECORDING = """
    import os, sys, time
    import overt
    with overt.start_run("troubled") as run:
        print(run.key, flush=True)
        for i in range(200):
            run.log_metric("loss", 1.0 / (i + 1), step=i)
        run.log_text("a note", "notes/a.txt")
    sys.exit(9)
"""


@pytest.fixture
def store(tmp_path: Path) -> str:
    """URI of plain files: the journal is what is in trouble, and no store."""
    return f"jsonl:{tmp_path / 'experiments'}"


@pytest.mark.parametrize("how", ["below a file", "read-only"])
def test_where_nothing_can_be_written_the_journal_goes_to_the_users_cache(
    how: str, store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "place"
    prefix: tuple[str, ...] = ()
    if how == "below a file":
        place.touch()
    else:
        place.mkdir()
        place.chmod(0o555)
        if os.getuid() == 0:  # who may write everywhere
            if shutil.which("setpriv") is None:
                pytest.skip("root without setpriv")
            prefix = ("setpriv", "--bounding-set", "-dac_override")
    monkeypatch.setenv("OVERT_DIR", str(place / ".overt"))
    monkeypatch.setenv("OVERT_STORE", store)
    ended = run_python(RECORDING, prefix=prefix)
    assert ended.code == 9, ended.err
    assert len(ended.warnings) == 1, ended.err
    assert f"{place}/.overt cannot be written, so journals go to {tmp_path}/.cache/overt" in ended.warnings[0]
    eventually(lambda: not run_folders(tmp_path / ".cache" / "overt"), "delivered and removed")
    kept = PlainFiles(store)
    assert len(kept.points(ended.out.split()[0])) == 200


def test_a_full_disk_is_said_once_and_counted(store: str, base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OVERT_STORE", store)
    ended = run_python("""
        import resource, sys, time
        import overt
        from overt.delivery.dispatch import dispatch
        limit = resource.getrlimit(resource.RLIMIT_FSIZE)
        with overt.start_run("full") as run:
            print(run.key, flush=True)
            run.log_metric("before", 1.0)
            while dispatch().courier_pid is None:  # it would inherit the limit
                time.sleep(0.01)
            room = (run._writer.folder / run._writer.segment).stat().st_size + 30  # a third of a line
            resource.setrlimit(resource.RLIMIT_FSIZE, (room, limit[1]))
            for i in range(500):
                run.log_metric("lost", float(i), step=i)
            resource.setrlimit(resource.RLIMIT_FSIZE, limit)
            run.log_metric("after", 2.0)
        sys.exit(9)
    """)
    assert ended.code == 9, ended.err
    assert len(ended.warnings) == 2, f"{len(ended.warnings)} warnings"
    assert "could not be written" in ended.warnings[0]
    assert "ended with 500 record(s) that could not be written" in ended.warnings[1]
    eventually(lambda: not run_folders(base), "delivered and removed")
    key, kept = ended.out.split()[0], PlainFiles(store)
    assert {point.name for point in kept.points(key)} == {"before", "after"}
    assert kept.tags(key)["overt.lost_records"].startswith("500")


def test_a_journal_removed_while_it_is_written_is_said_and_written_again(
    store: str, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OVERT_STORE", store)
    training = start_python("""
        import os, sys, time
        import overt
        with overt.start_run("removed") as run:
            print(run.key, flush=True)
            run.log_metric("before", 1.0)
            while not os.path.exists("removed"):
                time.sleep(0.01)
            run.log_metric("after", 2.0)
            run.log_text("a note", "notes/a.txt")
        sys.exit(9)
    """)
    assert training.stdout is not None
    key = training.stdout.readline().strip()
    base.rename("removed-folder")  # at one moment, as far as the courier can see
    shutil.rmtree("removed-folder", ignore_errors=True)
    Path("removed").touch()
    _, err = training.communicate(timeout=90)
    assert training.returncode == 9, err
    assert err.count("OvertWarning:") == 1, err
    assert "was removed" in err
    eventually(lambda: not run_folders(base), "delivered and removed")
    kept = PlainFiles(store)
    assert {point.name for point in kept.points(key)} == {"before", "after"}
    assert kept.status(key) == "FINISHED"
    assert (kept.artifacts(key) / "notes" / "a.txt").read_text() == "a note"


def test_a_very_long_command_line_does_not_stop_the_courier(
    store: str, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OVERT_STORE", store)
    ended = run_python(RECORDING, *(f"image-{i:06d}.png" for i in range(12_000)))
    assert (ended.code, ended.err) == (9, "")
    assert len(PlainFiles(store).points(ended.out.split()[0])) == 200
    assert not run_folders(base)


def test_delivery_inline_can_still_upload_at_the_scripts_end(
    mlflow_server: str, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MLflow imports thread pools, which Python refuses once the script has ended."""
    monkeypatch.setenv("OVERT_STORE", mlflow_server)
    monkeypatch.setenv("OVERT_DELIVERY", "inline")
    ended = run_python(RECORDING)
    assert (ended.code, ended.err) == (9, "")
    assert not run_folders(base)


def test_delivery_inline_works_at_the_scripts_end(sqlite_uri: str, base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OVERT_STORE", sqlite_uri)
    monkeypatch.setenv("OVERT_DELIVERY", "inline")
    ended = run_python(RECORDING)
    assert (ended.code, ended.err) == (9, "")
    assert len(Database(sqlite_uri).points(ended.out.split()[0])) == 200
    assert not run_folders(base)
