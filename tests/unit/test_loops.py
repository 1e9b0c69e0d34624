"""What a loop gets through ``run.epochs`` and ``run.batches``, what is recorded of it, and who is told."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import weakref
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import overt
from overt import clock, loops
from overt.errors import RecordError
from overt.links import null_run
from overt.loops import length_of
from overt.run import Run
from overt.stores.memory import MemoryRun


@pytest.fixture
def captured() -> Iterator[list[MemoryRun]]:
    with overt.testing.captured_runs() as runs:
        yield runs


@pytest.fixture
def run(captured: list[MemoryRun]) -> Run:
    return overt.start_run("mine")


@pytest.fixture
def stored(run: Run, captured: list[MemoryRun]) -> MemoryRun:
    return captured[0]


@pytest.fixture(params=["quiet", "shown"])
def either_way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is passed on must not depend on whether somebody looks."""
    if request.param == "shown":
        monkeypatch.setattr(loops, "is_shown", lambda: True)


def steps(stored: MemoryRun, name: str) -> list[int]:
    return [point.step for point in stored.history if point.name == name]


# -- epochs ------------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("either_way")
@pytest.mark.parametrize("count", [0, 1, 3, np.int64(2)])
def test_epochs_count_from_zero_and_are_known_while_they_last(run: Run, count: int) -> None:
    assert run.epoch is None
    seen = []
    for epoch in run.epochs(count):
        assert run.epoch == epoch
        seen.append(epoch)
    assert seen == list(range(count))
    assert all(type(epoch) is int for epoch in seen)
    assert run.epoch is None


def test_of_loops_within_each_other_the_innermost_epoch_is_known(run: Run) -> None:
    seen = []
    for outer in run.epochs(2):
        for inner in run.epochs(2):
            seen.append((outer, inner, run.epoch))  # noqa: PERF401 - the loop is what is tested
        assert run.epoch == (0, 3)[outer]
    assert seen == [(0, 0, 1), (0, 1, 2), (1, 0, 4), (1, 1, 5)]


def test_a_second_loop_begins_with_0_and_is_recorded_behind_the_first(run: Run, stored: MemoryRun) -> None:
    seen = []
    for epoch in run.epochs(4):
        if epoch == 2:
            break
    for epoch in run.epochs(2):
        seen.append((epoch, run.epoch))
        run.log_metric("mine", 1.0, epoch=run.epoch)
    assert seen == [(0, 3), (1, 4)]
    assert steps(stored, "epoch_seconds") == [0, 1, 3, 4]
    assert steps(stored, "mine") == [3, 4]


def test_each_epoch_has_its_seconds(run: Run, stored: MemoryRun) -> None:
    for _ in run.epochs(3):
        pass
    assert steps(stored, "epoch_seconds") == [0, 1, 2]
    assert all(0 <= point.value < 5 for point in stored.history)


def test_a_value_without_step_takes_its_names_next_step_within_an_epoch_too(run: Run, stored: MemoryRun) -> None:
    for _ in run.epochs(2):
        for value in run.batches([0.5, 0.25]):
            run.log_metric("loss", value)
    assert steps(stored, "loss") == [0, 1, 2, 3]


def test_an_epoch_is_on_the_disk_when_the_next_one_begins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    real = os.fsync
    monkeypatch.setattr(os, "fsync", lambda fd: (synced.append(os.fstat(fd).st_ino), real(fd)))
    run = overt.start_run(tracker=overt.Tracker(store=f"sqlite:///{tmp_path}/m.db", delivery="manual"))
    (journal,) = (tmp_path / ".overt").glob("runs/*/journal.jsonl")
    begun = run.epochs(2)
    next(begun)
    for following in (1, None):
        synced.clear()
        assert next(begun, None) == following
        assert synced.count(journal.stat().st_ino) == 1


