from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tests.unit.cli.conftest import ONE_RUN, VANISHED_RUN, Overt, Record, journals

from overt.delivery import sync

DEAD = "http://127.0.0.1:9"
FIELDS = {"key", "name", "experiment", "state", "folder", "run_id", "delivered", "new", "closed", "problem"}


def rewritten(line_of: str, to: str) -> None:
    """Change a text in every segment that lies here, as if it had been written elsewhere."""
    for folder in journals():
        for segment in folder.glob("journal*.jsonl"):
            text = segment.read_text("utf-8")
            assert line_of in text
            segment.write_text(text.replace(line_of, to), "utf-8")


def from_another_host() -> None:
    import socket

    rewritten(f'"host":"{socket.gethostname()}","boot"', '"host":"node17","boot"')


def test_sync_delivers_and_removes_and_then_has_nothing_to_do(record: Record, overt: Overt) -> None:
    record(ONE_RUN)
    said = overt("sync")
    assert said.code == 0
    assert "1 run delivered, 0 left." in said.out
    assert said.err == ""
    assert journals() == []
    again = overt("sync")
    assert (again.code, again.out) == (0, "There is nothing to deliver.\n")


def test_sync_as_json_has_the_documented_shape(record: Record, overt: Overt) -> None:
    record(ONE_RUN)
    said = overt("sync", "--json")
    content = json.loads(said.out)
    assert content.keys() == {"delivered", "left", "runs"}
    assert (content["delivered"], content["left"]) == (1, 0)
    (run,) = content["runs"]
    assert run.keys() == FIELDS
    assert (run["name"], run["delivered"], run["new"], run["problem"]) == ("small", True, True, "")
    assert json.loads(overt("sync", "--json").out) == {"delivered": 0, "left": 0, "runs": []}


def test_what_is_kept_is_not_delivered_again(record: Record, overt: Overt) -> None:
    record(ONE_RUN)
    overt("sync", "--keep")
    before = json.loads(overt("show", "last", "--json").out)
    said = overt("sync", "--keep")
    assert (said.code, said.out) == (0, "There is nothing to deliver: 1 journal here arrived before.\n")
    assert json.loads(overt("show", "last", "--json").out) == before
    assert len(journals()) == 1


def test_a_vanished_run_is_delivered_and_closed(record: Record, overt: Overt) -> None:
    record(VANISHED_RUN)
    said = overt("sync")
    assert said.code == 0
    assert "closed as KILLED" in said.out
    (run,) = json.loads(overt("runs", "--json").out)["runs"]
    assert (run["name"], run["status"], run["metrics"]) == ("lost", "KILLED", {"loss": 0.5})


def test_a_dead_store_leaves_everything_and_says_so_in_one_line(record: Record, overt: Overt) -> None:
    record(ONE_RUN)
    said = overt("sync", "--store", DEAD)
    assert said.code == 1
    assert said.err.count("\n") == 1
    assert "small" in said.err
    assert "0 runs delivered, 1 left." in said.out
    assert overt("sync").code == 0


def test_ones_own_folder_is_delivered_where_its_runs_were_recorded_for(
    record: Record, overt: Overt, monkeypatch: pytest.MonkeyPatch, sqlite_uri: str, tmp_path: Path
) -> None:
    record(ONE_RUN)
    monkeypatch.setenv("OVERT_STORE", f"sqlite:///{tmp_path / 'other.db'}")
    assert overt("sync").code == 0
    monkeypatch.setenv("OVERT_STORE", sqlite_uri)
    assert "small" in overt("runs").out


@pytest.mark.parametrize("named", [".overt", ".overt/runs", "one run"])
def test_ones_own_folder_may_be_named_too(record: Record, overt: Overt, named: str) -> None:
    record(ONE_RUN)
    folder = journals()[0] if named == "one run" else Path(named)
    assert overt("sync", folder).code == 0
    assert journals() == []


