"""Every example, unchanged, with plain files as its store."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from overt.stores.csv import CsvStore
from overt.stores.jsonl import JsonlStore

EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("*.py"))
pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]


@pytest.mark.parametrize("kind", ["jsonl", "csv"])
@pytest.mark.parametrize("script", EXAMPLES, ids=[path.stem for path in EXAMPLES])
def test_an_example_records_into_plain_files(script: Path, kind: str, tmp_path: Path) -> None:
    if script.stem != "compare_classifiers":
        pytest.importorskip("lightning" if script.stem.startswith("lightning") else "torch")
    uri = {"jsonl": "jsonl:experiments", "csv": "csv:experiments.csv"}[kind]
    own = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_", "OVERT_"))}
    done = subprocess.run(
        [sys.executable, str(script)],
        env=own | {"MLFLOW_DISABLE_TELEMETRY": "true", "OVERT_STORE": uri},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "OvertWarning" not in done.stderr
    store = JsonlStore(tmp_path / "experiments") if kind == "jsonl" else CsvStore(tmp_path / "experiments.csv")
    runs = list(store.iter_runs())
    assert len(runs) == (3 if script.stem == "compare_classifiers" else 1)
    assert len(store.lines.read_text("utf-8").splitlines()) == len(runs)
    for run in runs:
        details = store.read_run(run.id)
        assert (run.status, bool(run.params), bool(run.metrics)) == ("FINISHED", True, True)
        assert {"overt/environment.json", "overt/packages.json"} <= {file.path for file in details.files}
        assert max(details.points.values()) > 2, "no series arrived"
    assert not list((tmp_path / ".overt" / "runs").iterdir()), "nothing is left to deliver"
    assert not (tmp_path / "mlflow.db").exists()
    assert not (tmp_path / "mlruns").exists()
