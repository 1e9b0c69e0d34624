"""Which run a Trainer's work goes to, and how that run ends; what fails in tracking never reaches the training."""

from __future__ import annotations

import copy
import os
import pickle
import traceback
from collections.abc import Callable, Iterator
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("lightning")

import cloudpickle
import torch
from lightning.pytorch import Callback, LightningDataModule
from lightning.pytorch.tuner import Tuner
from lightning.pytorch.utilities.exceptions import SIGTERMException
from tests.integrations.lightning_parts import FILTERS, TREES, callback_of, classifier, data, series, trainer

import overt
from overt.errors import ConfigurationError, OvertWarning
from overt.integrations.lightning.lightning_pytorch import TrackingCallback
from overt.integrations.lightning.session import Session
from overt.run import Run
from overt.stores.memory import MemoryRun
from overt.testing import captured_runs
from overt.tracker import open_for_hook

pytestmark = [pytest.mark.filterwarnings(each) for each in FILTERS]


@pytest.fixture
def runs() -> Iterator[list[MemoryRun]]:
    with captured_runs() as captured:
        yield captured


def failing(error: BaseException, *, at_step: int = 3) -> Any:
    class Failing(classifier()):  # type: ignore[misc]
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            if self.global_step == at_step:
                raise error
            return super().training_step(batch, batch_idx)

    return Failing()


# -- which run ---------------------------------------------------------------------------------------------------------


def test_within_a_decorated_call_the_callback_alone_tells_of_the_fit(runs: list[MemoryRun]) -> None:
    def train(lr: float = 0.1) -> None:
        fitted, module = trainer(TrackingCallback(log_model=False), num_sanity_val_steps=2), classifier()()
        fitted.fit(module, data(), data())
        fitted.test(module, data())

    train()
    overt.track_training(train)(lr=0.1)
    alone, within = runs
    assert within.params["lr"] == "0.1"
    timed = {"epoch_seconds", "samples_per_second"}
    assert series(alone).keys() == series(within).keys()
    assert {n: [step for step, _ in points] for n, points in series(alone).items() if n not in timed} == {
        n: [step for step, _ in points] for n, points in series(within).items() if n not in timed
    }


def test_a_loop_of_ones_own_beside_a_trainer_in_one_call_is_watched(runs: list[MemoryRun]) -> None:
    class Broken(Callback):
        def on_train_batch_end(self, *_: Any) -> None:
            raise RuntimeError("told nobody")

    def train(criterion: Any, epochs: int = 2) -> None:
        model = torch.nn.Linear(4, 2)
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        for extra in ((), (Broken(),)):
            with suppress(RuntimeError):
                trainer(TrackingCallback(log_model=False), *extra).fit(classifier()(), data())
        for _ in range(3):
            optimizer.zero_grad()
            criterion(model(torch.ones(2, 4)), torch.zeros(2, dtype=torch.long)).backward()
            optimizer.step()

    overt.track_training(train)(torch.nn.CrossEntropyLoss())
    outer = next(run for run in runs if run.name.startswith("train"))
    assert [step for step, _ in series(outer)["train_loss_step"]] == [0, 1, 2]


def test_a_callback_that_fails_at_the_end_tells_no_more() -> None:
    class Failing(TrackingCallback):
        def _finish(self, *_: Any) -> None:
            raise RuntimeError("at its end")

    def train(criterion: Any) -> None:
        with pytest.raises(RuntimeError, match="at its end"):
            trainer(Failing(log_model=False)).fit(classifier()(), data())
        criterion(torch.nn.Linear(4, 2)(torch.ones(2, 4)), torch.zeros(2, dtype=torch.long)).backward()

    strict = overt.Tracker(store="jsonl:experiments", delivery="inline", on_error="raise")
    followed = overt.track_training(train, tracker=strict)
    followed(torch.nn.CrossEntropyLoss())
    assert "train_loss" in followed.run_.metrics


