"""Loops that know nothing of overt: what is recorded of them is what they would have written down themselves."""

from __future__ import annotations

import contextlib
import copy
import io
import json
import math
import pickle
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest

import overt
from overt.errors import OvertWarning
from overt.stores.memory import MemoryRun

torch = pytest.importorskip("torch")
pytest.importorskip("wrapt")

from torch.nn import functional  # noqa: E402
from torch.utils.data import DataLoader, TensorDataset  # noqa: E402

from overt.integrations.torch.decorator import track_training  # noqa: E402
from overt.integrations.torch.epochs import Epochs  # noqa: E402
from overt.integrations.torch.observers import is_observer  # noqa: E402
from overt.integrations.torch.session import LossNotFinite  # noqa: E402


@pytest.fixture
def captured() -> Iterator[list[MemoryRun]]:
    with overt.testing.captured_runs() as runs:
        yield runs


@dataclass
class Parts:
    model: Any
    train_loader: Any
    val_loader: Any
    criterion: Any
    optimizer: Any

    def values(self) -> dict[str, Any]:
        return dict(vars(self))


def parts(criterion: Any = None, *, optimizer: str = "Adam", lr: float = 0.01, **settings: Any) -> Parts:
    """The same small problem each time: dropout, shuffling and a last batch that is shorter."""
    torch.manual_seed(0)
    X = torch.randn(50, 4)
    y = (X[:, 0] > 0).long() + (X[:, 1] > 0).long()
    model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Dropout(0.2), torch.nn.ReLU(), torch.nn.Linear(8, 3))
    return Parts(
        model,
        DataLoader(TensorDataset(X, y), 8, shuffle=True),
        DataLoader(TensorDataset(X[:20], y[:20]), 7),
        criterion or torch.nn.CrossEntropyLoss(),
        getattr(torch.optim, optimizer)(model.parameters(), lr=lr, **settings),
    )


def fit(model, train_loader, val_loader, criterion, optimizer, epochs=3):
    log = []
    for _ in range(epochs):
        model.train()
        total = count = 0
        for x, y in train_loader:
            optimizer.zero_grad()
            loss = criterion(model(x), y)
            loss.backward()
            optimizer.step()
            total += loss.item() * len(x)
            count += len(x)
        row = {"train_loss": total / count}
        model.eval()
        total = right = count = 0
        with torch.no_grad():
            for x, y in val_loader:
                out = model(x)
                total += criterion(out, y).item() * len(x)
                right += (out.argmax(1) == y).sum().item()
                count += len(x)
        log.append({**row, "val_loss": total / count, "val_accuracy": right / count})
    return log


def series(run: MemoryRun, name: str) -> list[tuple[int, float]]:
    return [(point.step, point.value) for point in run.history if point.name == name]


def same_weights(one: Any, other: Any) -> bool:
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(mine, theirs) for mine, theirs in pairs)


def both(loop: Callable[..., Any], make: Callable[[], Parts] = parts, **keywords: Any) -> tuple[Any, Any, Parts]:
    """Run a loop bare and decorated: weights must not differ by a bit, nor what is left of the random numbers."""
    bare = make()
    expected = loop(**bare.values())
    state = torch.get_rng_state()
    decorated = make()
    result = (track_training(**keywords)(loop) if keywords else track_training(loop))(**decorated.values())
    assert torch.equal(state, torch.get_rng_state()), "random numbers were drawn that the bare loop does not draw"
    assert same_weights(bare.model, decorated.model)
    return expected, result, decorated


# -- the numbers -------------------------------------------------------------------------------------------------------


def test_twenty_epochs_are_those_of_a_log_by_hand_to_the_last_bit(captured: list[MemoryRun]) -> None:
    def loop(model, train_loader, val_loader, criterion, optimizer):
        return fit(model, train_loader, val_loader, criterion, optimizer, epochs=20)

    expected, result, _ = both(loop)
    assert result == expected
    for name in ("train_loss", "val_loss", "val_accuracy"):
        assert series(captured[0], name) == [(epoch, row[name]) for epoch, row in enumerate(expected)]
    assert not [name for name in captured[0].metrics if name.startswith("reported_")]
    matrix = json.loads(captured[0].artifacts["val_confusion_matrix.json"])["matrix"]
    assert sum(map(sum, matrix)) == 20  # of the last evaluation alone


def test_the_steps_have_the_losses_that_item_gives(captured: list[MemoryRun]) -> None:
    seen: list[float] = []
    drawn: list[float] = []

    def loop(model, train_loader, val_loader, criterion, optimizer):
        batches = iter(train_loader)  # draws the seed of the shuffling, so before the next line
        drawn.append(torch.rand(1).item())
        for x, y in batches:
            optimizer.zero_grad()
            loss = criterion(model(x), y)
            loss.backward()
            seen.append(loss.item())
            optimizer.step()

    both(loop)
    assert drawn[0] == drawn[1]
    assert series(captured[0], "train_loss_step") == list(enumerate(seen[7:]))
    assert captured[0].metrics["n_steps"] == 7


def test_padding_and_borders_that_the_loss_ignores_are_no_wrong_answers(captured: list[MemoryRun]) -> None:
    features, classes = torch.randn(24, 3, 5, 5), torch.randint(0, 4, (24, 5, 5))
    model, criterion = torch.nn.Conv2d(3, 4, 1), torch.nn.CrossEntropyLoss(ignore_index=0)

    @track_training
    def test(model, loader, criterion):
        right = count = 0
        with torch.no_grad():
            for x, y in loader:
                outputs = model(x)
                criterion(outputs, y)
                right += ((outputs.argmax(1) == y) & (y != 0)).sum().item()
                count += (y != 0).sum().item()
        return right / count

    expected = test(model, DataLoader(TensorDataset(features, classes), 8), criterion)
    assert captured[0].metrics["val_accuracy"] == expected


@pytest.mark.parametrize("how", ["sum", "none"])
def test_a_reduction_by_sum_or_none_gives_the_mean_over_samples(captured: list[MemoryRun], how: str) -> None:
    def make() -> Parts:
        return parts(torch.nn.CrossEntropyLoss(reduction=how), lr=0.001)

    def loop(model, train_loader, val_loader, criterion, optimizer):
        total = count = 0
        for x, y in train_loader:
            optimizer.zero_grad()
            loss = criterion(model(x), y).sum()
            loss.backward()
            optimizer.step()
            total += loss.item()
            count += len(x)
        return total / count

    expected, _, _ = both(loop, make)
    assert captured[0].metrics["train_loss"] == pytest.approx(expected, rel=0 if how == "sum" else 1e-6, abs=0)


def test_losses_of_a_step_in_half_precision_have_a_mean_that_is_not_rounded(captured: list[MemoryRun]) -> None:
    @track_training
    def train(model, loader, criterion, optimizer, epochs=1):
        seen = []
        for x, y in loader:
            loss = criterion(model(x).half().repeat(2000, 1), y.repeat(2000))
            loss.backward()
            seen.append((loss.item(), 2000 * len(x)))
        optimizer.step()
        return sum(loss * count for loss, count in seen) / sum(count for _, count in seen)

    these = parts()
    expected = train(these.model, these.train_loader, these.criterion, these.optimizer)
    assert captured[0].metrics["train_loss_step"] == pytest.approx(expected, rel=1e-6)


def test_a_loss_within_torch_func_is_not_seen_and_that_is_said(captured: list[MemoryRun]) -> None:
    @track_training
    def train(model, train_loader, val_loader, criterion, optimizer, epochs=2):
        for _ in range(epochs):
            for x, y in train_loader:
                weights = {name: weight.detach() for name, weight in model.named_parameters()}

                def loss_of(weights, x, y):
                    return criterion(torch.func.functional_call(model, weights, (x[None],)), y[None])

                of_samples = torch.func.vmap(torch.func.grad(loss_of), (None, 0, 0), randomness="different")
                for name, gradient in of_samples(weights, x, y).items():
                    model.get_parameter(name).grad = gradient.mean(0)
                optimizer.step()
            with torch.no_grad():
                for x, y in val_loader:
                    criterion(model(x), y)

    with pytest.warns(OvertWarning, match="no training loss was seen"):
        train(**parts().values())
    assert [point.step for point in captured[0].history if point.name == "val_loss"] == [0, 1]
    assert not [tag for tag in captured[0].tags if tag.startswith("overt.not_recorded")]


