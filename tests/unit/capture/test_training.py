"""Optimizers, schedulers and models as plain params."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("torch")

import torch

from overt.capture import training
from overt.capture.params import flatten
from overt.capture.training import (
    count_samples,
    learning_rates,
    optimizer_params,
    scheduler_params,
    summarize_model,
)


def net() -> Any:
    return torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.BatchNorm1d(3), torch.nn.Linear(3, 2))


def test_one_optimizer_gives_its_settings_under_their_own_names() -> None:
    params = optimizer_params([torch.optim.AdamW(net().parameters(), lr=0.01, weight_decay=0.1)])
    expected = {"optimizer": "AdamW", "lr": 0.01, "weight_decay": 0.1, "betas": (0.9, 0.999)}
    assert expected.items() <= params.items()
    assert not {"params", "initial_lr", "n_param_groups"} & params.keys()


def test_groups_are_told_apart_only_where_they_differ() -> None:
    first, _, last = net()
    groups = [{"params": first.parameters(), "lr": 0.1}, {"params": last.parameters(), "momentum": 0.5}]
    params = optimizer_params([torch.optim.SGD(groups, lr=0.2, momentum=0.9)])
    assert (params["lr.group_0"], params["lr.group_1"]) == (0.1, 0.2)
    assert (params["momentum.group_0"], params["momentum.group_1"]) == (0.9, 0.5)
    assert (params["weight_decay"], params["n_param_groups"]) == (0, 2)
    assert "lr" not in params


@pytest.mark.parametrize(
    ("names", "expected"),
    [(["head", "body"], {"lr.head", "lr.body"}), (["same", "same"], {"lr.group_0", "lr.group_1"})],
)
def test_groups_have_the_names_that_they_were_given(names: list[str], expected: set[str]) -> None:
    first, _, last = net()
    groups = [
        {"params": layer.parameters(), "lr": lr, "name": name}
        for layer, lr, name in zip((first, last), (0.1, 0.2), names, strict=True)
    ]
    optimizer = torch.optim.SGD(groups)
    assert expected <= optimizer_params([optimizer]).keys()
    assert learning_rates([optimizer]).keys() == expected


def test_several_optimizers_are_numbered() -> None:
    optimizers = [torch.optim.SGD(net().parameters(), lr=0.1), torch.optim.Adam(net().parameters(), lr=0.2)]
    params = optimizer_params(optimizers)
    assert (params["optimizer_0"], params["optimizer_1"]) == ("SGD", "Adam")
    assert (params["optimizer_0.lr"], params["optimizer_1.lr"]) == (0.1, 0.2)
    assert learning_rates(optimizers) == {"optimizer_0.lr": 0.1, "optimizer_1.lr": 0.2}
    assert optimizer_params([]) == learning_rates([]) == {}


def test_the_rate_that_was_set_is_the_param_and_the_rate_of_now_is_the_metric() -> None:
    optimizer = torch.optim.SGD(net().parameters(), lr=0.4)
    torch.optim.lr_scheduler.LinearLR(optimizer, start_factor=0.25)
    assert optimizer_params([optimizer])["lr"] == 0.4
    assert learning_rates([optimizer]) == {"lr": 0.1}


def test_a_rate_in_a_tensor_is_passed_on_unread() -> None:
    rate = torch.tensor(0.1, device="meta")  # has no value: reading it would raise
    optimizer = torch.optim.Adam(net().parameters(), lr=0.1)
    optimizer.param_groups[0]["lr"] = rate
    assert learning_rates([optimizer])["lr"] is rate


SCHEDULERS: list[tuple[Any, dict[str, str]]] = [
    (lambda o: torch.optim.lr_scheduler.StepLR(o, 3, 0.5), {"step_size": "3", "gamma": "0.5"}),
    (lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, 7), {"T_max": "7", "eta_min": "0.0"}),
    (lambda o: torch.optim.lr_scheduler.MultiStepLR(o, [6, 3]), {"milestones": "[3, 6]", "gamma": "0.1"}),
    (lambda o: torch.optim.lr_scheduler.OneCycleLR(o, 0.1, total_steps=9), {"total_steps": "9"}),
    (lambda o: torch.optim.lr_scheduler.ReduceLROnPlateau(o, patience=4), {"patience": "4", "mode": "min"}),
    (
        lambda o: torch.optim.lr_scheduler.SequentialLR(
            o,
            [torch.optim.lr_scheduler.ConstantLR(o, 0.5, 2), torch.optim.lr_scheduler.ExponentialLR(o, 0.9)],
            milestones=[2],
        ),
        {"schedulers": "ConstantLR(factor=0.5, total_iters=2), ExponentialLR(gamma=0.9)", "milestones": "[2]"},
    ),
]


@pytest.mark.parametrize(("build", "expected"), SCHEDULERS)
def test_a_schedulers_settings_are_its_constructors_arguments(build: Any, expected: dict[str, str]) -> None:
    scheduler = build(torch.optim.SGD(net().parameters(), lr=0.1))
    params = flatten(scheduler_params([scheduler]))
    assert params["scheduler"] == type(scheduler).__name__
    assert {f"scheduler.{name}": text for name, text in expected.items()}.items() <= params.items()
    assert not {"scheduler.optimizer", "scheduler.last_epoch"} & params.keys()
    assert flatten(scheduler_params([scheduler, scheduler])).keys() >= {"scheduler_0", "scheduler_1"}


def test_a_model_is_counted_with_frozen_shared_and_buffered_tensors() -> None:
    model = net()
    model[0].weight.requires_grad_(False)
    model.again = model[2]  # shared: counted once
    summary = summarize_model(model)
    assert summary.total == 12 + 3 + 3 + 3 + 6 + 2
    assert summary.trainable == summary.total - 12
    buffers = 4 * (3 + 3) + 8  # running mean and variance, and the count of batches in int64
    assert summary.size_bytes == 4 * summary.total + buffers
    assert summary.to_params() == {"n_params": 29, "n_trainable_params": 17, "model_size_bytes": summary.size_bytes}
    lines = summary.table.splitlines()
    assert lines[0].split() == ["layer", "class", "params", "trainable"]
    assert lines[1].split() == ["(model)", "Sequential", "29", "partly"]
    assert "29 parameters, 17 of them trainable" in lines[-1]


@pytest.mark.filterwarnings("ignore:Lazy modules are a new feature")  # torch's own, at construction
def test_a_layer_without_a_shape_counts_as_nothing_and_is_said() -> None:
    summary = summarize_model(torch.nn.Sequential(torch.nn.LazyLinear(3)))
    assert summary.total == summary.size_bytes == 0
    assert "not known yet" in summary.table


@pytest.mark.parametrize(
    ("batch", "expected"),
    [
        (torch.zeros(5, 2), 5),
        ((torch.zeros(3, 2), torch.zeros(3)), 3),
        ({"text": ["a", "b"], "ids": torch.zeros(2, 7)}, 2),
        ([[], {"x": torch.zeros(4)}], 4),
        (torch.tensor(1.0), None),
        (["a", "b"], None),
        (None, None),
        (SimpleNamespace(shape="round"), None),
    ],
)
def test_samples_of_a_batch_are_counted(batch: Any, expected: int | None) -> None:
    assert count_samples(batch) == expected


def test_the_first_samples_are_a_copy_in_which_a_tuple_stays_several_arguments() -> None:
    X = torch.zeros(7, 2)
    several, listed, named = (training.first_samples(batch, 3) for batch in ((X, X), [X], {"x": X}))
    X += 1
    assert (type(several), type(listed), type(named)) == (tuple, list, dict)
    assert [part.shape for part in several] == [(3, 2), (3, 2)]
    assert listed[0].sum() == named["x"].sum() == 0
