from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from overt.delivery.deliver import RunDelivery, has_live_owner
from overt.delivery.lock import try_lock
from overt.delivery.progress import Progress, load_progress, save_progress
from overt.delivery.sync import examine, sync
from overt.errors import JournalError, RecordError, StoreRejected, StoreUnavailable
from overt.journal.codec import encode, encode_metric
from overt.journal.folder import DELIVERED, LOCK, MAIN_SEGMENT, REJECTED, create_run_folder, run_folder
from overt.journal.owner import _started, this_process
from overt.journal.writer import JournalWriter
from overt.records import (
    ROWS_TAG,
    Artifact,
    Blob,
    Figure,
    Metric,
    Param,
    Record,
    Row,
    RunEnd,
    RunSpec,
    Seal,
    SegmentHead,
    Tag,
)
from overt.stores.jsonl import JsonlStore
from overt.stores.memory import MemoryStore
from overt.testing import FlakyStore

KEY = "ef" * 16
SPEC = RunSpec(KEY, "a run", "Default", 1_700_000_000_000)
END = RunEnd("FINISHED", 1_700_000_000_009)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return run_folder(tmp_path / ".overt", KEY)


def write(folder: Path, *records: Record, spec: RunSpec = SPEC) -> JournalWriter:
    writer = JournalWriter(folder, spec)
    for record in records:
        writer.append(encode(record))
    writer.close()
    return writer


def test_a_run_is_final_for_its_store_only_when_what_surrounds_it_was_captured(folder: Path, tmp_path: Path) -> None:
    store = JsonlStore(tmp_path / "runs")
    write(folder, Tag("a", "b"), END, Seal())
    delivery = new(folder, store)
    delivery.deliver(is_captured=False)
    assert not store.lines.exists()
    assert not delivery.remove_if_safe(is_over=False), "a run whose journal is gone is never told to be final"
    delivery.deliver()
    assert len(store.lines.read_bytes().splitlines()) == 1
    assert delivery.remove_if_safe(is_over=False)