@pytest.mark.parametrize("tree_name", TREES)
def test_fit_validate_test_and_predict_go_to_one_run(runs: list[MemoryRun], tree_name: str) -> None:
    callback = callback_of(tree_name)(experiment="digits", tags={"team": "blue"}, params={"fold": 3}, notes="*why*")
    fitted, module = trainer(callback, tree_name=tree_name), classifier(tree_name)()
    fitted.fit(module, data(), data())
    fitted.validate(module, data())
    fitted.test(module, data())
    fitted.predict(module, data())
    (run,) = runs
    assert (run.status, run.experiment, run.name[:-4]) == ("FINISHED", "digits", "Classifier-")
    assert run.params["fold"] == "3"
    assert run.tags["team"] == "blue"
    assert run.tags["mlflow.note.content"] == "*why*"
    found = series(run)
    assert [step for step, _ in found["val_loss"]] == [0, 1, 1]
    assert [step for step, _ in found["test_loss"]] == [2]
    assert found["predict_samples"] == [(0, 24.0)]
    assert callback.run_.key == run.spec.key


def test_a_second_fit_on_the_same_trainer_is_a_second_run(runs: list[MemoryRun]) -> None:
    fitted = trainer(TrackingCallback())
    fitted.fit(classifier()(), data())
    fitted.fit_loop.epoch_progress.reset()
    fitted.fit(classifier()(), data())
    first, second = runs
    assert first.id != second.id
    assert [run.status for run in runs] == ["FINISHED", "FINISHED"]
    assert len(series(first)["epoch_seconds"]) == len(series(second)["epoch_seconds"]) == 2


@pytest.mark.parametrize("tree_name", TREES)
def test_two_callbacks_in_one_trainer_are_of_two_classes_and_each_goes_on_in_its_own_run(
    runs: list[MemoryRun], tree_name: str, tmp_path: Path
) -> None:
    class Second(callback_of(tree_name)):  # type: ignore[misc]
        """As the documentation says."""

    saving = import_module(f"{tree_name}.callbacks").ModelCheckpoint
    for max_epochs, path in ((1, None), (2, str(tmp_path / "last.ckpt"))):
        callbacks = [callback_of(tree_name)(run_name="one"), Second(run_name="other"), saving(tmp_path, save_last=True)]
        settings = {"max_epochs": max_epochs, "enable_checkpointing": True, "tree_name": tree_name}
        trainer(*callbacks, **settings).fit(classifier(tree_name)(), data(), ckpt_path=path)
    assert [run.name for run in runs] == ["one", "other"]
    for run in runs:
        assert [step for step, _ in series(run)["train_loss_epoch"]] == [0, 1]
        assert len(run.attempts) == 1
        assert run.models


@pytest.mark.parametrize("verb", ["validate", "test", "predict"])
def test_alone_each_is_a_run_of_its_own(runs: list[MemoryRun], verb: str) -> None:
    alone, module = trainer(TrackingCallback()), classifier()()
    for _ in range(2):
        getattr(alone, verb)(module, data())
    assert [run.status for run in runs] == ["FINISHED", "FINISHED"]
    assert runs[0].params["lr"] == "0.1"
    assert runs[0].params["model_type"] == "Classifier"
    expected = {"validate": "val_loss", "test": "test_loss", "predict": "predict_seconds"}[verb]
    assert expected in runs[1].metrics


def test_a_fast_dev_run_records_nothing(runs: list[MemoryRun]) -> None:
    callback = TrackingCallback()
    rehearsal, module = trainer(callback, fast_dev_run=True), classifier()()
    rehearsal.fit(module, data(), data())
    rehearsal.test(module, data())
    assert (runs, callback.run_) == ([], None)

    trainer(callback).fit(module, data())
    rehearsal.test(module, data())
    assert "test_loss" not in runs[0].metrics

    trainer(callback).fit(module, data())
    n_points = len(runs[1].history)
    rehearsal.fit(module, data(), data())
    assert (len(runs), len(runs[1].history), callback.run_) == (2, n_points, None)


