"""What else a fit leaves in its run: params, evaluation, model, checkpoint, configuration."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("lightning")

import lightning
import torch
from lightning.pytorch import LightningDataModule
from lightning.pytorch.callbacks import BatchSizeFinder, EarlyStopping, LearningRateFinder, ModelCheckpoint
from sklearn.metrics import confusion_matrix, f1_score
from tests.integrations.lightning_parts import FILTERS, TREES, callback_of, classifier, data, series, trainer, tree
from torch.utils.data import DataLoader

from overt.errors import OvertWarning
from overt.integrations.lightning.evaluated import EvaluatedData
from overt.integrations.lightning.lightning_pytorch import TrackingCallback
from overt.integrations.lightning.models import candidates_in
from overt.stores.memory import MemoryRun
from overt.testing import captured_runs

pytestmark = [pytest.mark.filterwarnings(each) for each in FILTERS]


@pytest.fixture
def runs() -> Iterator[list[MemoryRun]]:
    with captured_runs() as captured:
        yield captured


# -- params ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_finder_first", [True, False])
@pytest.mark.parametrize("has_scheduler", [True, False])
def test_the_optimizer_is_described_as_a_learning_rate_finder_has_left_it(
    runs: list[MemoryRun], has_scheduler: bool, is_finder_first: bool
) -> None:
    class Searched(classifier()):  # type: ignore[misc]
        def configure_optimizers(self) -> Any:
            optimizers, schedulers = super().configure_optimizers()
            return (optimizers, schedulers) if has_scheduler else optimizers

    callbacks = [TrackingCallback(log_every_n_steps=1), LearningRateFinder(num_training_steps=30)]
    fitted = trainer(*callbacks[:: -1 if is_finder_first else 1], max_epochs=1)
    fitted.fit(Searched(lr=0.0123), data(480))
    (run,) = runs
    assert run.params["lr"] == "0.0123", "as the module was made"
    trained_with = series(run)["lr"][0][1]
    assert float(run.params.get("optimizer.lr", "0.0123")) == trained_with
    assert (trained_with != 0.0123) == (not lightning.__version__.startswith("2.4")), "2.4 forgets what it has found"
    assert run.params["momentum"] == "0.9"


def test_a_vocabulary_among_the_hyper_parameters_is_one_param(runs: list[MemoryRun]) -> None:
    class Reading(classifier()):  # type: ignore[misc]
        def __init__(self, words: dict[str, int]) -> None:
            super().__init__()
            self.save_hyperparameters()

    trainer(TrackingCallback(), max_epochs=1).fit(Reading({f"word_{index}": index for index in range(3000)}), data())
    assert "2990 more" in runs[0].params["words"]
    assert not [name for name in runs[0].params if name.startswith("words.")]


def test_a_batch_size_that_was_found_does_not_change_the_one_that_was_given(runs: list[MemoryRun]) -> None:
    class Sized(lightning.LightningDataModule):
        def __init__(self, batch_size: int = 2) -> None:
            super().__init__()
            self.save_hyperparameters()

        def train_dataloader(self) -> Any:
            return data(batch_size=self.hparams.batch_size)

        val_dataloader = train_dataloader

    sized = Sized()
    trainer(TrackingCallback(), BatchSizeFinder(max_trials=2)).fit(classifier()(), sized)
    found = sized.hparams.batch_size  # 4 or 8: versions of Lightning differ in what they call found
    assert found > 2
    assert (runs[0].params["batch_size"], runs[0].params["loader.batch_size"]) == ("2", str(found))
    assert not [tag for tag in runs[0].tags if tag.startswith("param_drift")]


def test_a_fit_that_fails_before_its_first_step_has_its_optimizer_described(runs: list[MemoryRun]) -> None:
    class Unsound(classifier()):  # type: ignore[misc]
        def validation_step(self, batch: Any, batch_idx: int) -> Any:
            raise RuntimeError("in the sanity check")

    with pytest.raises(RuntimeError, match="in the sanity check"):
        trainer(TrackingCallback()).fit(Unsound(), data(), data())
    assert runs[0].params["optimizer"] == "SGD"


def test_params_say_what_was_trained_and_how(runs: list[MemoryRun]) -> None:
    class Data(LightningDataModule):
        def __init__(self, folds: int = 5) -> None:
            super().__init__()
            self.save_hyperparameters()

        def train_dataloader(self) -> Any:
            return data(batch_size=8)

    stopping, keeping = EarlyStopping("train_loss", patience=7), ModelCheckpoint(monitor="train_loss", save_top_k=2)
    fitted = trainer(TrackingCallback(), stopping, keeping, enable_checkpointing=True, gradient_clip_val=0.5)
    fitted.fit(classifier()(lr=0.3), datamodule=Data())
    expected = {
        "model_type": "Classifier",
        "lr": "0.3",
        "returns": "logits",
        "folds": "5",
        "optimizer": "SGD",
        "momentum": "0.9",
        "scheduler": "StepLR",
        "scheduler.step_size": "1",
        "scheduler.gamma": "0.5",
        "scheduler.interval": "epoch",
        "max_epochs": "2",
        "precision": "32-true",
        "gradient_clip_val": "0.5",
        "strategy": "SingleDeviceStrategy",
        "num_devices": "1",
        "early_stopping.monitor": "train_loss",
        "early_stopping.patience": "7",
        "checkpoint.monitor": "train_loss",
        "checkpoint.save_top_k": "2",
        "batch_size": "8",
        "n_params": "67",
        "n_trainable_params": "67",
        "model_size_bytes": "268",
    }
    params = runs[0].params
    assert {name: params.get(name) for name in expected} == expected
    assert b"Linear" in runs[0].artifacts["model_summary.txt"]
    assert not [name for name in runs[0].tags if name.startswith("param_drift")]


def test_names_that_two_things_claim_are_told_apart(runs: list[MemoryRun]) -> None:
    class Claims(classifier()):  # type: ignore[misc]
        def __init__(self, max_epochs: int = 99, momentum: float = 0.5) -> None:
            super().__init__()
            self.save_hyperparameters()

    trainer(TrackingCallback()).fit(Claims(), data())
    params = runs[0].params
    assert (params["max_epochs"], params["trainer.max_epochs"]) == ("99", "2")
    assert (params["momentum"], params["optimizer.momentum"]) == ("0.5", "0.9")


def test_hyperparameters_that_are_kept_from_loggers_are_not_recorded(runs: list[MemoryRun]) -> None:
    class Private(tree("lightning.pytorch").LightningModule):  # type: ignore[misc]
        def __init__(self, private: int = 1) -> None:
            super().__init__()
            self.save_hyperparameters(logger=False)
            self.net = torch.nn.Linear(4, 3)

        def forward(self, x: Any) -> Any:
            return self.net(x)

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            return self(batch[0]).mean()

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), 0.1)

    trainer(TrackingCallback()).fit(Private(), data())
    assert "private" not in runs[0].params
    assert runs[0].params["model_type"] == "Private"


# -- evaluation --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tree_name", TREES)
def test_what_steps_return_becomes_reports(runs: list[MemoryRun], tree_name: str) -> None:
    names = ["none", "one", "both"]
    fitted, module = trainer(callback_of(tree_name)(class_names=names), tree_name=tree_name), classifier(tree_name)()
    fitted.fit(module, data(), data())
    fitted.test(module, data(40))
    (run,) = runs

    features, truth = data(40).dataset.tensors
    predicted = module(features).argmax(1)
    table = json.loads(run.artifacts["confusion_matrix.json"])
    assert table["labels"] == names
    assert table["matrix"] == confusion_matrix(truth, predicted).tolist()
    assert run.metrics["f1_score"] == pytest.approx(f1_score(truth, predicted, average="weighted"))
    assert run.metrics["accuracy"] == float((truth == predicted).double().mean())
    assert run.metrics["log_loss"] == pytest.approx(run.metrics["test_loss"], rel=1e-6)
    assert run.metrics["val_log_loss"] == pytest.approx(run.metrics["val_loss"], rel=1e-6)
    assert series(run)["val_accuracy"][0][0] == 1, "the last validation, at its epoch"
    for name in ("confusion_matrix.png", "roc_curve.png", "precision_recall_curve.png", "calibration_curve.png"):
        assert {name, f"val_{name}"} <= run.figures.keys()
    assert "classification_report.csv" in run.artifacts
    assert "softmax was taken" in run.tags["overt.notes.test_report"]


def test_what_a_module_logs_itself_stands_against_the_report(runs: list[MemoryRun]) -> None:
    class Own(classifier()):  # type: ignore[misc]
        def validation_step(self, batch: Any, batch_idx: int) -> Any:
            self.log_dict({"val_accuracy": 7.0, "accuracy": 8.0})
            return super().validation_step(batch, batch_idx)

    fitted, module = trainer(TrackingCallback()), Own()
    fitted.fit(module, data(), data())
    fitted.test(module, data())
    found = series(runs[0])
    assert found["val_accuracy"] == [(0, 7.0), (1, 7.0)]
    assert found["accuracy"] == [(0, 8.0), (1, 8.0)]
    assert 0 <= found["test_accuracy"][0][1] <= 1


def test_predictions_of_numbers_are_a_regression(runs: list[MemoryRun]) -> None:
    class Regressor(classifier()):  # type: ignore[misc]
        def test_step(self, batch: Any, batch_idx: int) -> Any:
            return {"y_hat": batch[0][:, :1], "y": batch[0][:, 1]}

    trainer(TrackingCallback()).test(Regressor(), data())
    assert {"rmse", "mae", "r2"} <= runs[0].metrics.keys()
    assert "residuals.png" in runs[0].figures


def test_each_test_loader_has_a_report(runs: list[MemoryRun]) -> None:
    class Two(classifier()):  # type: ignore[misc]
        def test_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> Any:
            return super().test_step(batch, batch_idx)

    trainer(TrackingCallback()).test(Two(), [data(8), data(16)])
    assert {"dataloader_0_accuracy", "dataloader_1_accuracy"} <= runs[0].metrics.keys()
    assert "dataloader_1_confusion_matrix.json" in runs[0].artifacts


def test_one_line_says_what_to_return_for_a_report(
    runs: list[MemoryRun], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OVERT_QUIET")

    class Margin(classifier()):  # type: ignore[misc]
        def test_step(self, batch: Any, batch_idx: int) -> Any:
            return self(batch[0]).max()  # no loss that is known

    trainer(TrackingCallback()).test(Margin(), data())
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("overt: to get")]
    assert len(lines) == 1
    assert '"target": y}' in lines[0]
    assert lines[0].endswith("from test_step")
    assert runs[0].tags["overt.not_evaluated"] == lines[0].removeprefix("overt: ")
    trainer(TrackingCallback(evaluate=False)).test(classifier()(), data())
    assert "overt: to get" not in capsys.readouterr().err
    assert "accuracy" not in runs[1].metrics
    assert "overt.not_evaluated" not in runs[1].tags


def test_outputs_that_fit_no_problem_are_said_and_stop_nothing(runs: list[MemoryRun]) -> None:
    class Segments(classifier()):  # type: ignore[misc]
        def test_step(self, batch: Any, batch_idx: int) -> Any:
            return {"logits": torch.zeros(len(batch[0]), 3, 5, 5), "target": torch.zeros(len(batch[0]), 5, 5).long()}

    with pytest.warns(OvertWarning, match="flatten them before they are returned"):
        trainer(TrackingCallback()).test(Segments(), data())
    assert runs[0].status == "FINISHED"


# -- model -------------------------------------------------------------------------------------------------------------


def loaded(run: MemoryRun) -> Any:
    return torch.load(io.BytesIO(run.artifacts["model/data/model.pth"]), weights_only=False)


def test_the_last_weights_are_the_model_with_a_signature_from_a_real_batch(runs: list[MemoryRun]) -> None:
    module = classifier()()
    trainer(TrackingCallback()).fit(module, data())
    (run,) = runs
    features = data().dataset.tensors[0]
    assert torch.equal(loaded(run)(features), module(features))
    signature = run.models["model"].signature
    assert json.loads(signature["inputs"])[0]["tensor-spec"] == {"dtype": "float32", "shape": [-1, 4]}
    assert json.loads(signature["outputs"])[0]["tensor-spec"] == {"dtype": "float32", "shape": [-1, 3]}
    assert "model/input_example.json" in run.artifacts
    assert module._trainer is not None, "the module itself is left as it is"


@pytest.mark.parametrize("names", [None, ("features", "labels")])
def test_a_forward_that_takes_the_whole_batch_has_a_signature_too(
    runs: list[MemoryRun], names: tuple[str, str] | None
) -> None:
    class OfTuples(classifier()):  # type: ignore[misc]
        def forward(self, batch: Any) -> Any:
            x, _ = batch
            logits = self.net(x)
            return logits, logits.softmax(1)

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            return torch.nn.functional.cross_entropy(self(batch)[0], batch[1])

    class OfDicts(OfTuples):
        def forward(self, **batch: Any) -> Any:
            return super().forward(batch.values())

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            return torch.nn.functional.cross_entropy(self(**batch)[0], batch["labels"])

    loader, module = data(), OfTuples()
    if names is not None:
        module = OfDicts()
        loader = DataLoader([dict(zip(names, sample, strict=True)) for sample in loader.dataset], batch_size=4)
    trainer(TrackingCallback()).fit(module, loader)
    signature = runs[0].models["model"].signature
    found = [[part["name"] for part in json.loads(signature[side])] for side in ("inputs", "outputs")]
    assert found == [list(names or ("input_0", "input_1")), ["output_0", "output_1"]]


class Graph:
    """As PyTorch Geometric's: some methods of a tensor, and no dimensions."""

    def __init__(self, samples: list[Any]) -> None:
        self.x, self.y = (torch.stack(parts) for parts in zip(*samples, strict=True))

    def to(self, *args: Any, **kwargs: Any) -> Graph:
        return self

    def detach(self) -> Graph:
        return self


