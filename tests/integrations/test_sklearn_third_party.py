"""XGBoost, LightGBM and skorch through their scikit-learn API: fitted as they are alone, recorded whole, read back."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.model_selection import GridSearchCV
from tests.integrations.sklearn_parts import Subject, complaints

from overt import TrackedEstimator
from overt.stores.memory import MemoryRun
from overt.testing import captured_runs

RANDOM = np.random.RandomState(0)
X = RANDOM.uniform(size=(60, 4)).astype(np.float32)
TARGET = (X @ np.array([1.0, 2.0, 0.5, 0.0], dtype=np.float32)).astype(np.float32)
CLASSES = np.digitize(TARGET, np.quantile(TARGET, [1 / 3, 2 / 3]))
TWO_CLASSES = (np.median(TARGET) < TARGET).astype(int)
RANKS = {"group": [30, 30]}


@pytest.mark.parametrize(
    ("kind", "y", "fit_params"),
    [
        ("XGBClassifier", TWO_CLASSES, {}),
        ("XGBClassifier", CLASSES, {"eval_set": [(X, CLASSES)], "verbose": False}),
        ("XGBRFClassifier", CLASSES, {}),
        ("XGBRegressor", TARGET, {"eval_set": [(X, TARGET)], "verbose": False}),
        ("XGBRFRegressor", TARGET, {}),
        ("XGBRanker", CLASSES, RANKS),
    ],
)
def test_xgboost(kind: str, y: Any, fit_params: dict[str, Any]) -> None:
    xgboost = pytest.importorskip("xgboost", reason="test-oldest goes without it")
    estimator = getattr(xgboost, kind)(n_estimators=3, max_depth=2, n_jobs=1, random_state=0)
    assert complaints(Subject(estimator, X, y, fit_params)) == []


@pytest.mark.parametrize(
    ("kind", "y", "fit_params"),
    [
        ("LGBMClassifier", TWO_CLASSES, {}),
        ("LGBMClassifier", CLASSES, {"eval_set": [(X, CLASSES)]}),
        ("LGBMRegressor", TARGET, {"eval_set": [(X, TARGET)]}),
        ("LGBMRanker", CLASSES, RANKS),
    ],
)
def test_lightgbm(kind: str, y: Any, fit_params: dict[str, Any]) -> None:
    lightgbm = pytest.importorskip("lightgbm", reason="test-oldest goes without it")
    estimator = getattr(lightgbm, kind)(n_estimators=3, min_child_samples=5, n_jobs=1, random_state=0, verbose=-1)
    assert complaints(Subject(estimator, X, y, fit_params)) == []


@pytest.mark.parametrize(
    ("kind", "y", "outputs"),
    [("NeuralNetClassifier", CLASSES, 3), ("NeuralNetRegressor", TARGET.reshape(-1, 1), 1)],
)
def test_skorch(kind: str, y: Any, outputs: int) -> None:
    skorch = pytest.importorskip("skorch", reason="test-oldest goes without it")
    torch = pytest.importorskip("torch", reason="test-oldest goes without it")
    more = {"criterion": torch.nn.CrossEntropyLoss} if kind == "NeuralNetClassifier" else {}
    estimator = getattr(skorch, kind)(
        torch.nn.Linear, module__in_features=4, module__out_features=outputs, max_epochs=2, verbose=0, **more
    )
    assert complaints(Subject(estimator, X, y, seed=torch.manual_seed)) == []


def series(run: MemoryRun, name: str) -> list[float]:
    return [point.value for point in run.history if point.name == name]


def test_the_curves_of_xgboosts_evaluation_sets_are_series() -> None:
    xgboost = pytest.importorskip("xgboost", reason="test-oldest goes without it")
    booster = xgboost.XGBClassifier(n_estimators=4, max_depth=2, n_jobs=1)
    X_val, y_val = X[::2].copy(), TWO_CLASSES[::2]
    with captured_runs() as runs:
        model = TrackedEstimator(booster, check_overlap=False)
        model.fit(X, TWO_CLASSES, eval_set=[(X_val, y_val), (X, TWO_CLASSES)], verbose=False)
    found = model.estimator_.evals_result()
    assert series(runs[0], "val_logloss") == found["validation_0"]["logloss"]
    assert series(runs[0], "train_logloss") == found["validation_1"]["logloss"]


def test_xgboost_inside_a_search_gets_its_evaluation_sets() -> None:
    xgboost = pytest.importorskip("xgboost", reason="test-oldest goes without it")
    booster = xgboost.XGBClassifier(n_estimators=4, n_jobs=1)
    with captured_runs() as runs:
        model = TrackedEstimator(GridSearchCV(booster, {"max_depth": [1, 2]}, cv=2), check_overlap=False)
        model.fit(X, TWO_CLASSES, eval_set=[(X[::2].copy(), TWO_CLASSES[::2])], verbose=False)
    found = model.best_estimator_.evals_result()
    assert series(runs[0], "val_logloss") == found["validation_0"]["logloss"]


def test_the_curves_of_lightgbms_evaluation_sets_are_series() -> None:
    lightgbm = pytest.importorskip("lightgbm", reason="test-oldest goes without it")
    booster = lightgbm.LGBMClassifier(n_estimators=4, min_child_samples=2, n_jobs=1, verbose=-1)
    X_val, y_val = X[::2].copy(), TWO_CLASSES[::2]
    with captured_runs() as runs:
        model = TrackedEstimator(booster).fit(X, TWO_CLASSES, eval_X=(X, X_val), eval_y=(TWO_CLASSES, y_val))
    found = model.estimator_.evals_result_
    assert series(runs[0], "train_binary_logloss") == list(found["valid_0"]["binary_logloss"])
    assert series(runs[0], "val_binary_logloss") == list(found["valid_1"]["binary_logloss"])


@pytest.mark.filterwarnings("ignore:The argument .eval_set. is deprecated")
def test_a_copy_of_the_training_data_in_a_lone_pair_is_named_so() -> None:
    lightgbm = pytest.importorskip("lightgbm", reason="test-oldest goes without it")
    pandas = pytest.importorskip("pandas")
    booster = lightgbm.LGBMClassifier(n_estimators=2, min_child_samples=2, n_jobs=1, verbose=-1)
    table = pandas.DataFrame(X)
    with captured_runs() as runs:
        TrackedEstimator(booster).fit(table, TWO_CLASSES, eval_set=(table.copy(), TWO_CLASSES))
    assert len(series(runs[0], "train_binary_logloss")) == 2


def test_the_epochs_of_a_skorch_network_are_series() -> None:
    skorch = pytest.importorskip("skorch", reason="test-oldest goes without it")
    import torch

    network = skorch.NeuralNetClassifier(
        torch.nn.Sequential(torch.nn.Linear(4, 2), torch.nn.Softmax(dim=-1)), max_epochs=3, verbose=0
    )
    with captured_runs() as runs:
        model = TrackedEstimator(network, log_model=False).fit(X, TWO_CLASSES.astype(np.int64))
    assert series(runs[0], "train_loss") == model.estimator_.history[:, "train_loss"]
    assert series(runs[0], "val_loss") == model.estimator_.history[:, "valid_loss"]
    assert len(series(runs[0], "epoch_seconds")) == 3
