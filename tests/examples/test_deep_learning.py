"""The examples of deep learning run as a user would run them, and leave in MLflow what the README promises."""

from __future__ import annotations

import os
import re
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

pytest.importorskip("torch")

# with MLflow's schema: that a script makes it is seen of the demo
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("sqlite_uri")]

EXAMPLES = Path(__file__).parents[2] / "examples"
HEADLINE = {"confusion_matrix.json", "confusion_matrix.png", "classification_report.json", "roc_curve.png"}


def artifacts(folder: Path) -> set[str]:
    """Names of the files at the root of any run's artifacts."""
    return {path.name for path in folder.glob("mlruns/*/*/artifacts/*")}


def run_example(name: str, folder: Path) -> str:
    """Run a script in a folder with an empty database, without any setting; what it printed."""
    own = {key: value for key, value in os.environ.items() if not key.startswith(("MLFLOW_", "OVERT_"))}
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / f"{name}.py")],
        cwd=folder,
        env=own | {"MLFLOW_DISABLE_TELEMETRY": "true"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "OvertWarning" not in done.stderr
    assert done.stdout.rstrip().endswith("overt ui")
    assert time.monotonic() - began < 120, "60 s on an idle machine; here other tests run beside it"
    return done.stdout


@pytest.mark.timeout(240)
@pytest.mark.parametrize(
    ("name", "prefix"),
    [
        ("lightning_digits", ""),
        ("torch_loop_unmodified", "val_"),
        ("torch_per_epoch", "val_"),
        ("torch_generator", None),
        ("torch_explicit", None),
    ],
)
def test_an_example_ends_well_within_a_minute(name: str, prefix: str | None, tmp_path: Path) -> None:
    if name.startswith("lightning"):
        pytest.importorskip("lightning")
    run_example(name, tmp_path)
    if prefix is not None:
        assert {f"{prefix}{file}" for file in HEADLINE} <= artifacts(tmp_path)


@pytest.mark.timeout(240)
def test_a_gan_has_the_losses_of_each_optimizer_and_both_models(tmp_path: Path) -> None:
    printed = run_example("torch_gan", tmp_path)
    with closing(sqlite3.connect(tmp_path / "mlflow.db")) as connection:
        metrics = dict(connection.execute("SELECT key, count(*) FROM metrics GROUP BY key").fetchall())
        values = dict(connection.execute("SELECT key, value FROM latest_metrics").fetchall())
        models = connection.execute("SELECT name, status FROM logged_models").fetchall()
    for each in ("opt_g", "opt_d"):
        assert metrics[f"train_loss_{each}_step"] == values[f"n_steps_{each}"] * metrics[f"train_loss_{each}"]
        assert 0.1 < values[f"train_loss_{each}"] < 3  # -log 0.5 is where neither wins
        assert re.search(rf"train_loss_{each} +{values[f'train_loss_{each}']:.4g}\n", printed)
    assert (values["lr_opt_g"], values["lr_opt_d"]) == (0.002, 0.001)
    assert values["train_loss_opt_g"] != values["train_loss_opt_d"]
    assert not {"train_loss", "lr", "n_steps"} & metrics.keys()
    assert set(models) == {("generator", 2), ("discriminator", 2)}  # READY