def test_a_batch_of_graphs_is_trained_on_without_a_warning(runs: list[MemoryRun]) -> None:
    class OfGraphs(classifier()):  # type: ignore[misc]
        def _step(self, batch: Any, stage: str, **how: Any) -> Any:
            return super()._step((batch.x, batch.y), stage, batch_size=len(batch.y), **how)

    graphs, module = DataLoader(data().dataset, 4, collate_fn=Graph), OfGraphs()
    fitted = trainer(TrackingCallback())
    fitted.fit(module, graphs, graphs)
    fitted.validate(module, graphs, verbose=False)
    assert not [name for name in runs[0].tags if name.startswith("overt.not_recorded")]
    assert "no signature" in runs[0].tags["overt.model_note"]


def test_the_example_is_the_batch_as_it_came(runs: list[MemoryRun]) -> None:
    class Overwrites(classifier()):  # type: ignore[misc]
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            loss = super().training_step([batch[0].clone(), batch[1]], batch_idx)
            batch[0].zero_()
            return loss

    trainer(TrackingCallback()).fit(Overwrites(), data())
    example = json.loads(runs[0].artifacts["model/input_example.json"])
    assert torch.equal(torch.tensor(example), data().dataset.tensors[0][:4])


def test_the_best_weights_are_the_model_on_request(runs: list[MemoryRun]) -> None:
    class Worsens(classifier()):  # type: ignore[misc]
        def on_validation_epoch_end(self) -> None:
            self.log("badness", float(self.current_epoch))
            if self.current_epoch == 0 and not self.trainer.sanity_checking:
                self.best = {name: value.clone() for name, value in self.state_dict().items()}

    module, keeping = Worsens(), ModelCheckpoint(monitor="badness", save_top_k=1)
    fitted = trainer(TrackingCallback(log_model="best"), keeping, enable_checkpointing=True, max_epochs=3)
    fitted.fit(module, data(), data())
    (run,) = runs
    saved = loaded(run).state_dict()
    assert all(torch.equal(saved[name], value) for name, value in module.best.items())
    assert not torch.equal(saved["net.0.weight"], module.net[0].weight)
    name = Path(keeping.best_model_path).name
    assert run.artifacts[f"checkpoints/{name}"] == Path(keeping.best_model_path).read_bytes()
    assert run.tags["overt.best_checkpoint"] == f"checkpoints/{name}"


