"""What a module logs is in the run under its own name, at its own step, to the last bit, with any logger and none."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("lightning")

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.callbacks import StochasticWeightAveraging
from lightning.pytorch.demos.boring_classes import BoringModel, DemoModel, RandomDataset
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.plugins import MixedPrecision
from lightning.pytorch.strategies import SingleDeviceStrategy
from tests.integrations.lightning_parts import (
    FILTERS,
    TREES,
    callback_of,
    classifier,
    data,
    network,
    series,
    trainer,
)

from overt.errors import OvertWarning
from overt.integrations.lightning.lightning_pytorch import TrackingCallback
from overt.integrations.lightning.measuring import device_memory
from overt.stores.memory import MemoryRun
from overt.testing import captured_runs

pytestmark = [pytest.mark.filterwarnings(each) for each in FILTERS]


@pytest.fixture
def runs() -> Iterator[list[MemoryRun]]:
    with captured_runs() as captured:
        yield captured


def hand_written_log(epochs: int) -> dict[str, list[tuple[int, float]]]:
    """The same training as a plain loop, with each loss written down as it stands."""
    net = network()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.5)
    log: dict[str, list[tuple[int, float]]] = {"train_loss_step": [], "train_loss_epoch": [], "val_loss": [], "lr": []}

    def passed(*, learns: bool) -> float:
        total, count = torch.tensor(0.0), torch.tensor(0)
        for x, y in data(22):
            with torch.set_grad_enabled(learns):
                loss = torch.nn.functional.cross_entropy(net(x), y)
            total, count = total + loss.detach() * len(x), count + len(x)
            if learns:
                rate = optimizer.param_groups[0]["lr"]
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                step = len(log["lr"]) + 1
                log["train_loss_step"].append((step, float(loss.detach())))
                log["lr"].append((step, rate))
        return float(total / count)

    for epoch in range(epochs):
        log["train_loss_epoch"].append((epoch, passed(learns=True)))
        log["val_loss"].append((epoch, passed(learns=False)))
        scheduler.step()
    return log


@pytest.mark.parametrize("tree_name", TREES)
def test_the_numbers_of_twenty_epochs_are_those_of_a_hand_written_log(runs: list[MemoryRun], tree_name: str) -> None:
    callback = callback_of(tree_name)(log_every_n_steps=1)
    trainer(callback, tree_name=tree_name, max_epochs=20).fit(classifier(tree_name)(), data(22), data(22))
    (run,) = runs
    found = series(run)
    for name, points in hand_written_log(20).items():
        assert found[name] == points, name  # 22 samples in batches of 4: the last one is smaller


@pytest.mark.parametrize("every", [1, 2, 5])
def test_step_values_are_those_that_lightnings_csv_logger_writes(
    runs: list[MemoryRun], tmp_path: Path, every: int
) -> None:
    logger = CSVLogger(tmp_path)
    trainer(TrackingCallback(), logger=logger, log_every_n_steps=every).fit(classifier()(), data(), data())
    with open(Path(logger.log_dir) / "metrics.csv") as file:
        rows = list(csv.DictReader(file))
    found = series(runs[0])
    for name, shift in (("train_loss_step", 1), ("train_loss_epoch", None), ("val_loss", None)):
        theirs = [(int(row["step"]), int(row["epoch"]), row[name]) for row in rows if row[name]]
        assert theirs
        # Lightning counts the steps before this one, overt includes it, as a checkpoint's name does
        expected = [(step + shift if shift else epoch, float(text)) for step, epoch, text in theirs]
        assert found[name] == expected


def test_nothing_is_recorded_of_the_sanity_check(runs: list[MemoryRun]) -> None:
    class Logs(classifier()):  # type: ignore[misc]
        def on_validation_epoch_end(self) -> None:
            self.log("checked", 1.0)

    trainer(TrackingCallback(), num_sanity_val_steps=2, max_epochs=1).fit(Logs(), data(), data())
    found = series(runs[0])
    assert [step for step, _ in found["val_loss"]] == [0]
    assert len(found["checked"]) == 1


def test_values_logged_in_late_hooks_stand_at_their_own_step_and_epoch(runs: list[MemoryRun]) -> None:
    class Late(classifier()):  # type: ignore[misc]
        def on_train_batch_end(self, *_: Any) -> None:
            self.log("steps_so_far", float(self.global_step), on_step=True, on_epoch=False)

        def on_train_epoch_end(self) -> None:
            self.log("epoch_so_far", float(self.current_epoch))

    trainer(TrackingCallback(log_every_n_steps=2), max_epochs=2).fit(Late(), data(), data())
    found = series(runs[0])
    assert found["steps_so_far"] == [(step, float(step)) for step in (2, 4, 6, 8, 10, 12)]
    assert found["epoch_so_far"] == [(0, 0.0), (1, 1.0)]


def test_a_value_that_was_logged_once_is_recorded_once(runs: list[MemoryRun]) -> None:
    class Seldom(classifier()):  # type: ignore[misc]
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            if batch_idx == 1:
                self.log("seldom", 7.0, on_step=True, on_epoch=False)
            return super().training_step(batch, batch_idx)

        def on_train_epoch_end(self) -> None:
            if self.current_epoch == 0:
                self.log("first_epoch_only", 1.0)

    trainer(TrackingCallback(log_every_n_steps=1), max_epochs=3).fit(Seldom(), data())
    found = series(runs[0])
    assert found["seldom"] == [(2, 7.0), (8, 7.0), (14, 7.0)]
    assert found["first_epoch_only"] == [(0, 1.0)]


def test_only_batches_that_step_are_recorded_while_gradients_accumulate(runs: list[MemoryRun]) -> None:
    trainer(TrackingCallback(log_every_n_steps=1), accumulate_grad_batches=4, max_epochs=2).fit(classifier()(), data())
    found = series(runs[0])
    assert [step for step, _ in found["train_loss_step"]] == [1, 2, 3, 4]  # of six batches the fourth and the last
    assert [step for step, _ in found["lr"]] == [1, 2, 3, 4]


def test_what_is_logged_on_a_batch_that_only_accumulates_is_of_the_step_that_follows(runs: list[MemoryRun]) -> None:
    class Odd(classifier()):  # type: ignore[misc]
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            if batch_idx % 3 == 1:
                self.log("odd", float(batch_idx))
            return super().training_step(batch, batch_idx)

    trainer(TrackingCallback(log_every_n_steps=1), accumulate_grad_batches=3, max_epochs=1).fit(Odd(), data())
    assert series(runs[0])["odd"] == [(1, 1.0), (2, 4.0)]


@pytest.mark.parametrize("is_lightnings", [True, False])
def test_a_module_that_accumulates_by_hand_has_one_value_for_each_step(
    runs: list[MemoryRun], is_lightnings: bool
) -> None:
    class ByHand(classifier()):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.automatic_optimization = False

        def training_step(self, batch: Any, batch_idx: int) -> None:
            self.log("batch", float(batch_idx))
            self.manual_backward(torch.nn.functional.cross_entropy(self(batch[0]), batch[1]))
            if batch_idx % 2 == 1:
                optimizer = self.optimizers(use_pl_optimizer=is_lightnings)
                optimizer.step()
                optimizer.zero_grad()

    trainer(TrackingCallback(log_every_n_steps=1), max_epochs=2).fit(ByHand(), data())
    found = series(runs[0])
    if is_lightnings:
        assert found["batch"] == [(0, 0.0), (1, 1.0), (2, 3.0), (3, 5.0), (4, 1.0), (5, 3.0), (6, 5.0)]
        assert [step for step, _ in found["lr"]] == list(range(7))
    else:
        assert len(found["batch"]) == 12, "Lightning counts no step there: it cannot be told which belong to one"


def test_validation_more_than_once_per_epoch_stands_at_the_optimizer_step(runs: list[MemoryRun]) -> None:
    trainer(TrackingCallback(), val_check_interval=0.5, max_epochs=2).fit(classifier()(), data(), data())
    assert [step for step, _ in series(runs[0])["val_loss"]] == [3, 6, 9, 12]


@pytest.mark.parametrize(("settings", "steps"), [({"val_check_interval": 0.5}, [3, 6, 6]), ({}, [0, 0])])
def test_a_validation_after_a_fit_stands_where_the_fits_last_one_does(
    runs: list[MemoryRun], settings: Any, steps: list[int]
) -> None:
    fitted, module = trainer(TrackingCallback(), max_epochs=1, **settings), classifier()()
    fitted.fit(module, data(), data())
    fitted.validate(module, data())
    assert [step for step, _ in series(runs[0])["val_loss"]] == steps
    assert {step for step, _ in series(runs[0])["val_accuracy"]} == {steps[-1]}


def test_a_validation_after_a_fit_without_one_stands_at_its_last_epoch(runs: list[MemoryRun]) -> None:
    fitted, module = trainer(TrackingCallback(), max_epochs=2), classifier()()
    fitted.fit(module, data())
    fitted.validate(module, data())
    assert [step for step, _ in series(runs[0])["val_loss"]] == [1]


def test_the_epoch_that_weight_averaging_adds_is_validated_as_those_before_it(runs: list[MemoryRun]) -> None:
    module = classifier()()
    module.net = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.BatchNorm1d(8), torch.nn.Linear(8, 3))
    averaging = StochasticWeightAveraging(swa_lrs=0.05, swa_epoch_start=1)
    trainer(TrackingCallback(), averaging, max_epochs=3).fit(module, data(), data())
    assert [step for step, _ in series(runs[0])["val_loss"]] == [0, 1, 2, 3]


def test_validation_every_second_epoch_stands_at_its_epoch(runs: list[MemoryRun]) -> None:
    trainer(TrackingCallback(), check_val_every_n_epoch=2, max_epochs=4).fit(classifier()(), data(), data())
    assert [step for step, _ in series(runs[0])["val_loss"]] == [1, 3]


def test_what_is_kept_from_loggers_is_not_recorded(runs: list[MemoryRun]) -> None:
    class Private(classifier()):  # type: ignore[misc]
        def validation_step(self, batch: Any, batch_idx: int) -> Any:
            self.log("private", 1.0, logger=False)
            return super().validation_step(batch, batch_idx)

    trainer(TrackingCallback(), max_epochs=1).fit(Private(), data(), data())
    assert "private" not in series(runs[0])


def test_two_validation_loaders_have_lightnings_names(runs: list[MemoryRun]) -> None:
    class Two(classifier()):  # type: ignore[misc]
        def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> Any:
            return self._step(batch, "val", on_step=True, on_epoch=True)

    trainer(TrackingCallback(), max_epochs=1).fit(Two(), data(), [data(8), data(12)])
    found = series(runs[0])
    assert len(found["val_loss_epoch/dataloader_idx_0"]) == len(found["val_loss_epoch/dataloader_idx_1"]) == 1
    assert [step for step, _ in found["val_loss_step/dataloader_idx_0"]] == [0, 1]
    assert [step for step, _ in found["val_loss_step/dataloader_idx_1"]] == [0, 1, 2]


def test_epochs_are_timed(runs: list[MemoryRun]) -> None:
    trainer(TrackingCallback(), max_epochs=2).fit(classifier()(), data(), data())
    found = series(runs[0])
    assert [step for step, _ in found["epoch_seconds"]] == [0, 1]
    for (_, seconds), (_, rate) in zip(found["epoch_seconds"], found["samples_per_second"], strict=True):
        assert rate > 24 / seconds > 0  # the time of the validation does not count


def test_the_modules_own_name_stands_against_ours(runs: list[MemoryRun]) -> None:
    class Own(classifier()):  # type: ignore[misc]
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            self.log("lr", 42.0, on_step=True, on_epoch=False)
            return super().training_step(batch, batch_idx)

    trainer(TrackingCallback(log_every_n_steps=1), max_epochs=1).fit(Own(), data())
    assert {value for _, value in series(runs[0])["lr"]} == {42.0}


def test_what_the_callback_itself_reads_from_tensors_changes_no_training() -> None:
    def weights(*callbacks: Any) -> list[torch.Tensor]:
        module = classifier()()
        torch.manual_seed(3)
        settings = {"max_epochs": 3, "gradient_clip_val": 0.5}
        trainer(*(callbacks or (_nothing(),)), **settings).fit(module, data(), data())
        return list(module.parameters())

    with captured_runs():
        tracked = weights(TrackingCallback(log_every_n_steps=1, gradient_norm=True))
    assert all(torch.equal(*pair) for pair in zip(tracked, weights(), strict=True))


def _nothing() -> Any:
    from lightning.pytorch import Callback

    return Callback()


# -- gradients and memory ----------------------------------------------------------------------------------------------


def hand_written_norms(epochs: int, *, clipped_at: float) -> list[float]:
    """The gradient norms of the same training as a plain loop, each before it is clipped."""
    net = network()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.5)
    norms = []
    for _ in range(epochs):
        for x, y in data():
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(net(x), y).backward()
            norms.append(float(torch.nn.utils.clip_grad_norm_(net.parameters(), clipped_at)))
            optimizer.step()
        scheduler.step()
    return norms


@pytest.mark.parametrize("tree_name", TREES)
def test_gradient_norms_are_those_before_clipping_at_the_steps_that_are_recorded(
    runs: list[MemoryRun], tree_name: str
) -> None:
    callback = callback_of(tree_name)(log_every_n_steps=3, gradient_norm=True)
    trainer(callback, tree_name=tree_name, gradient_clip_val=0.1).fit(classifier(tree_name)(), data())
    found, norms = series(runs[0]), hand_written_norms(2, clipped_at=0.1)
    assert min(norms) > 0.1, "clipping changes each of them"
    assert found["grad_norm_step"] == [(step, norms[step - 1]) for step in (3, 6, 9, 12)]


def test_gradient_norms_are_those_of_the_batches_that_step(runs: list[MemoryRun]) -> None:
    seen = []

    class Sees(classifier()):  # type: ignore[misc]
        def on_before_optimizer_step(self, optimizer: Any) -> None:
            seen.append(flat_norm(optimizer))

    callback = TrackingCallback(log_every_n_steps=1, gradient_norm=True)
    trainer(callback, accumulate_grad_batches=4).fit(Sees(), data())
    points = series(runs[0])["grad_norm_step"]
    assert [step for step, _ in points] == [1, 2, 3, 4]
    assert [value for _, value in points] == pytest.approx(seen)


def flat_norm(optimizer: Any) -> float:
    """The norm of all gradients of an optimizer, as one vector."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    return float(torch.cat([parameter.grad.flatten() for parameter in parameters]).norm())


