"""System metrics come from a real courier, of the training process, while a run of it is open."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from overt.delivery import sampling
from overt.delivery.sampling import PERIOD_S, Sampled, Sampling
from overt.journal.folder import run_folder
from overt.journal.reader import iter_records
from overt.records import Metric, RunSpec

pytest.importorskip("psutil")
pytest.importorskip("mlflow")

SCRIPT = f"""
import pathlib, sys, time, overt
is_on = sys.argv[1] == "on"
overt.configure(store=sys.argv[2], system_metrics=is_on)
with overt.start_run("ended"):
    pass
with overt.start_run("long") as run:
    folder = pathlib.Path(".overt", "runs", run.key)
    deadline = time.monotonic() + (80 if is_on else {PERIOD_S} + 5)  # on a busy machine a courier takes its time
    sampled = b'"name":"system/'  # as a metric's line has it: the command line is recorded too, with this script in it
    while time.monotonic() < deadline and not any(sampled in path.read_bytes() for path in folder.glob("*.jsonl")):
        time.sleep(0.2)
    print("psutil" in sys.modules)
"""


@pytest.mark.timeout(120)
def test_a_run_that_lasts_has_them_and_the_training_process_pays_nothing(sqlite_uri: str, tmp_path: Path) -> None:
    """With them and without, at the same time: both have to last longer than a period."""
    other = tmp_path / "off" / "mlflow.db"
    other.parent.mkdir()
    shutil.copyfile(sqlite_uri.removeprefix("sqlite:///"), other)
    on, off = start("on", sqlite_uri), start("off", f"sqlite:///{other}")
    for script in (on, off):
        out, err = script.communicate()
        assert (script.returncode, out) == (0, "False\n"), err
    names = system_metrics(sqlite_uri)
    assert {run for run, _, _ in names} == {"long"}
    assert ("long", "system/cpu_utilization_percentage", 0) in names
    assert ("long", "system/process_memory_usage_megabytes", 0) in names
    assert system_metrics(f"sqlite:///{other}") == set()


def start(switch: str, uri: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", SCRIPT, switch, uri]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def system_metrics(uri: str) -> set[tuple[str, str, int]]:
    with closing(sqlite3.connect(uri.removeprefix("sqlite:///"))) as database:
        return set(
            database.execute(
                "SELECT r.name, m.key, m.step FROM metrics m JOIN runs r USING (run_uuid) WHERE m.key LIKE 'system/%'"
            )
        )


def test_samples_are_taken_once_a_period_and_the_first_look_measures_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(sampling.time, "monotonic", lambda: now)
    taken = Sampling(1, Path.cwd())
    seen = []
    for second in range(40):
        now = float(second)
        if taken.take():
            seen.append(second)
    assert seen == [11, 21, 31]


def test_the_step_of_a_sample_is_its_number(tmp_path: Path) -> None:
    folder = run_folder(tmp_path, "ab" * 16)
    run = Sampled(folder, RunSpec("ab" * 16, "a run", "Default", 1_700_000_000_000))
    run.add({"system/x": 1})
    run.add({"system/x": 2.5})
    points = [record for record in iter_records(folder) if isinstance(record, Metric)]
    assert [(point.name, point.step, point.value) for point in points] == [("system/x", 0, 1.0), ("system/x", 1, 2.5)]