def test_of_several_checkpoints_the_best_is_of_one_that_watches_a_metric(runs: list[MemoryRun], tmp_path: Path) -> None:
    class Worsens(classifier()):  # type: ignore[misc]
        def on_validation_epoch_end(self) -> None:
            self.log("badness", float(self.current_epoch))

    keeping = [ModelCheckpoint(tmp_path, every_n_train_steps=4), ModelCheckpoint(tmp_path, monitor="badness")]
    fitted = trainer(TrackingCallback(log_model="best"), *keeping, enable_checkpointing=True, max_epochs=3)
    fitted.fit(Worsens(), data(), data())
    assert runs[0].tags["overt.best_checkpoint"] == f"checkpoints/{Path(keeping[1].best_model_path).name}"
    assert Path(keeping[1].best_model_path).name.startswith("epoch=0")


def test_a_module_that_keeps_an_output_with_its_graph_has_its_best_weights_saved(runs: list[MemoryRun]) -> None:
    class Keeping(classifier()):  # type: ignore[misc]
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            self.kept = [super().training_step(batch, batch_idx)]
            return self.kept[0]

    module, keeping = Keeping(), ModelCheckpoint(monitor="val_loss", mode="max")
    trainer(TrackingCallback(log_model="best"), keeping, enable_checkpointing=True).fit(module, data(), data())
    best = torch.load(keeping.best_model_path, weights_only=False)["state_dict"]
    assert torch.equal(loaded(runs[0]).net[0].weight, best["net.0.weight"])
    assert not torch.equal(module.net[0].weight, best["net.0.weight"])