def test_a_learning_rate_search_records_nothing(runs: list[MemoryRun]) -> None:
    fitted = trainer(TrackingCallback())
    Tuner(fitted).lr_find(classifier()(), data(), num_training=4, update_attr=False)
    assert runs == []


@pytest.mark.parametrize(
    "copied",
    [
        copy.deepcopy,
        lambda callback: pickle.loads(pickle.dumps(callback)),
        lambda callback: cloudpickle.loads(cloudpickle.dumps(callback)),
    ],
    ids=["deepcopy", "pickle", "cloudpickle"],
)
@pytest.mark.parametrize("tree_name", TREES)
def test_a_copy_of_a_callback_that_has_recorded_knows_settings_and_run_and_records_its_own(
    runs: list[MemoryRun], tree_name: str, copied: Callable[[Any], Any]
) -> None:
    callback = callback_of(tree_name)(tags={"team": "blue"})
    trainer(callback, tree_name=tree_name, max_epochs=1).fit(classifier(tree_name)(), data())
    twin = copied(callback)
    assert twin.run_.key == callback.run_.key
    fitted, module = trainer(twin, tree_name=tree_name, max_epochs=1), classifier(tree_name)()
    fitted.test(module, data())
    fitted.fit(module, data())
    assert [run.tags["team"] for run in runs] == ["blue"] * 3
    assert ["test_loss" in run.metrics for run in runs] == [False, True, False]


def test_it_joins_the_current_run_once_and_leaves_it_open(runs: list[MemoryRun]) -> None:
    with overt.start_run("around") as around:
        fitted, module = trainer(TrackingCallback()), classifier()()
        fitted.fit(module, data())
        fitted.test(module, data())
        assert around.status == "RUNNING"
        assert "test_loss" in series(runs[0]), "nothing waits on its device for the end of a run that is not ours"
        trainer(TrackingCallback()).fit(classifier()(), data())
    first, second = runs
    assert first.id == around.key
    assert "train_loss_epoch" in first.metrics
    assert second.spec.parent_key == around.key


def test_it_records_into_the_run_that_it_is_given_and_leaves_it_open(runs: list[MemoryRun]) -> None:
    with overt.start_run("mine") as run:
        pass
    given = overt.start_run("given")
    with pytest.raises(RuntimeError):
        trainer(TrackingCallback(run=given)).fit(failing(RuntimeError()), data())
    assert given.status == "RUNNING"
    trainer(TrackingCallback(parent=run)).fit(classifier()(), data())
    assert runs[2].spec.parent_key == run.key


