"""What a run that grows by ``partial_fit`` holds: data as they come, and the model once, as the last call left it."""

from __future__ import annotations

import gc
import pickle
import subprocess
import sys
import weakref
from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np
import pandas as pd
import pytest
from scipy.sparse import coo_matrix
from sklearn.cluster import MiniBatchKMeans
from sklearn.datasets import make_classification
from sklearn.linear_model import SGDClassifier
from sklearn.naive_bayes import GaussianNB

import overt
from overt import OvertWarning, TrackedEstimator
from overt.integrations.sklearn.partial import DESCRIBED_CALLS
from overt.stores.memory import MemoryRun

Runs = list[MemoryRun]

X, y = make_classification(120, 6, n_informative=4, n_classes=3, random_state=0)
FIRST, SECOND, UNSEEN = slice(0, 40), slice(40, 80), slice(80, 120)


def grown(**keywords: Any) -> TrackedEstimator:
    model = TrackedEstimator(GaussianNB(), **keywords)
    for part in (FIRST, SECOND):
        model.partial_fit(X[part], y[part], classes=[0, 1, 2])
    return model


def recorded(run: MemoryRun) -> Any:
    return cloudpickle.loads(run.artifacts["model/model.pkl"])


def test_the_model_is_recorded_when_the_run_is_finished_as_the_last_call_left_it(runs: Runs) -> None:
    model = grown()
    assert runs[0].models == {}
    model.run_.finish()
    assert runs[0].status == "FINISHED"
    assert recorded(runs[0]).predict_proba(X).tobytes() == model.predict_proba(X).tobytes()
    assert runs[0].models["model"].signature is not None
    assert runs[0].models["model"].example is not None
    assert "estimator.html" in runs[0].artifacts


def test_a_fit_records_the_model_of_the_parts_before_it(runs: Runs) -> None:
    model = grown()
    before = model.predict_proba(X)
    model.fit(X[FIRST], y[FIRST])
    assert [run.status for run in runs] == ["FINISHED", "FINISHED"]
    assert recorded(runs[0]).predict_proba(X).tobytes() == before.tobytes()
    assert recorded(runs[1]).predict_proba(X).tobytes() == model.predict_proba(X).tobytes() != before.tobytes()


def test_a_fit_that_fails_leaves_the_model_of_the_parts_to_be_evaluated(runs: Runs) -> None:
    model = grown()
    with pytest.raises(ValueError, match="NaN"):
        model.fit(np.full_like(X, np.nan), y)
    model.evaluate(X[UNSEEN], y[UNSEEN])
    assert [run.status for run in runs] == ["FINISHED", "FAILED"]
    assert {point.model for point in runs[0].history if point.name == "accuracy"} == {"model"}


def test_a_block_that_ends_ends_the_parts(runs: Runs) -> None:
    with overt.start_run("block"):
        model = grown()
        assert runs[0].models == {}
    assert recorded(runs[0]).predict_proba(X).tobytes() == model.predict_proba(X).tobytes()


def test_in_a_run_that_was_given_a_later_fit_is_nested(runs: Runs) -> None:
    mine = overt.start_run("mine")
    model = grown(run=mine)
    before = model.predict_proba(X)
    model.fit(X[FIRST], y[FIRST])
    assert [(run.status, run.spec.parent_key) for run in runs] == [("RUNNING", None), ("FINISHED", mine.key)]
    mine.finish()
    assert recorded(runs[0]).predict_proba(X).tobytes() == before.tobytes()
    assert recorded(runs[1]).predict_proba(X).tobytes() == model.predict_proba(X).tobytes() != before.tobytes()


def test_parts_of_another_estimator_have_a_run_of_their_own(runs: Runs) -> None:
    model = grown()
    model.set_params(estimator=SGDClassifier(random_state=0)).partial_fit(X, y, classes=[0, 1, 2])
    assert [run.params["model_type"] for run in runs] == ["GaussianNB", "SGDClassifier"]
    assert [run.status for run in runs] == ["FINISHED", "RUNNING"]
    assert type(recorded(runs[0])) is GaussianNB