def test_a_deliverer_that_dies_while_it_removes_a_journal_leaves_nothing_to_deliver(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(folder, Tag("a", "b"), END, Seal())
    delivery = new(folder, MemoryStore())
    delivery.deliver()
    with monkeypatch.context() as patch:
        patch.setattr("overt.delivery.deliver.shutil.rmtree", lambda path, **keywords: (path / MAIN_SEGMENT).unlink())
        assert delivery.remove_if_safe(is_over=False)
    assert not folder.exists()
    assert len(list(folder.parent.iterdir())) == 1, "what was being removed"
    assert list(sync(folder.parent.parent, store_of=lambda spec: "sqlite:///never.db")) == []
    assert list(folder.parent.iterdir()) == []


def metric(number: int) -> Metric:
    return Metric("x", float(number), number, 1)


def new(folder: Path, store: Any, draw: Any = None) -> RunDelivery:
    return RunDelivery(folder, store, store_name="store", draw=draw or (lambda kind, data: b"picture"))


class Picky(MemoryStore):
    """Refuses every metric of odd step, naming it or not."""

    def __init__(self, *, names: bool) -> None:
        super().__init__()
        self.names = names

    def log_batch(self, run_id: str, records: Any) -> None:
        for record in records:
            if isinstance(record, Metric) and record.step % 2:
                raise StoreRejected("odd", record=record if self.names else None)
        super().log_batch(run_id, records)


@pytest.mark.parametrize("names", [True, False])
def test_a_refused_record_is_set_aside_and_takes_no_other_with_it(folder: Path, names: bool) -> None:
    write(folder, *map(metric, range(9)), Param("lr", "1"), END, Seal())
    store = Picky(names=names)
    delivery = new(folder, store)
    delivery.deliver()
    run = store.runs[KEY]
    assert sorted(point.step for point in run.history) == [0, 2, 4, 6, 8]
    assert (run.params, run.status) == ({"lr": "1"}, "FINISHED")
    refused = [json.loads(line) for line in (folder / REJECTED).read_text().splitlines()]
    assert [json.loads(entry["line"])["step"] for entry in refused] == [1, 3, 5, 7]
    assert {entry["reason"] for entry in refused} == {"odd"}
    assert len(delivery.problems) == 4
    assert not delivery.remove_if_safe(is_over=True)  # the journal is the only place that still has them


@pytest.mark.parametrize("names", [True, False])
def test_thousands_of_refused_records_are_no_trouble(folder: Path, names: bool) -> None:
    write(folder, *(replace(metric(number), step=1) for number in range(1200)), metric(2))
    store = Picky(names=names)
    delivery = new(folder, store)
    delivery.deliver()
    assert delivery.progress.rejected == 1200
    assert len(store.runs[KEY].history) == 1


def test_a_store_that_is_away_keeps_what_was_sent_and_goes_on_from_there(folder: Path) -> None:
    write(folder, Param("lr", "1"), END)
    store = FlakyStore(MemoryStore(), ["none", "none", "unavailable"])  # create, params; the ending fails
    delivery = new(folder, store)
    with pytest.raises(StoreUnavailable):
        delivery.deliver()
    assert not delivery.is_complete
    delivery.deliver()
    assert delivery.is_complete
    assert isinstance(store.store, MemoryStore)
    assert store.store.runs[KEY].status == "FINISHED"


def test_the_first_ending_wins(folder: Path) -> None:
    write(folder, RunEnd("FAILED", 1_700_000_000_001), END)
    writer = JournalWriter(folder, SPEC, segment="journal.2-aa.jsonl")
    writer.append(encode(RunEnd("KILLED", 1_700_000_000_002)))
    store = MemoryStore()
    new(folder, store).deliver()
    assert (store.runs[KEY].status, store.runs[KEY].ended_ms) == ("FAILED", 1_700_000_000_001)


def test_a_run_without_an_ending_is_closed_as_killed_once(folder: Path) -> None:
    write(folder, metric(0))
    store = MemoryStore()
    delivery = new(folder, store)
    delivery.deliver(is_over=True)
    assert delivery.close_vanished()
    delivery.deliver(is_over=True)
    assert store.runs[KEY].status == "KILLED"
    assert store.runs[KEY].tags["overt.ending"]
    assert not new(folder, store).close_vanished()


def test_a_worker_that_outlives_its_parent_does_not_keep_the_run_running(folder: Path) -> None:
    gone = replace(this_process(), pid=2**22 - 1, started="0")
    parent = replace(this_process(), pid=os.getppid(), started=_started(os.getppid()) or "")
    create_run_folder(folder)
    (folder / MAIN_SEGMENT).write_bytes(encode(SegmentHead(SPEC, gone)) + encode(metric(0)))
    worker = folder / "journal.2-aa.jsonl"
    worker.write_bytes(encode(SegmentHead(SPEC, parent)) + encode(metric(1)) + b'{"t":"metric","na')
    assert has_live_owner(folder)
    assert examine(folder).state == "vanished"
    assert [outcome.closed for outcome in sync(folder, store_of=lambda spec: f"jsonl:{folder.parent}/there")] == [True]
    with open(worker, "ab") as file:  # nothing that it still says is lost
        file.write(encode(metric(2)).removeprefix(b'{"t":"metric","na'))
    assert examine(folder).state == "live", "it has ended, and its worker goes on"
    store = JsonlStore(folder.parent / "there")
    list(sync(folder, store_of=lambda spec: f"jsonl:{store.folder}"))
    assert store.read_run(KEY).run.status == "KILLED"
    assert [point.step for point in store.iter_all_points(KEY)] == [0, 1, 2]


def test_a_torn_last_line_of_a_dead_process_is_dropped_and_the_rest_complete(folder: Path) -> None:
    write(folder, metric(0), END)
    with open(folder / MAIN_SEGMENT, "ab") as file:
        file.write(encode(metric(1))[:-4])
    store = MemoryStore()
    delivery = new(folder, store)
    delivery.deliver()
    assert not delivery.is_complete
    delivery.deliver(is_over=True)
    assert delivery.is_complete
    assert [point.step for point in store.runs[KEY].history] == [0]
    calls = FlakyStore(store)
    again = new(folder, calls)
    again.deliver(is_over=True)
    assert calls.calls == []  # nothing is sent a second time


class Overtaken(MemoryStore):
    """While it takes a batch, three times, somebody records another metric."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder
        self.batches = 0

    def log_batch(self, run_id: str, records: Any) -> None:
        super().log_batch(run_id, records)
        self.batches += 1
        if self.batches <= 3:
            write(self.folder, metric(self.batches))


def test_a_round_sends_what_was_there_when_it_began(folder: Path) -> None:
    write(folder, metric(0))
    store = Overtaken(folder)
    delivery = new(folder, store)
    for batches in (1, 2):
        assert delivery.deliver()
        assert store.batches == batches
        assert not delivery.is_complete


def test_nothing_is_dropped_of_a_process_that_was_wrongly_thought_to_be_gone(folder: Path) -> None:
    write(folder, metric(0))
    store = Overtaken(folder)
    delivery = new(folder, store)
    delivery.deliver(is_over=True)
    assert delivery.is_complete
    (run,) = store.runs.values()
    assert [point.step for point in run.history] == [0, 1, 2, 3]


def test_a_journal_with_damage_or_refusals_or_news_is_kept(folder: Path) -> None:
    write(folder, metric(0), END, Seal())
    with open(folder / MAIN_SEGMENT, "ab") as file:
        file.write(b"damaged\n")
    delivery = new(folder, MemoryStore())
    delivery.deliver()
    assert delivery.progress.bad_lines == 1
    assert "1 damaged line" in delivery.problems[0]
    assert not delivery.remove_if_safe(is_over=True)


def test_an_unsealed_journal_is_kept_while_its_run_goes_on(folder: Path) -> None:
    write(folder, metric(0), END)
    delivery = new(folder, MemoryStore())
    delivery.deliver()
    assert not delivery.remove_if_safe(is_over=False)
    assert delivery.remove_if_safe(is_over=True)


def test_a_record_that_came_after_the_delivery_keeps_the_journal(folder: Path) -> None:
    writer = write(folder, metric(0), END, Seal())
    delivery = new(folder, MemoryStore())
    delivery.deliver()
    writer.append(encode(metric(1)))
    writer.close()
    assert not delivery.remove_if_safe(is_over=False)


def test_rows_of_all_segments_are_one_table_each_and_later_ones_join_them(folder: Path) -> None:
    store = MemoryStore()
    writer = write(folder, Row("a.csv", {"n": 1}, 10), Row("b.csv", {"m": 9}, 11))
    delivery = new(folder, store)
    delivery.deliver()
    worker = JournalWriter(folder, SPEC, segment="journal.7-abcdef.jsonl")
    worker.append(encode(Row("a.csv", {"n": 0, "x": "y"}, 5)))
    worker.close()
    writer.append(encode(Row("a.csv", {"n": 2}, 20)))
    writer.close()
    new(folder, store).deliver()
    assert store.runs[KEY].artifacts == {"a.csv": b"n,x\n0,y\n1,\n2,\n", "b.csv": b"m\n9\n"}


def test_files_with_the_same_path_arrive_in_their_order(folder: Path) -> None:
    writer = JournalWriter(folder, SPEC)
    for text in (b"one", b"two"):
        writer.append(encode(Artifact("a.txt", writer.store_bytes(text))))
    store = MemoryStore()
    new(folder, store).deliver()
    assert store.runs[KEY].artifacts == {"a.txt": b"two"}


@pytest.mark.parametrize("paths", [("a", "a/b"), ("a/b", "a")])
def test_a_file_where_a_folder_must_be_is_refused_alone(folder: Path, paths: tuple[str, str]) -> None:
    writer = JournalWriter(folder, SPEC)
    blob = writer.store_bytes(b"x")
    for path in (*paths, "c"):
        writer.append(encode(Artifact(path, blob)))
    store = MemoryStore()
    delivery = new(folder, store)
    delivery.deliver()
    assert {"c", paths[0]} <= store.runs[KEY].artifacts.keys()
    (problem,) = delivery.problems
    assert f"artifact {paths[1]} was refused: of two files one has the path of the other's folder" in problem


def test_a_missing_or_exchanged_file_is_refused_and_the_rest_arrives(folder: Path) -> None:
    writer = JournalWriter(folder, SPEC)
    good, bad = writer.store_bytes(b"good"), writer.store_bytes(b"bad")
    for record in (Artifact("good", good), Artifact("bad", bad), Artifact("no", Blob("0" * 64, 3)), metric(0)):
        writer.append(encode(record))
    (folder / "files" / bad.sha256).write_bytes(b"BAD")
    store = MemoryStore()
    delivery = new(folder, store)
    delivery.deliver()
    assert store.runs[KEY].artifacts == {"good": b"good"}
    assert store.runs[KEY].metrics == {"x": 0.0}
    assert delivery.progress.rejected == 2


def test_a_picture_that_cannot_be_drawn_is_refused_and_the_rest_arrives(folder: Path) -> None:
    def draw(kind: str, data: Any) -> bytes:
        if kind == "bad":
            raise RecordError("no such picture")
        return json.dumps(data).encode()

    writer = JournalWriter(folder, SPEC)
    blob, broken = writer.store_bytes(b'{"a": 1}'), writer.store_bytes(b"{")
    records = (Figure("a.png", "good", blob), Figure("b.png", "bad", blob), Figure("c.png", "good", broken))
    for record in records:
        writer.append(encode(record))
    store = MemoryStore()
    delivery = new(folder, store, draw)
    delivery.deliver()
    assert store.runs[KEY].artifacts == {"a.png": b'{"a": 1}'}
    assert delivery.progress.rejected == 2


def test_a_nested_run_brings_its_parent_first(folder: Path, tmp_path: Path) -> None:
    child = replace(SPEC, key="12" * 16, parent_key=KEY)
    write(folder, Tag("a", "b"))
    child_folder = run_folder(tmp_path / ".overt", child.key)
    write(child_folder, metric(0), spec=child)
    store = MemoryStore()
    new(child_folder, store).deliver()
    assert list(store.runs) == [KEY, child.key]


# -- the caller's own run ----------------------------------------------------------------------------------------------


def test_params_of_a_joined_run_wait_for_its_caller_and_its_ending_is_the_callers(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = MemoryStore()
    callers = store.create_run(replace(SPEC, key="34" * 16))
    joined = replace(SPEC, joined_run_id=callers)
    writer = write(folder, Param("lr", "1"), metric(0), END, Seal(), spec=joined)
    delivery = new(folder, store)
    delivery.deliver()
    run = store.runs[callers]
    assert (run.params, run.metrics, run.status) == ({}, {"x": 0.0}, "RUNNING")
    assert not delivery.is_complete
    assert not delivery.remove_if_safe(is_over=False)
    store.finish(callers, "FAILED", 5)
    again = new(folder, store)  # as after a courier's death
    again.deliver()
    assert (run.params, run.status, run.ended_ms) == ({"lr": "1"}, "FAILED", 5)
    assert again.is_complete
    assert not again.close_vanished()
    writer.close()


def test_params_of_a_joined_run_go_out_when_its_script_is_over(folder: Path) -> None:
    store = MemoryStore()
    callers = store.create_run(replace(SPEC, key="34" * 16))
    write(folder, Param("lr", "1"), spec=replace(SPEC, joined_run_id=callers))
    delivery = new(folder, store)
    delivery.deliver(is_over=True)
    assert store.runs[callers].params == {"lr": "1"}
    assert store.runs[callers].status == "RUNNING"


# -- a stranger's journal ----------------------------------------------------------------------------------------------


HOSTILE: list[Any] = [
    b"",
    b"[]",
    b"{",
    b'{"store": 1}',
    b'{"store": {}}',
    b"[" * 100_000,
    json.dumps({"store": {"offsets": {MAIN_SEGMENT: 10**9}}}).encode(),
]
FIELDS: list[tuple[str, Any]] = [
    ("run_id", 5),
    ("offsets", []),
    ("offsets", {MAIN_SEGMENT: -1}),
    ("offsets", {MAIN_SEGMENT: True}),
    ("offsets", {MAIN_SEGMENT: 10**15}),
    ("offsets", {MAIN_SEGMENT: 7}),
    ("models", {"model": 1}),
    ("bad_lines", 1.5),
    ("rejected", "0"),
    ("held_params", 1),
    ("ended_attempt", None),
    ("attempt", True),
    ("repeated", -1),
    ("sealed", "yes"),
    ("unknown", 1),
]


@pytest.mark.parametrize("content", HOSTILE, ids=range(len(HOSTILE)))
def test_a_delivered_json_that_is_none_is_ignored(folder: Path, content: bytes) -> None:
    write(folder, metric(0), END)
    (folder / DELIVERED).write_bytes(content)
    store = MemoryStore()
    new(folder, store).deliver()
    assert (store.runs[KEY].status, store.runs[KEY].metrics) == ("FINISHED", {"x": 0.0})


@pytest.mark.parametrize(("name", "value"), FIELDS, ids=[f"{name}-{value}" for name, value in FIELDS])
def test_a_delivered_json_with_one_wrong_field_is_ignored(folder: Path, name: str, value: Any) -> None:
    write(folder, metric(0), END)
    save_progress(folder, "store", Progress())
    assert load_progress(folder, "store") == Progress()
    content = json.loads((folder / DELIVERED).read_bytes())
    content["store"][name] = value
    (folder / DELIVERED).write_text(json.dumps(content))
    store = MemoryStore()
    new(folder, store).deliver()
    assert (store.runs[KEY].status, store.runs[KEY].metrics) == ("FINISHED", {"x": 0.0})


def test_a_delivered_json_that_is_a_pipe_or_a_link_is_ignored_and_not_waited_for(folder: Path, tmp_path: Path) -> None:
    write(folder, metric(0), END)
    os.mkfifo(folder / DELIVERED)
    assert load_progress(folder, "store") == Progress()
    (folder / DELIVERED).unlink()
    (folder / DELIVERED).symlink_to("/dev/zero")
    assert load_progress(folder, "store") == Progress()
    new(folder, MemoryStore()).deliver()
    assert not (folder / DELIVERED).is_symlink()  # replaced, not written through


def test_progress_of_one_store_leaves_anothers_alone(folder: Path) -> None:
    create_run_folder(folder)
    one, other = Progress(run_id="1", offsets={MAIN_SEGMENT: 5}), Progress(run_id="2", sealed=True)
    save_progress(folder, "one", one)
    save_progress(folder, "other", other)
    assert (load_progress(folder, "one"), load_progress(folder, "other")) == (one, other)
    assert sorted(path.name for path in folder.iterdir()) == [DELIVERED, "files"]


def test_no_link_in_a_strangers_journal_is_written_through(folder: Path, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious\n")
    write(folder, metric(1))
    (folder / REJECTED).symlink_to(victim)
    delivery = new(folder, Picky(names=True))
    delivery.deliver()
    assert delivery.progress.rejected == 1
    (folder / LOCK).symlink_to(victim)
    with pytest.raises(OSError, match="symbolic links"), try_lock(folder / LOCK):
        pass
    assert victim.read_text() == "precious\n"


def test_one_journal_that_cannot_be_read_does_not_stop_the_sync_of_others(tmp_path: Path, sqlite_uri: str) -> None:
    base = tmp_path / ".overt"
    good = run_folder(base, KEY)
    write(good, metric(0), END)
    for number, spoil in enumerate(("link", "folder", "empty", "lock", "format")):
        bad = run_folder(base, f"{number:032x}")
        create_run_folder(bad)
        if spoil == "link":
            (bad / MAIN_SEGMENT).symlink_to(good / MAIN_SEGMENT)
        elif spoil == "folder":
            (bad / MAIN_SEGMENT).mkdir()
        elif spoil == "empty":
            (bad / MAIN_SEGMENT).touch()
        elif spoil == "lock":
            write(bad, metric(0), END, spec=replace(SPEC, key=bad.name))
            (bad / LOCK).symlink_to(tmp_path / "elsewhere")
        else:
            head = encode(SegmentHead(SPEC, this_process())).replace(b'"format":1', b'"format":9')
            (bad / MAIN_SEGMENT).write_bytes(head + encode(metric(0)))
    outcomes = {
        outcome.finding.folder.name: outcome for outcome in sync(base, store_of=lambda spec: sqlite_uri, keep=True)
    }
    assert len(outcomes) == 6
    assert outcomes[KEY].delivered
    for name, outcome in outcomes.items():
        assert name == KEY or (outcome.problem and not outcome.delivered)


def test_a_segment_of_a_format_not_known_here_is_left_alone_and_the_journal_kept(folder: Path) -> None:
    write(folder, metric(0), END, Seal())
    head = encode(SegmentHead(SPEC, this_process())).replace(b'"format":1', b'"format":2')
    (folder / "journal.2-aa.jsonl").write_bytes(head + encode_metric("y", 1.0, 0, 1, None, None))
    store = MemoryStore()
    delivery = new(folder, store)
    delivery.deliver(is_over=True)
    delivery.deliver(is_over=True)
    assert store.runs[KEY].metrics == {"x": 0.0}
    assert len(delivery.problems) == 1
    assert not delivery.remove_if_safe(is_over=True)


# -- whose journal it is -----------------------------------------------------------------------------------------------


def test_a_process_elsewhere_with_our_process_id_counts_as_alive(folder: Path) -> None:
    create_run_folder(folder)
    theirs = replace(this_process(), host="another-container")
    (folder / MAIN_SEGMENT).write_bytes(encode(SegmentHead(SPEC, theirs)) + encode(metric(0)))
    assert has_live_owner(folder)
    assert examine(folder).state == "elsewhere"


def test_our_own_segments_do_not_keep_a_run_alive(folder: Path) -> None:
    write(folder, metric(0))
    assert not has_live_owner(folder)


def test_a_folder_without_a_head_cannot_be_delivered(folder: Path) -> None:
    create_run_folder(folder)
    (folder / MAIN_SEGMENT).write_bytes(encode(metric(0)))
    with pytest.raises(JournalError):
        new(folder, MemoryStore()).deliver()


def test_a_folder_in_which_nothing_has_been_written_yet_is_no_trouble(folder: Path) -> None:
    create_run_folder(folder)
    delivery = new(folder, MemoryStore())
    assert not delivery.deliver()
    write(folder, metric(0))
    assert delivery.deliver()


@pytest.mark.parametrize("has_row", [True, False])
def test_a_run_for_rows_is_delivered_whole_with_its_first_row_and_not_at_all_without(
    folder: Path, has_row: bool
) -> None:
    spec = replace(SPEC, tags={ROWS_TAG: "each is a fit"})
    store = MemoryStore()
    write(folder, Param("model_type", "GaussianNB"), spec=spec)
    assert not new(folder, store).deliver()
    assert store.runs == {}
    if has_row:
        worker = JournalWriter(folder, spec, segment="journal.4711-abcdef.jsonl")
        worker.append(encode(Row("fits.csv", {"seconds": 1.0}, 1)))
        worker.close()
    write(folder, END, Seal(), spec=spec)
    delivery = new(folder, store)
    assert delivery.deliver() == has_row
    assert delivery.is_complete
    assert delivery.remove_if_safe(is_over=False)
    found = [(run.params, run.status, run.artifacts) for run in store.runs.values()]
    table = {"fits.csv": b"seconds\n1.0\n"}
    assert found == ([({"model_type": "GaussianNB"}, "FINISHED", table)] if has_row else [])


def test_points_of_a_row_that_was_never_finished_arrive(folder: Path) -> None:
    store = MemoryStore()
    write(folder, metric(0), spec=replace(SPEC, tags={ROWS_TAG: "each is a fit"}))
    assert new(folder, store).deliver()
    assert len(store.runs) == 1


def test_an_empty_run_for_rows_that_vanished_is_removed(folder: Path) -> None:
    store, spec = MemoryStore(), replace(SPEC, tags={ROWS_TAG: "each is a fit"})
    write(folder, Tag("a", "b"), spec=spec)
    delivery = new(folder, store)
    delivery.deliver(is_over=True)
    assert delivery.close_vanished()
    delivery.deliver(is_over=True)
    assert delivery.remove_if_safe(is_over=True)
    assert store.runs == {}
