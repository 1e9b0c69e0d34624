"""The example that the README shows: it runs, and what it prints is what is in MLflow."""

from __future__ import annotations

import re
import sqlite3
from contextlib import closing

import pytest
from tests.examples.demo import EXPERIMENT, RUNS, Demo, run_demo

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]  # the first test waits for the script

COLUMNS = ["accuracy", "f1_score", "precision", "recall", "roc_auc", "cv_mean_accuracy", "cv_std_accuracy"]


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Demo:
    return run_demo(tmp_path_factory)


def table(out: str) -> dict[str, dict[str, float]]:
    lines = out.splitlines()
    start = next(i for i, line in enumerate(lines) if line.split() == COLUMNS)
    rows = [line.split() for line in lines[start + 1 : start + 4]]
    return {name: dict(zip(COLUMNS, map(float, values), strict=True)) for name, *values in rows}


def test_it_ends_well_and_complains_of_nothing(demo: Demo) -> None:
    assert demo.code == 0, demo.err
    assert "Traceback" not in demo.err
    assert "Warning" not in demo.err, demo.err


def test_its_table_shows_the_numbers_that_mlflow_holds(demo: Demo) -> None:
    shown = table(demo.out)
    assert list(shown) == list(RUNS)
    with closing(sqlite3.connect(demo.folder / "mlflow.db")) as connection:
        held = connection.execute(
            "SELECT runs.name, latest_metrics.key, latest_metrics.value FROM latest_metrics "
            "JOIN runs ON runs.run_uuid = latest_metrics.run_uuid JOIN experiments USING (experiment_id) "
            "WHERE experiments.name = ? AND runs.status = 'FINISHED'",
            [EXPERIMENT],
        ).fetchall()
    values = {(name, metric): value for name, metric, value in held}
    for name, row in shown.items():
        for metric, value in row.items():
            assert f"{values[name, metric]:.4f}" == f"{value:.4f}"
        assert row["f1_score"] > 0.9


def test_every_run_is_finished_and_holds_what_its_page_shows(demo: Demo) -> None:
    """``tests/ui`` looks at one of the pages."""
    with closing(sqlite3.connect(demo.folder / "mlflow.db")) as connection:
        for name in RUNS:
            (key, status), *others = connection.execute("SELECT run_uuid, status FROM runs WHERE name = ?", [name])
            assert (status, others) == ("FINISHED", [])
            metrics = connection.execute("SELECT key FROM latest_metrics WHERE run_uuid = ?", [key])
            assert {"f1_score", "cv_mean_accuracy", "training_accuracy"} <= {metric for (metric,) in metrics}
            params = connection.execute("SELECT key FROM params WHERE run_uuid = ?", [key])
            assert ("test_size",) in params.fetchall()


def test_it_names_the_best_run_its_place_and_the_next_command(demo: Demo) -> None:
    shown = table(demo.out)
    name, score = re.search(r"Best run: (\S+), f1_score (\S+)", demo.out).groups()
    assert float(score) == max(row["f1_score"] for row in shown.values()) == shown[name]["f1_score"]
    assert f"of {demo.uri}" in demo.out
    assert re.search(r"Its model: models:/m-\w+, loaded back with equal predictions", demo.out)
    assert demo.out.rstrip().endswith("overt ui")


def test_nothing_is_left_to_deliver(demo: Demo) -> None:
    assert list((demo.folder / ".overt" / "runs").iterdir()) == []