def test_without_a_checkpoint_the_best_is_the_last_and_that_is_said(runs: list[MemoryRun]) -> None:
    module = classifier()()
    with pytest.warns(OvertWarning, match="the last weights were recorded instead") as warned:
        trainer(TrackingCallback(log_model="best")).fit(module, data())
    assert [each.filename for each in warned if each.category is OvertWarning] == [__file__], "not one of Lightning's"
    assert torch.equal(loaded(runs[0]).net[0].weight, module.net[0].weight)
    assert "the last weights" in runs[0].tags["overt.model_note"]


def test_the_best_of_an_earlier_fit_is_not_that_of_the_next(runs: list[MemoryRun]) -> None:
    class Graded(classifier()):  # type: ignore[misc]
        def on_validation_epoch_end(self) -> None:
            self.log("badness", self.hparams.lr)

    keeping = ModelCheckpoint(monitor="badness")
    fitted = trainer(TrackingCallback(log_model="best"), keeping, enable_checkpointing=True, max_epochs=1)
    fitted.fit(Graded(lr=0.1), data(), data())
    fitted.fit_loop.epoch_progress.reset()
    worse = Graded(lr=0.2)
    with pytest.warns(OvertWarning, match="found the best checkpoint of an earlier fit"):
        fitted.fit(worse, data(), data())
    first, second = runs
    assert first.tags["overt.best_checkpoint"] == f"checkpoints/{Path(keeping.best_model_path).name}"
    assert "overt.best_checkpoint" not in second.tags
    assert not [name for name in second.artifacts if name.startswith("checkpoints/")]
    assert torch.equal(loaded(second).net[0].weight, worse.net[0].weight)