def test_the_learning_rate_is_the_one_that_the_epoch_was_trained_with(captured: list[MemoryRun]) -> None:
    def loop(model, train_loader, val_loader, criterion, optimizer):
        scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)
        for _ in range(3):
            fit(model, train_loader, val_loader, criterion, optimizer, epochs=1)
            scheduler.step()

    both(loop)
    assert series(captured[0], "lr") == [(0, 0.01), (1, 0.005), (2, 0.0025)]
    assert captured[0].params["lr"] == "0.01"


def test_a_learning_rate_that_is_a_tensor_is_the_one_of_the_epoch_too(captured: list[MemoryRun]) -> None:
    def loop(model, train_loader, val_loader, criterion, optimizer):
        for _ in range(3):
            for x, y in train_loader:
                optimizer.zero_grad()
                criterion(model(x), y).backward()
                optimizer.step()
            optimizer.param_groups[0]["lr"].mul_(0.5)  # in place, as schedulers do it

    track_training(loop)(**parts(lr=torch.tensor(0.5)).values())
    assert series(captured[0], "lr") == [(0, 0.5), (1, 0.25), (2, 0.125)]


def test_each_group_has_its_learning_rate(captured: list[MemoryRun]) -> None:
    made = parts()
    head, tail = made.model[0], made.model[3]
    groups = [{"params": head.parameters(), "lr": 0.1}, {"params": tail.parameters(), "lr": 0.2}]
    made.optimizer = torch.optim.SGD(groups)
    track_training(fit)(**made.values(), epochs=1)
    assert (captured[0].metrics["lr.group_0"], captured[0].metrics["lr.group_1"]) == (0.1, 0.2)


def test_an_epoch_has_its_seconds_and_its_speed(captured: list[MemoryRun]) -> None:
    track_training(fit)(**parts().values())
    assert [step for step, _ in series(captured[0], "epoch_seconds")] == [0, 1, 2]
    for (_, seconds), (_, speed) in zip(
        series(captured[0], "epoch_seconds"), series(captured[0], "samples_per_second"), strict=True
    ):
        assert 0 < seconds < 10
        assert speed >= 50 / seconds


def test_gradient_norms_are_recorded_on_request(captured: list[MemoryRun]) -> None:
    norms = []

    def loop(model, train_loader, val_loader, criterion, optimizer):
        for x, y in train_loader:
            optimizer.zero_grad()
            criterion(model(x), y).backward()
            norms.append(torch.nn.utils.clip_grad_norm_(model.parameters(), 1e9).item())
            optimizer.step()

    both(loop, gradient_norm=True)
    assert [value for _, value in series(captured[0], "grad_norm_step")] == pytest.approx(norms[7:], rel=1e-6)


@pytest.mark.parametrize("is_fused", [False, True])
def test_gradient_norms_are_those_without_the_scale_of_a_grad_scaler(
    captured: list[MemoryRun], *, is_fused: bool
) -> None:
    def loop(model, train_loader, val_loader, criterion, optimizer, scale):
        scaler = torch.amp.GradScaler("cpu", init_scale=scale, growth_interval=1000)
        for x, y in train_loader:
            optimizer.zero_grad()
            scaler.scale(criterion(model(x), y)).backward()
            scaler.step(optimizer)
            scaler.update()

    for scale in (1.0, 1024.0):
        given = parts(optimizer="SGD", fused=is_fused)
        track_training(gradient_norm=True)(loop)(**given.values(), scale=scale)
    expected, scaled = ([value for _, value in series(run, "grad_norm_step")] for run in captured)
    assert len(scaled) == 7
    assert scaled == pytest.approx(expected, rel=1e-4)


# -- loops of other shapes ---------------------------------------------------------------------------------------------


def test_accumulated_losses_are_not_scaled_and_belong_to_one_step(captured: list[MemoryRun]) -> None:
    def loop(model, train_loader, val_loader, criterion, optimizer):
        total = count = 0
        for index, (x, y) in enumerate(train_loader):
            loss = criterion(model(x), y)
            total += loss.item() * len(x)
            count += len(x)
            loss /= 2
            loss.backward()
            if index % 2:
                optimizer.step()
                optimizer.zero_grad()
        return total / count

    expected, _, _ = both(loop)
    assert captured[0].metrics["train_loss"] == expected
    assert captured[0].metrics["n_steps"] == 3


def test_a_closure_counts_once_a_step(captured: list[MemoryRun]) -> None:
    def make() -> Parts:
        return parts(optimizer="LBFGS", lr=0.1, max_iter=4)

    def loop(model, train_loader, val_loader, criterion, optimizer):
        model.eval()
        first = []
        for x, y in train_loader:

            def closure(x=x, y=y):
                optimizer.zero_grad()
                loss = criterion(model(x), y)
                loss.backward()
                return loss

            first.append(optimizer.step(closure).item())
        return first

    expected, _, _ = both(loop, make)
    assert [value for _, value in series(captured[0], "train_loss_step")] == expected


def test_a_grad_scaler_changes_no_loss(captured: list[MemoryRun]) -> None:
    def loop(model, train_loader, val_loader, criterion, optimizer):
        scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
        total = count = 0
        for x, y in train_loader:
            optimizer.zero_grad()
            with torch.autocast("cpu", torch.bfloat16):
                loss = criterion(model(x), y)
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
            total += loss.item() * len(x)
            count += len(x)
        return total / count

    expected, _, _ = both(loop)
    assert captured[0].metrics["train_loss"] == expected
    assert captured[0].metrics["n_steps"] == 7


def test_epochs_that_are_left_early_are_epochs(captured: list[MemoryRun]) -> None:
    def loop(model, train_loader, val_loader, criterion, optimizer):
        for _ in range(3):
            for index, (x, y) in enumerate(train_loader):
                if index == 2:
                    break
                optimizer.zero_grad()
                criterion(model(x), y).backward()
                optimizer.step()

    both(loop)
    assert series(captured[0], "n_steps") == [(0, 2), (1, 2), (2, 2)]


def test_functions_within_the_function_are_parts_of_it(captured: list[MemoryRun]) -> None:
    def loop(model, train_loader, val_loader, criterion, optimizer):
        def step(x, y):
            def closure():
                optimizer.zero_grad()
                loss = criterion(model(x), y)
                loss.backward()
                return loss

            return optimizer.step(closure).item() * len(x)

        def in_turn(loader):
            yield from ((x, y) for x, y in loader)

        @track_training
        def validate(model, val_loader):
            with torch.no_grad():
                return sum(criterion(model(x), y).item() * len(x) for x, y in val_loader) / 20

        log = []
        for _ in range(3):
            train_loss = sum(step(x, y) for x, y in in_turn(train_loader)) / 50
            log.append({"train_loss": train_loss, "val_loss": validate(model, val_loader)})
        return log

    expected, result, _ = both(loop)
    assert result == expected
    run = captured[-1]
    for name in ("train_loss", "val_loss"):
        assert series(run, name) == [(epoch, row[name]) for epoch, row in enumerate(expected)]
    assert series(run, "n_steps") == [(0, 7), (1, 7), (2, 7)]


def test_loaders_side_by_side_are_one_epoch_and_a_shorter_one_may_start_again(captured: list[MemoryRun]) -> None:
    def loop(model, train_loader, val_loader, criterion, optimizer):
        for _ in range(2):
            others = iter(val_loader)
            for x, y in train_loader:
                try:
                    more, _ = next(others)
                except StopIteration:
                    others = iter(val_loader)
                    more, _ = next(others)
                optimizer.zero_grad()
                (criterion(model(x), y) + model(more).pow(2).mean()).backward()
                optimizer.step()

    both(loop)
    assert series(captured[0], "n_steps") == [(0, 7), (1, 7)]


def test_evaluations_within_an_epoch_end_none_and_stand_at_their_steps(captured: list[MemoryRun]) -> None:
    def loop(model, train_loader, val_loader, criterion, optimizer):
        losses, accuracies = [], []
        for _ in range(2):
            for index, (x, y) in enumerate(train_loader):
                optimizer.zero_grad()
                criterion(model(x), y).backward()
                optimizer.step()
                if index % 2 == 1:
                    total = right = 0
                    with torch.no_grad():
                        for a, b in val_loader:
                            outputs = model(a)
                            total += criterion(outputs, b).item() * len(a)
                            right += (outputs.argmax(1) == b).sum().item()
                    losses.append(total / 20)
                    accuracies.append(right / 20)
        return losses, accuracies

    (losses, accuracies), _, _ = both(loop)
    (run,) = captured
    assert series(run, "n_steps") == [(0, 7), (1, 7)]
    for name, expected in (("val_loss", losses), ("val_accuracy", accuracies)):
        assert series(run, name) == list(zip((0, 1), expected[2::3], strict=True)), "the last of each epoch"
        in_between = [value for index, value in enumerate(expected) if index % 3 < 2]
        assert series(run, f"{name}_step") == list(zip((1, 3, 8, 10), in_between, strict=True))


