"""A loop that goes on from its own checkpoint: in the same run, every step once, and to the same weights."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

import torch
from torch.utils.data import DataLoader, TensorDataset

import overt
from overt import checkpoints
from overt.errors import ConfigurationError, OvertWarning, RecordError
from overt.integrations.torch.decorator import track_training
from overt.journal.folder import last_attempt, run_folder
from overt.journal.reader import iter_records
from overt.records import Metric, RunEnd

CHECKPOINTS = Path(".overt", "checkpoints")


@pytest.fixture(autouse=True)
def not_delivered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OVERT_DELIVERY", "manual")


def parts(*, lr: float = 0.1) -> tuple[Any, ...]:
    """Model, loader, loss, optimizer and scheduler: shuffled and with dropout, so that random numbers matter."""
    torch.manual_seed(0)
    X = torch.randn(24, 4)
    loader = DataLoader(TensorDataset(X, (X[:, 0] > 0).long()), batch_size=4, shuffle=True)
    model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Dropout(0.5), torch.nn.ReLU(), torch.nn.Linear(8, 2))
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 2, 0.5)
    return model, loader, torch.nn.CrossEntropyLoss(), optimizer, scheduler


def loop(run: Any, model: Any, loader: Any, criterion: Any, optimizer: Any, scheduler: Any, epochs: int) -> list[int]:
    seen = []
    for epoch in run.epochs(epochs, checkpoint=(model, optimizer, scheduler)):
        seen.append(epoch)
        for x, y in run.batches(loader):
            optimizer.zero_grad()
            loss = criterion(model(x), y)
            loss.backward()
            optimizer.step()
            run.log_metric("mine", loss)
            if fails_in.pop(epoch, None):
                raise ValueError(f"in epoch {epoch}")
        scheduler.step()
    return seen


fails_in: dict[int, bool] = {}
train = track_training(loop)


def folder_of(run: overt.Run) -> Path:
    return run_folder(Path(".overt"), run.key)


def values(run: overt.Run, name: str, attempt: int | None = None) -> list[tuple[int, float]]:
    records = iter_records(folder_of(run), attempt=attempt)
    return [(record.step, record.value) for record in records if isinstance(record, Metric) and record.name == name]


def weights(model: Any) -> list[Any]:
    return [parameter.detach().clone() for parameter in model.parameters()]


def same(ours: list[Any], theirs: list[Any]) -> bool:
    return all(torch.equal(one, other) for one, other in zip(ours, theirs, strict=True))


def test_after_an_error_the_same_call_goes_on_to_the_weights_of_an_undisturbed_one() -> None:
    undisturbed = parts()
    train(None, *undisturbed, epochs=5)
    whole = {name: values(train.run_, name) for name in ("mine", "train_loss", "train_loss_step", "lr", "n_steps")}
    fails_in[3] = True
    with pytest.raises(ValueError, match="in epoch 3"):
        train(None, *parts(), epochs=5)
    failed = train.run_
    again = parts()
    assert train(None, *again, epochs=5) == [3, 4]
    assert (train.run_.key, train.run_.status, failed.status) == (failed.key, "FINISHED", "FAILED")
    assert same(weights(again[0]), weights(undisturbed[0]))
    for name, expected in whole.items():
        merged = dict(values(failed, name, 2)) | dict(values(failed, name, 1))
        assert sorted(merged.items()) == expected, name
        assert values(failed, name, 2)[-1] == expected[-1]


def test_a_loaders_own_generator_goes_on_where_it_was() -> None:
    def seeded() -> tuple[Any, ...]:
        model, loader, *others = parts()
        return model, DataLoader(loader.dataset, 4, shuffle=True, generator=torch.Generator().manual_seed(3)), *others

    undisturbed = seeded()
    train(None, *undisturbed, epochs=5)
    fails_in[3] = True
    with pytest.raises(ValueError, match="in epoch 3"):
        train(None, *seeded(), epochs=5)
    again = seeded()
    train(None, *again, epochs=5)
    assert same(weights(again[0]), weights(undisturbed[0]))


def test_a_finished_training_leaves_nothing_to_go_on_from() -> None:
    first = train(None, *parts(), epochs=2), train.run_
    second = train(None, *parts(), epochs=2), train.run_
    assert first[0] == second[0] == [0, 1]
    assert first[1].key != second[1].key
    assert list(CHECKPOINTS.glob("*.pt")) == []


@pytest.mark.parametrize(("around", "first"), [(contextlib.nullcontext, [0, 1, 2]), (overt.start_run, [])])
def test_a_fold_does_not_go_on_from_the_checkpoint_of_another(around: Any, first: list[int]) -> None:
    with around() as run:
        train(None, *parts(), epochs=3)
        fails_in[2] = True
        with pytest.raises(ValueError, match="in epoch 2"):
            train(None, *parts(), epochs=3)
        failed = train.run_
        if run is not None:
            run.finish("KILLED")
    checkpoints.finished.clear()  # as in the process that is started then
    with around():
        folds = [(train(None, *parts(), epochs=3), train.run_.key) for _ in range(3)]
    assert [epochs for epochs, _ in folds] == [first, [2], [0, 1, 2]]
    assert [key == failed.key for _, key in folds] == [False, True, False]
    assert list(CHECKPOINTS.glob("*.pt")) == []


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_a_forked_worker_that_outlives_its_parent_keeps_no_checkpoint(tmp_path: Path) -> None:
    file = checkpoints.CheckpointFile(tmp_path / "x.pt")
    assert file.hold()
    begun, begins = os.pipe()
    if not (child := os.fork()):
        os.write(begins, b"x")
        signal.pause()
    try:
        os.read(begun, 1)
        assert not checkpoints.CheckpointFile(tmp_path / "x.pt").hold()
        file.release()  # as the parent's end does
        other = checkpoints.CheckpointFile(tmp_path / "x.pt")
        assert other.hold()
        other.release()
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(begun)
        os.close(begins)


def failed_training(**settings: Any) -> overt.Run:
    fails_in[1] = True
    with pytest.raises(ValueError, match="in epoch 1"):
        train(None, *parts(**settings), epochs=3)
    run: overt.Run = train.run_
    return run


def test_other_settings_are_another_training() -> None:
    failed = failed_training(lr=0.1)
    assert train(None, *parts(lr=0.2), epochs=3) == [0, 1, 2]
    assert train.run_.key != failed.key
    assert train(None, *parts(lr=0.1), epochs=3) == [1, 2]
    assert train.run_.key == failed.key


def test_must_goes_on_whatever_the_settings_and_never_does_not() -> None:
    failed = failed_training(lr=0.1)
    must = track_training(resume="must")(loop)
    assert must(None, *parts(lr=0.2), epochs=3) == [1, 2]
    assert must.run_.key == failed.key
    with pytest.raises(ConfigurationError, match="there is no checkpoint of loop in"):
        must(None, *parts(), epochs=3)
    failed = failed_training()
    never = track_training(resume="never")(loop)
    assert never(None, *parts(), epochs=3) == [0, 1, 2]
    assert never.run_.key != failed.key


@pytest.mark.parametrize("resume", ["always", True, None])
def test_another_word_is_refused(resume: Any) -> None:
    with pytest.raises(ConfigurationError, match="`resume` must be 'auto', 'never' or 'must'"):
        track_training(resume=resume)(loop)


def test_must_without_a_run_to_ask_for_epochs_is_refused_where_it_is_written() -> None:
    with pytest.raises(ConfigurationError, match="no parameter called `run`"):

        @track_training(resume="must")
        def train(model: Any) -> None: ...


def test_another_object_than_was_saved_is_refused_and_nothing_is_trained() -> None:
    failed_training()

    def loop(run: Any, model: Any, loader: Any, criterion: Any, optimizer: Any, scheduler: Any, epochs: int) -> None:
        for _ in run.epochs(epochs, checkpoint=(optimizer, model)):
            raise AssertionError("never comes here")

    with pytest.raises(ConfigurationError, match=r"made of Sequential, SGD, StepLR \(got SGD, Sequential\)"):
        track_training(loop)(None, *parts(), epochs=3)


def test_a_model_of_another_shape_is_refused() -> None:
    failed_training()
    _, *others = parts()
    other = torch.nn.Sequential(torch.nn.Linear(4, 7), torch.nn.Linear(7, 2))
    optimizer = torch.optim.SGD(other.parameters(), lr=0.1, momentum=0.9)
    must = track_training(resume="must")(loop)
    given = (other, *others[:2], optimizer, torch.optim.lr_scheduler.StepLR(optimizer, 2, 0.5))
    with pytest.raises(ConfigurationError, match="does not fit what `checkpoint` was given: Sequential: "):
        must(None, *given, epochs=3)


@pytest.mark.parametrize("content", [b"", b"PK nothing", None])
def test_a_file_that_cannot_be_read_is_said_and_left_alone(content: bytes | None) -> None:
    failed_training()
    (path,) = CHECKPOINTS.glob("*.pt")
    if content is None:
        torch.save({"format": 99}, path)
    else:
        path.write_bytes(content)
    with pytest.raises(ConfigurationError, match=r"cannot be read .*resume='never'"):
        train(None, *parts(), epochs=3)
    assert path.exists()


class Canary:
    def __reduce__(self) -> Any:
        return (Path("ran.txt").write_text, ("yes",))


def test_nothing_in_a_crafted_checkpoint_is_run() -> None:
    failed_training()
    (path,) = CHECKPOINTS.glob("*.pt")
    torch.save({"format": 1, "run": Canary()}, path)
    with pytest.raises(ConfigurationError, match="cannot be read"):
        train(None, *parts(), epochs=3)
    assert not Path("ran.txt").exists()


class Odd:
    """Its state does not load with weights only."""

    def state_dict(self) -> Any:
        return {"odd": Canary()}

    def load_state_dict(self, state: Any) -> None: ...


def test_a_state_that_would_not_load_again_is_said_at_once_and_the_training_goes_on() -> None:
    @track_training
    def train(run: Any, odd: Any) -> int:
        return len(list(run.epochs(2, checkpoint=odd)))

    with pytest.warns(
        OvertWarning, match=r"could not be written \(torch.load\(weights_only=True\) .* state of Odd holds more than"
    ):
        assert train(odd=Odd()) == 2
    assert list(CHECKPOINTS.glob("*.pt")) == []
    assert not Path("ran.txt").exists()


@pytest.mark.parametrize("given", [5, "model", (torch.nn.Linear(1, 1), 5)])
def test_what_has_no_state_is_refused_at_the_call(given: Any) -> None:
    @track_training
    def train(run: Any) -> None:
        run.epochs(2, checkpoint=given)

    with pytest.raises(RecordError, match=r"`checkpoint` must be a model.*\(got (int|str)\)"):
        train()


def test_outside_a_decorated_function_a_checkpoint_is_refused_with_a_way_out() -> None:
    with overt.start_run() as run, pytest.raises(RecordError, match=r"run.to_checkpoint\(\)"):
        run.epochs(2, checkpoint=torch.nn.Linear(1, 1))


def test_a_second_loop_with_a_checkpoint_is_refused() -> None:
    @track_training
    def train(run: Any, model: Any) -> None:
        list(run.epochs(1, checkpoint=model))
        run.epochs(1, checkpoint=model)

    with pytest.raises(RecordError, match="an earlier loop has it already"):
        train(model=torch.nn.Linear(1, 1))


def test_in_a_run_of_the_users_the_training_goes_on_and_the_run_is_theirs() -> None:
    fails_in[1] = True
    with pytest.raises(ValueError, match="in epoch 1"), overt.start_run("first") as first:
        train(None, *parts(), epochs=3)
    with overt.start_run("second") as second:
        assert train(None, *parts(), epochs=3) == [1, 2]
    assert train.run_ is second
    assert second.tags["overt.checkpoint_of"] == first.key
    assert list(CHECKPOINTS.glob("*.pt")) == []


def test_a_run_of_the_calls_own_goes_on_in_whatever_run_the_next_call_is_made() -> None:
    failed = failed_training()
    with overt.start_run("around") as around:
        assert train(None, *parts(), epochs=3) == [1, 2]
    assert (train.run_.key, train.run_.status) == (failed.key, "FINISHED")
    assert around.metrics == {}


def test_captured_runs_leave_no_file() -> None:
    with overt.testing.captured_runs() as runs:
        assert train(None, *parts(), epochs=2) == [0, 1]
    assert runs[0].status == "FINISHED"
    assert not Path(".overt").exists()


def test_switched_off_it_loops_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OVERT_DISABLED", "1")
    assert train(None, *parts(), epochs=2) == [0, 1]
    assert not Path(".overt").exists()


def killed_in_epoch_3(
    run: Any, model: Any, loader: Any, criterion: Any, optimizer: Any, scheduler: Any, epochs: int
) -> None:
    for epoch in run.epochs(epochs, checkpoint=(model, optimizer, scheduler)):
        for batch, (x, y) in enumerate(run.batches(loader)):
            optimizer.zero_grad()
            loss = criterion(model(x), y)
            loss.backward()
            optimizer.step()
            run.log_metric("mine", loss)
            if "killed" in sys.argv and (epoch, batch) == (3, 2):
                run.flush()
                os.kill(os.getpid(), signal.SIGKILL)
        scheduler.step()


SCRIPT = """
import sys, torch
sys.path.insert(0, {root!r})
from tests.integrations.test_torch_resume import killed_in_epoch_3, parts, track_training
torch.set_num_threads(1)
train, made = track_training(killed_in_epoch_3), parts()
train(None, *made, epochs=6)
torch.save([parameter.detach() for parameter in made[0].parameters()], "weights.pt")
print(train.run_.id)
"""
NAMES = ("mine", "train_loss_step", "train_loss", "lr", "n_steps")


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_killed_in_epoch_3_it_goes_on_in_one_run_with_every_step_once(
    tmp_path: Path, sqlite_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    mlflow = pytest.importorskip("mlflow")
    undisturbed, whole = parts(), track_training(killed_in_epoch_3)
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    whole(None, *undisturbed, epochs=6)
    torch.set_num_threads(n_threads)

    monkeypatch.setenv("OVERT_STORE", sqlite_uri)
    monkeypatch.delenv("OVERT_DELIVERY")
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(root=str(Path(__file__).parents[2])))
    for word, code in (("killed", -9), ("again", 0)):
        command = [sys.executable, str(script), word]
        ended = subprocess.run(command, check=False, capture_output=True, text=True, cwd=tmp_path)
        assert ended.returncode == code, ended.stderr
    assert same(torch.load(tmp_path / "weights.pt"), weights(undisturbed[0]))
    client = mlflow.MlflowClient(sqlite_uri)
    (run,) = client.search_runs(["0"])
    assert (run.info.run_id, run.info.status) == (ended.stdout.split()[-1], "FINISHED")
    for name in NAMES:
        history = client.get_metric_history(run.info.run_id, name)
        assert sorted((point.step, point.value) for point in history) == values(whole.run_, name), name


HELD = """
import sys, torch
sys.path.insert(0, {root!r})
from tests.integrations.test_torch_resume import track_training