@pytest.mark.parametrize(("more", "mode"), [(0, "min"), (1, "min"), (1, "max")])
def test_the_best_of_the_same_run_stays_when_it_goes_on(
    runs: list[MemoryRun], tmp_path: Path, more: int, mode: str
) -> None:
    def fit(lr: float, **how: Any) -> Any:
        keeping = ModelCheckpoint(tmp_path, monitor="val_loss", mode=mode, save_last=True)
        callback = TrackingCallback(log_model="best")
        settings = {"enable_checkpointing": True, "max_epochs": how.pop("max_epochs")}
        trainer(callback, keeping, **settings).fit(classifier()(lr=lr), data(), data(), **how)
        return keeping

    fit(0.1, max_epochs=1)
    best = fit(0.1, max_epochs=1 + more, ckpt_path=str(tmp_path / "last.ckpt")).best_model_path
    (run,) = runs
    assert run.tags["overt.best_checkpoint"] == f"checkpoints/{Path(best).name}"
    weights = torch.load(best, weights_only=True)["state_dict"]["net.0.weight"]
    assert torch.equal(loaded(run).net[0].weight, weights)


def test_no_model_and_no_checkpoint_are_recorded_on_request(runs: list[MemoryRun]) -> None:
    trainer(TrackingCallback(log_model=False), enable_checkpointing=True).fit(classifier()(), data())
    assert runs[0].models == {}
    assert not [path for path in runs[0].artifacts if path.startswith("checkpoints/")]


def test_test_scores_belong_to_the_model_that_was_tested(runs: list[MemoryRun]) -> None:
    fitted, module = trainer(TrackingCallback(), enable_checkpointing=True, max_epochs=2), classifier()()
    fitted.fit(module, data(), data())
    fitted.test(module, data())
    scores = [point for point in runs[0].history if point.name == "accuracy"]
    assert [point.model for point in scores] == ["model"]
    fitted.test(module, data(), ckpt_path="best")
    scores = [point for point in runs[0].history if point.name == "accuracy"]
    assert scores[-1].model is None, "other weights than the recorded ones"
    fitted.test(module, data())
    scores = [point for point in runs[0].history if point.name == "accuracy"]
    assert scores[-1].model is None, "the module still has the checkpoint's weights"

    best = trainer(TrackingCallback(log_model="best"), enable_checkpointing=True, max_epochs=2)
    best.fit(module, data(), data())
    best.test(module, data())
    best.test(module, data(), ckpt_path="best")
    assert [point.model for point in runs[1].history if point.name == "accuracy"] == [None, "model"]


