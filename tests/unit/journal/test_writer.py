from __future__ import annotations

import json
import multiprocessing
import os
import signal
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from overt.delivery.deliver import RunDelivery
from overt.delivery.lock import hold_unused
from overt.journal import writer as writer_module
from overt.journal.codec import encode, encode_metric
from overt.journal.folder import MAIN_SEGMENT, create_run_folder, run_folder, segment_paths
from overt.journal.reader import iter_heads, iter_records, read_batch, read_blob, read_head
from overt.journal.writer import JournalWriter
from overt.records import Artifact, Lost, Metric, Param, RunEnd, RunSpec, Seal
from overt.stores.memory import MemoryStore

KEY = "0123456789abcdef" * 2
SPEC = RunSpec(KEY, "a run", "Default", 1_700_000_000_000)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return run_folder(tmp_path / ".overt", KEY)


def never_drawn(kind: str, data: object) -> bytes:
    raise AssertionError


def metric(number: int) -> bytes:
    return encode_metric("x", float(number), number, 1_700_000_000_000, None, None)


def values(folder: Path) -> list[float]:
    return [record.value for record in iter_records(folder) if isinstance(record, Metric)]


def test_an_appended_line_is_with_the_operating_system_when_the_call_returns(folder: Path) -> None:
    writer = JournalWriter(folder, SPEC)
    for number in range(3):
        assert writer.append(metric(number))
        assert values(folder)[-1] == number  # read through another descriptor, nothing flushed