def test_an_evaluation_that_another_replaces_is_said_to_be(captured: list[MemoryRun]) -> None:
    def loop(model, train_loader, val_loader, criterion, optimizer):
        other = copy.deepcopy(model).eval()
        for _ in range(2):
            for x, y in train_loader:
                criterion(model(x), y).backward()
                optimizer.step()
            for each in (model.eval(), other):
                with torch.no_grad():
                    for x, y in val_loader:
                        criterion(each(x), y)
            model.train()

    both(loop)
    (run,) = captured
    assert [step for step, _ in series(run, "val_loss")] == [0, 1]
    assert series(run, "val_loss")[0][1] == series(run, "val_loss")[1][1], "of the model that does not learn"
    assert "evaluated again" in run.tags["overt.val_replaced"]
    assert not series(run, "val_loss_step")


def test_an_evaluation_on_the_training_data_is_no_training(captured: list[MemoryRun]) -> None:
    def loop(model, train_loader, val_loader, criterion, optimizer):
        for _ in range(2):
            for x, y in train_loader:
                optimizer.zero_grad()
                criterion(model(x), y).backward()
                optimizer.step()
            with torch.no_grad():
                for x, y in train_loader:
                    criterion(model(x), y)

    both(loop)
    assert series(captured[0], "n_steps") == [(0, 7), (1, 7)]
    assert [step for step, _ in series(captured[0], "training_loss")] == [0, 1]
    assert "training_confusion_matrix.json" in captured[0].artifacts
    assert not [name for name in captured[0].metrics if name.startswith("val_")]


def evaluated(model, loader, criterion):
    model.eval()
    total = count = 0
    with torch.no_grad():
        for x, y in loader:
            total += criterion(model(x), y).item() * len(x)
            count += len(x)
    model.train()
    return total / count


@pytest.mark.parametrize("in_calls", [False, True])
def test_the_training_data_is_not_taken_for_the_held_out_data(captured: list[MemoryRun], *, in_calls: bool) -> None:
    log = []

    @track_training
    def train(model, loader, criterion, optimizer, epoch):
        for x, y in loader:
            optimizer.zero_grad()
            criterion(model(x), y).backward()
            optimizer.step()

    tested = track_training(evaluated)

    @track_training
    def loop(model, fitted_on, held_out, criterion, optimizer, epochs):
        for epoch in range(epochs):
            if in_calls:
                train(model, fitted_on, criterion, optimizer, epoch)
            else:
                train.__wrapped__(model, fitted_on, criterion, optimizer, epoch)
            test = tested if in_calls else evaluated
            log.append((test(model, fitted_on, criterion), test(model, held_out, criterion)))

    made = parts()
    loop(made.model, made.train_loader, made.val_loader, made.criterion, made.optimizer, 3)
    assert len(captured) == 1
    assert series(captured[0], "training_loss") == [(epoch, losses[0]) for epoch, losses in enumerate(log)]
    assert series(captured[0], "val_loss") == [(epoch, losses[1]) for epoch, losses in enumerate(log)]


@pytest.mark.parametrize("where", ["before the step", "after the step"])
def test_a_loss_for_its_value_alone_on_a_batch_of_the_training_is_none_of_the_validation(
    captured: list[MemoryRun], where: str
) -> None:
    def train(model, loader, held_out, criterion, optimizer):
        mined, validated = [], []
        for _ in range(2):
            model.train()
            hard = []
            for x, y in loader:
                if where == "before the step":  # hard examples
                    with torch.no_grad():
                        hard.append((criterion(model(x), y).item(), len(x)))
                optimizer.zero_grad()
                criterion(model(x), y).backward()
                optimizer.step()
                if where == "after the step":
                    with torch.no_grad():
                        hard.append((criterion(model(x), y).item(), len(x)))
            model.eval()
            with torch.no_grad():
                losses = [(criterion(model(x), y).item(), len(x)) for x, y in held_out]
            for log, found in ((mined, hard), (validated, losses)):
                log.append(sum(loss * n for loss, n in found) / sum(n for _, n in found))
        return mined, validated

    made = parts()
    mined, validated = track_training(train)(
        made.model, made.train_loader, made.val_loader, made.criterion, made.optimizer
    )
    run = captured[0]
    assert series(run, "training_loss") == list(enumerate(mined))
    assert series(run, "val_loss") == list(enumerate(validated))
    assert [epoch for epoch, _ in series(run, "val_accuracy")] == [0, 1]
    assert sum(map(sum, json.loads(run.artifacts["val_confusion_matrix.json"])["matrix"])) == 20
    assert not any(point.step < 0 or "held_out" in point.name for point in run.history)


@pytest.mark.parametrize(("n_held_out", "name"), [(20, "val_loss"), (3, "training_loss")])
def test_a_model_that_is_evaluated_on_more_than_a_batch_of_the_training_has_seen_held_out_data(
    captured: list[MemoryRun], n_held_out: int, name: str
) -> None:
    @track_training
    def train(model, train_loader, criterion, optimizer, epochs=2):
        log = []
        for _ in range(epochs):
            total = 0
            for step, (x, truth) in enumerate(train_loader):
                optimizer.zero_grad()
                criterion(model(x), truth).backward()
                optimizer.step()
                if step == 3:
                    model.eval()
                    with torch.no_grad():
                        for part, t in zip(X.split(5), y.split(5), strict=True):  # of no loader
                            total += criterion(model(part), t).item() * len(t)
                    model.train()
            log.append(total / n_held_out)
        return log

    made = parts()
    X, y = (tensor[:n_held_out] for tensor in made.val_loader.dataset.tensors)
    log = train(made.model, made.train_loader, made.criterion, made.optimizer)
    assert series(captured[0], name) == list(enumerate(log))
    assert {"val_loss", "training_loss"} & set(captured[0].metrics) == {name}


def test_a_batch_that_was_looked_at_before_the_training_leaves_its_loader_the_held_out_one(
    captured: list[MemoryRun],
) -> None:
    @track_training
    def train(model, train_loader, val_loader, criterion, optimizer):
        images = iter(val_loader)
        next(images)
        return fit(model, train_loader, val_loader, criterion, optimizer)

    history = train(**parts().values())
    assert series(captured[0], "val_loss") == [(epoch, row["val_loss"]) for epoch, row in enumerate(history)]
    assert not any(name.startswith("training_") for name in captured[0].metrics)


def test_loaders_made_anew_for_each_call_are_not_taken_for_one_another(captured: list[MemoryRun]) -> None:
    @track_training
    def train(model, loader, criterion, optimizer, epoch):
        for x, y in loader:
            optimizer.zero_grad()
            criterion(model(x), y).backward()
            optimizer.step()

    made, log = parts(), []
    for epoch in range(3):
        train(made.model, DataLoader(made.train_loader.dataset, 8), made.criterion, made.optimizer, epoch)
        log.append(track_training(evaluated)(made.model, DataLoader(made.val_loader.dataset, 7), made.criterion))
    train.run_.finish()
    assert series(captured[0], "val_loss") == list(enumerate(log))
    assert "training_loss" not in captured[0].metrics


def test_a_report_is_of_the_epoch_that_its_evaluation_is_of(captured: list[MemoryRun]) -> None:
    def loop(model, train_loader, val_loader, criterion, optimizer):
        for epoch in range(4):
            for x, y in train_loader:
                optimizer.zero_grad()
                criterion(model(x), y).backward()
                optimizer.step()
            if epoch == 1:
                evaluated(model, val_loader, criterion)

    both(loop)
    for name in ("val_loss", "val_accuracy", "val_f1_macro", "val_log_loss"):
        assert [step for step, _ in series(captured[0], name)] == [1], name


def test_a_loader_that_cannot_say_how_long_it_is_is_observed_as_any_other(captured: list[MemoryRun]) -> None:
    class StreamLoader:
        def __init__(self, loader):
            self.loader = loader

        def __iter__(self):
            return iter(self.loader)

        def __len__(self):
            raise NotImplementedError("endless")

    def make() -> Parts:
        made = parts()
        made.train_loader = StreamLoader(made.train_loader)
        return made

    expected, _, _ = both(fit, make)
    assert series(captured[0], "train_loss") == [(epoch, row["train_loss"]) for epoch, row in enumerate(expected)]
    assert "samples_per_second" in captured[0].metrics