AT_THE_SCRIPTS_END = """
import atexit, pathlib

def look():  # registered before overt is imported, so it runs after everything that overt does at the end
    (run,) = store.runs.values()
    print(run.status, "estimator.html" in run.artifacts)
    pathlib.Path("model.pkl").write_bytes(run.artifacts["model/model.pkl"])

atexit.register(look)

import numpy, overt
from overt.stores.memory import MemoryStore
from sklearn.naive_bayes import GaussianNB

store = MemoryStore()
overt.configure(store=store)
X = numpy.load("X.npy")
model = overt.TrackedEstimator(GaussianNB())
model.partial_fit(X[:60], [0, 1] * 30, classes=[0, 1])
model.partial_fit(X[60:], [0, 1] * 30)
numpy.save("proba.npy", model.predict_proba(X))
"""


def test_the_scripts_end_records_the_model(tmp_path: Path) -> None:
    np.save("X.npy", X)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", AT_THE_SCRIPTS_END], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "FINISHED True\n", "")
    model = cloudpickle.loads(Path("model.pkl").read_bytes())
    assert model.predict_proba(X).tobytes() == np.load("proba.npy").tobytes()


def test_a_parameter_that_changes_between_the_parts_is_recorded(runs: Runs) -> None:
    model = TrackedEstimator(SGDClassifier(alpha=0.5, random_state=np.random.RandomState(0)))
    for alpha in (0.5, 0.5, 0.25):
        assert "param_drift.alpha" not in (runs[0].tags if runs else {})
        model.set_params(estimator__alpha=alpha).partial_fit(X, y, classes=[0, 1, 2])
    (run,) = runs
    drifted = {name: text for name, text in run.tags.items() if name.startswith("param_drift")}
    assert (run.params["alpha"], drifted) == ("0.5", {"param_drift.alpha": "0.25"})


def test_an_evaluation_in_between_records_the_model_that_its_scores_are_of(runs: Runs) -> None:
    model = TrackedEstimator(GaussianNB()).partial_fit(X[FIRST], y[FIRST], classes=[0, 1, 2])
    then = model.predict_proba(X)
    model.evaluate(X[UNSEEN], y[UNSEEN])
    assert recorded(runs[0]).predict_proba(X).tobytes() == then.tobytes()
    assert {point.model for point in runs[0].history if point.name == "accuracy"} == {"model"}
    assert runs[0].status == "RUNNING"
    model.partial_fit(X[SECOND], y[SECOND])
    model.run_.finish()
    assert recorded(runs[0]).predict_proba(X).tobytes() == model.predict_proba(X).tobytes() != then.tobytes()


def test_a_model_that_nothing_has_changed_is_not_written_again(runs: Runs) -> None:
    model = grown()
    model.evaluate(X[UNSEEN], y[UNSEEN])
    written = runs[0].models["model"]
    model.evaluate(X[UNSEEN], y[UNSEEN])
    model.run_.finish()
    assert runs[0].models["model"] is written


def test_an_evaluation_after_the_end_refers_to_the_model_too(runs: Runs) -> None:
    model = grown()
    model.run_.finish()
    model.evaluate(X[UNSEEN], y[UNSEEN])
    assert {point.model for point in runs[0].history if point.name == "accuracy"} == {"model"}


def test_the_model_is_registered_once_the_parts_have_ended_well(runs: Runs) -> None:
    model = grown(register_as="parts")
    model.evaluate(X[UNSEEN], y[UNSEEN])
    assert runs[0].models["model"].register_as is None
    model.run_.finish()
    assert runs[0].models["model"].register_as == "parts"


def test_the_model_of_a_run_that_fails_is_kept_and_not_registered(runs: Runs) -> None:
    model = grown(register_as="parts")
    before = model.predict_proba(X)
    with pytest.raises(ValueError, match="NaN"):
        model.partial_fit(np.full_like(X, np.nan), y)
    assert runs[0].status == "FAILED"
    assert recorded(runs[0]).predict_proba(X).tobytes() == before.tobytes()
    assert runs[0].models["model"].register_as is None