def test_each_optimizer_has_its_own_gradient_norm(runs: list[MemoryRun]) -> None:
    seen: dict[str, list[float]] = {"Adam": [], "RMSprop": []}

    class Sees(Gan):
        def on_before_optimizer_step(self, optimizer: Any) -> None:
            seen[type(optimizer).__name__].append(flat_norm(optimizer))

    trainer(TrackingCallback(log_every_n_steps=2, gradient_norm=True), max_epochs=1).fit(Sees(), data(16))
    found = series(runs[0])
    for position, norms in enumerate(seen.values()):
        points = found[f"grad_norm_optimizer_{position}_step"]
        assert [step for step, _ in points] == [4, 8]
        assert [value for _, value in points] == pytest.approx(norms[1::2])
    assert "grad_norm_step" not in found


@pytest.mark.parametrize("fused", [False, True])
def test_gradient_norms_are_those_of_gradients_that_are_not_scaled(runs: list[MemoryRun], fused: bool) -> None:
    class Fused(classifier()):  # type: ignore[misc]
        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=0.0, fused=fused)

    scaling = MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu", init_scale=1024.0))
    for settings in ({}, {"plugins": [scaling]}):
        callback = TrackingCallback(log_every_n_steps=1, gradient_norm=True)
        trainer(callback, max_epochs=1, **settings).fit(Fused(), data())
    exact, scaled = ([value for _, value in series(run)["grad_norm_step"]] for run in runs)
    assert scaled == pytest.approx(exact, rel=0.02)