def test_what_a_partial_says_of_a_loss_function_counts(captured: list[MemoryRun]) -> None:
    def make() -> Parts:
        made = parts()
        made.criterion = partial(functional.cross_entropy, reduction="sum")
        return made

    def loop(model, train_loader, val_loader, criterion, optimizer):
        total = count = 0
        for x, y in train_loader:
            optimizer.zero_grad()
            loss = criterion(model(x), y)
            (loss / len(x)).backward()
            optimizer.step()
            total, count = total + loss.item(), count + len(x)
        evaluated(model, val_loader, criterion)
        return total / count

    expected, _, _ = both(loop, make)
    assert captured[0].metrics["train_loss"] == expected
    assert "val_accuracy" in captured[0].metrics


def test_an_evaluation_with_gradients_is_in_no_training_loss_and_one_line_says_so(captured: list[MemoryRun]) -> None:
    def loop(model, train_loader, val_loader, criterion, optimizer):
        log = []
        for _ in range(2):
            model.train()
            total = count = 0
            for x, y in train_loader:
                optimizer.zero_grad()
                loss = criterion(model(x), y)
                loss.backward()
                optimizer.step()
                total, count = total + loss.item() * len(x), count + len(x)
            model.eval()
            for x, y in val_loader:
                criterion(model(x), y)
            log.append(total / count)
        return log

    with pytest.warns(overt.OvertWarning, match=r"Evaluate under torch.no_grad\(\)") as said:
        expected, _, _ = both(loop)
    assert len(said) == 1
    assert series(captured[0], "train_loss") == list(enumerate(expected))
    assert "val_loss" not in captured[0].metrics


def test_without_loaders_an_evaluation_separates_epochs(captured: list[MemoryRun]) -> None:
    X, y = torch.randn(16, 4), torch.arange(16) % 3

    def loop(model, criterion, optimizer):
        for _ in range(3):
            for begin in (0, 8):
                optimizer.zero_grad()
                criterion(model(X[begin : begin + 8]), y[begin : begin + 8]).backward()
                optimizer.step()
            with torch.no_grad():
                criterion(model(X), y)

    made = parts()
    track_training(loop)(made.model, made.criterion, made.optimizer)
    assert series(captured[0], "n_steps") == [(0, 2), (1, 2), (2, 2)]
    assert [step for step, _ in series(captured[0], "val_loss")] == [0, 1, 2]


def test_validation_and_test_have_their_own_names(captured: list[MemoryRun]) -> None:
    def loop(model, train_loader, val_loader, test_loader, criterion, optimizer):
        fit(model, train_loader, val_loader, criterion, optimizer, epochs=2)
        with torch.no_grad():
            for x, y in test_loader:
                criterion(model(x), y)

    made = parts()
    track_training(loop)(**made.values(), test_loader=DataLoader(made.val_loader.dataset, 4))
    assert [step for step, _ in series(captured[0], "val_loss")] == [0, 1]
    assert [step for step, _ in series(captured[0], "test_loss")] == [1]
    assert captured[0].metrics["test_accuracy"] == captured[0].metrics["val_accuracy"]
    assert "test_confusion_matrix.json" in captured[0].artifacts


def test_an_evaluation_before_the_first_epoch_is_of_the_epoch_before_it(captured: list[MemoryRun]) -> None:
    def loop(model, train_loader, val_loader, criterion, optimizer):
        with torch.no_grad():
            for x, y in val_loader:
                criterion(model(x), y)
        fit(model, train_loader, val_loader, criterion, optimizer, epochs=2)

    both(loop)
    assert [step for step, _ in series(captured[0], "val_loss")] == [-1, 0, 1]


def test_two_optimizers_that_share_a_loss_each_have_their_own(captured: list[MemoryRun]) -> None:
    def loop(generator, discriminator, loader, criterion, opt_g, opt_d, log, epochs=1):
        for (real,) in loader:
            ones, zeros = torch.ones(len(real), 1), torch.zeros(len(real), 1)
            fake = generator(torch.randn(len(real), 2))
            loss_d = criterion(discriminator(real), ones)
            loss_g = criterion(discriminator(fake), ones)
            loss_d.backward()
            opt_d.step()
            opt_d.zero_grad()
            fake = generator(torch.randn(len(real), 2))
            loss_g = criterion(discriminator(fake), ones + zeros)
            loss_g.backward()
            opt_g.step()
            opt_g.zero_grad()
            log.append((loss_d.item(), loss_g.item()))

    torch.manual_seed(1)
    generator, discriminator = torch.nn.Linear(2, 2), torch.nn.Linear(2, 1)
    opt_g = torch.optim.SGD(generator.parameters(), 0.1)
    opt_d = torch.optim.SGD(discriminator.parameters(), 0.2)
    loader = DataLoader(TensorDataset(torch.randn(12, 2)), 4)
    log: list[tuple[float, float]] = []
    track_training(loop)(generator, discriminator, loader, torch.nn.BCEWithLogitsLoss(), opt_g, opt_d, log)
    run = captured[0]
    assert series(run, "train_loss_opt_d_step") == list(enumerate(d for d, _ in log))
    assert series(run, "train_loss_opt_g_step") == list(enumerate(g for _, g in log))
    assert (run.metrics["lr_opt_g"], run.metrics["lr_opt_d"]) == (0.1, 0.2)
    assert "train_loss" not in run.metrics
    assert set(run.models) == {"generator", "discriminator"}


def gan(criterion: Any = None) -> tuple[Any, ...]:
    torch.manual_seed(1)
    generator = torch.nn.Sequential(torch.nn.Linear(2, 4), torch.nn.ReLU(), torch.nn.Linear(4, 2))
    discriminator = torch.nn.Sequential(torch.nn.Linear(2, 4), torch.nn.Dropout(0.2), torch.nn.Linear(4, 1))
    return (
        generator,
        discriminator,
        DataLoader(TensorDataset(torch.randn(22, 2)), 4, shuffle=True),
        criterion or torch.nn.BCEWithLogitsLoss(),
        torch.optim.Adam(generator.parameters(), 0.1),
        torch.optim.Adam(discriminator.parameters(), 0.2),
    )


@pytest.mark.parametrize("is_function", [False, True])
def test_a_gan_trains_as_without_and_each_optimizer_has_the_losses_that_it_stepped_on(
    captured: list[MemoryRun], is_function: bool
) -> None:
    def loop(generator, discriminator, loader, criterion, opt_g, opt_d, epochs=2):
        log = []
        for _ in range(epochs):
            totals, count = {"opt_d": 0.0, "opt_g": 0.0}, 0
            for (real,) in loader:
                ones, zeros = torch.ones(len(real), 1), torch.zeros(len(real), 1)
                fake = generator(torch.randn(len(real), 2))
                opt_d.zero_grad()
                losses = criterion(discriminator(real), ones), criterion(discriminator(fake.detach()), zeros)
                sum(losses).backward()
                opt_d.step()
                opt_g.zero_grad()
                loss_g = criterion(discriminator(fake), ones)
                loss_g.backward()
                opt_g.step()
                totals["opt_d"] += sum(loss.item() * len(real) for loss in losses) / 2
                totals["opt_g"] += loss_g.item() * len(real)
                count += len(real)
            log.append({name: total / count for name, total in totals.items()})
        return log

    criterion = functional.binary_cross_entropy_with_logits if is_function else None
    bare = gan(criterion)
    log = loop(*bare)
    tracked = gan(criterion)
    assert track_training(loop)(*tracked) == log
    assert same_weights(bare[0], tracked[0])
    assert same_weights(bare[1], tracked[1])
    run = captured[0]
    for name in ("opt_d", "opt_g"):
        epochs = series(run, f"train_loss_{name}")
        assert [step for step, _ in epochs] == [0, 1]
        assert [value for _, value in epochs] == pytest.approx([row[name] for row in log], rel=1e-12)
        assert series(run, f"n_steps_{name}") == [(0, 6), (1, 6)]
    assert {name for name in run.metrics if "loss" in name} == {
        f"train_loss_{name}{kind}" for name in ("opt_g", "opt_d") for kind in ("", "_step")
    }