def test_tensors_are_read_at_the_epochs_end(run: Run, stored: MemoryRun) -> None:
    torch = pytest.importorskip("torch")
    for _ in run.epochs(2):
        before = len(steps(stored, "loss"))
        for batch in run.batches(torch.arange(3.0)):
            run.log_metric("loss", batch)
        assert len(steps(stored, "loss")) == before
    assert [point.value for point in stored.history if point.name == "loss"] == [0.0, 1.0, 2.0] * 2


@pytest.mark.parametrize("count", [-1, True, 2.0, "3", None, [1]])
def test_what_is_no_number_of_epochs_is_refused_by_the_call(run: Run, count: Any) -> None:
    with pytest.raises(RecordError, match=r"epochs: the number of epochs must be a whole number from 0 up \(got"):
        run.epochs(count)


def test_a_range_of_epochs_is_told_how_many_to_ask_for(run: Run) -> None:
    with pytest.raises(RecordError, match=r"got range\(1, 3\)\): epochs count from 0, so say run\.epochs\(2\)"):
        run.epochs(range(1, 3))  # type: ignore[arg-type]


@pytest.mark.usefixtures("either_way")
def test_what_cannot_be_gone_through_is_refused_by_the_call(run: Run) -> None:
    with pytest.raises(RecordError, match=r"batches: `loader` must be a DataLoader or the like \(got 5\)"):
        run.batches(5)  # type: ignore[arg-type]


def test_a_run_that_is_nowhere_has_loops_too(monkeypatch: pytest.MonkeyPatch, capfd: Any) -> None:
    monkeypatch.setattr(loops, "is_shown", lambda: True)
    monkeypatch.setenv("OVERT_DISABLED", "1")
    run = overt.start_run()
    assert run.is_null
    assert [(epoch, batch) for epoch in run.epochs(2) for batch in run.batches("ab")] == [
        (0, "a"),
        (0, "b"),
        (1, "a"),
        (1, "b"),
    ]
    assert capfd.readouterr() == ("", "")


# -- left early --------------------------------------------------------------------------------------------------------


def left_in_epoch(run: Run, number: int) -> None:
    for epoch in run.epochs(5):
        if epoch == number:
            break


@pytest.mark.usefixtures("either_way")
def test_a_loop_that_is_left_says_so_when_the_run_has_finished(run: Run, stored: MemoryRun) -> None:
    with run:
        left_in_epoch(run, 2)
        left_in_epoch(run, 1)
        assert run.epoch is None
    assert stored.tags["stopped_early"] == "true"
    assert stored.status == "FINISHED"


def test_the_epoch_that_a_loop_is_left_in_has_no_seconds(run: Run, stored: MemoryRun) -> None:
    left_in_epoch(run, 2)
    assert steps(stored, "epoch_seconds") == [0, 1]


def test_a_loop_that_is_left_reads_its_tensors(run: Run, stored: MemoryRun) -> None:
    torch = pytest.importorskip("torch")
    for _ in run.epochs(2):
        run.log_metric("loss", torch.tensor(0.5))
        break
    assert steps(stored, "loss") == [0]


STRICT = """
import os
import overt
run = overt.start_run(tracker=overt.Tracker(delivery="manual", on_error="raise"))
def full(descriptor):
    raise OSError(28, "No space left on device")
for epoch in run.epochs(2):
    os.fsync = full
    break
print("left")
for epoch in run.epochs(2):
    pass
"""


def test_only_an_epochs_end_raises_and_only_where_that_was_asked_for() -> None:
    ended = subprocess.run([sys.executable, "-c", STRICT], check=False, capture_output=True, text=True)
    assert ended.stdout == "left\n"
    assert ended.returncode == 1
    assert "Exception ignored" not in ended.stderr
    assert "JournalError: " in ended.stderr


@pytest.mark.parametrize("count", [0, 3])
def test_a_loop_that_reaches_its_end_did_not_stop_early(run: Run, stored: MemoryRun, count: int) -> None:
    with run:
        for _ in run.epochs(count):
            pass
    assert "stopped_early" not in stored.tags


