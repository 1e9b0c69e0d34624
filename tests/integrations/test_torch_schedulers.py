"""Schedulers of the learning rate: nothing stands around them, and their settings and their effect are recorded."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

import overt
from overt.stores.memory import MemoryRun

torch = pytest.importorskip("torch")
pytest.importorskip("wrapt")

from torch.optim import lr_scheduler  # noqa: E402
from torch.utils.data import DataLoader, TensorDataset  # noqa: E402

from overt.integrations.torch.decorator import track_training  # noqa: E402

EPOCHS = 4


@pytest.fixture
def captured() -> Iterator[list[MemoryRun]]:
    with overt.testing.captured_runs() as runs:
        yield runs


def series(run: MemoryRun, name: str) -> list[tuple[int, float]]:
    return [(point.step, point.value) for point in run.history if point.name == name]


def halved(epoch: int) -> float:
    return 0.5**epoch


SCHEDULERS: dict[str, tuple[Callable[[Any], Any], dict[str, str]]] = {
    "StepLR": (lambda o: lr_scheduler.StepLR(o, 2, gamma=0.5), {"scheduler.step_size": "2", "scheduler.gamma": "0.5"}),
    "CosineAnnealingLR": (lambda o: lr_scheduler.CosineAnnealingLR(o, 4), {"scheduler.T_max": "4"}),
    "OneCycleLR": (
        lambda o: lr_scheduler.OneCycleLR(o, 0.5, epochs=EPOCHS, steps_per_epoch=4),
        {"scheduler.total_steps": "16", "max_lr": "0.5", "lr": "0.02"},  # it sets what it begins with itself
    ),
    "ReduceLROnPlateau": (
        lambda o: lr_scheduler.ReduceLROnPlateau(o, factor=0.1, patience=0, threshold=10.0),
        {"scheduler.factor": "0.1", "scheduler.patience": "0", "scheduler.mode": "min"},
    ),
    "LambdaLR": (
        lambda o: lr_scheduler.LambdaLR(o, halved),
        {"scheduler.lr_lambda": f"[{__name__}.halved]"},
    ),
    "SequentialLR": (
        lambda o: lr_scheduler.SequentialLR(
            o, [lr_scheduler.ConstantLR(o, 0.1, 2), lr_scheduler.ExponentialLR(o, 0.5)], [2]
        ),
        {
            "scheduler.milestones": "[2]",
            "scheduler.schedulers": "ConstantLR(factor=0.1, total_iters=2), ExponentialLR(gamma=0.5)",
        },
    ),
}


def make() -> tuple[Any, Any, Any, Any]:
    torch.manual_seed(0)
    X = torch.randn(20, 4)
    model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Dropout(0.2), torch.nn.Linear(4, 2))
    loader = DataLoader(TensorDataset(X, (X[:, 0] > 0).long()), 5, shuffle=True)
    return model, loader, torch.nn.CrossEntropyLoss(), torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)


def loop(model: Any, loader: Any, criterion: Any, optimizer: Any, scheduler: Any) -> list[float]:
    """Train; the learning rate that the last step of each epoch was taken with."""
    rates = []
    for _ in range(EPOCHS):
        for x, y in loader:
            optimizer.zero_grad()
            loss = criterion(model(x), y)
            loss.backward()
            optimizer.step()
            rate = optimizer.param_groups[0]["lr"]
            if isinstance(scheduler, lr_scheduler.OneCycleLR):
                scheduler.step()
        rates.append(rate)
        if isinstance(scheduler, lr_scheduler.ReduceLROnPlateau):
            scheduler.step(loss.item())
        elif not isinstance(scheduler, lr_scheduler.OneCycleLR):
            scheduler.step()
    return rates


def same_weights(one: Any, other: Any) -> bool:
    return all(torch.equal(mine, theirs) for mine, theirs in zip(one.parameters(), other.parameters(), strict=True))


@pytest.mark.parametrize("kind", SCHEDULERS)
def test_one_that_is_given_works_as_without_and_its_settings_are_params(captured: list[MemoryRun], kind: str) -> None:
    build, expected = SCHEDULERS[kind]
    bare = make()
    rates = loop(*bare, build(bare[3]))
    tracked = make()
    assert track_training(loop)(*tracked, build(tracked[3])) == rates
    assert same_weights(bare[0], tracked[0])
    assert len(set(rates)) > 1
    (run,) = captured
    assert series(run, "lr") == list(enumerate(rates))
    assert run.params["scheduler"] == kind
    assert expected.items() <= run.params.items()
    assert not [value for value in run.params.values() if "0x" in value]


@pytest.mark.parametrize("kind", SCHEDULERS)
def test_one_that_the_function_makes_works_as_without_and_its_rates_are_recorded(
    captured: list[MemoryRun], kind: str
) -> None:
    build, _ = SCHEDULERS[kind]

    def train(model, loader, criterion, optimizer):
        return loop(model, loader, criterion, optimizer, build(optimizer))

    bare = make()
    rates = train(*bare)
    tracked = make()
    assert track_training(train)(*tracked) == rates
    assert same_weights(bare[0], tracked[0])
    assert series(captured[0], "lr") == list(enumerate(rates))
    assert captured[0].params["lr"] == "0.1"  # as the function was given it
    assert captured[0].params.get("max_lr") == ("0.5" if kind == "OneCycleLR" else None)


def test_one_with_an_optimizer_that_the_function_makes_too(captured: list[MemoryRun]) -> None:
    def train(model, loader, criterion):
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        return loop(model, loader, criterion, optimizer, lr_scheduler.StepLR(optimizer, 1, gamma=0.5))

    bare = make()
    rates = train(*bare[:3])
    tracked = make()
    assert track_training(train)(*tracked[:3]) == rates == [0.1, 0.05, 0.025, 0.0125]
    assert same_weights(bare[0], tracked[0])
    assert series(captured[0], "lr") == list(enumerate(rates))
    assert captured[0].params["lr"] == "0.1"


def test_a_function_gets_the_scheduler_itself(captured: list[MemoryRun]) -> None:
    model, loader, criterion, optimizer = make()
    scheduler = lr_scheduler.StepLR(optimizer, 1)
    before = set(vars(scheduler))
    seen = []

    @track_training
    def train(model, loader, criterion, optimizer, scheduler):
        seen.append(scheduler)
        loop(model, loader, criterion, optimizer, scheduler)

    train(model, loader, criterion, optimizer, scheduler)
    assert seen[0] is scheduler
    assert set(vars(scheduler)) == before


def test_of_several_each_has_the_name_of_its_argument(captured: list[MemoryRun]) -> None:
    def train(model, loader, criterion, optimizer, warm_up, decay):
        loop(model, loader, criterion, optimizer, decay)

    model, loader, criterion, optimizer = make()
    warm_up = lr_scheduler.LinearLR(optimizer, 0.1, total_iters=3)
    track_training(train)(model, loader, criterion, optimizer, warm_up, lr_scheduler.ExponentialLR(optimizer, 0.5))
    params = captured[0].params
    assert (params["warm_up"], params["warm_up.start_factor"]) == ("LinearLR", "0.1")
    assert (params["decay"], params["decay.gamma"]) == ("ExponentialLR", "0.5")
    assert "scheduler" not in params


@pytest.mark.parametrize("is_made_inside", [False, True])
def test_a_method_has_those_of_its_object(captured: list[MemoryRun], is_made_inside: bool) -> None:
    parts = make()

    class Trainer:
        def __init__(self) -> None:
            self.model, _, self.criterion, self.optimizer = parts
            if not is_made_inside:
                self._scheduler = lr_scheduler.StepLR(self.optimizer, 2)

        @track_training
        def fit(self, loader):
            if is_made_inside:
                self._scheduler = lr_scheduler.StepLR(self.optimizer, 2)
            return loop(self.model, loader, self.criterion, self.optimizer, self._scheduler)

    rates = Trainer().fit(parts[1])
    assert series(captured[0], "lr") == list(enumerate(rates))
    assert (captured[0].params["scheduler"], captured[0].params["scheduler.step_size"]) == ("StepLR", "2")


def test_settings_of_the_users_own_under_those_names_stay(captured: list[MemoryRun]) -> None:
    @track_training
    def train(scheduler, max_lr, model, loader, criterion, optimizer):
        loop(model, loader, criterion, optimizer, lr_scheduler.OneCycleLR(optimizer, max_lr, total_steps=17))

    train("one cycle", 0.25, *make())
    assert (captured[0].params["scheduler"], captured[0].params["max_lr"]) == ("one cycle", "0.25")
    assert not [name for name in captured[0].tags if name.startswith("param_drift")]
