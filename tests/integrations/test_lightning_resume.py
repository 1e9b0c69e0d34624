"""A fit that goes on from a checkpoint: in the same run, with no step missing and none doubled."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("lightning")

import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ModelCheckpoint
from tests.integrations.lightning_parts import FILTERS, TREES, callback_of, classifier, data, series, trainer

import overt
from overt.errors import ConfigurationError
from overt.stores.memory import MemoryRun
from overt.testing import captured_runs

pytestmark = [pytest.mark.filterwarnings(line) for line in FILTERS]

TrackingCallback = callback_of("lightning.pytorch")


@pytest.fixture
def runs() -> Iterator[list[MemoryRun]]:
    with captured_runs() as runs:
        yield runs


def checkpointed(callback: Any, *, max_epochs: int = 1, tree_name: str = "lightning.pytorch", lr: float = 0.1) -> str:
    """Fit six steps an epoch; path of the last checkpoint."""
    fitted = trainer(callback, max_epochs=max_epochs, enable_checkpointing=True, tree_name=tree_name)
    fitted.fit(classifier(tree_name)(lr=lr), data())
    return str(fitted.checkpoint_callback.best_model_path)


def go_on(path: str | None, *, tree_name: str = "lightning.pytorch", lr: float = 0.1, **keywords: Any) -> Any:
    callback = callback_of(tree_name)(**keywords)
    settings = {"enable_checkpointing": True, "log_every_n_steps": 1, "tree_name": tree_name}
    trainer(callback, max_epochs=3, **settings).fit(classifier(tree_name)(lr=lr), data(), ckpt_path=path)
    return callback


@pytest.mark.parametrize("tree_name", TREES)
def test_it_goes_on_in_the_same_run_with_every_step_once(runs: list[MemoryRun], tree_name: str) -> None:
    path = checkpointed(callback_of(tree_name)(log_every_n_steps=1), tree_name=tree_name)
    first = runs[0]
    assert first.status == "FINISHED"
    callback = go_on(path, tree_name=tree_name)
    assert runs == [first]
    assert callback.run_.key == first.id
    assert (first.status, len(first.attempts)) == ("FINISHED", 1)
    assert [step for step, _ in series(first)["train_loss_step"]] == list(range(1, 19))
    assert [step for step, _ in series(first)["train_loss_epoch"]] == [0, 1, 2]
    assert "overt.checkpoint_of" not in first.tags


@pytest.mark.filterwarnings("ignore:You're resuming from a checkpoint that ended before the epoch ended")
@pytest.mark.filterwarnings("ignore:Be aware that when using .ckpt_path., callbacks used to create")
def test_an_epoch_that_is_taken_up_in_its_midst_lasts_from_there_on(runs: list[MemoryRun], tmp_path: Path) -> None:
    saving = ModelCheckpoint(tmp_path, filename="{step}", every_n_train_steps=4, save_top_k=-1)
    trainer(TrackingCallback(), saving, max_epochs=1, enable_checkpointing=True).fit(classifier()(), data())
    began = time.perf_counter()
    go_on(str(tmp_path / "step=4.ckpt"), resume="never")
    whole = time.perf_counter() - began
    found = series(runs[1])
    assert [epoch for epoch, _ in found["epoch_seconds"]] == [epoch for epoch, _ in found["samples_per_second"]]
    assert 0 < sum(seconds for _, seconds in found["epoch_seconds"]) < whole
    assert min(rate for _, rate in found["samples_per_second"]) > 4 / whole


def test_steps_behind_the_checkpoint_keep_their_first_value(runs: list[MemoryRun]) -> None:
    path = checkpointed(TrackingCallback(log_every_n_steps=1))
    first = runs[0]
    go_on(path)
    values = series(first)["train_loss_step"]
    go_on(path, resume="must")  # again from the same checkpoint, although the run has got further
    assert series(first)["train_loss_step"] == values
    assert len({attempt.started_ms for attempt in first.attempts}) == 2


@pytest.mark.parametrize("tree_name", TREES)
def test_a_second_fit_from_a_checkpoint_that_its_run_has_left_behind_is_a_run_of_its_own(
    runs: list[MemoryRun], tree_name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("OVERT_QUIET", raising=False)
    path = checkpointed(callback_of(tree_name)(log_every_n_steps=1), tree_name=tree_name)
    go_on(path, tree_name=tree_name, lr=0.1)
    assert "FINISHED" not in capsys.readouterr().err
    go_on(path, tree_name=tree_name, lr=0.2)
    first, fork = runs
    assert [step for step, _ in series(first)["train_loss_step"]] == list(range(1, 19))
    assert [step for step, _ in series(fork)["train_loss_step"]] == list(range(7, 19))
    assert (first.params["lr"], fork.params["lr"]) == ("0.1", "0.2")
    assert fork.tags["overt.checkpoint_of"] == first.id
    assert "param_drift.lr" not in first.tags
    said = f"run {first.id[:8]}, which this checkpoint was made in, has got further and FINISHED"
    assert capsys.readouterr().err.count(said) == 1


def test_a_fit_goes_on_in_a_run_that_has_failed_further_on(runs: list[MemoryRun]) -> None:
    class Failing(classifier()):  # type: ignore[misc]
        def on_train_epoch_start(self) -> None:
            if self.current_epoch == 2:
                raise RuntimeError

    path = checkpointed(TrackingCallback(log_every_n_steps=1))
    with pytest.raises(RuntimeError):
        trainer(TrackingCallback(), max_epochs=3, enable_checkpointing=True).fit(Failing(), data(), ckpt_path=path)
    go_on(path)
    (run,) = runs
    assert run.status == "FINISHED"


def test_changed_params_are_drift(runs: list[MemoryRun]) -> None:
    path = checkpointed(TrackingCallback(), lr=0.1)
    go_on(path, lr=0.2)
    (run,) = runs
    assert (run.params["lr"], run.tags["param_drift.lr"]) == ("0.1", "0.2")


def test_never_starts_a_run_of_its_own_that_says_whose_checkpoint_it_began_with(runs: list[MemoryRun]) -> None:
    path = checkpointed(TrackingCallback(log_every_n_steps=4))
    settings = {"enable_checkpointing": True, "log_every_n_steps": 4}
    callback = TrackingCallback(resume="never")
    resumed_trainer = trainer(callback, max_epochs=3, **settings)
    resumed_trainer.fit(classifier()(), data(), ckpt_path=path)
    resumed_trainer.fit_loop.epoch_progress.reset()
    resumed_trainer.fit(classifier()(), data())
    origin, resumed, again = runs
    assert resumed.tags["overt.checkpoint_of"] == origin.id
    assert "overt.checkpoint_of" not in origin.tags | again.tags
    assert [step for step, _ in series(origin)["train_loss_step"]] == [4]
    assert [step for step, _ in series(resumed)["train_loss_step"]] == [8, 12, 16]
    assert [step for step, _ in series(resumed)["train_loss_epoch"]] == [1, 2]


def test_a_test_alone_from_a_checkpoint_is_a_run_of_its_own(runs: list[MemoryRun]) -> None:
    path = checkpointed(TrackingCallback())
    trainer(TrackingCallback(), enable_checkpointing=True).test(classifier()(), data(), ckpt_path=path)
    origin, tested = runs
    # Lightning 2.4 restores callbacks for fit only
    assert tested.tags.get("overt.checkpoint_of", origin.id) == origin.id
    assert (origin.status, origin.attempts) == ("FINISHED", [])


def test_a_second_fit_without_a_checkpoint_is_a_second_run(runs: list[MemoryRun]) -> None:
    path = checkpointed(TrackingCallback())
    fitted = trainer(TrackingCallback(), max_epochs=2, enable_checkpointing=True)
    fitted.fit(classifier()(), data(), ckpt_path=path)
    fitted.fit_loop.epoch_progress.reset()
    fitted.fit(classifier()(), data())
    assert [len(run.attempts) for run in runs] == [1, 0]


def test_a_run_that_was_not_the_callbacks_own_goes_on_when_asked_to(runs: list[MemoryRun]) -> None:
    with overt.start_run("around") as around:
        path = checkpointed(TrackingCallback())
    with overt.start_run("later") as later:
        go_on(path)
    assert [run.id for run in runs] == [around.key, later.key]
    assert runs[1].tags["overt.checkpoint_of"] == around.key
    go_on(path, resume="must")
    assert len(runs) == 2
    assert len(runs[0].attempts) == 1


def test_a_run_that_is_given_is_recorded_into(runs: list[MemoryRun]) -> None:
    path = checkpointed(TrackingCallback())
    with overt.start_run("given") as given:
        go_on(path, run=given)
    assert runs[1].tags["overt.checkpoint_of"] == runs[0].id
    assert runs[0].attempts == []


def test_must_without_a_checkpoint_of_ours_raises_before_anything_is_trained(
    runs: list[MemoryRun], tmp_path: Path
) -> None:
    with pytest.raises(ConfigurationError, match=r"resume='must' needs a checkpoint .* fit\(\) was given none"):
        go_on(None, resume="must")
    untracked = trainer(Callback(), max_epochs=1, enable_checkpointing=True)
    untracked.fit(classifier()(), data())
    path = str(untracked.checkpoint_callback.best_model_path)
    with pytest.raises(ConfigurationError, match="this one tells of no run"):
        go_on(path, resume="must")
    assert runs == []
    go_on(path)
    assert [run.status for run in runs] == ["FINISHED"]


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"resume": "always"}, "`resume` must be 'auto', 'never' or 'must' .got 'always'."),
        ({"resume": True}, "`resume` must be"),
    ],
)
def test_a_mistake_is_named_at_construction(keywords: Any, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        TrackingCallback(**keywords)


def test_must_and_a_run_name_two_runs(runs: list[MemoryRun]) -> None:
    with overt.start_run("given") as given, pytest.raises(ConfigurationError, match="name two runs"):
        TrackingCallback(run=given, resume="must")


def test_a_checkpoint_loads_with_weights_only_and_tells_plain_values(runs: list[MemoryRun]) -> None:
    path = checkpointed(TrackingCallback(log_every_n_steps=1))
    state = torch.load(path, weights_only=True)["callbacks"]["TrackingCallback"]
    assert runs[0].id in state["run"]["run"]
    assert state["run"]["top_steps"]["train_loss_step"] == 6
    assert (state["n_stepped"], state["is_own"]) == (6, True)


SCRIPT = """
import glob, logging, os, signal, sys, warnings
warnings.simplefilter("ignore")
sys.path.insert(0, {root!r})
import lightning.pytorch as pl, overt, torch
from overt.integrations.lightning.lightning_pytorch import TrackingCallback
from tests.integrations.lightning_parts import classifier, data, trainer
torch.set_num_threads(1)