@pytest.mark.usefixtures("either_way")
def test_an_exception_passes_through_and_is_no_early_stop(run: Run, stored: MemoryRun) -> None:
    error = ValueError("mine")

    def train() -> None:
        with run:
            for _ in run.epochs(3):
                for _ in run.batches("ab"):
                    raise error

    with pytest.raises(ValueError, match="mine") as raised:
        train()
    assert raised.value is error
    assert raised.value.__context__ is None
    assert stored.status == "FAILED"
    assert "stopped_early" not in stored.tags
    assert run.epoch is None


def test_an_exception_that_the_user_stops_with_is_an_early_stop(run: Run, stored: MemoryRun) -> None:
    with run:
        try:
            for _ in run.epochs(3):
                raise StopAsyncIteration
        except StopAsyncIteration:
            pass
    assert stored.tags["stopped_early"] == "true"


def test_a_loop_that_outlives_its_run_records_nothing_after_it(run: Run, stored: MemoryRun) -> None:
    with run:
        begun = run.epochs(3)
        next(begun)
    records = len(stored.history)
    begun.close()  # type: ignore[attr-defined]
    assert "stopped_early" not in stored.tags
    assert len(stored.history) == records


# -- listeners ---------------------------------------------------------------------------------------------------------


class Listener:
    def __init__(self, run: Run, stored: MemoryRun) -> None:
        self.run, self.stored = run, stored
        self.heard: list[tuple[str, int, int | None, int]] = []

    def epoch_begins(self, epoch: int) -> None:
        self.heard.append(("begins", epoch, self.run.epoch, len(steps(self.stored, "epoch_seconds"))))

    def epoch_ends(self, epoch: int) -> None:
        self.heard.append(("ends", epoch, self.run.epoch, len(steps(self.stored, "epoch_seconds"))))


def test_a_listener_hears_of_whole_epochs_before_their_seconds_are_recorded(run: Run, stored: MemoryRun) -> None:
    listener = Listener(run, stored)
    run.loops.listeners.append(listener)
    left_in_epoch(run, 1)
    assert listener.heard == [("begins", 0, 0, 0), ("ends", 0, 0, 0), ("begins", 1, 1, 1)]


# -- batches -----------------------------------------------------------------------------------------------------------


class Loader:
    """Says what is done with it."""

    def __init__(self, name: str, said: list[str]) -> None:
        self.name, self.said = name, said

    def __iter__(self) -> Iterator[object]:
        self.said.append(f"{self.name} begins")
        return self._pass()

    def _pass(self) -> Iterator[object]:
        try:
            for number in range(2):
                self.said.append(f"{self.name} {number}")
                yield number
        finally:
            self.said.append(f"{self.name} is over")


@pytest.mark.usefixtures("either_way")
def test_batches_are_the_loaders_own(run: Run) -> None:
    given = [object(), object(), None]
    seen = list(run.batches(given))
    assert len(seen) == 3
    assert all(ours is theirs for ours, theirs in zip(seen, given, strict=True))
    assert list(run.batches([])) == []


@pytest.mark.usefixtures("either_way")
@pytest.mark.parametrize(
    "go",
    [
        lambda a, b: list(a),
        lambda a, b: list(zip(a, b, strict=True)),
        lambda a, b: [(x, list(b)) for x in a],
        lambda a, b: next(iter(a)),
        lambda a, b: [list(a), list(a)],
        lambda a, b: next((x for x in a if x == 1), None),
    ],
    ids=["once", "side by side", "within", "first only", "twice", "left"],
)
def test_a_loader_is_used_as_if_nothing_stood_between(run: Run, go: Callable[[Any, Any], Any]) -> None:
    bare: list[str] = []
    ours: list[str] = []
    expected = go(Loader("a", bare), Loader("b", bare))
    assert go(run.batches(Loader("a", ours)), run.batches(Loader("b", ours))) == expected
    assert ours == bare