@pytest.mark.parametrize("tree_name", TREES)
def test_other_data_are_tested_under_names_of_their_own(runs: list[MemoryRun], tree_name: str) -> None:
    class Stepwise(classifier(tree_name)):  # type: ignore[misc]
        def test_step(self, batch: Any, batch_idx: int) -> Any:
            self.log("seen", float(batch_idx), on_step=True, on_epoch=False)
            return super().test_step(batch, batch_idx)

    fitted, module = trainer(callback_of(tree_name)(), tree_name=tree_name, max_epochs=1), Stepwise()
    fitted.fit(module, data())
    fitted.test(module, data(24))
    (run,) = runs
    first = json.loads(run.artifacts["confusion_matrix.json"])
    with pytest.warns(
        OvertWarning, match=r"test\(\) was called on other data than before: recorded as test_2_… in run"
    ):
        fitted.test(module, data(16))
    fitted.test(module, data(16))
    fitted.test(module, data(24))
    found = series(run)
    assert len(found["test_loss"]) == len(set(found["test_loss"])) + 1 == 2, "the same data replace themselves"
    assert len(set(found["test_2_loss"])) == len(set(found["test_2_accuracy"])) == 1
    assert found["test_2_accuracy"] != found["accuracy"]
    assert [step for step, _ in found["seen"]] == list(range(12))
    assert [step for step, _ in found["test_2_seen"]] == list(range(8))
    assert json.loads(run.artifacts["confusion_matrix.json"]) == first
    assert "test_2_confusion_matrix.json" in run.artifacts


def test_other_data_than_the_fits_are_validated_under_names_of_their_own(runs: list[MemoryRun]) -> None:
    fitted, module = trainer(TrackingCallback(), max_epochs=2), classifier()()
    fitted.fit(module, data(), data(16))
    with pytest.warns(
        OvertWarning, match=r"validate\(\) was called on other data than before: recorded as val_2_… in run"
    ):
        fitted.validate(module, data())
    fitted.validate(module, data(16))
    found = series(runs[0])
    assert [step for step, _ in found["val_loss"]] == [0, 1, 1]
    assert [step for step, _ in found["val_2_loss"]] == [1]
    assert found["val_2_accuracy"] != found["val_accuracy"][-1:]


@pytest.mark.parametrize(
    ("batch", "other", "is_other"),
    [
        ({"x": torch.tensor([1.0, float("nan")])}, {"x": torch.tensor([1.0, 2.0])}, True),
        ((torch.ones(9, 2), ["a"]), (torch.ones(9, 2), ["b"]), True),
        ((torch.ones(9, 2), ["a"]), (torch.ones(9, 2), ["a"]), False),
        (torch.tensor([1.0, float("nan")]), torch.tensor([1.0, float("nan")]), False),
        (object(), object(), False),
        ([torch.ones(2)], torch.ones(2), True),
    ],
)
def test_data_are_told_apart_by_what_is_in_them(batch: Any, other: Any, is_other: bool) -> None:
    seen = EvaluatedData()
    assert seen.number(batch, n_batches=[3]) == 1
    assert seen.number(other, n_batches=[3]) == 1 + is_other
    assert seen.number(batch, n_batches=[3]) == 1
    assert seen.number(batch, n_batches=[3, 3]) == 2 + is_other


def test_early_stopping_is_said(runs: list[MemoryRun]) -> None:
    class Stuck(classifier()):  # type: ignore[misc]
        def on_train_epoch_end(self) -> None:
            self.log("stuck", 1.0)

    trainer(TrackingCallback(), EarlyStopping("stuck", patience=1), max_epochs=9).fit(Stuck(), data())
    assert runs[0].tags["overt.stopped_early"] == "after epoch 1: stuck"