@track_training
def loop(run, model, epochs):
    for epoch in run.epochs(epochs, checkpoint=model):
        print(run.key, epoch, flush=True)
        if sys.argv[1] == "slow" and epoch == 1:
            sys.stdin.read()

loop(model=torch.nn.Linear(2, 2), epochs=2)
"""


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_a_checkpoint_that_a_process_trains_with_is_not_taken_by_another(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(HELD.format(root=str(Path(__file__).parents[2])))
    command = [sys.executable, str(script)]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stdin": subprocess.PIPE, "text": True, "cwd": tmp_path}
    with subprocess.Popen([*command, "slow"], **pipes) as slow:
        first = slow.stdout.readline(), slow.stdout.readline()
        assert [line.split()[1] for line in first] == ["0", "1"]
        quick = subprocess.run([*command, "quick"], check=True, capture_output=True, text=True, cwd=tmp_path)
        assert [line.split()[1] for line in quick.stdout.splitlines()] == ["0", "1"]
        assert quick.stdout.split()[0] != first[0].split()[0]
        slow.kill()
    third = subprocess.run([*command, "quick"], check=True, capture_output=True, text=True, cwd=tmp_path)
    assert third.stdout.splitlines() == [f"{first[0].split()[0]} 1"]


def test_each_time_it_goes_on_is_an_attempt_and_has_its_own_ending() -> None:
    run = failed_training()
    fails_in[2] = True
    with pytest.raises(ValueError, match="in epoch 2"):
        train(None, *parts(), epochs=3)
    assert train(None, *parts(), epochs=3) == [2]
    assert last_attempt(folder_of(run)) == 3
    endings = [
        [record.status for record in iter_records(folder_of(run), attempt=attempt) if isinstance(record, RunEnd)]
        for attempt in (1, 2, 3)
    ]
    assert endings == [["FAILED"], ["FAILED"], ["FINISHED"]]