def test_two_losses_of_one_step_each_have_their_name(captured: list[MemoryRun]) -> None:
    def loop(model, train_loader, ce_loss, l1_loss, optimizer):
        for x, y in train_loader:
            optimizer.zero_grad()
            out = model(x)
            (ce_loss(out, y) + l1_loss(out, torch.zeros_like(out))).backward()
            optimizer.step()

    made = parts()
    track_training(loop)(made.model, made.train_loader, made.criterion, torch.nn.L1Loss(), made.optimizer)
    assert {"train_loss_ce_loss", "train_loss_l1_loss"} <= set(captured[0].metrics)
    assert "train_loss" not in captured[0].metrics


@pytest.mark.parametrize("n_classes", [2, 3])
def test_of_two_heads_that_share_a_loss_the_first_one_is_evaluated(captured: list[MemoryRun], n_classes: int) -> None:
    class Heads(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.other = torch.nn.Linear(4, 3), torch.nn.Linear(4, n_classes)

        def forward(self, x):
            return self.one(x), self.other(x)

    def train(model, train_loader, val_loader, criterion, optimizer, epochs=2):
        for _ in range(epochs):
            for x, y in train_loader:
                one, other = model(x)
                optimizer.zero_grad()
                (criterion(one, y) + criterion(other, y.clamp(max=1))).backward()
                optimizer.step()
            right = 0
            with torch.no_grad():
                for x, y in val_loader:
                    one, other = model(x)
                    criterion(one, y) + criterion(other, y.clamp(max=1))
                    right += (one.argmax(1) == y).sum().item()
        return right / 20

    made = parts()
    made.model = Heads()
    made.optimizer = torch.optim.SGD(made.model.parameters(), 0.1)
    right = track_training(train)(**made.values())
    run = captured[0]
    assert run.metrics["val_accuracy"] == right
    assert sum(map(sum, json.loads(run.artifacts["val_confusion_matrix.json"])["matrix"])) == 20
    assert "of the first" in run.tags["overt.val_note"]


def test_an_evaluation_through_buffers_that_are_written_again_for_each_batch(captured: list[MemoryRun]) -> None:
    """As CUDA graphs need them, and as some loaders give their batches."""

    class Reusing(DataLoader):
        def __iter__(self):
            buffers = torch.empty(7, 4), torch.empty(7, dtype=torch.int64)
            for batch in super().__iter__():
                for buffer, part in zip(buffers, batch, strict=True):
                    buffer.copy_(part)
                yield buffers

    def train(model, train_loader, val_loader, criterion, optimizer, epochs=2):
        outputs = torch.empty(7, 3)
        log = []
        for _ in range(epochs):
            model.train()
            for x, y in train_loader:
                optimizer.zero_grad()
                criterion(model(x), y).backward()
                optimizer.step()
            model.eval()
            right = total = 0
            with torch.no_grad():
                for x, y in val_loader:
                    outputs.copy_(model(x))
                    criterion(outputs, y)
                    right, total = right + (outputs.argmax(1) == y).sum().item(), total + len(y)
            log.append(right / total)
        return log

    made = parts()
    made.val_loader = Reusing(made.val_loader.dataset, 7, drop_last=True)
    log = track_training(train)(made.model, made.train_loader, made.val_loader, made.criterion, made.optimizer)
    run = captured[0]
    assert series(run, "val_accuracy") == list(enumerate(log))
    matrix = json.loads(run.artifacts["val_confusion_matrix.json"])["matrix"]
    truth = made.val_loader.dataset.tensors[1][:14].bincount().tolist()
    assert [sum(row) for row in matrix] == [count for count in truth if count]
    assert sum(matrix[k][k] for k in range(len(matrix))) == round(log[-1] * sum(truth))


def test_a_generator_and_a_function_of_one_epoch_train_as_without(captured: list[MemoryRun]) -> None:
    def one_epoch(model, train_loader, val_loader, criterion, optimizer):
        return fit(model, train_loader, val_loader, criterion, optimizer, epochs=1)[0]

    def epochs(model, train_loader, val_loader, criterion, optimizer):
        for _ in range(3):
            yield one_epoch(model, train_loader, val_loader, criterion, optimizer)

    tracked_epochs, tracked_one = track_training(epochs), track_training(one_epoch)
    for bare, tracked in (
        (lambda **given: list(epochs(**given)), lambda **given: list(tracked_epochs(**given))),
        (
            lambda **given: [one_epoch(**given) for _ in range(3)],
            lambda **given: [tracked_one(**given) for _ in range(3)],
        ),
    ):
        one = parts()
        log = bare(**one.values())
        other = parts()
        assert tracked(**other.values()) == log
        assert same_weights(one.model, other.model)
    assert [len(series(run, "train_loss")) for run in captured] == [3, 3]


# -- losses that are functions -----------------------------------------------------------------------------------------


def test_a_loss_function_among_the_arguments_is_observed(captured: list[MemoryRun]) -> None:
    expected, _, _ = both(fit, lambda: parts(functional.cross_entropy))
    assert series(captured[0], "train_loss") == [(epoch, row["train_loss"]) for epoch, row in enumerate(expected)]


def test_a_loss_that_is_no_argument_is_seen_at_every_tenth_step_and_in_whole_evaluations(
    captured: list[MemoryRun],
) -> None:
    log = []

    def loop(model, train_loader, val_loader, criterion, optimizer):
        for _ in range(2):
            model.train()
            for x, y in train_loader:
                optimizer.zero_grad()
                loss = functional.cross_entropy(model(x), y)
                loss.backward()
                optimizer.step()
                log.append(loss.item())
            model.eval()
            with torch.no_grad():
                total = 0
                for x, y in val_loader:
                    total += functional.cross_entropy(model(x), y).item() * len(x)
        return total / 20

    def make() -> Parts:
        made = parts()
        made.criterion = None
        return made

    expected, _, _ = both(loop, make)
    run = captured[0]
    assert series(run, "train_loss_step") == [(step, log[14:][step]) for step in (0, 7, 10)]  # 7 begins an epoch
    assert run.metrics["val_loss"] == expected
    assert run.metrics["n_steps"] == 7
    assert "val_confusion_matrix.json" in run.artifacts
    assert run.tags["overt.losses_seen"] == "those of every 10th step of the training, and of its passes' first"
    assert torch.overrides._get_current_function_mode_stack() == []


def test_without_loaders_every_such_loss_counts_and_those_of_other_calls_keep_to_their_choice(
    captured: list[MemoryRun],
) -> None:
    @track_training(every_n_steps=3)
    def refine(model, optimizer, X, y):
        for _ in range(5):
            optimizer.zero_grad()
            functional.cross_entropy(model(X), y).backward()
            optimizer.step()

    @track_training(every_n_steps=3)
    def train(model, train_loader, criterion, optimizer):
        for x, y in train_loader:
            optimizer.zero_grad()
            criterion(model(x), y).backward()
            optimizer.step()
        refine(model, optimizer, x, y)

    given = parts()
    train(given.model, given.train_loader, given.criterion, given.optimizer)
    assert len(captured) == 1
    assert [step for step, _ in series(captured[0], "train_loss_step")] == [0, 3, 6]
    assert [step for step, _ in series(captured[0], "train_loss_cross_entropy_step")] == [7, 8, 9, 10, 11]


def test_each_epoch_of_such_a_loss_has_one_however_few_its_steps(captured: list[MemoryRun]) -> None:
    def loop(model, train_loader, val_loader, criterion, optimizer):
        for _ in range(6):
            for x, y in train_loader:
                optimizer.zero_grad()
                functional.cross_entropy(model(x), y).backward()
                optimizer.step()

    def make() -> Parts:
        made = parts()
        made.criterion = None
        return made

    both(loop, make)
    assert [epoch for epoch, _ in series(captured[0], "train_loss")] == list(range(6))


class Attentive(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        layer = torch.nn.TransformerEncoderLayer(8, 2, 16, dropout=0.1, batch_first=True)
        self.encoder = torch.nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.embed, self.head = torch.nn.Linear(1, 8), torch.nn.Linear(8, 3)

    def forward(self, x):
        return self.head(self.encoder(self.embed(x[..., None])).mean(dim=1))


def test_an_attention_that_is_faster_in_evaluation_stays_so_and_its_evaluations_are_not_seen(
    captured: list[MemoryRun],
) -> None:
    def make() -> Parts:
        made = parts()
        torch.manual_seed(0)
        made.model, made.criterion = Attentive(), None
        made.optimizer = torch.optim.SGD(made.model.parameters(), 0.1)
        return made

    def loop(model, train_loader, val_loader, criterion, optimizer):
        log = []
        for _ in range(3):
            model.train()
            for x, y in train_loader:
                optimizer.zero_grad()
                functional.cross_entropy(model(x), y).backward()
                optimizer.step()
            log.append(evaluated(model, val_loader, functional.cross_entropy))
            optimizer.param_groups[0]["lr"] = log[-1] / 10  # so that a last bit would be seen in the weights
        return log

    with pytest.warns(overt.OvertWarning, match="fast path") as said:
        expected, result, _ = both(loop, make)
    assert len(said) == 1
    assert result == expected
    assert "train_loss" in captured[0].metrics
    assert "val_loss" not in captured[0].metrics


def test_every_step_of_such_a_loss_on_request(captured: list[MemoryRun]) -> None:
    log = []

    def loop(model, train_loader, val_loader, criterion, optimizer):
        total = 0
        for x, y in train_loader:
            optimizer.zero_grad()
            with torch.device("cpu"):
                loss = torch.nn.CrossEntropyLoss()(model(x), y)
            loss.backward()
            optimizer.step()
            log.append(loss.item())
            total += loss.item() * len(x)
        return total / 50

    def make() -> Parts:
        made = parts()
        made.criterion = None
        return made

    expected, _, _ = both(loop, make, every_n_steps=1)
    assert captured[0].metrics["train_loss"] == expected
    assert [value for _, value in series(captured[0], "train_loss_step")] == log[7:]


def test_the_scoped_hook_never_takes_the_place_of_the_users_own(captured: list[MemoryRun]) -> None:
    from torch.overrides import BaseTorchFunctionMode, _get_current_function_mode_stack

    def loop(model, train_loader, optimizer):
        batches = iter(train_loader)
        for _ in range(2):
            next(batches)
            optimizer.step()  # after the second it lies no longer on the stack
        with BaseTorchFunctionMode() as own:
            for x, y in train_loader:
                functional.cross_entropy(model(x), y).backward()
                optimizer.step()
                break
        assert own not in _get_current_function_mode_stack()
        for index, (x, y) in enumerate(train_loader):
            with BaseTorchFunctionMode() as own:
                functional.cross_entropy(model(x), y).backward()
                optimizer.step()
            assert own not in _get_current_function_mode_stack()
            if index == 1:
                break

    made = parts()
    with BaseTorchFunctionMode() as around:
        track_training(every_n_steps=2)(loop)(made.model, made.train_loader, made.optimizer)
        assert _get_current_function_mode_stack() == [around]


def test_every_n_steps_thins_the_series_of_steps_and_not_the_epochs(captured: list[MemoryRun]) -> None:
    expected, _, _ = both(fit, every_n_steps=5)
    assert [step for step, _ in series(captured[0], "train_loss_step")] == [0, 5, 10, 15, 20]
    assert series(captured[0], "train_loss") == [(epoch, row["train_loss"]) for epoch, row in enumerate(expected)]


def test_observe_names_what_does_not_look_like_a_loss_or_a_loader(captured: list[MemoryRun]) -> None:
    made = parts()
    batches = [(x, y) for x, y in made.train_loader]

    def loop(model, data, measure, optimizer):
        for _ in range(2):
            for x, y in data:
                optimizer.zero_grad()
                measure(model(x), y).backward()
                optimizer.step()

    def measure(out, y):
        return functional.cross_entropy(out, y)

    track_training(observe=["data", "measure"])(loop)(made.model, batches, measure, made.optimizer)
    assert series(captured[0], "n_steps") == [(0, 7), (1, 7)]
    assert len(series(captured[0], "train_loss_step")) == 14


# -- where things lie --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Bundle:
    loaders: dict[str, Any]
    criteria: tuple[Any, ...]
    optimizer: Any
    lr: float = 0.5


def test_losses_and_loaders_are_found_in_containers_which_are_left_as_they_were(captured: list[MemoryRun]) -> None:
    made = parts(functional.cross_entropy)
    bundle = Bundle({"train": made.train_loader, "val": made.val_loader}, (made.criterion, 3), made.optimizer)
    seen = []

    def loop(model, bundle):
        seen.append(bundle)
        bundle.loaders["note"] = "kept"
        fit(model, bundle.loaders["train"], bundle.loaders["val"], bundle.criteria[0], bundle.optimizer)

    track_training(loop)(made.model, bundle)
    assert seen[0] is bundle
    assert bundle.loaders == {"train": made.train_loader, "val": made.val_loader, "note": "kept"}
    assert not any(map(is_observer, [*bundle.loaders.values(), *bundle.criteria]))
    assert [step for step, _ in series(captured[0], "val_loss")] == [0, 1, 2]
    assert captured[0].params["train.batch_size"] == "8"


def test_a_method_finds_losses_and_optimizers_in_its_object(captured: list[MemoryRun]) -> None:
    class Trainer:
        def __init__(self, made: Parts) -> None:
            self.model, self.criterion, self.optimizer = made.model, made.criterion, made.optimizer

        @track_training
        def fit(self, loader, epochs):
            for _ in range(epochs):
                for x, y in loader:
                    self.optimizer.zero_grad()
                    self.criterion(self.model(x), y).backward()
                    self.optimizer.step()

    made = parts()
    Trainer(made).fit(made.train_loader, epochs=2)
    assert series(captured[0], "n_steps") == [(0, 7), (1, 7)]
    assert captured[0].params["epochs"] == "2"
    assert "model" in captured[0].models


class Sharpness(torch.optim.Optimizer):
    """SAM as its authors wrote it, as far as its steps go: ``step`` is never called."""

    def __init__(self, parameters, base, **settings):
        super().__init__(parameters, settings)
        self.base_optimizer = base(self.param_groups, **settings)

    def first_step(self):
        self.zero_grad()

    def second_step(self):
        self.base_optimizer.step()
        self.zero_grad()


def test_an_optimizer_that_steps_with_one_within_it_has_its_steps(captured: list[MemoryRun]) -> None:
    made = parts()
    log = []

    @track_training
    def train(model, loader, criterion, optimizer):
        for x, y in loader:
            first = criterion(model(x), y)
            first.backward()
            optimizer.first_step()
            second = criterion(model(x), y)
            second.backward()
            optimizer.second_step()
            log.append((first.item() + second.item()) / 2)

    optimizer = Sharpness(made.model.parameters(), torch.optim.SGD, lr=0.05)
    train(made.model, made.train_loader, made.criterion, optimizer)
    (run,) = captured
    assert series(run, "train_loss_step") == list(enumerate(map(pytest.approx, log)))
    assert (run.metrics["n_steps"], run.metrics["lr"], run.params["optimizer"]) == (7, 0.05, "Sharpness")
    assert not optimizer.base_optimizer._optimizer_step_post_hooks


class TrainsItself(torch.nn.Sequential):
    def __init__(self) -> None:
        super().__init__(torch.nn.Linear(4, 3))
        self.add_module("criterion", torch.nn.CrossEntropyLoss())

    def forward(self, x):
        return self[0](x)

    @track_training
    def fit(self, loader, epochs):
        optimizer, log = torch.optim.SGD(self.parameters(), lr=0.1), []
        for _ in range(epochs):
            total = 0.0
            for x, y in loader:
                optimizer.zero_grad()
                loss = self.criterion(self(x), y)
                loss.backward()
                optimizer.step()
                total += loss.item() * len(x)
            log.append(total / len(loader.dataset))
        return log


def test_a_module_that_trains_itself_is_the_model_and_its_loss_is_seen_at_each_step(captured: list[MemoryRun]) -> None:
    loader = DataLoader(TensorDataset(torch.randn(30, 4), torch.randint(0, 3, (30,))), batch_size=4)
    module = TrainsItself()
    log = module.fit(loader, 2)
    (run,) = captured
    assert series(run, "train_loss") == list(enumerate(log))
    assert run.params["model_type"] == "TrainsItself"
    assert run.params["criterion"] == "CrossEntropyLoss"
    saved = torch.load(io.BytesIO(run.artifacts["model/data/model.pth"]), weights_only=False)
    assert torch.equal(saved[0].weight, module[0].weight)


# -- nothing stays -----------------------------------------------------------------------------------------------------


def test_no_hook_and_no_observer_stays_behind(captured: list[MemoryRun]) -> None:
    made = parts()

    def loop(model, train_loader, val_loader, criterion, optimizer):
        fit(model, train_loader, val_loader, criterion, optimizer, epochs=1)
        return train_loader, [val_loader], {"loader": train_loader}

    returned = track_training(loop)(**made.values())
    assert returned[0] is made.train_loader
    assert not any(map(is_observer, returned))
    assert not made.criterion._forward_hooks
    assert not made.model._forward_pre_hooks
    assert not made.optimizer._optimizer_step_post_hooks
    assert not made.optimizer._optimizer_step_pre_hooks


def test_hooks_are_taken_off_after_an_error(captured: list[MemoryRun]) -> None:
    made = parts()

    def loop(model, train_loader, val_loader, criterion, optimizer):
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        track_training(loop)(**made.values())
    assert not made.criterion._forward_hooks
    assert not made.model._forward_pre_hooks
    assert not made.optimizer._optimizer_step_post_hooks


def test_copies_pickles_and_files_of_what_is_observed_are_of_the_real_object(
    captured: list[MemoryRun], tmp_path
) -> None:
    made = parts(functional.cross_entropy)
    module = torch.nn.CrossEntropyLoss()

    def loop(model, train_loader, val_loader, criterion, optimizer, other_loss):
        assert is_observer(train_loader)
        assert is_observer(criterion)
        for make in (copy.copy, copy.deepcopy, lambda value: pickle.loads(pickle.dumps(value))):
            assert type(make(train_loader)) is DataLoader
            assert make(criterion) is functional.cross_entropy
            assert type(make(model)) is torch.nn.Sequential
            make(optimizer)
        for value in (pickle.dumps(other_loss), pickle.dumps(model)):
            assert b"overt" not in value
        assert not any("overt" in type(hook).__module__ for hook in copy.deepcopy(other_loss)._forward_hooks.values())
        assert float(copy.deepcopy(other_loss)(torch.zeros(1, 2), torch.tensor([0]))) == pytest.approx(math.log(2))
        model.criterion = criterion
        torch.save(model, tmp_path / "model.pth")
        assert isinstance(train_loader, DataLoader)
        assert len(train_loader) == 7
        for _ in criterion(model(torch.zeros(1, 4)), torch.tensor([0])).reshape(1):
            pass

    track_training(loop)(**made.values(), other_loss=module)
    loaded = torch.load(tmp_path / "model.pth", weights_only=False)
    assert loaded.criterion is functional.cross_entropy


def test_after_the_call_an_observer_that_was_kept_says_nothing(captured: list[MemoryRun]) -> None:
    made = parts(functional.cross_entropy)

    def loop(model, train_loader, val_loader, criterion, optimizer):
        model.criterion = criterion
        fit(model, train_loader, val_loader, criterion, optimizer, epochs=1)

    track_training(loop)(**made.values())
    count = len(captured[0].history)
    made.model.criterion(made.model(torch.zeros(1, 4)), torch.tensor([0])).backward()
    assert len(captured[0].history) == count


# -- NaN ---------------------------------------------------------------------------------------------------------------


def diverge(model, train_loader, val_loader, criterion, optimizer, epochs=1):
    for index, (x, y) in enumerate(train_loader):
        optimizer.zero_grad()
        criterion(model(x if index < 3 else x * float("nan")), y).backward()
        optimizer.step()


def test_a_loss_that_is_no_number_is_recorded_and_said_once(captured: list[MemoryRun]) -> None:
    with pytest.warns(overt.OvertWarning, match="stop_on_nan") as said:
        track_training(diverge)(**parts().values())
    assert len(said) == 1
    assert "epoch 0, batch 3" in captured[0].tags["overt.loss_not_finite"]
    assert "step 3" in captured[0].tags["overt.loss_not_finite"]
    assert math.isnan(series(captured[0], "train_loss_step")[3][1])
    assert captured[0].status == "FINISHED"


def test_it_ends_the_training_on_request(captured: list[MemoryRun]) -> None:
    with pytest.raises(LossNotFinite, match="epoch 0, batch 3, step 3"):
        track_training(stop_on_nan=True)(diverge)(**parts().values())
    assert captured[0].status == "FAILED"
    assert "LossNotFinite" in captured[0].tags["overt.error"]
    assert "step 3" in captured[0].tags["overt.loss_not_finite"]
    assert len(series(captured[0], "train_loss_step")) == 3
    assert math.isnan(captured[0].metrics["train_loss"])


@pytest.mark.parametrize("at", [0, 3])
def test_it_ends_there_also_where_the_loss_is_no_argument(captured: list[MemoryRun], at: int) -> None:
    @track_training(stop_on_nan=True, every_n_steps=2)
    def train(model, loader, optimizer):
        for step, (x, y) in enumerate(loader):
            optimizer.zero_grad()
            functional.cross_entropy(model(x) * (math.nan if step == at else 1), y).backward()
            optimizer.step()

    made = parts()
    with pytest.raises(LossNotFinite, match=f"epoch 0, batch {at}, step {at}"):
        train(made.model, made.train_loader, made.optimizer)
    assert [step for step, _ in series(captured[0], "train_loss_step")] == list(range(0, at, 2))
    assert "overt.losses_seen" not in captured[0].tags


def test_the_gradient_norm_is_taken_at_the_steps_that_are_recorded(captured: list[MemoryRun]) -> None:
    track_training(gradient_norm=True, every_n_steps=3)(fit)(**parts().values(), epochs=1)
    losses, norms = series(captured[0], "train_loss_step"), series(captured[0], "grad_norm_step")
    assert [step for step, _ in norms] == [step for step, _ in losses] == [0, 3, 6]


# -- devices -----------------------------------------------------------------------------------------------------------


def test_no_value_is_read_between_the_ends_of_epochs(
    captured: list[MemoryRun], monkeypatch: pytest.MonkeyPatch
) -> None:
    reads = []
    for name in ("item", "cpu", "tolist", "numpy", "__float__", "__bool__", "__int__"):
        real = getattr(torch.Tensor, name)
        monkeypatch.setattr(
            torch.Tensor,
            name,
            lambda self, *a, _real=real, _name=name, **k: (reads.append(_name), _real(self, *a, **k))[1],
        )
    per_batch = []

    def loop(model, train_loader, val_loader, criterion, optimizer):
        for _ in range(2):
            for x, y in train_loader:
                before = len(reads)
                optimizer.zero_grad()
                criterion(model(x), y).backward()
                optimizer.step()
                per_batch.append(len(reads) - before)
            with torch.no_grad():
                for x, y in val_loader:
                    before = len(reads)
                    criterion(model(x), y)
                    per_batch.append(len(reads) - before)

    loop(**parts(optimizer="SGD").values())
    assert not any(per_batch)
    per_batch.clear()
    track_training(gradient_norm=True)(loop)(**parts(optimizer="SGD").values())
    ends = per_batch.pop(10)  # the first batch of the second epoch: with it the first one is over
    assert not any(per_batch)
    assert ends > 0  # what counts reads does see them


# -- what the function says itself -------------------------------------------------------------------------------------


def fit_counting_from_one(model, train_loader, val_loader, criterion, optimizer):
    for epoch in range(1, 4):
        total = count = 0
        for x, y in train_loader:
            optimizer.zero_grad()
            loss = criterion(model(x), y)
            loss.backward()
            optimizer.step()
            total, count = total + loss.item() * len(x), count + len(x)
        yield {"epoch": epoch, "train_loss": total / count, "mine": epoch}


def test_what_is_measured_is_of_the_epochs_that_the_function_counts(captured: list[MemoryRun]) -> None:
    log = list(track_training(fit_counting_from_one)(**parts().values()))
    assert series(captured[0], "train_loss") == [(row["epoch"], row["train_loss"]) for row in log]
    assert [epoch for epoch, _ in series(captured[0], "n_steps")] == [1, 2, 3]
    assert [epoch for epoch, _ in series(captured[0], "mine")] == [1, 2, 3]


def test_a_history_that_counts_from_one_is_of_the_epochs_that_were_measured(captured: list[MemoryRun]) -> None:
    @track_training
    def train(model, train_loader, val_loader, criterion, optimizer):
        return list(fit_counting_from_one(model, train_loader, val_loader, criterion, optimizer))

    history = train(**parts().values())
    assert series(captured[0], "train_loss") == [(epoch, row["train_loss"]) for epoch, row in enumerate(history)]
    assert [epoch for epoch, _ in series(captured[0], "mine")] == [0, 1, 2]


def test_what_the_function_records_itself_is_not_recorded_a_second_time(captured: list[MemoryRun]) -> None:
    @track_training
    def train(run, model, train_loader, val_loader, criterion, optimizer):
        for epoch in run.epochs(2):
            for x, y in run.batches(train_loader):
                optimizer.zero_grad()
                loss = criterion(model(x), y)
                loss.backward()
                optimizer.step()
                run.log_metric("train_loss_step", loss)
            with torch.no_grad():
                for x, y in run.batches(val_loader):
                    criterion(model(x), y)
            run.log_metrics({"train_loss": loss, "val_accuracy": 0.5, "val_f1_macro": 0.25}, epoch=epoch)

    train(**parts().values())
    run = captured[0]
    points = [(point.name, point.step) for point in run.history]
    assert len(points) == len(set(points))
    assert series(run, "val_accuracy") == [(0, 0.5), (1, 0.5)]
    assert series(run, "val_f1_macro") == [(0, 0.25), (1, 0.25)]
    assert [step for step, _ in series(run, "train_loss_step")] == list(range(14))
    assert {"val_loss", "lr", "n_steps", "samples_per_second", "epoch_seconds", "val_precision"} <= set(run.metrics)


def test_a_series_that_the_function_goes_on_with_has_one_value_an_epoch_and_the_measured_one_another_name(
    captured: list[MemoryRun],
) -> None:
    @track_training
    def train(run, model, train_loader, val_loader, criterion, optimizer):
        log = []
        for epoch in range(6):
            log += fit(model, train_loader, val_loader, criterion, optimizer, epochs=1)
            if epoch % 3 == 2:
                run.log_metric("val_loss", 7.0, epoch=epoch)
                run.log_metric("val_accuracy", 0.5, epoch=epoch)
        return [row["val_loss"] for row in log]

    measured = train(**parts().values())
    run = captured[0]
    points = [(point.name, point.step) for point in run.history]
    assert len(points) == len(set(points))
    assert series(run, "val_loss") == [*enumerate(measured[:2]), (2, 7.0), (5, 7.0)]
    assert series(run, "measured_val_loss") == list(enumerate(measured))[2:]
    assert series(run, "val_accuracy")[2:] == [(2, 0.5), (5, 0.5)]


def test_an_epoch_of_the_run_is_one_epoch_however_often_it_goes_through_its_loader(captured: list[MemoryRun]) -> None:
    @track_training
    def train(run, model, train_loader, val_loader, criterion, optimizer):
        for epoch in run.epochs(5):
            fit(model, train_loader, val_loader, criterion, optimizer, epochs=2)
            if epoch == 3:
                break

    train(**parts().values())
    run = captured[0]
    assert [step for step, _ in series(run, "epoch_seconds")] == [0, 1, 2]
    assert series(run, "n_steps") == [(0, 14), (1, 14), (2, 14), (3, 14)]
    assert run.tags["stopped_early"] == "true"


@pytest.mark.parametrize("criterion", [torch.nn.BCELoss(), torch.nn.BCEWithLogitsLoss(), torch.nn.MSELoss()])
def test_a_reconstruction_is_no_classification_and_no_regression_of_each_pixel(
    captured: list[MemoryRun], criterion: Any
) -> None:
    @track_training(log_model=False)
    def train(model, criterion, optimizer, train_loader, val_loader, epochs):
        for (x,) in train_loader:
            criterion(model(x), x).backward()
            optimizer.step()
        with torch.no_grad():
            for (x,) in val_loader:
                criterion(model(x), x)

    loader, other = (DataLoader(TensorDataset(torch.rand(20, 25)), 10) for _ in range(2))
    model = torch.nn.Sequential(torch.nn.Linear(25, 25), torch.nn.Sigmoid())
    train(model, criterion, torch.optim.SGD(model.parameters(), 0.1), loader, other, 1)
    (run,) = captured
    expected = {"train_loss", "train_loss_step", "val_loss", "epoch_seconds", "n_steps", "samples_per_second", "lr"}
    assert set(run.metrics) == expected
    assert set(run.artifacts) == {"model_summary.txt"}


@pytest.mark.parametrize("fails_in", ["training", "evaluation"])
@pytest.mark.parametrize("is_nested", [False, True])
def test_a_training_that_fails_has_the_report_of_its_last_whole_evaluation(
    captured: list[MemoryRun], fails_in: str, *, is_nested: bool
) -> None:
    @track_training
    def train(model, criterion, optimizer, train_loader, val_loader, epochs):
        for epoch in range(epochs):
            for x, y in train_loader:
                criterion(model(x), y).backward()
                optimizer.step()
                if epoch == 1 and fails_in == "training":
                    raise ValueError("now")
            with torch.no_grad():
                for x, y in val_loader:
                    criterion(model(x), y)
                    if epoch == 0 and fails_in == "evaluation":
                        raise ValueError("now")

    X = torch.randn(20, 4)
    loader, other = (DataLoader(TensorDataset(X, (X[:, 0] > 0).long()), 5) for _ in range(2))
    model = torch.nn.Linear(4, 2)
    around = overt.start_run("mine") if is_nested else contextlib.nullcontext()
    with pytest.raises(ValueError, match="now"), around:
        train(model, torch.nn.CrossEntropyLoss(), torch.optim.SGD(model.parameters(), 0.1), loader, other, 3)
    (run,) = captured
    assert run.status == "FAILED"
    assert run.models == {}
    assert ("val_confusion_matrix.json" in run.artifacts) == (fails_in == "training")
    assert ("val_f1_score" in run.metrics) == (fails_in == "training")


def changing(model, train_loader, val_loader, criterion, optimizer):
    """All that may change between one step and the next."""
    other = copy.deepcopy(criterion)
    for epoch in range(3):
        model.train()
        for number, (x, y) in enumerate(train_loader):
            optimizer.zero_grad()
            loss = criterion(model(x), y)
            if number == 1:
                model.eval()  # a loss with gradients that never goes back
                criterion(model(x), y)
                model.train()
            if number == 2:
                loss = loss + other(model(x), y) + criterion(input=model(x), target=y)
            if number == 3:
                with torch.no_grad():
                    criterion(model(x), y)
            if number == 4:
                criterion.reduction = "sum" if criterion.reduction == "mean" else "mean"
            loss.backward()
            if number != 5:  # accumulation
                optimizer.step()
            if number == 4:
                optimizer.step()  # while only the loss waits that never goes back
        if epoch == 1:
            break
        fit(model, train_loader, val_loader, criterion, optimizer, epochs=1)


def stepping_without_a_loss(model, train_loader, val_loader, criterion, optimizer):
    for _ in range(2):
        for x, y in train_loader:
            criterion(model(x), y).backward()
            optimizer.step()
            optimizer.step()


class AsksTwice(torch.optim.SGD):
    """One that may ask its closure more than once, as those that are not torch's own may."""

    def step(self, closure=None):
        if closure is not None:
            closure()
        return super().step(closure)


def asking_again(model, train_loader, val_loader, criterion, optimizer):
    for x, y in train_loader:
        for steps in range(3):
            closure = partial(_asked, model, criterion, optimizer, x, y) if steps == 2 else None
            if closure is None:
                _asked(model, criterion, optimizer, x, y)
            optimizer.step(closure)


def _asked(model, criterion, optimizer, x, y):
    optimizer.zero_grad()
    loss = criterion(model(x), y)
    loss.backward()
    return loss


@pytest.mark.filterwarnings("ignore::overt.errors.OvertWarning")
@pytest.mark.parametrize("loop", [fit, changing, stepping_without_a_loss, asking_again])
def test_the_short_way_of_a_loss_sees_what_the_long_one_sees(
    loop: Any, captured: list[MemoryRun], monkeypatch: pytest.MonkeyPatch
) -> None:
    def train() -> None:
        given = parts()
        given.optimizer = AsksTwice(given.model.parameters(), lr=0.01)
        track_training(loop)(**given.values())

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("overt.integrations.torch.session.Session._is_plain", lambda *given: False)
        train()
    taken: list[Any] = []
    train_on = Epochs.train_on
    monkeypatch.setattr(Epochs, "train_on", lambda *given, **named: taken.append(train_on(*given, **named)))
    train()
    assert taken, "no loss took the short way"
    timed = {"epoch_seconds", "samples_per_second"}
    long, short = ([(p.name, p.step, p.value) for p in run.history if p.name not in timed] for run in captured)
    assert short == long
