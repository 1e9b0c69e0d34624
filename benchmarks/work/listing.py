"""Finds the best five of 10,000 runs: in a JSONL store with overt, in a database with MLflow, which hold the same."""

from __future__ import annotations

import json
import random
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

RUNS = 10_000
EXPERIMENT = "fraud"
WHERE = "metrics.f1_score > 0.9 and params.model_type = 'RandomForestClassifier'"
ORDER = ["metrics.f1_score DESC"]
NOW_MS = 1_700_000_000_000
PARAMS = (
    *("bootstrap", "ccp_alpha", "class_weight", "criterion", "max_depth", "max_features", "max_leaf_nodes"),
    *(
        "max_samples",
        "min_impurity_decrease",
        "min_samples_leaf",
        "min_samples_split",
        "min_weight_fraction_leaf",
        "n_estimators",
    ),
    *("n_jobs", "oob_score", "random_state", "verbose", "warm_start", "model_name", "model_class"),
)
METRICS = (
    *("accuracy", "balanced_accuracy", "precision", "recall", "f1_score", "f1_macro", "roc_auc", "log_loss"),
    *("cv_accuracy", "cv_mean_accuracy", "cv_std_accuracy", "fit_seconds", "training_accuracy", "training_f1_score"),
)
TAGS = ("mlflow.user", "mlflow.source.name", "overt.git.commit", "overt.git.branch", "overt.host", "overt.argv", "team")
FILES = ("confusion_matrix", "classification_report", "roc_curve", "precision_recall_curve", "calibration_curve")


def main() -> None:
    """Print the seconds of one side, and the runs that it found."""
    side = sys.argv[1]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        find = fill_jsonl(folder) if side == "overt" else fill_mlflow(folder)
        found, seconds = [], []
        for _ in range(5):
            began = time.perf_counter()
            found = find()
            seconds.append(time.perf_counter() - began)
    print(json.dumps({"seconds": statistics.median(seconds[1:]), "found": found, "expect": {}}))


def runs() -> Iterator[dict[str, Any]]:
    """The same runs each time."""
    draw = random.Random(0)
    for number in range(RUNS):
        params = dict.fromkeys(PARAMS, "None") | {"n_estimators": str(draw.randrange(1_000))}
        params["model_type"] = draw.choice(["RandomForestClassifier", "SVC"])
        yield {
            "id": f"{number:032x}",
            "name": f"run-{number}",
            "started_ms": NOW_MS + 1_000 * number,
            "params": params,
            "metrics": {metric: draw.random() for metric in METRICS},
            "tags": dict.fromkeys(TAGS, "some text of an ordinary length"),
        }


def fill_jsonl(folder: Path) -> Any:
    """Write the store as its own code does, and give what finds the best five."""
    import overt
    from overt.records import Metric, RunSpec
    from overt.stores.runfile import RunState
    from overt.stores.runline import to_line

    artifacts = [
        f"{prefix}{file}.{kind}" for prefix in ("", "cv_") for file in FILES for kind in ("json", "csv", "png")
    ]
    (folder / "records").mkdir()
    with open(folder / "runs.jsonl", "wb") as lines:
        for run in runs():
            (folder / "records" / f"{run['id']}.jsonl").touch()  # which a listing looks for, and does not open
            state = RunState(
                RunSpec(run["id"], run["name"], EXPERIMENT, run["started_ms"]),
                status="FINISHED",
                ended_ms=run["started_ms"] + 500,
                params=run["params"],
                tags=run["tags"],
                last={metric: Metric(metric, value, 0, NOW_MS) for metric, value in run["metrics"].items()},
            )
            lines.write(to_line(state, artifacts))
    store = f"jsonl:{folder}"
    return lambda: list(overt.runs(EXPERIMENT, where=WHERE, order_by=ORDER, limit=5, store=store)["run_id"])


def fill_mlflow(folder: Path) -> Any:
    """Write MLflow's database in bulk: its client would take minutes; and give what finds the best five."""
    database = folder / "mlflow.db"
    uri = f"sqlite:///{database}"
    script = "import sys; from mlflow import MlflowClient; MlflowClient(sys.argv[1]).create_experiment(sys.argv[2])"
    subprocess.run([sys.executable, "-c", script, uri, EXPERIMENT], check=True, capture_output=True)
    with closing(sqlite3.connect(database)) as connection, connection:
        ((experiment,),) = connection.execute("SELECT experiment_id FROM experiments WHERE name = ?", [EXPERIMENT])
        columns = "run_uuid, name, source_type, user_id, status, start_time, end_time, lifecycle_stage, artifact_uri"
        for run in runs():
            key, started_ms = run["id"], run["started_ms"]
            row = (key, run["name"], "LOCAL", "me", "FINISHED", started_ms, started_ms + 500, "active", "", experiment)
            connection.execute(
                f"INSERT INTO runs ({columns}, experiment_id) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", row
            )
            for table, texts in (("params", run["params"]), ("tags", run["tags"])):
                rows = [(name, text, key) for name, text in texts.items()]
                connection.executemany(f"INSERT INTO {table} (key, value, run_uuid) VALUES (?, ?, ?)", rows)
            for table in ("metrics", "latest_metrics"):
                points = [(name, value, NOW_MS, key, 0, 0) for name, value in run["metrics"].items()]
                insert = (
                    f"INSERT INTO {table} (key, value, timestamp, run_uuid, step, is_nan) VALUES (?, ?, ?, ?, ?, ?)"
                )
                connection.executemany(insert, points)
    import mlflow

    mlflow.set_tracking_uri(uri)
    names = {"experiment_names": [EXPERIMENT], "filter_string": WHERE, "order_by": ORDER, "max_results": 5}
    return lambda: list(mlflow.search_runs(**names)["run_id"])


if __name__ == "__main__":
    main()