def test_gradients_of_which_each_rank_has_a_part_are_said_and_not_measured(runs: list[MemoryRun]) -> None:
    class FSDPStrategy(SingleDeviceStrategy):
        """Named as the one that spreads parameters over ranks."""

    fitted = trainer(TrackingCallback(log_every_n_steps=1, gradient_norm=True), strategy=FSDPStrategy("cpu"))
    with pytest.warns(OvertWarning, match="under FSDPStrategy no rank has all gradients"):
        fitted.fit(classifier()(), data())
    assert "grad_norm_step" not in series(runs[0])
    assert len(series(runs[0])["train_loss_step"]) == 12


def test_neither_gradients_nor_the_memory_of_a_cpu_are_recorded_unasked(runs: list[MemoryRun]) -> None:
    trainer(TrackingCallback(log_every_n_steps=1)).fit(classifier()(), data())
    assert not [name for name in series(runs[0]) if "norm" in name or "memory" in name]


def test_memory_of_the_device_is_recorded_at_the_end_of_each_epoch(
    runs: list[MemoryRun], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []
    peaks = iter([3_500_000, 4_000_000])
    # the processor plays a device that counts its memory: nothing of it was seen on a real one
    monkeypatch.setattr(
        torch.cpu, "max_memory_allocated", lambda device: (asked.append(device), next(peaks))[1], raising=False
    )
    monkeypatch.setattr(torch.cpu, "memory_allocated", lambda device: 2_000_000, raising=False)
    trainer(TrackingCallback()).fit(classifier()(), data())
    found = series(runs[0])
    assert found["device_memory_peak_megabytes"] == [(0, 3.5), (1, 4.0)]
    assert found["device_memory_megabytes"] == [(0, 2.0), (1, 2.0)]
    assert asked == [torch.device("cpu")] * 2


def test_memory_is_asked_of_the_very_device_and_by_what_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.max_memory_allocated", lambda device: (device.index + 1) * 1e6)
    monkeypatch.setattr("torch.cuda.memory_allocated", lambda device: device.index * 1e6)
    expected = {"device_memory_peak_megabytes": 4.0, "device_memory_megabytes": 3.0}
    assert device_memory(torch.device("cuda", 3)) == expected
    assert device_memory(torch.device("mps")) == {}, "it counts under other names"
    assert device_memory(torch.device("privateuseone")) == {}, "no module of torch is called so"


# -- Lightning's own models --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", [BoringModel, DemoModel])
def test_lightnings_own_models_are_recorded(runs: list[MemoryRun], model: Any) -> None:
    loader = torch.utils.data.DataLoader(RandomDataset(32, 6))
    trainer(TrackingCallback()).fit(model(), loader)
    (run,) = runs
    assert run.status == "FINISHED"
    assert not [name for name in run.tags if name.startswith("overt.not_recorded")]
    assert [step for step, _ in series(run)["epoch_seconds"]] == [0, 1]
    assert "model" in run.models


class Gan(LightningModule):
    """Two optimizers, stepped by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.generator, self.critic = torch.nn.Linear(2, 4), torch.nn.Linear(4, 1)

    def forward(self, noise: Any) -> Any:
        return self.generator(noise)

    def training_step(self, batch: Any, batch_idx: int) -> None:
        real, _ = batch
        generating, judging = self.optimizers()
        for name, optimizer in (("g_loss", generating), ("d_loss", judging)):
            made = self.critic(self(torch.randn(len(real), 2))).mean()
            loss = -made if name == "g_loss" else made - self.critic(real).mean()
            optimizer.zero_grad()
            self.manual_backward(loss)
            optimizer.step()
            self.log(name, loss, on_step=True, on_epoch=True)

    def configure_optimizers(self) -> Any:
        return [torch.optim.Adam(self.generator.parameters(), 0.01), torch.optim.RMSprop(self.critic.parameters(), 0.1)]


def test_a_gan_with_manual_optimization_is_recorded(runs: list[MemoryRun]) -> None:
    trainer(TrackingCallback(log_every_n_steps=1), max_epochs=1).fit(Gan(), data(16))
    (run,) = runs
    found = series(run)
    assert [step for step, _ in found["g_loss_step"]] == [2, 4, 6, 8]  # global_step counts every optimizer
    assert [step for step, _ in found["d_loss_epoch"]] == [0]
    assert {value for _, value in found["optimizer_0.lr"]} == {0.01}
    assert {value for _, value in found["optimizer_1.lr"]} == {0.1}
    assert run.params["optimizer_0"] == "Adam"
    assert run.params["optimizer_1.lr"] == "0.1"
