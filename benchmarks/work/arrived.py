"""Checks that what was timed is in MLflow: for each run id (or name), how many points each metric has."""

import json
import sys

expected = json.loads(sys.argv[1])["expect"]
if expected:
    import os

    from mlflow import MlflowClient

    client = MlflowClient(os.environ["MLFLOW_TRACKING_URI"])
    ids = {run.info.run_name: run.info.run_id for run in client.search_runs(["0"])}
    for name, metrics in expected.items():
        for metric, count in metrics.items():
            found = client.get_metric_history(ids.get(name, name), metric)
            assert len(found) == count, f"{metric} of run {name}: {len(found)} of {count} points are in MLflow"
