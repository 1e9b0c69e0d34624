"""Checks that what was timed is in MLflow, and that the folder holds as many undelivered journals as it should.

The argument is the result of the work as JSON. ``expect`` says for each run, by id or name, how many points of each
metric, which files and how many models that are READY there are; ``journals`` how many wait in ``.overt``.
"""

import json
import os
import sys
from pathlib import Path

result = json.loads(sys.argv[1])
journals = [path.name for path in Path(".overt", "runs").glob("*")]
assert len(journals) == result.get("journals", 0), f"journals left: {journals}"
if result["expect"]:
    from mlflow import MlflowClient

    client = MlflowClient(os.environ["MLFLOW_TRACKING_URI"])
    ids = {run.info.run_name: run.info.run_id for run in client.search_runs(["0"])}
    ready = [model.source_run_id for model in client.search_logged_models(["0"]) if model.status == "READY"]
    for name, expected in result["expect"].items():
        run_id = ids.get(name, name)
        for metric, count in expected["metrics"].items():
            found = client.get_metric_history(run_id, metric)
            assert len(found) == count, f"{metric} of run {name}: {len(found)} of {count} points are in MLflow"
        missing = set(expected.get("files", ())) - {file.path for file in client.list_artifacts(run_id)}
        assert not missing, f"files of run {name} that are not in MLflow: {missing}"
        models = expected.get("models", 0)
        assert ready.count(run_id) == models, f"models of run {name}: {ready.count(run_id)} of {models} are READY"