@pytest.mark.parametrize("system_metrics", [None, True, False])
def test_a_run_is_opened_with_the_system_metrics_that_were_asked_for(
    runs: list[MemoryRun], system_metrics: bool | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[bool | None] = []

    def opened(name: str, **where: Any) -> Any:
        asked.append(where["system_metrics"])
        return open_for_hook(name, **where)

    monkeypatch.setattr("overt.integrations.lightning.callback.open_for_hook", opened)
    trainer(TrackingCallback(system_metrics=system_metrics), max_epochs=1).fit(classifier()(), data())
    assert asked == [system_metrics]


# -- endings -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tree_name", TREES)
def test_an_error_ends_the_run_as_failed_with_its_traceback(runs: list[MemoryRun], tree_name: str) -> None:
    class Failing(classifier(tree_name)):  # type: ignore[misc]
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            raise ValueError("the batch is odd")

    with pytest.raises(ValueError, match="the batch is odd"):
        trainer(callback_of(tree_name)(), tree_name=tree_name).fit(Failing(), data())
    (run,) = runs
    assert run.status == "FAILED"
    assert run.tags["overt.error"] == "ValueError: the batch is odd"
    assert b"in training_step" in run.artifacts["overt/traceback.txt"]
    assert run.models == {}


def test_what_was_logged_before_an_error_is_recorded(runs: list[MemoryRun]) -> None:
    with pytest.raises(RuntimeError):
        trainer(TrackingCallback(log_every_n_steps=1)).fit(failing(RuntimeError(), at_step=8), data(), data())
    found = series(runs[0])
    assert [step for step, _ in found["train_loss_step"]] == list(range(1, 9))
    assert [step for step, _ in found["train_loss_epoch"]] == [0]


@pytest.mark.parametrize("tree_name", TREES)
def test_ctrl_c_ends_the_run_as_killed(runs: list[MemoryRun], tree_name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("signal.signal", lambda *_: None)  # Lightning ignores Ctrl-C from here on

    class Interrupted(classifier(tree_name)):  # type: ignore[misc]
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            raise KeyboardInterrupt

    with pytest.raises(SystemExit) as exit_:
        trainer(callback_of(tree_name)(), tree_name=tree_name).fit(Interrupted(), data())
    assert exit_.value.code == 1
    assert runs[0].status == "KILLED"
    assert "overt.error" not in runs[0].tags


def test_sigterm_ends_the_run_as_killed(runs: list[MemoryRun]) -> None:
    with pytest.raises(SIGTERMException):
        trainer(TrackingCallback()).fit(failing(SIGTERMException()), data())
    assert runs[0].status == "KILLED"


def test_a_real_sigterm_ends_the_run_as_killed(runs: list[MemoryRun]) -> None:
    class Terminated(classifier()):  # type: ignore[misc]
        def on_train_batch_end(self, *_: Any) -> None:
            os.kill(os.getpid(), 15)  # Lightning's own handler takes it

    with pytest.raises(SIGTERMException):
        trainer(TrackingCallback()).fit(Terminated(), data())
    assert runs[0].status == "KILLED"


def test_an_error_after_training_has_ended_is_still_the_runs_ending(runs: list[MemoryRun]) -> None:
    class Late(Callback):
        def on_fit_end(self, trainer: Any, pl_module: Any) -> None:
            raise RuntimeError("too late")

    with pytest.raises(RuntimeError):
        trainer(TrackingCallback(), Late()).fit(classifier()(), data())
    assert runs[0].status == "FAILED"


@pytest.mark.parametrize("tree_name", TREES)
def test_an_error_in_a_teardown_makes_no_second_run(runs: list[MemoryRun], tree_name: str) -> None:
    class Untidy(classifier(tree_name)):  # type: ignore[misc]
        def teardown(self, stage: str) -> None:
            raise RuntimeError("cannot tidy up")

    class Unprepared(classifier(tree_name)):  # type: ignore[misc]
        def prepare_data(self) -> None:
            raise RuntimeError("no data")

    fitted = trainer(callback_of(tree_name)(), tree_name=tree_name, max_epochs=1)
    with pytest.raises(RuntimeError, match="cannot tidy up"):
        fitted.fit(Untidy(), data())
    assert [run.status for run in runs] == ["FINISHED"], "the fit had ended well"
    with pytest.raises(RuntimeError, match="no data"):
        fitted.fit(Unprepared(), data())
    assert [run.status for run in runs] == ["FINISHED", "FAILED"], "this one never began"


def test_an_error_in_a_test_changes_nothing_of_a_fit_that_has_ended(runs: list[MemoryRun]) -> None:
    class Untestable(classifier()):  # type: ignore[misc]
        def test_step(self, batch: Any, batch_idx: int) -> Any:
            raise RuntimeError

    fitted, module = trainer(TrackingCallback()), Untestable()
    fitted.fit(module, data())
    with pytest.raises(RuntimeError):
        fitted.test(module, data())
    assert runs[0].status == "FINISHED"
    with pytest.raises(RuntimeError):
        trainer(TrackingCallback()).test(Untestable(), data())
    assert runs[1].status == "FAILED"


class NoData(LightningDataModule):
    def setup(self, stage: str) -> None:
        raise RuntimeError("no data")


class NoOptimizer(classifier()):  # type: ignore[misc]
    def configure_optimizers(self) -> Any:
        raise RuntimeError("no optimizer")


@pytest.mark.parametrize(
    ("module", "given", "message"),
    [
        (NoOptimizer, {"train_dataloaders": data()}, "no optimizer"),
        (classifier(), {"datamodule": NoData()}, "no data"),
    ],
)
@pytest.mark.parametrize("has_fitted", [False, True])
def test_a_fit_that_fails_before_it_begins_is_a_failed_run(
    runs: list[MemoryRun], module: Any, given: Any, message: str, has_fitted: bool
) -> None:
    callback = TrackingCallback()
    if has_fitted:
        trainer(callback).fit(classifier()(), data())
    with pytest.raises(RuntimeError, match=message):
        trainer(callback).fit(module(), **given)
    assert [run.status for run in runs] == ["FINISHED"] * has_fitted + ["FAILED"]
    run = runs[-1]
    assert callback.run_.key == run.id
    assert run.tags["overt.error"] == f"RuntimeError: {message}"
    assert message in run.artifacts["overt/traceback.txt"].decode()
    assert run.params["max_epochs"] == "2"
    assert not [name for name in run.tags if "not_recorded" in name]
    trainer(callback).fit(classifier()(), data())
    assert [run.status for run in runs[-2:]] == ["FAILED", "FINISHED"]


def test_what_fails_before_it_begins_leaves_no_run_where_none_is_due(
    runs: list[MemoryRun], monkeypatch: pytest.MonkeyPatch
) -> None:
    for settings, keywords in (({"fast_dev_run": True}, {}), ({}, {"resume": "must"})):
        with pytest.raises(RuntimeError, match="no optimizer"):
            trainer(TrackingCallback(**keywords), **settings).fit(NoOptimizer(), data())
    with pytest.raises(RuntimeError, match="no data"):
        trainer(TrackingCallback()).test(classifier()(), datamodule=NoData())
    on_another_rank = trainer(TrackingCallback())
    monkeypatch.setattr(type(on_another_rank), "is_global_zero", False)
    with pytest.raises(RuntimeError, match="no optimizer"):
        on_another_rank.fit(NoOptimizer(), data())
    assert runs == []


# -- trouble -----------------------------------------------------------------------------------------------------------

HOOKS = [name for name in vars(Session) if not name.startswith("_")]


@pytest.mark.parametrize("method", HOOKS)
def test_whatever_fails_in_tracking_the_training_is_the_same(
    runs: list[MemoryRun], method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError(f"in {method}")

    said, set_tag = list[str](), Run.set_tag
    monkeypatch.setattr(Run, "set_tag", lambda run, name, value: (said.append(name), set_tag(run, name, value))[1])
    monkeypatch.setattr(Session, method, broken)
    if method == "describe_evaluation":
        fitted, module = trainer(TrackingCallback()), classifier()()
        with pytest.warns(OvertWarning, match=f"in {method}"):
            fitted.test(module, data())
        return
    settings = {"enable_checkpointing": method in ("to_state", "save_so_far")}
    fitted, module = trainer(TrackingCallback(log_every_n_steps=1), **settings), classifier()()

    def everything() -> None:
        fitted.fit(module, data(), data())
        fitted.test(module, data())
        fitted.predict(module, data())

    with pytest.warns(OvertWarning, match=f"in {method}") as warned:
        everything()
    assert len([each for each in warned if f"in {method}" in str(each.message)]) <= 4, "not in each batch"
    assert 0 < len([name for name in said if name.startswith("overt.not_recorded.")]) <= 4, "nor in the run"
    assert fitted.global_step == 12
    assert runs[0].status == "FINISHED"


def test_nothing_is_read_from_a_tensor_while_an_epoch_runs(
    runs: list[MemoryRun], monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: list[str] = []

    def counted(name: str) -> Any:
        real = getattr(torch.Tensor, name)

        def read(self: Any, *args: Any, **kwargs: Any) -> Any:
            frames = [frame for frame in traceback.extract_stack() if "/src/overt/" in frame.filename]
            if frames and not any(frame.name in ("flush", "finish") for frame in frames):
                reads.append(f"{name} in {frames[-1].filename}:{frames[-1].lineno}")
            return real(self, *args, **kwargs)

        return read

    callback = TrackingCallback(log_every_n_steps=1, log_model=False, gradient_norm=True)
    fitted, module = trainer(callback, gradient_clip_val=9.0), classifier()()
    with monkeypatch.context() as patch:
        for name in ("item", "cpu", "tolist", "numpy", "__float__", "__bool__", "__int__", "__array__"):
            patch.setattr(torch.Tensor, name, counted(name))
        patch.setattr(Session, "report_validation", lambda *_: None)  # after the last epoch, where reading is due
        patch.setattr(Session, "read_predictions", lambda *_: {})
        fitted.fit(module, data(), data())
        assert reads == []
    assert len(series(runs[0])["train_loss_step"]) == len(series(runs[0])["grad_norm_step"]) == 12


class Odd:
    """A batch that looks like a tensor and cannot be sliced."""

    ndim = 1

    def detach(self) -> Any: ...

    def __getitem__(self, index: Any) -> Any:
        raise TypeError("an odd batch")


def test_an_odd_batch_costs_the_signature_and_nothing_else(runs: list[MemoryRun]) -> None:
    class OfOdd(classifier()):  # type: ignore[misc]
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            loss = self(torch.ones(2, 4)).mean()
            self.log("train_loss", loss, on_step=True, on_epoch=False)
            return loss

    loader = torch.utils.data.DataLoader(range(2), collate_fn=lambda _: Odd())
    with pytest.warns(OvertWarning, match="an odd batch"):
        trainer(TrackingCallback(log_every_n_steps=1), max_epochs=1).fit(OfOdd(), loader)
    (run,) = runs
    assert [step for step, _ in series(run)["train_loss"]] == [1, 2]
    assert run.models["model"].signature is None
    assert run.params["batch_size"] == "1", "as the loader has it"


def test_strict_tracking_raises(runs: list[MemoryRun], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Session, "train_batch_end", lambda *_: 1 / 0)
    monkeypatch.setattr("overt.run.Run.is_strict", True)
    with pytest.raises(ZeroDivisionError):
        trainer(TrackingCallback()).fit(classifier()(), data())
    assert runs[0].status == "FAILED"


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"log_model": "first"}, "`log_model` must be 'last', 'best' or False"),
        ({"log_model": True}, "`log_model`"),
        ({"log_model": 0}, "`log_model`"),
        ({"log_every_n_steps": 0}, "`log_every_n_steps` must be a whole number from 1 on"),
        ({"log_every_n_steps": True}, "`log_every_n_steps`"),
        ({"evaluate": "yes"}, "`evaluate` must be"),
        ({"class_names": "abc"}, "`class_names` must be a sequence of texts"),
        ({"class_names": [1, 2]}, "`class_names`"),
        ({"experiment": 3}, "`experiment` must be a text"),
        ({"run_name": ""}, "`run_name` must be a text"),
        ({"tags": ["a"]}, "`tags` must map names to values"),
        ({"run": "abc"}, "`run` must be"),
        ({"parent": 3}, "`parent` must be"),
        ({"tracker": "sqlite:///x.db"}, "`tracker` must be"),
        ({"gradient_norm": "yes"}, "`gradient_norm` must be"),
        ({"system_metrics": 1}, "`system_metrics` must be"),
    ],
)
def test_a_users_mistake_raises_at_construction(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        TrackingCallback(**wrong)


def test_a_callback_is_copied_and_pickled_before_it_is_used() -> None:
    import copy
    import pickle

    callback = TrackingCallback(experiment="e", log_model=False)
    for twin in (copy.deepcopy(callback), pickle.loads(pickle.dumps(callback))):
        assert twin._where == callback._where


def test_the_name_at_the_top_gives_the_tree_that_is_there() -> None:
    from lightning.pytorch import Callback as OfLightning

    from overt.integrations.lightning import TrackingCallback as AtTheTop

    assert issubclass(AtTheTop, OfLightning)
    assert torch.nn  # the import above is what decides
