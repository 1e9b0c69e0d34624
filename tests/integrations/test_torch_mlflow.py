"""A decorated loop that really goes to MLflow, and models loaded where overt cannot be imported."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
import textwrap
from contextlib import closing
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("wrapt")
pytest.importorskip("mlflow")

TRAIN = """
    import json, sys
    import torch
    from torch.utils.data import DataLoader, TensorDataset
    import overt
    from overt.integrations.torch.decorator import track_training
    from overt.models.torch import torch_model


    class Net(torch.nn.Module):  # of __main__: nobody else has this class
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Linear(4, 3)

        def forward(self, x):
            return self.layer(x)


    @track_training(experiment="torch", run_name="loop", class_names=["a", "b", "c"])
    def train(model, train_loader, val_loader, criterion, optimizer, epochs):
        for _ in range(epochs):
            for x, y in train_loader:
                optimizer.zero_grad()
                criterion(model(x), y).backward()
                optimizer.step()
            with torch.no_grad():
                for x, y in val_loader:
                    criterion(model(x), y)


    torch.manual_seed(0)
    X = torch.randn(60, 4)
    y = (X[:, 0] > 0).long() + (X[:, 1] > 0).long()
    model = Net()
    train(
        model,
        DataLoader(TensorDataset(X, y), 8, shuffle=True),
        DataLoader(TensorDataset(X, y), 16),
        torch.nn.CrossEntropyLoss(),
        torch.optim.Adam(model.parameters(), 0.01),
        epochs=3,
    )
    run = train.run_
    said = {"id": run.id, "model": run.model_uri, "metrics": run.metrics, "out": model(X[:5]).tolist()}

    model = torch.nn.Sequential(Net(), torch.nn.Dropout(0.5)).train()
    with overt.start_run("by hand") as run:
        before = torch.random.get_rng_state()
        run.log_model(torch_model(model, X))
        assert torch.equal(before, torch.random.get_rng_state()), "the training's random numbers are its own"
    assert model.training and model[1].training
    by_hand = {"model": run.model_uri, "out": model.eval()(X[:5]).tolist()}
    assert not {"mlflow", "matplotlib"} & set(sys.modules), "the training process imported what only the courier needs"
    with open("trained.json", "w") as file:
        json.dump({**said, "x": X[:5].tolist(), "by_hand": by_hand}, file)
"""

LOAD = """
    import json, sys

    sys.modules["overt"] = None
    import mlflow, numpy, torch

    mlflow.set_tracking_uri(sys.argv[1])
    with open("trained.json") as file:
        said = json.load(file)
    x = torch.tensor(said["x"])


    def loaded(uri):
        module, info = mlflow.pytorch.load_model(uri), mlflow.models.get_model_info(uri)
        return {
            "is_training": module.training,
            "out": module(x).tolist(),
            "pyfunc": mlflow.pyfunc.load_model(uri).predict(x.numpy()).tolist(),
            "signature": str(info.signature),
            "flavors": sorted(info.flavors),
        }


    with open("loaded.json", "w") as file:
        json.dump([loaded(said["model"]), loaded(said["by_hand"]["model"])], file)
"""


def script(code: str, folder: Path, *arguments: str) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error::UserWarning:__main__", "-c", textwrap.dedent(code), *arguments],
        cwd=folder,
        env={**os.environ, "OVERT_STORE": f"sqlite:///{folder / 'mlflow.db'}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.timeout(180)
def test_a_loop_arrives_and_models_of_a_class_of_main_load_without_overt(sqlite_uri: str, tmp_path: Path) -> None:
    script(TRAIN, tmp_path)
    script(LOAD, tmp_path, sqlite_uri)
    trained, models = (json.loads((tmp_path / name).read_text()) for name in ("trained.json", "loaded.json"))
    for expected, loaded in zip((trained, trained["by_hand"]), models, strict=True):
        assert loaded["out"] == expected["out"]
        assert loaded["pyfunc"] == expected["out"]
        assert "Tensor('float32', (-1, 4))" in loaded["signature"]
        assert loaded["flavors"] == ["python_function", "pytorch"]
        assert not loaded["is_training"]
    with closing(sqlite3.connect(tmp_path / "mlflow.db")) as connection:
        run = "(SELECT run_uuid FROM runs WHERE name = 'loop')"
        status = connection.execute("SELECT status FROM runs WHERE name = 'loop'").fetchall()
        values = dict(connection.execute(f"SELECT key, value FROM latest_metrics WHERE run_uuid = {run}"))
        points = connection.execute(f"SELECT step FROM metrics WHERE run_uuid = {run} AND key = 'train_loss_step'")
        assert sorted(step for (step,) in points) == list(range(24))
    assert status == [("FINISHED",)]
    assert values == trained["metrics"]
    artifacts = {path.name for path in (tmp_path / "mlruns").rglob("*")}
    assert {"val_confusion_matrix.png", "val_classification_report.json", "model_summary.txt"} <= artifacts


IN_ONES_OWN_RUN = """
    import mlflow
    import torch
    from torch.utils.data import DataLoader, TensorDataset
    from overt.integrations.torch.decorator import track_training


    @track_training
    def train(model, loader, criterion, optimizer):
        for x, y in loader:
            criterion(model(x), y).backward()
            optimizer.step()


    @track_training
    def test(model, loader, criterion):
        with torch.no_grad():
            for x, y in loader:
                criterion(model(x), y)


    mlflow.set_experiment("mine")
    loaders = [DataLoader(TensorDataset(torch.randn(9, 4), torch.zeros(9).long()), 3) for _ in range(2)]
    with mlflow.start_run(run_name="mine"):
        model = torch.nn.Linear(4, 2)
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        for _ in range(3):
            train(model, loaders[0], torch.nn.CrossEntropyLoss(), optimizer)
            test(model, loaders[1], torch.nn.CrossEntropyLoss())
"""


@pytest.mark.timeout(180)
def test_calls_of_one_epoch_in_ones_own_mlflow_run_are_all_of_that_run(
    sqlite_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", sqlite_uri)
    script(IN_ONES_OWN_RUN, tmp_path)
    with closing(sqlite3.connect(tmp_path / "mlflow.db")) as connection:
        assert connection.execute("SELECT name, status FROM runs").fetchall() == [("mine", "FINISHED")]
        points = connection.execute("SELECT key, step FROM metrics WHERE key IN ('n_steps', 'val_accuracy')").fetchall()
    assert sorted(points) == [(name, step) for name in ("n_steps", "val_accuracy") for step in range(3)]
