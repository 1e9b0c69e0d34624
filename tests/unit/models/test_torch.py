"""A torch module as model files: what is written loads elsewhere and predicts the same."""

from __future__ import annotations

import json
import pickle
import random
import threading
from typing import Any

import numpy as np
import pytest

from overt.models.torch import first_rows, torch_model

torch = pytest.importorskip("torch")


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
    assert files.signature is not None, files.notes
    return json.loads(files.signature["inputs"])


def outputs_of(files: Any) -> list[dict[str, Any]]:
    assert files.signature is not None, files.notes
    return json.loads(files.signature["outputs"])


def test_several_inputs_and_named_ones_have_a_signature() -> None:
    X = torch.randn(7, 4)
    assert [column["name"] for column in inputs_of(torch_model(Two(), (X, X)))] == ["input_0", "input_1"]
    assert [column["name"] for column in inputs_of(torch_model(Named(), {"x": X}))] == ["x"]


class ByName(Two):
    def forward(self, **batch: Any) -> Any:
        return self.layer(batch["x"])


class Unpacking(Two):
    def forward(self, batch: Any) -> Any:
        x, _ = batch
        return self.layer(x), x


def test_a_mapping_goes_to_named_arguments_where_a_module_takes_them() -> None:
    X = torch.randn(7, 4)
    assert [column["name"] for column in inputs_of(torch_model(ByName(), {"x": X, "y": X}))] == ["x", "y"]
    assert [column["name"] for column in inputs_of(torch_model(Two(), {"other": X, "one": X}))] == ["other", "one"]


def test_the_first_of_several_inputs_that_a_module_takes_gives_the_signature() -> None:
    X = torch.randn(7, 4)
    files = torch_model(Unpacking(), X, [X, X])
    assert [column["name"] for column in inputs_of(files)] == ["input_0", "input_1"]
    assert [column["name"] for column in outputs_of(files)] == ["output_0", "output_1"]
    assert files.notes[-1] == "no input example: MLflow has no form for such data"
    refused = torch_model(torch.nn.Linear(3, 1), X, [X])
    assert refused.signature is None
    assert "shapes cannot be multiplied" in refused.notes[-1], "what is said is of the likeliest"


class Noisy(torch.nn.Module):
    """Changes all that a forward may change besides what it returns."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(4, 3)
        self.register_buffer("counted", torch.zeros(()))
        self.register_buffer("rebound", torch.zeros(()), persistent=False)
        self.register_buffer("absent", None)

    def forward(self, x: Any) -> Any:
        self.counted += 1
        self.rebound = self.rebound + 1
        self.absent = torch.ones(())
        return self.layer(x) * random.random() * np.random.rand() * torch.rand(())


def test_a_module_and_all_random_numbers_are_left_as_they_are() -> None:
    module = torch.nn.Sequential(Noisy())
    module[0].layer.eval()
    counted, rebound = module[0].counted, module[0].rebound
    before = random.getstate(), str(np.random.get_state()), torch.get_rng_state().tolist()
    files = torch_model(module, torch.randn(7, 4, generator=torch.Generator()))
    assert files.signature is not None, files.notes
    assert (random.getstate(), str(np.random.get_state()), torch.get_rng_state().tolist()) == before
    assert module[0].counted is counted
    assert module[0].rebound is rebound
    assert module[0].absent is None
    assert counted == rebound == 0
    assert [part.training for part in module.modules()] == [True, True, False]


def test_a_module_that_raises_is_left_as_it_is() -> None:
    module = Noisy()
    assert torch_model(module, torch.randn(7, 5)).signature is None
    assert (module.counted, module.rebound, module.absent, module.training) == (0, 0, None, True)


def test_buffers_that_cannot_be_written_to_and_graphs_that_need_them_are_no_obstacle() -> None:
    module = torch.nn.BatchNorm1d(4)
    module.register_buffer("sparse", torch.eye(4).to_sparse())
    module.register_buffer("scale", torch.ones(4))
    with torch.inference_mode():
        module.register_buffer("read_only", torch.ones(4))
    loss = (module.weight * module.scale).sum()
    assert torch_model(module, torch.randn(7, 4)).signature is not None
    loss.backward()
    assert module.weight.grad.tolist() == [1, 1, 1, 1]


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
