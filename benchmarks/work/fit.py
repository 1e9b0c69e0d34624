"""Times RandomForestClassifier(100).fit bare and tracked, in turns; the argument says by what.

``arrival`` is the time from fit's return until everything is in MLflow with the courier warm, ``cold_arrival`` that of
the process's first fit. ``overt-dead-server`` records for a server that is not there.
"""

import json
import os
import statistics
import sys
import time

side = sys.argv[1]
if side == "overt-dead-server":
    os.environ["MLFLOW_TRACKING_URI"] = "http://127.0.0.1:9"  # discard: nothing listens
    os.environ["OVERT_WAIT"] = "0"

from sklearn.datasets import load_breast_cancer  # noqa: E402
from sklearn.ensemble import RandomForestClassifier  # noqa: E402

X, y = load_breast_cancer(return_X_y=True, as_frame=True)
FITS = 4
EVERYTHING = {
    "metrics": {"training_accuracy": 1, "fit_seconds": 1},
    "files": [
        "estimator.html",
        "training_classification_report.json",
        "training_confusion_matrix.json",
        "training_confusion_matrix.png",
        "feature_importances.png",
    ],
    "models": 1,
}
bare, tracked, arrivals, expect = [], [], [], {}


def fit_bare() -> None:
    """The user's own fit."""
    began = time.perf_counter()
    RandomForestClassifier(random_state=0).fit(X, y)
    bare.append(time.perf_counter() - began)


if side == "autolog":
    import mlflow

    fit_bare()
    fit_bare()
    for _ in range(FITS):
        mlflow.sklearn.autolog(disable=True)
        fit_bare()
        mlflow.sklearn.autolog(disable=False, silent=True)
        with mlflow.start_run() as active:
            began = time.perf_counter()
            RandomForestClassifier(random_state=0).fit(X, y)
            tracked.append(time.perf_counter() - began)
        arrivals.append(0.0)
        expect[active.info.run_id] = {
            "metrics": {"training_accuracy_score": 1},
            "files": ["estimator.html", "training_confusion_matrix.png"],
            "models": 1,
        }
else:
    import overt

    fit_bare()
    fit_bare()
    for _ in range(FITS):
        fit_bare()
        began = time.perf_counter()
        model = overt.TrackedEstimator(RandomForestClassifier(random_state=0)).fit(X, y)
        tracked.append(time.perf_counter() - began)
        if side == "overt":
            assert overt.wait(), "not everything arrived"
            arrivals.append(time.perf_counter() - began - tracked[-1])
            expect[model.run_.id] = EVERYTHING
        else:
            arrivals.append(0.0)
        time.sleep(3.0)  # alike on both sides: no later fit shares the machine with the courier's start

result = {
    "bare": statistics.median(bare[1:]),
    "tracked": statistics.median(tracked[1:]),
    "over_bare_ratio": statistics.median(t / b for t, b in zip(tracked[1:], bare[-FITS:][1:], strict=True)),
    "over_bare": statistics.median(tracked[1:]) - statistics.median(bare[1:]),
    "first_over_bare": tracked[0] - statistics.median(bare[1:]),
    "arrival": statistics.median(arrivals[1:]),
    "cold_arrival": arrivals[0],
    "expect": expect,
    "journals": FITS if side == "overt-dead-server" else 0,
}
print(json.dumps(result))
