"""The example script, run once for all tests and workers that look at what it leaves: it trains for real."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

SCRIPT = Path(__file__).parents[2] / "examples" / "compare_classifiers.py"
EXPERIMENT = "breast-cancer-classification"
RUNS = ("rf-baseline", "rf-tuned", "gb-baseline")


class Demo(NamedTuple):
    """How the script ended, and the folder that it ran in."""

    folder: Path
    code: int
    out: str
    err: str

    @property
    def uri(self) -> str:
        """Of MLflow's default database, in the folder that the script ran in."""
        return f"sqlite:///{self.folder / 'mlflow.db'}"


def run_demo(factory: pytest.TempPathFactory) -> Demo:
    """Run the script as a user would, without any setting, in an empty folder."""
    base = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent
    folder = base / "demo"
    folder.mkdir(exist_ok=True)
    with open(base / "demo.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        ended = base / "demo.json"
        if not ended.exists():
            own = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_", "OVERT_"))}
            done = subprocess.run(
                [sys.executable, str(SCRIPT)],
                cwd=folder,
                env=own | {"MLFLOW_DISABLE_TELEMETRY": "true"},
                capture_output=True,
                text=True,
                check=False,
            )
            ended.write_text(json.dumps([done.returncode, done.stdout, done.stderr]))
        return Demo(folder, *json.loads(ended.read_text()))