def test_a_strangers_journal_does_not_choose_the_server(
    record: Record, overt: Overt, sqlite_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from overt.stores.uri import open_store

    opened: list[str] = []
    monkeypatch.setattr("overt.delivery.sync.open_store", lambda uri: opened.append(uri) or open_store(uri))
    record(ONE_RUN, OVERT_STORE="http://collector.example:5000", OVERT_DIR=str(tmp_path / "usb" / ".overt"))
    folder = tmp_path / "usb" / ".overt"
    said = overt("sync", folder)
    assert said.code == 1
    assert opened == []
    assert f"overt sync {folder} --store http://collector.example:5000" in said.err
    assert said.err.count("\n") == 1
    assert overt("sync", folder, "--store", sqlite_uri).code == 0
    assert opened == [sqlite_uri]
    assert "small" in overt("runs").out


def test_the_sqlite_path_of_another_machine_is_not_made_here(record: Record, overt: Overt, tmp_path: Path) -> None:
    theirs = tmp_path / "their" / "mlflow.db"
    record(ONE_RUN, OVERT_STORE=f"sqlite:///{theirs}", OVERT_DIR=str(tmp_path / "usb" / ".overt"))
    said = overt("sync", tmp_path / "usb" / ".overt")
    assert said.code == 1
    assert f"--store sqlite:///{theirs}" in said.err
    assert not theirs.parent.exists()


def test_a_folder_from_elsewhere_goes_to_the_configured_store_with_its_credentials(
    record: Record, overt: Overt, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []

    def refuse(uri: str) -> None:
        from overt.errors import StoreUnavailable

        opened.append(uri)
        raise StoreUnavailable("away")

    folder = tmp_path / "usb" / ".overt"
    record(ONE_RUN, OVERT_STORE=DEAD, OVERT_DIR=str(folder))
    monkeypatch.setattr("overt.delivery.sync.open_store", refuse)
    monkeypatch.setenv("OVERT_STORE", "http://me:secret@127.0.0.1:9")
    said = overt("sync", folder)
    assert opened == ["http://me:secret@127.0.0.1:9"]
    assert "secret" not in said.out + said.err


def test_a_login_node_delivers_without_torch_sklearn_and_the_users_classes(
    record: Record, sqlite_uri: str, tmp_path: Path
) -> None:
    recorded = record(
        """
        import sys, types
        mine = types.ModuleType("mine"); sys.modules["mine"] = mine
        source = "from sklearn.linear_model import LogisticRegression as Base\\nclass Mine(Base): pass"
        exec(source, mine.__dict__)
        overt.TrackedEstimator(mine.Mine(), run_name="theirs").fit([[0.0], [1.0]], [0, 1])
        """
    )
    assert recorded.returncode == 0, recorded.stderr
    shutil.move(".overt", tmp_path / "copied")
    blocked = (
        "import sys\n"
        "class Absent:\n"
        "    def find_spec(self, name, *rest):\n"
        "        if name.partition('.')[0] in ('sklearn', 'torch', 'lightning', 'mine', 'cloudpickle', 'joblib'):\n"
        "            raise ModuleNotFoundError(name, name=name)\n"
        "sys.meta_path.insert(0, Absent())\n"
        "sys.argv = ['overt', 'sync', 'copied', '--store', sys.argv[1]]\n"
        "from overt.cli import main; main()\n"
    )
    said = subprocess.run(
        [sys.executable, "-c", blocked, sqlite_uri], capture_output=True, text=True, check=False, timeout=50
    )
    assert said.returncode == 0, said.stderr
    assert "run theirs" in said.stdout


def test_a_run_of_another_host_is_delivered_and_not_closed(record: Record, overt: Overt) -> None:
    record(VANISHED_RUN)
    from_another_host()
    said = overt("sync")
    assert said.code == 1
    assert said.err.count("\n") == 1
    assert "node17" in said.err
    assert "overt doctor --close" in said.err
    (run,) = json.loads(overt("runs", "--json").out)["runs"]
    assert (run["status"], run["metrics"]) == ("RUNNING", {"loss": 0.5})


def test_an_ended_run_of_another_host_needs_no_word(record: Record, overt: Overt) -> None:
    record(ONE_RUN)
    from_another_host()
    assert overt("sync").code == 0
    assert journals() == []


def test_a_live_run_is_delivered_as_far_as_it_is(record: Record, overt: Overt) -> None:
    script = "import overt, sys\nrun = overt.start_run('going')\nrun.log_metric('a', 1.0)\nprint(flush=True)\ninput()"
    child = subprocess.Popen(
        [sys.executable, "-c", script],
        env=dict(os.environ) | {"OVERT_DELIVERY": "manual", "OVERT_WAIT": "0"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with child:
        assert child.stdout is not None
        child.stdout.readline()
        said = overt("sync")
        assert said.code == 0
        assert "still being recorded" in said.out
        assert len(journals()) == 1
        (run,) = json.loads(overt("runs", "--json").out)["runs"]
        assert (run["name"], run["status"]) == ("going", "RUNNING")
    assert overt("sync").code == 0
    assert json.loads(overt("runs", "--json").out)["runs"][0]["status"] == "FAILED"  # its input ended


def test_an_unreadable_journal_is_one_line_and_stops_no_other(record: Record, overt: Overt) -> None:
    record(ONE_RUN)
    broken = Path(".overt/runs/broken")
    broken.mkdir()
    (broken / "journal.jsonl").write_text("not a journal\n")
    said = overt("sync")
    assert said.code == 1
    assert "1 run delivered, 1 left." in said.out
    assert said.err.count("\n") == 1
    assert "broken" in said.err


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_may_not_be_written_is_one_line(record: Record, overt: Overt) -> None:
    record(ONE_RUN)
    (folder,) = journals()
    folder.chmod(0o500)
    try:
        said = overt("sync")
    finally:
        folder.chmod(0o700)
    assert said.code == 1
    assert "Permission denied" in said.err


def test_a_lock_that_cannot_be_made_is_one_line(record: Record, overt: Overt) -> None:
    record(ONE_RUN)
    (folder,) = journals()
    (folder / "lock").symlink_to("/etc/hostname")
    said = overt("sync")
    assert said.code == 1
    assert said.err.count("\n") == 1
    assert "lock" in said.err


# -- who else is at it, and stores that do not answer ----------------------------------------------------------------

HOLDING = """
import sys, time
from pathlib import Path
from overt.delivery.lock import try_lock
with try_lock(Path(sys.argv[1])) as ours:
    print(ours, flush=True)
    time.sleep(float(sys.argv[2]))
"""


def holding(folder: Path, seconds: float) -> subprocess.Popen[str]:
    child = subprocess.Popen(
        [sys.executable, "-c", HOLDING, str(folder / "lock"), str(seconds)], stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "True\n"
    return child


def test_a_run_that_somebody_delivers_at_this_moment_is_waited_for(
    record: Record, overt: Overt, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("overt.delivery.sync.LOCK_PATIENCE_S", sync.LOCK_PATIENCE_S * 6)  # a busy machine
    record(ONE_RUN)
    with holding(journals()[0], 4.0):
        said = overt("sync")
    assert (said.code, said.err) == (0, "")
    assert journals() == []


@pytest.mark.skipif(not Path("/proc/locks").exists(), reason="this system does not tell who holds a lock")
def test_who_delivers_a_run_for_longer_is_named(record: Record, overt: Overt, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("overt.delivery.sync.LOCK_PATIENCE_S", 0.3)
    record(ONE_RUN)
    with holding(journals()[0], 60.0) as child:
        said = overt("sync")
        child.kill()
    assert said.code == 1
    assert said.err.count("\n") == 1
    assert f"process {child.pid} is delivering it at this moment" in said.err


def test_a_server_that_says_nothing_costs_its_time_limit_once(
    record: Record, overt: Overt, monkeypatch: pytest.MonkeyPatch
) -> None:
    import socket
    import time

    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    for _ in range(6):
        record(ONE_RUN)
    with socket.create_server(("127.0.0.1", 0), backlog=64) as silent:
        began = time.monotonic()
        said = overt("sync", "--store", f"http://127.0.0.1:{silent.getsockname()[1]}")
        took = time.monotonic() - began
    assert said.code == 1
    assert "0 runs delivered, 6 left." in said.out
    tried, untried = said.err.splitlines()
    assert "run small" in tried
    assert "5 more runs for the same store not tried: " in untried
    assert took < 4.5, "six runs, one second and more each"
    assert overt("sync").code == 0


def test_one_runs_own_trouble_keeps_no_other_from_a_store_that_works(
    record: Record, overt: Overt, sqlite_uri: str
) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(sqlite_uri)
    record(ONE_RUN)
    assert overt("sync", "--keep").code == 0
    (run,) = json.loads(overt("runs", "--json").out)["runs"]
    client.delete_run(run["id"])
    delivered = journals()[0] / "delivered.json"
    delivered.unlink()
    record(ONE_RUN.replace("small", "other"))
    said = overt("sync")
    assert "1 run delivered, 1 left." in said.out
    assert "restore" in said.err
    assert "not tried" not in said.err
