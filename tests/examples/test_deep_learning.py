"""The examples of deep learning run as a user would run them, and leave in MLflow what the README promises."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("torch")

EXAMPLES = Path(__file__).parents[2] / "examples"
HEADLINE = {"confusion_matrix.json", "confusion_matrix.png", "classification_report.json", "roc_curve.png"}


def artifacts(folder: Path) -> set[str]:
    """Names of the files at the root of any run's artifacts."""
    return {path.name for path in folder.glob("mlruns/*/*/artifacts/*")}


@pytest.mark.timeout(240)
@pytest.mark.parametrize(
    ("name", "prefix"),
    [
        ("lightning_digits", ""),
        ("torch_loop_unmodified", "val_"),
        ("torch_per_epoch", "val_"),
        ("torch_generator", None),
    ],
)
def test_an_example_ends_well_within_a_minute(name: str, prefix: str | None, tmp_path: Path) -> None:
    if name.startswith("lightning"):
        pytest.importorskip("lightning")
    own = {key: value for key, value in os.environ.items() if not key.startswith(("MLFLOW_", "OVERT_"))}
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / f"{name}.py")],
        cwd=tmp_path,
        env=own | {"MLFLOW_DISABLE_TELEMETRY": "true"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "OvertWarning" not in done.stderr
    assert done.stdout.rstrip().endswith("overt ui")
    assert time.monotonic() - began < 120, "60 s on an idle machine; here other tests run beside it"
    if prefix is not None:
        assert {f"{prefix}{file}" for file in HEADLINE} <= artifacts(tmp_path)
