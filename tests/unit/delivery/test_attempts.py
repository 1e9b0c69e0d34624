"""A run that goes on from a checkpoint: the first value of each step stands, and the last attempt says how it ended."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from overt.delivery.attempts import Attempts
from overt.delivery.deliver import RunDelivery
from overt.delivery.sync import examine, sync
from overt.journal.codec import encode
from overt.journal.folder import last_attempt, main_segment, new_segment_name, run_folder
from overt.journal.owner import this_process
from overt.journal.reader import newest_head, read_head
from overt.journal.writer import JournalWriter
from overt.records import FIRST_ATTEMPT, Attempt, Metric, Record, RunEnd, RunSpec, Seal, SegmentHead, Tag
from overt.stores.memory import MemoryRun, MemoryStore

KEY = "ab" * 16
T0 = 1_700_000_000_000
SPEC = RunSpec(KEY, "a run", "Default", T0)
SECOND = Attempt(2, T0 + 100_000)
THIRD = Attempt(3, T0 + 200_000)
KILLED = RunEnd("KILLED", T0 + 900)
FINISHED = RunEnd("FINISHED", T0 + 190_000)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return run_folder(tmp_path / ".overt", KEY)


def write(folder: Path, attempt: Attempt, *records: Record, segment: str | None = None) -> None:
    writer = JournalWriter(folder, SPEC, attempt=attempt, segment=segment)
    for record in records:
        writer.append(encode(record))
    writer.close()


def points(steps: Sequence[int], attempt: Attempt, *, name: str = "loss") -> list[Metric]:
    """Points whose value tells the attempt."""
    start = attempt.started_ms or T0
    return [Metric(name, attempt.number + step / 1_000_000, step, start + step) for step in steps]


def deliver(folder: Path, store: MemoryStore, *, is_over: bool = False) -> RunDelivery:
    delivery = RunDelivery(folder, store, store_name="memory", draw=lambda kind, data: b"")
    delivery.deliver(is_over=is_over)
    return delivery


def attempts_by_step(run: MemoryRun, name: str = "loss") -> list[tuple[int, int]]:
    """Step of each point and the attempt that its value is of."""
    return sorted((point.step, int(point.value)) for point in run.history if point.name == name)


def test_the_head_of_a_segment_tells_the_attempt(folder: Path) -> None:
    write(folder, FIRST_ATTEMPT)
    write(folder, FIRST_ATTEMPT, Tag("a", "b"))
    write(folder, SECOND, Tag("a", "c"))
    write(folder, SECOND, Tag("a", "d"), segment=new_segment_name())
    assert main_segment(2) == "journal.attempt-2.jsonl"
    head = read_head(folder / main_segment(2))
    assert head == SegmentHead(SPEC, this_process(), attempt=SECOND)
    assert newest_head(folder) == head
    assert last_attempt(folder) == 2
    assert last_attempt(folder / "none") == 0


def test_the_first_value_of_each_step_stands_and_none_is_missing(folder: Path) -> None:
    store = MemoryStore()
    write(folder, FIRST_ATTEMPT, *points(range(150), FIRST_ATTEMPT), KILLED)
    write(folder, SECOND, *points(range(100, 200), SECOND), FINISHED)
    delivery = deliver(folder, store)
    run = store.runs[KEY]
    assert attempts_by_step(run) == [(step, 1 if step < 150 else 2) for step in range(200)]
    assert (run.status, run.ended_ms) == ("FINISHED", FINISHED.ended_ms)
    assert run.attempts == [SECOND]
    assert delivery.progress.repeated == 50
    assert run.tags["overt.repeated_points"].startswith("50: ")


def test_the_attempts_are_sent_in_their_order_whatever_their_segments_are_called(folder: Path) -> None:
    store = MemoryStore()
    write(folder, SECOND, *points(range(5, 10), SECOND), segment="journal.1-aaaaaa.jsonl")
    write(folder, SECOND, Tag("who", "second"))
    write(
        folder, FIRST_ATTEMPT, *points(range(8), FIRST_ATTEMPT), Tag("who", "first"), segment="journal.9-ffffff.jsonl"
    )
    deliver(folder, store)
    assert attempts_by_step(store.runs[KEY]) == [(step, 1 if step < 8 else 2) for step in range(10)]
    assert store.runs[KEY].tags["who"] == "second"


def test_another_machine_goes_on_with_what_the_store_has(tmp_path: Path) -> None:
    store = MemoryStore()
    here, there = run_folder(tmp_path / "here", KEY), run_folder(tmp_path / "there", KEY)
    write(here, FIRST_ATTEMPT, *points(range(150), FIRST_ATTEMPT), KILLED)
    deliver(here, store)
    write(there, SECOND, *points(range(100, 200), SECOND), FINISHED)
    deliver(there, store)
    assert attempts_by_step(store.runs[KEY]) == [(step, 1 if step < 150 else 2) for step in range(200)]
    assert store.runs[KEY].status == "FINISHED"


def test_what_the_first_machine_delivers_late_doubles_nothing_and_ends_nothing(tmp_path: Path) -> None:
    store = MemoryStore()
    here, there = run_folder(tmp_path / "here", KEY), run_folder(tmp_path / "there", KEY)
    write(here, FIRST_ATTEMPT, *points(range(150), FIRST_ATTEMPT), KILLED)
    write(there, SECOND, *points(range(100, 200), SECOND), FINISHED)
    deliver(there, store)
    deliver(here, store)
    run = store.runs[KEY]
    assert attempts_by_step(run) == [(step, 1 if step < 100 else 2) for step in range(200)]
    assert (run.status, run.ended_ms) == ("FINISHED", FINISHED.ended_ms)


def test_three_attempts_and_a_second_that_never_got_past_the_first(folder: Path) -> None:
    store = MemoryStore()
    write(folder, FIRST_ATTEMPT, *points(range(15), FIRST_ATTEMPT), KILLED)
    write(folder, SECOND, *points(range(10, 12), SECOND), KILLED)
    write(folder, THIRD, *points(range(10, 20), THIRD), FINISHED)
    deliver(folder, store)
    assert attempts_by_step(store.runs[KEY]) == [(step, 1 if step < 15 else 3) for step in range(20)]
    assert (store.runs[KEY].status, store.runs[KEY].attempts) == ("FINISHED", [SECOND, THIRD])


def test_two_values_of_one_step_in_one_attempt_are_both_kept(folder: Path) -> None:
    store = MemoryStore()
    twice = [Metric("loss", 2.25, 9, T0 + 100_500), Metric("loss", 2.5, 9, T0 + 100_501)]
    write(folder, FIRST_ATTEMPT, *points(range(5), FIRST_ATTEMPT))
    write(folder, SECOND, *twice)
    deliver(folder, store)
    deliver(folder, store)  # from its progress
    (folder / "delivered.json").unlink()
    deliver(folder, store)  # from its first byte
    assert [point for point in store.runs[KEY].history if point.step == 9] == twice
    assert len(store.runs[KEY].history) == 7


@pytest.mark.parametrize("n_sent", range(6))
def test_a_deliverer_killed_anywhere_is_replaced_and_nothing_doubles(folder: Path, n_sent: int) -> None:
    class Dies(MemoryStore):
        def log_batch(self, run_id: str, records: Sequence[object]) -> None:
            nonlocal left
            if left == 0:
                raise KeyboardInterrupt
            left -= 1
            super().log_batch(run_id, records)  # type: ignore[arg-type]

    left, store = n_sent, Dies()
    write(folder, FIRST_ATTEMPT, *points(range(1_500), FIRST_ATTEMPT), KILLED)
    write(folder, SECOND, *points(range(1_000, 2_500), SECOND), FINISHED)
    try:
        deliver(folder, store)
    except KeyboardInterrupt:
        left = -1
        deliver(folder, store)
    assert attempts_by_step(store.runs[KEY]) == [(step, 1 if step < 1_500 else 2) for step in range(2_500)]
    assert store.runs[KEY].status == "FINISHED"


def test_a_run_that_was_never_resumed_asks_the_store_for_no_points() -> None:
    class Untold(MemoryStore):
        def iter_points(self, run_id: str, name: str) -> None:  # type: ignore[override]
            raise AssertionError("there is nothing to ask for")

    store = Untold()
    attempts = Attempts(store, store.create_run(SPEC))
    records = points(range(3), FIRST_ATTEMPT)
    assert list(attempts.iter_standing(records, FIRST_ATTEMPT)) == records


def test_in_a_store_that_cannot_resume_the_points_of_all_attempts_arrive(folder: Path) -> None:
    store = MemoryStore()

    class Plain:
        create_run, log_batch, log_artifacts = store.create_run, store.log_batch, store.log_artifacts
        finish, close = store.finish, store.close

    write(folder, FIRST_ATTEMPT, *points(range(3), FIRST_ATTEMPT), KILLED)
    write(folder, SECOND, *points(range(2, 4), SECOND), FINISHED)
    RunDelivery(folder, Plain(), store_name="plain", draw=lambda kind, data: b"").deliver()
    assert attempts_by_step(store.runs[KEY]) == [(0, 1), (1, 1), (2, 1), (2, 2), (3, 2)]
    assert store.runs[KEY].status == "FINISHED"


# -- endings -----------------------------------------------------------------------------------------------------------


def test_an_attempt_that_vanishes_is_closed_although_the_one_before_had_its_ending(folder: Path) -> None:
    store = MemoryStore()
    write(folder, FIRST_ATTEMPT, RunEnd("FAILED", T0 + 500))
    write(folder, SECOND, *points(range(3), SECOND))
    delivery = deliver(folder, store, is_over=True)
    assert store.runs[KEY].status == "RUNNING"
    assert delivery.close_vanished()
    delivery.deliver(is_over=True)
    assert store.runs[KEY].status == "KILLED"
    assert not delivery.close_vanished()


def test_the_first_ending_of_an_attempt_wins(folder: Path) -> None:
    store = MemoryStore()
    write(folder, FIRST_ATTEMPT, KILLED, RunEnd("FINISHED", T0 + 950))
    deliver(folder, store)
    assert store.runs[KEY].status == "KILLED"
    write(folder, SECOND, FINISHED, RunEnd("FAILED", T0 + 195_000))
    deliver(folder, store)
    assert (store.runs[KEY].status, store.runs[KEY].ended_ms) == ("FINISHED", FINISHED.ended_ms)


def test_the_state_of_a_journal_is_that_of_its_last_attempt(folder: Path) -> None:
    write(folder, FIRST_ATTEMPT, KILLED)
    assert examine(folder).state == "live"  # this process wrote it
    gone = replace(this_process(), pid=2**22 - 1, started="0")
    (folder / main_segment(1)).write_bytes(encode(SegmentHead(SPEC, gone)) + encode(KILLED))
    assert examine(folder).state == "ended"
    second = SegmentHead(SPEC, gone, attempt=SECOND)
    (folder / main_segment(2)).write_bytes(encode(second) + encode(points([1], SECOND)[0]))
    assert examine(folder).state == "vanished"


# -- removal -----------------------------------------------------------------------------------------------------------


def test_a_journal_goes_when_its_last_attempt_is_sealed(folder: Path) -> None:
    store = MemoryStore()
    write(folder, FIRST_ATTEMPT, *points(range(3), FIRST_ATTEMPT), KILLED, Seal())
    write(folder, SECOND, *points(range(3, 5), SECOND))
    assert not deliver(folder, store).remove_if_safe(is_over=False)
    write(folder, SECOND, FINISHED, Seal())
    assert deliver(folder, store).remove_if_safe(is_over=False)
    assert not folder.exists()


def test_a_journal_that_has_more_than_the_store_stays(folder: Path) -> None:
    store = MemoryStore()
    write(folder, FIRST_ATTEMPT, *points(range(3), FIRST_ATTEMPT), KILLED)
    write(folder, SECOND, *points(range(2, 5), SECOND), FINISHED, Seal())
    assert not deliver(folder, store).remove_if_safe(is_over=True)
    assert folder.exists()


@pytest.mark.parametrize("damage", [lambda head: head.replace(b'"number":2', b'"number":"2"'), lambda head: b"{}\n"])
def test_a_segment_with_a_damaged_head_loses_no_record(folder: Path, damage: Callable[[bytes], bytes]) -> None:
    store = MemoryStore()
    write(folder, FIRST_ATTEMPT, *points(range(3), FIRST_ATTEMPT))
    head = encode(SegmentHead(SPEC, this_process(), attempt=SECOND))
    lines = b"".join(map(encode, points(range(3, 6), SECOND)))
    (folder / main_segment(2)).write_bytes(damage(head) + lines)
    deliver(folder, store)
    assert [step for step, _ in attempts_by_step(store.runs[KEY])] == list(range(6))


def test_sync_delivers_every_attempt(folder: Path, sqlite_uri: str) -> None:
    mlflow = pytest.importorskip("mlflow")
    write(folder, FIRST_ATTEMPT, *points(range(15), FIRST_ATTEMPT), KILLED)
    write(folder, SECOND, *points(range(10, 20), SECOND), FINISHED)
    (outcome,) = sync(folder.parent.parent, store_of=lambda spec: sqlite_uri)
    assert (outcome.delivered, outcome.problem) == (True, "")
    client = mlflow.MlflowClient(sqlite_uri)
    history = client.get_metric_history(outcome.run_id, "loss")
    assert sorted((point.step, int(point.value)) for point in history) == [
        (step, 1 if step < 15 else 2) for step in range(20)
    ]
    assert client.get_run(outcome.run_id).info.status == "FINISHED"