def test_the_folder_and_its_files_are_the_owners_alone(folder: Path) -> None:
    previous = os.umask(0)
    try:
        writer = JournalWriter(folder, SPEC)
        writer.append(metric(0))
        writer.store_bytes(b"data")
    finally:
        os.umask(previous)
    base = folder.parent.parent
    for path in (base, base / "runs", folder, folder / "files"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700, path
    assert stat.S_IMODE((folder / MAIN_SEGMENT).stat().st_mode) == 0o600


def test_the_folder_is_private_even_where_its_base_was_made_by_somebody_else(folder: Path) -> None:
    folder.parent.parent.mkdir(mode=0o755)
    create_run_folder(folder)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_git_ignores_the_folder(folder: Path) -> None:
    create_run_folder(folder)
    base = folder.parent.parent
    assert (base / ".gitignore").read_text() == "*\n"
    subprocess.run(["git", "init", "-q"], cwd=base.parent, check=True)
    JournalWriter(folder, SPEC).append(metric(0))
    listed = subprocess.run(
        ["git", "status", "--porcelain", "-uall"], cwd=base.parent, check=True, capture_output=True, text=True
    )
    assert ".overt" not in listed.stdout


def test_a_torn_last_line_is_cut_back(folder: Path) -> None:
    writer = JournalWriter(folder, SPEC)
    writer.append(metric(0))
    writer.close()
    with open(folder / MAIN_SEGMENT, "ab") as file:
        file.write(metric(1)[:-5])
    again = JournalWriter(folder, SPEC)
    again.append(metric(2))
    batch = read_batch(folder / MAIN_SEGMENT, 0)
    assert values(folder) == [0.0, 2.0]
    assert batch.bad_lines == 0


def test_a_torn_line_longer_than_a_block_is_cut_back(folder: Path) -> None:
    writer = JournalWriter(folder, SPEC)
    writer.append(metric(0))
    writer.close()
    with open(folder / MAIN_SEGMENT, "ab") as file:
        file.write(b"x" * 200_000)
    again = JournalWriter(folder, SPEC)
    again.append(metric(1))
    assert values(folder) == [0.0, 1.0]


def test_a_torn_head_is_written_again(folder: Path) -> None:
    create_run_folder(folder)
    (folder / MAIN_SEGMENT).write_bytes(b'{"t":"segment","for')
    JournalWriter(folder, SPEC).append(metric(0))
    head = read_head(folder / MAIN_SEGMENT)
    assert head is not None
    assert head.spec == SPEC
    assert values(folder) == [0.0]


def test_no_line_is_torn_by_32_threads(folder: Path) -> None:
    writer = JournalWriter(folder, SPEC)
    start = threading.Barrier(32)

    def work(thread: int) -> None:
        start.wait()
        for number in range(1000):
            writer.append(metric(thread * 1000 + number))

    threads = [threading.Thread(target=work, args=(thread,)) for thread in range(32)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = values(folder)
    assert sorted(found) == [float(number) for number in range(32_000)]
    for thread in range(32):
        own = [value for value in found if thread * 1000 <= value < (thread + 1) * 1000]
        assert own == sorted(own)


def _append_in_child(writer: JournalWriter, number: int) -> None:
    writer.append(metric(number))


def test_a_forked_child_writes_a_segment_of_its_own(folder: Path) -> None:
    writer = JournalWriter(folder, SPEC)
    writer.append(metric(0))
    child = os.fork()
    if child == 0:
        writer.append(metric(1))
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    writer.append(metric(2))
    main, further = segment_paths(folder)
    assert [r.value for r in read_batch(main, 0).records if isinstance(r, Metric)] == [0.0, 2.0]
    assert [r.value for r in read_batch(further, 0).records if isinstance(r, Metric)] == [1.0]
    owners = [head.owner.pid for _, head in iter_heads(folder)]
    assert owners == [os.getpid(), child]


def test_a_child_forked_while_a_thread_writes_is_not_stuck(folder: Path) -> None:
    writer = JournalWriter(folder, SPEC)
    stop = threading.Event()

    def work() -> None:
        while not stop.is_set():
            writer.append(metric(0))

    thread = threading.Thread(target=work)
    thread.start()
    try:
        for _ in range(20):
            child = os.fork()
            if child == 0:
                signal.alarm(20)  # a child that is stuck ends, and not well
                writer.append(metric(1))
                os._exit(0)
            assert os.waitpid(child, 0)[1] == 0
    finally:
        stop.set()
        thread.join()
    assert values(folder).count(1.0) == 20


def test_a_forked_child_does_not_release_the_parents_lock(folder: Path) -> None:
    writer = JournalWriter(folder, SPEC)
    writer.append(metric(0))
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    with hold_unused(segment_paths(folder)) as unused:
        assert not unused


def test_a_folder_is_not_removed_while_a_writer_holds_it(folder: Path) -> None:
    writer = JournalWriter(folder, SPEC)
    writer.append(encode(Seal()))
    delivery = RunDelivery(folder, MemoryStore(), store_name="memory", draw=never_drawn)
    delivery.deliver()
    assert delivery.is_complete
    assert not delivery.remove_if_safe(is_over=False)
    writer.close()
    assert delivery.remove_if_safe(is_over=False)
    assert not folder.exists()


def test_a_record_after_the_removal_reopens_the_journal_and_arrives(folder: Path) -> None:
    store = MemoryStore()
    writer = JournalWriter(folder, SPEC)
    end = RunEnd("FINISHED", 1_700_000_000_005)
    for record in (Param("lr", "1"), end, Seal()):
        writer.append(encode(record))
    writer.preamble = encode(end)
    writer.close()
    first = RunDelivery(folder, store, store_name="memory", draw=never_drawn)
    first.deliver()
    assert first.remove_if_safe(is_over=False)
    writer.append(metric(7))
    writer.append(encode(Seal()))
    writer.close()
    again = RunDelivery(folder, store, store_name="memory", draw=never_drawn)
    again.deliver()
    assert not again.close_vanished()
    assert again.remove_if_safe(is_over=False)
    assert (store.runs[KEY].status, store.runs[KEY].metrics, store.runs[KEY].params) == (
        "FINISHED",
        {"x": 7.0},
        {"lr": "1"},
    )


def test_a_spooled_file_cannot_be_removed_before_its_record_is_written(folder: Path) -> None:
    writer = JournalWriter(folder, SPEC)
    writer.append(encode(Seal()))
    writer.close()
    delivery = RunDelivery(folder, MemoryStore(), store_name="memory", draw=never_drawn)
    delivery.deliver()
    blob = writer.store_bytes(b"late artifact")
    assert not delivery.remove_if_safe(is_over=False)  # what a courier does at the worst moment
    writer.append(encode(Artifact("late.txt", blob)))
    assert read_blob(folder, blob) == b"late artifact"


def test_bytes_are_spooled_under_their_digest_once(folder: Path, tmp_path: Path) -> None:
    writer = JournalWriter(folder, SPEC)
    (tmp_path / "a.txt").write_bytes(b"same")
    assert writer.store_bytes(b"same") == writer.store_file(tmp_path / "a.txt")
    assert [path.name for path in (folder / "files").iterdir()] == [writer.store_bytes(b"same").sha256]


def test_a_file_may_be_changed_as_soon_as_it_was_spooled(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "model.bin"
    path.write_bytes(b"as recorded")
    blob = JournalWriter(folder, SPEC).store_file(path)
    path.write_bytes(b"changed")
    assert read_blob(folder, blob) == b"as recorded"


def test_sync_reaches_the_disk_for_lines_files_and_folders(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: set[tuple[int, int]] = set()

    def fsync(descriptor: int) -> None:
        found = os.fstat(descriptor)
        synced.add((found.st_dev, found.st_ino))

    monkeypatch.setattr(writer_module.os, "fsync", fsync)
    writer = JournalWriter(folder, SPEC)
    writer.append(metric(0))
    blob = writer.store_bytes(b"data")
    writer.sync()
    for path in (folder / MAIN_SEGMENT, folder / "files" / blob.sha256, folder / "files", folder):
        found = path.stat()
        assert (found.st_dev, found.st_ino) in synced, path


FULL_DISK = """
import resource, sys
from pathlib import Path
from overt.journal.codec import encode, encode_metric
from overt.journal.writer import JournalWriter
from overt.records import RunEnd, RunSpec
said = []
spec = RunSpec("0123456789abcdef" * 2, "a run", "Default", 1)
writer = JournalWriter(Path(sys.argv[1]), spec, on_trouble=said.append)
assert writer.append(encode_metric("x", 0.0, 0, 1, None, None))
size = (writer.folder / "journal.jsonl").stat().st_size
resource.setrlimit(resource.RLIMIT_FSIZE, (size + 20, resource.RLIM_INFINITY))   # room for a third of a line
results = [writer.append(encode_metric("x", float(n), n, 1, None, None)) for n in range(1, 11)]
assert results == [False] * 10, results
assert writer.lost == 10
try:
    writer.store_bytes(b"y" * 10_000)
except OSError:
    pass
else:
    raise AssertionError("the disk is full, and nobody said so")
assert not list((writer.folder / "files").iterdir())
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
assert writer.append(encode_metric("x", 11.0, 11, 1, None, None))
writer.append(encode(RunEnd("FINISHED", 2)))
assert "could not be written" in said[0], said
print("alive")
"""


def test_a_full_disk_keeps_training_alive_and_says_what_was_lost(folder: Path) -> None:
    ended = subprocess.run([sys.executable, "-c", FULL_DISK, str(folder)], check=False, capture_output=True, text=True)
    assert ended.stdout == "alive\n", ended.stderr
    batch = read_batch(folder / MAIN_SEGMENT, 0)
    assert batch.bad_lines == 0
    assert values(folder) == [0.0, 11.0]
    assert [record.count for record in batch.records if isinstance(record, Lost)] == [10]
    store = MemoryStore()
    RunDelivery(folder, store, store_name="memory", draw=never_drawn).deliver()
    assert store.runs[KEY].tags["overt.lost_records"].startswith("10:")
    assert store.runs[KEY].status == "FINISHED"


def test_lines_that_are_written_together_are_lost_one_by_one_on_a_full_disk(folder: Path) -> None:
    begin = FULL_DISK.partition("results = ")[0]
    asked = (
        begin.replace("size + 20", "size + 200")
        + """
lines = [encode_metric("x", float(n), n, 1, None, None) for n in range(1, 11)]
fitting = 200 // len(lines[0])
assert 1 < fitting < 10
assert not writer.append_all(lines)
assert writer.lost == 10 - fitting, writer.lost
print(fitting)
"""
    )
    ended = subprocess.run([sys.executable, "-c", asked, str(folder)], check=False, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert values(folder) == [float(n) for n in range(int(ended.stdout) + 1)]


def test_lines_that_are_written_together_take_one_system_call(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = JournalWriter(folder, SPEC)
    writer.append(metric(0))
    calls = []
    write = os.write
    monkeypatch.setattr(writer_module.os, "write", lambda *given: calls.append(given) or write(*given))
    assert writer.append_all([metric(n) for n in range(1, 100)])
    assert len(calls) == 1
    assert values(folder) == [float(n) for n in range(100)]


def _open_again_and_log(run: object, queue: object) -> None:
    run.log_metric("x", 1.0)  # type: ignore[attr-defined]
    run.set_tag("from", "the child")  # type: ignore[attr-defined]
    queue.put(os.getpid())  # type: ignore[attr-defined]


def test_a_pickled_run_records_into_its_own_segment_in_a_spawned_process(tmp_path: Path) -> None:
    import overt

    overt_run = overt.Tracker(delivery="manual", store="sqlite:///mlflow.db").start_run("parent")
    context = multiprocessing.get_context("spawn")
    queue = context.SimpleQueue()
    child = context.Process(target=_open_again_and_log, args=(overt_run, queue))
    child.start()
    child.join()
    assert child.exitcode == 0
    pid = queue.get()
    folder = run_folder(tmp_path / ".overt", overt_run.key)
    overt_run.log_metric("x", 2.0)
    overt_run.finish()
    heads = list(iter_heads(folder))
    assert {head.spec.key for _, head in heads} == {overt_run.key}
    by_owner = {head.owner.pid: path for path, head in heads}
    assert by_owner.keys() == {os.getpid(), pid}
    assert [r.value for r in read_batch(by_owner[pid], 0).records if isinstance(r, Metric)] == [1.0]
    store = MemoryStore()
    RunDelivery(folder, store, store_name="memory", draw=never_drawn).deliver()
    assert sorted(point.value for point in store.runs[overt_run.key].history) == [1.0, 2.0]
    assert store.runs[overt_run.key].tags["from"] == "the child"
    assert json.loads((folder / "delivered.json").read_bytes())["memory"]["ended_attempt"] == 1
