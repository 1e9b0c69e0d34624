"""A module that returns a loss only: what its loss is given becomes the report, and nothing else changes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("lightning")

import torch
from lightning.pytorch import Callback
from sklearn.metrics import confusion_matrix
from tests.integrations.lightning_parts import FILTERS, TREES, callback_of, classifier, data, series, trainer
from torch import nn
from torch.nn import functional
from torch.overrides import _get_current_function_mode_stack as stack

from overt.integrations.lightning.lightning_pytorch import TrackingCallback
from overt.stores.memory import MemoryRun
from overt.testing import captured_runs

pytestmark = [pytest.mark.filterwarnings(each) for each in FILTERS]

Loss = Callable[[Any, Any, Any], Any]  # of the module, x and y


@pytest.fixture
def runs() -> Iterator[list[MemoryRun]]:
    with captured_runs() as captured:
        yield captured
    assert stack() == [], "nothing of ours is left on PyTorch's stack"


def module(loss: Loss, *, tree_name: str = "lightning.pytorch", **parts: nn.Module) -> Any:
    """A module whose steps log and return a loss, and nothing else."""

    class ByLoss(classifier(tree_name)):  # type: ignore[misc]
        def _step(self, batch: Any, stage: str, **how: Any) -> Any:
            value = loss(self, *batch)
            self.log(f"{stage}_loss", value, **how)
            return value

    made = ByLoss()
    for name, part in parts.items():
        setattr(made, name, part)
    return made


def by_function(self: Any, x: Any, y: Any) -> Any:
    return functional.cross_entropy(self(x), y)


def by_criterion(self: Any, x: Any, y: Any) -> Any:
    return self.criterion(self(x), target=y)


def unknown(self: Any, x: Any, y: Any) -> Any:
    return -self(x).log_softmax(1)[torch.arange(len(y)), y].mean()


@pytest.mark.parametrize("loss", [by_function, by_criterion])
@pytest.mark.parametrize("tree_name", TREES)
def test_a_loss_of_a_classification_makes_the_reports(runs: list[MemoryRun], tree_name: str, loss: Loss) -> None:
    trained = module(loss, tree_name=tree_name, criterion=nn.CrossEntropyLoss())
    fitted = trainer(callback_of(tree_name)(class_names=["a", "b", "c"]), tree_name=tree_name)
    fitted.fit(trained, data(), data())
    fitted.test(trained, data(40))
    (run,) = runs

    features, truth = data(40).dataset.tensors
    table = json.loads(run.artifacts["confusion_matrix.json"])
    assert table == {**table, "labels": ["a", "b", "c"]}
    assert table["matrix"] == confusion_matrix(truth, trained(features).argmax(1)).tolist()
    assert run.metrics["log_loss"] == pytest.approx(run.metrics["test_loss"], rel=1e-6)
    assert run.metrics["val_log_loss"] == pytest.approx(run.metrics["val_loss"], rel=1e-6)
    assert {"roc_curve.png", "val_roc_curve.png"} <= run.figures.keys()
    assert "overt.not_evaluated" not in run.tags


def test_targets_that_a_loss_ignores_are_in_no_report(runs: list[MemoryRun]) -> None:
    trained = module(by_criterion, criterion=nn.CrossEntropyLoss(ignore_index=1))
    trainer(TrackingCallback()).test(trained, data(40), verbose=False)
    features, truth = data(40).dataset.tensors
    is_meant = truth != 1
    right = (trained(features).argmax(1) == truth)[is_meant]
    assert runs[0].metrics["accuracy"] == pytest.approx(right.float().mean().item())
    assert f"{(~is_meant).sum()} samples" in runs[0].tags["overt.notes.test_report"]


def test_a_binary_loss_makes_a_report(runs: list[MemoryRun]) -> None:
    def loss(self: Any, x: Any, y: Any) -> Any:
        return self.criterion(self(x)[:, :1], (y > 0).float()[:, None])

    tested = module(loss, criterion=nn.BCEWithLogitsLoss())
    trainer(TrackingCallback()).test(tested, data())
    features, classes = data().dataset.tensors
    right = (tested(features)[:, 0] > 0) == (classes > 0)
    assert runs[0].metrics["accuracy"] == float(right.double().mean())
    assert runs[0].metrics["log_loss"] == pytest.approx(runs[0].metrics["test_loss"], rel=1e-6)


def test_a_loss_of_a_regression_makes_a_report(runs: list[MemoryRun]) -> None:
    trainer(TrackingCallback()).test(module(lambda self, x, y: functional.mse_loss(self(x)[:, 0], x[:, 1])), data())
    assert runs[0].metrics["mse"] == pytest.approx(runs[0].metrics["test_loss"], rel=1e-6)
    assert "residuals.png" in runs[0].figures


def test_of_several_losses_the_last_of_a_classification_is_taken_and_it_is_said(runs: list[MemoryRun]) -> None:
    def loss(self: Any, x: Any, y: Any) -> Any:
        logits = self(x)
        total = functional.cross_entropy(-logits, y) + functional.cross_entropy(logits, y)
        return total + functional.mse_loss(logits[:, 0], x[:, 0])

    tested = module(loss)
    trainer(TrackingCallback()).test(tested, data())
    features, truth = data().dataset.tensors
    assert runs[0].metrics["accuracy"] == float((tested(features).argmax(1) == truth).double().mean())
    assert "several losses" in runs[0].tags["overt.notes.test_report"]


def test_what_is_returned_wins_and_no_loss_is_watched_from_then_on(runs: list[MemoryRun]) -> None:
    depths: list[int] = []

    class Returns(classifier()):  # type: ignore[misc]
        def test_step(self, batch: Any, batch_idx: int) -> Any:
            depths.append(len(stack()))
            loss = functional.cross_entropy(-self(batch[0]), batch[1])
            return {"loss": loss, "logits": self(batch[0]), "target": batch[1]}

    fitted, tested = trainer(TrackingCallback()), Returns()
    fitted.fit(tested, data())
    fitted.test(tested, data())
    fitted.test(tested, data())
    features, truth = data().dataset.tensors
    assert runs[0].metrics["accuracy"] == float((tested(features).argmax(1) == truth).double().mean())
    assert depths == [1] + [0] * 11, "six batches in each test"


def test_losses_are_watched_in_batches_of_evaluations_only(runs: list[MemoryRun]) -> None:
    depths: dict[str, set[int]] = {}

    def loss(self: Any, x: Any, y: Any) -> Any:
        stage = "sanity" if self.trainer.sanity_checking else self.trainer.state.stage.value
        depths.setdefault(stage, set()).add(len(stack()))
        return by_function(self, x, y)

    class Looks(type(module(loss))):  # type: ignore[misc]
        def on_validation_epoch_end(self) -> None:
            depths.setdefault("between", set()).add(len(stack()))

        def predict_step(self, batch: Any, batch_idx: int) -> Any:
            depths.setdefault("predict", set()).add(len(stack()))
            return batch[0]

    fitted, watched = trainer(TrackingCallback()), Looks()
    fitted.fit(watched, data(), data())
    fitted.test(watched, data())
    fitted.predict(watched, data())
    expected = {"sanity": {0}, "train": {0}, "validate": {1}, "between": {0}, "test": {1}, "predict": {0}}
    assert depths == expected
    depths.clear()
    trainer(TrackingCallback(evaluate=False)).test(watched, data())
    assert depths == {"test": {0}}


def test_where_no_loss_is_seen_the_advice_is_given_once_and_watching_ends(runs: list[MemoryRun]) -> None:
    depths: list[int] = []

    def loss(self: Any, x: Any, y: Any) -> Any:
        depths.append(len(stack()))
        return unknown(self, x, y)

    trainer(TrackingCallback()).test(module(loss), data())
    assert runs[0].tags["overt.not_evaluated"].endswith("from test_step")
    assert "accuracy" not in runs[0].metrics
    assert depths == [1, 0, 0, 0, 0, 0]


@pytest.mark.parametrize(
    "loss",
    [
        lambda self, x, y: functional.binary_cross_entropy(self(x)[:, :2].sigmoid(), x[:, :2].sigmoid()),
        lambda self, x, y: functional.cross_entropy(x @ x.T, torch.arange(len(x))),
        lambda self, x, y: functional.mse_loss(self(x).repeat(1, 8), x[:, :3].repeat(1, 8)),
        lambda self, x, y: functional.mse_loss(x.reshape(-1, 2, 2), x.reshape(-1, 2, 2)),
    ],
    ids=["shades of grey", "similarities within a batch", "reconstruction", "pixels"],
)
def test_what_only_looks_like_predictions_makes_no_report(runs: list[MemoryRun], loss: Loss) -> None:
    trainer(TrackingCallback()).test(module(loss), data(26))
    assert not [name for name in runs[0].metrics if name in ("accuracy", "rmse")]
    assert not [name for name in runs[0].tags if "not_recorded" in name]
    assert "overt.not_evaluated" in runs[0].tags


def test_weights_and_logged_values_are_those_without_the_callback(runs: list[MemoryRun]) -> None:
    def trained(callback: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        fitted, made = trainer(callback), module(by_function)
        fitted.fit(made, data(), data())
        fitted.test(made, data())
        return made.state_dict(), fitted.callback_metrics

    (weights, logged), (bare_weights, bare_logged) = trained(TrackingCallback()), trained(Callback())
    assert "val_accuracy" in runs[0].metrics
    assert all(torch.equal(value, bare_weights[name]) for name, value in weights.items())
    assert logged == bare_logged
    assert series(runs[0])["test_loss"] == [(2, float(bare_logged["test_loss"]))]


def test_attention_keeps_its_fast_path(runs: list[MemoryRun]) -> None:
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(16, 4, batch_first=True)
    depths: list[int] = []

    def loss(self: Any, x: Any, y: Any) -> Any:
        depths.append(len(stack()))
        return functional.cross_entropy(self.layer(x.repeat(1, 4)[:, None])[:, 0], y)

    trainer(TrackingCallback()).test(module(loss, layer=layer), data())
    assert set(depths) == {0}
    assert "overt.not_evaluated" in runs[0].tags


def test_what_is_compiled_runs_as_it_is(runs: list[MemoryRun]) -> None:
    made = module(by_function)
    made.net.compile(backend="eager")
    fitted = trainer(TrackingCallback())
    fitted.fit(made, data(), data())
    assert runs[0].status == "FINISHED"
    assert "overt.not_evaluated" in runs[0].tags, "a mode would have it compiled once more"


@pytest.mark.parametrize("error", [ValueError("the user's"), KeyboardInterrupt()], ids=repr)
def test_an_exception_in_a_step_leaves_nothing_on_the_stack(runs: list[MemoryRun], error: BaseException) -> None:
    def loss(self: Any, x: Any, y: Any) -> Any:
        assert len(stack()) == 1
        raise error

    with pytest.raises((type(error), SystemExit)):
        trainer(TrackingCallback()).test(module(loss), data())
    assert stack() == []
    assert runs[0].status in ("FAILED", "KILLED")


def test_nothing_is_read_from_a_device_while_losses_are_watched(
    runs: list[MemoryRun], monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: list[str] = []

    class Counts(type(module(by_function))):  # type: ignore[misc]
        def on_test_epoch_start(self) -> None:
            for name in ("item", "cpu", "tolist", "numpy"):
                real = getattr(torch.Tensor, name)
                monkeypatch.setattr(
                    torch.Tensor, name, lambda t, *a, _n=name, _f=real, **k: (reads.append(_n), _f(t, *a, **k))[1]
                )

        def on_test_epoch_end(self) -> None:
            monkeypatch.undo()

    trainer(TrackingCallback(), num_sanity_val_steps=0).test(Counts(), data())
    assert reads == []
    assert "accuracy" in runs[0].metrics
