"""Loops written for Lightning's Fabric: they behave as without overt, and what is recorded is what they compute."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

import overt
from overt.stores.memory import MemoryRun

torch = pytest.importorskip("torch")
pytest.importorskip("wrapt")

from torch.utils.data import DataLoader, TensorDataset  # noqa: E402

from overt.integrations.torch.decorator import track_training  # noqa: E402


@pytest.fixture
def captured() -> Iterator[list[MemoryRun]]:
    with overt.testing.captured_runs() as runs:
        yield runs


@pytest.fixture(params=["lightning.fabric", "lightning_fabric"])
def fabric(request: pytest.FixtureRequest) -> Any:
    return pytest.importorskip(request.param).Fabric(accelerator="cpu", devices=1)


def series(run: MemoryRun, name: str) -> list[tuple[int, float]]:
    return [(point.step, point.value) for point in run.history if point.name == name]


def parts(criterion: Any = None) -> tuple[Any, ...]:
    torch.manual_seed(0)
    X = torch.randn(22, 4)
    data = TensorDataset(X, (X[:, 0] > 0).long())
    model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Dropout(0.5), torch.nn.Linear(4, 2))
    return (
        model,
        DataLoader(data, 5, shuffle=True),
        DataLoader(data, 6),
        criterion or torch.nn.CrossEntropyLoss(),
        torch.optim.Adam(model.parameters(), 0.1),
    )


def loop(fabric, model, train_loader, val_loader, criterion, optimizer, epochs=3):
    """Train with gradients of two batches in each step; the log that a loop would write by hand."""
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)
    log = []
    for _ in range(epochs):
        model.train()
        total = count = 0
        for index, (x, y) in enumerate(train_loader):
            is_whole = index % 2 == 1
            with fabric.no_backward_sync(model, enabled=not is_whole):
                loss = criterion(model(x), y)
                fabric.backward(loss)
            if is_whole:
                fabric.clip_gradients(model, optimizer, max_norm=1.0)
                optimizer.step()
                optimizer.zero_grad()
            total += loss.item() * len(x)
            count += len(x)
        row = {"train_loss": total / count, "lr": scheduler.get_last_lr()[0]}
        scheduler.step()
        model.eval()
        total = count = 0
        with torch.no_grad():
            for x, y in val_loader:
                total += criterion(model(x), y).item() * len(x)
                count += len(x)
        log.append({**row, "val_loss": total / count})
    return log


def set_up(fabric, model, train_loader, val_loader, criterion, optimizer):
    """What Fabric makes of the parts, as the loop takes them."""
    model, optimizer = fabric.setup(model, optimizer)
    return fabric, model, *fabric.setup_dataloaders(train_loader, val_loader), criterion, optimizer


def whole(fabric, model, train_loader, val_loader, criterion, optimizer):
    """A function that is given its parts plain, and sets them up itself."""
    return loop(*set_up(fabric, model, train_loader, val_loader, criterion, optimizer))


def both(train: Callable[..., Any], make: Callable[[], tuple[Any, ...]]) -> tuple[Any, Any]:
    """The log of the bare function, and the model that the decorated one trained; all else is alike."""
    bare = make()
    expected = train(*bare)
    state = torch.get_rng_state()
    tracked = make()
    assert track_training(train)(*tracked) == expected
    assert torch.equal(state, torch.get_rng_state())
    for mine, theirs in zip(bare[1].parameters(), tracked[1].parameters(), strict=True):
        assert torch.equal(mine, theirs)
    return expected, tracked[1]


def assert_recorded(run: MemoryRun, log: list[dict[str, float]]) -> None:
    for name in ("train_loss", "val_loss", "lr"):
        assert series(run, name) == [(epoch, row[name]) for epoch, row in enumerate(log)]
    assert series(run, "n_steps") == [(0, 2), (1, 2), (2, 2)]
    assert run.params["optimizer"] == "Adam"
    assert run.params["model_type"] == "Sequential"
    assert (run.params["train_loader.shuffle"], run.params["train_loader.n_samples"]) == ("True", "22")
    assert "train_loader" not in run.params
    assert run.models["model"].signature is not None
    assert b"lightning" not in run.artifacts["model/data/model.pth"]
    assert not [name for name in run.tags if name.startswith("overt.not_")]


def test_a_function_that_sets_its_parts_up_trains_as_without(captured: list[MemoryRun], fabric: Any) -> None:
    log, _ = both(whole, lambda: (fabric, *parts()))
    assert_recorded(captured[0], log)


def test_a_function_that_is_given_what_fabric_made_trains_as_without(captured: list[MemoryRun], fabric: Any) -> None:
    log, model = both(loop, lambda: set_up(fabric, *parts()))
    assert_recorded(captured[0], log)
    assert not model._forward_pre_hooks


def test_a_loss_function_is_seen_through_fabric_too(captured: list[MemoryRun], fabric: Any) -> None:
    log, _ = both(whole, lambda: (fabric, *parts(torch.nn.functional.cross_entropy)))
    assert series(captured[0], "train_loss") == [(epoch, row["train_loss"]) for epoch, row in enumerate(log)]


def test_half_precision_changes_no_loss(captured: list[MemoryRun], fabric: Any) -> None:
    def half() -> Any:
        return type(fabric)(accelerator="cpu", devices=1, precision="bf16-mixed")

    log, _ = both(loop, lambda: set_up(half(), *parts()))
    assert series(captured[0], "train_loss") == [(epoch, row["train_loss"]) for epoch, row in enumerate(log)]


def test_a_closure_counts_once_a_step(captured: list[MemoryRun], fabric: Any) -> None:
    def train(fabric, model, train_loader, val_loader, criterion, optimizer):
        first = []
        for x, y in train_loader:

            def closure(x=x, y=y):
                optimizer.zero_grad()
                loss = criterion(model(x), y)
                fabric.backward(loss)
                return loss

            first.append(optimizer.step(closure).item())
        return first

    def make() -> tuple[Any, ...]:
        model, train_loader, val_loader, criterion, _ = parts()
        optimizer = torch.optim.LBFGS(model.eval().parameters(), 0.1, max_iter=4)
        return set_up(fabric, model, train_loader, val_loader, criterion, optimizer)

    first, _ = both(train, make)
    assert series(captured[0], "train_loss_step") == list(enumerate(first))
    assert captured[0].params["optimizer"] == "LBFGS"
