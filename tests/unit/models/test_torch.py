"""A torch module as model files: what is written loads elsewhere and predicts the same."""

from __future__ import annotations

import pickle
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from overt.models.torch import first_rows, torch_model

torch = pytest.importorskip("torch")

SAVING = """
import sys, torch, overt
from overt.models.torch import torch_model

class Net(torch.nn.Module):  # of __main__: plain torch.save would write no more of it than its name
    def __init__(self):
        super().__init__()
        self.layers = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Dropout(0.5), torch.nn.Linear(8, 3))
    def forward(self, x):
        return self.layers(x)

torch.manual_seed(0)
model, X = Net(), torch.randn(16, 4)
model.train()
overt.configure(store=sys.argv[1])
with overt.start_run("torch") as run:
    before = torch.random.get_rng_state()
    run.log_model(torch_model(model, X))
    assert torch.equal(before, torch.random.get_rng_state()), "the training's random numbers are its own"
assert model.training and model.layers[1].training
torch.save((X, model.eval()(X).detach()), "data.pt")
print(run.model_uri)
assert "mlflow" not in sys.modules
"""

LOADING = """
import sys, numpy, torch, mlflow
mlflow.set_tracking_uri(sys.argv[1])
uri = sys.argv[2]
X, expected = torch.load("data.pt")
model = mlflow.pytorch.load_model(uri)
assert not model.training and torch.equal(model(X), expected)
assert numpy.array_equal(mlflow.pyfunc.load_model(uri).predict(X.numpy()), expected.numpy())
assert "overt" not in sys.modules, "a saved model needs MLflow and torch, and no overt"
info = mlflow.models.get_model_info(uri)
print(info.signature.inputs.to_dict()[0]["tensor-spec"], sorted(info.flavors))
"""


def python(script: str, *arguments: str) -> str:
    command = [sys.executable, "-c", script, *arguments]
    ended = subprocess.run(command, check=False, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout.strip()


@pytest.mark.timeout(120)
def test_a_module_of_main_loads_in_another_process_and_predicts_the_same(sqlite_uri: str, tmp_path: Path) -> None:
    uri = python(SAVING, sqlite_uri)
    said = python(LOADING, sqlite_uri, uri)
    assert said == "{'dtype': 'float32', 'shape': (-1, 4)} ['python_function', 'pytorch']"


class Two(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(4, 3)

    def forward(self, one: Any, other: Any) -> Any:
        return {"sum": self.layer(one) + self.layer(other)}


class Named(Two):
    def forward(self, batch: Any) -> Any:
        return self.layer(batch["x"])


def inputs_of(files: Any) -> list[dict[str, Any]]:
    import json

    assert files.signature is not None, files.notes
    return json.loads(files.signature["inputs"])


def test_several_inputs_and_named_ones_have_a_signature() -> None:
    X = torch.randn(7, 4)
    assert [column["name"] for column in inputs_of(torch_model(Two(), (X, X)))] == ["input_0", "input_1"]
    assert [column["name"] for column in inputs_of(torch_model(Named(), {"x": X}))] == ["x"]


def test_what_a_module_refuses_costs_the_signature_and_not_the_model() -> None:
    files = torch_model(Two(), torch.randn(7, 4))
    assert files.signature is None
    assert "could not be tried" in files.notes[-1]
    assert "data/model.pth" in files.files
    assert torch_model(Two()).notes[-1] == "no signature: no batch was seen"


def test_requirements_name_what_the_pickle_names() -> None:
    files = torch_model(torch.nn.Linear(2, 1))
    assert [line.partition("==")[0] for line in files.requirements] == ["cloudpickle", "torch"]
    assert not any("+" in line for line in files.requirements)


def test_a_module_that_is_elsewhere_is_written_from_the_cpu() -> None:
    module = torch.nn.Linear(2, 1, device="meta")
    with pytest.raises(NotImplementedError):  # nothing can be copied out of the meta device, so a copy was tried
        torch_model(module)


def test_the_first_rows_are_copies() -> None:
    X = torch.zeros(7, 4)
    head = first_rows({"x": (X, [X])}, 5)
    X += 1
    assert head["x"][0].shape == (5, 4)
    assert head["x"][1][0].sum() == 0
    assert first_rows(torch.tensor(3.0), 5) == 3.0


def test_what_cannot_be_pickled_raises_as_it_is() -> None:
    module = torch.nn.Linear(2, 1)
    module.lock = threading.Lock()
    with pytest.raises((TypeError, pickle.PicklingError)):
        torch_model(module)
