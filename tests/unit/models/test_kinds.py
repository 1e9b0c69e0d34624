"""``run.log_model`` takes a model as it stands, and says what it takes where it is given something else."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
from sklearn.preprocessing import FunctionTransformer
from sklearn.tree import DecisionTreeClassifier

import overt
from overt.errors import RecordError

X, Y = np.array([[0.0], [1.0]]), np.array([0, 1])


@pytest.fixture
def store(tmp_path: Path) -> str:
    uri = f"jsonl:{tmp_path / 'experiments'}"
    overt.configure(store=uri)
    return uri


def test_a_fitted_estimator_is_a_model_as_it_stands(store: str) -> None:
    with overt.start_run("by-hand") as run:
        run.log_model(DecisionTreeClassifier().fit(X, Y))
        run.log_metric("f1_score", 1.0, model="model")
    assert overt.load_model("by-hand", allow_pickle=True, store=store).predict(X).tolist() == [0, 1]


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_a_torch_module_is_a_model_as_it_stands(store: str) -> None:
    torch = pytest.importorskip("torch")
    module = torch.nn.Linear(2, 1)
    with overt.start_run("net") as run:
        run.log_model(module, name="net")
        with pytest.raises(RecordError, match=r"say torch\.jit\.save\(model, path\)"):
            run.log_model(torch.jit.script(module))
    loaded = overt.load_model(f"runs:/{run.key}/net", allow_pickle=True, store=store)
    assert torch.equal(loaded(torch.ones(1, 2)), module(torch.ones(1, 2)))


@pytest.mark.parametrize("given", [DecisionTreeClassifier, {"a": 1}, "model.pkl", None, lambda X: X])
def test_what_is_no_model_is_refused_with_the_way_out(store: str, given: object) -> None:
    with overt.start_run() as run, pytest.raises(RecordError, match=r"expected a fitted .*with log_artifact"):
        run.log_model(given)


def test_a_model_that_cannot_be_pickled_is_refused_and_leaves_nothing(store: str) -> None:
    with overt.start_run("locked") as run:
        with pytest.raises(RecordError, match=r"the FunctionTransformer cannot be saved: .*lock"):
            run.log_model(FunctionTransformer(kw_args={"lock": threading.Lock()}))
        run.log_metric("loss", 1.0)
    assert overt.best_run("loss", store=store).name == "locked"
    with pytest.raises(overt.OvertError, match="there is no model"):
        overt.load_model("locked", store=store)


def test_where_nothing_is_recorded_no_model_is_pickled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OVERT_DISABLED", "1")
    with overt.start_run() as run:
        run.log_model(FunctionTransformer(kw_args={"lock": threading.Lock()}))