@pytest.mark.usefixtures("either_way")
def test_a_loader_is_let_go_as_soon_as_its_loop_is_left(run: Run) -> None:
    said: list[str] = []
    gc.disable()
    try:
        for _ in run.batches(Loader("a", said)):
            break
        assert said[-1] == "a is over"
    finally:
        gc.enable()


@pytest.mark.usefixtures("either_way")
def test_no_batch_is_held_while_the_next_one_is_made(run: Run) -> None:
    class Batch:
        pass

    held: list[weakref.ref[Batch]] = []

    def made() -> Iterator[Batch]:
        for _ in range(3):
            assert not any(reference() for reference in held)
            batch = Batch()
            held.append(weakref.ref(batch))
            box = [batch]
            del batch
            yield box.pop()

    for batch in run.batches(made()):
        del batch
    assert len(held) == 3


@pytest.mark.usefixtures("either_way")
def test_what_a_loader_raises_passes_through(run: Run) -> None:
    def made() -> Iterator[int]:
        yield 1
        raise KeyError("broken")

    batches = iter(run.batches(made()))
    assert next(batches) == 1
    with pytest.raises(KeyError, match="broken"):
        next(batches)


def test_batches_that_nobody_looks_at_cost_nothing(run: Run) -> None:
    given: Iterable[int] = [1, 2]
    assert type(iter(run.batches(given))) is type(iter(given))


# -- what is asked for the line ----------------------------------------------------------------------------------------


def test_a_stream_is_not_asked_for_its_length() -> None:
    torch = pytest.importorskip("torch")

    class Stream(torch.utils.data.IterableDataset):  # type: ignore[misc, name-defined]
        def __iter__(self) -> Iterator[int]:
            return iter(range(6))

        def __len__(self) -> int:
            return 4

    loader = torch.utils.data.DataLoader(Stream(), batch_size=1)
    assert length_of(loader) is None
    assert len(list(loader)) == 6  # a DataLoader that was asked warns of more samples than that


class Raising:
    def __len__(self) -> int:
        raise OSError("no")


@pytest.mark.parametrize(
    ("loader", "length"), [([1, 2], 2), (iter([1]), 1), ((x for x in "a"), None), (Raising(), None), (5, None)]
)
def test_a_length_is_known_or_not_and_nothing_is_raised(loader: object, length: int | None) -> None:
    assert length_of(loader) == length


def test_the_values_shown_are_the_latest_that_are_numbers_already(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")
    for name in "abcd":
        run.log_metric(name, 0.5)
    run.log_metric("d", torch.tensor(0.25))
    run.log_metric("on_device", torch.tensor(1.0))
    assert set(run.loops.latest()) <= set("abcd")
    run.flush()
    assert run.loops.latest() == {"c": 0.5, "d": 0.25, "on_device": 1.0}
    run.log_metric("d", torch.tensor(9.0))
    assert run.loops.latest()["d"] == 0.25
    later = clock.now_ms() + 10
    monkeypatch.setattr(clock, "time_ns", lambda: later * clock.NS_PER_MS)
    run.log_metric("a", 0.75)
    assert run.loops.latest() == {"a": 0.75, "d": 0.25, "on_device": 1.0}


@pytest.mark.parametrize("kind", ["null", "inherited"])
def test_nothing_is_shown_of_a_run_that_another_process_shows(
    run: Run, monkeypatch: pytest.MonkeyPatch, capfd: Any, kind: str
) -> None:
    monkeypatch.setattr(loops, "is_shown", lambda: True)
    if kind == "null":
        run = null_run(run.spec)
    else:
        run.is_inherited = True
    for _ in run.epochs(2):
        assert list(run.batches("ab")) == ["a", "b"]
    assert capfd.readouterr() == ("", "")