class KilledAt150(pl.Callback):
    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        if trainer.global_step == 150:
            os.kill(os.getpid(), signal.SIGKILL)

found = glob.glob("checkpoints/*.ckpt")
saving = pl.callbacks.ModelCheckpoint("checkpoints", filename="{{step}}", every_n_train_steps=100, save_top_k=-1)
tracking = TrackingCallback(experiment="resumed", log_every_n_steps=1, resume="must" if found else "auto")
fitted = trainer(tracking, saving, *([] if found else [KilledAt150()]), max_epochs=20, enable_checkpointing=True)
fitted.fit(classifier()(lr=0.1 if not found else 0.05), data(48), ckpt_path=found[0] if found else None)
print(fitted.global_step, tracking.run_.id)
"""


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_killed_at_step_150_it_goes_on_from_100_on_a_machine_that_has_checkpoint_and_store_only(
    tmp_path: Path, sqlite_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("OVERT_STORE", sqlite_uri)
    script = tmp_path / "train.py"
    script.write_text(SCRIPT.format(root=str(Path(__file__).parents[2])))
    client, outputs = mlflow.MlflowClient(sqlite_uri), []
    for machine in ("one", "another"):
        monkeypatch.setenv("OVERT_DIR", str(tmp_path / machine))
        command = [sys.executable, str(script)]
        ended = subprocess.run(command, check=False, capture_output=True, text=True, cwd=tmp_path)
        assert ended.returncode == (-9 if machine == "one" else 0), ended.stderr
        outputs.append(ended.stdout)
        if machine == "one":
            wait_until_killed(client)
    (run,) = client.search_runs([client.get_experiment_by_name("resumed").experiment_id])
    assert outputs[1].split()[-1] == run.info.run_id
    assert run.info.status == "FINISHED"
    history = client.get_metric_history(run.info.run_id, "train_loss_step")
    n_steps = int(outputs[1].split()[-2])
    assert n_steps in (240, 241)  # Lightning 2.4 goes on in the midst of an epoch with one batch more than were left
    assert sorted(point.step for point in history) == list(range(1, n_steps + 1))
    epochs = client.get_metric_history(run.info.run_id, "train_loss_epoch")
    assert sorted(point.step for point in epochs) == list(range(20))
    assert run.data.tags["param_drift.lr"] == "0.05"
    assert int(run.data.tags["overt.repeated_points"].partition(":")[0]) >= 50
    assert len(client.search_logged_models([run.info.experiment_id])) == 1


def wait_until_killed(client: Any) -> None:
    deadline = time.monotonic() + 100
    while time.monotonic() < deadline:
        experiment = client.get_experiment_by_name("resumed")
        if experiment and [r.info.status for r in client.search_runs([experiment.experiment_id])] == ["KILLED"]:
            return
        time.sleep(0.3)
    raise AssertionError("the courier has not closed the run as KILLED")