def test_only_the_fit_that_was_stopped_early_says_so(runs: list[MemoryRun]) -> None:
    class Stuck(classifier()):  # type: ignore[misc]
        def on_train_epoch_end(self) -> None:
            self.log("stuck", 1.0)

    stopping = EarlyStopping("stuck", patience=1)
    fitted = trainer(TrackingCallback(), stopping, max_epochs=9)
    fitted.fit(Stuck(), data())
    stopping.patience, fitted.should_stop, fitted.fit_loop.max_epochs = 9, False, 4
    fitted.fit_loop.epoch_progress.reset()
    fitted.fit(Stuck(), data())
    assert stopping.stopped_epoch == 1
    assert ["overt.stopped_early" in run.tags for run in runs] == [True, False]


def test_a_fit_that_is_stopped_in_its_first_epoch_says_so(runs: list[MemoryRun]) -> None:
    class Diverged(classifier()):  # type: ignore[misc]
        def on_train_epoch_end(self) -> None:
            self.log("bad", float("nan"))

    trainer(TrackingCallback(), EarlyStopping("bad"), max_epochs=9).fit(Diverged(), data())
    assert runs[0].tags["overt.stopped_early"] == "after epoch 0: bad"
    trainer(TrackingCallback(), EarlyStopping("train_loss"), max_epochs=1).fit(classifier()(), data())
    assert "overt.stopped_early" not in runs[1].tags


class Net(torch.nn.Module):
    def __init__(self, kind: str) -> None:
        super().__init__()
        self.forward = getattr(self, kind)

    def one(self, x: Any) -> Any: ...

    def two(self, image: Any, text: Any) -> Any: ...

    def named(self, image: Any, scale: float = 1.0) -> Any: ...


x, y, z = (torch.full((2,), float(value)) for value in range(3))


@pytest.mark.parametrize(
    ("kind", "batch", "expected"),
    [
        ("one", x, [x]),
        ("one", (x, y), [x, [x, y]]),
        ("one", [x, y], [x, [x, y]]),
        ("one", (x,), [x, [x]]),
        ("two", (x, y, z), [(x, y), [x, y, z]]),
        ("two", {"image": x, "text": y, "label": z}, [(x, y), {"image": x, "text": y, "label": z}]),
        ("named", {"image": x, "label": z}, [x, {"image": x, "label": z}]),
        ("one", {"features": x, "label": z}, [x, {"features": x, "label": z}]),
        ("one", {"a": x, "b": z}, [{"a": x, "b": z}, {"a": x, "b": z}]),
    ],
)
def test_inputs_are_found_in_a_batch(kind: str, batch: Any, expected: Any) -> None:
    assert repr(candidates_in(batch, Net(kind))) == repr(expected)


# -- LightningCLI ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tree_name", TREES)
def test_lightning_cli_takes_it_from_yaml_and_its_configuration_is_recorded(
    runs: list[MemoryRun], tree_name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("jsonargparse")
    monkeypatch.setenv("JSONARGPARSE_DEPRECATION_WARNINGS", "off")  # lightning 2.6 on jsonargparse 4.4x
    place = {"lightning.pytorch": "lightning_pytorch"}.get(tree_name, tree_name)
    config = f"""
        trainer:
          accelerator: cpu
          max_epochs: 1
          logger:
            class_path: {tree_name}.loggers.CSVLogger
            init_args: {{save_dir: {tmp_path}}}
          enable_progress_bar: false
          log_every_n_steps: 1
          enable_checkpointing: false
          callbacks:
            - class_path: overt.integrations.lightning.{place}.TrackingCallback
              init_args:
                experiment: from-yaml
                log_model: false
                tags: {{team: blue}}
                gradient_norm: true
        model: {{lr: 0.25}}
    """
    (tmp_path / "config.yaml").write_text(config)
    monkeypatch.setattr(sys, "argv", ["train.py", "fit", "--config", str(tmp_path / "config.yaml")])

    class Loaded(classifier(tree_name)):  # type: ignore[misc]
        def train_dataloader(self) -> Any:
            return data()

        def val_dataloader(self) -> Any:
            return data()

    import_module(f"{tree_name}.cli").LightningCLI(Loaded, seed_everything_default=3)
    (run,) = runs
    assert (run.experiment, run.params["lr"], run.params["seed"]) == ("from-yaml", "0.25", "3")
    assert run.tags["team"] == "blue"
    assert b"experiment: from-yaml" in run.artifacts["config.yaml"]
    assert len(series(run)["grad_norm_step"]) == 6