def test_a_first_part_that_fails_leaves_its_data_and_no_model(runs: Runs) -> None:
    with pytest.raises(ValueError, match="NaN"):
        TrackedEstimator(GaussianNB()).partial_fit(np.full_like(X, np.nan), y, classes=[0, 1, 2])
    assert runs[0].status == "FAILED"
    assert runs[0].models == {}
    assert [dataset.name for dataset in runs[0].datasets] == ["train"]


def test_without_log_model_there_is_none(runs: Runs) -> None:
    model = grown(log_model=False)
    model.evaluate(X[UNSEEN], y[UNSEEN])
    model.run_.finish()
    assert runs[0].models == {}
    assert {point.model for point in runs[0].history} == {None}


def test_the_data_of_the_calls_are_described_and_equal_ones_once(runs: Runs) -> None:
    model = grown()
    model.partial_fit(X[FIRST], y[FIRST])
    assert [(dataset.name, dataset.context) for dataset in runs[0].datasets] == [("train", "training")] * 2
    assert "overt.data_note" not in runs[0].tags


def test_from_the_eleventh_call_on_no_data_are_described_and_the_run_says_so(runs: Runs) -> None:
    model = TrackedEstimator(MiniBatchKMeans(2, n_init=1, random_state=0))
    for row in range(DESCRIBED_CALLS + 2):
        model.partial_fit(X[row * 2 : row * 2 + 10])
        assert ("overt.data_note" in runs[0].tags) == (row >= DESCRIBED_CALLS)
    assert len(runs[0].datasets) == DESCRIBED_CALLS == 10
    assert runs[0].tags["overt.data_note"] == "the data of the first 10 calls of partial_fit are described"


def frame(X: Any) -> Any:
    return pd.DataFrame(X, columns=list("abcdef"))


@pytest.mark.parametrize("convert", [frame, coo_matrix, np.ndarray.tolist])
def test_the_signature_is_that_which_a_fit_would_have_recorded(runs: Runs, convert: Any) -> None:
    model = TrackedEstimator(SGDClassifier(random_state=0)).partial_fit(convert(X), y, classes=[0, 1, 2])
    model.run_.finish()
    TrackedEstimator(SGDClassifier(random_state=0)).fit(convert(X).tocsr() if convert is coo_matrix else convert(X), y)
    parts, whole = (run.models["model"] for run in runs)
    assert parts.signature == whole.signature
    assert parts.example == whole.example


def test_an_example_is_a_copy_of_what_was_given(runs: Runs) -> None:
    batch = X[FIRST].copy()
    model = TrackedEstimator(GaussianNB()).partial_fit(batch, y[FIRST], classes=[0, 1, 2])
    batch[:] = 777.25  # as a loader does that fills one buffer
    model.run_.finish()
    assert b"777.25" not in runs[0].artifacts["model/input_example.json"]


def test_a_run_that_has_ended_keeps_no_estimator_alive(runs: Runs) -> None:
    model = grown()
    run, inner = model.run_, weakref.ref(model.estimator_)
    run.finish()
    del model
    gc.collect()
    assert inner() is None


def test_a_model_that_cannot_be_pickled_is_one_warning_at_the_end(runs: Runs) -> None:
    model = grown()
    model.estimator_.hook = (n for n in "")
    with pytest.warns(OvertWarning, match="model of run .* could not be recorded") as warned:
        model.run_.finish()
    assert len(warned) == 1
    assert runs[0].status == "FINISHED"


def test_a_pickled_copy_goes_on_in_the_same_run(runs: Runs) -> None:
    model = grown()
    twin = pickle.loads(pickle.dumps(model))
    twin.partial_fit(X[UNSEEN], y[UNSEEN])
    assert twin.run_ is model.run_
    assert len(runs) == 1
