"""An Optuna study with four threads: each trial is a run nested in the study's, and none is lost or mixed up."""

from __future__ import annotations

from typing import Any

import pytest
from sklearn.datasets import load_iris
from sklearn.model_selection import train_test_split
from sklearn.tree import DecisionTreeClassifier

import overt
from overt import TrackedEstimator
from overt.testing import captured_runs

optuna = pytest.importorskip("optuna")


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_trials_in_four_threads_are_runs_of_their_own() -> None:
    X, X_val, y, y_val = train_test_split(*load_iris(return_X_y=True), random_state=0)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with captured_runs() as runs, overt.start_run("study") as study_run:

        def objective(trial: Any) -> float:
            depth = trial.suggest_int("max_depth", 1, 8)
            model = TrackedEstimator(
                DecisionTreeClassifier(max_depth=depth, random_state=0),
                parent=study_run,
                run_name=f"trial-{trial.number}",
                params={"trial": trial.number},
            ).fit(X, y)
            return float(model.evaluate(X_val, y_val)["accuracy"])

        study = optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(seed=0))
        study.optimize(objective, n_trials=12, n_jobs=4)
    trials = {run.params["trial"]: run for run in runs[1:]}
    assert len(runs) == 1 + 12
    for trial in study.trials:
        run = trials[str(trial.number)]
        assert run.name == f"trial-{trial.number}"
        assert run.params["max_depth"] == str(trial.params["max_depth"])
        assert run.metrics["accuracy"] == trial.value
        assert (run.status, run.spec.parent_key) == ("FINISHED", study_run.key)
