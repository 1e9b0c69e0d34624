"""Which run a fit records into: the one it was given, a child of the parent it was given, the current one, its own."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import make_classification
from sklearn.ensemble import GradientBoostingClassifier, RandomForestClassifier
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier

import overt
from overt import OvertWarning, TrackedEstimator, Tracker
from overt.stores.memory import MemoryRun

Runs = list[MemoryRun]

X, y = make_classification(60, 5, random_state=0)


def model(**keywords: object) -> TrackedEstimator:
    return TrackedEstimator(GaussianNB(), **keywords)


def test_alone_a_fit_has_a_run_of_its_own_named_after_the_estimator(runs: Runs) -> None:
    fitted = model(experiment="fraud", tags={"team": "a"}, notes="**why**").fit(X, y)
    (run,) = runs
    assert run.name == f"GaussianNB-{fitted.run_.key[:4]}"
    assert run.experiment == "fraud"
    assert run.tags["team"] == "a"
    assert run.tags["mlflow.note.content"] == "**why**"
    assert run.spec.parent_key is None
    assert overt.current_run() is None


def test_a_pipelines_run_is_named_after_its_final_step(runs: Runs) -> None:
    TrackedEstimator(make_pipeline(StandardScaler(), GaussianNB())).fit(X, y)
    assert runs[0].name.startswith("GaussianNB-")


def test_a_run_that_was_given_is_recorded_into_and_left_open(runs: Runs) -> None:
    mine = overt.start_run("mine")
    fitted = model(run=mine, params={"fold": 3}, tags={"team": "a"}).fit(X, y)
    fitted.evaluate(X, y)
    assert fitted.run_ is mine
    assert len(runs) == 1
    assert runs[0].status == "RUNNING"
    assert runs[0].params["fold"] == "3"
    assert runs[0].tags["team"] == "a"
    assert {"fit_seconds", "accuracy"} <= set(runs[0].metrics)
    mine.finish()
    assert runs[0].status == "FINISHED"


def test_a_fit_that_fails_leaves_a_run_that_it_was_given_open(runs: Runs) -> None:
    mine = overt.start_run("mine")
    with pytest.raises(ValueError, match="NaN"):
        model(run=mine).fit(np.full_like(X, np.nan), y)
    assert runs[0].status == "RUNNING"
    mine.finish()


def test_a_second_fit_in_a_run_that_was_given_is_nested_in_it(runs: Runs) -> None:
    with overt.start_run("mine") as mine:
        fitted = model(run=mine).fit(X, y)
        fitted.evaluate(X[:30], y[:30])
        for depth in (1, 2):
            fitted.set_params(estimator=DecisionTreeClassifier(max_depth=depth)).fit(X, y).evaluate(X[30:], y[30:])
    assert [run.spec.parent_key for run in runs] == [None, mine.key, mine.key]
    assert [run.params["model_type"] for run in runs] == ["GaussianNB", *["DecisionTreeClassifier"] * 2]
    assert [len([point for point in run.history if point.name == "accuracy"]) for run in runs] == [1, 1, 1]
    assert [run.status for run in runs] == ["FINISHED"] * 3


def test_two_estimators_may_share_a_run_that_was_given(runs: Runs) -> None:
    with overt.start_run("mine") as mine:
        assert [model(run=mine).fit(X, y).run_ for _ in range(2)] == [mine, mine]
    assert len(runs) == 1


def boosting(**params: object) -> GradientBoostingClassifier:
    return GradientBoostingClassifier(n_estimators=2, warm_start=True, **params)


def test_a_warm_fit_of_another_estimator_is_another_run(runs: Runs) -> None:
    fitted = TrackedEstimator(boosting()).fit(X, y)
    fitted.set_params(estimator=RandomForestClassifier(3, warm_start=True)).fit(X, y)
    assert [run.params["model_type"] for run in runs] == ["GradientBoostingClassifier", "RandomForestClassifier"]
    assert not [name for run in runs for name in run.tags if "param_drift" in name]


def test_a_warm_fit_of_another_last_step_is_another_run(runs: Runs) -> None:
    fitted = TrackedEstimator(Pipeline([("scale", StandardScaler()), ("clf", boosting())])).fit(X, y)
    fitted.set_params(estimator__clf=RandomForestClassifier(3, warm_start=True)).fit(X, y)
    assert len(runs) == 2


@pytest.mark.parametrize("changed", [{"run_name": "other"}, {"experiment": "other"}, {"tags": {"a": 1}}], ids=str)
def test_a_warm_fit_with_other_settings_of_its_run_is_another_run(runs: Runs, changed: dict[str, object]) -> None:
    fitted = TrackedEstimator(boosting(), run_name="one").fit(X, y)
    fitted.set_params(**changed, estimator__n_estimators=5).fit(X, y)
    assert len(runs) == 2
    assert [(p.step, p.value) for p in runs[1].history if p.name == "train_loss"] == [
        *enumerate(fitted.train_score_.tolist())
    ][2:]


def test_a_warm_fit_into_a_run_given_since_is_recorded_there(runs: Runs) -> None:
    fitted = TrackedEstimator(boosting()).fit(X, y)
    with overt.start_run("mine") as mine:
        assert fitted.set_params(run=mine).fit(X, y).run_ is mine
        assert fitted.fit(X, y).run_ is mine
    assert len(runs) == 2


def test_a_parent_that_was_given_gets_a_child(runs: Runs) -> None:
    group = overt.start_run("group", experiment="fraud")
    for parent in (group, group.key):
        model(parent=parent).fit(X, y)
    assert [run.spec.parent_key for run in runs] == [None, group.key, group.key]
    assert runs[1].experiment == "fraud"
    assert [run.status for run in runs] == ["RUNNING", "FINISHED", "FINISHED"]
    group.finish()


def test_the_first_fit_in_a_block_joins_its_run_and_later_ones_are_its_children(runs: Runs) -> None:
    with overt.start_run("block") as block:
        first = model().fit(X, y)
        second = model().fit(X, y)
    assert first.run_ is block
    assert runs[1].spec.parent_key == block.key
    assert second.run_.key == runs[1].spec.key
    assert [run.status for run in runs] == ["FINISHED", "FINISHED"]
    assert runs[0].metrics["fit_seconds"] > 0


def test_a_fit_with_a_name_is_a_child_at_once(runs: Runs) -> None:
    with overt.start_run("block") as block:
        named = model(run_name="named").fit(X, y)
        joined = model().fit(X, y)
    assert (runs[1].name, runs[1].spec.parent_key) == ("named", block.key)
    assert named.run_ is not block
    assert joined.run_ is block


def test_a_nested_block_takes_the_fit(runs: Runs) -> None:
    with overt.start_run("outer") as outer:
        with overt.start_run("inner") as inner:
            assert model().fit(X, y).run_ is inner
        assert model().fit(X, y).run_ is outer
    assert runs[1].spec.parent_key == outer.key


def test_a_block_whose_fit_fails_has_failed_and_the_first_ending_wins(runs: Runs) -> None:
    with pytest.raises(ValueError, match="NaN"), overt.start_run("block"):
        model().fit(np.full_like(X, np.nan), y)
    assert [run.status for run in runs] == ["FAILED"]


def test_a_thread_is_outside_the_block_unless_it_is_told_the_parent(runs: Runs) -> None:
    with overt.start_run("block") as block:
        threads = [threading.Thread(target=model(parent=parent).fit, args=(X, y)) for parent in (None, block)]
        for thread in threads:
            thread.start()
            thread.join()
    assert [run.spec.parent_key for run in runs] == [None, None, block.key]


def test_an_evaluation_after_the_block_is_added_to_the_ended_run(runs: Runs) -> None:
    with overt.start_run("block"):
        fitted = model().fit(X, y)
    fitted.evaluate(X, y)
    assert runs[0].status == "FINISHED"
    assert "accuracy" in runs[0].metrics


def test_a_tracker_brings_its_settings(runs: Runs) -> None:
    model(tracker=Tracker(experiment="theirs", tags={"team": "b"})).fit(X, y)
    model(tracker=Tracker(experiment="theirs"), experiment="mine").fit(X, y)
    assert [run.experiment for run in runs] == ["theirs", "mine"]
    assert runs[0].tags["team"] == "b"


def test_switched_off_everything_works_and_no_file_is_written(tmp_path: Path) -> None:
    before = set(tmp_path.rglob("*"))
    fitted = model(tracker=Tracker(enabled=False), cv=2, register_as="m").fit(X, y)
    assert fitted.evaluate(X, y)["accuracy"] == fitted.run_.metrics["accuracy"]
    assert fitted.run_.status == "FINISHED"
    assert fitted.run_.params["var_smoothing"] == "1e-09"
    assert set(tmp_path.rglob("*")) == before
    with pytest.raises(LookupError):
        _ = fitted.run_.model_uri


def test_switched_off_a_broken_part_still_warns() -> None:
    class Broken(GaussianNB):
        def predict(self, X: object) -> None:
            raise RuntimeError("broken")

    with pytest.warns(OvertWarning, match="broken"):
        TrackedEstimator(Broken(), tracker=Tracker(enabled=False)).fit(X, y)


def test_switched_off_by_the_environment_nothing_is_imported_started_or_written(tmp_path: Path) -> None:
    script = (
        "import sys, threading, numpy, overt\n"
        "from sklearn.naive_bayes import GaussianNB\n"
        "model = overt.TrackedEstimator(GaussianNB()).fit(numpy.eye(4), [0, 1, 0, 1])\n"
        "model.evaluate(numpy.eye(4), [0, 1, 0, 1])\n"
        "print(threading.active_count(), 'mlflow' in sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script],
        cwd=tmp_path,
        env=dict(os.environ) | {"OVERT_DISABLED": "1", "OVERT_QUIET": "0"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "1 False\n", "")
    assert list(tmp_path.iterdir()) == []
