"""A user's whole script: bare, with overt or with autolog, as the argument says. It is timed from outside."""

import json
import sys

side = sys.argv[1]

from sklearn.datasets import load_breast_cancer  # noqa: E402
from sklearn.ensemble import RandomForestClassifier  # noqa: E402

X, y = load_breast_cancer(return_X_y=True, as_frame=True)
forest = RandomForestClassifier(random_state=0)
expect = {}
if side == "overt":
    import overt

    overt.TrackedEstimator(forest, run_name="script").fit(X, y)
    expect = {"script": {"metrics": {"training_accuracy": 1, "fit_seconds": 1}, "models": 1}}
elif side == "autolog":
    import mlflow

    mlflow.sklearn.autolog(silent=True)
    with mlflow.start_run(run_name="script"):
        forest.fit(X, y)
    expect = {"script": {"metrics": {"training_accuracy_score": 1}, "models": 1}}
else:
    forest.fit(X, y)
print(json.dumps({"expect": expect}))
